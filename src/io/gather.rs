#![allow(unsafe_code)]
//! What one gathered send takes: chunks in order, and the kernel's description of them.

use std::collections::VecDeque;
use std::fmt;
use std::io::IoSlice;
use std::mem;
use std::ptr;

use super::chunk::Chunk;
use crate::limits::{GATHER_PARTS_MAX, GATHER_PARTS_START};
use crate::narrow::to_u32;

/// An ordered list of chunks to be sent by one call. It is boxed once and goes round between its
/// owner and the driver; after it has grown to its usual size nothing of it is allocated again.
pub struct Gather {
    parts: VecDeque<Chunk>,
    len_bytes: usize,
    iovecs: Vec<libc::iovec>,
    header: libc::msghdr,
}

/// What to give to the kernel: for one part `send`, for more `sendmsg`, which costs more.
pub(crate) enum SendArgs {
    One { start: *const u8, len_bytes: u32 },
    Many(*const libc::msghdr),
}

/// The same for a call that is over when it returns.
pub(crate) enum SendSlices<'g> {
    One(&'g [u8]),
    Many(&'g [IoSlice<'g>]),
}

/// A message header that points to nothing.
pub(crate) fn empty_header() -> libc::msghdr {
    // SAFETY: a message header is numbers and nullable pointers, for which zero is valid.
    unsafe { mem::zeroed() }
}

impl Gather {
    /// An empty list with room for a usual number of parts.
    pub fn new() -> Self {
        Self {
            parts: VecDeque::with_capacity(GATHER_PARTS_START),
            len_bytes: 0,
            iovecs: Vec::with_capacity(GATHER_PARTS_START),
            header: empty_header(),
        }
    }

    /// Appends a chunk. One that continues the last part in the same buffer lengthens that part;
    /// an empty one is dropped.
    #[inline]
    pub fn push(&mut self, chunk: Chunk) {
        if chunk.is_empty() {
            return;
        }
        self.len_bytes += chunk.len();
        let chunk = match self.parts.back_mut() {
            Some(last) => match last.try_join(chunk) {
                Ok(()) => return,
                Err(chunk) => chunk,
            },
            None => chunk,
        };
        self.parts.push_back(chunk);
    }

    /// Bytes in all parts together.
    #[inline]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Number of parts. One send takes [`GATHER_PARTS_MAX`] of them at most.
    #[inline]
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// The parts, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Chunk> {
        self.parts.iter()
    }

    /// Whether there is nothing to send.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Drops the first `bytes`, which were sent: whole chunks go, the next one is trimmed.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    #[inline]
    pub fn advance(&mut self, mut bytes: usize) {
        assert!(bytes <= self.len_bytes, "advance past the end of a gather");
        self.len_bytes -= bytes;
        while bytes > 0 {
            let first = &mut self.parts[0];
            if bytes < first.len() {
                first.advance(bytes);
                return;
            }
            bytes -= first.len();
            self.parts.pop_front();
        }
    }

    /// Drops all parts.
    #[inline]
    pub fn clear(&mut self) {
        self.parts.clear();
        self.len_bytes = 0;
    }

    /// Empties the list and yields its parts in order.
    pub fn drain(&mut self) -> impl DoubleEndedIterator<Item = Chunk> {
        self.len_bytes = 0;
        self.parts.drain(..)
    }

    /// Describes the parts to the kernel, the first [`GATHER_PARTS_MAX`] of them.
    ///
    /// The pointers hold while the gather stays where it is, unchanged: a driver lends it to the
    /// kernel ([`Lent`](super::lent::Lent)) until the send has completed.
    #[inline]
    pub(crate) fn send_args(&mut self) -> SendArgs {
        if self.parts.len() <= 1 {
            let bytes = self.only_part();
            return SendArgs::One { start: bytes.as_ptr(), len_bytes: to_u32(bytes.len()) };
        }
        self.list_parts();
        self.header.msg_iov = self.iovecs.as_mut_ptr();
        self.header.msg_iovlen = self.iovecs.len() as _;
        SendArgs::Many(ptr::addr_of!(self.header))
    }

    /// The same parts, for a call that is made at once.
    #[inline]
    pub(crate) fn send_slices(&mut self) -> SendSlices<'_> {
        if self.parts.len() <= 1 {
            return SendSlices::One(self.only_part());
        }
        self.list_parts();
        let (start, count) = (self.iovecs.as_ptr().cast(), self.iovecs.len());
        // SAFETY: an `IoSlice` is laid out as the `iovec` that it stands for. The vector and the
        // chunks that it leads to are the gather's, which is borrowed until the slices are done with.
        SendSlices::Many(unsafe { std::slice::from_raw_parts(start, count) })
    }

    #[inline]
    fn only_part(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| part)
    }

    #[inline]
    fn list_parts(&mut self) {
        self.iovecs.clear();
        self.iovecs.extend(self.parts.iter().take(GATHER_PARTS_MAX).map(|part| libc::iovec {
            iov_base: part.as_ptr().cast_mut().cast(),
            iov_len: part.len(),
        }));
    }
}

impl Default for Gather {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Gather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gather({} bytes in {} parts)", self.len_bytes, self.parts.len())
    }
}
