#![allow(unsafe_code)]
//! From the kernel's completions to the worker's.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use io_uring::cqueue;

use super::UringDriver;
use super::buffers::BufferGroup;
use super::request::Request;
use super::slots::{Held, OWN, Op, Ops, What, notice_index, op_id, user_data};
use super::zero_copy::Sent;
use crate::io::chunk::Chunk;
use crate::io::driver::{Completion, DriverCounters, OpId, Outcome};

impl UringDriver {
    /// Takes what is in the completion queue; returns how many, those of cancellations included. Notices
    /// do not count: what they set free may be waited for, so they end a wait.
    #[inline]
    pub(super) fn reap(&mut self, out: &mut Vec<Completion>) -> usize {
        let mut reaped = 0;
        let Self { ring, ops, groups, zero_copy, spill, counters, .. } = self;
        for entry in ring.completion() {
            reaped += 1;
            if entry.user_data() == OWN {
                continue;
            }
            let mut id = op_id(entry.user_data());
            let mut more = cqueue::more(entry.flags());
            if let Some(notice) = notice_index(entry.user_data()) {
                if cqueue::notif(entry.flags()) {
                    zero_copy.noticed(notice, entry.result(), counters);
                    reaped -= 1;
                    continue;
                }
                let sent = zero_copy.sent(notice, entry.result(), more);
                let Some(op) = over(sent, ops, spill) else { continue };
                (id, more) = (op, false);
            }
            let Some(op) = ops.get(id) else {
                debug_assert!(false, "a completion for an operation that is over");
                continue;
            };
            let (token, what) = (op.token, op.what);
            let ended = if more { None } else { ops.remove(id) };
            let result = checked(entry.result());
            let outcome = match (what, ended.map(|op| op.held)) {
                (What::Recv(class), _) => {
                    let group = &mut groups[class as usize];
                    Outcome::Received(received(group, result, entry.flags(), counters))
                }
                (What::Send | What::SendZeroCopy(_), Some(Held::Gather(gather))) => {
                    // SAFETY: this is the operation's last completion. Bytes that are sent without a
                    // copy are held in `zero_copy` until the notice.
                    let gather = unsafe { gather.take_back() };
                    Outcome::Sent { result: result.map(|bytes| bytes as usize), gather }
                }
                (What::Poll, _) => Outcome::Polled(result),
                (What::Accept, _) => Outcome::Accepted(result.map(adopt_descriptor)),
                (What::Connect, held) => {
                    if let Some(Held::Address(address)) = held {
                        // SAFETY: this is the operation's last completion.
                        drop(unsafe { address.take_back() });
                    }
                    Outcome::Connected(result.map(drop))
                }
                (What::Send | What::SendZeroCopy(_), _) => {
                    unreachable!("a send completes once and holds its gather")
                }
            };
            counters.completions += 1;
            out.push(Completion { token, more, outcome });
        }
        reaped
    }
}

/// The operation that a send without a copy was, if it is over. One that the kernel refused is made
/// again as a plain one.
#[inline]
fn over(sent: Option<Sent>, ops: &mut Ops, spill: &mut VecDeque<Request>) -> Option<OpId> {
    match sent {
        Some(Sent::Over(op)) => return Some(op),
        Some(Sent::Refused(op)) => {
            let again = ops.get_mut(op).and_then(plainly);
            spill.extend(again.map(|request| request.named(user_data(op))));
        }
        None => debug_assert!(false, "a zero-copy send completes once and gives notice"),
    }
    None
}

/// The plain send for one that the kernel will not do from our pages. Only such as wait were tried.
fn plainly(op: &mut Op) -> Option<Request> {
    op.what = What::Send;
    let Held::Gather(gather) = &op.held else { return None };
    // SAFETY: the gather is lent in the operation's slot, and stays there until the last completion
    // of this send. The one before has had all of its own that read the gather.
    Some(unsafe { Request::send(&op.fd, gather, libc::MSG_NOSIGNAL, false) })
}

/// The descriptor of an accepted connection.
#[inline]
fn adopt_descriptor(fd: u32) -> OwnedFd {
    // SAFETY: the kernel has just opened this descriptor for us; nobody else knows its number.
    unsafe { OwnedFd::from_raw_fd(fd.cast_signed()) }
}

/// A completion's number as a result: negative ones are error numbers.
#[inline]
fn checked(result: i32) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

#[inline]
fn received(
    group: &mut BufferGroup,
    result: io::Result<u32>,
    flags: u32,
    counters: &mut DriverCounters,
) -> io::Result<Option<Chunk>> {
    let len_bytes = result.as_ref().map_or(0, |&bytes| bytes);
    let chunk = cqueue::buffer_select(flags).map(|index| {
        // SAFETY: this completion names the buffer, and each completion is looked at once.
        unsafe { group.adopt(index, len_bytes) }
    });
    match result {
        Ok(0) => Ok(None),
        Ok(_) => match chunk {
            Some(chunk) => Ok(Some(chunk)),
            None => Err(io::Error::from_raw_os_error(libc::EIO)),
        },
        Err(error) => {
            if error.raw_os_error() == Some(libc::ENOBUFS) {
                counters.no_buffers += 1;
            }
            Err(error)
        }
    }
}
