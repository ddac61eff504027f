//! Rules of SockMux 1 that a simulation cannot see broken, because all bytes still arrive.

use sockmux_uring::limits::{FIRST_WINDOW_BYTES, TENTATIVE_BYTES};
use sockmux_uring::session::{
    Ended, Event, OpenError, Session, Sink, StreamKey, Transmit, TunnelError,
};
use sockmux_uring::wire::v1::FIRST_BYTES_MAX;
use sockmux_uring::wire::v03::Encoder;
use sockmux_uring::wire::{CloseKind, DecodeStep, Decoder, Frame, Protocol, StreamRef, Transport};

use crate::testkit::pure::lone::{START, ours, sent, up};

const OPEN: u8 = 0x01;
const DATA: u8 = 0x03;
const END: u8 = 0x04;
const RESET: u8 = 0x05;
const PING: u8 = 0x08;
const PONG: u8 = 0x09;
// Of 0.3.
const CONNECT: u8 = 0x02;
const ECHO_OK: u8 = 0x49;

fn open(session: &mut Session) -> StreamKey {
    let at = "127.0.0.1:1".parse().expect("an address");
    session.open(0, at, at).expect("a stream")
}

/// The session's output now, and the number of the stream in its last frame.
fn sent_number(session: &mut Session) -> (Vec<u8>, StreamRef) {
    let (mut kinds, mut number) = (Vec::new(), 0);
    let mut head = Vec::new();
    while session.poll_transmit(&mut head, true).is_some() {
        kinds.push(head[1]);
        number = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        head.clear();
    }
    (kinds, StreamRef::Ours(number))
}

fn ends(session: &mut Session) -> Vec<Ended> {
    let mut ends = Vec::new();
    while let Some(event) = session.poll_event() {
        if let Event::Ended { how, .. } = event {
            ends.push(how);
        }
    }
    ends
}

#[test]
fn an_opener_says_all_it_has_without_an_answer() {
    let mut session = up(ours(1), ours(1).offer);
    let key = open(&mut session);
    session.data_ready(key, u64::from(FIRST_BYTES_MAX) + 10);
    session.data_end(key, START);
    let (kinds, to) = sent_number(&mut session);
    assert_eq!(kinds, [OPEN, DATA, END]);
    assert_eq!(session.stream_count(), 1, "the other direction is open");
    session.on_frame(Frame::Data { to, bytes: 5 }, START).expect("an answer");
    session.on_frame(Frame::End { to }, START).expect("its end");
    assert_eq!(ends(&mut session), [Ended::Orderly]);
    assert!(sent(&mut session).is_empty(), "nobody answers an end");
}

#[test]
fn no_more_is_sent_than_was_allowed() {
    let mut session = up(ours(1), ours(1).offer);
    let key = open(&mut session);
    session.data_ready(key, u64::from(FIRST_WINDOW_BYTES) + 1_000);
    let (kinds, to) = sent_number(&mut session);
    assert_eq!(kinds, [OPEN, DATA]);
    assert_eq!(session.windows(key).expect("a stream").credit_bytes, 0);
    assert!(!session.may_read(key));
    session.on_frame(Frame::Consumed { to, bytes: 1_001 }, START).expect("credit");
    assert_eq!(sent(&mut session), [DATA]);
    assert_eq!(session.windows(key).expect("a stream").credit_bytes, 1);
}

#[test]
fn a_reset_follows_what_may_still_go_and_ends_at_once() {
    let mut session = up(ours(1), ours(1).offer);
    let key = open(&mut session);
    session.data_ready(key, u64::from(FIRST_BYTES_MAX) + 10);
    assert!(session.local_reset(key, "gone"), "its data still goes out");
    assert_eq!(sent(&mut session), [OPEN, DATA, RESET]);
    assert_eq!(ends(&mut session), [Ended::Reset(String::from("gone"))]);
    assert_eq!(session.stream_count(), 0);
}

