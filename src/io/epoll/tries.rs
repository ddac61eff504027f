//! What operations that waited do when their descriptor may let them.

use std::io;

use socket2::SockRef;

use super::poller::{self, BROKEN, IN, OUT};
use super::{EpollDriver, Repeats, What};
use crate::io::chunk::Chunk;
use crate::io::direct;
use crate::io::driver::{BufferClass, Completion, Fd, Gather, OpId, Outcome};
use crate::limits::EPOLL_REPEATS_MAX;

impl EpollDriver {
    /// Tries all operations that wait on a descriptor, in the order in which they were started.
    /// `told`: epoll has just told of a change.
    pub(super) fn advance(&mut self, number: usize, told: bool) {
        let mut waiting = std::mem::take(&mut self.descriptors.get(number).waiting);
        waiting.retain(|&id| self.step(id, number, told));
        self.descriptors.get(number).waiting = waiting;
    }

    /// Tries one; whether it goes on waiting.
    pub(super) fn step(&mut self, id: OpId, number: usize, told: bool) -> bool {
        let Some(op) = self.ops.get_mut(id) else { return false };
        let token = op.token;
        // Away from its slot for as long as it is tried.
        let mut what = std::mem::replace(&mut op.what, What::Over);
        let (mut goes_on, mut came) = (true, 0);
        while goes_on && came < EPOLL_REPEATS_MAX {
            let tried = match what {
                What::Poll { events, multishot, .. } => {
                    // Once for each change, whatever is there.
                    came = EPOLL_REPEATS_MAX;
                    self.try_poll(number, events, told).map(|outcome| (outcome, multishot))
                }
                What::Receive(ref fd, class) => self.try_receive(number, fd, class),
                What::Accept(ref fd, repeats) => self.try_accept(number, fd, repeats),
                What::Connect(ref fd) => {
                    self.try_connect(number, fd).map(|outcome| (outcome, false))
                }
                What::Send(fd, mut gather) => match self.try_send(number, &fd, &mut gather) {
                    Some(result) => {
                        what = What::Over;
                        Some((Outcome::Sent { result, gather }, false))
                    }
                    None => {
                        what = What::Send(fd, gather);
                        None
                    }
                },
                What::Over => return false,
            };
            let Some((outcome, more)) = tried else { break };
            goes_on = more;
            came += 1;
            self.done.push_back((id, Completion { token, more: goes_on, outcome }));
        }
        if !goes_on {
            return false;
        }
        let repeats = matches!(what, What::Receive(..) | What::Accept(..));
        if let Some(op) = self.ops.get_mut(id) {
            op.what = what;
        }
        if repeats && came == EPOLL_REPEATS_MAX {
            self.resume_soon(number);
        }
        true
    }

    /// `None`, as of the others: it goes on waiting.
    #[inline]
    fn try_poll(&mut self, number: usize, events: u32, told: bool) -> Option<Outcome> {
        let hit = self.descriptors.get(number).ready & (events | BROKEN);
        (told && hit != 0).then_some(Outcome::Polled(Ok(hit)))
    }

    /// What came, and whether more may.
    #[inline]
    fn try_receive(
        &mut self,
        number: usize,
        fd: &Fd,
        class: BufferClass,
    ) -> Option<(Outcome, bool)> {
        if !self.descriptors.get(number).is_readable() {
            return None;
        }
        let got = self.receive(number, fd, class);
        let more = matches!(got, Ok(Some(_)));
        (!is_again(&got)).then_some((Outcome::Received(got), more))
    }

    #[inline]
    fn try_accept(&mut self, number: usize, fd: &Fd, repeats: Repeats) -> Option<(Outcome, bool)> {
        if !self.descriptors.get(number).is_readable() {
            return None;
        }
        self.counters.enters += 1;
        let got = poller::accept(fd);
        if is_again(&got) {
            self.descriptors.get(number).forget(IN);
            return None;
        }
        let more = got.is_ok() && repeats == Repeats::Yes;
        Some((Outcome::Accepted(got), more))
    }

    #[inline]
    fn try_connect(&mut self, number: usize, fd: &Fd) -> Option<Outcome> {
        if self.descriptors.get(number).ready & (OUT | BROKEN) == 0 {
            return None;
        }
        self.counters.enters += 1;
        Some(Outcome::Connected(match SockRef::from(fd).take_error() {
            Ok(None) => Ok(()),
            Ok(Some(error)) | Err(error) => Err(error),
        }))
    }

    #[inline]
    fn try_send(
        &mut self,
        number: usize,
        fd: &Fd,
        gather: &mut Gather,
    ) -> Option<io::Result<usize>> {
        if !self.descriptors.get(number).is_writable() {
            return None;
        }
        self.counters.enters += 1;
        let result = direct::send(fd, gather, false);
        if is_again(&result) {
            self.descriptors.get(number).forget(OUT);
            return None;
        }
        Some(result)
    }

    /// Receives what there is, into a buffer of the class.
    pub(super) fn receive(
        &mut self,
        number: usize,
        fd: &Fd,
        class: BufferClass,
    ) -> io::Result<Option<Chunk>> {
        let Some(mut buffer) = self.pools[class as usize].take() else {
            self.counters.no_buffers += 1;
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        };
        self.counters.enters += 1;
        let room_bytes = buffer.room();
        match direct::receive(fd, &mut buffer, room_bytes) {
            Ok(0) => Ok(None),
            Ok(bytes) => {
                if bytes < room_bytes {
                    self.descriptors.get(number).was_read_short();
                }
                Ok(Some(buffer.take_written()))
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::WouldBlock {
                    self.descriptors.get(number).forget(IN);
                }
                Err(error)
            }
        }
    }
}

fn is_again<T>(result: &io::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}
