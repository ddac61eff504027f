//! Entrances at the other end: requests, answers and checks of a session.

use std::net::SocketAddr;

use sockmux_uring::limits::ASKED_ENTRANCES_MAX;
use sockmux_uring::session::{
    EntranceAnswer, Event, OpenError, Session, SessionConfig, TunnelError,
};
use sockmux_uring::wire::v03::Offer;
use sockmux_uring::wire::{EntranceState, Frame, Transport};

use crate::testkit::pure::lone::{START, frames, ours, sent, up};

const ENTRANCE: u8 = 0x11;
const ENTRANCE_STATE: u8 = 0x12;

fn at() -> SocketAddr {
    "192.0.2.1:8022".parse().expect("an address")
}

/// A session whose peer may be asked, and may ask.
fn session() -> Session {
    let mut session = up(ours(1), ours(1).offer);
    events(&mut session);
    session
}

/// One whose offer, or the peer's, does not have it.
fn without(ours_has: bool, theirs_has: bool) -> Session {
    let config = ours(1);
    let offer = |entrances| config.offer.map(|offer| Offer { entrances, ..offer });
    let mut session =
        up(SessionConfig { offer: offer(ours_has), ..config.clone() }, offer(theirs_has));
    events(&mut session);
    session
}

fn events(session: &mut Session) -> Vec<Event> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

fn take(session: &mut Session, frame: Frame<'_>) -> Vec<Event> {
    session.on_frame(frame, START).expect("a frame that may come");
    events(session)
}

fn asks(request: u32) -> Frame<'static> {
    Frame::Entrance { request, transport: Transport::Tcp, at: at() }
}

