//! Streams that carry datagrams, frame by frame: sent and dropped datagrams, and the share of other
//! streams beside them.

use std::time::Duration;

use sockmux_uring::limits::{
    DATAGRAM_AGE_MICROS, DATAGRAM_BYTES_MAX, DATAGRAM_COST_BYTES, DATAGRAM_QUEUE_BYTES,
    LINK_ACK_BYTES, LINK_CAP_BULK_BYTES, LINK_CAP_INTERACTIVE_BYTES, SMALL_FRAME_BYTES,
};
use sockmux_uring::session::{
    Ended, Event, Moment, OpenError, Queued, Session, SessionConfig, Sink, StreamKey, Transmit,
};
use sockmux_uring::wire::v03::Offer;
use sockmux_uring::wire::{CloseKind, Frame, Protocol, StreamRef, Transport};

mod original;

use crate::testkit::pure::lone::{START, ours, sent, up};

const OPEN: u8 = 0x01;
const OPENED: u8 = 0x02;
const RESET: u8 = 0x05;
const CONNECT: u8 = 0x02;
const SEND: u8 = 0x06;
const CLOSE: u8 = 0x08;

const TAKEN: Queued = Queued { taken: true, dropped: 0, dropped_bytes: 0, too_big: false };

fn pair(newest: u8) -> Session {
    up(ours(newest), ours(newest).offer)
}

/// Towards an original, which has announced that it accepts first data.
fn towards_an_original() -> Session {
    let mut session = up(SessionConfig::default(), None);
    session.on_frame(Frame::FirstData, START).expect("an option");
    session
}

fn open(session: &mut Session) -> StreamKey {
    let at = "127.0.0.1:1".parse().expect("an address");
    session.open_datagrams(7, at, at).expect("a stream")
}

/// One from the peer.
fn incoming(session: &mut Session, transport: Option<Transport>, first_bytes: u32) -> StreamKey {
    let from = if transport.is_some() { 1 << 20 } else { 9 };
    let (client, entrance) = (None, None);
    let frame = Frame::Open { from: Some(from), client, entrance, transport, first_bytes };
    session.on_frame(frame, START).expect("an open");
    let is_new = |event| match event {
        Event::Incoming { key, .. } => Some(key),
        _ => None,
    };
    let key = std::iter::from_fn(|| session.poll_event()).find_map(is_new).expect("a stream");
    session.attach_datagrams(key, 7);
    key
}

/// The output now: type, size and bytes of each frame of datagrams, only the type of the others.
fn frames(session: &mut Session) -> Vec<(u8, u64, u64)> {
    let (mut frames, mut head) = (Vec::new(), Vec::new());
    while let Some(transmit) = session.poll_transmit(&mut head, true) {
        frames.push(match transmit {
            Transmit::Datagrams { bytes, user: 7, .. } => {
                let size = match head[..] {
                    [0xb1, .., high, low] => u64::from(u16::from_be_bytes([high, low])),
                    _ => bytes,
                };
                (head[1], size, bytes)
            }
            Transmit::Control | Transmit::Unkept => (head[1], 0, 0),
            other => panic!("{other:?}"),
        });
        head.clear();
    }
    frames
}

/// The type, and the fields of a frame.
fn datagrams(size: u64, bytes: u64) -> (u8, u64, u64) {
    (0x0c, size, bytes)
}

fn control(kind: u8) -> (u8, u64, u64) {
    (kind, 0, 0)
}

fn sends(sizes: &[u64]) -> Vec<(u8, u64, u64)> {
    sizes.iter().map(|&size| (SEND, size, size)).collect()
}

fn ends(session: &mut Session) -> Vec<Ended> {
    let is_end = |event| match event {
        Event::Ended { how, .. } => Some(how),
        _ => None,
    };
    std::iter::from_fn(|| session.poll_event()).filter_map(is_end).collect()
}

