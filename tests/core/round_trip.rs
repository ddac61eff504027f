//! The round trip that windows are sized by: measured again beside bulk, and never taken from a ping that
//! waited behind it.

use std::time::Duration;

use sockmux_uring::limits::{
    LINK_ACK_BYTES, ROUND_TRIP_EVERY_MICROS, ROUND_TRIP_KEPT_MICROS, ROUND_TRIP_QUIET_BYTES,
    ROUND_TRIPS_AT_FIRST,
};
use sockmux_uring::session::{Moment, Session};
use sockmux_uring::wire::{Frame, StreamRef};

use crate::testkit::pure::lone::{START, ours, sent, up};

const PING: u8 = 0x08;
const LANE_TAKEN: u8 = 0x0b;

fn later(now: Moment, millis: u64) -> Moment {
    now.after(Duration::from_millis(millis))
}

/// A session whose first pings were answered after so long each, and when the last one was.
fn measured(millis: u64) -> (Session, Moment) {
    let mut session = up(ours(1), ours(1).offer);
    let mut asked = START;
    for _ in 0..=ROUND_TRIPS_AT_FIRST {
        let now = later(asked, millis);
        pong(&mut session, asked, now);
        asked = now;
    }
    assert_eq!(round_trip_millis(&session), millis as f64);
    sent(&mut session);
    // The last answer was not followed by a ping.
    pong(&mut session, asked, asked);
    assert_eq!(round_trip_millis(&session), millis as f64);
    (session, asked)
}

#[test]
fn the_shortest_of_the_first_pings_counts() {
    let mut session = up(ours(1), ours(1).offer);
    let mut asked = START;
    for millis in [9, 4, 6] {
        let now = later(asked, millis);
        pong(&mut session, asked, now);
        asked = now;
    }
    assert_eq!(round_trip_millis(&session), 4.0);
}

/// The answer to the ping of this moment.
fn pong(session: &mut Session, asked: Moment, now: Moment) {
    let text = format!("{}\0", asked.0);
    session.on_frame(Frame::Pong { payload: text.as_bytes() }, now).expect("an answer");
}

fn round_trip_millis(session: &Session) -> f64 {
    session.round_trip().expect("an answered ping").as_secs_f64() * 1e3
}

/// Receives enough for no stream that a report is due; returns the output.
fn bulk(session: &mut Session, now: Moment) -> Vec<u8> {
    let to = StreamRef::Theirs(0);
    session.on_frame(Frame::Data { to, bytes: LINK_ACK_BYTES as u32 }, now).expect("data");
    sent(session)
}

#[test]
fn it_is_measured_again_beside_bulk() {
    let (mut session, now) = measured(20);
    assert_eq!(bulk(&mut session, now), [LANE_TAKEN], "it has just been measured");
    let now = now.after(Duration::from_micros(ROUND_TRIP_EVERY_MICROS));
    assert_eq!(bulk(&mut session, now), [LANE_TAKEN, PING]);
    // There is no further ping before that is answered.
    let answered = later(now, 5_000);
    assert_eq!(bulk(&mut session, answered), [LANE_TAKEN]);
    pong(&mut session, now, answered);
    assert_eq!(round_trip_millis(&session), 20.0, "later than before is no news");
    assert_eq!(bulk(&mut session, answered), [LANE_TAKEN, PING]);
    pong(&mut session, answered, later(answered, 3));
    assert_eq!(round_trip_millis(&session), 3.0);
}

#[test]
fn a_long_path_is_asked_less_often() {
    let (mut session, now) = measured(100);
    assert_eq!(bulk(&mut session, later(now, 299)), [LANE_TAKEN]);
    assert_eq!(bulk(&mut session, later(now, 300)), [LANE_TAKEN, PING]);
}

#[test]
fn only_a_quiet_connection_makes_it_longer() {
    let (mut session, now) = measured(20);
    // Old enough to be replaced; but the answer stood behind bulk.
    let now = now.after(Duration::from_micros(ROUND_TRIP_KEPT_MICROS));
    assert_eq!(bulk(&mut session, now), [LANE_TAKEN, PING]);
    for _ in 0..=ROUND_TRIP_QUIET_BYTES / LINK_ACK_BYTES {
        bulk(&mut session, now);
    }
    pong(&mut session, now, later(now, 80));
    assert_eq!(round_trip_millis(&session), 20.0);
    // Nothing else came with this one: the path has become longer.
    let now = later(now, 400);
    assert_eq!(bulk(&mut session, now), [LANE_TAKEN, PING]);
    pong(&mut session, now, later(now, 90));
    assert_eq!(round_trip_millis(&session), 90.0);
    // And is short again.
    let now = later(now, 400);
    assert_eq!(bulk(&mut session, now), [LANE_TAKEN, PING]);
    pong(&mut session, now, later(now, 30));
    assert_eq!(round_trip_millis(&session), 30.0);
}

#[test]
fn what_we_have_on_the_way_makes_it_no_longer() {
    let (mut session, now) = measured(20);
    let at = "127.0.0.1:1".parse().expect("an address");
    let key = session.open(0, at, at).expect("a stream");
    session.data_ready(key, 2 * ROUND_TRIP_QUIET_BYTES);
    sent(&mut session);
    let now = now.after(Duration::from_micros(ROUND_TRIP_KEPT_MICROS));
    assert_eq!(bulk(&mut session, now), [LANE_TAKEN, PING]);
    pong(&mut session, now, later(now, 80));
    assert_eq!(round_trip_millis(&session), 20.0, "the ping stood behind our own bulk");
}
