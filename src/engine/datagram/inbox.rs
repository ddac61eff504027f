#![allow(unsafe_code)]
//! Datagrams taken from a socket, many in one call.

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use super::address::{self, Note};
use super::{CONTROL_BYTES, Control};
use crate::engine::region::Region;
use crate::limits::DATAGRAMS_AT_ONCE;

/// Bytes kept for one message: the largest run there is.
const SLOT_BYTES: usize = 64 << 10;

/// One message: a datagram, or a run of them that the kernel had put together.
pub(in crate::engine) struct Received<'a> {
    /// Who sent it. `None`: the socket is connected.
    pub(in crate::engine) from: Option<SocketAddr>,
    /// The address it was sent to, where the socket was asked to say so.
    pub(in crate::engine) own: Option<IpAddr>,
    /// Size of its datagrams; the last may be shorter. 0: one that is empty.
    pub(in crate::engine) size_bytes: u32,
    pub(in crate::engine) payload: &'a [u8],
}

/// Where messages are received into, and stay until the next call.
pub(in crate::engine) struct Inbox {
    slots: Region,
    /// What `headers` point to: never moved or resized.
    names: Box<[libc::sockaddr_storage]>,
    controls: Box<[Control]>,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    filled: usize,
}

impl Inbox {
    /// Memory is used as it is written to.
    pub(in crate::engine) fn new() -> io::Result<Inbox> {
        const COUNT: usize = DATAGRAMS_AT_ONCE;
        let slots = Region::new(COUNT * SLOT_BYTES)?;
        // SAFETY: addresses, vectors and headers are numbers and nullable pointers, for which zero
        // is valid.
        let (name, iovec, header) = unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        let mut inbox = Inbox {
            slots,
            names: vec![name; COUNT].into(),
            controls: vec![Control([0; CONTROL_BYTES]); COUNT].into(),
            iovecs: vec![iovec; COUNT].into(),
            headers: vec![header; COUNT].into(),
            filled: 0,
        };
        for at in 0..COUNT {
            inbox.iovecs[at] = libc::iovec {
                iov_base: inbox.slots.base().as_ptr().wrapping_add(at * SLOT_BYTES).cast(),
                iov_len: SLOT_BYTES,
            };
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
    pub(in crate::engine) fn receive(&mut self, from: &OwnedFd) -> io::Result<usize> {
        // The kernel has written to those that were filled only.
        for header in &mut self.headers[..self.filled] {
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as _;
            header.msg_hdr.msg_controllen = CONTROL_BYTES as _;
        }
        self.filled = 0;
        let count = self.headers.len() as u32;
        loop {
            // SAFETY: each header points to an address, a control area and a slot of our own, with
            // their lengths; the kernel writes there only until the call is over.
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
    pub(in crate::engine) fn get(&self, at: usize) -> Received<'_> {
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
        let start = self.slots.base().as_ptr().wrapping_add(at * SLOT_BYTES);
        // SAFETY: the kernel has written so many bytes to this slot, not more than it has; nobody
        // writes to it before the next `receive`, which `self` is borrowed against.
        let payload = unsafe { std::slice::from_raw_parts(start, bytes.min(SLOT_BYTES)) };
        Received { from, own, size_bytes, payload }
    }
}

const _: () = assert!(crate::limits::DATAGRAM_BYTES_MAX as usize <= SLOT_BYTES);