fn opened(session: &mut Session, peer_id: u32) {
    let to = StreamRef::Ours(2);
    let frame = Frame::Opened { from: Some(peer_id), to, first_bytes: 0 };
    session.on_frame(frame, START).expect("an answer");
}

#[test]
fn a_run_is_a_frame_and_only_equal_sizes_become_one() {
    let mut session = pair(1);
    let key = open(&mut session);
    for (size, bytes) in [(100, 300), (100, 250), (100, 100), (40, 40), (0, 0), (0, 0), (9, 9)] {
        assert_eq!(session.datagrams_ready(key, size, bytes, START), TAKEN);
    }
    let expected = [
        control(OPEN),
        datagrams(100, 550),
        datagrams(100, 100),
        datagrams(40, 40),
        datagrams(0, 0),
        datagrams(0, 0),
        datagrams(9, 9),
    ];
    assert_eq!(frames(&mut session), expected);
    assert_eq!(session.datagram_cost_bytes(), 0);
    assert_eq!(session.link_counts().sent_bytes, 699);
    assert_eq!(session.counters().payload_bytes_out, 699);
}

#[test]
fn the_largest_datagram_is_carried_and_no_larger_run() {
    let mut session = pair(1);
    let key = open(&mut session);
    let most = DATAGRAM_BYTES_MAX;
    assert_eq!(session.datagrams_ready(key, most, most, START), TAKEN);
    let larger = session.datagrams_ready(key, most + 1, most + 1, START);
    assert_eq!(larger, Queued { taken: false, dropped: 1, dropped_bytes: 0, too_big: true });
    let most = u64::from(most);
    assert_eq!(frames(&mut session), [control(OPEN), datagrams(most, most)]);
}

#[test]
fn an_exit_says_that_it_stands_before_its_first_datagram() {
    let mut session = pair(1);
    let key = incoming(&mut session, Some(Transport::Udp), 0);
    assert_eq!(session.datagrams_ready(key, 5, 5, START), TAKEN);
    assert!(frames(&mut session).is_empty());
    let at = "127.0.0.1:1".parse().expect("an address");
    session.accept(key, at, at);
    assert_eq!(frames(&mut session), [control(OPENED), datagrams(5, 5)]);
}

#[test]
fn what_comes_is_told_with_its_size_and_counted_as_read() {
    let mut session = pair(1);
    let key = incoming(&mut session, Some(Transport::Udp), 0);
    let to = StreamRef::Theirs(1 << 20);
    for (size_bytes, bytes) in [(1_000, 60_400), (0, 0), (7, 7)] {
        let frame = Frame::Datagrams { to, size_bytes, bytes };
        let sink = session.on_frame(frame, START);
        assert_eq!(sink, Ok(Sink::Datagrams { key, size_bytes }));
    }
    let counts = session.link_counts();
    assert_eq!((counts.received_bytes, counts.reported_bytes), (60_407, 60_400));
    assert_eq!(session.counters().payload_bytes_in, 60_407);
}

#[test]
fn a_peer_from_before_them_is_sent_none() {
    let at = "127.0.0.1:1".parse().expect("an address");
    let older = |newest| ours(newest).offer.map(|offer| Offer { datagrams: false, ..offer });
    let mut session = up(ours(1), older(1));
    assert_eq!(session.open_datagrams(7, at, at), Err(OpenError::NoDatagrams));
    assert!(session.open(7, at, at).is_ok());
    // 0.3 needs no word for them.
    let mut session = up(ours(1), older(0));
    assert!(session.open_datagrams(7, at, at).is_ok());
    let mut session = Session::new(ours(1), START);
    assert_eq!(session.open_datagrams(7, at, at), Err(OpenError::NotUp));
}

