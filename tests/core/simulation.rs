//! Two sessions joined by a scripted link under virtual time.
//!
//! Each run follows from its seed, which a failure prints. To have one again:
//! `SIM_SEED=1234 cargo test --test core simulation::`. To try more of them:
//! `SIM_RUNS=10000 cargo test --test core simulation::`.

use sockmux_uring::limits::{ORIGINAL_ID_MAX, ORIGINAL_STREAMS_MAX};
use sockmux_uring::session::{Moment, SessionConfig};
use sockmux_uring::wire::v03::Offer;

use crate::testkit::pure::script::{End, Exit, Pattern, Plan, Script};
use crate::testkit::pure::seeded::Seeded;
use crate::testkit::pure::world::{World, random_run};

/// Runs by default: quick enough for every `cargo test`.
const RUNS: u64 = 200;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn every_byte_arrives_once_and_in_order() {
    let pattern = Pattern::new();
    let one = number("SIM_SEED");
    let first = one.unwrap_or(1);
    let runs = if one.is_some() { 1 } else { number("SIM_RUNS").unwrap_or(RUNS) };
    let (mut bytes, mut streams, mut refused, mut reset, mut cuts) = (0, 0, 0, 0, 0);
    let (mut datagrams, mut dropped) = (0, 0);
    let (mut late, mut given_up, mut grown, mut half_closed) = (0, 0, 0, 0);
    for seed in first..first + runs {
        let run = std::panic::AssertUnwindSafe(|| random_run(&mut Seeded(seed), &pattern, true));
        match std::panic::catch_unwind(run) {
            Ok(summary) => {
                bytes += summary.payload_bytes;
                streams += summary.streams;
                refused += summary.refused;
                reset += summary.reset;
                cuts += usize::from(summary.was_cut);
                datagrams += summary.datagrams;
                dropped += summary.datagrams_dropped;
                late += summary.late_frames;
                given_up += summary.given_up;
                half_closed += summary.reset_half_closed;
                grown += usize::from(summary.extra_window_bytes > 0);
            }
            Err(panic) => {
                eprintln!("SIM_SEED={seed} cargo test --test core simulation::  # runs this again");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!(
        "{runs} runs, {streams} streams, {bytes} bytes; {refused} refused, {reset} reset, {half_closed} of them half-closed, {cuts} cuts; {late} late frames, {given_up} not begun, windows grew in {grown}; {datagrams} datagrams, {dropped} dropped"
    );
    assert!(
        one.is_some()
            || (bytes > 0
                && refused > 0
                && reset > 0
                && cuts > 0
                && half_closed > 0
                && late > 0
                && given_up > 0
                && datagrams > 0
                && dropped > 0
                && grown > 0)
    );
}

/// One of ours that offers this protocol as its newest; 0 is 0.3.
fn ours(newest: u8) -> SessionConfig {
    let config = SessionConfig::default();
    SessionConfig { offer: config.offer.map(|offer| Offer { newest, ..offer }), ..config }
}

/// A client that sends little and a server that answers as much, both at once.
fn short(seed: u64, end: End) -> Script {
    let (chunk, gulp) = (1_000, 1_000);
    Script {
        seed,
        total: 3_000,
        chunk,
        chunk_gap: 100,
        gulp,
        gulp_gap: 100,
        stall: 0,
        urgent: 0,
        end,
    }
}

fn crowd(streams: u64, opener: fn(u64) -> usize, ends: [End; 2]) -> Vec<Plan> {
    let plan = |n| Plan {
        opener: opener(n),
        open_at: Moment(100_000 + n * 50),
        exit: Exit::Accept { after: 10 },
        datagrams: false,
        scripts: [short(n, ends[0]), short(n + 77, ends[1])],
    };
    (0..streams).map(plan).collect()
}

#[test]
fn an_original_peer_never_sees_more_streams_or_larger_ids_than_it_bears() {
    let pattern = Pattern::new();
    for seed in 1..4 {
        for opener in [0, 1] {
            let mut choice = Seeded(seed);
            let original = SessionConfig { offer: None, ..SessionConfig::default() };
            let configs = [SessionConfig::default(), original];
            // All from one side, so that its own limit is the only one.
            let ends = [End::Eof, End::EofAfterPeer];
            let plans = crowd(400, if opener == 0 { |_| 0 } else { |_| 1 }, ends);
            let summary = World::new(&mut choice, &pattern, configs, plans, None).run();
            assert_eq!(summary.streams, 400);
            assert_eq!(summary.payload_bytes, 400 * 6_000);
            assert_eq!(summary.most_streams, ORIGINAL_STREAMS_MAX as usize, "SIM_SEED={seed}");
            assert!(summary.largest_id <= ORIGINAL_ID_MAX, "SIM_SEED={seed}");
        }
    }
}

#[test]
fn two_of_ours_carry_a_thousand_streams_from_both_ends() {
    let pattern = Pattern::new();
    for newest in [0, 1] {
        let configs = [ours(newest), ours(newest)];
        let plans = crowd(1_000, |n| (n % 2) as usize, [End::EofAfterPeer, End::Eof]);
        let summary = World::new(&mut Seeded(1), &pattern, configs, plans, None).run();
        assert_eq!(summary.payload_bytes, 1_000 * 6_000);
        assert_eq!(summary.streams, 1_000);
        assert_eq!(summary.refused, 0);
        assert!(newest == 1 || summary.largest_id > ORIGINAL_ID_MAX);
    }
}

/// Slots of numbers are reused at once when streams are reset as fast as they begin; frames in flight for
/// the one before are for no stream.
#[test]
fn a_number_that_is_used_again_is_never_taken_for_the_one_before() {
    let pattern = Pattern::new();
    let mut late_frames = 0;
    for seed in 1..6 {
        let plans = crowd(600, |n| (n % 2) as usize, [End::ResetAt(3_000), End::Eof]);
        let configs = [ours(1), ours(1)];
        let summary = World::new(&mut Seeded(seed), &pattern, configs, plans, None).run();
        assert_eq!(summary.streams, 600);
        assert!(summary.reset > 0, "SIM_SEED={seed}");
        late_frames += summary.late_frames;
    }
    assert!(late_frames > 600, "only {late_frames} frames came for streams that had ended");
}

/// Streams that there are go on to their end; those that begin later are refused, or not begun
/// once the word has come.
#[test]
fn a_side_that_goes_away_finishes_what_it_has() {
    let pattern = Pattern::new();
    for seed in 1..6 {
        let plans = crowd(200, |n| (n % 4 == 3) as usize, [End::EofAfterPeer, End::Eof]);
        let spread = |(n, plan)| Plan { open_at: Moment(n as u64 * 30_000), ..plan };
        let plans: Vec<Plan> = plans.into_iter().enumerate().map(spread).collect();
        let mut choice = Seeded(seed);
        let mut world = World::new(&mut choice, &pattern, [ours(1), ours(1)], plans, None);
        world.leave(1, Moment(4_500_000));
        let summary = world.run();
        // Three of four streams are the other side's, and a quarter of the time is left.
        assert!((10..150).contains(&summary.given_up), "SIM_SEED={seed}: {summary:?}");
        // Every accepted stream has carried all of its data; a refused one, its first bytes.
        let whole = 200 - summary.given_up - summary.refused;
        let bytes = summary.payload_bytes;
        assert!(whole >= 60 && bytes >= whole as u64 * 6_000, "SIM_SEED={seed}: {summary:?}");
    }
}
