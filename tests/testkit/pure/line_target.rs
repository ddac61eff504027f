//! Fuzz target: serial lines whose faults and traffic follow from a seed or a fuzzer.

use sockmux_uring::limits::{LINE_INBOX_BYTES, LINE_PAYLOAD_BYTES_MAX};
use sockmux_uring::serial_line::{LineChecks, LineConfig, LineProtocol};
use sockmux_uring::session::Moment;

use super::bytes::Bytes;
use super::choice::Choice;
use super::line_world::{Faults, START_MICROS, Setting, World};

const SECOND: u64 = 1_000_000;

/// A line with faults, with ends that start late or restart, and some traffic, all of which arrives
/// in the end.
pub(crate) fn random_run(choice: &mut impl Choice) {
    let bytes_per_second = choice.pick(&[11_520, 120, 960, 100_000, 1_000_000]);
    let faults = Faults {
        drop: choice.pick(&[0, 0, 500, 1_000, 2_000]),
        flip: choice.pick(&[0, 0, 500, 1_000, 2_000]),
        repeat: choice.pick(&[0, 0, 1_000, 2_000]),
        insert: choice.pick(&[0, 0, 1_000, 2_000]),
        // The size of five seconds of the line.
        pause: choice.pick(&[0, 0, 1, 5]) * 200_000 / u64::from(bytes_per_second),
        pause_micros: choice.pick(&[1_000, 50_000, 2 * SECOND]),
    };
    let real = u64::from(bytes_per_second) * choice.pick(&[100, 98, 102]) / 100;
    let mut setting = Setting::clean();
    setting.bytes_per_second = bytes_per_second;
    setting.real_bytes_per_second = real;
    setting.latency_micros = choice.pick(&[500, 0, 16_000, 300_000]);
    setting.read_late_micros = choice.pick(&[1_000, 0, 16_000]);
    setting.tick_micros = choice.pick(&[1, 1_000, 10_000]);
    setting.faults = faults;
    for checks in &mut setting.checks {
        *checks = choice.pick(&[LineChecks::WherePeerDoes, LineChecks::Always]);
    }
    let mut world = World::new(setting);
    for side in 0..2 {
        world.sides[side].starts_at += choice.pick(&[0, 0, 300_000, 5 * SECOND]);
        let seconds = choice.below(4);
        world.sides[side].bulk_left = (seconds * u64::from(bytes_per_second)).min(30_000);
        let mut asked_at = START_MICROS;
        for _ in 0..choice.below(20) {
            asked_at += choice.below(SECOND);
            world.small_at(side, asked_at);
        }
    }
    if choice.below(3) == 2 {
        let until = START_MICROS + SECOND + choice.below(5 * SECOND);
        world.run(choice, until, false);
        world.restart(choice.below(2) as usize);
    }
    let until = world.now + 3_600 * SECOND;
    world.run(choice, until, true);
    assert!(world.is_quiet(), "{setting:?}");
}

/// One end that receives any bytes at any time: it may fail with an error, and all bounds hold.
fn rubbish(choice: &mut Bytes) {
    let checks = choice.pick(&[
        LineChecks::WherePeerDoes,
        LineChecks::WherePeerDoes,
        LineChecks::Always,
        LineChecks::Never,
    ]);
    let bytes_per_second = choice.pick(&[11_520, 1, u32::MAX, 0]);
    let mut now = Moment(choice.below(1_000));
    let mut line = LineProtocol::new(LineConfig { bytes_per_second, incarnation: 5, checks }, now);
    let (mut input, mut output) = (Vec::new(), Vec::new());
    let mut kept = 0;
    while !choice.0.is_empty() {
        match choice.below(6) {
            0 => {
                let bytes = choice.below(64) as usize;
                let (taken, rest) = choice.0.split_at(bytes.min(choice.0.len()));
                choice.0 = rest;
                kept += taken.len();
                if line.received(taken, now).is_err() {
                    break;
                }
            }
            1 => {
                input.clear();
                line.read(&mut input);
                assert!(input.len() <= kept + LINE_INBOX_BYTES + 64 * LINE_PAYLOAD_BYTES_MAX);
                kept = 0;
            }
            2 => {
                let bytes = [choice.below(256) as u8; 300];
                let len = choice.below(300) as usize;
                let room = line.room_bytes(now);
                assert!(line.write(&bytes[..len], now) <= room);
            }
            3 => {
                output.clear();
                line.poll_output(&mut output, now);
                assert!(output.len() <= 64 * 3 * LINE_PAYLOAD_BYTES_MAX);
            }
            4 => {
                now = Moment(now.0.saturating_add(choice.below(40_000_000)));
                if line.on_time(now).is_err() {
                    break;
                }
            }
            _ => {
                let Some(at) = line.next_timeout() else { continue };
                assert!(at > now, "time goes on");
                now = at;
                if line.on_time(now).is_err() {
                    break;
                }
            }
        }
    }
}

/// Entry of the fuzzer. The first byte selects one of the two.
pub(crate) fn run(data: &[u8]) {
    let mut choice = Bytes(data);
    match choice.below(2) {
        0 => rubbish(&mut choice),
        _ => random_run(&mut choice),
    }
}
