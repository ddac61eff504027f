//! Sessions that outlive their connection: positions, reports, doubt, and hellos that take a lane up.

use std::time::Duration;

use sockmux_uring::limits::{DOUBT_MILLIS_MIN, LANE_READ_BYTES, LANE_READ_MICROS};
use sockmux_uring::session::{Event, Moment, Session, SessionConfig, TunnelError};
use sockmux_uring::wire::v03::{LaneHello, LaneName, TakeUp, VERSION};
use sockmux_uring::wire::{Frame, StreamRef};

use crate::testkit::pure::lone::{START, frames, lane_name, ours, sent, up_with_lane, with_lane};

const HELLO: u8 = 0x01;
const HELLO_OK: u8 = 0x41;
const PING: u8 = 0x08;
const LANE_TAKEN: u8 = 0x0b;
const LANE_READ: u8 = 0x13;

/// A session whose hello is done, with a peer that takes part.
fn up() -> Session {
    let mut session = up_with_lane();
    assert_eq!(sent(&mut session), [HELLO, HELLO_OK, HELLO_OK, PING]);
    session
}

fn later(micros: u64) -> Moment {
    START.after(Duration::from_micros(micros))
}

#[test]
fn both_ends_have_to_take_part() {
    let mut session = Session::new(with_lane(1), START);
    let hello = Frame::Hello { ids: (0, 0), offer: ours(1).offer, lane: None };
    session.on_frame(hello, START).expect("a hello");
    session.on_frame(Frame::HelloOk { ids: (0, 0) }, START).expect("its answer");
    assert!(session.is_up() && !session.resumes());
    assert!(up().resumes());
    // Nor does a peer that keeps to 0.3, whatever it says.
    let again = TakeUp { lane: lane_name(1), position: 0 };
    let lane = Some(LaneHello { own: lane_name(2), again: Some(again) });
    let mut session = Session::new(with_lane(1), START);
    session
        .on_frame(Frame::Hello { ids: (0, 0), offer: ours(0).offer, lane }, START)
        .expect("a hello");
    assert_eq!(session.poll_event(), None, "nothing is taken up");
}

/// What reports on the lane is no part of it, so there are no reports of reports.
#[test]
fn what_was_read_is_reported_once_and_in_time() {
    let mut session = up();
    session.read(100, START);
    assert_eq!(sent(&mut session), [0; 0], "not at once");
    let at = later(LANE_READ_MICROS);
    assert_eq!(session.next_timeout(), Some(at));
    session.on_time(at).expect("time");
    let before = session.sent();
    assert_eq!(frames(&mut session), ["LaneRead { position: 100 }"]);
    assert_eq!(session.sent(), before);
    session.on_frame(Frame::LaneRead { position: before }, at).expect("a report");
    assert_eq!((session.acknowledged(), session.next_timeout()), (before, None), "it is idle");
    session.read(LANE_READ_BYTES, at);
    assert_eq!(sent(&mut session), [LANE_READ], "much is reported at once");
}

#[test]
fn a_position_that_cannot_be_ends_the_tunnel() {
    let mut session = up();
    let sent = session.sent();
    session.on_frame(Frame::LaneRead { position: sent }, START).expect("all of it");
    for position in [sent - 1, sent + 1, u64::MAX] {
        let result = session.on_frame(Frame::LaneRead { position }, START);
        assert!(matches!(result, Err(TunnelError::AckOverrun { .. })), "{position}");
    }
}

#[test]
fn a_session_without_a_connection_says_nothing_and_no_time_runs() {
    let mut session = up();
    session.read(LANE_READ_BYTES, START);
    session.suspend();
    assert_eq!((sent(&mut session), session.next_timeout()), (vec![], None));
    session.on_time(later(3_600_000_000)).expect("no time runs");
    let now = later(3_600_000_001);
    let position = session.sent();
    assert!(!session.resume(position + 1, now), "the peer cannot have read that");
    assert!(session.resume(position, now));
    assert!(!session.is_suspended());
    assert_eq!(
        sent(&mut session),
        [LANE_TAKEN, LANE_READ, PING],
        "the peer may lack what was said last"
    );
}

