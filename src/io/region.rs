#![allow(unsafe_code)]
//! Zeroed anonymous memory, page-aligned, that costs a page only once it is touched.

use std::io;
use std::ptr::{self, NonNull};

/// A private anonymous mapping, unmapped on drop.
///
/// `NORESERVE`, because pools are sized for the worst case and mostly idle: memory that nothing
/// has written to must not count against the machine.
#[derive(Debug)]
pub(crate) struct Region {
    base: NonNull<u8>,
    len_bytes: usize,
}

/// Miri knows plain anonymous mappings only.
#[cfg(not(miri))]
const MAP_FLAGS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
#[cfg(miri)]
const MAP_FLAGS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

impl Region {
    /// Maps `len_bytes` (not 0) of zeroes.
    pub(crate) fn new(len_bytes: usize) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours;
        // the arguments are plain numbers, and the result is checked before use.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                MAP_FLAGS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len_bytes })
    }

    /// The first byte. Valid for reads and writes of the region's length while `self` lives.
    #[inline]
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: base and length are those of our own mapping, unmapped once, here. Whoever lent
        // it to the kernel keeps `self` alive until the kernel is done (see `uring`).
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len_bytes) };
    }
}
