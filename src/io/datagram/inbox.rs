#![allow(unsafe_code)]
//! Datagrams taken from a socket, many in one call.

use std::cell::Cell;
use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use super::address::{self, Note};
use super::{CONTROL_BYTES, Control};
use crate::io::chunk::{BufferSet, Chunk};
use crate::limits::{DATAGRAM_BUFFERS, DATAGRAM_KEEP_BYTES, DATAGRAMS_AT_ONCE};

/// Size of a buffer, of which each message has one: the largest run there is.
const BUFFER_BYTES: usize = 64 << 10;

/// One message: a datagram, or a run of them that the kernel had put together.
pub(crate) struct Received<'a> {
    /// Who sent it. `None`: the socket is connected.
    pub(crate) from: Option<SocketAddr>,
    /// The address it was sent to, where the socket was asked to say so.
    pub(crate) own: Option<IpAddr>,
    /// Size of its datagrams; the last may be shorter. 0: one that is empty.
    pub(crate) size_bytes: u32,
    pub(crate) payload: &'a [u8],
    /// Where it was received, if it still is there.
    place: Option<(&'a Inbox, usize)>,
}

impl<'a> Received<'a> {
    /// What was received earlier, and copied.
    pub(crate) fn copied(payload: &'a [u8], size_bytes: u32) -> Received<'a> {
        Received { from: None, own: None, size_bytes, payload, place: None }
    }

    /// The payload with the buffer that it was received into. `None`: it is so little, or so many
    /// buffers are in use, that it is to be copied.
    pub(crate) fn keep(&self) -> Option<Chunk> {
        if self.payload.len() < DATAGRAM_KEEP_BYTES {
            return None;
        }
        let (Inbox { set, slots, .. }, at) = self.place?;
        let index = slots[at].replace(set.pop_returned()?);
        // SAFETY: the kernel has filled this buffer and is done with it; the slot has another from
        // here on, so it is adopted once. What was received stays readable through `payload`, too:
        // nobody writes to any buffer before the next `receive`, which that is borrowed against.
        Some(unsafe { set.adopt(index, self.payload.len() as u32) })
    }
}

/// Where messages are received into, and stay until the next call.
pub(crate) struct Inbox {
    set: Rc<BufferSet>,
    /// The buffer of each message: nobody else has it.
    slots: Box<[Cell<u32>]>,
    /// What `headers` point to: never moved or resized.
    names: Box<[libc::sockaddr_storage]>,
    controls: Box<[Control]>,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    filled: usize,
}

impl Inbox {
    /// Memory is used as it is written to.
    pub(crate) fn new() -> io::Result<Inbox> {
        const COUNT: usize = DATAGRAMS_AT_ONCE;
        let set = BufferSet::new(BUFFER_BYTES as u32, DATAGRAM_BUFFERS)?;
        // SAFETY: addresses, vectors and headers are numbers and nullable pointers, for which zero
        // is valid.
        let (name, iovec, header) = unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        let slots: Box<[_]> = (0..COUNT as u32).map(Cell::new).collect();
        set.give_back(COUNT as u32..DATAGRAM_BUFFERS);
        let mut inbox = Inbox {
            set,
            slots,
            names: vec![name; COUNT].into(),
            controls: vec![Control([0; CONTROL_BYTES]); COUNT].into(),
            iovecs: vec![iovec; COUNT].into(),
            headers: vec![header; COUNT].into(),
            filled: 0,
        };
        for at in 0..COUNT {
            let header = &mut inbox.headers[at].msg_hdr;
            header.msg_name = (&raw mut inbox.names[at]).cast();
            header.msg_iov = &raw mut inbox.iovecs[at];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut inbox.controls[at]).cast();
        }
        inbox.filled = COUNT;
        Ok(inbox)
    }

    /// Receives what there is, as many messages as there are slots for at most, in place of those
    /// received before.
    ///
    /// # Errors
    /// `EAGAIN`: nothing is there. `ECONNREFUSED`: a connected socket's peer said that nobody
    /// listens there.
    pub(crate) fn receive(&mut self, from: &OwnedFd) -> io::Result<usize> {
        // Of the others the kernel has changed nothing, nor has a buffer been kept.
        for at in 0..self.filled {
            let header = &mut self.headers[at].msg_hdr;
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as _;
            header.msg_controllen = CONTROL_BYTES as _;
            let start = self.set.address(self.slots[at].get());
            self.iovecs[at] = libc::iovec { iov_base: start.cast(), iov_len: BUFFER_BYTES };
        }
        self.filled = 0;
        let count = self.headers.len() as u32;
        loop {
            // SAFETY: each header points to an address, a control area and a buffer that no chunk
            // has, with their lengths; the kernel writes there only until the call is over.
            let got = unsafe {
                libc::recvmmsg(
                    from.as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    count,
                    libc::MSG_DONTWAIT,
                    std::ptr::null_mut(),
                )
            };
            if got >= 0 {
                self.filled = got as usize;
                return Ok(self.filled);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// A message of the last call.
    ///
    /// # Panics
    /// If there were fewer.
    pub(crate) fn get(&self, at: usize) -> Received<'_> {
        assert!(at < self.filled, "a message that was not received");
        let header = &self.headers[at];
        let bytes = header.msg_len as usize;
        let (mut size_bytes, mut own) = (bytes as u32, None);
        address::notes(&header.msg_hdr, |note| match note {
            Note::Segment(bytes) => size_bytes = size_bytes.min(bytes),
            Note::Own(ip) => own = Some(ip),
        });
        let from =
            if header.msg_hdr.msg_namelen == 0 { None } else { address::read(&self.names[at]) };
        let start = self.iovecs[at].iov_base.cast_const().cast();
        // SAFETY: the kernel has written so many bytes to this buffer, not more than it has; nobody
        // writes to it before the next `receive`, which `self` is borrowed against.
        let payload = unsafe { std::slice::from_raw_parts(start, bytes.min(BUFFER_BYTES)) };
        Received { from, own, size_bytes, payload, place: Some((self, at)) }
    }
}

const _: () = assert!(crate::limits::DATAGRAM_BYTES_MAX as usize <= BUFFER_BYTES);
