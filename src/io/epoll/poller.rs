#![allow(unsafe_code)]
//! The system calls of the epoll driver.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{SocketFlags, accept_with};

use crate::limits::EPOLL_EVENTS_MAX;
use crate::narrow::{to_u16, to_u32};

/// What may happen on a descriptor: the same numbers for epoll as for poll(2).
pub(super) const IN: u32 = libc::EPOLLIN as u32;
pub(super) const OUT: u32 = libc::EPOLLOUT as u32;
pub(super) const URGENT: u32 = libc::EPOLLPRI as u32;
pub(super) const HALF_CLOSED: u32 = libc::EPOLLRDHUP as u32;
/// These are told of unasked, and let every operation go on, which then meets the error or the end.
pub(super) const BROKEN: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;

/// An epoll descriptor, and what it told of last.
pub(super) struct Poller {
    epoll: OwnedFd,
    events: Box<[Event]>,
    /// `epoll_pwait2` is there: Linux 5.11 or later, and no filter that is older than it.
    has_fine_wait: bool,
}

impl Poller {
    pub(super) fn new() -> io::Result<Poller> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let event = Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
        Ok(Poller { epoll, events: vec![event; EPOLL_EVENTS_MAX].into(), has_fine_wait: true })
    }

    /// Tells of changes on `fd` from now on, edge-triggered, and once of what is so already.
    /// `known`: it is there already, with other events.
    pub(super) fn watch(
        &self,
        fd: impl AsFd,
        events: u32,
        data: u64,
        known: bool,
    ) -> io::Result<()> {
        let events = EventFlags::from_bits_retain(events) | EventFlags::ET;
        let (epoll, fd, data) = (&self.epoll, fd.as_fd(), EventData::new_u64(data));
        if !known {
            match epoll::add(epoll, fd, data, events) {
                // The same open file has come back under its old number.
                Err(Errno::EXIST) => {}
                other => return Ok(other?),
            }
        }
        Ok(epoll::modify(epoll, fd, data, events)?)
    }

    /// Tells of no change on `fd` any more.
    pub(super) fn forget(&self, fd: impl AsFd) {
        // It is there, so that this cannot fail.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits for events, for `timeout` at most (`None`: for ever; zero: not at all), and says how
    /// many there are.
    ///
    /// # Errors
    /// `EINTR` after a signal; others mean that the poller can go on no more.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        match timeout {
            None => self.wait_plainly(None),
            Some(Duration::ZERO) => self.wait_plainly(Some(&Timespec::default())),
            Some(timeout) => {
                let time = timespec(timeout);
                if self.has_fine_wait {
                    match self.wait_finely(&time) {
                        Err(error) if is_refused(&error) => self.has_fine_wait = false,
                        other => return other,
                    }
                }
                if ready_within(&self.epoll, IN, Some(&time))? == 0 {
                    return Ok(0);
                }
                self.wait_plainly(Some(&Timespec::default()))
            }
        }
    }

    /// By the call that knows whole milliseconds only.
    fn wait_plainly(&mut self, time: Option<&Timespec>) -> io::Result<usize> {
        Ok(epoll::wait(&self.epoll, &mut *self.events, time)?)
    }

    /// By the newer call, which rustix makes for long times only.
    fn wait_finely(&mut self, time: &Timespec) -> io::Result<usize> {
        let (start, most) = (self.events.as_mut_ptr(), to_u32(self.events.len()));
        let no_signals = ptr::null::<libc::sigset_t>();
        // SAFETY: the kernel writes `most` events at most to the array, which is ours and has as
        // many, before the call returns. It only reads the time, which is laid out as its own, and
        // without a set of signals its size means nothing.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.as_raw_fd(),
                start,
                most,
                ptr::from_ref(time),
                no_signals,
                0usize,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// What an event of the last wait was registered with, and what is so now.
    #[inline]
    pub(super) fn event(&self, at: usize) -> (u64, u32) {
        let event = self.events[at];
        ({ event.data }.u64(), { event.flags }.bits())
    }
}

/// Which of `events` are so on a descriptor now, or within a time; [`BROKEN`] unasked.
fn ready_within(fd: &OwnedFd, events: u32, time: Option<&Timespec>) -> io::Result<u32> {
    let mut asked = [PollFd::new(fd, PollFlags::from_bits_retain(to_u16(events) as _))];
    poll(&mut asked, Some(time.unwrap_or(&Timespec::default())))?;
    // Signed or not, as libc or rustix has it.
    let told: u16 = asked[0].revents().bits() as _;
    Ok(u32::from(told))
}

/// Which of `events` are so on a descriptor now; [`BROKEN`] unasked.
pub(super) fn ready_now(fd: &OwnedFd, events: u32) -> io::Result<u32> {
    ready_within(fd, events, None)
}

/// Takes a connection from a listening socket's queue: non-blocking and close-on-exec.
///
/// # Errors
/// `EAGAIN`: none is there.
pub(super) fn accept(fd: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(retry_on_intr(|| accept_with(fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC))?)
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

/// An old kernel does not know the call; a filter that is older than the call forbids it.
fn is_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    #[test]
    fn short_times_are_kept_with_and_without_the_newer_call() {
        for has_fine_wait in [true, false] {
            let mut poller = Poller { has_fine_wait, ..Poller::new().unwrap() };
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            poller.watch(&ours, IN, 7, false).unwrap();
            let time = Duration::from_micros(300);
            let shortest = (0..50)
                .map(|_| {
                    let begin = Instant::now();
                    assert_eq!(poller.wait(Some(time)).unwrap(), 0);
                    begin.elapsed()
                })
                .min();
            assert!(shortest.is_some_and(|took| took >= time && took < 3 * time), "{shortest:?}");
            theirs.write_all(b"x").unwrap();
            assert_eq!(poller.wait(Some(Duration::from_secs(20))).unwrap(), 1);
            assert_eq!(poller.event(0), (7, IN));
        }
    }

    #[test]
    fn a_file_that_is_known_already_is_not_an_error() {
        let mut poller = Poller::new().unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        poller.watch(&ours, IN, 1, false).unwrap();
        poller.watch(&ours, OUT, 2, false).unwrap();
        assert_eq!(poller.wait(None).unwrap(), 1);
        assert_eq!(poller.event(0), (2, OUT));
    }
}
