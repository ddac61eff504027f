//! Rules of the session that a simulation cannot see broken, because all bytes still arrive.

use std::time::Duration;

use sockmux_uring::limits::{BEFORE_HELLO_MAX, WINDOW_BYTES};
use sockmux_uring::session::{Event, Session, SessionConfig, StreamKey, TunnelError};
use sockmux_uring::wire::v03::PAYLOAD_BYTES_MAX;
use sockmux_uring::wire::{CloseKind, Frame, StreamRef};

use crate::testkit::pure::answered::open;
use crate::testkit::pure::lone::{START, ours, sent, up};
use crate::testkit::pure::original::Pair;

const HELLO: u8 = 0x01;
const HELLO_OK: u8 = 0x41;
const SEND: u8 = 0x06;
const SENT: u8 = 0x46;
const CLOSE: u8 = 0x08;
const CLOSED: u8 = 0x48;

#[test]
fn the_end_of_data_follows_the_last_byte_at_once() {
    let mut session = up(ours(0), ours(0).offer);
    let key = open(&mut session);
    session.data_ready(key, 20_000);
    session.data_end(key, START);
    assert_eq!(sent(&mut session), [SEND, SEND, SEND], "two of data, and the end");
}

#[test]
fn acknowledgements_between_two_of_ours_wait_a_moment_or_for_company() {
    let data = Frame::Data { to: StreamRef::Ours(2), bytes: 1_000 };
    let mut session = up(ours(0), ours(0).offer);
    let key = open(&mut session);
    session.on_frame(data, START).expect("data");
    session.consumed(key, 1_000, START);
    let mut head = Vec::new();
    assert!(session.poll_transmit(&mut head, false).is_none(), "nobody waits for it");
    let due = session.next_timeout().expect("it goes out sometime");
    assert_eq!(due, START.after(Duration::from_millis(20)));
    session.on_time(due).expect("still up");
    assert!(session.poll_transmit(&mut head, false).is_some());
    assert_eq!(head[1], SENT);
    // With company it goes at once.
    session.on_frame(data, due).expect("data");
    session.consumed(key, 1_000, due);
    session.data_ready(key, 10);
    head.clear();
    assert!(session.poll_transmit(&mut head, false).is_some());
    assert_eq!(head[1], SEND);
    assert_eq!(sent(&mut session), [SENT]);
}

#[test]
fn an_original_is_acknowledged_with_the_next_batch() {
    let mut session = up(ours(0), None);
    let key = open(&mut session);
    session.on_frame(Frame::Data { to: StreamRef::Ours(2), bytes: 10 }, START).expect("data");
    session.consumed(key, 10, START);
    let mut head = Vec::new();
    assert!(session.poll_transmit(&mut head, false).is_some());
    assert_eq!(head[1], SENT);
}

#[test]
fn an_id_is_not_free_before_both_ends_have_closed() {
    let mut session = up(ours(0), ours(0).offer);
    let key = open(&mut session);
    session.local_reset(key, "reset");
    assert_eq!(sent(&mut session), [CLOSE]);
    // The peer has closed at the same time: its answer to our CLOSE is still to come.
    let kind = CloseKind::Orderly;
    let close = Frame::Close { from: Some(7), to: StreamRef::Ours(2), reason: b"", kind };
    session.on_frame(close, START).expect("CLOSE");
    assert_eq!(sent(&mut session), [CLOSED]);
    assert_eq!(session.stream_count(), 1);
    session
        .on_frame(Frame::Closed { from: Some(7), to: StreamRef::Ours(2) }, START)
        .expect("CLOSED");
    assert_eq!(session.stream_count(), 0);
}

#[test]
fn a_reset_does_not_wait_for_acknowledgements() {
    let mut session = up(ours(0), ours(0).offer);
    let key = open(&mut session);
    session.data_ready(key, 2 * u64::from(WINDOW_BYTES));
    assert!(session.local_reset(key, "gone"), "what is allowed still goes out");
    let kinds = sent(&mut session);
    assert_eq!(kinds.last(), Some(&CLOSE));
    let out = session.counters().payload_bytes_out;
    let packet = u64::from(PAYLOAD_BYTES_MAX);
    assert!(out <= u64::from(WINDOW_BYTES) && out > u64::from(WINDOW_BYTES) - packet, "{out}");
}