#[test]
fn a_reset_does_not_wait_for_credit() {
    let mut session = up(ours(1), ours(1).offer);
    let key = open(&mut session);
    session.data_ready(key, u64::from(FIRST_WINDOW_BYTES) + 1_000);
    assert!(session.local_reset(key, "gone"), "what is allowed still goes out");
    let kinds = sent(&mut session);
    assert_eq!(kinds.first(), Some(&OPEN));
    assert_eq!(kinds.last(), Some(&RESET));
    assert_eq!(session.counters().payload_bytes_out, u64::from(FIRST_WINDOW_BYTES));
    assert_eq!(session.stream_count(), 0);
}

#[test]
fn what_has_no_credit_at_all_is_dropped_by_a_reset() {
    let mut session = up(ours(1), ours(1).offer);
    let key = open(&mut session);
    session.data_ready(key, u64::from(FIRST_WINDOW_BYTES));
    sent(&mut session);
    session.data_ready(key, 10);
    assert!(sent(&mut session).is_empty(), "the window is used up");
    assert!(!session.local_reset(key, "gone"), "nothing may go any more");
    assert_eq!(sent(&mut session), [RESET]);
    assert_eq!(ends(&mut session), [Ended::Reset(String::from("gone"))]);
}

/// Data of a broken local side, and its end of data, go first, however long that takes.
#[test]
fn what_came_before_a_break_waits_for_credit() {
    let mut session = up(ours(1), ours(1).offer);
    let key = open(&mut session);
    session.data_ready(key, u64::from(FIRST_WINDOW_BYTES) + 1_000);
    session.data_end(key, START);
    assert!(session.local_broken(key, "gone"), "its data still goes out");
    let (kinds, to) = sent_number(&mut session);
    assert_eq!(kinds, [OPEN, DATA]);
    session.on_frame(Frame::Consumed { to, bytes: 1_000 }, START).expect("credit");
    assert_eq!(sent(&mut session), [DATA, END, RESET]);
    assert_eq!(ends(&mut session), [Ended::Reset(String::from("gone"))]);
    assert_eq!(session.counters().payload_bytes_out, u64::from(FIRST_WINDOW_BYTES) + 1_000);
    assert_eq!(session.stream_count(), 0);
}

/// The engine has waited long enough.
#[test]
fn a_break_whose_peer_takes_nothing_is_a_reset_at_last() {
    let mut session = up(ours(1), ours(1).offer);
    let key = open(&mut session);
    session.data_ready(key, u64::from(FIRST_WINDOW_BYTES) + 1_000);
    session.data_end(key, START);
    assert!(session.local_broken(key, "gone"), "its data still goes out");
    assert_eq!(sent(&mut session), [OPEN, DATA]);
    assert!(!session.local_reset(key, "gone"), "nothing may go any more");
    // A truncated stream has no orderly end.
    assert_eq!(sent(&mut session), [RESET]);
    assert_eq!(ends(&mut session), [Ended::Reset(String::from("gone"))]);
}

#[test]
fn a_reset_that_crosses_ours_is_for_nobody() {
    let mut session = up(ours(1), ours(1).offer);
    let key = open(&mut session);
    sent(&mut session);
    session.local_reset(key, "gone");
    let (kinds, to) = sent_number(&mut session);
    assert_eq!(kinds, [RESET]);
    let reset = Frame::Close { from: None, to, reason: b"gone too", kind: CloseKind::Reset };
    session.on_frame(reset, START).expect("it is thrown away");
    assert_eq!(session.counters().unknown_ids, 1);
    assert_eq!(ends(&mut session).len(), 1);
    assert!(sent(&mut session).is_empty(), "nobody answers it");
}

