//! The connector: dials the persistent connection, and dials again for ever.

use std::io;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::dial::Dial;
use super::flow::FLOW_BIT;
use super::token::Kind;
use super::{Drain, Worker};
use crate::engine::driver::{Driver, Fd};
use crate::engine::resolver::{Answer, Resolver};
use crate::engine::worker::table::Key;
use crate::link::backoff::Backoff;
use crate::params::plan::Target;
use crate::session::Moment;

/// The highest bit of a resolver's token tells the connector's questions from those of exits.
const CONNECTOR_BIT: u64 = 1 << 63;
/// The next one tells those of pairs.
pub(super) const PAIR_BIT: u64 = 1 << 62;

/// Dials one target.
#[derive(Debug)]
pub(super) struct Connector {
    target: Target,
    backoff: Backoff,
    /// Numbers the dials, so that a late end of an old one is known.
    number: u32,
    state: State,
    /// Failures are logged when they change, not each time.
    last_logged: String,
}

#[derive(Debug)]
enum State {
    Waiting { until: Moment },
    Resolving { dial: Dial },
    Connecting { dial: Dial, fd: Fd, deadline: Option<Moment> },
    Up,
}

impl Connector {
    pub(super) fn new(target: Target) -> Connector {
        Connector {
            target,
            backoff: Backoff::default(),
            number: 0,
            state: State::Waiting { until: Moment(0) },
            last_logged: String::new(),
        }
    }
}

impl<D: Driver> Worker<D> {
    /// Dials if it is time to; when to ask again.
    pub(super) fn dial_if_due(&mut self) -> Option<Moment> {
        let now = self.now;
        let connector = self.connector.as_mut()?;
        match &mut connector.state {
            State::Waiting { until } if *until > now => return Some(*until),
            State::Waiting { .. } if self.drain != Drain::No => return None,
            State::Waiting { .. } => {
                let overall = self.plan.timeouts.connect.map(|connect| now.after(connect));
                let mut dial = Dial::new(connector.target.clone(), overall);
                connector.number = connector.number.wrapping_add(1);
                if let Some(address) = Resolver::literal(&connector.target) {
                    dial.resolved(Ok(vec![address]));
                    self.start_dial(dial);
                } else {
                    let token = CONNECTOR_BIT | u64::from(connector.number);
                    match self.resolver.ask(token, &connector.target) {
                        Ok(()) => connector.state = State::Resolving { dial },
                        Err(error) => {
                            dial.resolved(Err(error));
                            self.dial_failed(&dial);
                        }
                    }
                }
            }
            State::Connecting { deadline: Some(deadline), .. } if *deadline <= now => {
                let up = State::Up;
                if let State::Connecting { mut dial, fd, .. } =
                    std::mem::replace(&mut connector.state, up)
                {
                    self.driver.cancel_all(&fd);
                    dial.timed_out(now);
                    connector.number = connector.number.wrapping_add(1);
                    self.start_dial(dial);
                }
            }
            State::Connecting { deadline, .. } => return *deadline,
            State::Resolving { .. } | State::Up => return None,
        }
        match self.connector.as_ref().map(|connector| &connector.state)? {
            State::Waiting { until } => Some(*until),
            State::Connecting { deadline, .. } => *deadline,
            _ => None,
        }
    }

    fn start_dial(&mut self, mut dial: Dial) {
        let now = self.now;
        let Some(connector) = &mut self.connector else { return };
        let token = Kind::Dial.number(connector.number);
        match dial.start(&mut self.driver, &self.congestion, token) {
            Some(fd) => {
                let deadline = dial.deadline(now);
                connector.state = State::Connecting { dial, fd, deadline };
            }
            None => self.dial_failed(&dial),
        }
    }

    fn dial_failed(&mut self, dial: &Dial) {
        let now = self.now;
        let Some(connector) = &mut self.connector else { return };
        let wait = connector.backoff.next(fastrand::u64(..));
        connector.state = State::Waiting { until: now.after(wait) };
        let reason = dial.reason();
        if reason == connector.last_logged {
            debug!(%reason, wait_secs = wait.as_secs_f32(), "cannot connect");
        } else {
            warn!(%reason, "cannot connect the tunnel; trying again until it can be");
            connector.last_logged = reason;
        }
    }

    /// An answer of the resolver: for the connector, for an exit, a pair or a flow.
    pub(super) fn resolved(&mut self, answer: Answer) {
        let Answer { token, addresses } = answer;
        if token & PAIR_BIT != 0 {
            self.pair_resolved(Key::unpack(token), addresses);
            return;
        }
        if token & FLOW_BIT != 0 {
            self.flow_resolved(Key::unpack(token), addresses);
            return;
        }
        if token & CONNECTOR_BIT == 0 {
            self.local_resolved(Key::unpack(token), addresses);
            return;
        }
        let Some(connector) = &mut self.connector else { return };
        if token as u32 != connector.number {
            return;
        }
        let up = State::Up;
        match std::mem::replace(&mut connector.state, up) {
            State::Resolving { mut dial } => {
                dial.resolved(addresses);
                self.start_dial(dial);
            }
            other => connector.state = other,
        }
    }

    pub(super) fn link_connected(&mut self, number: u32, result: io::Result<()>) {
        let Some(connector) = &mut self.connector else { return };
        if number != connector.number {
            return;
        }
        match std::mem::replace(&mut connector.state, State::Up) {
            State::Connecting { fd, .. } if result.is_ok() => {
                connector.last_logged.clear();
                self.begin_tunnel(fd);
            }
            State::Connecting { mut dial, .. } => {
                if let Err(error) = result {
                    dial.failed(error);
                }
                connector.number = connector.number.wrapping_add(1);
                self.start_dial(dial);
            }
            other => connector.state = other,
        }
    }

    /// The connector's tunnel, which began then, is gone.
    pub(super) fn redial(&mut self, began: Moment) {
        let now = self.now;
        let Some(connector) = &mut self.connector else { return };
        connector.backoff.lost(Duration::from_micros(now.0 - began.0));
        let wait = connector.backoff.next(fastrand::u64(..));
        connector.state = State::Waiting { until: now.after(wait) };
        info!(wait_secs = wait.as_secs_f32(), "dialling again");
    }
}