/// Data of a broken local side goes first, however long that takes, and before CONNECTED, too.
#[test]
fn what_came_before_a_break_waits_for_acknowledgements() {
    let mut session = up(ours(0), ours(0).offer);
    let key = open(&mut session);
    let bytes = 2 * u64::from(WINDOW_BYTES);
    session.data_ready(key, bytes);
    assert!(session.local_broken(key, "gone"), "its data still goes out");
    let (mut kinds, mut acknowledged) = (sent(&mut session), 0);
    while !kinds.contains(&CLOSE) {
        assert!(kinds.contains(&SEND), "it does not go on: {kinds:?}");
        let sent_bytes = session.counters().payload_bytes_out;
        let taken = Frame::Consumed { to: StreamRef::Ours(2), bytes: sent_bytes - acknowledged };
        acknowledged = sent_bytes;
        session.on_frame(taken, START).expect("SENT");
        kinds = sent(&mut session);
    }
    assert_eq!(session.counters().payload_bytes_out, bytes);
    // Data of a client that was reset before the peer had answered.
    let mut session = up(ours(0), ours(0).offer);
    let at = "127.0.0.1:1".parse().expect("an address");
    let key = session.open(0, at, at).expect("a stream");
    sent(&mut session);
    session.data_ready(key, 10);
    assert!(session.local_broken(key, "gone"), "its data still goes out");
    assert!(sent(&mut session).is_empty(), "the peer has not answered");
    let opened = Frame::Opened { from: Some(7), to: StreamRef::Ours(2), first_bytes: 0 };
    session.on_frame(opened, START).expect("CONNECTED");
    assert_eq!(sent(&mut session), [SEND, CLOSE]);
}

#[test]
fn close_is_held_back_from_an_original_until_the_answer_has_come() {
    let mut session = up(ours(0), None);
    let key = open(&mut session);
    session.data_ready(key, 10);
    assert_eq!(sent(&mut session), [SEND]);
    session.data_end(key, START);
    session.on_frame(Frame::Consumed { to: StreamRef::Ours(2), bytes: 10 }, START).expect("SENT");
    assert!(sent(&mut session).is_empty(), "an answer may come");
    // It comes late, and its client takes it late.
    let at = START.after(Duration::from_secs(20));
    session.received(at);
    session.on_frame(Frame::Data { to: StreamRef::Ours(2), bytes: 100 }, at).expect("data");
    let at = START.after(Duration::from_secs(29));
    session.consumed(key, 100, at);
    assert_eq!(sent(&mut session), [SENT]);
    let mut now = at;
    while session.stream_count() == 1 {
        now = session.next_timeout().expect("CLOSE goes out sometime");
        session.received(now);
        session.on_time(now).expect("still up");
        if sent(&mut session).contains(&CLOSE) {
            break;
        }
    }
    assert!(now >= at.after(Duration::from_secs(1)) && now <= at.after(Duration::from_secs(31)));
    session.on_frame(Frame::Closed { from: Some(7), to: StreamRef::Ours(2) }, now).expect("CLOSED");
    let mut ended = false;
    while let Some(event) = session.poll_event() {
        ended |= matches!(event, Event::Ended { .. });
    }
    assert!(ended && session.stream_count() == 0);
}

/// Events of one stream, at either end or in transit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// Our client or server resets its connection.
    Reset,
    /// It ends its data.
    Eof,
    /// It sends data.
    Say,
    /// The original's local side ends, or sends data.
    TheirClose,
    TheirSay,
    /// Our exit is there.
    Accept,
    /// A packet arrives there, or here.
    Out,
    In,
}

/// Calls `each` with all orders of the acts.
fn orders(acts: &mut Vec<Act>, at: usize, each: &mut impl FnMut(&[Act])) {
    if at == acts.len() {
        return each(acts);
    }
    for n in at..acts.len() {
        // An event equal to an earlier choice gives the same orders.
        if acts[at..n].contains(&acts[n]) {
            continue;
        }
        acts.swap(at, n);
        orders(acts, at + 1, each);
        acts.swap(at, n);
    }
}

/// One stream, which begins at either end, and these acts in this order; then all that is on its way
/// arrives and every hold is over.
fn run_order(begins_here: bool, acts: &[Act]) {
    let mut pair = Pair::new();
    let mut key = None;
    if begins_here {
        key = pair.open();
    } else {
        pair.connect();
    }
    let (mut ended, mut said) = (false, 0);
    for &act in acts {
        key = key.or_else(|| pair.incoming.front().copied());
        let live = key.filter(|&key| !ended && pair.session.user_of(key).is_some());
        match (act, live) {
            (Act::Reset, Some(key)) => {
                pair.session.local_reset(key, "reset");
                ended = true;
            }
            (Act::Eof, Some(key)) => {
                pair.session.data_end(key, pair.now);
                ended = true;
            }
            (Act::Say, Some(key)) => {
                pair.session.data_ready(key, 100);
                said += 100;
            }
            (Act::TheirClose, _) => pair.ids().into_iter().for_each(|id| pair.close(id)),
            (Act::TheirSay, _) => pair.ids().into_iter().for_each(|id| pair.say(id, 100)),
            (Act::Accept, _) => pair.accept(),
            (Act::Out, _) => drop(pair.original_reads()),
            (Act::In, _) => drop(pair.session_reads()),
            (Act::Reset | Act::Eof | Act::Say, None) => {}
        }
        pair.transmit();
    }
    pair.settle();
    pair.accept();
    pair.settle();
    // Streams that have not ended yet do now.
    pair.wait(HELD_MICROS);
    pair.settle();
    pair.ids().into_iter().for_each(|id| pair.close(id));
    pair.settle();
    let left = (pair.session.stream_count(), pair.theirs());
    assert_eq!(left, (0, 0), "streams are left here and there: {acts:?}");
    assert!(pair.received_bytes <= said);
    if begins_here {
        assert_eq!(pair.ended.len(), 1, "it ends once: {:?} {acts:?}", pair.ended);
    }
}

