//! The log: lines that wait to be written, and the rate of lines that others can cause.
//!
//! Anybody who may connect can cause lines. The five classes of `worker::context::log_limit` together stay below
//! 200 lines a minute: 112 by their bursts, 39 by refills within a minute, 42 by the counts of
//! suppressed lines.

/// Most bytes of lines that wait for the log's reader or disk, some 8,000 lines: minutes of the default
/// log, and little memory. It is held twice, since lines that are being written are out of the queue.
pub const LOG_QUEUE_BYTES: usize = 1 << 20;

/// Most bytes of the access log's lines that wait, some 40,000 lines: all streams of a process may end in one
/// turn, as those of a tunnel that is lost do.
pub const ACCESS_QUEUE_BYTES: usize = 8 << 20;

/// Most bytes of one write, in whole lines: as many as a pipe takes atomically (`PIPE_BUF`), so that no
/// other program's lines come in between.
pub const LOG_WRITE_BYTES: usize = 4096;

/// How often writing a log that cannot be written is retried, in milliseconds. A full disk is emptied by
/// hand, and a retry costs one system call.
pub const LOG_RETRY_MILLIS: u64 = 1_000;

/// Pause when a descriptor claims to be writable and takes nothing, in milliseconds.
pub const LOG_AGAIN_MILLIS: u64 = 20;

/// How long the end of the process waits for the last lines to be written, in milliseconds: enough
/// for a busy log collector. A blocked one must not keep the process.
pub const LOG_EXIT_MILLIS: u64 = 1_000;

/// Burst of single lines for connections at the receptor's port that become no tunnel.
pub const LOG_STRANGERS_BURST: u32 = 16;
/// The same for tunnels that come up and go down: all spokes of a hub come back together.
pub const LOG_TUNNELS_BURST: u32 = 40;
/// The same for streams, clients and datagrams that are refused.
pub const LOG_REFUSALS_BURST: u32 = 16;
/// The same for the standard error of all commands: some banners, or one long error message.
pub const LOG_COMMANDS_BURST: u32 = 32;
/// The same for descriptors and buffers that are used up.
pub const LOG_SHORTAGES_BURST: u32 = 8;

/// One more line of a class may be logged each time this has passed, in milliseconds. A flood leaves
/// six samples a minute.
pub const LOG_REFILL_MILLIS: u64 = 10_000;
/// The same for tunnels: each loss brings about three lines, and operators act on them.
pub const LOG_TUNNELS_REFILL_MILLIS: u64 = 4_000;

/// Suppressed lines are counted in a line this long after the first of them, in milliseconds: soon, so
/// that a flood is noticed.
pub const LOG_COUNT_SOON_MILLIS: u64 = 2_000;
/// And no more often than this while it goes on.
pub const LOG_COUNT_MILLIS: u64 = 10_000;

/// Least number of connections that ended before their first byte, between two counts, that is logged.
/// Health checks of several balancers are fewer.
pub const LOG_SILENT_MIN: u64 = 200;