#[test]
fn frames_of_the_other_kind_are_thrown_away_and_counted() {
    let mut session = pair(1);
    incoming(&mut session, Some(Transport::Udp), 0);
    let to = StreamRef::Theirs(1 << 20);
    for frame in [
        Frame::Data { to, bytes: 100 },
        Frame::Urgent { to, bytes: 1 },
        Frame::Consumed { to, bytes: 1 << 39 },
        Frame::Consumed { to, bytes: 1 << 39 },
        Frame::Consumed { to, bytes: 1 << 39 },
        Frame::End { to },
    ] {
        assert_eq!(session.on_frame(frame, START), Ok(Sink::Discard), "{frame:?}");
    }
    assert_eq!(session.counters().unsuited_frames, 6);
    assert_eq!(session.counters().discarded_bytes, 101);
    assert!(session.poll_event().is_none());
    // And to a stream of bytes.
    let at = "127.0.0.1:1".parse().expect("an address");
    session.open(8, at, at).expect("a stream");
    let to = StreamRef::Ours(1 << 20 | 1);
    let frame = Frame::Datagrams { to, size_bytes: 50, bytes: 50 };
    assert_eq!(session.on_frame(frame, START), Ok(Sink::Discard));
    assert_eq!(session.counters().unsuited_frames, 7);
    assert_eq!(session.counters().unknown_ids, 0);
    assert_eq!(session.link_counts().received_bytes, 150, "it has been read all the same");
}

#[test]
fn a_reset_ends_the_stream_from_either_side() {
    let mut session = pair(1);
    let key = open(&mut session);
    session.datagrams_ready(key, 100, 100, START);
    assert!(!session.local_reset(key, "idle"), "nothing goes out behind it");
    assert_eq!(session.datagram_cost_bytes(), 0);
    let late = session.datagrams_ready(key, 10, 20, START);
    assert_eq!(late, Queued { taken: false, dropped: 2, dropped_bytes: 0, too_big: false });
    assert_eq!(frames(&mut session), [control(OPEN), control(RESET)]);
    assert_eq!(ends(&mut session), [Ended::Reset(String::from("idle"))]);

    let key = incoming(&mut session, Some(Transport::Udp), 0);
    session.datagrams_ready(key, 100, 100, START);
    let to = StreamRef::Theirs(1 << 20);
    let reset = Frame::Close { from: None, to, reason: b"idle", kind: CloseKind::Reset };
    session.on_frame(reset, START).expect("a reset");
    assert_eq!(ends(&mut session), [Ended::Reset(String::from("idle"))]);
    assert_eq!((session.stream_count(), session.datagram_cost_bytes()), (0, 0));
    let gone = session.datagrams_ready(key, 10, 20, START);
    assert_eq!((gone.taken, gone.dropped, session.counters().stale_keys), (false, 2, 1));
    let frame = Frame::Datagrams { to, size_bytes: 5, bytes: 5 };
    assert_eq!(session.on_frame(frame, START), Ok(Sink::Discard));
}

#[test]
fn a_refused_stream_takes_what_waited_with_it() {
    for (newest, transport) in [(1, Some(Transport::Udp)), (0, None)] {
        let mut session = pair(newest);
        let key = incoming(&mut session, transport, 0);
        session.datagrams_ready(key, 100, 100, START);
        session.refuse(key, "no exit", false);
        assert_eq!((session.stream_count(), session.datagram_cost_bytes()), (0, 0));
        let key = incoming(&mut session, transport, 0);
        session.datagrams_ready(key, 100, 100, START);
        assert!(!session.local_reset(key, "gave up"));
        assert_eq!((session.stream_count(), session.datagram_cost_bytes()), (0, 0));
    }
}