/// Longer than anything is held back.
const HELD_MICROS: u64 = 31_000_000;

/// Towards an original, for all crossings of frames: the stream ends once at each side, leaves no state,
/// and sends no frame that would meet another stream of the same id.
#[test]
fn closes_cross_in_every_order_and_leave_nothing() {
    let mut count = 0;
    for end in [Act::Reset, Act::Eof] {
        for begins_here in [true, false] {
            let mut acts = vec![end, Act::TheirClose, Act::Say, Act::TheirSay, Act::Out, Act::In];
            acts.push(if begins_here { Act::Out } else { Act::Accept });
            acts.push(Act::In);
            orders(&mut acts, 0, &mut |acts| {
                run_order(begins_here, acts);
                count += 1;
            });
        }
    }
    assert!(count > 20_000, "{count} orders");
}

/// An original whose CLOSE has crossed ours is done with the stream: waiting for its CLOSED would
/// keep the slot for ever.
#[test]
fn five_thousand_closes_cross_and_the_last_stream_is_served_as_the_first() {
    for begins_here in [true, false] {
        let mut pair = Pair::new();
        for _ in 0..5_000 {
            let key = match begins_here {
                true => pair.open().expect("there is room"),
                false => {
                    pair.connect();
                    pair.session_reads();
                    let key = *pair.incoming.front().expect("a stream");
                    pair.accept();
                    key
                }
            };
            pair.settle();
            pair.session.local_reset(key, "reset");
            pair.ids().into_iter().for_each(|id| pair.close(id));
            pair.settle();
            assert_eq!((pair.session.stream_count(), pair.theirs()), (0, 0));
        }
        assert_eq!(pair.ended.len(), 5_000);
    }
}

/// The client of an original has left when our refusal comes: it knows no stream any more, and a
/// CLOSED would meet the next one of the same id.
#[test]
fn a_close_that_crosses_our_refusal_is_not_answered() {
    let mut pair = Pair::new();
    for _ in 0..300 {
        let id = pair.connect();
        pair.session_reads();
        pair.refuse();
        pair.close(id);
        // Its id is given out again at once.
        pair.transmit();
        while pair.original_reads() {}
        assert_eq!(pair.theirs(), 0);
        assert_eq!(pair.connect(), id);
        pair.settle();
        pair.accept();
        pair.settle();
        pair.close(id);
        pair.settle();
        assert_eq!((pair.session.stream_count(), pair.theirs()), (0, 0));
    }
}

/// A stream of ours whose client has ended its data, perhaps after an answer.
fn half_closed(pair: &mut Pair, answered: bool) -> StreamKey {
    let key = pair.open().expect("room");
    pair.settle();
    pair.session.data_ready(key, 100);
    pair.settle();
    if answered {
        let id = *pair.ids().last().expect("its id");
        pair.say(id, 5);
        pair.settle();
    }
    pair.session.data_end(key, pair.now);
    pair.settle();
    key
}

/// CLOSE is held back for as long as there are slots: then the stream that has been silent for
/// longest goes.
#[test]
fn when_slots_run_short_the_longest_held_stream_ends_first() {
    for (answered, least_micros) in [(true, 100_000), (false, 500_000)] {
        let mut pair = Pair::new();
        let keys: Vec<StreamKey> = (0..52)
            .map(|_| {
                pair.wait(1_000);
                half_closed(&mut pair, answered)
            })
            .collect();
        assert_eq!(pair.session.stream_count(), 52, "there are slots for all of them");
        // An answer comes for the oldest: it is not the one that has been silent for longest.
        pair.wait(1_000);
        let first = pair.ids()[0];
        pair.say(first, 5);
        pair.settle();
        pair.wait(least_micros);
        for (n, key) in keys.iter().enumerate().skip(1) {
            pair.wait(1_000);
            let another = half_closed(&mut pair, answered);
            assert!(pair.session.user_of(*key).is_none(), "{n} goes first");
            assert!(pair.session.user_of(another).is_some());
            assert!(keys.get(n + 1).is_none_or(|key| pair.session.user_of(*key).is_some()));
            assert_eq!(pair.session.stream_count(), 52);
        }
        assert!(pair.session.user_of(keys[0]).is_some());
    }
}

