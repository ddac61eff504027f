//! What the streams of a run carry and what their local sockets do.

use std::net::{Ipv4Addr, SocketAddr};

use sockmux_uring::session::Moment;

/// Table behind all payload: a prime length, so that no packet size lines up with it.
const PATTERN_BYTES: usize = 65_521;

/// The bytes that streams carry: byte `n` of a stream follows from its seed and `n`.
pub(crate) struct Pattern(Vec<u8>);

impl Pattern {
    /// The same table each time.
    pub(crate) fn new() -> Pattern {
        let mut state = 0x1234_5678_u32;
        let table = (0..PATTERN_BYTES).map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 11) as u8
        });
        Pattern(table.collect())
    }

    /// Calls `each` with the pieces that make up `bytes` bytes of the stream from `at`.
    fn pieces(&self, seed: u64, at: u64, bytes: u64, mut each: impl FnMut(&[u8])) {
        let mut start = (seed.wrapping_add(at) % PATTERN_BYTES as u64) as usize;
        let mut left = bytes as usize;
        while left > 0 {
            let take = left.min(PATTERN_BYTES - start);
            each(&self.0[start..start + take]);
            left -= take;
            start = 0;
        }
    }

    /// Appends bytes of the stream from `at`.
    pub(crate) fn append(&self, out: &mut Vec<u8>, seed: u64, at: u64, bytes: u64) {
        self.pieces(seed, at, bytes, |piece| out.extend_from_slice(piece));
    }

    /// These are the bytes of the stream from `at`.
    pub(crate) fn matches(&self, found: &[u8], seed: u64, at: u64) -> bool {
        let mut rest = found;
        let mut same = true;
        self.pieces(seed, at, found.len() as u64, |piece| {
            same &= rest[..piece.len()] == *piece;
            rest = &rest[piece.len()..];
        });
        same
    }
}

/// How a local socket comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// End of data after its last byte.
    Eof,
    /// The same, but not before the other side has ended its data.
    EofAfterPeer,
    /// Reset after this many bytes.
    ResetAfter(u64),
    /// Reset this many microseconds after it began.
    ResetAt(u64),
}

/// What a local socket does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Script {
    pub(crate) seed: u64,
    /// Bytes that it has to say.
    pub(crate) total: u64,
    /// Bytes of it that come at once, and microseconds between.
    pub(crate) chunk: u64,
    pub(crate) chunk_gap: u64,
    /// Bytes that it takes at once, microseconds between, and before the first.
    pub(crate) gulp: u64,
    pub(crate) gulp_gap: u64,
    pub(crate) stall: u64,
    /// Urgent bytes that it sends, one after each of its first chunks.
    pub(crate) urgent: u8,
    pub(crate) end: End,
}

/// What becomes of an open at the other side, after a delay in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Accept { after: u64 },
    Refuse { after: u64, unreachable: bool },
}

/// One stream of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) opener: usize,
    pub(crate) open_at: Moment,
    pub(crate) exit: Exit,
    /// It carries datagrams: as many as their sizes and one byte each make up the totals.
    pub(crate) datagrams: bool,
    /// Of the opener, and of the exit.
    pub(crate) scripts: [Script; 2],
}

/// Why an exit refuses.
pub(crate) const REFUSAL: &str = "nobody lives here";

/// Why a side that goes away refuses.
pub(crate) const LEAVING: &str = "leaving by the script";

/// The client address that stands for a plan: so the exit knows which one it serves.
pub(crate) fn address_of(plan: usize) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(10, 0, (plan >> 8) as u8, plan as u8).into(), 7)
}

/// The plan that an address stands for.
pub(crate) fn plan_of(address: SocketAddr) -> usize {
    match address {
        SocketAddr::V4(v4) => {
            let [_, _, high, low] = v4.ip().octets();
            usize::from(high) << 8 | usize::from(low)
        }
        SocketAddr::V6(_) => panic!("{address} was never given"),
    }
}
