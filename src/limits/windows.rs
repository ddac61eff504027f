//! How much of each stream may be on the way before its reader has taken any, and how that grows.

#[cfg(doc)]
use super::POOL_BUFFERS;
use super::{PIPE_BYTES, STREAM_PIPES_MAX};

/// Bytes of one stream that we take from one of ours before our local socket has taken any.
/// A megabyte carries 4 GB/s at the 250 us that a loaded loopback tunnel takes to answer, and
/// 100 MB/s at 10 ms; half of it cost a tenth of the throughput (`docs/performance.md`).
pub const WINDOW_BYTES: u32 = 1 << 20;

/// Bounds on what a peer's offer may ask us to have on the way in one stream, in bytes.
pub const PEER_WINDOW_BYTES_MIN: u32 = 64 << 10;
/// See [`PEER_WINDOW_BYTES_MIN`].
pub const PEER_WINDOW_BYTES_MAX: u32 = 16 << 20;

const _: () =
    assert!(PEER_WINDOW_BYTES_MIN <= WINDOW_BYTES && WINDOW_BYTES <= PEER_WINDOW_BYTES_MAX);

/// Packets unacknowledged at which the original stops reading a stream: it goes on while not
/// more than this many packet sizes are on the way.
pub const ORIGINAL_WINDOW_PACKETS: u64 = 4;

/// SockMux 1: window that a stream begins with, in bytes, if no less was offered. It is what a
/// stream that nobody reads can cost; one that is read grows its own (see `session::window`).
pub const FIRST_WINDOW_BYTES: u32 = 256 << 10;

/// SockMux 1: largest window of one stream, in bytes. It fills 1 Gbit/s at a round trip of 500 ms.
pub const STREAM_WINDOW_BYTES_MAX: u64 = 64 << 20;

/// SockMux 1: what all streams of a tunnel together may have beyond their first window, in bytes.
/// With [`POOL_BUFFERS`] as the bound of what slow readers can really hold.
pub const WINDOW_BUDGET_BYTES: u64 = 128 << 20;

/// SockMux 1: least time that one window is made to last, in microseconds, whatever a ping shows: the
/// two processes of a loaded machine need it to answer each other.
pub const WINDOW_LASTS_MICROS_MIN: u64 = 250;

/// SockMux 1: so many round trips of what its local socket takes fit into a window at most. What a
/// path of its own queue makes of its round trip does not count (`session::liveness`).
pub const WINDOW_CEILING_ROUND_TRIPS: u64 = 8;

/// SockMux 1: least time over which the rate of a stream is measured for that, in microseconds: longer
/// than a process waits for a processor that others use, which is a tick or two of 4 ms.
pub const WINDOW_RATE_MICROS_MIN: u64 = 10_000;

/// SockMux 1: and so many round trips, so that the beginning of a stream on a long path is over.
pub const WINDOW_RATE_ROUND_TRIPS: u64 = 4;

/// SockMux 1: window that a stream may have on any path, however short, in bytes: half of what its pipes
/// hold at the exit. On loopback 4 and 6 MiB cost least on one processor and 1 to 2 MiB on another; with
/// more the pipes fill, and the rest has to be copied (`docs/performance.md`).
pub const WINDOW_SHORT_PATH_BYTES: u64 = (STREAM_PIPES_MAX * PIPE_BYTES / 2) as u64;

/// SockMux 1: most that a window grows at once, as a multiple. What one half of a window shows of
/// the path's speed may be a burst.
pub const WINDOW_GROWTH_MAX: u64 = 8;

/// SockMux 1: credit that a peer may hold for one stream. Beyond it the peer is broken.
pub const CREDIT_BYTES_MAX: u64 = 1 << 40;

/// Bytes of one stream that are read from its local socket ahead of the link. One bulk receive
/// buffer: enough to fill a batch, little enough that a blocked link costs little memory.
pub const READ_AHEAD_BYTES: u64 = 256 << 10;