/// Both ends show what the other one has issued.
#[test]
fn a_hello_takes_a_lane_up_and_the_answer_does_so_too() {
    let broken = up();
    let again = TakeUp { lane: lane_name(1), position: 7 };
    let mut fresh = Session::new(SessionConfig { answers_hello: true, ..with_lane(3) }, START);
    let lane = Some(LaneHello { own: lane_name(4), again: Some(again) });
    let hello = Frame::Hello { ids: (0, 0), offer: ours(1).offer, lane };
    fresh.on_frame(hello, START).expect("a hello");
    assert_eq!(fresh.poll_event(), Some(Event::TakeUp { again }));
    assert!(broken.is_lane(&again.lane) && !fresh.is_lane(&again.lane));
    let guessed = LaneName { number: 1, ..lane_name(9) };
    assert!(!broken.is_lane(&guessed), "the number alone is not enough");
    assert!(sent(&mut fresh).is_empty(), "what the hello says of it is not decided");

    let answer = broken.take_up().expect("the peer has issued a name");
    assert_eq!(answer, TakeUp { lane: lane_name(2), position: 0 });
    fresh.answer_take_up(answer);
    fresh.finish_hello();
    let mut out = Vec::new();
    while fresh.poll_transmit(&mut out, true).is_some() {}
    let mut said = Vec::new();
    LaneHello { own: lane_name(3), again: Some(answer) }.encode(&mut said);
    assert!(out.windows(said.len()).any(|bytes| bytes == said), "the answer is in the hello");
    let answers = out.windows(2).filter(|bytes| *bytes == [VERSION, HELLO_OK]);
    assert_eq!(answers.count(), 2, "the hello is complete");
}

/// Its hello tells the peer so.
#[test]
fn a_hello_that_takes_up_nothing_begins_a_new_tunnel() {
    let mut fresh = Session::new(SessionConfig { answers_hello: true, ..with_lane(3) }, START);
    let again = Some(TakeUp { lane: lane_name(1), position: 7 });
    let lane = Some(LaneHello { own: lane_name(4), again });
    let hello = Frame::Hello { ids: (0, 0), offer: ours(1).offer, lane };
    fresh.on_frame(hello, START).expect("a hello");
    fresh.on_frame(Frame::HelloOk { ids: (0, 0) }, START).expect("its answer");
    assert!(sent(&mut fresh).is_empty(), "it is not decided");
    fresh.begin_anew();
    let mut out = Vec::new();
    while fresh.poll_transmit(&mut out, true).is_some() {}
    let mut said = Vec::new();
    LaneHello { own: lane_name(3), again: None }.encode(&mut said);
    assert!(out.windows(said.len()).any(|bytes| bytes == said));
    assert!(fresh.resumes(), "it is a lane of its own");
}

#[test]
fn a_silent_connection_is_doubted_while_something_waits() {
    let mut session = up();
    session.batch_made(START);
    let patience = DOUBT_MILLIS_MIN * 1_000;
    assert_eq!(session.next_timeout(), Some(later(patience)), "the first ping waits");
    session.on_time(later(patience)).expect("time");
    assert_eq!(sent(&mut session), [PING]);
    assert!(!session.is_doubted());
    session.on_time(later(2 * patience)).expect("time");
    assert!(session.is_doubted());
    let doubted =
        std::iter::from_fn(|| session.poll_event()).filter(|event| *event == Event::Doubted);
    assert_eq!(doubted.count(), 1);
    // Anything that comes dispels it.
    session.received(later(2 * patience));
    assert!(!session.is_doubted());
    session
        .on_frame(Frame::LaneRead { position: session.sent() }, later(2 * patience))
        .expect("all");
    assert_eq!(session.next_timeout(), None, "nothing waits");
}

/// A frame for a stream that is gone is a part of the lane like any other.
#[test]
fn what_has_no_stream_counts_too() {
    let mut session = up();
    let to = StreamRef::Theirs(5);
    session.on_frame(Frame::Data { to, bytes: 10 }, START).expect("data");
    session.read(22, START);
    session.on_time(later(LANE_READ_MICROS)).expect("time");
    assert_eq!(frames(&mut session), ["LaneRead { position: 22 }"]);
}
