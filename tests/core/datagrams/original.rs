//! Datagrams in SockMux 0.3, towards an original.

use super::*;

#[test]
fn an_original_gets_one_datagram_a_packet_and_the_first_in_connect() {
    let mut session = towards_an_original();
    let key = open(&mut session);
    assert_eq!(session.datagrams_ready(key, 10, 25, START), TAKEN);
    assert_eq!(session.datagrams_ready(key, 10, 10, START), TAKEN);
    assert_eq!(frames(&mut session), [(CONNECT, 10, 10)]);
    opened(&mut session, 5);
    assert_eq!(frames(&mut session), sends(&[10, 5, 10]));
}

#[test]
fn a_first_datagram_that_does_not_fit_into_connect_follows_it() {
    let mut session = towards_an_original();
    let key = open(&mut session);
    assert_eq!(session.datagrams_ready(key, 16_376, 16_376, START), TAKEN);
    assert_eq!(frames(&mut session), [control(CONNECT)]);
    opened(&mut session, 5);
    assert_eq!(frames(&mut session), sends(&[16_376]));
}

#[test]
fn what_a_packet_cannot_carry_is_dropped() {
    let mut session = towards_an_original();
    let key = open(&mut session);
    let refused = |dropped, too_big| Queued { taken: false, dropped, dropped_bytes: 0, too_big };
    assert_eq!(session.datagrams_ready(key, 16_377, 16_377, START), refused(1, true));
    assert_eq!(session.datagrams_ready(key, 16_377, 40_000, START), refused(3, true));
    assert_eq!(session.datagrams_ready(key, 0, 0, START), refused(1, false));
    assert_eq!(frames(&mut session), [control(CONNECT)]);
}

#[test]
fn an_original_is_sent_no_more_than_it_acknowledges() {
    let mut session = towards_an_original();
    let key = open(&mut session);
    frames(&mut session);
    opened(&mut session, 5);
    for _ in 0..10 {
        assert!(session.datagrams_ready(key, 16_000, 48_000, START).taken);
    }
    // While not more than four packet sizes are on the way.
    assert_eq!(frames(&mut session), sends(&[16_000; 5]));
    let acknowledged = Frame::Consumed { to: StreamRef::Ours(2), bytes: 16_000 };
    session.on_frame(acknowledged, START).expect("SENT");
    assert_eq!(frames(&mut session), sends(&[16_000]));
    assert_eq!(session.protocol(), Protocol::V03);
    // It is told of the end by a CLOSE.
    assert!(!session.local_reset(key, "idle"));
    assert_eq!(frames(&mut session), [control(CLOSE)]);
    session
        .on_frame(Frame::Closed { from: Some(7), to: StreamRef::Ours(2) }, START)
        .expect("its answer");
    assert_eq!(ends(&mut session), [Ended::Reset(String::from("idle"))]);
    assert_eq!((session.stream_count(), session.datagram_cost_bytes()), (0, 0));
}

#[test]
fn datagrams_of_0_3_come_as_packets_and_an_empty_one_is_thrown_away() {
    let mut session = pair(0);
    let key = incoming(&mut session, None, 20);
    let at = "127.0.0.1:1".parse().expect("an address");
    session.accept(key, at, at);
    frames(&mut session);
    session.consumed(key, 20, START);
    assert!(frames(&mut session).is_empty(), "first data is not acknowledged");
    let to = StreamRef::Ours(2);
    assert_eq!(session.on_frame(Frame::Data { to, bytes: 0 }, START), Ok(Sink::Discard));
    let urgent = Frame::Urgent { to, bytes: 1 };
    assert_eq!(session.on_frame(urgent, START), Ok(Sink::Discard));
    assert_eq!(session.counters().unsuited_frames, 2);
    assert!(session.poll_event().is_none(), "no end of data");
    assert_eq!(session.on_frame(Frame::Data { to, bytes: 9 }, START), Ok(Sink::Stream(key)));
    session.consumed(key, 9, START);
    assert_eq!(frames(&mut session), [control(0x46)]);
}

/// A peer may slip a CONNECT of 0.3 in between the packets of a hello that leads to SockMux 1.
#[test]
fn a_stream_that_does_not_say_what_it_carries_is_what_it_is_taken_for() {
    let mut session = pair(1);
    let key = incoming(&mut session, None, 20);
    assert_eq!(session.datagrams_ready(key, 5, 5, START), TAKEN);
    let at = "127.0.0.1:1".parse().expect("an address");
    session.accept(key, at, at);
    assert_eq!(frames(&mut session), [control(OPENED), datagrams(5, 5)]);
}
