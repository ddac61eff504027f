//! Connecting to a target: its addresses, tried one after another.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use crate::engine::congestion::Choice;
use crate::engine::driver::{Driver, Fd, Token};
use crate::engine::net;
use crate::params::plan::Target;
use crate::session::Moment;

/// Shortest time that one address of several is given.
const ATTEMPT_MIN: Duration = Duration::from_millis(500);

/// An attempt to reach a target.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) target: Target,
    /// The address of ours to come from, if that matters.
    pub(super) own: Option<SocketAddr>,
    /// Addresses not yet tried.
    addresses: VecDeque<SocketAddr>,
    /// The one being tried.
    pub(super) current: Option<SocketAddr>,
    /// What the last one said.
    last_error: Option<String>,
    /// When patience with all of them ends.
    overall: Option<Moment>,
}

impl Dial {
    pub(super) fn new(target: Target, overall: Option<Moment>) -> Dial {
        let addresses = VecDeque::new();
        Dial { target, own: None, addresses, current: None, last_error: None, overall }
    }

    /// What was found for the target's name.
    pub(super) fn resolved(&mut self, found: io::Result<Vec<SocketAddr>>) {
        match found {
            Ok(addresses) => self.addresses.extend(addresses),
            Err(error) => self.last_error = Some(format!("name not found: {error}")),
        }
    }

    /// The address being tried has failed.
    pub(super) fn failed(&mut self, error: impl std::fmt::Display) {
        self.last_error = Some(match self.current.take() {
            Some(address) if address.ip().to_string() != self.target.host => {
                format!("{error} ({address})")
            }
            _ => error.to_string(),
        });
    }

    /// Starts on the next address. `None`: there is none left.
    pub(super) fn start<D: Driver>(
        &mut self,
        driver: &mut D,
        congestion: &Choice,
        token: Token,
    ) -> Option<Fd> {
        while let Some(address) = self.addresses.pop_front() {
            self.current = Some(address);
            match net::stream_socket(address, self.own) {
                Ok(socket) => {
                    congestion.set_before(&socket);
                    let fd: Rc<OwnedFd> = Rc::new(socket);
                    driver.connect(&fd, address.into(), token);
                    return Some(fd);
                }
                Err(error) => self.failed(error),
            }
        }
        None
    }

    /// When patience with the address being tried ends: those left get their share of the time.
    pub(super) fn deadline(&self, now: Moment) -> Option<Moment> {
        let overall = self.overall?;
        let left = Duration::from_micros(overall.0.saturating_sub(now.0));
        let share = left / (self.addresses.len() as u32 + 1);
        Some(now.after(share.max(ATTEMPT_MIN)).min(overall))
    }

    /// Patience with the address being tried has ended.
    pub(super) fn timed_out(&mut self, now: Moment) {
        self.failed("no answer in time (TIMEOUT=con)");
        if self.overall.is_some_and(|overall| now >= overall) {
            self.addresses.clear();
        }
    }

    /// Why the target was not reached, with its name.
    pub(super) fn reason(&self) -> String {
        format!("{}: {}", self.target, self.error())
    }

    /// What the last attempt said.
    pub(super) fn error(&self) -> &str {
        self.last_error.as_deref().unwrap_or("no address")
    }
}
