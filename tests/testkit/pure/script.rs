//! The scripts of a run's streams: their bytes, and the actions of their local sockets.

use std::net::{Ipv4Addr, SocketAddr};

use sockmux_uring::session::Moment;

/// Length of the table that all payload is taken from: a prime, so that no packet size is a multiple.
const PATTERN_BYTES: usize = 65_521;

/// The bytes of streams: byte `n` of a stream follows from its seed and `n`.
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

    /// Calls `each` with consecutive pieces of the stream, `bytes` bytes from `at`.
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

    /// Whether these are the bytes of the stream from `at`.
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

/// How a local socket ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// End of data after its last byte.
    Eof,
    /// The same, after the other side has ended its data.
    EofAfterPeer,
    /// Reset after this many bytes.
    ResetAfter(u64),
    /// Reset this many microseconds after its beginning.
    ResetAt(u64),
}

/// The script of a local socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Script {
    pub(crate) seed: u64,
    /// Bytes to send.
    pub(crate) total: u64,
    /// Bytes sent at once, and microseconds between.
    pub(crate) chunk: u64,
    pub(crate) chunk_gap: u64,
    /// Bytes accepted at once, microseconds between, and before the first.
    pub(crate) gulp: u64,
    pub(crate) gulp_gap: u64,
    pub(crate) stall: u64,
    /// Urgent bytes to send, one after each of the first chunks.
    pub(crate) urgent: u8,
    pub(crate) end: End,
}

/// The other side's answer to an open, after a delay in microseconds.
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
    /// The stream carries datagrams. Their number follows from their sizes and the totals; each counts
    /// one byte more than its size.
    pub(crate) datagrams: bool,
    /// The scripts of opener and exit.
    pub(crate) scripts: [Script; 2],
}

/// Reason of an exit's refusal.
pub(crate) const REFUSAL: &str = "nobody lives here";

/// Reason of a refusal by a side that is going away.
pub(crate) const LEAVING: &str = "leaving by the script";

/// The client address that stands for a plan, by which the exit finds its plan.
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
