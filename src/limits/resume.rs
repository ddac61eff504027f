//! Lanes that outlive their connection: what is kept of what was sent, and for how long.

use super::{LINK_CAP_BULK_BYTES, PIPES_MAX};

/// How long a lane waits for its next connection unless `TIMEOUT=resume` says otherwise, in seconds. A
/// host is started anew, or a route found, within that; clients seldom wait for longer.
pub const RESUME_SECS: u64 = 60;

/// Bytes of frames read from a link after which the other end is told: it keeps what it has sent until
/// then. Often enough that little is kept, and a small part of what is sent for it.
pub const LANE_READ_BYTES: u64 = 1 << 20;

/// The same, after this many microseconds, however little was read: a lane that is idle keeps nothing.
pub const LANE_READ_MICROS: u64 = 20_000;

/// Most bytes of frames that a lane keeps of what it has sent. Beyond that nothing is sent until the other
/// end has read more. What may be in flight over a short path fits three times, and a path of 100 ms at
/// 4 Gbit/s.
pub const RETAINED_BYTES_MAX: usize = 48 << 20;

const _: () = assert!(RETAINED_BYTES_MAX as u64 >= 3 * LINK_CAP_BULK_BYTES);

/// Most pipes in which a lane keeps spliced payload that it has sent. When they are full it is copied.
pub const RETAINED_PIPES_MAX: usize = 8;

const _: () = assert!(RETAINED_PIPES_MAX <= PIPES_MAX / 4);

/// Spliced payload that the other end has read is dropped from these pipes in steps of so many bytes: each
/// is a call.
pub const RETAINED_STEP_BYTES: usize = 64 << 10;

/// How long a connection has to have lasted for the next one to be dialled at once when it breaks, in
/// milliseconds: one that breaks sooner, again and again, is backed off from.
pub const RESUME_AT_ONCE_MILLIS: u64 = 200;

/// How long something has to wait for the other end, and nothing come from it, for a ping to ask whether the
/// connection is still good, in milliseconds; after as long again another connection is tried beside it. At
/// least, and two round trips: a busy machine answers within that.
pub const DOUBT_MILLIS_MIN: u64 = 500;

/// How often in a row this time is doubled, while other connections bring nothing either: to 16 s.
pub const DOUBTS_MAX: u32 = 5;
