//! What is copied and what is not: little payload, sends from our own pages, and what is spliced
//! through pipes.

use super::{BULK_BUFFERS, POOL_BUFFER_BYTES};

/// Payload up to this many bytes is copied behind its header; what is longer is sent from the
/// buffer that it was received into. A copy of this size costs about what one more part does.
pub const COPY_BYTES: usize = 1024;

/// A send of at least this many bytes may go from our own pages instead of being copied, where the
/// kernel reports that it then does not copy. Pinning pages and a second completion cost about what
/// copying some tens of KiB does, and so much again must be gained.
pub const ZERO_COPY_BYTES_MIN: usize = 128 << 10;

/// Parts of such sends that may wait for the far end to acknowledge them, in all: a quarter of
/// the bulk buffers, so that a long path cannot take those that are received into. What is beyond
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

/// The same while small frames fill that: what a buffer of the pool takes.
pub const AHEAD_BYTES_MAX: usize = POOL_BUFFER_BYTES as usize;

/// Size of a pipe, in bytes: what the kernel gives without privilege (`fs.pipe-max-size`). It
/// stands for 256 pieces, each of which holds up to a page or a network fragment of 32 KiB.
pub const PIPE_BYTES: usize = 1 << 20;

/// A pipe smaller than this is not worth having: the system is short of them.
pub const PIPE_BYTES_MIN: usize = 256 << 10;

/// Pipes of one process: without privilege a user has 64 MiB of them (`fs.pipe-user-pages-soft`),
/// shared with whatever else runs. A bulk stream that finds none is copied.
pub const PIPES_MAX: usize = 48;

/// Pipes of one stream towards its local socket: what comes while that waits to be scheduled, some
/// milliseconds on a busy machine, is not copied.
pub const STREAM_PIPES_MAX: usize = 8;

/// How long a stream has moved nothing, in milliseconds, whose pipes or bulk receive buffers are taken for
/// one that finds none; and how often such are looked for. A server that waits for its processor is back long before.
pub const STALLED_MILLIS: u64 = 100;
