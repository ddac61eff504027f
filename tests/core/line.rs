//! The link layer of serial lines under virtual time: two ends on a line that spoils bytes, and one
//! end by itself towards an original.
//!
//! Each run follows from its seed, which a failure prints. To have one again:
//! `LINE_SEED=1234 cargo test --test core line::`. To try more of them:
//! `LINE_RUNS=10000 cargo test --test core line::`.

use sockmux_uring::limits::{LINE_AHEAD_MICROS, LINE_DEAD_MICROS};
use sockmux_uring::serial_line::{LineChecks, LineConfig, LineError, LineMode, LineProtocol};
use sockmux_uring::session::{Moment, SessionConfig, Transmit};
use sockmux_uring::wire::{Frame, StreamRef};

use crate::testkit::pure::choice::Choice as _;
use crate::testkit::pure::line_target;
use crate::testkit::pure::line_world::{Faults, START_MICROS, Setting, World};
use crate::testkit::pure::seeded::Seeded;

/// Runs by default: quick enough for every `cargo test`.
const RUNS: u64 = 20;
const SECOND: u64 = 1_000_000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// A line on which one byte in a thousand is lost and one is changed.
fn spoiled() -> Setting {
    let faults = Faults { drop: 1_000, flip: 1_000, ..Faults::default() };
    Setting { faults, ..Setting::clean() }
}

/// The throughput of streams that always have more data, over 10 s, as a part of the line's rate.
fn throughput(setting: Setting, both: bool) -> [f64; 2] {
    let mut choice = Seeded(7);
    let mut world = World::new(setting);
    world.sides[0].bulk_left = u64::MAX;
    world.sides[1].bulk_left = if both { u64::MAX } else { 0 };
    world.run(&mut choice, START_MICROS + 2 * SECOND, false);
    let before = [world.sides[1].delivered, world.sides[0].delivered];
    world.run(&mut choice, START_MICROS + 12 * SECOND, false);
    let carried = 10.0 * setting.real_bytes_per_second as f64;
    let delivered = [world.sides[1].delivered, world.sides[0].delivered];
    for side in &world.sides {
        println!("{:?}", side.line.as_ref().map(|line| line.counters()));
        assert_eq!(side.ended, []);
    }
    println!("{delivered:?} of {carried}");
    [0, 1].map(|side| (delivered[side] - before[side]) as f64 / carried)
}

#[test]
fn rubbish_at_any_time_is_no_harm() {
    for seed in 0..2_000 {
        let mut choice = Seeded(seed);
        let mut data: Vec<u8> = (0..2_000).map(|_| choice.below(256) as u8).collect();
        data[0] = 0;
        line_target::run(&data);
    }
}

