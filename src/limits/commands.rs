//! Commands as links and as servers of exits: their number, their end, and the log of their output.

/// Commands of exits (`exec:`) that run at once. Each is a process at least, with three descriptors
/// and 16 KiB of ours. More clients need a server that serves them all.
pub const COMMANDS_MAX: usize = 256;

/// A command of an exit that fails within this time of its start, in milliseconds, has probably
/// never worked, which is logged as a warning.
pub const COMMAND_AT_ONCE_MILLIS: u64 = 1_000;

/// How long a command whose link has ended may take to exit by itself, in milliseconds: its own exit
/// status has the reason.
pub const COMMAND_LEAVE_MILLIS: u64 = 500;

/// Time of a command from SIGTERM to SIGKILL, in milliseconds: enough for an orderly end over a slow
/// line, and within the time of supervisors.
pub const COMMAND_GRACE_MILLIS: u64 = 2_000;

/// How long a killed command is waited for, in milliseconds. The kernel needs some time, or for ever if
/// a file system blocks it.
pub const COMMAND_REAP_MILLIS: u64 = 1_000;

/// Characters of a command that are logged as its name.
pub const COMMAND_NAME_CHARS: usize = 80;

/// Most that is read of a command's standard error at once.
pub const COMMAND_STDERR_BYTES: usize = 16 << 10;

/// Pause after each read of it, in milliseconds. With [`COMMAND_STDERR_BYTES`] this bounds the cost of a
/// flood: 1 MiB/s, by some 60 reads a second.
pub const COMMAND_STDERR_REST_MILLIS: u64 = 16;

/// Longest line of it that is logged whole. Messages for people are shorter.
pub const COMMAND_LINE_BYTES: usize = 1024;

/// Most bytes of a command's standard error that are logged after its end: the default capacity of a
/// pipe (pipe(7)), so its last lines are no more.
pub const COMMAND_LAST_WORDS_BYTES: usize = 64 << 10;

/// Processes without a parent that are waited for in one turn of the loop, as process 1 of a
/// container: some hundred microseconds.
pub const ORPHANS_AT_ONCE: usize = 256;
