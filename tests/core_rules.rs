//! Rules of the session that a simulation cannot see broken, because all bytes still arrive.

#[path = "core"]
mod support {
    pub(crate) mod answered;
    pub(crate) mod lone;
}

use std::time::Duration;

use sockmux_uring::limits::WINDOW_BYTES;
use sockmux_uring::session::Event;
use sockmux_uring::wire::v03::PAYLOAD_BYTES_MAX;
use sockmux_uring::wire::{CloseKind, Frame, Name};
use support::answered::open;
use support::lone::{START, ours, sent, up};

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
    let data = Frame::Data { to: Name::Ours(2), bytes: 1_000 };
    let mut session = up(ours(0), ours(0).offer);
    let key = open(&mut session);
    session.on_frame(data, START).expect("data");
    session.taken(key, 1_000, START);
    let mut head = Vec::new();
    assert!(session.poll_transmit(&mut head, false).is_none(), "nobody waits for it");
    let due = session.next_timeout().expect("it goes out sometime");
    assert_eq!(due, START.after(Duration::from_millis(20)));
    session.on_time(due).expect("still up");
    assert!(session.poll_transmit(&mut head, false).is_some());
    assert_eq!(head[1], SENT);
    // With company it goes at once.
    session.on_frame(data, due).expect("data");
    session.taken(key, 1_000, due);
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
    session.on_frame(Frame::Data { to: Name::Ours(2), bytes: 10 }, START).expect("data");
    session.taken(key, 10, START);
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
    let close = Frame::Close { from: Some(7), to: Name::Ours(2), reason: b"", kind };
    session.on_frame(close, START).expect("CLOSE");
    assert_eq!(sent(&mut session), [CLOSED]);
    assert_eq!(session.stream_count(), 1);
    session.on_frame(Frame::Closed { to: Name::Ours(2) }, START).expect("CLOSED");
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

#[test]
fn close_is_held_back_from_an_original_until_the_answer_has_come() {
    let mut session = up(ours(0), None);
    let key = open(&mut session);
    session.data_ready(key, 10);
    assert_eq!(sent(&mut session), [SEND]);
    session.data_end(key, START);
    session.on_frame(Frame::Taken { to: Name::Ours(2), bytes: 10 }, START).expect("SENT");
    assert!(sent(&mut session).is_empty(), "an answer may come");
    // It comes late, and its client takes it late.
    let at = START.after(Duration::from_secs(20));
    session.received(at);
    session.on_frame(Frame::Data { to: Name::Ours(2), bytes: 100 }, at).expect("data");
    let at = START.after(Duration::from_secs(29));
    session.taken(key, 100, at);
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
    session.on_frame(Frame::Closed { to: Name::Ours(2) }, now).expect("CLOSED");
    let mut ended = false;
    while let Some(event) = session.poll_event() {
        ended |= matches!(event, Event::Ended { .. });
    }
    assert!(ended && session.stream_count() == 0);
}