fn state(request: u32, state: EntranceState<'_>) -> Frame<'_> {
    Frame::EntranceState { request, state }
}

fn asked(request: u32) -> [Event; 1] {
    [Event::EntranceAsked { request, transport: Transport::Tcp, at: at() }]
}

fn answered(request: u32, answer: EntranceAnswer) -> [Event; 1] {
    [Event::EntranceAnswered { request, answer }]
}

#[test]
fn a_side_asks_and_is_answered() {
    let mut session = session();
    assert!(session.peer_opens_entrances());
    for request in 0..3 {
        session.ask_entrance(request, Transport::Tcp, at()).expect("asked");
    }
    let wanted: Vec<String> = (0..3).map(|request| format!("{:?}", asks(request))).collect();
    assert_eq!(frames(&mut session), wanted);
    let opened = take(&mut session, state(1, EntranceState::Open(at())));
    assert_eq!(opened, answered(1, EntranceAnswer::Open(at())));
    let refused = take(&mut session, state(0, EntranceState::Refused(b"")));
    let no_reason = String::from("the peer does not say why");
    assert_eq!(refused, answered(0, EntranceAnswer::Refused(no_reason)));
    let not_now = take(&mut session, state(2, EntranceState::NotNow(b"in use")));
    assert_eq!(not_now, answered(2, EntranceAnswer::NotNow(String::from("in use"))));
    let closed = take(&mut session, state(1, EntranceState::Closed(b"over")));
    assert_eq!(closed, answered(1, EntranceAnswer::Closed(String::from("over"))));
    // What was put off is asked for again, by the same number.
    session.ask_entrance(2, Transport::Tcp, at()).expect("asked");
    assert_eq!(sent(&mut session), [ENTRANCE]);
}

#[test]
fn what_is_open_or_unanswered_is_not_asked_for_twice() {
    let mut session = session();
    for _ in 0..2 {
        session.ask_entrance(1, Transport::Tcp, at()).expect("asked");
    }
    assert_eq!(sent(&mut session), [ENTRANCE]);
    take(&mut session, state(1, EntranceState::Open(at())));
    session.ask_entrance(1, Transport::Tcp, at()).expect("it is open");
    assert!(sent(&mut session).is_empty());
}

#[test]
fn a_side_is_asked_and_answers_once() {
    let mut session = session();
    assert!(!session.was_asked_for_entrances());
    for request in [7, 8, 9] {
        assert_eq!(take(&mut session, asks(request)), asked(request));
    }
    assert!(session.was_asked_for_entrances());
    session.answer_entrance(7, EntranceAnswer::Open(at()));
    session.answer_entrance(7, EntranceAnswer::Open(at()));
    session.answer_entrance(8, EntranceAnswer::Closed(String::from("it never was open")));
    session.answer_entrance(8, EntranceAnswer::NotNow(String::from("in\nuse")));
    session.answer_entrance(9, EntranceAnswer::Refused(String::from("no")));
    session.answer_entrance(7, EntranceAnswer::Closed(String::from("over")));
    session.answer_entrance(7, EntranceAnswer::Closed(String::from("over")));
    let wanted = [
        state(7, EntranceState::Open(at())),
        state(8, EntranceState::NotNow(b"inuse")),
        state(9, EntranceState::Refused(b"no")),
        state(7, EntranceState::Closed(b"over")),
    ];
    assert_eq!(frames(&mut session), wanted.map(|frame| format!("{frame:?}")));
    // All numbers are free again.
    for request in [7, 8, 9] {
        assert_eq!(take(&mut session, asks(request)), asked(request));
    }
}

#[test]
fn answers_that_cannot_be_are_dropped() {
    let mut session = session();
    session.ask_entrance(1, Transport::Tcp, at()).expect("asked");
    let states =
        [EntranceState::Open(at()), EntranceState::Refused(b""), EntranceState::NotNow(b"")];
    assert!(take(&mut session, state(1, EntranceState::Closed(b""))).is_empty());
    take(&mut session, state(1, states[0]));
    for of in states {
        assert!(take(&mut session, state(1, of)).is_empty(), "it is open: {of:?}");
        assert!(take(&mut session, state(2, of)).is_empty(), "nobody asked: {of:?}");
    }
    assert_eq!(session.counters().unsuited_frames, 7);
}

#[test]
fn a_number_that_is_open_or_unanswered_and_too_many_of_them_end_the_tunnel() {
    let mut one = session();
    take(&mut one, asks(1));
    let again = Err(TunnelError::EntranceAgain { request: 1 });
    assert_eq!(one.on_frame(asks(1), START), again);
    let mut one = session();
    take(&mut one, asks(1));
    one.answer_entrance(1, EntranceAnswer::Open(at()));
    assert_eq!(one.on_frame(asks(1), START), again);

    let limit = ASKED_ENTRANCES_MAX;
    let mut many = session();
    for request in 0..limit as u32 {
        take(&mut many, asks(request));
        many.answer_entrance(request, EntranceAnswer::Open(at()));
    }
    assert_eq!(sent(&mut many), vec![ENTRANCE_STATE; limit]);
    let too_many = TunnelError::TooManyEntrances { limit };
    assert_eq!(many.on_frame(asks(limit as u32), START), Err(too_many));

    let mut many = session();
    for request in 0..limit as u32 {
        many.ask_entrance(request, Transport::Tcp, at()).expect("asked");
    }
    let too_many = OpenError::TooManyEntrances { limit };
    assert_eq!(many.ask_entrance(limit as u32, Transport::Tcp, at()), Err(too_many));
}

/// A peer that has not offered it is never sent one, and is not believed.
#[test]
fn both_sides_have_to_offer_it() {
    for (of_us, of_peer) in [(true, false), (false, true)] {
        let mut session = without(of_us, of_peer);
        assert!(!session.peer_opens_entrances());
        let asked = session.ask_entrance(1, Transport::Tcp, at());
        assert_eq!(asked, Err(OpenError::NoEntrances));
        assert!(sent(&mut session).is_empty());
        let not_agreed = Err(TunnelError::EntrancesNotAgreed);
        assert_eq!(session.on_frame(asks(1), START), not_agreed);
        let mut session = without(of_us, of_peer);
        let open = state(1, EntranceState::Open(at()));
        assert_eq!(session.on_frame(open, START), not_agreed);
    }
    let mut old = up(ours(0), ours(0).offer);
    assert_eq!(old.ask_entrance(1, Transport::Tcp, at()), Err(OpenError::NoEntrances));
    let reason = OpenError::NoEntrances.to_string();
    assert!(reason.contains("older version"), "{reason}");
}

#[test]
fn a_peer_that_goes_away_is_asked_for_nothing() {
    let mut session = session();
    take(&mut session, Frame::GoingAway { reason: b"" });
    assert_eq!(session.ask_entrance(1, Transport::Tcp, at()), Err(OpenError::GoingAway));
}
