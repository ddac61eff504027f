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

/// Payload of one chunk of the demo's and the benches' bulk traffic. A power of two well above a
/// tunnel packet, so that a chunk's own 12-byte header costs nothing that shows, and small enough
/// that a sender looks at the clock many times a second.
pub const DEMO_CHUNK_BYTES: usize = 1 << 20;

/// Bytes after which the demo's test pattern repeats: the first prime above 2^20, so that data
/// moved by a whole packet, buffer or chunk never meets the same bytes again.
pub const DEMO_PATTERN_BYTES: usize = 1_048_583;

/// Most that the demo's readers take from a socket at once; as large as the buffers of the
/// programs that it stands for.
pub const DEMO_READ_BYTES: usize = 256 << 10;

/// Longest message of a request/response measurement.
pub const DEMO_MESSAGE_BYTES: usize = 4096;

/// Longest silence on a socket of the demo before it gives up with an error. Loopback answers in
/// microseconds; a machine that is busy for ten seconds is not one to measure on.
pub const DEMO_STALL_SECS: u64 = 10;
