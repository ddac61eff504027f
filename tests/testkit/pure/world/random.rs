//! Random worlds.

use std::time::Duration;

use sockmux_uring::limits;
use sockmux_uring::session::{Moment, SessionConfig};
use sockmux_uring::wire::v03::Offer;

use super::super::choice::Choice;
use super::super::script::{End, Exit, Pattern, Plan, Script};
use super::{Order, Summary, World};

/// A world whose configurations, plans, link and cut are choices.
pub(crate) fn random_run<C: Choice>(choice: &mut C, pattern: &Pattern, heavy: bool) -> Summary {
    // The newest protocol of each side.
    let newest = choice.pick(&[[0, 0], [1, 1], [1, 0], [1, 1], [0, 1]]);
    // The natural order every other time: it is several times faster.
    let order = Order::from(choice.below(1 << 16).saturating_sub(1 << 15));
    let v1 = newest == [1, 1];
    let offers = [[true, true], [true, false], [false, true], [false, false]];
    let offers = if v1 { offers[0] } else { choice.pick(&offers) };
    let configs = [0, 1].map(|side| random_config(choice, offers[side], newest[side]));
    let half_close = offers == [true, true];
    let streams_most = choice.pick(&[9, 9, 9, 9, 9, 9, 9, 80]);
    let streams = 1 + choice.below(streams_most) as usize;
    let spread = choice.pick(&[0, 10_000, 3_000_000]);
    let plans: Vec<Plan> = (0..streams)
        .map(|n| random_plan(choice, n, streams, spread, half_close, v1, heavy))
        .collect();
    let cut_at = once_in(choice, 5).then(|| Moment(choice.below(5_000_000)));
    let leave_at = (v1 && once_in(choice, 4))
        .then(|| (choice.below(2) as usize, Moment(choice.below(2_000_000))));
    let mut world = World::new(choice, pattern, configs, plans, cut_at);
    world.shuffle(order);
    if let Some((leaver, at)) = leave_at {
        world.leave(leaver, at);
    }
    world.run()
}

/// True once in so many times; the simplest choice is false.
fn once_in(choice: &mut impl Choice, out_of: u64) -> bool {
    choice.below(out_of) == out_of - 1
}

fn random_config(choice: &mut impl Choice, offers: bool, newest: u8) -> SessionConfig {
    let window_bytes = choice.pick(&[limits::WINDOW_BYTES, 64 << 10, 100_000, 1 << 20]);
    let streams_max = choice.pick(&[limits::STREAMS_MAX, 3, 20]);
    SessionConfig {
        packet_bytes: choice.pick(&[16_384, 129, 512, 1_000, 4_096]),
        first_data: !once_in(choice, 4),
        offer: offers.then_some(Offer {
            newest,
            half_close: true,
            datagrams: true,
            checked_line: false,
            ports: true,
            entrances: true,
            window_bytes,
            streams_max,
        }),
        keepalive: (!once_in(choice, 4)).then_some(Duration::from_secs(30)),
        linger: Some(Duration::from_millis(choice.pick(&[30_000, 0, 500, 5_000]))),
        ..SessionConfig::default()
    }
}

fn random_plan(
    choice: &mut impl Choice,
    n: usize,
    streams: usize,
    spread: u64,
    half_close: bool,
    v1: bool,
    heavy: bool,
) -> Plan {
    let delay = choice.pick(&[0, 300, 40_000, 2_000_000]);
    let exit = match choice.below(12) {
        // An exit that never answers is given up by its engine in the end.
        9 => Exit::Refuse { after: 130_000_000, unreachable: true },
        10 => Exit::Refuse { after: delay, unreachable: true },
        11 => Exit::Refuse { after: delay, unreachable: false },
        _ => Exit::Accept { after: delay },
    };
    let most = match (streams, heavy) {
        // Enough for windows to grow.
        (0..=9, true) if v1 => 1_000_000,
        (0..=9, true) => 300_000,
        (0..=9, false) => 40_000,
        _ => 3_000,
    };
    let mut scripts = [0, 1].map(|end| random_script(choice, (2 * n + end) as u64 * 7_919, most));
    // Two ends that wait for each other's end would wait for ever, and without half-close the peer
    // never reports the client's end to an exit.
    if scripts[0].end == End::EofAfterPeer && (scripts[1].end == End::EofAfterPeer || !half_close) {
        scripts[0].end = End::Eof;
    }
    // One of four carries datagrams. Such a stream ends by a reset of its opener, once it was idle
    // for long enough.
    let datagrams = n % 4 == 3;
    if datagrams {
        scripts[0].end = End::ResetAt(8_000_000);
        if !matches!(scripts[1].end, End::ResetAt(_)) {
            scripts[1].end = End::EofAfterPeer;
        }
    }
    Plan {
        opener: choice.below(2) as usize,
        datagrams,
        open_at: Moment(choice.below(spread + 1)),
        exit,
        scripts,
    }
}

fn random_script(choice: &mut impl Choice, seed: u64, most: u64) -> Script {
    let total_max = choice.pick(&[100, 0, 20_000, most]);
    let total = choice.below(total_max.min(most) + 1);
    Script {
        seed,
        total,
        chunk: choice.pick(&[65_536, 1, 100, 5_000, 16_384]).max(total / 200),
        chunk_gap: choice.pick(&[0, 10, 5_000]),
        gulp: choice.pick(&[u64::MAX, 100, 5_000, 20_000]).max(total / 200),
        gulp_gap: choice.pick(&[0, 10, 5_000, 200_000]),
        stall: choice.pick(&[0, 0, 1_000_000, 100_000_000]),
        urgent: choice.pick(&[0, 0, 0, 3]),
        end: match choice.below(8) {
            5 => End::EofAfterPeer,
            6 => End::ResetAfter(choice.below(total + 1)),
            7 => End::ResetAt(choice.below(8_000_000)),
            _ => End::Eof,
        },
    }
}
