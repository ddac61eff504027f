//! One tunnel: its streams, its control frames, keep-alive and round trip.

use super::LINK_ACK_BYTES;

/// First stream id. The original uses 0 and 1 for the tunnel itself.
pub const STREAM_ID_FIRST: u32 = 2;

/// Most concurrent streams of one tunnel that we offer to a native peer.
pub const STREAMS_MAX: u32 = 16_000;

/// Packets that are discarded before a peer's hello is complete, as the original discards them. None
/// sends any; more are a flood.
pub const BEFORE_HELLO_MAX: u64 = 64;

/// Ids that are used before one is reused, as a multiple of the concurrent streams: a late frame
/// for an ended stream then finds its id unused.
pub const ID_REUSE_DISTANCE: u32 = 4;

const _: () = assert!(STREAMS_MAX * ID_REUSE_DISTANCE < 65_535 - 2);

/// Most data of a tentative stream that is sent before the peer accepts it, in bytes: it is kept
/// until then, for another tunnel. Most requests fit; the rest waits for a round trip.
pub const TENTATIVE_BYTES: u64 = 4 << 10;

/// Streams at once towards an original peer. It breaks its tunnel at 62 or 63 (61 where it
/// connects with one port); two are left as room for streams that both sides open at once.
pub const ORIGINAL_STREAMS_MAX: u32 = 60;

/// Largest stream id towards an original peer: its ids are 8 bits, and 255 stands for "none".
pub const ORIGINAL_ID_MAX: u32 = 254;

const _: () = assert!(ORIGINAL_STREAMS_MAX * ID_REUSE_DISTANCE <= ORIGINAL_ID_MAX - 2);

/// Longest text of CONNECT or CONNECTED that is kept, in bytes. Two IPv6 addresses with ports and
/// the number before them take 105; the rest of a longer text is skipped.
pub const OPEN_TEXT_BYTES: usize = 256;

/// Longest reason in a CLOSE, in bytes.
pub const REASON_BYTES: usize = 200;

/// Queued answers to ECHO. A peer pings once in 30 s; one that floods loses the answers beyond
/// these.
pub const PONGS_MAX: usize = 8;

/// Longest delay of an acknowledgement that waits for another frame. Only towards a native peer:
/// the window is large enough that the delay holds up no data.
pub const ACK_DELAY_MICROS: u64 = 20_000;

/// After an answer, CLOSE is held for this long after its last byte, towards an original peer (see
/// `docs/architecture.md`, half-close). An answer in progress may pause for the retransmission of a
/// lost packet, some 0.2 s, on the way to us and between two hosts behind the peer. The tunnel's
/// round trip is added to this and to the next two, since an answer that fills the windows pauses
/// for one each time.
pub const ANSWERED_HOLD_MICROS: u64 = 500_000;

/// The minimum of it, when slots run short: a delay by Nagle's algorithm and delayed
/// acknowledgements (44 ms), with an original at the other end, which leaves the first on.
pub const ANSWERED_HOLD_MICROS_MIN: u64 = 100_000;

/// The same before any answer: most servers answer within this. Sixty clients that expect no answer
/// then make room for a hundred more in a second.
pub const UNANSWERED_HOLD_MICROS_MIN: u64 = 500_000;

/// Streams that should be free or about to be, towards an original peer. While there are fewer,
/// streams whose CLOSE is only held are closed, the longest silent first. So many clients that
/// connect at once find a slot without waiting for a round trip.
pub const ORIGINAL_STREAMS_SPARE: usize = 8;

const _: () = assert!(ORIGINAL_STREAMS_SPARE < ORIGINAL_STREAMS_MAX as usize);

/// The peer counts as lost after this many keep-alive intervals of silence: 90 s at the original's
/// 30.
pub const KEEPALIVE_INTERVALS: u32 = 3;

/// SockMux 1: shortest interval of measurements of the round trip beside bulk, in microseconds;
/// also at least four round trips.
pub const ROUND_TRIP_EVERY_MICROS: u64 = 100_000;

/// SockMux 1: pings that follow the first, each when the one before is answered: the first was
/// handled by processes that were just waking up.
pub const ROUND_TRIPS_AT_FIRST: u8 = 3;

/// SockMux 1: how long the smallest round trip overrides longer ones, in microseconds. Paths rarely
/// change; queues come and go within this.
pub const ROUND_TRIP_KEPT_MICROS: u64 = 10_000_000;

/// SockMux 1: most payload in flight beside a ping, or received before its answer, with which it
/// measures the path and not a queue. A little more than may be unreported ([`LINK_ACK_BYTES`]).
pub const ROUND_TRIP_QUIET_BYTES: u64 = 64 << 10;

const _: () = assert!(LINK_ACK_BYTES < ROUND_TRIP_QUIET_BYTES);
