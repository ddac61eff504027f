//! Links opened by path, retried until the peer is there, and the link passed in at start.

use std::time::Duration;

use tracing::{debug, info, warn};

use super::{Connector, LinkSource, State};
use crate::io::driver::Driver;
use crate::io::link::NotYet;
use crate::limits::{DEVICE_AGAIN_MILLIS, LINK_AGAIN_MILLIS};
use crate::worker::Stopped;
use crate::worker::context::log_limit::Class;
use crate::worker::context::{Cx, Effect};

/// Logged once, even if the reason changes.
const WAITING: &str = "waiting for the peer";

impl Connector {
    /// Opens the link if possible now.
    pub(super) fn open_link<D: Driver>(&mut self, cx: &mut Cx<D>) {
        let now = cx.now;
        let (opened, name) = match &mut self.source {
            LinkSource::Fifos(fifos) => (fifos.open(), fifos.name()),
            LinkSource::Device(device) => (device.open(), device.name()),
            LinkSource::Given(given) => match given.take() {
                Some(link) => (Ok(link), String::new()),
                None => return,
            },
            LinkSource::Dial(_) | LinkSource::Command(_) => return,
        };
        match opened {
            Ok(link) => {
                self.last_logged.clear();
                self.state = State::Up;
                if link.may_await_peer()
                    && self.failed_by.is_empty()
                    && cx.log_limit.allow(Class::Tunnel, now)
                {
                    info!(link = %link, "link open; waiting for the peer's hello");
                }
                cx.effects.push_back(Effect::LinkUp(link));
            }
            Err(NotYet::Waits(reason)) => {
                let wait = Duration::from_millis(LINK_AGAIN_MILLIS);
                self.state = State::Waiting { until: now.after(wait) };
                if self.last_logged != WAITING {
                    if cx.log_limit.allow(Class::Tunnel, now) {
                        info!(link = %name, reason, "{WAITING}");
                    }
                    WAITING.clone_into(&mut self.last_logged);
                }
            }
            Err(NotYet::Taken(error) | NotYet::Fails(error)) => {
                let wait = Duration::from_millis(DEVICE_AGAIN_MILLIS);
                self.state = State::Waiting { until: now.after(wait) };
                let reason = error.to_string();
                if self.last_logged == reason {
                    debug!(link = %name, reason, "cannot open the link");
                } else {
                    warn!(link = %name, reason, "cannot open the link; trying again until it can be");
                    self.last_logged = reason;
                }
            }
        }
    }

    /// Ends the run with the link that was passed in at start.
    pub(in crate::worker) fn link_is_over(&self) -> Option<Stopped> {
        let over = matches!(self.state, State::Over);
        over.then_some(Stopped::LinkEnded { in_order: self.ended_in_order })
    }
}
