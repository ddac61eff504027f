//! The connector: establishes the link of this process and re-establishes it for ever, with
//! backoff. Its timers are run by [`crate::worker::turn`]; a link is handed to its plane by
//! [`Effect::LinkUp`].
//!
//! Dialling is here; [`open`] opens links by path, [`command`] runs commands.

mod command;
mod open;

use std::fmt;
use std::time::Duration;

use tracing::{debug, info, warn};

use crate::cli::plan::Target;
use crate::control::status::ConnectorStatus;
use crate::io::device::Device;
use crate::io::driver::{Driver, Fd};
use crate::io::fifo::FifoPair;
use crate::io::link::Link;
use crate::io::net;
use crate::limits::{DEVICE_AGAIN_MILLIS, LINK_AGAIN_MILLIS};
use crate::link::backoff::Backoff;
use crate::session::Moment;

use self::command::Carrier;
use crate::worker::context::dialer::dial::{DialError, Owner, Request};
use crate::worker::context::log_limit::Class;
use crate::worker::context::{Cx, Effect};
use crate::worker::table::Key;

/// Where the connector gets its link.
#[derive(Debug)]
pub(crate) enum LinkSource {
    /// Connect to this target.
    Dial(Target),
    /// Open local FIFOs.
    Fifos(FifoPair),
    /// Open a local device or socket.
    Device(Device),
    /// Run this command.
    Command(String),
    /// Passed in at start; cannot be re-established.
    Given(Option<Link>),
}

/// Name in the log.
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
    /// Number of the current command, to recognize late events of an older one.
    number: u32,
    /// The last command, until it has exited.
    carrier: Option<Carrier>,
    state: State,
    /// The newest tunnel. Older ones, whose peers are going away, end by themselves.
    tunnel: Option<Key>,
    /// The tunnel that the next link is to go on with: its own broke.
    suspended: Option<Key>,
    /// Begun while the newest tunnel is doubted, and not up yet.
    beside: Option<Key>,
    /// The last failure logged: only changes are logged.
    last_logged: String,
    /// Why the last tunnel did not come up, if so. Logged once, since a device is reopened every
    /// second.
    failed_by: String,
    /// The peer closed the last tunnel when nothing was outstanding.
    ended_in_order: bool,
}

#[derive(Debug)]
enum State {
    Waiting {
        until: Moment,
    },
    /// A dial is in progress.
    Dialing,
    Up,
    /// The tunnel has ended, its command has not.
    Leaving,
    /// The link cannot be re-established.
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
            suspended: None,
            beside: None,
            last_logged: String::new(),
            failed_by: String::new(),
            ended_in_order: false,
        }
    }

    /// What operators are told of it.
    pub(in crate::worker) fn status(&self, now: Moment) -> ConnectorStatus {
        let (state, until) = match self.state {
            State::Waiting { until } => ("waiting", Some(until)),
            State::Dialing => ("connecting", None),
            State::Up => ("up", None),
            State::Leaving => ("leaving", None),
            State::Over => ("over", None),
        };
        let mut failures = [&self.last_logged, &self.failed_by].into_iter();
        ConnectorStatus {
            target: self.source.to_string(),
            state: state.to_owned(),
            next_attempt_millis: until.map(|until| until.0.saturating_sub(now.0) / 1_000),
            last_failure: failures.find(|failure| !failure.is_empty()).cloned(),
        }
    }

    fn number(&self) -> u32 {
        self.number
    }

    fn next_number(&mut self) -> u32 {
        self.number = self.number.wrapping_add(1);
        self.number
    }

    /// Whether a tunnel did not come up for the same reason as the one before, on a link that is
    /// soon reopened.
    pub(in crate::worker) fn fails_as_before(&mut self, reason: &str) -> bool {
        let as_before = matches!(self.source, LinkSource::Device(_)) && self.failed_by == reason;
        reason.clone_into(&mut self.failed_by);
        as_before
    }

    /// Whether streams wait for the next link: that of their tunnel broke, or is doubted.
    fn is_awaited(&self) -> bool {
        self.to_take_up().is_some()
    }

    /// Schedules the next attempt, with exponential backoff.
    fn back_off(&mut self, now: Moment) -> Duration {
        let wait = self.backoff.next(fastrand::u64(..), self.is_awaited());
        self.state = State::Waiting { until: now.after(wait) };
        wait
    }
}

impl Connector {
    /// Connects if an attempt is due.
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

    /// The next attempt. `None` while draining.
    pub(in crate::worker) fn next_timeout(&self, now: Moment, drains: bool) -> Option<Moment> {
        match self.state {
            State::Waiting { until } if until > now || !drains => Some(until),
            _ => None,
        }
    }