#[test]
fn the_oldest_make_room_and_the_aged_go_first() {
    let mut session = pair(1);
    let key = open(&mut session);
    let cost = 1_000 + DATAGRAM_COST_BYTES;
    // Runs that cannot be joined: those behind them are shorter and longer by turns.
    let mut held = 0;
    let mut ready = |session: &mut Session, at: Moment| {
        held += 1;
        session.datagrams_ready(key, 1_000 + held % 2, 1_000 + held % 2, at)
    };
    let fill = DATAGRAM_QUEUE_BYTES / 2 / (2 * cost + 1) * 2;
    for _ in 0..fill {
        assert_eq!(ready(&mut session, START), TAKEN);
    }
    let mut dropped = 0;
    for _ in 0..20 {
        let queued = ready(&mut session, START);
        assert!(queued.taken && queued.dropped <= 2);
        let whole = 1_000 * queued.dropped..=1_001 * queued.dropped;
        assert!(whole.contains(&queued.dropped_bytes), "{queued:?}");
        dropped += queued.dropped;
    }
    assert!(dropped >= 18, "a flood has half of the space: {dropped}");
    assert!(session.datagram_cost_bytes() <= DATAGRAM_QUEUE_BYTES / 2);
    let aged = START.after(Duration::from_micros(DATAGRAM_AGE_MICROS));
    let queued = ready(&mut session, aged);
    assert!(queued.taken && queued.dropped == fill + 20 - dropped, "{queued:?}");
    assert_eq!(session.datagram_cost_bytes(), cost + u64::from(held % 2));
}

#[test]
fn where_there_is_less_memory_fewer_wait() {
    const LESS: u64 = 512 << 10;
    let config = SessionConfig { datagram_queue_bytes: LESS, ..ours(1) };
    let mut session = up(config, ours(1).offer);
    let key = open(&mut session);
    let (mut dropped, most) = (0, DATAGRAM_BYTES_MAX);
    for _ in 0..8 {
        let queued = session.datagrams_ready(key, most, most, START);
        assert!(queued.taken, "{queued:?}");
        dropped += queued.dropped;
    }
    assert!(dropped > 0 && session.datagram_cost_bytes() <= LESS / 2);
}

#[test]
fn a_single_datagram_finds_room_beside_floods() {
    let mut session = pair(1);
    let at = "127.0.0.1:1".parse().expect("an address");
    for user in 0..40 {
        let key = session.open_datagrams(user, at, at).expect("a stream");
        for _ in 0..100 {
            session.datagrams_ready(key, 1_200, 60_000, START);
        }
    }
    assert!(session.datagram_cost_bytes() < DATAGRAM_QUEUE_BYTES);
    let key = open(&mut session);
    assert_eq!(session.datagrams_ready(key, 1_400, 1_400, START), TAKEN);
}

#[test]
fn no_single_run_is_taken_that_would_leave_less_free_than_it_has() {
    let mut session = pair(1);
    let at = "127.0.0.1:1".parse().expect("an address");
    let mut last = TAKEN;
    for user in 0..300 {
        let key = session.open_datagrams(user, at, at).expect("a stream");
        last = session.datagrams_ready(key, 1_000, 65_000, START);
    }
    assert_eq!(last, Queued { taken: false, dropped: 65, dropped_bytes: 0, too_big: false });
}

/// A peer that has read nothing: as much goes out as the link window lets.
#[test]
fn floods_wait_for_the_link_window_and_single_datagrams_do_not() {
    let mut session = pair(1);
    let key = open(&mut session);
    for _ in 0..30 {
        assert!(session.datagrams_ready(key, 1_000, 65_000, START).taken);
    }
    let on_the_way: u64 = frames(&mut session).iter().map(|frame| frame.2).sum();
    // Datagrams want to be there soon: the link window is kept small for them.
    let most = LINK_CAP_INTERACTIVE_BYTES;
    assert!((most - 65_000..=most).contains(&on_the_way), "{on_the_way} bytes");
    let single = open(&mut session);
    let few = SMALL_FRAME_BYTES as u32 / 2;
    session.datagrams_ready(single, few, few, START);
    let few = u64::from(few);
    assert_eq!(frames(&mut session), [control(OPEN), datagrams(few, few)]);
    let taken = Frame::LaneTaken { total_bytes: on_the_way + few };
    session.on_frame(taken, START).expect("a word");
    assert!(!frames(&mut session).is_empty(), "the flood goes on");
}

