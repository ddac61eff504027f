#![allow(unsafe_code)]
//! Refcounted pieces of pooled buffers: how bytes travel through the engine without being copied.
//!
//! A buffer belongs to one set and is in exactly one state: free, being written by its one
//! writer (a [`ChunkMut`], or the kernel), or only read, through any number of [`Chunk`]s. Writer
//! and readers may share a buffer, since the writer only ever goes forward, past what it has
//! handed out. When the last holder goes, the buffer's index returns to the set.
//!
//! One worker is one thread: counts are plain cells, nothing here is `Send`, and nothing allocates
//! after the set was made.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::ops::Deref;
use std::rc::Rc;

use super::region::Region;
use crate::narrow::to_u32;

/// Equally large buffers in one mapping, with their reference counts.
#[derive(Debug)]
pub(crate) struct BufferSet {
    region: Region,
    buffer_bytes: u32,
    refs: Box<[Cell<u32>]>,
    /// Buffers that nobody holds any more, the latest last. A [`Pool`] hands them out again from
    /// here; the ring's driver gives them back to the kernel.
    returned: RefCell<Vec<u32>>,
}

impl BufferSet {
    /// Makes `count` buffers of `buffer_bytes`, all of them free: the first goes out first.
    pub(crate) fn new(buffer_bytes: u32, count: u32) -> io::Result<Rc<Self>> {
        let len_bytes = (buffer_bytes as usize).checked_mul(count as usize).filter(|&n| n > 0);
        let len_bytes = len_bytes.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a buffer pool of {count} x {buffer_bytes} bytes cannot be made"),
            )
        })?;
        Ok(Rc::new(Self {
            region: Region::new(len_bytes)?,
            buffer_bytes,
            refs: (0..count).map(|_| Cell::new(0)).collect(),
            returned: RefCell::new((0..count).rev().collect()),
        }))
    }

    /// Number of buffers.
    pub(crate) fn count(&self) -> u32 {
        to_u32(self.refs.len())
    }

    /// Size of each buffer.
    pub(crate) fn buffer_bytes(&self) -> u32 {
        self.buffer_bytes
    }

    /// Takes the buffer that came back last. Only its last lease brings it back again, so it has
    /// one owner at a time: the caller, then whatever that makes of it.
    #[inline]
    pub(crate) fn pop_returned(&self) -> Option<u32> {
        self.returned.borrow_mut().pop()
    }

    /// How many buffers have come back and wait to be taken.
    #[inline]
    pub(crate) fn returned_len(&self) -> usize {
        self.returned.borrow().len()
    }

    /// Start of buffer `index`.
    #[inline]
    pub(crate) fn address(&self, index: u32) -> *mut u8 {
        assert!(index < self.count(), "buffer index out of the set");
        self.region.base().as_ptr().wrapping_add(index as usize * self.buffer_bytes as usize)
    }

    /// The first `len_bytes` of buffer `index`, which the kernel has filled, as a chunk.
    ///
    /// # Safety
    ///
    /// Whoever could write to the buffer must have finished with it: for the kernel, its completion
    /// must name this buffer, and be passed on once only.
    #[inline]
    pub(crate) unsafe fn adopt(self: &Rc<Self>, index: u32, len_bytes: u32) -> Chunk {
        assert!(len_bytes <= self.buffer_bytes, "more bytes than the buffer has");
        Chunk { lease: Lease::first(Rc::clone(self), index), start: 0, end: len_bytes }
    }
}

/// One reference to one buffer.
struct Lease {
    set: Rc<BufferSet>,
    index: u32,
}

impl Lease {
    /// The first reference to a free buffer.
    #[inline]
    fn first(set: Rc<BufferSet>, index: u32) -> Self {
        let refs = &set.refs[index as usize];
        assert_eq!(refs.get(), 0, "buffer {index} is already in use");
        refs.set(1);
        Self { set, index }
    }

    #[inline]
    fn is_same_buffer(&self, other: &Self) -> bool {
        self.index == other.index && Rc::ptr_eq(&self.set, &other.set)
    }
}