    fn dial<D: Driver>(&mut self, cx: &mut Cx<D>, target: Target) {
        let overall = cx.plan.timeouts.connect.map(|connect| cx.now.after(connect));
        let mut request = Request::new(Owner::Connector, target, overall);
        request.is_urgent = self.is_awaited();
        match cx.dial(request) {
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

    /// Whether it connects to another process by TCP.
    pub(in crate::worker) fn dials(&self) -> bool {
        matches!(self.source, LinkSource::Dial(_))
    }

    /// Registers the tunnel of the new link. `None`: too many tunnels, of peers that are going away
    /// and never do.
    pub(in crate::worker) fn tunnel_begun<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnel: Option<Key>,
    ) {
        if self.tunnel.is_some() {
            self.beside = tunnel;
            return;
        }
        self.tunnel = tunnel;
        if tunnel.is_none() {
            self.redial(cx, None);
        }
    }

    /// Whether this is the newest tunnel.
    pub(in crate::worker) fn has(&self, tunnel: Key) -> bool {
        self.tunnel == Some(tunnel)
    }

    /// A tunnel is up. Returns the one that it was to go on with, which the peer does not know any more.
    pub(in crate::worker) fn tunnel_up(&mut self, tunnel: Key) -> Option<Key> {
        self.failed_by.clear();
        if self.beside.take_if(|beside| *beside == tunnel).is_some() {
            self.tunnel = Some(tunnel);
        }
        self.suspended.take()
    }

    /// Whether another link can follow the one that breaks.
    pub(in crate::worker) fn dials_again(&self) -> bool {
        !matches!(self.source, LinkSource::Given(_))
    }

    /// The link of a tunnel broke: dials another one for it. `since`: when it began, as far as it matters.
    pub(in crate::worker) fn suspend<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnel: Key,
        since: Moment,
    ) {
        self.suspended = Some(tunnel);
        self.replace(cx, Some(since));
    }

    /// The newest tunnel is lost. One that was begun beside it, since it was doubted, is the newest then, and
    /// so is one that is dialled; else a link is dialled. `since`: when it began, as far as it matters.
    pub(in crate::worker) fn replace<D: Driver>(&mut self, cx: &mut Cx<D>, since: Option<Moment>) {
        self.tunnel = self.beside.take();
        if self.tunnel.is_none() && !matches!(self.state, State::Dialing) {
            self.redial(cx, since);
        }
    }

    /// The link of the newest tunnel is doubted: dials another one beside it.
    pub(in crate::worker) fn dial_beside<D: Driver>(&mut self, cx: &mut Cx<D>) {
        if matches!(self.state, State::Up) && self.dials() && self.beside.is_none() {
            debug!("nothing comes from the peer: dialling beside the connection that there is");
            self.state = State::Waiting { until: cx.now };
        }
    }

    /// The newest tunnel.
    pub(in crate::worker) fn newest(&self) -> Option<Key> {
        self.tunnel
    }

    /// The tunnel that a new link is to go on with: its own broke, or is doubted.
    pub(in crate::worker) fn to_take_up(&self) -> Option<Key> {
        self.suspended.or(self.tunnel)
    }

    /// The link that was dialled beside the newest tunnel's is not wanted, or has brought nothing.
    pub(in crate::worker) fn keep_old(&mut self) {
        self.state = State::Up;
    }

    /// The tunnel whose link broke goes on over the newest one.
    pub(in crate::worker) fn resumed(&mut self, tunnel: Key) {
        self.failed_by.clear();
        (self.tunnel, self.suspended, self.beside) = (Some(tunnel), None, None);
        self.state = State::Up;
    }

    /// A tunnel is over. Returns whether it was begun beside the newest one.
    pub(in crate::worker) fn forget(&mut self, tunnel: Key) -> bool {
        self.suspended.take_if(|suspended| *suspended == tunnel);
        self.beside.take_if(|beside| *beside == tunnel).is_some()
    }

    /// The tunnel that was begun beside the newest one is over, and that one is doubted still.
    pub(in crate::worker) fn dial_beside_again(&mut self, now: Moment) {
        self.back_off(now);
    }

    /// The peer has closed the tunnel. `in_order`: nothing was outstanding.
    pub(in crate::worker) fn tunnel_ended(&mut self, in_order: bool) {
        self.ended_in_order = in_order;
    }

    /// The peer of a tunnel is going away: dials the next tunnel at once and keeps this one for its
    /// streams. With other link sources the old link has to end first.
    pub(in crate::worker) fn dial_next<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        leaving: Key,
        up_since: Moment,
    ) {
        if self.dials() && self.tunnel == Some(leaving) {
            self.redial(cx, Some(up_since));
        }
    }

    /// The newest tunnel is gone or is to be replaced. `up_since`: when it came up, if it did.
    fn redial<D: Driver>(&mut self, cx: &mut Cx<D>, up_since: Option<Moment>) {
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
            // By then the driver has released the old link.
            wait = wait.max(Duration::from_millis(LINK_AGAIN_MILLIS));
        }
        if matches!(self.source, LinkSource::Device(_)) {
            // A local device is not shared, so a long wait helps no one.
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
