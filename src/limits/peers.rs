//! Peers are not trusted: how many may be on their way in, and what each may cause in a turn of the loop.

use super::{LISTENERS_MAX, TUNNELS_MAX};

/// Connections at receptors' ports whose hello is not complete, beside [`TUNNELS_MAX`]. A peer is one for
/// a round trip or two, so this many come in again and again; a flood drives out its own kind.
pub const STRANGERS_MAX: usize = 512;

/// Part of the process's descriptors that strangers may have, of [`STRANGERS_MAX`] at most.
pub const STRANGERS_DESCRIPTORS_PART: u64 = 8;

/// Strangers that are kept however few descriptors there are: less would make a peer's hello a matter of
/// luck.
pub const STRANGERS_MIN: usize = 8;

/// Longest time for the hello of a peer that connects here, in seconds, unless `TIMEOUT=acc` is set. It
/// takes one round trip, three with a handshake of encryption.
pub const STRANGER_SECS: u64 = 5;

/// Work that one tunnel may cause in a turn of the loop, before others have theirs: so many frames
/// that do little, a tenth of a millisecond. The rest waits for the next turn.
pub const TURN_WORK: u32 = 2_048;

/// Payload of a frame that counts as much as one more frame, in bytes. With [`TURN_WORK`] a turn takes
/// 4 MiB of a tunnel, more than its receive buffers hold, so bulk is not held up.
pub const WORK_PAYLOAD_BYTES: u32 = 2 << 10;

/// Frames that a stream's open counts for: it looks for an exit, and a socket is made and connected, some 6 us
/// with its end. 16 of them in a turn: twice as many leave a bystander 0.6 to 0.7 of its answers
/// (`docs/performance.md`).
pub const OPEN_WORK: u32 = 128;

/// The same of the open of a flow of datagrams: its socket is also given buffers, and an older flow may have to
/// end for it. 10 of them in a turn.
pub const FLOW_OPEN_WORK: u32 = 224;

/// The same of the end of either by a reset: a socket is closed. 22 of them in a turn.
pub const RESET_WORK: u32 = 96;

/// The same of a port that is asked for, or not needed any more. 16 of them in a turn.
pub const PORT_WORK: u32 = 128;

/// Tunnels with work left that go on in one turn, in rotation. It bounds a turn, however many peers
/// send more than they may: 0.4 ms.
pub const OVERDUE_AT_ONCE: usize = 4;

/// SockMux 1: most entrances that a peer may have here by asking for them, in one tunnel. More services
/// than most hosts have; and of all tunnels together as many as there may be listening sockets.
pub const ASKED_ENTRANCES_MAX: usize = 64;

const _: () = assert!(ASKED_ENTRANCES_MAX * TUNNELS_MAX <= LISTENERS_MAX);

/// How soon an entrance that the peer could not open is asked for again, in milliseconds: a port of a
/// process that was killed is free within a fraction of that.
pub const ENTRANCE_AGAIN_FIRST_MILLIS: u64 = 1_000;
/// The longest wait, after ever longer ones: another program has the port, and an operator has to act.
pub const ENTRANCE_AGAIN_MAX_MILLIS: u64 = 60_000;