#[test]
fn every_byte_arrives_once_and_in_order() {
    let one = number("LINE_SEED");
    let first = one.unwrap_or(1);
    let runs = if one.is_some() { 1 } else { number("LINE_RUNS").unwrap_or(RUNS) };
    for seed in first..first + runs {
        let run = std::panic::AssertUnwindSafe(|| line_target::random_run(&mut Seeded(seed)));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("LINE_SEED={seed} cargo test --test core line::  # runs this again");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn a_clean_line_is_filled() {
    let [one_way, _] = throughput(Setting::clean(), false);
    assert!(one_way >= 0.92, "one way: {one_way}");
    let both = throughput(Setting::clean(), true);
    assert!(both.iter().all(|part| *part >= 0.92), "both ways: {both:?}");
}

#[test]
fn a_spoiled_line_carries_half_of_a_clean_one() {
    for both in [false, true] {
        let parts = throughput(spoiled(), both);
        assert!(parts[0] >= 0.5 && (!both || parts[1] >= 0.5), "{parts:?}");
    }
}

#[test]
fn a_fast_line_is_filled_by_a_coarse_clock() {
    let bytes_per_second = 5_000_000;
    let setting = Setting {
        bytes_per_second,
        real_bytes_per_second: u64::from(bytes_per_second),
        tick_micros: 1_000,
        ..Setting::clean()
    };
    let mut choice = Seeded(7);
    let mut world = World::new(setting);
    world.sides[0].bulk_left = u64::MAX;
    world.run(&mut choice, START_MICROS + SECOND, false);
    let part = world.sides[1].delivered as f64 / f64::from(bytes_per_second);
    assert!(part >= 0.9, "{part}");
}

/// The longest that small writes took beside bulk the same way, and both ways, in microseconds.
fn small_beside_bulk(setting: Setting, both: bool) -> u64 {
    let mut choice = Seeded(11);
    let mut world = World::new(setting);
    world.sides[0].bulk_left = u64::MAX;
    world.sides[1].bulk_left = if both { u64::MAX } else { 0 };
    for n in 0..100 {
        let asked_at = START_MICROS + 2 * SECOND + n * 100_000 + choice.below(100_000);
        world.small_at(0, asked_at);
    }
    let mut held = 0;
    while world.now < START_MICROS + 14 * SECOND {
        let next = world.now + 1_000;
        world.run(&mut choice, next, false);
        for wire in &world.wires {
            held = held.max((wire.free_nanos / 1_000).saturating_sub(world.now));
        }
    }
    // A frame with every byte escaped, besides the bytes that may be ahead.
    let line = world.sides[0].line.as_ref().expect("a line");
    let frame_micros = 2 * (line.frame_bytes() as u64 + 32) * SECOND / 11_520;
    let is_true = setting.real_bytes_per_second == u64::from(setting.bytes_per_second);
    assert!(!is_true || held <= LINE_AHEAD_MICROS + frame_micros, "a device held {held} µs");
    let micros = &world.sides[0].small_micros;
    assert_eq!(micros.len(), 100);
    let mean = micros.iter().sum::<u64>() / 100;
    let longest = micros.iter().max().copied().unwrap_or(0);
    println!("small writes took {mean} µs, at most {longest} µs");
    longest
}

#[test]
fn a_small_write_does_not_wait_behind_bulk() {
    for both in [false, true] {
        let longest = small_beside_bulk(Setting::clean(), both);
        assert!(longest <= 30_000, "{longest} µs, both ways: {both}");
    }
}

#[test]
fn a_line_slower_than_its_number_does_not_fill_its_buffers() {
    let setting = Setting { real_bytes_per_second: 11_290, ..Setting::clean() };
    let longest = small_beside_bulk(setting, true);
    assert!(longest <= 250_000, "{longest} µs");
    let parts = throughput(setting, true);
    assert!(parts.iter().all(|part| *part >= 0.9), "{parts:?}");
}

#[test]
fn ends_come_at_any_time() {
    use LineChecks::{Always, WherePeerDoes};
    let of_both =
        [[WherePeerDoes; 2], [Always; 2], [Always, WherePeerDoes], [WherePeerDoes, Always]];
    let cases = [0, 1, 7, 100].into_iter().flat_map(|late| of_both.map(|checks| (late, checks)));
    for (late_seconds, checks) in cases {
        let mut world = World::new(Setting { checks, ..Setting::clean() });
        world.sides[1].starts_at = START_MICROS + late_seconds * SECOND;
        world.sides[0].bulk_left = 1_000;
        world.sides[1].bulk_left = 1_000;
        let until = world.sides[1].starts_at + 3 * SECOND;
        world.run(&mut Seeded(late_seconds), until, true);
        assert!(world.is_quiet(), "{late_seconds} s late, {checks:?}");
        for side in &world.sides {
            assert_eq!(side.line.as_ref().map(LineProtocol::mode), Some(LineMode::Checked));
        }
    }
}

#[test]
fn a_peer_that_begins_anew_is_noticed() {
    for (idle, side) in [(true, 0), (true, 1), (false, 0), (false, 1)] {
        let mut choice = Seeded(3);
        let mut world = World::new(spoiled());
        for side in &mut world.sides {
            side.bulk_left = if idle { 500 } else { 40_000 };
        }
        world.run(&mut choice, START_MICROS + 2 * SECOND, false);
        assert_eq!(world.is_quiet(), idle);
        world.restart(side);
        world.sides[side].bulk_left = 500;
        let until = world.now + 60 * SECOND;
        world.run(&mut choice, until, true);
        for s in &world.sides {
            println!("{} {} {} {:?}", s.written, s.delivered, s.bulk_left, s.line);
        }
        assert!(world.is_quiet());
        assert!(world.now < until - 30 * SECOND, "it was not noticed soon");
        assert_eq!(world.sides[1 - side].ended, [LineError::PeerRestarted]);
        assert_eq!(world.sides[side].ended, []);
    }
}

#[test]
fn a_line_without_an_answer_is_dead() {
    let mut world = World::new(Setting::clean());
    for side in &mut world.sides {
        side.bulk_left = 100;
    }
    world.run(&mut Seeded(1), START_MICROS + 5 * SECOND, false);
    assert!(world.is_quiet());
    let cut_at = world.now;
    world.setting.faults = Faults { drop: 1_000_000, ..Faults::default() };
    world.small_at(0, cut_at + 1);
    world.run(&mut Seeded(1), cut_at + LINE_DEAD_MICROS - SECOND, false);
    assert_eq!(world.sides[0].ended, []);
    world.run(&mut Seeded(1), cut_at + LINE_DEAD_MICROS + SECOND, false);
    assert_eq!(world.sides[0].ended, [LineError::Silent]);
    // Nothing of its own waits for an answer.
    assert_eq!(world.sides[1].ended, []);
}

/// Else the peer would wait for it, from a process that has left.
#[test]
fn what_is_owed_to_the_peer_is_not_settled() {
    let mut now = Moment(START_MICROS);
    let mut lines = [1, 2].map(|incarnation| {
        let checks = LineChecks::Always;
        LineProtocol::new(LineConfig { bytes_per_second: 11_520, incarnation, checks }, now)
    });
    for _ in 0..4 {
        for from in [0, 1] {
            let mut bytes = Vec::new();
            lines[from].poll_output(&mut bytes, now);
            lines[1 - from].received(&bytes, now).expect("a line");
        }
        now.0 += SECOND;
    }
    assert_eq!(lines[0].write(b"x", now), 1);
    let mut bytes = Vec::new();
    assert!(lines[0].poll_output(&mut bytes, now) && !lines[0].is_settled());
    lines[1].received(&bytes, now).expect("a line");
    assert!(!lines[1].is_settled(), "it has not acknowledged it");
    bytes.clear();
    assert!(lines[1].poll_output(&mut bytes, now) && lines[1].is_settled());
    lines[0].received(&bytes, now).expect("a line");
    assert!(lines[0].is_settled());
}

/// A process that leaves need not wait for it.
#[test]
fn a_peer_that_has_left_is_known_by_its_silence() {
    let mut world = World::new(Setting::clean());
    world.sides[0].bulk_left = 100;
    world.run(&mut Seeded(1), START_MICROS + 5 * SECOND, true);
    let line = |world: &World, side: usize| {
        let line = world.sides[side].line.as_ref().expect("a line");
        (line.is_settled(), line.is_unheard())
    };
    assert!(world.is_quiet());
    let until = world.now + SECOND;
    world.run(&mut Seeded(1), until, false);
    assert_eq!([line(&world, 0), line(&world, 1)], [(true, false); 2]);
    world.setting.faults = Faults { drop: 1_000_000, ..Faults::default() };
    world.small_at(0, world.now + 1);
    let until = world.now + SECOND;
    world.run(&mut Seeded(1), until, false);
    assert_eq!(line(&world, 0), (false, false), "it may be a bad line");
    let until = world.now + 2 * SECOND;
    world.run(&mut Seeded(1), until, false);
    assert_eq!(line(&world, 0), (false, true));
    world.setting.faults = Faults::default();
    let until = world.now + 10 * SECOND;
    world.run(&mut Seeded(1), until, false);
    assert_eq!([line(&world, 0), line(&world, 1)], [(true, false); 2], "it was one");
}

#[test]
fn nothing_is_lost_while_a_session_does_not_read() {
    let mut choice = Seeded(5);
    let bytes_per_second = 250_000;
    let setting = Setting { bytes_per_second, real_bytes_per_second: 250_000, ..spoiled() };
    let mut world = World::new(setting);
    world.sides[0].bulk_left = 400_000;
    world.sides[1].reads = false;
    world.run(&mut choice, START_MICROS + 5 * SECOND, false);
    assert!(world.sides[0].bulk_left > 0, "somebody took it all");
    world.sides[1].reads = true;
    let until = world.now + 30 * SECOND;
    world.run(&mut choice, until, true);
    assert!(world.is_quiet());
}

#[test]
fn a_session_keeps_its_frames_as_short_as_the_line_wants() {
    use crate::testkit::pure::lone::{START, ours, sent, up};
    for newest in [0, 1] {
        let config = SessionConfig { frame_bytes_max: 195, ..ours(newest) };
        let offer = config.offer;
        let mut session = up(config, offer);
        let at = "127.0.0.1:1".parse().expect("an address");
        let key = session.open(0, at, at).expect("a stream");
        sent(&mut session);
        if newest == 0 {
            let opened = Frame::Opened { from: Some(7), to: StreamRef::Ours(2), first_bytes: 0 };
            session.on_frame(opened, START).expect("CONNECTED");
        }
        session.data_ready(key, 1_000);
        let (mut head, mut frames) = (Vec::new(), Vec::new());
        while let Some(transmit) = session.poll_transmit(&mut head, true) {
            if let Transmit::Data { bytes, .. } = transmit {
                frames.push(bytes);
            }
        }
        assert_eq!(frames, [195, 195, 195, 195, 195, 25], "protocol {newest}");
    }
}
