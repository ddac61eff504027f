//! Descriptors for connections to servers, when the process has no more.
//!
//! A client is accepted first and needs a server's connection then. Where clients could take the last
//! descriptor none of them would be served, so some are kept: a dial that finds no descriptor gives one
//! of these up and takes its place. When they are used up dials wait, those first that have waited
//! longest, and clients are left in the kernel's queue until no dial waits and some are kept again: so
//! whenever a client is accepted, its dial or one before it can be served.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Resource, getrlimit};

use crate::limits::{DESCRIPTOR_RETRY_MILLIS, DIAL_DESCRIPTORS};
use crate::session::Moment;
use crate::worker::table::Key;

/// The descriptors that are kept, and the dials that wait for one.
#[derive(Debug)]
pub(super) struct Descriptors {
    /// Of nothing: they keep places.
    kept: Vec<OwnedFd>,
    /// How many are to be kept.
    most: usize,
    /// By when they began to wait.
    waiting: BTreeSet<(Moment, Key)>,
    /// When they are looked at again; `None` while all are kept.
    again_at: Option<Moment>,
}

/// Whether the process, or the system, has no more descriptors.
pub(super) fn is_short(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

impl Descriptors {
    /// `serves`: clients need connections to servers. If none does the connector alone dials, whose
    /// tunnel gives back what its clients had when it breaks.
    pub(super) fn new(serves: bool) -> Descriptors {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        // Where there are few altogether most are for who serves and is served.
        let share = usize::try_from(limit / 8).unwrap_or(usize::MAX);
        let most = if serves { share.min(DIAL_DESCRIPTORS) } else { 0 };
        let (kept, waiting) = (Vec::with_capacity(DIAL_DESCRIPTORS), BTreeSet::new());
        let mut descriptors = Descriptors { kept, most, waiting, again_at: None };
        descriptors.keep(most);
        descriptors
    }

    /// Keeps so many, as far as there are.
    fn keep(&mut self, count: usize) {
        while self.kept.len() < count {
            let Ok(descriptor) = eventfd(0, EventfdFlags::CLOEXEC) else { return };
            self.kept.push(descriptor);
        }
    }

    /// Makes room for one. `false`: none is kept.
    pub(super) fn give_up_one(&mut self, now: Moment) -> bool {
        let given_up = self.kept.pop().is_some();
        if given_up {
            self.look_after(now);
        }
        given_up
    }

    /// Dials wait, or would if there were more.
    pub(super) fn are_short(&self) -> bool {
        self.again_at.is_some() && (self.any_waits() || (self.kept.is_empty() && self.most > 0))
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

    /// A dial waits from now on.
    pub(super) fn wait(&mut self, dial: Key, now: Moment) {
        self.waiting.insert((now, dial));
        self.look_after(now);
    }

    /// A dial waits no more.
    pub(super) fn forget(&mut self, dial: Key, since: Moment) {
        self.waiting.remove(&(since, dial));
    }

    /// The next dial for which there is a descriptor, and which waits no more.
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

    /// All were served for whom there is a descriptor. `true`: clients may come again.
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
