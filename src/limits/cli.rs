//! Sizes of a command line, its parameter files and the plan.

use super::STREAMS_MAX;

/// Deepest nesting of `+=FILE`. A loop is found by path before this; the bound is for chains that
/// never repeat a path (a FIFO or a generated file).
pub const PARAM_FILE_DEPTH: usize = 16;

/// Largest parameter file. Nobody writes one this long by hand; a device or a log given by
/// mistake must not be read into memory.
pub const PARAM_FILE_BYTES: u64 = 1 << 20;

/// Largest sum of all parameter files, a file named twice counted twice: files that name each
/// other several times would else multiply with every level.
pub const PARAM_TOTAL_BYTES: u64 = 4 << 20;

/// Most entrance ports of one process, ranges counted out. Each is a listening descriptor.
pub const ENTRANCES_MAX: usize = 4096;

/// Most exits of one process. They are searched in order for every new stream; as many as
/// entrances, so that each entrance of the peer can have its own.
pub const EXITS_MAX: usize = ENTRANCES_MAX;

/// Most `PERMIT=` of one process, and of one exit. They are searched for every address that a proxy's client asks for.
pub const PERMITS_MAX: usize = 256;

/// Most users of `AUTHORIZER=` of one process. Each authentication searches all of them.
pub const USERS_MAX: usize = 1024;

/// Flows of datagrams of one process, unless `SOXCONF=udpflows` is set. Each exit's is a
/// descriptor; a resolver for a few thousand clients has as many in the 180 s that they are kept.
pub const UDP_FLOWS: usize = 4096;

/// Maximum of `SOXCONF=udpflows`: the streams that a native peer accepts in one tunnel.
pub const UDP_FLOWS_MAX: usize = STREAMS_MAX as usize;

/// Longest time that `TIMEOUT=` takes, in seconds (a year). Longer ones are typing errors, and
/// the engine may add any time up to this to a clock without overflow. "Never" is 0.
pub const TIMEOUT_SECS_MAX: u64 = 365 * 86_400;

/// How long the networks of the interfaces (`.localnet`) are cached, in milliseconds. A change takes
/// effect within a second, and clients by the thousand cost one query.
pub const LOCALNET_MILLIS: u64 = 1_000;