#[test]
fn a_datagram_larger_than_the_link_window_goes_whole() {
    let mut session = pair(1);
    let key = open(&mut session);
    for _ in 0..4 {
        assert!(session.datagrams_ready(key, 60_000, 60_000, START).taken);
    }
    let sizes: Vec<u64> = frames(&mut session).iter().map(|frame| frame.2).collect();
    assert_eq!(sizes, [0, 60_000, 60_000, 60_000], "the last would not fit at all");
}

/// Bulk is held back as beside a keystroke, whichever way datagrams go.
#[test]
fn datagrams_keep_the_link_window_small() {
    let bulk = |session: &mut Session| {
        let at = "127.0.0.1:1".parse().expect("an address");
        for user in 0..80 {
            let key = session.open(user, at, at).expect("a stream");
            session.data_ready(key, 256 << 10);
        }
        let mut head = Vec::new();
        while session.poll_transmit(&mut head, true).is_some() {}
        session.link_counts().sent_bytes
    };
    // Each stream's window is 256 KiB.
    let alone = bulk(&mut pair(1));
    assert!(alone > LINK_CAP_BULK_BYTES - (1 << 20), "{alone} bytes");
    let mut session = pair(1);
    incoming(&mut session, Some(Transport::Udp), 0);
    let frame =
        Frame::Datagrams { to: StreamRef::Theirs(1 << 20), size_bytes: 9_000, bytes: 9_000 };
    session.on_frame(frame, START).expect("a datagram");
    let opens = 80 * (64 << 10);
    let beside = bulk(&mut session);
    assert!(beside <= opens + LINK_CAP_INTERACTIVE_BYTES, "{beside} bytes");
}

/// A flood and a stream of bytes share a link: each has half.
#[test]
fn a_stream_of_bytes_keeps_its_half_beside_a_flood() {
    for (size, run) in [(64, 4_096), (1_200, 60_000), (1_200, 1_200), (65_507, 65_507)] {
        let (bulk, flood) = shares(size, run);
        let half = bulk as f64 / (bulk + flood) as f64;
        assert!((0.45..=0.6).contains(&half), "{size} in runs of {run}: {bulk} and {flood}");
    }
}

/// Bytes of a stream and of a flood through a link of 100 MB/s.
fn shares(size: u32, run: u32) -> (u64, u64) {
    let mut session = pair(1);
    let at = "127.0.0.1:1".parse().expect("an address");
    let bulk = session.open(1, at, at).expect("a stream");
    let to = StreamRef::Ours(1 << 20);
    let flood = open(&mut session);
    sent(&mut session);
    session.on_frame(Frame::Consumed { to, bytes: 1 << 39 }, START).expect("credit");
    let (mut now, mut told, mut total) = (START, 0, 0);
    let (mut bulk_bytes, mut flood_bytes) = (0, 0);
    while total < 60 << 20 {
        while session.may_read(bulk) {
            session.data_ready(bulk, 64 << 10);
        }
        for _ in 0..3 {
            session.datagrams_ready(flood, size, run, now);
        }
        let mut head = Vec::new();
        let bytes = match session.poll_transmit(&mut head, true) {
            Some(Transmit::Data { bytes, .. }) => {
                bulk_bytes += bytes;
                bytes
            }
            Some(Transmit::Datagrams { bytes, .. }) => {
                flood_bytes += bytes;
                bytes
            }
            _ => 0,
        };
        total += bytes;
        now = now.after(Duration::from_micros((bytes / 100).max(1)));
        session.received(now);
        if total - told >= LINK_ACK_BYTES {
            told = total;
            let taken = Frame::LaneTaken { total_bytes: total };
            session.on_frame(taken, now).expect("LANE_TAKEN");
        }
    }
    (bulk_bytes, flood_bytes)
}
