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
