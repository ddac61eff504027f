//! SockMux 1: frames, and what is on the way over the whole connection while somebody types and
//! while nobody does.

/// Payload of one DATA frame of SockMux 1, in bytes: what a pipe holds, so that a full one goes as
/// one frame, and the head that is copied is a small part of it.
pub const FRAME_BYTES: u64 = 1 << 20;

/// SockMux 1: payload up to this many bytes is a small frame: it is sent whatever is on the way.
pub const SMALL_FRAME_BYTES: u64 = 4 << 10;

/// SockMux 1: how long after a small frame somebody is said to type, in microseconds.
pub const TYPING_MICROS: u64 = 50_000;

/// SockMux 1: bulk that may be on the way over the connection while somebody types, in bytes. With
/// 256 KiB a keystroke beside bulk takes a fifth longer, with 128 KiB bulk loses two fifths of its
/// speed (`docs/performance.md`).
pub const LANE_CAP_TYPING_BYTES: u64 = 192 << 10;

/// SockMux 1: the same for a peer that reads slowly: what it reads in so many microseconds. Small
/// datagrams take it three times as long as the same bytes of a stream.
pub const LANE_CAP_TYPING_MICROS: u64 = 400;

/// SockMux 1: but so much in any case, in bytes, that it is told of more than once before it is used
/// up.
pub const LANE_CAP_TYPING_BYTES_MIN: u64 = 128 << 10;

const _: () = assert!(LANE_CAP_TYPING_BYTES_MIN <= LANE_CAP_TYPING_BYTES);

/// SockMux 1: bulk that may be on the way while nobody types, in bytes.
pub const LANE_CAP_BULK_BYTES: u64 = 16 << 20;

/// SockMux 1: bulk that may be on the way while many datagrams pass, in milliseconds of what the
/// peer has read lately: what they may be late by.
pub const LANE_CAP_RUNS_MILLIS: u64 = 10;

/// SockMux 1: payload read from the connection after which the sender is told, in bytes: several
/// times while the smaller cap is on the way.
pub const LANE_ACK_BYTES: u64 = 48 << 10;

/// SockMux 1: the same while large runs of datagrams pass, and nobody types. Each word costs a
/// wake-up at both ends, which is a tenth of all that a flood costs.
pub const LANE_ACK_RUNS_BYTES: u64 = 1 << 20;

/// SockMux 1: how long the sender then waits for word at most, in microseconds: a small part of what
/// it may have on the way ([`LANE_CAP_RUNS_MILLIS`]).
pub const LANE_ACK_RUNS_MICROS: u64 = 1_000;

const _: () = assert!(2 * LANE_ACK_RUNS_MICROS < 1_000 * LANE_CAP_RUNS_MILLIS);

/// SockMux 1: less room than this is none, and no turn is shorter: bulk in crumbs costs more than
/// it brings.
pub const LANE_QUANTUM_BYTES: u64 = 48 << 10;

const _: () = assert!(LANE_ACK_BYTES + LANE_QUANTUM_BYTES <= LANE_CAP_TYPING_BYTES / 2);
const _: () = assert!(LANE_ACK_BYTES + LANE_QUANTUM_BYTES <= LANE_CAP_TYPING_BYTES_MIN);
