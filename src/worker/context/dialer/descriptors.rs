//! A reserve of descriptors for connections to servers.
//!
//! A client is accepted before its server is dialled. If clients could take the last descriptor
//! none would be served, so some are reserved: a dial without a descriptor releases one and uses
//! it. When the reserve is used up, dials wait in order of arrival, and clients stay in the
//! kernel's queue until no dial waits and part of the reserve is restored. So whenever a client is
//! accepted, its dial or an earlier one can be served.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::io::net;
use crate::limits::{DESCRIPTOR_RETRY_MILLIS, DIAL_DESCRIPTORS};
use crate::session::Moment;
use crate::worker::table::Key;

/// The reserve, and the dials that wait for a descriptor.
#[derive(Debug)]
pub(super) struct Descriptors {
    /// Placeholder descriptors.
    kept: Vec<OwnedFd>,
    /// Size of the full reserve.
    most: usize,
    /// Waiting dials, by arrival.
    waiting: BTreeSet<(Moment, Key)>,
    /// The next retry; `None` while the reserve is full.
    again_at: Option<Moment>,
}

/// Whether the process or the system is out of descriptors.
pub(super) fn is_short(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

impl Descriptors {
    /// `serves`: clients need connections to servers. Otherwise only the connector dials, and the
    /// end of its tunnel releases descriptors.
    pub(super) fn new(serves: bool) -> Descriptors {
        // With a low limit most descriptors are left to connections.
        let share = usize::try_from(net::descriptor_limit() / 8).unwrap_or(usize::MAX);
        let most = if serves { share.min(DIAL_DESCRIPTORS) } else { 0 };
        let (kept, waiting) = (Vec::with_capacity(DIAL_DESCRIPTORS), BTreeSet::new());
        let mut descriptors = Descriptors { kept, most, waiting, again_at: None };
        descriptors.keep(most);
        descriptors
    }

    /// Fills the reserve up to `count`, as far as possible.
    fn keep(&mut self, count: usize) {
        while self.kept.len() < count {
            let Ok(descriptor) = net::placeholder() else { return };
            self.kept.push(descriptor);
        }
    }

    /// Releases one descriptor. `false`: the reserve is empty.
    pub(super) fn give_up_one(&mut self, now: Moment) -> bool {
        let given_up = self.kept.pop().is_some();
        if given_up {
            self.look_after(now);
        }
        given_up
    }

    /// Whether dials wait, or the next one would have to.
    pub(super) fn are_short(&self) -> bool {
        self.again_at.is_some() && (self.any_waits() || (self.kept.is_empty() && self.most > 0))
    }

    /// How many dials wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn any_waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn look_after(&mut self, now: Moment) {
        let again = now.after(Duration::from_millis(DESCRIPTOR_RETRY_MILLIS));
        self.again_at.get_or_insert(again);
    }

    pub(super) fn next_timeout(&self) -> Option<Moment> {
        self.again_at
    }

    /// Queues a dial.
    pub(super) fn wait(&mut self, dial: Key, now: Moment) {
        self.waiting.insert((now, dial));
        self.look_after(now);
    }

    /// Removes a dial from the queue.
    pub(super) fn forget(&mut self, dial: Key, since: Moment) {
        self.waiting.remove(&(since, dial));
    }

    /// Dequeues the next dial if there is a descriptor for it.
    pub(super) fn next_served(&mut self) -> Option<Key> {
        if self.waiting.is_empty() {
            return None;
        }
        self.keep(1);
        if self.kept.is_empty() {
            return None;
        }
        self.waiting.pop_first().map(|(_, dial)| dial)
    }

    /// Refills the reserve after waiting dials were served. `true`: clients may be accepted again.
    pub(super) fn look_again(&mut self, now: Moment) -> bool {
        self.again_at = None;
        if !self.any_waits() {
            self.keep(self.most);
        }
        if self.any_waits() || self.kept.len() < self.most {
            self.look_after(now);
        }
        !self.are_short()
    }
}
