#![allow(unsafe_code)]
//! From the kernel's completions to the worker's.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use io_uring::cqueue;

use super::UringDriver;
use super::buffers::BufferGroup;
use super::slots::{Held, OWN, What, op_id};
use crate::engine::chunk::Chunk;
use crate::engine::driver::{Completion, DriverCounters, Outcome};

impl UringDriver {
    /// Takes what is in the completion queue; returns how many, the driver's own included.
    #[inline]
    pub(super) fn reap(&mut self, out: &mut Vec<Completion>) -> usize {
        let mut reaped = 0;
        let Self { ring, slots, groups, own_slots, counters, .. } = self;
        for entry in ring.completion() {
            reaped += 1;
            if entry.user_data() == OWN {
                continue;
            }
            let id = op_id(entry.user_data());
            let more = cqueue::more(entry.flags());
            let Some(op) = slots.get(id) else {
                debug_assert!(false, "a completion for an operation that is over");
                continue;
            };
            let (token, what) = (op.token, op.what);
            let ended = if more { None } else { slots.remove(id) };
            let result = checked(entry.result());
            let outcome = match (what, ended.map(|op| op.held)) {
                (What::Recv(class), _) => {
                    let group = &mut groups[class as usize];
                    Outcome::Received(received(group, result, entry.flags(), counters))
                }
                (What::Send, Some(Held::Gather(gather))) => {
                    Outcome::Sent { result: result.map(|bytes| bytes as usize), gather }
                }
                (What::Poll, _) => Outcome::Polled(result),
                (What::Accept, _) => Outcome::Accepted(result.map(|fd| {
                    // SAFETY: the kernel has just opened this descriptor for us; nobody else
                    // knows its number.
                    unsafe { OwnedFd::from_raw_fd(fd as i32) }
                })),
                (What::Connect, _) => Outcome::Connected(result.map(drop)),
                (What::CancelAll, _) => {
                    *own_slots -= 1;
                    continue;
                }
                (What::Send, _) => unreachable!("a send completes once and holds its gather"),
            };
            counters.completions += 1;
            out.push(Completion { token, more, outcome });
        }
        reaped
    }
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
