//! The drivers: operations in flight, the rings of io_uring, and the turns of epoll.

use super::{BULK_BUFFER_BYTES, SMALL_BUFFER_BYTES, SMALL_BUFFERS};

/// Operations in flight before their table first grows: four for each of 200 streams, and the
/// entrances.
pub const OPERATIONS_START: usize = 1024;

/// Operations that can be queued to the ring before the kernel is entered: a turn of the worker
/// that starts two for each of 200 streams. More are submitted early, never refused.
pub const URING_SUBMISSION_ENTRIES: u32 = 512;

/// Completions the kernel can queue to us. Multishot operations add without being asked: one per
/// receive buffer (576), one per accepted connection (up to the listener's backlog), and the end
/// of every operation. Beyond it the kernel keeps them aside, more slowly, and none is lost.
pub const URING_COMPLETION_ENTRIES: u32 = 4096;

/// Receive buffers of a class that the kernel has at once, in bytes: it goes through them in turn,
/// and those of a processor's cache serve better than all. Copied bulk costs 6 to 10 % less with
/// 512 KiB than with 2 MiB, and a tenth less with these than with all 16 (`docs/performance.md`).
pub const URING_READY_BYTES: u32 = 512 << 10;

/// A class of no more than this is given whole: many small streams take one each at once.
pub const URING_READY_WHOLE_BYTES: u32 = 2 << 20;

const _: () = assert!(SMALL_BUFFER_BYTES * SMALL_BUFFERS as u32 <= URING_READY_WHOLE_BYTES);
const _: () = assert!(URING_READY_BYTES >= 2 * BULK_BUFFER_BYTES);

/// Completions that one wait takes by entering the kernel again for what it has deferred (newer kernels run 20
/// pieces of that at each entry). As many as of epoll ([`EPOLL_EVENTS_MAX`]), and more than one turn's operations
/// leave behind, which would grow from turn to turn otherwise.
pub const URING_COMPLETIONS_MAX: usize = EPOLL_EVENTS_MAX;

/// Times a submission that the kernel refuses for the moment (`EAGAIN`, `EBUSY`: out of memory, or
/// completions waiting) is tried again within one wait, reaping in between.
pub const URING_SUBMIT_TRIES_MAX: u32 = 16;

/// Longest wait for cancelled operations to end when a driver is dropped. They end at once, save
/// when the kernel is stuck in one; then their memory is given up instead of their safety.
pub const URING_TEARDOWN_MILLIS: u64 = 2000;

/// Longest wait for a message that a probe of io_uring has sent to itself. It takes microseconds;
/// a machine stalled for seconds must not be taken for one without io_uring.
pub const URING_PROBE_MILLIS: u64 = 5000;

/// Descriptors that one call of epoll_wait(2) reports. The kernel reports the others at the next.
pub const EPOLL_EVENTS_MAX: usize = 256;

/// Receives of a multishot receive of the epoll driver in one turn, and connections of an accept; then
/// others have their turn.
pub const EPOLL_REPEATS_MAX: usize = 8;

/// Consecutive turns that the epoll driver may fill with operations completed at once, before it polls
/// for other events. A poll costs as much as a small receive.
pub const EPOLL_UNSEEN_TURNS_MAX: u32 = 2;
