//! Copies and their avoidance: little payload, zero-copy sends, and splicing through pipes.

use super::{BULK_BUFFERS, POOL_BUFFER_BYTES};

/// Payload up to this many bytes is copied behind its header; longer payload is sent from the buffer
/// that it was received into. A copy of this size costs about as much as one more part.
pub const COPY_BYTES: usize = 1024;

/// A send of at least this many bytes may go from our own pages instead of being copied, where the
/// kernel reports that it then does not copy. Pinning pages and a second completion cost about as much
/// as copying some tens of KiB, and so much again must be gained.
pub const ZERO_COPY_BYTES_MIN: usize = 128 << 10;

/// Parts of such sends that may wait for the far end to acknowledge them, in all: a quarter of
/// the bulk buffers, so that a long path cannot take those that are received into. Beyond it payload
/// is copied.
pub const ZERO_COPY_PARTS_MAX: usize = BULK_BUFFERS as usize / 4;

/// Descriptors at once of which it is known whether the kernel copies. They are searched for every
/// such send; those that come when all are open are not tried.
pub const ZERO_COPY_PATHS_MAX: usize = 64;

/// Payload spliced at once, at least, in bytes: below it splicing costs more than copying
/// (`docs/performance.md`).
pub const SPLICE_BYTES_MIN: usize = 64 << 10;

/// Payload spliced from or to one connection in one turn of the worker, in bytes: a frame.
pub const SPLICE_TURN_BYTES: usize = 1 << 20;

/// Bytes of a link that are read before the rest of a big frame is spliced: a page, so that little
/// of the frame is copied.
pub const AHEAD_BYTES_MIN: usize = 4 << 10;

/// The same while small frames fill that: the size of a buffer of the pool.
pub const AHEAD_BYTES_MAX: usize = POOL_BUFFER_BYTES as usize;

/// Size of a pipe, in bytes: the kernel's maximum without privilege (`fs.pipe-max-size`). It has 256
/// slots, each of which holds up to a page or a network fragment of 32 KiB.
pub const PIPE_BYTES: usize = 1 << 20;

/// A pipe smaller than this is not worth having: the system is short of them.
pub const PIPE_BYTES_MIN: usize = 256 << 10;

/// Pipes of one process: without privilege a user has 64 MiB of them (`fs.pipe-user-pages-soft`),
/// shared with all other programs. A bulk stream that finds none is copied.
pub const PIPES_MAX: usize = 48;

/// Pipes of one stream towards its local socket. Data that arrives while the reader waits to be
/// scheduled, some milliseconds on a busy machine, is not copied.
pub const STREAM_PIPES_MAX: usize = 8;

/// How long a stream must have stalled, in milliseconds, before its pipes or bulk receive buffers are
/// taken for a stream that finds none; and how often stalled streams are looked for. A server that waits
/// for its processor continues long before.
pub const STALLED_MILLIS: u64 = 100;
