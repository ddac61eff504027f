//! Links that are opened by their path, again and again until the peer has come, and the one that
//! we were given.

use std::time::Duration;

use tracing::{debug, info, warn};

use crate::io::driver::Driver;
use crate::io::link::NotYet;
use crate::limits::{DEVICE_AGAIN_MILLIS, LINK_AGAIN_MILLIS};
use crate::worker::log_limit::Class;
use crate::worker::tunnel::connector::{LinkSource, State};
use crate::worker::{Stopped, Worker};

/// Logged once, whatever the reasons are in turn.
const WAITING: &str = "waiting for the peer";

impl<D: Driver> Worker<D> {
    /// Opens the connector's link, if that can be done now.
    pub(in crate::worker) fn open_link(&mut self) {
        let now = self.cx.now;
        let Some(connector) = &mut self.connector else { return };
        let (opened, name) = match &mut connector.source {
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
                connector.last_logged.clear();
                connector.state = State::Up;
                if link.may_await_peer()
                    && connector.failed_by.is_empty()
                    && self.cx.log_limit.allow(Class::Tunnel, now)
                {
                    info!(link = %link, "link open; waiting for the peer's hello");
                }
                self.begin_own_tunnel(link);
            }
            Err(NotYet::Waits(reason)) => {
                let wait = Duration::from_millis(LINK_AGAIN_MILLIS);
                connector.state = State::Waiting { until: now.after(wait) };
                if connector.last_logged != WAITING {
                    if self.cx.log_limit.allow(Class::Tunnel, now) {
                        info!(link = %name, reason, "{WAITING}");
                    }
                    WAITING.clone_into(&mut connector.last_logged);
                }
            }
            Err(NotYet::Taken(error) | NotYet::Fails(error)) => {
                let wait = Duration::from_millis(DEVICE_AGAIN_MILLIS);
                connector.state = State::Waiting { until: now.after(wait) };
                let reason = error.to_string();
                if connector.last_logged == reason {
                    debug!(link = %name, reason, "cannot open the link");
                } else {
                    warn!(link = %name, reason, "cannot open the link; trying again until it can be");
                    connector.last_logged = reason;
                }
            }
        }
    }

    /// The end of the run with the end of a link that was given.
    pub(in crate::worker) fn link_is_over(&self) -> Option<Stopped> {
        let connector = self.connector.as_ref()?;
        let over = matches!(connector.state, State::Over);
        over.then_some(Stopped::LinkEnded { in_order: connector.ended_in_order })
    }
}
