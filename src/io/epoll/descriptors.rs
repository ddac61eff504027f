//! What the epoll driver knows of each descriptor, by its number.
//!
//! A descriptor is registered once, edge-triggered, when an operation first has to wait on it, and
//! the kernel forgets it when it is closed. From then on every change is told of, wanted or not;
//! what is known to be so now stands here. It may claim too much, since others (splices, for one)
//! read and write beside the driver, but never too little: what is said not to be so was found not
//! to be so, and whatever changes after that is still to be told of.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::{Rc, Weak};

use rustix::io::Errno;

use super::poller::{BROKEN, HALF_CLOSED, IN, OUT, Poller, URGENT};
use crate::io::driver::{Fd, OpId};
use crate::narrow::halves;

/// One descriptor.
#[derive(Debug, Default)]
pub(super) struct Descriptor {
    /// Does not keep it open, but keeps its address from being given to another.
    owner: Weak<OwnedFd>,
    /// Counts the owners, so that what is told of an old one is not taken for a new one's.
    generation: u32,
    /// What epoll tells of. 0: it does not know it.
    interest: u32,
    /// What is so, as far as is known.
    pub(super) ready: u32,
    /// There has been urgent data: reads stop at it, so a short one says nothing.
    has_marks: bool,
    /// Operations that wait, in the order in which they were started.
    pub(super) waiting: Vec<OpId>,
    /// Its number is in the list of those that have not had all that is known to be there.
    pub(super) listed: bool,
}

impl Descriptor {
    /// A receive has left room in its buffer.
    #[inline]
    pub(super) fn was_read_short(&mut self) {
        if !self.has_marks && self.ready & (HALF_CLOSED | BROKEN) == 0 {
            self.ready &= !IN;
        }
    }

    /// Whether reading may bring something: data, an end or an error.
    #[inline]
    pub(super) fn is_readable(&self) -> bool {
        self.ready & (IN | HALF_CLOSED | BROKEN) != 0
    }

    /// Whether writing may do something.
    #[inline]
    pub(super) fn is_writable(&self) -> bool {
        self.ready & (OUT | BROKEN) != 0
    }

    /// Whether epoll would say when that changes.
    #[inline]
    pub(super) fn is_watched_for(&self, events: u32) -> bool {
        self.interest & events == events
    }

    /// Nothing is known to be so; a change will be told of.
    pub(super) fn forget(&mut self, events: u32) {
        self.ready &= !events;
    }

    /// What is so now.
    #[inline]
    pub(super) fn learn(&mut self, ready: u32) {
        self.ready = ready;
        self.has_marks |= ready & URGENT != 0;
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Descriptors {
    by_number: Vec<Descriptor>,
}

impl Descriptors {
    /// The number of a descriptor, whose entry is its own from here on.
    #[inline]
    pub(super) fn number_of(&mut self, fd: &Fd) -> usize {
        let number = fd.as_raw_fd().cast_unsigned() as usize;
        if number >= self.by_number.len() {
            self.by_number.resize_with(number + 1, Descriptor::default);
        }
        let entry = &mut self.by_number[number];
        if entry.owner.as_ptr() != Rc::as_ptr(fd) {
            debug_assert!(entry.waiting.is_empty(), "operations keep their descriptor open");
            entry.owner = Rc::downgrade(fd);
            entry.generation = entry.generation.wrapping_add(1);
            (entry.interest, entry.ready, entry.has_marks) = (0, 0, false);
        }
        number
    }

    #[inline]
    pub(super) fn get(&mut self, number: usize) -> &mut Descriptor {
        &mut self.by_number[number]
    }

    /// The entry that an event is for: its number, unless the descriptor is another by now.
    #[inline]
    pub(super) fn find(&mut self, data: u64) -> Option<usize> {
        let (generation, number) = halves(data);
        let number = number as usize;
        let entry = self.by_number.get(number)?;
        (entry.generation == generation).then_some(number)
    }

    /// Nothing is told of it any more. The kernel forgets what is closed by itself, unless another process
    /// has it open.
    pub(super) fn forget(&mut self, fd: &Fd, poller: &Poller) {
        let number = self.number_of(fd);
        let entry = &mut self.by_number[number];
        if std::mem::take(&mut entry.interest) != 0 {
            poller.forget(&**fd);
        }
    }

    /// Sees that changes of `events` are told of. Room to write is asked about only once somebody
    /// has waited for it: it is there nearly always, and would be told of with all else.
    #[inline]
    pub(super) fn watch(&mut self, number: usize, events: u32, poller: &Poller) -> io::Result<()> {
        let entry = &mut self.by_number[number];
        let wanted = entry.interest | IN | URGENT | HALF_CLOSED | events & OUT;
        if wanted == entry.interest {
            return Ok(());
        }
        let data = u64::from(entry.generation) << 32 | number as u64;
        let Some(fd) = entry.owner.upgrade() else { return Err(Errno::BADF.into()) };
        poller.watch(&*fd, wanted, data, entry.interest != 0)?;
        entry.interest = wanted;
        Ok(())
    }
}
