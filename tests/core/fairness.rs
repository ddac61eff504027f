//! Shares of bulk streams in virtual time: equal in bytes for any pieces of their local sockets, and
//! behind sparse streams.

use std::time::Duration;

use proptest::prelude::*;
use sockmux_uring::limits::{
    FRAME_BYTES, LINK_ACK_BYTES, LINK_QUANTUM_BYTES, READ_AHEAD_BYTES, SMALL_FRAME_BYTES,
};
use sockmux_uring::session::{Moment, Session, StreamKey, Transmit};
use sockmux_uring::wire::{Frame, StreamRef};

use crate::testkit::pure::lone::{START, ours, up};

/// The link's rate, unless a test sets one.
const BYTES_PER_SEC: u64 = 1_000_000_000;

/// One session whose frames are drained by a link of a certain rate, and a peer that acknowledges them.
struct Drain {
    session: Session,
    bytes_per_sec: u64,
    now: Moment,
    /// The pieces in which each stream gets its bytes.
    pieces: Vec<u64>,
    keys: Vec<StreamKey>,
    /// Bytes that each has sent.
    sent: Vec<u64>,
    total: u64,
    told: u64,
    /// Length of the last frame of payload, and of the longest.
    frame: u64,
    longest: u64,
}

impl Drain {
    fn new(newest: u8, bytes_per_sec: u64, pieces: &[u64]) -> Drain {
        let mut session = up(ours(newest), ours(newest).offer);
        let at = "127.0.0.1:1".parse().expect("an address");
        let open = |user| session.open(user as u64, at, at).expect("a stream");
        let keys: Vec<StreamKey> = (0..pieces.len()).map(open).collect();
        let mut heads = Vec::new();
        while session.poll_transmit(&mut heads, true).is_some() {
            let number = u32::from_be_bytes([heads[4], heads[5], heads[6], heads[7]]);
            let short = u32::from(u16::from_be_bytes([heads[2], heads[3]]));
            // The window of 0.3 should not matter here, either: see `turn`.
            let answer = match newest {
                0 => {
                    let to = StreamRef::Ours(short);
                    Frame::Opened { from: Some(short), to, first_bytes: 0 }
                }
                _ => Frame::Consumed { to: StreamRef::Ours(number), bytes: 1 << 39 },
            };
            session.on_frame(answer, START).expect("an answer");
            heads.clear();
        }
        let sent = vec![0; pieces.len()];
        let pieces = pieces.to_vec();
        let (now, total, told) = (START, 0, 0);
        let (frame, longest) = (0, 0);
        Drain { session, bytes_per_sec, now, pieces, keys, sent, total, told, frame, longest }
    }

    /// Every socket delivers as much as it may.
    fn fill(&mut self) {
        for (&key, &piece) in self.keys.iter().zip(&self.pieces) {
            while piece > 0 && self.session.may_read(key) {
                self.session.data_ready(key, piece);
            }
        }
    }

    /// One frame goes out, and the link carries it: whose it was.
    fn turn(&mut self) -> Option<usize> {
        let mut head = Vec::new();
        loop {
            head.clear();
            let Transmit::Data { user, bytes, .. } = self.session.poll_transmit(&mut head, true)?
            else {
                continue;
            };
            self.sent[user as usize] += bytes;
            self.total += bytes;
            self.frame = bytes;
            self.longest = self.longest.max(bytes);
            let micros = bytes * 1_000_000 / self.bytes_per_sec;
            self.now = self.now.after(Duration::from_micros(micros.max(1)));
            self.session.received(self.now);
            if head[0] == 3 {
                let to = StreamRef::Ours(u32::from(u16::from_be_bytes([head[2], head[3]])));
                self.session.on_frame(Frame::Consumed { to, bytes }, self.now).expect("SENT");
            } else if self.total - self.told >= LINK_ACK_BYTES {
                self.told = self.total;
                let taken = Frame::LaneTaken { total_bytes: self.total };
                self.session.on_frame(taken, self.now).expect("LANE_TAKEN");
            }
            return Some(user as usize);
        }
    }

    /// So many bytes go out, the sockets looked after behind every so many frames.
    fn run(&mut self, bytes: u64, frames: usize) {
        let end = self.total + bytes;
        while self.total < end {
            self.fill();
            for _ in 0..frames {
                self.turn();
            }
        }
    }

    /// The least share of a stream and the largest, as parts of an equal one.
    fn shares(&self) -> (f64, f64) {
        let mean = self.total as f64 / self.sent.len() as f64;
        let share = |bytes: Option<&u64>| *bytes.expect("a stream") as f64 / mean;
        (share(self.sent.iter().min()), share(self.sent.iter().max()))
    }
}

