//! Two whole relays under virtual time.
//!
//! A [`Script`] says what clients and servers do, what breaks, and how unfriendly the kernel is; it
//! follows from a seed. [`world`] runs it: two workers, joined by a simulated link, and actors for
//! clients and servers, one after the other on one thread, each when something of it is due. After
//! each step the world checks what must always hold, at the end that nothing is left. A script that
//! fails is made as short as it can be.
//!
//! `SOCKMUX_SIM_SEEDS=100000 cargo test --release --lib simulation` runs so many seeds,
//! from `SOCKMUX_SIM_FIRST` on. `SOCKMUX_SIM_SEED=7` runs one. With `SOCKMUX_SIM_TRACE=1` the
//! shortest script that fails is run again, and everything that happens is printed.

mod actors;
mod build;
mod by_hand;
mod checks;
mod datagrams;
mod found;
mod script;
mod shorten;
mod sums;
mod timers;
#[path = "../../../tests/testkit/pure/tls_keys.rs"]
pub(super) mod tls_keys;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

pub(super) use self::build::encryption;
use self::script::Script;
use self::sums::Sums;
use crate::io::sim::Kernel;

/// Seeds of a usual run.
const SEEDS: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Runs a script; a panic is a finding, too.
fn findings_of(script: &Script) -> Result<Sums, String> {
    traced(script, false)
}

/// The same; what happens is printed if it is to.
fn traced(script: &Script, traces: bool) -> Result<Sums, String> {
    let result = catch_unwind(AssertUnwindSafe(|| world::run(script, traces)));
    Kernel::end();
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("of no text")))
    })
}

fn check(seed: u64) -> Result<Sums, String> {
    let script = Script::of(seed);
    findings_of(&script).map_err(|found| {
        let (shorter, found_then) = shorten::shorten(&script, &found);
        if std::env::var_os("SOCKMUX_SIM_TRACE").is_some() {
            let log =
                tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).without_time();
            let _ = tracing::subscriber::with_default(log.finish(), || traced(&shorter, true));
        }
        format!("seed {seed}: {found}\nthe shortest script: {found_then}\n{shorter:#?}")
    })
}

/// Runs seeds on two threads; panics with what the lowest that fails finds.
fn check_all(first: u64, count: u64) -> Sums {
    let (next, sums) = (AtomicU64::new(first), std::sync::Mutex::new(Sums::default()));
    let failures = std::sync::Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= first + count || !failures.lock().expect("no panic").is_empty() {
                        return;
                    }
                    match check(seed) {
                        Ok(of_run) => sums.lock().expect("no panic").add(&of_run),
                        Err(found) => failures.lock().expect("no panic").push(found),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    sums.into_inner().expect("no panic")
}

#[test]
fn simulation() {
    if let Some(seed) = number("SOCKMUX_SIM_SEED") {
        let sums = check(seed).unwrap_or_else(|found| panic!("{found}"));
        println!("{:#?}\n{sums:#?}", Script::of(seed));
        return;
    }
    let began = std::time::Instant::now();
    let count = number("SOCKMUX_SIM_SEEDS").unwrap_or(SEEDS);
    let sums = check_all(number("SOCKMUX_SIM_FIRST").unwrap_or(0), count);
    println!("{count} seeds in {:?}: {sums:?}", began.elapsed());
    // What is never met is not checked.
    assert!(sums.is_varied(), "{sums:?}");
}

/// The same seed does the same, or what it finds could not be found again.
#[test]
fn a_seed_does_the_same_each_time() {
    for seed in 0..20 {
        let script = Script::of(seed);
        assert_eq!(findings_of(&script), findings_of(&script), "seed {seed}");
    }
}
