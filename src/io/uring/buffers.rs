#![allow(unsafe_code)]
//! Receive buffers that the kernel chooses from: one group of equal buffers, shared by all
//! receives of a class, so that memory is bound to data and not to connections.

use std::io;
use std::mem::size_of;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use crate::io::chunk::{BufferSet, Chunk};
use crate::io::region::Region;
use crate::limits::{URING_READY_BYTES, URING_READY_WHOLE_BYTES};
use crate::narrow::to_u16;

/// A buffer group and the ring by which its buffers are given to the kernel.
#[derive(Debug)]
pub(super) struct BufferGroup {
    set: Rc<BufferSet>,
    /// The ring: as many entries as buffers, so it can never be too full.
    entries: Region,
    id: u16,
    mask: u16,
    /// Entries ever added, modulo 2^16; what the kernel is told.
    tail: u16,
    with_kernel: u32,
    /// As many are given to the kernel at once.
    ready_max: u32,
}

impl BufferGroup {
    /// Makes `count` (a power of two) buffers, registers the group as `id`, and gives it some of
    /// them: the kernel takes them in turn, so it has only as many as may fill the processor's
    /// cache.
    pub(super) fn register(
        submitter: &Submitter<'_>,
        id: u16,
        buffer_bytes: u32,
        count: u16,
    ) -> io::Result<Self> {
        if !count.is_power_of_two() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let set = BufferSet::new(buffer_bytes, u32::from(count))?;
        let entries = Region::new(usize::from(count) * size_of::<BufRingEntry>())?;
        // SAFETY: the entries are page-aligned, zeroed, of the length the count says, and live as
        // long as the group, which the driver keeps until no operation can use it any more, or
        // leaks.
        unsafe {
            submitter.register_buf_ring_with_flags(entries.base().as_ptr() as u64, count, id, 0)?;
        }
        let ready_max = match buffer_bytes * u32::from(count) <= URING_READY_WHOLE_BYTES {
            true => u32::from(count),
            false => (URING_READY_BYTES / buffer_bytes).max(1),
        };
        let mask = count - 1;
        let mut group = Self { set, entries, id, mask, tail: 0, with_kernel: 0, ready_max };
        group.replenish();
        Ok(group)
    }

    /// Ends the registration. For when no operation is in flight.
    pub(super) fn unregister(&self, submitter: &Submitter<'_>) -> io::Result<()> {
        submitter.unregister_buf_ring(self.id)
    }

    /// The group's number, which receives name.
    #[inline]
    pub(super) fn id(&self) -> u16 {
        self.id
    }

    /// Gives the kernel buffers in place of those it has filled, the one that came back last first.
    #[inline]
    pub(super) fn replenish(&mut self) {
        let mut any = false;
        while self.with_kernel < self.ready_max
            && let Some(index) = self.set.pop_returned()
        {
            self.add(to_u16(index));
            any = true;
        }
        if any {
            self.publish();
        }
    }

    #[inline]
    fn add(&mut self, index: u16) {
        let address = self.set.address(u32::from(index));
        let at = usize::from(self.tail & self.mask);
        // SAFETY: `at` is within the ring (mask), which only this thread writes. The kernel does
        // not look at the entry before `publish`: there are as many entries as buffers, so the one
        // that stood here has been taken. The buffer is nobody's: its last chunk is gone.
        let entry = unsafe { &mut *self.entries.base().cast::<BufRingEntry>().as_ptr().add(at) };
        entry.set_addr(address as u64);
        entry.set_len(self.set.buffer_bytes());
        entry.set_bid(index);
        self.tail = self.tail.wrapping_add(1);
        self.with_kernel += 1;
    }

    #[inline]
    fn publish(&self) {
        let base = self.entries.base().cast::<BufRingEntry>().as_ptr();
        // SAFETY: `base` is the first entry of our ring; its tail field is 16 bits, aligned, and
        // is otherwise only read, by the kernel.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(base).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// The buffer that a completion names, with the bytes it received.
    ///
    /// # Safety
    ///
    /// To be called once for each completion that names a buffer of this group.
    #[inline]
    pub(super) unsafe fn adopt(&mut self, index: u16, len_bytes: u32) -> Chunk {
        self.with_kernel -= 1;
        // SAFETY: by its completion the kernel has given up the buffer; once, says the caller.
        unsafe { self.set.adopt(u32::from(index), len_bytes) }
    }

    /// Buffers in the kernel's hands or about to be.
    #[inline]
    pub(super) fn free(&self) -> usize {
        self.with_kernel as usize + self.set.returned_len()
    }
}
