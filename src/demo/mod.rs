//! `sockmux-uring demo`: a whole tunnel in one process, with traffic through it that is checked
//! byte by byte.
//!
//! It starts a server, an exit relay and an entrance relay on threads of their own, all on
//! ephemeral ports of 127.0.0.1, and needs no privilege and no argument. The same parts, without
//! the checking, drive the throughput bench.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use thiserror::Error;

pub mod client;
pub mod cpu;
pub mod pattern;
mod progress;
pub mod relays;
mod report;
pub mod server;
pub mod traffic;

use client::{RoundTrips, bulk, round_trips};
use pattern::{Difference, Pattern};
use progress::Progress;
use relays::Tunnel;
use report::{BulkRow, LatencyRow, Report};
use server::PatternServer;
use traffic::Direction;

use crate::cli::invocation::Engine;
use crate::limits::DEMO_STALL_SECS;

/// How long each phase lasts.
#[derive(Debug, Clone, Copy)]
struct Lengths {
    bulk: Duration,
    round_trips: Duration,
}

/// Six bulk phases and two of round trips stay under eight seconds.
const LENGTHS: Lengths =
    Lengths { bulk: Duration::from_millis(800), round_trips: Duration::from_millis(600) };
/// Pause between keystrokes: faster than anyone types, slow enough to find the queue as it is.
const KEYSTROKE_PAUSE: Duration = Duration::from_millis(2);
/// A request and its answer.
const MESSAGE_BYTES: usize = 64;

/// The way that a phase's traffic takes.
const THROUGH: &str = "tunnel";

/// Bulk phases through the tunnel: name, direction, streams.
const BULK_PHASES: [(&str, Direction, u32); 4] = [
    ("up, 1 stream", Direction::Up, 1),
    ("up, 8 streams", Direction::Up, 8),
    ("down, 1 stream", Direction::Down, 1),
    ("down, 8 streams", Direction::Down, 8),
];

/// Why a demo ended without a result.
#[derive(Debug, Error)]
pub enum DemoError {
    /// An operation of client or server failed.
    #[error("cannot {doing}: {source}")]
    Io {
        /// The failed operation.
        doing: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A byte arrived that was not sent there.
    #[error(
        "stream {stream} was damaged: byte {} is {:#04x}, {:#04x} was sent",
        difference.position, difference.found, difference.expected
    )]
    Differs {
        /// The stream's number.
        stream: u32,
        /// The first wrong byte.
        difference: Difference,
    },
    /// A chunk arrived with the wrong place or length in its header.
    #[error("stream {stream} was damaged: a chunk for byte {found} arrived at byte {expected}")]
    Misplaced {
        /// The stream's number.
        stream: u32,
        /// Bytes received before it.
        expected: u64,
        /// Place in the chunk's header.
        found: u64,
    },
    /// All bytes compared equal, and their checksum does not.
    #[error(
        "stream {stream} was damaged: CRC-32 of {bytes} bytes is {found:08x}, {sent:08x} was sent"
    )]
    Checksum {
        /// The stream's number.
        stream: u32,
        /// Bytes received.
        bytes: u64,
        /// The sender's.
        sent: u32,
        /// The receiver's.
        found: u32,
    },
    /// The server took another number of bytes than were sent.
    #[error("stream {stream} was damaged: {sent} bytes were sent, {received} arrived")]
    Count {
        /// The stream's number.
        stream: u32,
        /// Bytes that the client wrote.
        sent: u64,
        /// Bytes that the server counted.
        received: u64,
    },
    /// An answer was not its question.
    #[error("message {number} came back damaged")]
    Echo {
        /// Which, from 0.
        number: u64,
    },
    /// A relay could not be set up or ended with an error.
    #[error("{0}")]
    Relay(String),
}

impl DemoError {
    fn io(doing: impl Into<String>, source: io::Error) -> Self {
        let source = match source.kind() {
            // The system reports a timeout as "resource temporarily unavailable".
            io::ErrorKind::WouldBlock => io::Error::new(
                io::ErrorKind::TimedOut,
                format!("nothing moved for {DEMO_STALL_SECS} s"),
            ),
            _ => source,
        };
        DemoError::Io { doing: doing.into(), source }
    }

