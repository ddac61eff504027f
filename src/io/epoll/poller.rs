#![allow(unsafe_code)]
//! The system calls of the epoll driver.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use crate::limits::EPOLL_EVENTS_MAX;

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
    events: Box<[libc::epoll_event]>,
    /// `epoll_pwait2` is there: Linux 5.11 or later, and no filter that is older than it.
    has_fine_wait: bool,
}

impl Poller {
    pub(super) fn new() -> io::Result<Poller> {
        // SAFETY: a plain call; no memory of ours is involved.
        let epoll = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel has just opened this descriptor for us; nobody else knows its number.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; EPOLL_EVENTS_MAX];
        Ok(Poller { epoll, events: events.into(), has_fine_wait: true })
    }

    /// Tells of changes on `fd` from now on, edge-triggered, and once of what is so already.
    /// `known`: it is there already, with other events.
    pub(super) fn watch(&self, fd: RawFd, events: u32, data: u64, known: bool) -> io::Result<()> {
        let events = events | libc::EPOLLET as u32;
        let control = |how: i32| {
            let mut event = libc::epoll_event { events, u64: data };
            // SAFETY: the kernel only reads the event, which lives until the call returns.
            checked(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), how, fd, &mut event) })
        };
        match control(if known { libc::EPOLL_CTL_MOD } else { libc::EPOLL_CTL_ADD }) {
            // The same open file has come back under its old number.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                control(libc::EPOLL_CTL_MOD)
            }
            other => other,
        }
        .map(drop)
    }

    /// Waits for events, for `timeout` at most (`None`: for ever; zero: not at all), and says how
    /// many there are.
    ///
    /// # Errors
    /// `EINTR` after a signal; others mean that the poller can go on no more.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        match timeout {
            None => self.wait_millis(-1),
            Some(Duration::ZERO) => self.wait_millis(0),
            Some(timeout) => {
                let time = timespec(timeout);
                if self.has_fine_wait {
                    match self.wait_finely(&time) {
                        Err(error) if is_refused(&error) => self.has_fine_wait = false,
                        other => return other,
                    }
                }
                if ready_within(self.epoll.as_raw_fd(), IN, Some(&time))? == 0 {
                    return Ok(0);
                }
                self.wait_millis(0)
            }
        }
    }

    fn wait_millis(&mut self, millis: i32) -> io::Result<usize> {
        let (start, most) = (self.events.as_mut_ptr(), self.events.len() as i32);
        // SAFETY: the kernel writes `most` events at most to the array, which is ours and has as
        // many, before the call returns.
        checked(unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), start, most, millis) })
            .map(|count| count as usize)
    }

    /// As the call itself: epoll's older ones know no time below a millisecond.
    fn wait_finely(&mut self, time: &libc::timespec) -> io::Result<usize> {
        let (start, most) = (self.events.as_mut_ptr(), self.events.len() as i32);
        let no_signals = ptr::null::<libc::sigset_t>();
        // SAFETY: as above; the time is only read, and without a set of signals its size means
        // nothing.
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
        checked(count as i32).map(|count| count as usize)
    }

    /// What an event of the last wait was registered with, and what is so now.
    #[inline]
    pub(super) fn event(&self, at: usize) -> (u64, u32) {
        let event = self.events[at];
        (event.u64, event.events)
    }
}

/// Which of `events` are so on a descriptor now, or within a time; [`BROKEN`] unasked.
fn ready_within(fd: RawFd, events: u32, time: Option<&libc::timespec>) -> io::Result<u32> {
    let mut asked = libc::pollfd { fd, events: events as i16, revents: 0 };
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let time = time.unwrap_or(&at_once);
    // SAFETY: the kernel reads and writes one `pollfd`, and reads the time; both live until the
    // call returns.
    checked(unsafe { libc::ppoll(&mut asked, 1, time, ptr::null()) })?;
    Ok(u32::from(asked.revents as u16))
}

/// Which of `events` are so on a descriptor now; [`BROKEN`] unasked.
pub(super) fn ready_now(fd: &OwnedFd, events: u32) -> io::Result<u32> {
    ready_within(fd.as_raw_fd(), events, None)
}

/// Takes a connection from a listening socket's queue: non-blocking and close-on-exec.
///
/// # Errors
/// `EAGAIN`: none is there.
pub(super) fn accept(fd: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    loop {
        // SAFETY: the kernel is asked for no address, so no memory of ours is involved.
        let accepted = checked(unsafe {
            libc::accept4(fd.as_raw_fd(), ptr::null_mut(), ptr::null_mut(), flags)
        });
        match accepted {
            // SAFETY: the kernel has just opened this descriptor for us; nobody else knows its
            // number.
            Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn timespec(time: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
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
            poller.watch(ours.as_raw_fd(), IN, 7, false).unwrap();
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
        poller.watch(ours.as_raw_fd(), IN, 1, false).unwrap();
        poller.watch(ours.as_raw_fd(), OUT, 2, false).unwrap();
        assert_eq!(poller.wait(None).unwrap(), 1);
        assert_eq!(poller.event(0), (2, OUT));
    }
}