/// The peer's slot 0 again: frames with the number before are for no stream.
#[test]
fn a_number_of_the_peers_is_its_slot_and_its_generation() {
    let mut session = up(ours(1), ours(1).offer);
    let (old, new) = (1 << 20, 2 << 20);
    let open = |session: &mut Session, number: u32| {
        let (client, entrance) = (None, None);
        let transport = Some(Transport::Tcp);
        let from = Some(number);
        let frame = Frame::Open { from, client, entrance, transport, first_bytes: 0 };
        let result = session.on_frame(frame, START);
        let incoming = |event| match event {
            Event::Incoming { key, .. } => Some(key),
            _ => None,
        };
        result.map(|_| std::iter::from_fn(|| session.poll_event()).find_map(incoming))
    };
    open(&mut session, old).expect("an open").expect("a stream");
    let again = open(&mut session, new).expect_err("the slot is taken");
    assert_eq!(again, TunnelError::BadNumber { number: new });
    let mut session = up(ours(1), ours(1).offer);
    let first = open(&mut session, old).expect("an open").expect("a stream");
    session.attach(first, 0);
    let to = StreamRef::Theirs(old);
    let reset = Frame::Close { from: None, to, reason: b"gone", kind: CloseKind::Reset };
    session.on_frame(reset, START).expect("a reset");
    let second = open(&mut session, new).expect("an open").expect("a stream");
    session.attach(second, 1);
    let data = |to| Frame::Data { to, bytes: 100 };
    assert_eq!(session.on_frame(data(to), START), Ok(Sink::Discard));
    session.on_frame(reset, START).expect("it is thrown away");
    session.on_frame(Frame::Consumed { to, bytes: 7 }, START).expect("it is thrown away");
    assert_eq!(session.counters().unknown_ids, 3);
    let theirs = StreamRef::Theirs(new);
    assert_eq!(session.on_frame(data(theirs), START), Ok(Sink::Stream(second)));
    let windows = session.windows(second).expect("it stands");
    assert_eq!(windows.backlog_bytes, 100);
    assert_eq!(windows.credit_bytes, u64::from(FIRST_WINDOW_BYTES));
    assert_eq!(session.link_counts().received_bytes, 200, "what nobody takes has been read, too");
}

#[test]
fn nothing_is_opened_towards_a_peer_that_goes_away() {
    let mut session = up(ours(1), ours(1).offer);
    open(&mut session);
    session.on_frame(Frame::GoingAway { reason: b"drain" }, START).expect("a word");
    let at = "127.0.0.1:1".parse().expect("an address");
    assert_eq!(session.open(1, at, at), Err(OpenError::GoingAway));
    assert_eq!(session.stream_count(), 1);
}

/// Its answer means that all streams that began before have been announced, also those that only waited
/// for their turn.
#[test]
fn the_answer_to_a_farewell_goes_behind_the_streams_that_have_begun() {
    for (newest, wanted) in [(1, [OPEN, PONG]), (0, [CONNECT, ECHO_OK])] {
        let mut session = up(ours(newest), ours(newest).offer);
        open(&mut session);
        session.on_frame(Frame::GoingAway { reason: b"drain" }, START).expect("a word");
        let farewell = Frame::Ping { ids: (255, 255), payload: b"farewell" };
        session.on_frame(farewell, START).expect("a question");
        assert_eq!(sent(&mut session), wanted, "SockMux {newest}");
    }
}

/// A tentative stream sends little before its peer has accepted it, which the engine can keep; the rest
/// waits for the answer, and is not lost.
#[test]
fn a_tentative_stream_sends_little_before_it_is_taken() {
    let at = "127.0.0.1:1".parse().expect("an address");
    let total = TENTATIVE_BYTES + 10_000;
    let out = |session: &mut Session| {
        let (mut head, mut bytes) = (Vec::new(), 0);
        while let Some(transmit) = session.poll_transmit(&mut head, true) {
            if let Transmit::Data { bytes: part, .. } = transmit {
                bytes += part;
            }
        }
        bytes
    };
    for newest in [0, 1] {
        let mut session = up(ours(newest), ours(newest).offer);
        session.on_frame(Frame::FirstData, START).expect("an option");
        let key = session.open_tentatively(7, at, at).expect("a stream");
        session.data_ready(key, total);
        session.data_end(key, START);
        assert_eq!(out(&mut session), TENTATIVE_BYTES, "SockMux {newest}");
        assert!(ends(&mut session).is_empty());
        let to = match newest {
            0 => StreamRef::Ours(2),
            _ => StreamRef::Ours(1 << 20),
        };
        let taken = Frame::Opened { from: Some(9), to, first_bytes: 0 };
        session.on_frame(taken, START).expect("an answer");
        assert_eq!(out(&mut session), total - TENTATIVE_BYTES, "SockMux {newest}");

        let key = session.open_tentatively(8, at, at).expect("a stream");
        session.data_ready(key, 10);
        assert_eq!(out(&mut session), 10);
        let to = match newest {
            0 => StreamRef::Ours(3),
            _ => StreamRef::Ours(1 << 20 | 1),
        };
        let reason = b"no exit";
        let refusal = Frame::Close { from: None, to, reason, kind: CloseKind::NotTaken };
        session.on_frame(refusal, START).expect("a refusal");
        let how = Ended::NotTaken { reason: String::from("no exit"), runs: Vec::new() };
        assert_eq!(ends(&mut session), [how]);
    }
}

