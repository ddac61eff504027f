//! Making a driver: the ring, its buffers, and one operation to see that it runs.

use std::io;

use io_uring::IoUring;

use super::buffers::BufferGroup;
use super::error::{SetupError, SetupStep};
use super::request::Request;
use super::{OWN, UringDriver};
use crate::io::driver::BufferClass;
use crate::limits::{
    BULK_BUFFER_BYTES, BULK_BUFFERS, OPERATIONS_START, SMALL_BUFFER_BYTES, SMALL_BUFFERS,
    URING_COMPLETION_ENTRIES, URING_SUBMISSION_ENTRIES,
};

/// Sizes of a driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UringConfig {
    /// Operations queued before the kernel must be entered.
    pub submission_entries: u32,
    /// Completions queued before the kernel keeps them aside.
    pub completion_entries: u32,
    /// Operations in flight before their table grows.
    pub operations: usize,
    /// Size of each buffer of [`BufferClass::Small`].
    pub small_buffer_bytes: u32,
    /// Number of these; a power of two.
    pub small_buffers: u16,
    /// Size of each buffer of [`BufferClass::Bulk`].
    pub bulk_buffer_bytes: u32,
    /// Number of these; a power of two.
    pub bulk_buffers: u16,
}

impl Default for UringConfig {
    /// What [`crate::limits`] says.
    fn default() -> Self {
        Self {
            submission_entries: URING_SUBMISSION_ENTRIES,
            completion_entries: URING_COMPLETION_ENTRIES,
            operations: OPERATIONS_START,
            small_buffer_bytes: SMALL_BUFFER_BYTES,
            small_buffers: SMALL_BUFFERS,
            bulk_buffer_bytes: BULK_BUFFER_BYTES,
            bulk_buffers: BULK_BUFFERS,
        }
    }
}

impl UringConfig {
    /// Memory that the kernel pins for the rings, about: what `RLIMIT_MEMLOCK` may be counted
    /// against. The receive buffers themselves are not pinned.
    pub(super) fn pinned_bytes(&self) -> u64 {
        let entry_bytes = |count: u64, each: u64| (count * each).next_multiple_of(4096);
        entry_bytes(u64::from(self.submission_entries), 64 + 4)
            + entry_bytes(u64::from(self.completion_entries), 16)
            + entry_bytes(u64::from(self.small_buffers), 16)
            + entry_bytes(u64::from(self.bulk_buffers), 16)
    }
}

pub(super) fn new_driver(config: &UringConfig) -> Result<UringDriver, SetupError> {
    let failed = |step: SetupStep| {
        move |error: io::Error| SetupError::of(step, &error, config.pinned_bytes())
    };
    let mut ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        // One bad entry must not hold up those behind it.
        .setup_submit_all()
        .setup_cqsize(config.completion_entries)
        .build(config.submission_entries)
        .map_err(failed(SetupStep::Ring))?;
    run_nop(&mut ring).map_err(failed(SetupStep::Enter))?;
    let submitter = ring.submitter();
    let register = |class: BufferClass, buffer_bytes, count| {
        BufferGroup::register(&submitter, class as u16, buffer_bytes, count)
            .map_err(failed(SetupStep::Buffers))
    };
    let groups = [
        register(BufferClass::Small, config.small_buffer_bytes, config.small_buffers)?,
        register(BufferClass::Bulk, config.bulk_buffer_bytes, config.bulk_buffers)?,
    ];
    Ok(UringDriver::from_parts(ring, groups, config.operations))
}

/// A sandbox may allow the ring to be made and forbid to enter it.
fn run_nop(ring: &mut IoUring) -> io::Result<()> {
    if !Request::nop().named(OWN).queue(ring) {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    ring.submit_and_wait(1)?;
    match ring.completion().next() {
        Some(entry) if entry.result() >= 0 => Ok(()),
        Some(entry) => Err(io::Error::from_raw_os_error(-entry.result())),
        None => Err(io::Error::from_raw_os_error(libc::EIO)),
    }
}
