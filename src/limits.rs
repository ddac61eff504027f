//! Every bound of the program in one place, each with its reason.
//!
//! Queues, tables and buffers elsewhere take their size from here, so that the most memory a
//! process can hold follows from this file alone.

/// Default length of the kernel's queue of accepted connections per listener. The kernel cuts it
/// to `net.core.somaxconn` (4096 by default); clients wait there while the tunnel is down.
pub const LISTEN_BACKLOG: i32 = 1024;

/// Deepest nesting of `+=FILE`. A loop is found by path before this; the bound is for chains that
/// never repeat a path (a FIFO or a generated file).
pub const PARAM_FILE_DEPTH: usize = 16;

/// Largest parameter file. Nobody writes one this long by hand; a device or a log given by
/// mistake must not be read into memory.
pub const PARAM_FILE_BYTES: u64 = 1 << 20;

/// Most entrance ports of one process, ranges counted out. Each is a listening descriptor.
pub const ENTRANCES_MAX: usize = 4096;

/// Most parts of one gathered send: the kernel's own bound for a vector (`UIO_MAXIOV`); a longer
/// one is refused with `EMSGSIZE`. The rest of a longer list goes with the next send.
pub const GATHER_PARTS_MAX: usize = 1024;

/// Parts a gathered send has room for before it first grows: a batch of frames, each with its
/// header and payload, of some thirty streams.
pub const GATHER_PARTS_START: usize = 64;

/// Small receive buffers: a page each, since interactive messages rarely exceed one, and a TCP
/// segment or two fit. 512 of them (2 MiB) let every one of 200 streams hold two, with room.
pub const SMALL_BUFFER_BYTES: u32 = 4 << 10;
/// See [`SMALL_BUFFER_BYTES`]. A power of two, as the kernel's buffer rings are.
pub const SMALL_BUFFERS: u16 = 512;

/// Bulk receive buffers: 64 KiB, beyond which a larger receive saves nothing measurable over
/// loopback, while every one held is memory. 64 of them are 4 MiB.
pub const BULK_BUFFER_BYTES: u32 = 64 << 10;
/// See [`BULK_BUFFER_BYTES`]. A power of two, as the kernel's buffer rings are.
pub const BULK_BUFFERS: u16 = 64;

/// Operations that can be queued to the ring before the kernel is entered: a turn of the worker
/// that starts two for each of 200 streams. More are submitted early, never refused.
pub const URING_SUBMISSION_ENTRIES: u32 = 512;

/// Completions the kernel can queue to us. Multishot operations add without being asked: one per
/// receive buffer (576), one per accepted connection (up to the listener's backlog), and the end
/// of every operation. Beyond it the kernel keeps them aside, more slowly, and none is lost.
pub const URING_COMPLETION_ENTRIES: u32 = 4096;

/// Operations in flight before their table first grows: four for each of 200 streams, and the
/// entrances.
pub const URING_OPERATIONS_START: usize = 1024;

/// Times a submission that the kernel refuses for the moment (`EAGAIN`, `EBUSY`: out of memory, or
/// completions waiting) is tried again within one wait, reaping in between.
pub const URING_SUBMIT_TRIES_MAX: u32 = 16;

/// Longest wait for cancelled operations to end when a driver is dropped. They end at once, save
/// when the kernel is stuck in one; then their memory is given up instead of their safety.
pub const URING_TEARDOWN_MILLIS: u64 = 2000;

/// Longest wait for a message that a probe of io_uring has sent to itself. It takes microseconds;
/// a machine stalled for seconds must not be taken for one without io_uring.
pub const URING_PROBE_MILLIS: u64 = 5000;