impl Clone for Lease {
    #[inline]
    fn clone(&self) -> Self {
        let refs = &self.set.refs[self.index as usize];
        // Forgotten clones could otherwise wrap the count and free a buffer in use.
        refs.set(refs.get().checked_add(1).expect("too many references to one buffer"));
        Self { set: Rc::clone(&self.set), index: self.index }
    }
}

impl Drop for Lease {
    #[inline]
    fn drop(&mut self) {
        let refs = &self.set.refs[self.index as usize];
        let left = refs.get() - 1;
        refs.set(left);
        if left == 0 {
            // Never allocates: the vector was made with room for every buffer.
            self.set.returned.borrow_mut().push(self.index);
        }
    }
}

/// A run of bytes in a pooled buffer, shared and read-only. Cloning shares, it does not copy.
#[derive(Clone)]
pub struct Chunk {
    lease: Lease,
    start: u32,
    end: u32,
}

impl Chunk {
    /// Bytes in the chunk.
    #[inline]
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether no byte is left.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Size of the buffer that it keeps, however little of that it is.
    #[inline]
    pub(crate) fn buffer_bytes(&self) -> u32 {
        self.lease.set.buffer_bytes
    }

    /// The bytes, to be changed in place: only while nothing else refers to the buffer, no other chunk
    /// and no writer.
    #[inline]
    pub(crate) fn get_mut(&mut self) -> Option<&mut [u8]> {
        let Lease { set, index } = &self.lease;
        if set.refs[*index as usize].get() != 1 {
            return None;
        }
        let start = set.address(*index).wrapping_add(self.start as usize);
        let len = self.len();
        // SAFETY: as for reading, see `deref`. The only reference to the buffer is borrowed as long as
        // the slice, so nobody else reads or writes there, and no other lease can be made of it.
        Some(unsafe { std::slice::from_raw_parts_mut(start, len) })
    }

    /// Drops the first `bytes`.
    ///
    /// # Panics
    ///
    /// If the chunk is shorter.
    #[inline]
    pub fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.len(), "advance past the end of a chunk");
        self.start += to_u32(bytes);
    }

    /// Takes the first `bytes` off as a chunk of their own; `self` keeps the rest.
    ///
    /// # Panics
    ///
    /// If the chunk is shorter.
    #[inline]
    pub fn split_to(&mut self, bytes: usize) -> Chunk {
        assert!(bytes <= self.len(), "split past the end of a chunk");
        let middle = self.start + to_u32(bytes);
        let head = Chunk { lease: self.lease.clone(), start: self.start, end: middle };
        self.start = middle;
        head
    }

    /// Keeps the first `bytes` only; no effect when the chunk is not longer.
    #[inline]
    pub fn truncate(&mut self, bytes: usize) {
        if bytes < self.len() {
            self.end = self.start + to_u32(bytes);
        }
    }

    /// Appends `next` when it begins in the same buffer where `self` ends, else hands it back.
    #[inline]
    pub(crate) fn try_join(&mut self, next: Chunk) -> Result<(), Chunk> {
        if next.start == self.end && next.lease.is_same_buffer(&self.lease) {
            self.end = next.end;
            Ok(())
        } else {
            Err(next)
        }
    }
}

impl Deref for Chunk {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let start = self.lease.set.address(self.lease.index).wrapping_add(self.start as usize);
        // SAFETY: start..end lies in one buffer of the set, whose mapping the lease keeps alive
        // (checked where chunks are made; start and end only approach each other afterwards, or
        // meet a neighbour's). Nobody writes here while the chunk lives: a `ChunkMut` writes past
        // what it handed out only, and the kernel gets the buffer when its last lease is gone.
        unsafe { std::slice::from_raw_parts(start, self.len()) }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk(buffer {}, {}..{})", self.lease.index, self.start, self.end)
    }
}

/// The one writer of a buffer. Bytes are put at its end and taken out as [`Chunk`]s, again and
/// again until the buffer is full.
pub struct ChunkMut {
    lease: Lease,
    /// Handed out up to here.
    taken: u32,
    /// Written up to here.
    written: u32,
}

