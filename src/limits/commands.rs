//! Commands that stand for a link or for an exit's server: how many, how they end, and what is
//! logged of them.

/// Commands of exits (`exec:`) that run at once. Each is a process at least, with three descriptors
/// and 16 KiB of ours; whoever needs more of them needs a server that takes them all.
pub const COMMANDS_MAX: usize = 256;

/// A command of an exit that fails within this time of its start, in milliseconds, has probably
/// never worked: that is worth a warning.
pub const COMMAND_AT_ONCE_MILLIS: u64 = 1_000;

/// How long a command whose link has ended is given to end by itself, in milliseconds: its own exit
/// status says why.
pub const COMMAND_LEAVE_MILLIS: u64 = 500;

/// How long a command has from SIGTERM to SIGKILL, in milliseconds: enough to say goodbye over a slow
/// line; nobody who stops the process waits for longer.
pub const COMMAND_GRACE_MILLIS: u64 = 2_000;

/// How long a command that was killed is waited for, in milliseconds. The kernel needs some, unless a
/// file system keeps it from answering at all.
pub const COMMAND_REAP_MILLIS: u64 = 1_000;

/// Characters of a command that are logged as its name.
pub const COMMAND_NAME_CHARS: usize = 80;

/// Most that is read of a command's standard error at once.
pub const COMMAND_STDERR_BYTES: usize = 16 << 10;

/// Rest after each read of it, in milliseconds. With [`COMMAND_STDERR_BYTES`] this is 1 MiB/s at
/// most, by some 60 reads a second: what a flood may cost.
pub const COMMAND_STDERR_REST_MILLIS: u64 = 16;

/// Longest line of it that is logged whole. Messages for people are shorter.
pub const COMMAND_LINE_BYTES: usize = 1024;

/// What is logged of the standard error of a command of an exit once that has ended, in bytes: what
/// a pipe of Linux holds unless told otherwise (pipe(7)), so its last words are no more.
pub const COMMAND_LAST_WORDS_BYTES: usize = 64 << 10;

/// Processes without a parent that are waited for in one turn of the loop, as process 1 of a
/// container: some hundred microseconds.
pub const ORPHANS_AT_ONCE: usize = 256;
