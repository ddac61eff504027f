//! The connector: brings the persistent connection about, and brings it back for ever.
//!
//! It dials here; what is opened by its path, or given to us, is in [`crate::worker::tunnel::openings`], commands
//! are in [`crate::worker::tunnel::command`].

use std::fmt;
use std::time::Duration;

use tracing::{debug, info, warn};

use crate::cli::plan::Target;
use crate::io::device::Device;
use crate::io::driver::{Driver, Fd};
use crate::io::fifo::FifoPair;
use crate::io::link::Link;
use crate::io::net;
use crate::limits::{DEVICE_AGAIN_MILLIS, LINK_AGAIN_MILLIS};
use crate::link::backoff::Backoff;
use crate::session::Moment;

use crate::worker::dialer::dial::{DialError, Owner, Request};
use crate::worker::log_limit::Class;
use crate::worker::table::Key;
use crate::worker::tunnel::command::{self, Carrier};
use crate::worker::{Drain, Worker};

/// How the connector comes by its link.
#[derive(Debug)]
pub(crate) enum LinkSource {
    /// By connecting there.
    Dial(Target),
    /// By opening FIFOs of this machine.
    Fifos(FifoPair),
    /// By opening one device of it, or a socket.
    Device(Device),
    /// By running this.
    Command(String),
    /// It was given to us, and there is no other.
    Given(Option<Link>),
}

/// Its name for the log.
impl fmt::Display for LinkSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkSource::Dial(target) => target.fmt(f),
            LinkSource::Fifos(fifos) => f.write_str(&fifos.name()),
            LinkSource::Device(device) => f.write_str(&device.name()),
            LinkSource::Command(command) => f.write_str(&command::name(command)),
            LinkSource::Given(_) => f.write_str("given"),
        }
    }
}

/// Keeps one tunnel up.
#[derive(Debug)]
pub(in crate::worker) struct Connector {
    pub(in crate::worker) source: LinkSource,
    backoff: Backoff,
    /// Numbers the commands, so that a late end of an old one is known.
    number: u32,
    /// The command that was started last, until it has ended.
    pub(in crate::worker) carrier: Option<Carrier>,
    pub(in crate::worker) state: State,
    /// The tunnel that it has brought about last. Older ones, whose peers are going away, end by
    /// themselves.
    pub(in crate::worker) tunnel: Option<Key>,
    /// Failures are logged when they change, not each time.
    pub(in crate::worker) last_logged: String,
    /// Why the last tunnel did not come up, if it did not: told once, since a device is opened again
    /// every second.
    pub(in crate::worker) failed_by: String,
    /// The peer ended the last tunnel when nothing was left to do.
    pub(in crate::worker) ended_in_order: bool,
}

#[derive(Debug)]
pub(in crate::worker) enum State {
    Waiting {
        until: Moment,
    },
    /// The dial is in progress.
    Dialing,
    Up,
    /// The tunnel is over, and the command that carried it not yet.
    Leaving,
    /// There is nothing to connect with any more.
    Over,
}

impl Connector {
    pub(in crate::worker) fn new(source: LinkSource) -> Connector {
        Connector {
            source,
            backoff: Backoff::default(),
            number: 0,
            carrier: None,
            state: State::Waiting { until: Moment(0) },
            tunnel: None,
            last_logged: String::new(),
            failed_by: String::new(),
            ended_in_order: false,
        }
    }

    pub(in crate::worker) fn number(&self) -> u32 {
        self.number
    }

    pub(in crate::worker) fn next_number(&mut self) -> u32 {
        self.number = self.number.wrapping_add(1);
        self.number
    }

    /// A tunnel has not come up for this reason: whether neither did the last one, on a link that is
    /// soon opened again.
    pub(in crate::worker) fn fails_as_before(&mut self, reason: &str) -> bool {
        let as_before = matches!(self.source, LinkSource::Device(_)) && self.failed_by == reason;
        reason.clone_into(&mut self.failed_by);
        as_before
    }

    /// Comes back to it after a wait that grows with the failures in a row.
    pub(in crate::worker) fn back_off(&mut self, now: Moment) -> Duration {
        let wait = self.backoff.next(fastrand::u64(..));
        self.state = State::Waiting { until: now.after(wait) };
        wait
    }
}