    /// How much it explains, most first: damage is the finding itself, a relay's end explains
    /// broken connections, and those explain nothing.
    fn rank(&self) -> u8 {
        match self {
            DemoError::Relay(_) => 1,
            DemoError::Io { .. } => 2,
            _ => 0,
        }
    }
}

/// Runs the demo and writes its table to `out`; progress goes to standard error.
///
/// # Errors
/// A relay or the server could not be started, a connection failed or stalled, or a received byte
/// differs from the one sent. Nothing has been written to `out` then.
pub fn run(engine: Engine, out: &mut dyn Write) -> Result<(), DemoError> {
    run_for(LENGTHS, engine, out)
}

fn run_for(lengths: Lengths, engine: Engine, out: &mut dyn Write) -> Result<(), DemoError> {
    let pattern = Arc::new(Pattern::new());
    let server = PatternServer::start(Arc::clone(&pattern))?;
    let tunnel = Tunnel::start(server.address(), engine)?;
    let measured = measure(&pattern, &server, &tunnel, lengths);
    let stopped = tunnel.stop();
    let report = match (measured, stopped) {
        (Ok(report), Ok(())) => report,
        (measured, stopped) => {
            let all = [measured.err(), stopped.err(), server.take_failure()];
            let most = all.into_iter().flatten().min_by_key(DemoError::rank);
            return Err(most.expect("one of the two was an error"));
        }
    };
    report.write(out).map_err(|source| DemoError::io("write the result", source))
}

fn measure(
    pattern: &Pattern,
    server: &PatternServer,
    tunnel: &Tunnel,
    lengths: Lengths,
) -> Result<Report, DemoError> {
    let mut report = Report::default();
    let mut progress = Progress::new(BULK_PHASES.len() + 4);
    let process_cpu =
        || cpu::process_cpu_time().map_err(|source| DemoError::io("read processor times", source));

    progress.phase("bulk, direct");
    let before = process_cpu()?;
    let moved = bulk(server.address(), pattern, Direction::Up, 1, lengths.bulk, true)?;
    let process = process_cpu()? - before;
    report.bulk.push(BulkRow { name: "direct, 1 stream".into(), moved, relays: None, process });

    for (name, direction, streams) in BULK_PHASES {
        progress.phase(&format!("bulk, {THROUGH}, {name}"));
        let (before, relays_before) = (process_cpu()?, tunnel.cpu_time()?);
        let moved = bulk(tunnel.entrance(), pattern, direction, streams, lengths.bulk, true)?;
        let (process, relays) = (process_cpu()? - before, tunnel.cpu_time()? - relays_before);
        let name = format!("{THROUGH}, {name}");
        report.bulk.push(BulkRow { name, moved, relays: Some(relays), process });
    }

    let closed_loop = RoundTrips {
        message_bytes: MESSAGE_BYTES,
        pause: Duration::ZERO,
        duration: lengths.round_trips,
    };
    for (way, address) in [("direct", server.address()), (THROUGH, tunnel.entrance())] {
        progress.phase(&format!("round trips, {way}"));
        let times = round_trips(address, closed_loop)?;
        report.latency.push(LatencyRow { name: format!("{way}, 64 bytes"), times });
    }

    progress.phase("keystrokes beside bulk");
    let keystrokes = RoundTrips { pause: KEYSTROKE_PAUSE, ..closed_loop };
    let (beside, times) = thread::scope(|scope| {
        let beside = scope
            .spawn(|| bulk(tunnel.entrance(), pattern, Direction::Down, 1, lengths.bulk, true));
        let times = round_trips(tunnel.entrance(), keystrokes);
        (beside.join().expect("client thread"), times)
    });
    report.beside = Some(beside?);
    report.latency.push(LatencyRow { name: format!("{THROUGH}, beside bulk"), times: times? });
    Ok(report)
}

#[cfg(test)]
mod tests;
