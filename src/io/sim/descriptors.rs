#![allow(unsafe_code)]
//! Numbers for simulated objects: descriptors that nothing is behind.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::fcntl_dupfd_cloexec;

/// Where the numbers of the first thread begin, beyond those that tests use otherwise.
const FIRST: RawFd = 6_000;

/// Numbers of one thread. None is used twice in a run, so that what was closed shows.
const PER_THREAD: RawFd = 3_000;

/// Threads that simulate at once.
const THREADS: RawFd = 4;

/// A source of descriptors.
#[derive(Debug)]
pub(super) struct Descriptors {
    nothing: OwnedFd,
    next: RawFd,
}

impl Descriptors {
    pub(super) fn new() -> Descriptors {
        static NEXT_THREAD: AtomicI32 = AtomicI32::new(0);
        thread_local! {
            static BASE: RawFd =
                FIRST + NEXT_THREAD.fetch_add(1, Ordering::SeqCst) % THREADS * PER_THREAD;
        }
        crate::io::net::raise_descriptor_limit();
        let nothing = File::open("/dev/null").expect("there is a /dev/null").into();
        Descriptors { nothing, next: BASE.with(|&base| base) }
    }

    pub(super) fn make(&mut self) -> io::Result<OwnedFd> {
        let fd = fcntl_dupfd_cloexec(&self.nothing, self.next)?;
        self.next = std::os::fd::AsRawFd::as_raw_fd(&fd) + 1;
        Ok(fd)
    }

    /// Those of `fds` that are closed.
    pub(super) fn closed(fds: impl Iterator<Item = RawFd>) -> Vec<RawFd> {
        // SAFETY: the numbers are only passed to poll(2), which says of one that is closed that it
        // is. No other thread opens descriptors with numbers of this thread.
        let borrowed: Vec<_> = fds.map(|fd| unsafe { BorrowedFd::borrow_raw(fd) }).collect();
        let mut asked: Vec<_> =
            borrowed.iter().map(|fd| PollFd::new(fd, PollFlags::empty())).collect();
        if asked.is_empty() {
            return Vec::new();
        }
        poll(&mut asked, Some(&Timespec::default())).expect("descriptors can be polled");
        let closed = asked.iter().filter(|fd| fd.revents().contains(PollFlags::NVAL));
        closed.map(|fd| std::os::fd::AsRawFd::as_raw_fd(&fd.as_fd())).collect()
    }
}
