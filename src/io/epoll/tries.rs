//! What operations that waited do when their descriptor may let them.

use std::io;

use socket2::SockRef;

use super::poller::{self, BROKEN, IN, OUT};
use super::{EpollDriver, Repeats, What};
use crate::io::chunk::Chunk;
use crate::io::direct;
use crate::io::driver::{BufferClass, Completion, Fd, OpId, Outcome};
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
            let outcome = match what {
                What::Poll { events, multishot, .. } => {
                    let hit = self.descriptors.get(number).ready & (events | BROKEN);
                    if !told || hit == 0 {
                        break;
                    }
                    goes_on = multishot;
                    // Once for each change, whatever is there.
                    came = EPOLL_REPEATS_MAX;
                    Outcome::Polled(Ok(hit))
                }
                What::Receive(ref fd, class) => {
                    if !self.descriptors.get(number).is_readable() {
                        break;
                    }
                    let got = self.receive(number, fd, class);
                    if is_again(&got) {
                        break;
                    }
                    goes_on = matches!(got, Ok(Some(_)));
                    Outcome::Received(got)
                }
                What::Accept(ref fd, repeats) => {
                    if !self.descriptors.get(number).is_readable() {
                        break;
                    }
                    self.counters.enters += 1;
                    let got = poller::accept(fd);
                    if is_again(&got) {
                        self.descriptors.get(number).forget(IN);
                        break;
                    }
                    goes_on = got.is_ok() && repeats == Repeats::Yes;
                    Outcome::Accepted(got)
                }
                What::Connect(ref fd) => {
                    let ready = self.descriptors.get(number).ready;
                    if ready & (OUT | BROKEN) == 0 {
                        break;
                    }
                    self.counters.enters += 1;
                    goes_on = false;
                    match SockRef::from(fd).take_error() {
                        Ok(None) => Outcome::Connected(Ok(())),
                        Ok(Some(error)) | Err(error) => Outcome::Connected(Err(error)),
                    }
                }
                What::Send(fd, mut gather) => {
                    if !self.descriptors.get(number).is_writable() {
                        what = What::Send(fd, gather);
                        break;
                    }
                    self.counters.enters += 1;
                    let result = direct::send(&fd, &mut gather, false);
                    if is_again(&result) {
                        self.descriptors.get(number).forget(OUT);
                        what = What::Send(fd, gather);
                        break;
                    }
                    goes_on = false;
                    what = What::Over;
                    Outcome::Sent { result, gather }
                }
                What::Over => return false,
            };
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
