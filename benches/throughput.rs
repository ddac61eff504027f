//! Bulk, requests and both beside each other through relays of ours and through simpler ones,
//! side by side in one run: `cargo bench --bench throughput`, about 3 minutes.
//!
//! Every round measures every way once, so that a change of the machine's mood meets all of them;
//! ratios are taken within a round, and the tables show medians over the rounds. Of the processor
//! times, `relays` are those of the relays with the kernel's workers for them, `path` is all:
//! client, relays and server. It is the one to judge by, because pages that a relay splices
//! instead of copying reach client and server cold.
//!
//! `-- --quick` is a look that takes 15 s. Other words choose the ways whose names contain one of
//! them, beside direct: `cargo bench --bench throughput -- forced plain`.

mod support;

use std::env;
use std::error::Error;
use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use support::load::{LOADS, Load, Servers, Ways};
use support::table::{self, Measured};
use support::way::WAYS;

/// How long.
struct Length {
    rounds: usize,
    load: Duration,
}

const FULL: Length = Length { rounds: 5, load: Duration::from_millis(500) };
const QUICK: Length = Length { rounds: 1, load: Duration::from_millis(150) };

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    let said = |word: &str| words.iter().any(|one| one == word);
    // Without `--bench` it was `cargo test` that started this, to see that it works.
    let quick = said("--quick") || !said("--bench");
    let length = if quick { QUICK } else { FULL };
    let wanted: Vec<&str> =
        words.iter().map(String::as_str).filter(|word| !word.starts_with("--")).collect();

    let servers = Servers::start()?;
    let (mut ways, mut left_out) = (Vec::new(), Vec::new());
    for (name, start) in WAYS {
        let asked = wanted.is_empty() || wanted.iter().any(|part| name.contains(part));
        // The others are compared with the first.
        if asked || name == WAYS[0].0 {
            match servers.ways(name, start) {
                Ok(started) => ways.push(started),
                Err(error) => left_out.push(format!("{name}: {error}")),
            }
        }
    }

    let read = |path| fs::read_to_string(path).map_or("unknown".into(), |s| s.trim().to_owned());
    println!(
        "Linux {}, {} cores, congestion control {}; medians of {} interleaved rounds.",
        read("/proc/sys/kernel/osrelease"),
        thread::available_parallelism()?,
        read("/proc/sys/net/ipv4/tcp_congestion_control"),
        length.rounds,
    );
    for load in LOADS {
        table::print(load, &measure(load, &ways, &servers, &length)?);
    }
    if !left_out.is_empty() {
        println!("\nNot measured, because they could not be started:\n{}", left_out.join("\n"));
    }
    Ok(if left_out.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Samples of each way, by round.
fn measure(
    load: Load,
    ways: &[Ways],
    servers: &Servers,
    length: &Length,
) -> Result<Vec<Measured>, Box<dyn Error>> {
    let mut measured: Vec<_> = ways.iter().map(|ways| (ways.name, Vec::new())).collect();
    for _ in 0..length.rounds {
        for (ways, (name, samples)) in ways.iter().zip(&mut measured) {
            let sample = load.run(ways, servers, length.load);
            let failed = |error| format!("{}, {name}: {error}", load.title());
            samples.push(sample.map_err(failed)?);
        }
    }
    Ok(measured)
}
