#![allow(unsafe_code)]
//! Datagrams taken from a socket, many in one call.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use super::address::{self, CONTROL_BYTES, Control, NAME_BYTES, Name, Note};
use crate::io::chunk::{Chunk, ChunkMut, Pool};
use crate::io::gather::empty_header;
use crate::limits::{DATAGRAM_BUFFERS, DATAGRAM_KEEP_BYTES, DATAGRAMS_AT_ONCE};
use crate::narrow::to_u32;

/// Flags of `recvmmsg`, which musl has unsigned.
#[cfg(target_env = "musl")]
const DO_NOT_WAIT: u32 = libc::MSG_DONTWAIT.cast_unsigned();
#[cfg(not(target_env = "musl"))]
const DO_NOT_WAIT: libc::c_int = libc::MSG_DONTWAIT;

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
    /// Where it was received.
    inbox: &'a Inbox,
    at: usize,
}

impl Received<'_> {
    /// The payload with the buffer that it was received into. `None`: it is so little, or so many
    /// buffers are in use, that it is to be copied.
    pub(crate) fn keep(self) -> Option<Chunk> {
        if self.payload.len() < DATAGRAM_KEEP_BYTES {
            return None;
        }
        let Inbox { pool, slots, .. } = self.inbox;
        // What was received stays readable through `payload`, too: nobody writes to any buffer
        // before the next `receive`, which that is borrowed against.
        Some(slots[self.at].replace(pool.take()?).freeze(self.payload.len()))
    }
}

/// Where messages are received into, and stay until the next call.
pub(crate) struct Inbox {
    pool: Pool,
    /// The buffer of each message.
    slots: Box<[Cell<ChunkMut>]>,
    /// What `headers` point to: never moved or resized.
    names: Box<[Name]>,
    controls: Box<[Control]>,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    /// Messages of the last call.
    filled: usize,
    /// The next of them to be taken.
    next: usize,
}

impl Inbox {
    /// Memory is used as it is written to.
    pub(crate) fn new() -> io::Result<Inbox> {
        const COUNT: usize = DATAGRAMS_AT_ONCE;
        let pool = Pool::new(to_u32(BUFFER_BYTES), DATAGRAM_BUFFERS)?;
        let slots: Box<[_]> = (0..COUNT).map_while(|_| pool.take()).map(Cell::new).collect();
        let header = libc::mmsghdr { msg_hdr: empty_header(), msg_len: 0 };
        let mut inbox = Inbox {
            pool,
            slots,
            names: vec![Name([0; NAME_BYTES]); COUNT].into(),
            controls: vec![Control([0; CONTROL_BYTES]); COUNT].into(),
            iovecs: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; COUNT].into(),
            headers: vec![header; COUNT].into(),
            filled: 0,
            next: 0,
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
            header.msg_namelen = to_u32(NAME_BYTES);
            header.msg_controllen = CONTROL_BYTES as _;
            let room = self.slots[at].get_mut().spare();
            self.iovecs[at] =
                libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
        }
        (self.filled, self.next) = (0, 0);
        #[cfg(test)]
        if let Some(got) = crate::io::sim::ask(|kernel| {
            kernel.receive_datagrams(from.as_raw_fd(), self.headers.len())
        }) {
            return got.map(|messages| self.fill(messages));
        }
        let count = to_u32(self.headers.len());
        loop {
            // SAFETY: each header points to an address, a control area and the buffer of its slot,
            // which no chunk has, with their lengths; all are the inbox's, and the kernel writes
            // there only until the call is over.
            let got = unsafe {
                libc::recvmmsg(
                    from.as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    count,
                    DO_NOT_WAIT,
                    std::ptr::null_mut(),
                )
            };
            if let Ok(got) = usize::try_from(got) {
                self.filled = got;
                return Ok(got);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Notes what the simulated kernel has received.
    #[cfg(test)]
    fn fill(&mut self, messages: Vec<(Option<SocketAddr>, Vec<u8>)>) -> usize {
        self.filled = messages.len();
        for (at, (from, bytes)) in messages.into_iter().enumerate() {
            self.slots[at].get_mut().spare()[..bytes.len()].copy_from_slice(&bytes);
            let header = &mut self.headers[at];
            header.msg_len = crate::narrow::to_u32(bytes.len());
            (header.msg_hdr.msg_controllen, header.msg_hdr.msg_namelen) = (0, 0);
            if let Some(SocketAddr::V4(from)) = from {
                let name = &mut self.names[at].0;
                let family = crate::narrow::to_u16(libc::AF_INET.unsigned_abs());
                name[..2].copy_from_slice(&family.to_ne_bytes());
                name[2..4].copy_from_slice(&from.port().to_be_bytes());
                name[4..8].copy_from_slice(&from.ip().octets());
                header.msg_hdr.msg_namelen = 16;
            }
        }
        self.filled
    }

    /// The next message of the last call. Each is taken once, so that its buffer is kept once.
    pub(crate) fn take_next(&mut self) -> Option<Received<'_>> {
        let at = self.next;
        if at == self.filled {
            return None;
        }
        self.next += 1;
        let header = &self.headers[at];
        let bytes = (header.msg_len as usize).min(BUFFER_BYTES);
        let (mut size_bytes, mut own) = (to_u32(bytes), None);
        let control_bytes: usize = header.msg_hdr.msg_controllen as _;
        address::notes(
            &self.controls[at].0[..control_bytes.min(CONTROL_BYTES)],
            |note| match note {
                Note::Segment(bytes) => size_bytes = size_bytes.min(bytes),
                Note::Own(ip) => own = Some(ip),
            },
        );
        let from =
            if header.msg_hdr.msg_namelen == 0 { None } else { address::read(&self.names[at]) };
        let start = self.iovecs[at].iov_base.cast_const().cast();
        // SAFETY: the kernel has written so many bytes to this buffer, not more than it has. It lies
        // in the pool's mapping, and nobody writes to it before the next `receive`, which `self` is
        // borrowed against: until then it is the slot's, or a chunk's that was kept.
        let payload = unsafe { std::slice::from_raw_parts(start, bytes) };
        Some(Received { from, own, size_bytes, payload, inbox: self, at })
    }
}

const _: () = assert!(crate::limits::DATAGRAM_BYTES_MAX as usize <= BUFFER_BYTES);

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// A message is taken once, and keeping it takes it: its buffer cannot be adopted twice. What
    /// was kept is not written to by a later call.
    #[test]
    fn what_is_kept_stays_and_each_message_is_taken_once() {
        let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
        let theirs = UdpSocket::bind("127.0.0.1:0").unwrap();
        theirs.connect(ours.local_addr().unwrap()).unwrap();
        let ours = OwnedFd::from(ours);
        let mut inbox = Inbox::new().unwrap();
        let mut kept = Vec::new();
        for first in [0u8, 10] {
            for byte in first..first + 3 {
                theirs.send(&[byte; DATAGRAM_KEEP_BYTES]).unwrap();
            }
            theirs.send(b"little").unwrap();
            assert_eq!(inbox.receive(&ours).unwrap(), 4);
            for byte in first..first + 3 {
                let got = inbox.take_next().unwrap();
                assert_eq!(got.payload, [byte; DATAGRAM_KEEP_BYTES]);
                kept.push((byte, got.keep().unwrap()));
            }
            assert!(inbox.take_next().unwrap().keep().is_none(), "it is to be copied");
            assert!(inbox.take_next().is_none());
        }
        for (byte, chunk) in kept {
            assert_eq!(chunk[..], [byte; DATAGRAM_KEEP_BYTES]);
        }
    }
}
