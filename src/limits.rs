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

/// Largest sum of all parameter files, a file named twice counted twice: files that name each
/// other several times would else multiply with every level.
pub const PARAM_TOTAL_BYTES: u64 = 4 << 20;

/// Longest time that `TIMEOUT=` takes, in seconds (a year). Longer ones are typing errors, and
/// the engine may add any time up to this to a clock without overflow. "Never" is 0.
pub const TIMEOUT_SECS_MAX: u64 = 365 * 86_400;

/// Most exits of one process. They are searched in order for every new stream; as many as
/// entrances, so that each entrance of the peer can have its own.
pub const EXITS_MAX: usize = ENTRANCES_MAX;