/// An answer may still come: another stream waits for so long.
#[test]
fn a_stream_is_held_for_a_moment_though_others_wait_for_its_slot() {
    for (answered, least_micros) in [(true, 100_000), (false, 500_000)] {
        let mut pair = Pair::new();
        let began = pair.now;
        for _ in 0..60 {
            half_closed(&mut pair, answered);
        }
        assert!(!pair.session.has_room());
        let next = pair.session.next_timeout().expect("a hold ends");
        assert_eq!(next, began.after(Duration::from_micros(least_micros)));
        pair.wait(least_micros - 1);
        pair.settle();
        assert!(!pair.session.has_room());
        pair.wait(1);
        pair.settle();
        assert_eq!(pair.session.stream_count(), 52);
        assert!(pair.session.has_room());
    }
}

/// A stream that is held back only because its bytes have not been taken yet keeps its slot: nothing of it
/// is lost for another's sake.
#[test]
fn a_stream_that_has_not_delivered_everything_is_not_ended_for_another() {
    let mut pair = Pair::new();
    let keys: Vec<StreamKey> = (0..60).map(|_| pair.open().expect("room")).collect();
    pair.settle();
    for key in keys {
        pair.session.data_ready(key, 100);
        pair.session.data_end(key, pair.now);
    }
    // Not read yet, so not acknowledged.
    pair.transmit();
    assert!(pair.open().is_none());
    assert_eq!(pair.session.stream_count(), 60);
    pair.settle();
    assert_eq!(pair.received_bytes, 60 * 100);
    assert_eq!(pair.session.stream_count(), 60);
    pair.wait(500_000);
    pair.settle();
    assert_eq!(pair.session.stream_count(), 52, "acknowledged, and slots are short");
    assert!(pair.open().is_some());
}

/// How long the CLOSE of a client that closes at once is held back.
#[test]
fn close_follows_half_a_second_after_an_answer_and_no_later() {
    let mut pair = Pair::new();
    half_closed(&mut pair, true);
    pair.wait(499_000);
    pair.settle();
    assert_eq!(pair.session.stream_count(), 1);
    pair.wait(1_000);
    pair.settle();
    assert_eq!(pair.session.stream_count(), 0);
}

/// On a device an original sends HELLO once, when it opens it, and answers ours with HELLOOK alone.
#[test]
fn an_answer_alone_is_enough_where_it_may_be() {
    let answer = Frame::HelloOk { ids: (1, 2) };
    for answer_suffices in [true, false] {
        let config = SessionConfig { answer_suffices, ..ours(1) };
        let mut session = Session::new(config, START);
        assert_eq!(sent(&mut session), [HELLO]);
        session.on_frame(answer, START).expect("HELLOOK");
        assert_eq!(session.is_up(), answer_suffices);
        assert!(!session.peer_is_ours());
        let said = sent(&mut session);
        assert_eq!(said[0], HELLO_OK, "which is what the original waits for");
        assert_eq!(said.len(), if answer_suffices { 3 } else { 1 }, "and two options");
        // A HELLO begins anew.
        let greeted =
            session.on_frame(Frame::Hello { ids: (0, 0), offer: None, lane: None }, START);
        assert_eq!(greeted.is_err(), answer_suffices);
    }
}

/// Where peers connect, who says nothing learns nothing of this host.
#[test]
fn a_hello_that_is_to_answer_waits_for_the_peers() {
    let (hello, answer) =
        (Frame::Hello { ids: (0, 0), offer: None, lane: None }, Frame::HelloOk { ids: (0, 0) });
    for (first, second, said) in
        [(hello, answer, [HELLO, HELLO_OK]), (answer, hello, [HELLO, HELLO_OK])]
    {
        let mut session = Session::new(SessionConfig { answers_hello: true, ..ours(1) }, START);
        assert!(sent(&mut session).is_empty());
        session.on_frame(Frame::Ping { ids: (0, 0), payload: b"?" }, START).expect("ignored");
        assert!(sent(&mut session).is_empty());
        session.on_frame(first, START).expect("the first packet");
        assert_eq!(sent(&mut session), said);
        session.on_frame(second, START).expect("the second packet");
        assert!(session.is_up());
        assert_eq!(sent(&mut session).first(), Some(&HELLO_OK));
    }
}

#[test]
fn a_peer_that_says_anything_but_its_hello_is_dropped() {
    let mut session = Session::new(ours(1), START);
    for _ in 0..BEFORE_HELLO_MAX {
        session.on_frame(Frame::FirstData, START).expect("ignored, as the original does");
    }
    assert_eq!(session.on_frame(Frame::FirstData, START), Err(TunnelError::NoHello));
}
