//! The connector: brings the persistent connection about, and brings it back for ever.
//!
//! It dials here; what is opened by its path, or given to us, is in [`open`], commands
//! are in [`command`].

mod command;
mod open;

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

use self::command::Carrier;
use crate::worker::context::{Cx, Effect};
use crate::worker::dialer::dial::{DialError, Owner, Request};
use crate::worker::log_limit::Class;
use crate::worker::table::Key;

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
    source: LinkSource,
    backoff: Backoff,
    /// Numbers the commands, so that a late end of an old one is known.
    number: u32,
    /// The command that was started last, until it has ended.
    carrier: Option<Carrier>,
    state: State,
    /// The tunnel that it has brought about last. Older ones, whose peers are going away, end by
    /// themselves.
    tunnel: Option<Key>,
    /// Failures are logged when they change, not each time.
    last_logged: String,
    /// Why the last tunnel did not come up, if it did not: told once, since a device is opened again
    /// every second.
    failed_by: String,
    /// The peer ended the last tunnel when nothing was left to do.
    ended_in_order: bool,
}

#[derive(Debug)]
enum State {
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

    fn number(&self) -> u32 {
        self.number
    }

    fn next_number(&mut self) -> u32 {
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
    fn back_off(&mut self, now: Moment) -> Duration {
        let wait = self.backoff.next(fastrand::u64(..));
        self.state = State::Waiting { until: now.after(wait) };
        wait
    }
}

impl Connector {
    /// Connects if it is time to.
    pub(in crate::worker) fn on_time<D: Driver>(&mut self, cx: &mut Cx<D>, drains: bool) {
        let due = matches!(&self.state, State::Waiting { until } if *until <= cx.now);
        if !due || drains {
            return;
        }
        match &self.source {
            LinkSource::Dial(target) => {
                let target = target.clone();
                self.dial(cx, target);
            }
            LinkSource::Fifos(_) | LinkSource::Device(_) | LinkSource::Given(_) => {
                self.open_link(cx);
            }
            LinkSource::Command(_) => self.start_command(cx),
        }
    }

    /// When it connects again. While the process drains it does not.
    pub(in crate::worker) fn next_timeout(&self, now: Moment, drains: bool) -> Option<Moment> {
        match self.state {
            State::Waiting { until } if until > now || !drains => Some(until),
            _ => None,
        }
    }

    fn dial<D: Driver>(&mut self, cx: &mut Cx<D>, target: Target) {
        let overall = cx.plan.timeouts.connect.map(|connect| cx.now.after(connect));
        let dial = cx.dial(Request::new(Owner::Connector, target, overall));
        match dial {
            Some(_) => self.state = State::Dialing,
            None => {
                self.back_off(cx.now);
            }
        }
    }

    /// The dial has ended.
    pub(in crate::worker) fn on_dialled<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        result: Result<Fd, DialError>,
    ) {
        let error = match result {
            Ok(fd) => {
                self.last_logged.clear();
                self.state = State::Up;
                let name = net::peer_address(&fd).to_string();
                cx.effects.push_back(Effect::LinkUp(Link::socket(fd, name)));
                return;
            }
            Err(error) => error,
        };
        let wait = self.back_off(cx.now);
        let reason = error.to_string();
        if reason == self.last_logged {
            debug!(%reason, wait_secs = wait.as_secs_f32(), "cannot connect");
        } else {
            warn!(%reason, "cannot connect the tunnel; trying again until it can be");
            self.last_logged = reason;
        }
    }

    /// The tunnel of the link that came up last. `None`: as many as there may be are open, of peers
    /// that are going away and never do.
    pub(in crate::worker) fn tunnel_begun<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnel: Option<Key>,
    ) {
        self.tunnel = tunnel;
        if tunnel.is_none() {
            self.redial(cx, None);
        }
    }

    /// Whether a tunnel is the one that it has brought about last.
    pub(in crate::worker) fn has(&self, tunnel: Key) -> bool {
        self.tunnel == Some(tunnel)
    }

    /// Its tunnel is up.
    pub(in crate::worker) fn tunnel_up(&mut self) {
        self.failed_by.clear();
    }

    /// The peer has ended the tunnel: when nothing was left to do, or not.
    pub(in crate::worker) fn tunnel_ended(&mut self, in_order: bool) {
        self.ended_in_order = in_order;
    }

    /// The peer of a tunnel that was up since then is going away: the next one is dialled at once, and
    /// this one kept for its streams. Where there is one link, that has to end first.
    pub(in crate::worker) fn dial_next<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        leaving: Key,
        up_since: Moment,
    ) {
        let dials = matches!(self.source, LinkSource::Dial(_));
        if dials && self.tunnel == Some(leaving) {
            self.redial(cx, Some(up_since));
        }
    }

    /// The connector's tunnel, which was up since then if it ever was, is gone or to be replaced.
    pub(in crate::worker) fn redial<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        up_since: Option<Moment>,
    ) {
        let now = cx.now;
        let leaves = self.leave_command(now);
        self.tunnel = None;
        let up = up_since.map(|since| Duration::from_micros(now.0.saturating_sub(since.0)));
        self.backoff.lost(up);
        if leaves {
            self.state = State::Leaving;
            return;
        }
        let doing = match self.source {
            LinkSource::Dial(_) => "dialling again",
            LinkSource::Fifos(_) | LinkSource::Device(_) => "opening the link again",
            LinkSource::Command(_) => "starting the command again",
            LinkSource::Given(_) => {
                self.state = State::Over;
                return;
            }
        };
        let mut wait = self.back_off(now);
        if !matches!(self.source, LinkSource::Dial(_)) {
            // Until then the driver has let go of what the old link was.
            wait = wait.max(Duration::from_millis(LINK_AGAIN_MILLIS));
        }
        if matches!(self.source, LinkSource::Device(_)) {
            // It is here, and nobody else is waiting for it.
            wait = wait.min(Duration::from_millis(DEVICE_AGAIN_MILLIS));
        }
        self.state = State::Waiting { until: now.after(wait) };
        let again = up_since.is_none() && matches!(self.source, LinkSource::Device(_));
        if again || !cx.log_limit.allow(Class::Tunnel, now) {
            debug!(wait_secs = wait.as_secs_f32(), "{doing}");
        } else {
            info!(wait_secs = wait.as_secs_f32(), "{doing}");
        }
    }
}
