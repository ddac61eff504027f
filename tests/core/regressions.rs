//! Past failures: crashes of the fuzz targets, replayed from `fuzz/regressions/TARGET/`, and faults of
//! the session, each as the shortest sequence that reproduces it.

use std::path::Path;
use std::time::Duration;

use sockmux_uring::limits::PEER_WINDOW_BYTES_MIN;
use sockmux_uring::session::{Session, SessionConfig, TunnelError};
use sockmux_uring::wire::v03::Offer;
use sockmux_uring::wire::{Frame, StreamRef};

use crate::testkit::pure::answered::open;
use crate::testkit::pure::lone::{START, ours, sent, up};
use crate::testkit::pure::script::Pattern;
use crate::testkit::pure::{
    decode_target, line_target, pair_target, proxy_header_target, record_target, roundtrip_target,
    session_target,
};

/// Every kept case of a target; how many there were.
fn replay(target: &str, run: impl Fn(&[u8])) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut cases = 0;
    for file in files {
        let path = file.expect("a case").path();
        println!("{}", path.display());
        run(&std::fs::read(&path).expect("a case"));
        cases += 1;
    }
    cases
}

#[test]
fn kept_cases_of_the_fuzzer() {
    let pattern = Pattern::new();
    assert!(replay("decode", decode_target::run) > 0);
    assert!(replay("roundtrip", roundtrip_target::run) > 0);
    assert!(replay("proxy_header", proxy_header_target::run) > 0);
    assert!(replay("session", session_target::run) > 0);
    assert!(replay("line", line_target::run) > 0);
    assert!(replay("record", record_target::run) > 0);
    assert!(replay("pair", |data| pair_target::run(data, &pattern)) > 0);
}

#[test]
fn without_a_deadline_for_the_hello_the_timer_still_moves() {
    let config = SessionConfig { hello_timeout: None, ..SessionConfig::default() };
    let mut session = Session::new(config, START);
    let mut turns = 0;
    loop {
        let now = session.next_timeout().expect("silence is noticed");
        if let Err(error) = session.on_time(now) {
            assert_eq!(error, TunnelError::Silent { seconds: 90 });
            break;
        }
        turns += 1;
        assert!(turns < 10 && session.next_timeout().is_some_and(|next| next > now));
    }
}

#[test]
fn a_peer_that_may_come_at_any_time_is_timed_from_its_first_byte() {
    let config = SessionConfig { awaits_peer: true, ..SessionConfig::default() };
    let mut session = Session::new(config, START);
    assert_eq!(session.next_timeout(), None);
    let days_later = START.after(Duration::from_secs(500_000));
    assert_eq!(session.on_time(days_later), Ok(()));
    session.received(days_later);
    let deadline = days_later.after(Duration::from_secs(15));
    assert_eq!(session.next_timeout(), Some(deadline));
    assert_eq!(session.on_time(deadline), Err(TunnelError::HelloTimeout { seconds: 15 }));
}

#[test]
fn a_window_offered_too_small_is_kept_to_what_the_peer_makes_of_it() {
    let offer = Offer {
        newest: 0,
        half_close: true,
        datagrams: true,
        checked_line: false,
        ports: true,
        entrances: true,
        window_bytes: 1_000,
        streams_max: 10,
    };
    let config = SessionConfig { offer: Some(offer), ..SessionConfig::default() };
    let mut session = up(config, ours(0).offer);
    open(&mut session);
    for _ in 0..PEER_WINDOW_BYTES_MIN / 16_000 {
        let data = Frame::Data { to: StreamRef::Ours(2), bytes: 16_000 };
        session.on_frame(data, START).expect("within the least window");
    }
}

#[test]
fn a_side_that_refuses_from_before_the_hello_says_so_when_it_is_up() {
    let mut session = Session::new(ours(1), START);
    session.refuse_new("never at home");
    sent(&mut session);
    session
        .on_frame(Frame::Hello { ids: (0, 0), offer: ours(1).offer, lane: None }, START)
        .expect("a hello");
    session.on_frame(Frame::HelloOk { ids: (0, 0) }, START).expect("its answer");
    assert_eq!(sent(&mut session), [0x41, 0x41, 0x08, 0x0a], "HELLOOK twice, PING, GOING_AWAY");
}

/// Regardless of that option, it goes on opening and accepting streams.
#[test]
fn an_original_cannot_go_away() {
    let mut session = up(ours(0), None);
    session.on_frame(Frame::GoingAway { reason: b"?" }, START).expect("an option");
    assert_eq!(session.counters().ignored_frames, 1);
    open(&mut session);
    assert_eq!(session.stream_count(), 1);
}

#[test]
fn nothing_is_acknowledged_to_a_stream_that_we_have_closed() {
    let mut session = up(ours(0), ours(0).offer);
    let key = open(&mut session);
    let data = Frame::Data { to: StreamRef::Ours(2), bytes: 16_000 };
    for _ in 0..20 {
        session.on_frame(data, START).expect("data");
    }
    session.on_frame(Frame::Data { to: StreamRef::Ours(2), bytes: 0 }, START).expect("end of data");
    session.data_end(key, START);
    assert_eq!(sent(&mut session), [0x06, 0x08], "end of data, CLOSE");
    // Its local socket consumes the received data, and the peer has forgotten the stream.
    session.consumed(key, 320_000, START);
    let urgent = Frame::Urgent { to: StreamRef::Ours(2), bytes: 1 };
    session.on_frame(urgent, START).expect("urgent data");
    let later = START.after(Duration::from_secs(1));
    session.on_time(later).expect("still up");
    assert!(sent(&mut session).is_empty());
    session
        .on_frame(Frame::Closed { from: Some(7), to: StreamRef::Ours(2) }, later)
        .expect("CLOSED");
    assert_eq!(session.stream_count(), 0);
}
