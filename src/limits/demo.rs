//! The demo, and the traffic that it has in common with the benches.

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
