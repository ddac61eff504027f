//! SockMux 1's windows on a link with a bandwidth and a delay, in virtual time: they grow until the
//! path is full, and only where somebody reads.

use std::time::Duration;

use sockmux_uring::limits::{
    FIRST_WINDOW_BYTES, STREAM_WINDOW_BYTES_MAX, WINDOW_BUDGET_BYTES, WINDOW_GROWTH_MAX,
    WINDOW_SHORT_PATH_BYTES,
};
use sockmux_uring::session::{Moment, Session, StreamKey};
use sockmux_uring::wire::{DecodeStep, Frame, Protocol, StreamRef, v1};

use crate::testkit::pure::joined::{End, Link};
use crate::testkit::pure::lone::{START, ours, up};

const ONE_WAY: Duration = Duration::from_millis(50);

/// A sender with this many streams and its receiver, run for so many seconds: the receiver, and
/// what it was delivered in the last of them.
fn run(bytes_per_sec: u64, streams: u64, seconds: u64, reads: fn(usize) -> bool) -> (End, u64) {
    let (mut sender, mut receiver) = (End::new(|_| true), End::new(reads));
    let mut links = [(); 2].map(|()| Link::new(bytes_per_sec, ONE_WAY));
    let second = Duration::from_secs(1);
    let end = START.after(second * seconds as u32);
    let mut at_last_second = 0;
    let mut now = START;
    while now < end {
        receiver.receive(&mut links[0], now);
        receiver.take(now);
        sender.receive(&mut links[1], now);
        if sender.keys.is_empty() && sender.session.is_up() {
            (0..streams).for_each(|_| sender.open());
        }
        sender.write();
        while sender.transmit(&mut links[0], now) {
            sender.write();
        }
        receiver.transmit(&mut links[1], now);
        if now.after(second) < end {
            at_last_second = receiver.delivered_bytes;
        }
        let next = links.iter().filter_map(Link::next).min();
        let Some(next) = next else { break };
        now = next;
    }
    let last_second = receiver.delivered_bytes - at_last_second;
    (receiver, last_second)
}

#[test]
fn one_stream_fills_a_long_path_within_seconds() {
    // 1 Gbit/s at 100 ms: 12.5 MB are on the way.
    let bytes_per_sec = 125_000_000;
    let (receiver, bytes) = run(bytes_per_sec, 1, 4, |_| true);
    assert!(bytes >= bytes_per_sec * 9 / 10, "{bytes} bytes in the last second");
    let path = bytes_per_sec / 10;
    let window = receiver.window_bytes(0);
    assert!((2 * path..=8 * path).contains(&window), "{window} bytes of window");
}

#[test]
fn a_stream_is_as_fast_as_its_path_after_three_round_trips() {
    // 400 Mbit/s at 100 ms. Hello and open take the first 200 ms, the first byte is there after
    // another 50, and what windows that grow may cost is two round trips more.
    let bytes_per_sec = 50_000_000;
    let (receiver, _) = run(bytes_per_sec, 1, 2, |_| true);
    let whole = bytes_per_sec * (2_000 - 250 - 200) / 1_000;
    let bytes = receiver.delivered_bytes;
    assert!(bytes >= whole, "{bytes} bytes in two seconds, {whole} are wanted");
}

#[test]
fn a_short_path_leaves_the_window_small() {
    // 10 Mbit/s at 100 ms: 125 kB are on the way, less than half of the first window. The round
    // trip is measured while the first window fills the link, and so taken for three times as long.
    let (receiver, bytes) = run(1_250_000, 1, 10, |_| true);
    assert!(bytes >= 1_250_000 * 9 / 10, "{bytes} bytes in the last second");
    let window = receiver.window_bytes(0);
    assert!(window <= 8 * u64::from(FIRST_WINDOW_BYTES), "{window} bytes of window");
}

#[test]
fn a_stream_that_nobody_reads_keeps_its_first_window_beside_one_that_is_read() {
    let (receiver, _) = run(125_000_000, 2, 4, |stream| stream == 0);
    assert!(receiver.window_bytes(0) > u64::from(FIRST_WINDOW_BYTES));
    assert_eq!(receiver.window_bytes(1), u64::from(FIRST_WINDOW_BYTES));
    assert_eq!(receiver.waiting[1], u64::from(FIRST_WINDOW_BYTES));
}

