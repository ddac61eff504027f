//! The log: what waits to be written, and how many lines others can cause.
//!
//! Whoever may connect can cause lines. All classes together ([`crate::io`] has five) stay below
//! 200 lines a minute: their bursts make 112, what comes back of them in a minute 39, the counts of
//! what was kept back 42.

/// Most bytes of lines that wait for the log's reader or disk, some 8,000 lines: minutes of the default
/// log, and little memory. It is held twice, since what is being written is out of the queue.
pub const LOG_QUEUE_BYTES: usize = 1 << 20;

/// Most that is written at once, in whole lines: as much as a pipe takes in one piece (`PIPE_BUF`), so
/// that no other program's lines come in between.
pub const LOG_WRITE_BYTES: usize = 4096;

/// How often a log that cannot be written is tried again, in milliseconds: a full disk is emptied by
/// hand, and a try costs one system call.
pub const LOG_RETRY_MILLIS: u64 = 1_000;

/// Rest where a descriptor claims to be writable and takes nothing, in milliseconds.
pub const LOG_AGAIN_MILLIS: u64 = 20;

/// How long the end of the process waits for the last lines to be written, in milliseconds: enough
/// for a log collector that is busy. One that stands still must not keep the process.
pub const LOG_EXIT_MILLIS: u64 = 1_000;

/// Lines of one class that are logged one by one at once: connections at the receptor's port that
/// bring no tunnel about.
pub const LOG_STRANGERS_BURST: u32 = 16;
/// The same for tunnels that come up and go down: all spokes of a hub come back together.
pub const LOG_TUNNELS_BURST: u32 = 40;
/// The same for streams, clients and datagrams that are refused.
pub const LOG_REFUSALS_BURST: u32 = 16;
/// The same for all commands' standard error: some banners, or one long complaint.
pub const LOG_COMMANDS_BURST: u32 = 32;
/// The same for descriptors and buffers that are used up.
pub const LOG_SHORTAGES_BURST: u32 = 8;

/// One more line of a class may be logged each time this has passed, in milliseconds. A flood leaves
/// six samples a minute.
pub const LOG_REFILL_MILLIS: u64 = 10_000;
/// The same for tunnels: each loss brings about three lines, and operators act on them.
pub const LOG_TUNNELS_REFILL_MILLIS: u64 = 4_000;

/// What was kept back is counted in a line this long after the first of it, in milliseconds: soon, so
/// that a flood is seen.
pub const LOG_COUNT_SOON_MILLIS: u64 = 2_000;
/// And no more often than this while it goes on.
pub const LOG_COUNT_MILLIS: u64 = 10_000;

/// Connections between two counts that ended before their first byte, from which on that is told.
/// Health checks of several balancers are fewer.
pub const LOG_SILENT_MIN: u64 = 200;