#[test]
fn shares_are_equal_in_bytes_whatever_the_pieces() {
    for newest in [1, 0] {
        for bytes_per_sec in [1_000_000, 30_000_000, BYTES_PER_SEC, 10 * BYTES_PER_SEC] {
            let mut drain = Drain::new(newest, bytes_per_sec, &[16 << 10, 256 << 10, 1 << 20]);
            drain.run(200 << 20, 1);
            let (least, most) = drain.shares();
            assert!(least > 0.95 && most < 1.05, "{newest}: {bytes_per_sec}: {:?}", drain.sent);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn shares_are_equal_for_any_pieces_and_speed(
        pieces in proptest::collection::vec(12_u32..21, 2..12),
        odd in 0_u64..1000,
        speed in 20_u32..34,
        frames in 1_usize..4,
    ) {
        let pieces: Vec<u64> = pieces.iter().map(|&power| (1 << power) + odd).collect();
        let mut drain = Drain::new(1, 1 << speed, &pieces);
        drain.run(pieces.len() as u64 * (40 << 20), frames);
        let (least, most) = drain.shares();
        prop_assert!(least > 0.9 && most < 1.1, "{:?} of {pieces:?}", drain.sent);
    }
}

/// A socket that is read in small pieces has its next one just after the last was sent: it is always new
/// among those with data, and must not gain more than its share by that.
#[test]
fn who_comes_back_at_once_has_no_more_than_the_others() {
    let mut drain = Drain::new(1, BYTES_PER_SEC, &[0, 1 << 20, 1 << 20]);
    let piece = 16 << 10;
    drain.session.data_ready(drain.keys[0], piece);
    while drain.total < 200 << 20 {
        drain.fill();
        if drain.turn() == Some(0) {
            drain.session.data_ready(drain.keys[0], piece);
        }
    }
    let (least, most) = drain.shares();
    assert!(least > 0.9 && most < 1.1, "{:?}", drain.sent);
}

#[test]
fn who_says_little_goes_before_all_bulk() {
    let mut drain = Drain::new(1, 100_000_000, &[0, 1 << 20, 1 << 20, 16 << 10]);
    for _ in 0..2_000 {
        drain.fill();
        drain.turn();
        drain.session.data_ready(drain.keys[0], 100);
        assert_eq!(drain.turn(), Some(0));
    }
}

#[test]
fn bulk_alone_uses_whole_frames_and_beside_others_a_millisecond_each() {
    let slow = 100_000_000;
    let mut alone = Drain::new(1, slow, &[1 << 20]);
    alone.run(100 << 20, 1);
    assert_eq!(alone.frame, FRAME_BYTES);
    let mut beside = Drain::new(1, slow, &[1 << 20, 1 << 20]);
    beside.run(100 << 20, 1);
    assert!((90_000..=110_000).contains(&beside.frame), "{} bytes", beside.frame);
    let mut fast = Drain::new(1, 10 * BYTES_PER_SEC, &[1 << 20, 1 << 20]);
    fast.run(1 << 30, 1);
    assert_eq!(fast.longest, READ_AHEAD_BYTES.min(FRAME_BYTES), "as much as it has at once");
    let mut narrow = Drain::new(1, 1_000_000, &[1 << 20, 1 << 20]);
    narrow.run(10 << 20, 1);
    assert_eq!(narrow.frame, LINK_QUANTUM_BYTES);
}

/// The longest frame of bulk behind ten frames of another stream, of so many bytes each.
fn longest_behind_small_ones(bytes: u64) -> u64 {
    let mut drain = Drain::new(1, 100_000_000, &[0, 1 << 20]);
    drain.run(100 << 20, 1);
    let behind_one = |_| {
        drain.session.data_ready(drain.keys[0], bytes);
        while drain.turn() != Some(0) {}
        drain.run(1, 1);
        drain.frame
    };
    (0..10).map(behind_one).max().expect("ten")
}

#[test]
fn bulk_beside_a_keystroke_is_sent_in_frames_of_a_millisecond() {
    for bytes in [1, SMALL_FRAME_BYTES - 1] {
        let longest = longest_behind_small_ones(bytes);
        assert!(longest <= 110_000, "{longest} bytes behind {bytes}");
    }
}

/// A receive that filled a small buffer was no keystroke: a request that began so waited for half a
/// round trip too long.
#[test]
fn the_beginning_of_more_is_no_keystroke() {
    assert_eq!(longest_behind_small_ones(SMALL_FRAME_BYTES), 1 << 20);
}