/// A flow waits with all it has, and gets it back where it is not taken.
#[test]
fn tentative_datagrams_wait_and_are_given_back() {
    let at = "127.0.0.1:1".parse().expect("an address");
    for (newest, open, to) in
        [(0, CONNECT, StreamRef::Ours(2)), (1, OPEN, StreamRef::Ours(1 << 20))]
    {
        let mut session = up(ours(newest), ours(newest).offer);
        session.on_frame(Frame::FirstData, START).expect("an option");
        let key = session.open_datagrams_tentatively(7, at, at).expect("a stream");
        for (size, bytes) in [(10, 25), (700, 700)] {
            assert!(session.datagrams_ready(key, size, bytes, START).taken);
        }
        assert_eq!(sent(&mut session), [open], "SockMux {newest}");
        let reason = b"no exit";
        let refusal = Frame::Close { from: None, to, reason, kind: CloseKind::NotTaken };
        session.on_frame(refusal, START).expect("a refusal");
        let runs = vec![(10, 25), (700, 700)];
        let how = Ended::NotTaken { reason: String::from("no exit"), runs };
        assert_eq!(ends(&mut session), [how]);
        assert_eq!(session.datagram_cost_bytes(), 0);

        // One without a client any more is ended without an answer, where the protocol has a frame for it.
        let key = session.open_datagrams_tentatively(8, at, at).expect("a stream");
        sent(&mut session);
        session.local_reset(key, "silent");
        let wanted: &[u8] = if newest == 1 { &[RESET] } else { &[] };
        assert_eq!(sent(&mut session), wanted);
    }
}

/// Which protocol follows a hello in which we offer one newest protocol and the peer another.
#[test]
fn one_is_spoken_where_both_offer_it() {
    for (own, peer) in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 7)] {
        let session = up(ours(own), ours(peer).offer);
        let v1 = own >= 1 && peer >= 1;
        assert_eq!(session.protocol() == Protocol::V1, v1, "{own} and {peer}");
        let mut bytes = Vec::new();
        Encoder.hello(&mut bytes, "a", ours(peer).offer, None);
        Encoder.hello_ok(&mut bytes, (255, 255), "a");
        Encoder.hello_ok(&mut bytes, (255, 255), "a");
        let mut decoder = Decoder::new(own);
        let mut rest = &bytes[..];
        while let (n, DecodeStep::Frame(_)) = decoder.step(rest).expect("the hello") {
            rest = &rest[n..];
        }
        let packet = decoder.step(&[3, 0x06, 0, 2, 0, 2, 0, 0]);
        assert_eq!(packet.is_err(), v1, "{own} and {peer}");
        let mut decoder = Decoder::new(own);
        bytes.extend_from_slice(&[0xb1, PING, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let (mut rest, mut frames) = (&bytes[..], 0);
        while let Ok((n, DecodeStep::Frame(_))) = decoder.step(rest) {
            rest = &rest[n..];
            frames += 1;
        }
        assert_eq!(frames, if v1 { 4 } else { 3 }, "{own} and {peer}");
    }
}
