#![allow(unsafe_code)]
//! Runs handed to a socket: cut into datagrams by the kernel where it can, by us where not.

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use socket2::SockAddr;

use super::address::{CONTROL_BYTES, Control, Notes};
use crate::io::gather::empty_header;
use crate::limits::{DATAGRAM_BYTES_MAX, DATAGRAM_SEGMENTS_MAX};
use crate::narrow::{to_u16, to_u32};

/// Where a run goes, on a socket that is not connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Towards {
    pub(crate) to: SocketAddr,
    /// The address to send it from, on a socket that has several.
    pub(crate) own: Option<IpAddr>,
}

/// Datagrams of this size and more are not cut by the kernel on the way of a flow: they do not fit
/// into one packet, or the device cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentLimit(u32);

impl Default for SegmentLimit {
    fn default() -> SegmentLimit {
        SegmentLimit(u32::MAX)
    }
}

/// What became of a run.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Datagrams that the kernel took.
    pub(crate) datagrams: u64,
    /// Datagrams that it did not.
    pub(crate) dropped: u64,
    /// Why, for the last of them.
    pub(crate) error: Option<io::Error>,
}

/// Hands runs to sockets.
#[derive(Default)]
pub(crate) struct Outbox {
    /// The parts of one call. They point into what the caller has lent, and are void afterwards.
    iovecs: Vec<libc::iovec>,
}

