//! The control socket: who may ask at once, and how much of a turn an answer takes.

/// Most connections to the control socket at once. When another comes, the one that has waited longest for
/// its own request is closed, so that half requests keep nobody out.
pub const CONTROL_CONNECTIONS_MAX: usize = 16;

/// Longest request, in bytes: `kill peer:` with a name or a fingerprint.
pub const CONTROL_REQUEST_BYTES_MAX: usize = 512;

/// How long a request may take to come, in milliseconds. Programs send it at once, and so do people, by a
/// pipe.
pub const CONTROL_REQUEST_MILLIS: u64 = 5_000;

/// How long the operator's program may take to read an answer, in milliseconds. Others wait meanwhile.
pub const CONTROL_ANSWER_MILLIS: u64 = 5_000;

/// How long the worker may take for a page, in milliseconds: it may be busy with its turn, and a process
/// that was stopped goes on some time.
pub const CONTROL_PAGE_MILLIS: u64 = 5_000;

/// Most slots of a table that one turn of the loop looks at for `status` and `streams`. A row takes about a
/// microsecond, and a turn may be 1 ms longer for it.
pub const CONTROL_PAGE_ROWS: usize = 128;

/// Most slots of the table of streams that one turn looks at to find one of them by its number: no row is
/// made of them.
pub const CONTROL_FIND_SLOTS: usize = 1024;

/// Most bytes that the operator's program takes as an answer: rows of all streams that a process may have.
pub const CONTROL_ANSWER_BYTES_MAX: u64 = 256 << 20;