#[test]
fn no_window_and_no_sum_of_windows_exceeds_its_bound() {
    // 100 Gbit/s: the windows alone hold the streams back.
    let (receiver, _) = run(12_500_000_000, 3, 2, |_| true);
    let windows = [0, 1, 2].map(|stream| receiver.window_bytes(stream));
    assert!(windows.iter().all(|&window| window <= STREAM_WINDOW_BYTES_MAX), "{windows:?}");
    let extra = windows.iter().sum::<u64>() - 3 * u64::from(FIRST_WINDOW_BYTES);
    assert_eq!(extra, receiver.session.extra_window_bytes());
    assert!(extra > WINDOW_BUDGET_BYTES / 2 && extra <= WINDOW_BUDGET_BYTES, "{windows:?}");
}

/// A stream that begins here, and its name for the peer.
fn open(session: &mut Session) -> (StreamKey, StreamRef) {
    let at = "127.0.0.1:1".parse().expect("an address");
    let mut head = Vec::new();
    // A ping may wait, after the one before was answered.
    while session.poll_transmit(&mut head, true).is_some() {}
    head.clear();
    let key = session.open(0, at, at).expect("a stream");
    while session.poll_transmit(&mut head, true).is_some() {}
    (key, StreamRef::Ours(u32::from_be_bytes([head[4], head[5], head[6], head[7]])))
}

#[test]
fn the_first_credit_grows_the_window_also_of_a_stream_that_was_silent() {
    let mut session = up(ours(1), ours(1).offer);
    let now = START.after(Duration::from_millis(10));
    let text = format!("{}\0", START.0);
    session.on_frame(Frame::Pong { payload: text.as_bytes() }, now).expect("its answer");
    let (key, to) = open(&mut session);
    let (first, half) = (u64::from(FIRST_WINDOW_BYTES), FIRST_WINDOW_BYTES / 2);
    // Silent for a minute, and then a burst.
    let now = now.after(Duration::from_secs(60));
    session.on_frame(Frame::Data { to, bytes: half }, now).expect("within the window");
    session.consumed(key, u64::from(half), now.after(Duration::from_millis(10)));
    let grown = session.windows(key).expect("a stream").window_bytes;
    assert_eq!(grown, 4 * first, "half of it in one round trip");
}

#[test]
fn a_window_grows_once_for_each_credit_that_goes_out() {
    let mut session = up(ours(1), ours(1).offer);
    // The ping that followed the hello is answered: a round trip of 10 ms is known.
    let now = START.after(Duration::from_millis(10));
    let text = format!("{}\0", START.0);
    session.on_frame(Frame::Pong { payload: text.as_bytes() }, now).expect("its answer");
    assert_eq!(session.round_trip(), Some(Duration::from_millis(10)));
    assert_eq!(session.protocol(), Protocol::V1);
    let (key, to) = open(&mut session);
    let half = FIRST_WINDOW_BYTES / 2;
    for _ in 0..2 {
        session.on_frame(Frame::Data { to, bytes: half }, now).expect("within the window");
    }
    // The first grant is late: the window was not what held the stream back.
    let now = now.after(Duration::from_secs(1));
    session.consumed(key, u64::from(half), now);
    let mut head = Vec::new();
    while session.poll_transmit(&mut head, true).is_some() {}
    // The second comes at once. The link does not write it, and the rest is taken bit by bit.
    for _ in 0..half / 1024 {
        session.consumed(key, 1024, now);
    }
    session.on_frame(Frame::Data { to, bytes: half }, now).expect("within the window");
    for _ in 0..half / 1024 {
        session.consumed(key, 1024, now);
    }
    let windows = session.windows(key).expect("a stream");
    let window = WINDOW_GROWTH_MAX * u64::from(FIRST_WINDOW_BYTES);
    assert_eq!(windows.window_bytes, window);
    let mut said = 0;
    head.clear();
    while session.poll_transmit(&mut head, true).is_some() {
        let mut decoder = v1::Decoder::new();
        if let Ok((_, DecodeStep::Frame(Frame::Consumed { bytes, .. }))) = decoder.step(&head) {
            said += bytes;
        }
        head.clear();
    }
    let grown = window - u64::from(FIRST_WINDOW_BYTES);
    assert_eq!(said, grown + 2 * u64::from(half));
    let windows = session.windows(key).expect("a stream");
    assert_eq!(windows.allowance_bytes, windows.window_bytes);
}

