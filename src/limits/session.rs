//! One tunnel: its streams, what is said beside their data, and whether the peer is still there and
//! how far away.

use super::LINK_ACK_BYTES;

/// First stream id. The original uses 0 and 1 for the tunnel itself.
pub const STREAM_ID_FIRST: u32 = 2;

/// Streams at once that we offer to one of ours, in one tunnel.
pub const STREAMS_MAX: u32 = 16_000;

/// Stream ids that are used before one is used again, as a multiple of the streams at once: a
/// late frame to an ended stream then finds its id unused.
pub const ID_REUSE_DISTANCE: u32 = 4;

const _: () = assert!(STREAMS_MAX * ID_REUSE_DISTANCE < 65_535 - 2);

/// Data of a stream that goes out before the peer has taken it, where another tunnel may take it
/// instead, in bytes: it is kept until then. Most requests fit; what does not waits for a round trip.
pub const TENTATIVE_BYTES: u64 = 4 << 10;

/// Streams at once towards an original peer. It breaks its tunnel at 62 or 63 (61 where it
/// connects with one port); two are left as room for streams that both sides open at once.
pub const ORIGINAL_STREAMS_MAX: u32 = 60;

/// Largest stream id towards an original peer: its ids are 8 bits, and 255 says "none".
pub const ORIGINAL_ID_MAX: u32 = 254;

const _: () = assert!(ORIGINAL_STREAMS_MAX * ID_REUSE_DISTANCE <= ORIGINAL_ID_MAX - 2);

/// Longest text of CONNECT or CONNECTED that is kept, in bytes. Two IPv6 addresses with ports
/// and the number before them take 105; a longer text is read to its end and cut.
pub const OPEN_TEXT_BYTES: usize = 256;

/// Longest reason that travels in a CLOSE, in bytes.
pub const REASON_BYTES: usize = 200;

/// Answers to ECHO that wait for the link. A peer asks once in 30 s; one that floods loses
/// those that come while these wait.
pub const PONGS_MAX: usize = 8;

/// How long an acknowledgement may wait for a frame to ride with. Towards one of ours only: the
/// window is large, so that nobody waits for it.
pub const ACK_DELAY_MICROS: u64 = 20_000;

/// Where the other side has answered already, CLOSE is held back this long after the last byte
/// of the answer, towards an original peer (see `docs/architecture.md`, half-close). An answer that
/// is under way may pause for as long as a lost packet takes to be sent again, 0.2 s and some, on the
/// way to us and between two hosts behind the peer. The tunnel's round trip is added to this and to
/// the next two, since an answer that fills the windows pauses for one each time.
pub const ANSWERED_HOLD_MICROS: u64 = 500_000;

/// The least of it, when slots run short: what Nagle's algorithm and delayed
/// acknowledgements together make of one (44 ms), with an original at the other end, which leaves
/// the first on.
pub const ANSWERED_HOLD_MICROS_MIN: u64 = 100_000;

/// The same where no answer has come yet, which most servers give within this. Sixty clients that
/// want none then make way for a hundred more in a second.
pub const UNANSWERED_HOLD_MICROS_MIN: u64 = 500_000;

/// Streams that are to be free or about to be, towards an original peer: as long as there are fewer,
/// streams whose CLOSE is only held back end, the longest silent first. So many clients that come
/// at once find a slot without waiting for a round trip.
pub const ORIGINAL_STREAMS_SPARE: usize = 8;

const _: () = assert!(ORIGINAL_STREAMS_SPARE < ORIGINAL_STREAMS_MAX as usize);

/// Silence is given up after this many keep-alive intervals: 90 s at the original's 30.
pub const KEEPALIVE_INTERVALS: u32 = 3;

/// SockMux 1: the round trip is measured again beside bulk not more often than this, in microseconds,
/// nor than every four round trips.
pub const ROUND_TRIP_EVERY_MICROS: u64 = 100_000;

/// SockMux 1: pings that follow the first, each when the one before is answered: that one was sent
/// by processes that were just waking up.
pub const ROUND_TRIPS_AT_FIRST: u8 = 3;

/// SockMux 1: how long the smallest round trip stands against longer ones, in microseconds. Paths
/// change seldom; queues on them come and go within this.
pub const ROUND_TRIP_KEPT_MICROS: u64 = 10_000_000;

/// SockMux 1: payload beside a ping, on our way when it went out or come before its answer, up to
/// which it shows the path and not a queue. A little more than what nobody has told of yet
/// ([`LINK_ACK_BYTES`]).
pub const ROUND_TRIP_QUIET_BYTES: u64 = 64 << 10;

const _: () = assert!(LINK_ACK_BYTES < ROUND_TRIP_QUIET_BYTES);
