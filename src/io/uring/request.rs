#![allow(unsafe_code)]
//! What the kernel is asked for: entries of the submission queue that may be queued at any time.

use std::os::fd::AsRawFd;
use std::ptr;

use io_uring::types::{CancelBuilder, Fd as Target};
use io_uring::{IoUring, opcode, squeue};
use socket2::SockAddr;

use crate::io::driver::{Fd, Gather, RecvMode};
use crate::io::gather::SendArgs;
use crate::io::lent::Lent;

/// An entry for the kernel.
///
/// What it points to stays where it is, unchanged, until the operation's last completion: it was
/// made of nothing that is pointed to, or by one of the unsafe functions, whose caller has promised
/// that. Hence it can be queued by safe code.
pub(super) struct Request(squeue::Entry);

/// `IORING_SEND_ZC_REPORT_USAGE` of `linux/io_uring.h`: the notice is to say whether it was copied.
const REPORT_USAGE: u16 = 1 << 3;

/// Of an accepted connection.
const ACCEPTED: i32 = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;

/// All operations that a [`Request`] may be; the ring runs no others.
pub(super) const OPERATIONS: [u8; 10] = [
    opcode::Nop::CODE,
    // Of one connection, and of each that comes.
    opcode::Accept::CODE,
    // The same.
    opcode::Recv::CODE,
    opcode::PollAdd::CODE,
    opcode::AsyncCancel::CODE,
    opcode::Send::CODE,
    opcode::SendMsg::CODE,
    opcode::SendZc::CODE,
    opcode::SendMsgZc::CODE,
    opcode::Connect::CODE,
];

/// All flags that it may have.
pub(super) const FLAGS: squeue::Flags = squeue::Flags::BUFFER_SELECT;

#[inline]
fn target(fd: &Fd) -> Target {
    Target(fd.as_raw_fd())
}

impl Request {
    pub(super) fn nop() -> Request {
        Request(opcode::Nop::new().build())
    }

    pub(super) fn accept(fd: &Fd) -> Request {
        Request(opcode::AcceptMulti::new(target(fd)).flags(ACCEPTED).build())
    }

    pub(super) fn accept_one(fd: &Fd) -> Request {
        // Nobody asks whose address it is.
        let (address, len) = (ptr::null_mut(), ptr::null_mut());
        Request(opcode::Accept::new(target(fd), address, len).flags(ACCEPTED).build())
    }

    /// Into a buffer that the kernel chooses from a group, to which it belongs until the completion
    /// that names it.
    #[inline]
    pub(super) fn recv(fd: &Fd, mode: RecvMode, group: u16) -> Request {
        Request(match mode {
            RecvMode::Multishot => opcode::RecvMulti::new(target(fd), group).build(),
            // Length 0: as much as the chosen buffer holds.
            RecvMode::Now => opcode::Recv::new(target(fd), ptr::null_mut(), 0)
                .flags(libc::MSG_DONTWAIT)
                .buf_group(group)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT),
        })
    }

    pub(super) fn poll(fd: &Fd, events: u32, multishot: bool) -> Request {
        Request(opcode::PollAdd::new(target(fd), events).multi(multishot).build())
    }

    /// Of the operation that has this name.
    pub(super) fn cancel(user_data: u64) -> Request {
        Request(opcode::AsyncCancel::new(user_data).build())
    }

    /// Of any one operation.
    pub(super) fn cancel_any() -> Request {
        Request(opcode::AsyncCancel2::new(CancelBuilder::any()).build())
    }

    /// The send of a gather; `zero_copy`: from our own pages.
    ///
    /// # Safety
    ///
    /// The gather stays lent, and nobody changes it, until the operation's last completion. From our
    /// own pages its chunks are held until the kernel's notice, which comes after that.
    #[inline]
    pub(super) unsafe fn send(
        fd: &Fd,
        gather: &Lent<Gather>,
        flags: i32,
        zero_copy: bool,
    ) -> Request {
        // SAFETY: it is lent from here on, by the contract, and before that nobody else has it.
        let args = unsafe { (*gather.as_ptr()).send_args() };
        let (fd, flags_unsigned) = (target(fd), flags.cast_unsigned());
        Request(match (args, zero_copy) {
            (SendArgs::One { start, len_bytes }, false) => {
                opcode::Send::new(fd, start, len_bytes).flags(flags).build()
            }
            (SendArgs::Many(header), false) => {
                opcode::SendMsg::new(fd, header).flags(flags_unsigned).build()
            }
            (SendArgs::One { start, len_bytes }, true) => {
                let send = opcode::SendZc::new(fd, start, len_bytes).flags(flags);
                send.zc_flags(REPORT_USAGE).build()
            }
            (SendArgs::Many(header), true) => {
                let send = opcode::SendMsgZc::new(fd, header).flags(flags_unsigned);
                send.ioprio(REPORT_USAGE).build()
            }
        })
    }

    /// The connection of a socket.
    ///
    /// # Safety
    ///
    /// The address stays lent until the operation's completion.
    pub(super) unsafe fn connect(fd: &Fd, address: &Lent<SockAddr>) -> Request {
        // SAFETY: it is lent, so nobody writes to it.
        let address = unsafe { &*address.as_ptr() };
        Request(opcode::Connect::new(target(fd), address.as_ptr().cast(), address.len()).build())
    }

    /// Any entry that points to nothing.
    #[cfg(test)]
    pub(super) fn of(entry: &squeue::Entry) -> Request {
        Request(entry.clone())
    }

    /// With the name that its completions carry.
    #[inline]
    pub(super) fn named(self, user_data: u64) -> Request {
        Request(self.0.user_data(user_data))
    }

    /// Queues it; false if the queue is full.
    #[inline]
    pub(super) fn queue(&self, ring: &mut IoUring) -> bool {
        // SAFETY: what it points to stays until the operation's last completion, see the type; the
        // driver keeps the operation's slot, with what is lent in it, until it has reaped that, and
        // leaks it if the ring goes before.
        unsafe { ring.submission().push(&self.0) }.is_ok()
    }
}
