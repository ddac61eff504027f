//! Bytes and requests through a tunnel of ours and through simpler relays, side by side in one
//! run: `cargo bench --bench throughput`.
//!
//! Every round measures every way once, so that a change of the machine's mood meets all of them;
//! ratios are taken within a round, and the table shows medians over the rounds. A shorter run:
//! `cargo bench --bench throughput -- --quick`.

mod support;

use std::env;
use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use sockmux_uring::demo::client::bulk;
use sockmux_uring::demo::cpu::process_cpu_time;
use sockmux_uring::demo::pattern::Pattern;
use sockmux_uring::demo::server::Server;
use sockmux_uring::demo::traffic::Direction;

use support::requests::{MESSAGE_BYTES, request_rate, start_echo_server};
use support::stats::median;
use support::way::{WAYS, Way};

/// Connections that each have one request outstanding.
const REQUEST_CONNECTIONS: usize = 16;

/// What is measured on each way.
const LOADS: [Load; 3] = [Load::Bulk { streams: 1 }, Load::Bulk { streams: 8 }, Load::Requests];

#[derive(Clone, Copy)]
enum Load {
    /// Client to server, as fast as it goes.
    Bulk { streams: u32 },
    /// Small questions and answers.
    Requests,
}

/// How long.
struct Length {
    rounds: usize,
    bulk: Duration,
    requests: Duration,
}

const FULL: Length =
    Length { rounds: 7, bulk: Duration::from_millis(700), requests: Duration::from_millis(500) };
const QUICK: Length =
    Length { rounds: 3, bulk: Duration::from_millis(250), requests: Duration::from_millis(200) };

/// A way to the bulk server and one to the echo server.
struct Ways {
    name: &'static str,
    bulk: Way,
    echo: Way,
}

/// One measurement: units are GiB, or thousands of requests.
#[derive(Clone, Copy)]
struct Sample {
    units_per_sec: f64,
    relay_secs_per_unit: f64,
    process_secs_per_unit: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    let said = |word: &str| words.iter().any(|one| one == word);
    // Without `--bench` it was `cargo test` that started this, to see that it works.
    let quick = said("--quick") || !said("--bench");
    let length = if quick { QUICK } else { FULL };

    let pattern = Arc::new(Pattern::new());
    let server = Server::start(Arc::clone(&pattern))?;
    let echo = start_echo_server()?;
    let ways = WAYS
        .iter()
        .map(|&(name, start)| ready(name, start, server.address(), echo))
        .collect::<Result<Vec<_>, _>>()?;

    let read = |path| fs::read_to_string(path).map_or("unknown".into(), |s| s.trim().to_owned());
    println!(
        "Linux {}, {} cores, congestion control {}; medians of {} interleaved rounds.",
        read("/proc/sys/kernel/osrelease"),
        thread::available_parallelism()?,
        read("/proc/sys/net/ipv4/tcp_congestion_control"),
        length.rounds,
    );
    for load in LOADS {
        let samples = measure(&ways, load, &length, &pattern)?;
        print_table(&ways, load, &samples);
    }
    Ok(())
}

fn ready(
    name: &'static str,
    start: support::way::Start,
    server: SocketAddr,
    echo: SocketAddr,
) -> Result<Ways, Box<dyn Error>> {
    let failed = |error| format!("{name} could not be started: {error}");
    Ok(Ways { name, bulk: start(server).map_err(failed)?, echo: start(echo).map_err(failed)? })
}

/// Samples of each way, by round.
fn measure(
    ways: &[Ways],
    load: Load,
    length: &Length,
    pattern: &Pattern,
) -> Result<Vec<Vec<Sample>>, Box<dyn Error>> {
    let mut samples = vec![Vec::new(); ways.len()];
    for _ in 0..length.rounds {
        for (ways, samples) in ways.iter().zip(&mut samples) {
            let sample = sample(ways, load, length, pattern);
            samples.push(sample.map_err(|error| format!("{}: {error}", ways.name))?);
        }
    }
    Ok(samples)
}

fn sample(
    ways: &Ways,
    load: Load,
    length: &Length,
    pattern: &Pattern,
) -> Result<Sample, Box<dyn Error>> {
    let way = match load {
        Load::Bulk { .. } => &ways.bulk,
        Load::Requests => &ways.echo,
    };
    let (process_before, relay_before) = (process_cpu_time()?, way.relay_cpu_time()?);
    let (units, elapsed) = match load {
        Load::Bulk { streams } => {
            let moved = bulk(way.address(), pattern, Direction::Up, streams, length.bulk, false)?;
            (moved.gib(), moved.elapsed)
        }
        Load::Requests => {
            let (answers, elapsed) =
                request_rate(way.address(), REQUEST_CONNECTIONS, length.requests)?;
            (answers as f64 / 1000.0, elapsed)
        }
    };
    let process = process_cpu_time()? - process_before;
    let relay = way.relay_cpu_time()? - relay_before;
    Ok(Sample {
        units_per_sec: units / elapsed.as_secs_f64(),
        relay_secs_per_unit: relay.as_secs_f64() / units,
        process_secs_per_unit: process.as_secs_f64() / units,
    })
}

fn print_table(ways: &[Ways], load: Load, samples: &[Vec<Sample>]) {
    // Seconds per thousand requests are milliseconds per request: shown as microseconds.
    let (title, rate, cpu, scale) = match load {
        Load::Bulk { streams: 1 } => ("bulk, 1 stream".into(), "GiB/s", "s/GiB", 1.0),
        Load::Bulk { streams } => (format!("bulk, {streams} streams"), "GiB/s", "s/GiB", 1.0),
        Load::Requests => (
            format!("{MESSAGE_BYTES} bytes each way, {REQUEST_CONNECTIONS} connections"),
            "k req/s",
            "us/req",
            1000.0,
        ),
    };
    let column =
        |way: &[Sample], get: fn(&Sample) -> f64| median(&way.iter().map(get).collect::<Vec<_>>());
    println!();
    println!(
        "{title:36}{rate:>10}{:>14}{:>20}{:>20}",
        "of direct",
        format!("relays CPU {cpu}"),
        format!("all CPU {cpu}")
    );
    for (ways, way) in ways.iter().zip(samples) {
        let ratios: Vec<f64> = way
            .iter()
            .zip(&samples[0])
            .map(|(sample, direct)| sample.units_per_sec / direct.units_per_sec)
            .collect();
        let relays = column(way, |sample| sample.relay_secs_per_unit) * scale;
        let relays = if relays == 0.0 { "-".into() } else { format!("{relays:.2}") };
        println!(
            "{:36}{:>10.2}{:>13.2}x{relays:>20}{:>20.2}",
            ways.name,
            column(way, |sample| sample.units_per_sec),
            median(&ratios),
            column(way, |sample| sample.process_secs_per_unit) * scale,
        );
    }
}