impl Outbox {
    /// Sends a run, which stands in `parts`, on a socket that is connected or `towards` an address.
    /// What the socket does not take at once is dropped: a datagram that waits is late.
    pub(crate) fn send<'p>(
        &mut self,
        socket: &OwnedFd,
        towards: Option<&Towards>,
        parts: impl Iterator<Item = &'p [u8]>,
        size_bytes: u32,
        limit: &mut SegmentLimit,
    ) -> Sent {
        let mut parts = Parts { rest: parts, part: &[] };
        let name = towards.map(|towards| SockAddr::from(towards.to));
        let own = towards.and_then(|towards| towards.own);
        let mut sent = Sent::default();
        #[cfg(test)]
        if crate::io::sim::ask(|_| ()).is_some() {
            simulate(socket, towards, &mut parts, size_bytes, &mut sent);
            return sent;
        }
        loop {
            let whole_bytes = at_once_bytes(size_bytes);
            let bytes = self.gather(&mut parts, whole_bytes);
            if bytes == 0 && (size_bytes > 0 || sent.datagrams + sent.dropped > 0) {
                return sent;
            }
            let count = bytes.div_ceil(size_bytes.max(1)).max(1);
            let cut = count > 1;
            if cut && size_bytes >= limit.0 {
                self.send_each(socket, name.as_ref(), own, size_bytes, &mut sent);
                continue;
            }
            match self.call(socket, name.as_ref(), own, cut.then_some(to_u16(size_bytes))) {
                Ok(()) => sent.datagrams += u64::from(count),
                // What does not fit into a packet, or a device that cannot: by ourselves, from
                // now on.
                Err(error)
                    if cut
                        && matches!(
                            error.raw_os_error(),
                            Some(libc::EINVAL | libc::EMSGSIZE | libc::EIO | libc::EOPNOTSUPP)
                        ) =>
                {
                    let any_size = error.raw_os_error() != Some(libc::EMSGSIZE)
                        && error.raw_os_error() != Some(libc::EINVAL);
                    limit.0 = if any_size { 0 } else { size_bytes };
                    self.send_each(socket, name.as_ref(), own, size_bytes, &mut sent);
                }
                Err(error) => {
                    sent.dropped += u64::from(count);
                    sent.error = Some(error);
                }
            }
        }
    }

    /// Points `iovecs` to the next bytes, `most_bytes` of them if there are so many.
    fn gather<'p>(
        &mut self,
        parts: &mut Parts<'p, impl Iterator<Item = &'p [u8]>>,
        most_bytes: u32,
    ) -> u32 {
        self.iovecs.clear();
        let mut left = most_bytes as usize;
        while left > 0 && self.iovecs.len() < crate::limits::GATHER_PARTS_MAX {
            let Some(part) = parts.take(left) else { break };
            left -= part.len();
            self.iovecs.push(libc::iovec {
                iov_base: part.as_ptr().cast_mut().cast(),
                iov_len: part.len(),
            });
        }
        most_bytes - to_u32(left)
    }

    /// Sends what `iovecs` point to, datagram by datagram.
    fn send_each(
        &mut self,
        socket: &OwnedFd,
        name: Option<&SockAddr>,
        own: Option<IpAddr>,
        size_bytes: u32,
        sent: &mut Sent,
    ) {
        let whole = mem::take(&mut self.iovecs);
        let mut whole_parts = whole.iter().copied();
        let mut rest = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        loop {
            self.iovecs.clear();
            let mut left = size_bytes as usize;
            while left > 0 {
                if rest.iov_len == 0 {
                    match whole_parts.next() {
                        Some(part) => rest = part,
                        None => break,
                    }
                }
                let bytes = rest.iov_len.min(left);
                self.iovecs.push(libc::iovec { iov_len: bytes, ..rest });
                rest.iov_base = rest.iov_base.wrapping_byte_add(bytes);
                rest.iov_len -= bytes;
                left -= bytes;
            }
            if self.iovecs.is_empty() {
                break;
            }
            match self.call(socket, name, own, None) {
                Ok(()) => sent.datagrams += 1,
                Err(error) => {
                    sent.dropped += 1;
                    sent.error = Some(error);
                }
            }
        }
        self.iovecs = whole;
    }

    /// One message, of what `iovecs` point to.
    fn call(
        &mut self,
        socket: &OwnedFd,
        name: Option<&SockAddr>,
        own: Option<IpAddr>,
        segment_bytes: Option<u16>,
    ) -> io::Result<()> {
        let mut control = Control([0; CONTROL_BYTES]);
        let mut notes = Notes::new(&mut control);
        if let Some(bytes) = segment_bytes {
            notes.segment(bytes);
        }
        if let Some(own) = own {
            notes.own(own);
        }
        let control_bytes = notes.finish();
        let mut header = empty_header();
        if let Some(name) = name {
            header.msg_name = name.as_ptr().cast_mut().cast();
            header.msg_namelen = name.len();
        }
        header.msg_iov = self.iovecs.as_mut_ptr();
        header.msg_iovlen = self.iovecs.len() as _;
        if control_bytes > 0 {
            header.msg_control = (&raw mut control).cast();
            header.msg_controllen = control_bytes as _;
        }
        loop {
            // SAFETY: name, control area and vector live until the call is over, and what the
            // vector points to was lent for longer than that.
            let took = unsafe {
                libc::sendmsg(
                    socket.as_raw_fd(),
                    &raw const header,
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            };
            if took >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

/// Sends a run by the simulated kernel, datagram by datagram.
#[cfg(test)]
fn simulate<'p>(
    socket: &OwnedFd,
    towards: Option<&Towards>,
    parts: &mut Parts<'p, impl Iterator<Item = &'p [u8]>>,
    size_bytes: u32,
    sent: &mut Sent,
) {
    let mut bytes: Vec<u8> = Vec::new();
    while let Some(part) = parts.take(usize::MAX) {
        bytes.extend_from_slice(part);
    }
    let empty: &[u8] = &[];
    let size_bytes = size_bytes.max(1) as usize;
    let first = std::iter::once(empty).filter(|_| bytes.is_empty());
    for datagram in first.chain(bytes.chunks(size_bytes)) {
        let to = towards.map(|towards| towards.to);
        let call = |kernel: &mut crate::io::sim::Kernel| {
            kernel.send_datagram(socket.as_raw_fd(), to, datagram)
        };
        match crate::io::sim::ask(call) {
            Some(Err(error)) => {
                sent.dropped += 1;
                sent.error = Some(error);
            }
            _ => sent.datagrams += 1,
        }
    }
}

/// Bytes of a run that go in one call: whole datagrams, not more than the kernel cuts and one
/// packet's length can say.
fn at_once_bytes(size_bytes: u32) -> u32 {
    let fit = (DATAGRAM_BYTES_MAX / size_bytes.max(1)).clamp(1, DATAGRAM_SEGMENTS_MAX);
    size_bytes * fit
}

/// Bytes in several places, taken from the front.
struct Parts<'p, I> {
    rest: I,
    part: &'p [u8],
}

impl<'p, I: Iterator<Item = &'p [u8]>> Parts<'p, I> {
    /// The next bytes that stand together, `most_bytes` of them at most; `None` at the end.
    fn take(&mut self, most_bytes: usize) -> Option<&'p [u8]> {
        while self.part.is_empty() {
            self.part = self.rest.next()?;
        }
        let (taken, rest) = self.part.split_at(self.part.len().min(most_bytes));
        self.part = rest;
        Some(taken)
    }
}
