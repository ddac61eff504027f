#![allow(unsafe_code)]
//! Numbers for simulated objects: descriptors that nothing is behind.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Mutex;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::fcntl_dupfd_cloexec;

/// Kernels at once, each of which has numbers of its own.
const KERNELS: usize = 8;

/// Numbers are those below this, if the process may have so many.
const LIMIT: u64 = 20_000;

/// Which of the [`KERNELS`] there are.
static IN_USE: Mutex<[bool; KERNELS]> = Mutex::new([false; KERNELS]);

/// A source of descriptors. None of its numbers is used twice, so that what was closed shows.
#[derive(Debug)]
pub(super) struct Descriptors {
    nothing: OwnedFd,
    /// Its place in [`IN_USE`].
    place: usize,
    next: RawFd,
    end: RawFd,
}

impl Descriptors {
    pub(super) fn new() -> Descriptors {
        let limit = RawFd::try_from(crate::io::net::raise_descriptor_limit().min(LIMIT));
        // What is below is left to the tests that run beside.
        let first = limit.expect("it is small") * 3 / 10;
        let each = (limit.expect("it is small") - first) / RawFd::try_from(KERNELS).expect("small");
        let nothing = File::open("/dev/null").expect("there is a /dev/null").into();
        let mut in_use = IN_USE.lock().expect("no panic with the lock");
        let place = in_use.iter().position(|is_used| !is_used).expect("fewer kernels at once");
        in_use[place] = true;
        let next = first + each * RawFd::try_from(place).expect("small");
        Descriptors { nothing, place, next, end: next + each }
    }

    pub(super) fn make(&mut self) -> io::Result<OwnedFd> {
        let fd = fcntl_dupfd_cloexec(&self.nothing, self.next)?;
        assert!(fd.as_raw_fd() < self.end, "a run has used up its numbers");
        self.next = fd.as_raw_fd() + 1;
        Ok(fd)
    }

    /// Those of `fds` that are closed.
    pub(super) fn closed(fds: impl Iterator<Item = RawFd>) -> Vec<RawFd> {
        // SAFETY: the numbers are only passed to poll(2), which says of one that is closed that it
        // is. Nobody else opens descriptors with these numbers.
        let borrowed: Vec<_> = fds.map(|fd| unsafe { BorrowedFd::borrow_raw(fd) }).collect();
        let mut asked: Vec<_> =
            borrowed.iter().map(|fd| PollFd::new(fd, PollFlags::empty())).collect();
        if asked.is_empty() {
            return Vec::new();
        }
        poll(&mut asked, Some(&Timespec::default())).expect("descriptors can be polled");
        let closed = asked.iter().filter(|fd| fd.revents().contains(PollFlags::NVAL));
        closed.map(|fd| fd.as_fd().as_raw_fd()).collect()
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        if let Ok(mut in_use) = IN_USE.lock() {
            in_use[self.place] = false;
        }
    }
}