impl ChunkMut {
    /// Appends as much of `bytes` as fits, and says how much that was.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) -> usize {
        let take_bytes = bytes.len().min(self.room());
        self.spare()[..take_bytes].copy_from_slice(&bytes[..take_bytes]);
        self.written += to_u32(take_bytes);
        take_bytes
    }

    /// Lets `write` put bytes at the end, where it is given the rest of the buffer, and returns how
    /// many it has written.
    ///
    /// # Panics
    ///
    /// If it returns more than fit.
    #[inline]
    pub(crate) fn fill(
        &mut self,
        write: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let room_bytes = self.room();
        let written = write(self.spare())?;
        assert!(written <= room_bytes, "more was written than there was room for");
        self.written += to_u32(written);
        Ok(written)
    }

    /// The rest of the buffer, behind what was written.
    #[inline]
    pub(crate) fn spare(&mut self) -> &mut [u8] {
        let end = self.lease.set.address(self.lease.index).wrapping_add(self.written as usize);
        // SAFETY: written..buffer_bytes lies in our buffer, whose mapping the lease keeps alive and
        // whose bytes were zeroed when it was made. No chunk covers it: chunks of this buffer end
        // at `taken` at most. Nobody else writes there: a buffer has one writer, borrowed here.
        unsafe { std::slice::from_raw_parts_mut(end, self.room()) }
    }

    /// The buffer's first `bytes`, written or not, as a chunk; the rest of it is not written to any
    /// more. For a buffer that was filled through the address of its [`spare`](Self::spare).
    ///
    /// # Panics
    ///
    /// If the buffer has fewer, or some were handed out.
    #[inline]
    pub(crate) fn freeze(self, bytes: usize) -> Chunk {
        assert!(self.taken == 0 && bytes <= self.lease.set.buffer_bytes as usize);
        Chunk { lease: self.lease, start: 0, end: to_u32(bytes) }
    }

    /// Bytes that still fit.
    #[inline]
    pub fn room(&self) -> usize {
        (self.lease.set.buffer_bytes - self.written) as usize
    }

    /// Bytes written and not yet taken.
    #[inline]
    pub fn written_len(&self) -> usize {
        (self.written - self.taken) as usize
    }

    /// Whether nothing was ever written to the buffer since it was taken from the pool.
    #[inline]
    pub fn is_untouched(&self) -> bool {
        self.written == 0
    }

    /// Hands out what was written since the last take (empty when that is nothing). Writing goes
    /// on behind it; bytes once handed out are never written again.
    #[inline]
    pub fn take_written(&mut self) -> Chunk {
        let chunk = Chunk { lease: self.lease.clone(), start: self.taken, end: self.written };
        self.taken = self.written;
        chunk
    }
}

impl fmt::Debug for ChunkMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkMut(buffer {}, {}..{})", self.lease.index, self.taken, self.written)
    }
}

/// A fixed number of equal buffers to write into. The one that came back last goes out first,
/// because it is the one still in the processor's cache.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Pool {
    set: Rc<BufferSet>,
}

impl Pool {
    /// Makes `count` buffers of `buffer_bytes` each; memory is used as they are written to.
    ///
    /// # Errors
    ///
    /// When either number is 0, or the address space cannot be had.
    pub fn new(buffer_bytes: u32, count: u32) -> io::Result<Self> {
        Ok(Self { set: BufferSet::new(buffer_bytes, count)? })
    }

    /// A buffer to write into, or `None` while all are in use.
    #[inline]
    pub fn take(&self) -> Option<ChunkMut> {
        let index = self.set.pop_returned()?;
        Some(ChunkMut { lease: Lease::first(Rc::clone(&self.set), index), taken: 0, written: 0 })
    }

    /// Buffers that nobody holds.
    #[inline]
    pub fn free(&self) -> usize {
        self.set.returned_len()
    }

    /// Buffers in all.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.set.refs.len()
    }

    /// Size of each buffer.
    #[inline]
    pub fn buffer_bytes(&self) -> usize {
        self.set.buffer_bytes as usize
    }
}

#[cfg(test)]
mod tests;
