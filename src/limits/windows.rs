//! Windows of streams: bytes in flight before the reader has consumed any, and the growth of
//! windows.

#[cfg(doc)]
use super::POOL_BUFFERS;
use super::{PIPE_BYTES, STREAM_PIPES_MAX};

/// Initial bytes of one stream accepted from a native peer before the local socket consumes any. A
/// megabyte carries 4 GB/s at the 250 us that a loaded loopback tunnel takes to answer, and 100
/// MB/s at 10 ms; half of it cost a tenth of the throughput (`docs/performance.md`).
pub const WINDOW_BYTES: u32 = 1 << 20;

/// Bounds of the window that a peer's offer may set for one stream, in bytes.
pub const PEER_WINDOW_BYTES_MIN: u32 = 64 << 10;
/// See [`PEER_WINDOW_BYTES_MIN`].
pub const PEER_WINDOW_BYTES_MAX: u32 = 16 << 20;

const _: () =
    assert!(PEER_WINDOW_BYTES_MIN <= WINDOW_BYTES && WINDOW_BYTES <= PEER_WINDOW_BYTES_MAX);

/// Unacknowledged packets at which the original stops reading a stream: it continues while not more
/// than this many packet sizes are in flight.
pub const ORIGINAL_WINDOW_PACKETS: u64 = 4;

/// SockMux 1: initial window of a stream, in bytes, if no less was offered. It bounds the cost of a
/// stream that is not read; one that is read grows its window (see `session::window`).
pub const FIRST_WINDOW_BYTES: u32 = 256 << 10;

/// SockMux 1: largest window of one stream, in bytes. It fills 1 Gbit/s at a round trip of 500 ms.
pub const STREAM_WINDOW_BYTES_MAX: u64 = 64 << 20;

/// SockMux 1: budget of all streams of a tunnel for windows beyond the first, in bytes, unless the pool
/// is small.
/// [`POOL_BUFFERS`] bounds the data that slow readers can really hold.
pub const WINDOW_BUDGET_BYTES: u64 = 128 << 20;

/// SockMux 1: shortest time for which a window is sized, in microseconds, whatever the round trip
/// is: the two processes of a loaded machine need it to answer each other.
pub const WINDOW_LASTS_MICROS_MIN: u64 = 250;

/// SockMux 1: largest window, in round trips at the rate at which the local socket consumes. Round
/// trips lengthened by the stream's own queue do not count (`session::liveness`).
pub const WINDOW_CEILING_ROUND_TRIPS: u64 = 8;

/// SockMux 1: shortest measurement of that rate, in microseconds: longer than a process waits for a
/// busy processor, which is a tick or two of 4 ms.
pub const WINDOW_RATE_MICROS_MIN: u64 = 10_000;

/// SockMux 1: the same in round trips, so that the start of a stream on a long path is over.
pub const WINDOW_RATE_ROUND_TRIPS: u64 = 4;

/// SockMux 1: window that a stream may have on any path, however short, in bytes: half of the
/// capacity of its pipes at the exit. On loopback 4 and 6 MiB cost least on one processor and 1 to
/// 2 MiB on another; with more the pipes fill, and the rest has to be copied
/// (`docs/performance.md`).
pub const WINDOW_SHORT_PATH_BYTES: u64 = (STREAM_PIPES_MAX * PIPE_BYTES / 2) as u64;

/// SockMux 1: largest growth of a window at once, as a factor. Half of a window may have been
/// consumed in a burst.
pub const WINDOW_GROWTH_MAX: u64 = 8;

/// SockMux 1: most credit that a peer may grant for one stream. Beyond it the peer is faulty.
pub const CREDIT_BYTES_MAX: u64 = 1 << 40;

/// Bytes of one stream that are read from its local socket ahead of the link. One bulk receive
/// buffer: enough to fill a batch, little enough that a blocked link costs little memory.
pub const READ_AHEAD_BYTES: u64 = 256 << 10;
