//! Making a driver: the ring, its buffers, what the ring may do, and one operation to see that it runs.

use std::io;

use io_uring::register::Restriction;
use io_uring::{IoUring, Submitter};

use super::buffers::BufferGroup;
use super::error::{SetupError, SetupStep};
use super::request::{FLAGS, OPERATIONS, Request};
use super::zero_copy::ZeroCopy;
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
        // Until it has been restricted.
        .setup_r_disabled()
        .setup_cqsize(config.completion_entries)
        .build(config.submission_entries)
        .map_err(failed(SetupStep::Ring))?;
    let submitter = ring.submitter();
    let register = |class: BufferClass, buffer_bytes, count| {
        BufferGroup::register(&submitter, class as u16, buffer_bytes, count)
            .map_err(failed(SetupStep::Buffers))
    };
    let groups = [
        register(BufferClass::Small, config.small_buffer_bytes, config.small_buffers)?,
        register(BufferClass::Bulk, config.bulk_buffer_bytes, config.bulk_buffers)?,
    ];
    let zero_copy = ZeroCopy::new(&submitter);
    restrict(&submitter).map_err(failed(SetupStep::Restrict))?;
    run_nop(&mut ring).map_err(failed(SetupStep::Enter))?;
    Ok(UringDriver::from_parts(ring, groups, zero_copy, config.operations))
}

/// `IORING_UNREGISTER_PBUF_RING` of `linux/io_uring.h`: the buffer groups' end.
const UNREGISTER_BUFFERS: u8 = 23;

/// Enables the ring for the driver's own operations, and for no others: a system call filter does not
/// see what a ring is asked for.
fn restrict(submitter: &Submitter<'_>) -> io::Result<()> {
    let mut allowed: Vec<Restriction> = OPERATIONS.map(Restriction::sqe_op).into();
    allowed.push(Restriction::sqe_flags_allowed(FLAGS.bits()));
    allowed.push(Restriction::register_op(UNREGISTER_BUFFERS));
    submitter.register_restrictions(&mut allowed)?;
    submitter.register_enable_rings()
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

#[cfg(test)]
mod tests {
    use io_uring::{opcode, squeue, types};

    use super::*;

    /// What comes of an operation that no request makes.
    fn outcome(driver: &mut UringDriver, entry: &squeue::Entry) -> i32 {
        // None of the entries below points to anything.
        assert!(Request::of(entry).queue(&mut driver.ring));
        driver.ring.submit_and_wait(1).expect("the ring runs");
        driver.ring.completion().next().expect("a completion").result()
    }

    #[test]
    fn a_ring_does_what_the_driver_asks_for_and_nothing_else() {
        let mut driver = new_driver(&UringConfig::default()).expect("io_uring");
        let here = types::Fd(libc::AT_FDCWD);
        for entry in [
            opcode::OpenAt::new(here, std::ptr::null()).build(),
            opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).build(),
            opcode::Close::new(types::Fd(-1)).build(),
            opcode::Nop::new().build().flags(squeue::Flags::ASYNC),
        ] {
            assert_eq!(outcome(&mut driver, &entry), -libc::EACCES);
        }
        let error = driver.ring.submitter().register_files(&[0]).expect_err("refused");
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
        assert_eq!(outcome(&mut driver, &opcode::Nop::new().build()), 0);
    }
}