impl<D: Driver> Worker<D> {
    /// Dials if it is time to; when to ask again.
    pub(in crate::worker) fn dial_if_due(&mut self) -> Option<Moment> {
        let now = self.cx.now;
        let connector = self.connector.as_ref()?;
        match &connector.state {
            State::Waiting { until } if *until > now => return Some(*until),
            State::Waiting { .. } if self.drain != Drain::No => return None,
            State::Waiting { .. } => match &connector.source {
                LinkSource::Dial(target) => {
                    let target = target.clone();
                    self.dial(target);
                }
                LinkSource::Fifos(_) | LinkSource::Device(_) | LinkSource::Given(_) => {
                    self.open_link()
                }
                LinkSource::Command(_) => self.start_command(),
            },
            State::Dialing | State::Up | State::Leaving | State::Over => return None,
        }
        match self.connector.as_ref().map(|connector| &connector.state)? {
            State::Waiting { until } => Some(*until),
            _ => None,
        }
    }

    fn dial(&mut self, target: Target) {
        let overall = self.cx.plan.timeouts.connect.map(|connect| self.cx.now.after(connect));
        let dial = self.cx.dial(Request::new(Owner::Connector, target, overall));
        let Some(connector) = &mut self.connector else { return };
        match dial {
            Some(_) => connector.state = State::Dialing,
            None => {
                connector.back_off(self.cx.now);
            }
        }
    }

    /// The peer cannot be reached.
    pub(in crate::worker) fn link_not_connected(&mut self, error: &DialError) {
        let now = self.cx.now;
        let Some(connector) = &mut self.connector else { return };
        let wait = connector.back_off(now);
        let reason = error.to_string();
        if reason == connector.last_logged {
            debug!(%reason, wait_secs = wait.as_secs_f32(), "cannot connect");
        } else {
            warn!(%reason, "cannot connect the tunnel; trying again until it can be");
            connector.last_logged = reason;
        }
    }

    /// The peer is reached.
    pub(in crate::worker) fn link_connected(&mut self, fd: Fd) {
        let Some(connector) = &mut self.connector else { return };
        connector.last_logged.clear();
        connector.state = State::Up;
        let name = net::peer_address(&fd).to_string();
        self.begin_own_tunnel(Link::socket(fd, name));
    }

    /// The connector's link has come about: its tunnel begins.
    pub(in crate::worker) fn begin_own_tunnel(&mut self, link: Link) {
        let tunnel = self.begin_tunnel(link);
        let Some(connector) = &mut self.connector else { return };
        connector.tunnel = tunnel;
        if tunnel.is_none() {
            // As many as there may be are open: of peers that are going away and never do.
            self.redial(None);
        }
    }

    /// The peer of a tunnel that was up since then is going away: the next one is dialled at once, and
    /// this one kept for its streams. Where there is one link, that has to end first.
    pub(in crate::worker) fn dial_next(&mut self, leaving: Key, up_since: Moment) {
        let Some(connector) = &self.connector else { return };
        let dials = matches!(connector.source, LinkSource::Dial(_));
        if dials && connector.tunnel == Some(leaving) && self.drain == Drain::No {
            self.redial(Some(up_since));
        }
    }

    /// The connector's tunnel, which was up since then if it ever was, is gone or to be replaced.
    pub(in crate::worker) fn redial(&mut self, up_since: Option<Moment>) {
        let now = self.cx.now;
        let leaves = self.leave_command();
        let Some(connector) = &mut self.connector else { return };
        connector.tunnel = None;
        let up = up_since.map(|since| Duration::from_micros(now.0.saturating_sub(since.0)));
        connector.backoff.lost(up);
        if leaves {
            connector.state = State::Leaving;
            return;
        }
        let doing = match connector.source {
            LinkSource::Dial(_) => "dialling again",
            LinkSource::Fifos(_) | LinkSource::Device(_) => "opening the link again",
            LinkSource::Command(_) => "starting the command again",
            LinkSource::Given(_) => {
                connector.state = State::Over;
                return;
            }
        };
        let mut wait = connector.back_off(now);
        if !matches!(connector.source, LinkSource::Dial(_)) {
            // Until then the driver has let go of what the old link was.
            wait = wait.max(Duration::from_millis(LINK_AGAIN_MILLIS));
        }
        if matches!(connector.source, LinkSource::Device(_)) {
            // It is here, and nobody else is waiting for it.
            wait = wait.min(Duration::from_millis(DEVICE_AGAIN_MILLIS));
        }
        connector.state = State::Waiting { until: now.after(wait) };
        let again = up_since.is_none() && matches!(connector.source, LinkSource::Device(_));
        if again || !self.cx.log_limit.allow(Class::Tunnel, now) {
            debug!(wait_secs = wait.as_secs_f32(), "{doing}");
        } else {
            info!(wait_secs = wait.as_secs_f32(), "{doing}");
        }
    }
}