/// A session whose ping was answered after this time, a stream that began at it, and the stream's name.
fn at_a_distance(round_trip: Duration) -> (Session, Moment, StreamKey, StreamRef) {
    let mut session = up(ours(1), ours(1).offer);
    let now = START.after(round_trip);
    let text = format!("{}\0", START.0);
    session.on_frame(Frame::Pong { payload: text.as_bytes() }, now).expect("its answer");
    assert_eq!(session.round_trip(), Some(round_trip));
    let (key, to) = open(&mut session);
    (session, now, key, to)
}

/// Half of the window comes and is taken at once, and the credit for it goes out: the window then.
fn half_a_window(session: &mut Session, key: StreamKey, to: StreamRef, now: Moment) -> u64 {
    let half = session.windows(key).expect("a stream").window_bytes / 2;
    session.on_frame(Frame::Data { to, bytes: half as u32 }, now).expect("within the window");
    session.consumed(key, half, now);
    let mut head = Vec::new();
    while session.poll_transmit(&mut head, true).is_some() {}
    let windows = session.windows(key).expect("a stream");
    assert_eq!(windows.allowance_bytes, windows.window_bytes, "all credit went out");
    windows.window_bytes
}

#[test]
fn bursts_behind_pauses_of_the_scheduler_do_not_make_a_short_path_long() {
    let (mut session, mut now, key, to) = at_a_distance(Duration::from_micros(50));
    for _ in 0..1_000 {
        // Two halves in an instant, then 4 ms of silence.
        for _ in 0..2 {
            let window = half_a_window(&mut session, key, to, now);
            assert!(window <= WINDOW_SHORT_PATH_BYTES, "{window} bytes of window");
        }
        now = now.after(Duration::from_millis(4));
    }
    let window = session.windows(key).expect("a stream").window_bytes;
    assert_eq!(window, WINDOW_SHORT_PATH_BYTES);
}

#[test]
fn a_short_path_that_is_fast_gets_what_it_has_in_flight() {
    // 5 GB/s at 2 ms: 10 MB.
    let (mut session, mut now, key, to) = at_a_distance(Duration::from_millis(2));
    let mut window = 0;
    for _ in 0..1_000 {
        window = half_a_window(&mut session, key, to, now);
        now = now.after(Duration::from_micros(window / 2 / 5_000));
    }
    assert!((20_000_000..=80_000_000).contains(&window), "{window} bytes of window");
}

#[test]
fn a_window_shrinks_when_its_path_has_become_slow() {
    let (mut session, mut now, key, to) = at_a_distance(Duration::from_millis(100));
    for _ in 0..10 {
        now = now.after(Duration::from_millis(100));
        half_a_window(&mut session, key, to, now);
    }
    assert_eq!(session.windows(key).expect("a stream").window_bytes, STREAM_WINDOW_BYTES_MAX);
    // 1 MB/s, piece by piece: 100 kB are in flight.
    let piece = 64 << 10;
    for _ in 0..2_000 {
        now = now.after(Duration::from_micros(piece));
        session.on_frame(Frame::Data { to, bytes: piece as u32 }, now).expect("within the window");
        session.consumed(key, piece, now);
        while session.poll_transmit(&mut Vec::new(), true).is_some() {}
    }
    let window = session.windows(key).expect("a stream").window_bytes;
    assert_eq!(window, WINDOW_SHORT_PATH_BYTES);
    assert_eq!(session.extra_window_bytes(), window - u64::from(FIRST_WINDOW_BYTES));
}
