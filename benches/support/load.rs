//! The loads that every way carries, and their figures.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use sockmux_uring::demo::client::{Bulk, Latencies, RoundTrips, bulk, round_trips};
use sockmux_uring::demo::cpu::process_cpu_time;
use sockmux_uring::demo::pattern::Pattern;
use sockmux_uring::demo::server::PatternServer;
use sockmux_uring::demo::traffic::Direction;

use super::requests::{MESSAGE_BYTES, requests, start_echo_server};
use super::way::{Start, Way};

/// Connections that each have one request outstanding.
const REQUEST_CONNECTIONS: usize = 64;

/// Streams at once, where there are many.
const STREAMS: u32 = 16;

/// One kind of work.
#[derive(Clone, Copy)]
pub(crate) enum Load {
    /// As fast as it goes.
    Bulk { direction: Direction, streams: u32 },
    /// Small questions and answers on many connections.
    Requests,
    /// One small question after the other beside one bulk stream in the same tunnel.
    Keystroke { bulk: Direction },
}

/// All of it, in the order of the tables.
pub(crate) const LOADS: [Load; 7] = [
    Load::Bulk { direction: Direction::Up, streams: 1 },
    Load::Bulk { direction: Direction::Down, streams: 1 },
    Load::Bulk { direction: Direction::Up, streams: STREAMS },
    Load::Bulk { direction: Direction::Down, streams: STREAMS },
    Load::Requests,
    Load::Keystroke { bulk: Direction::Up },
    Load::Keystroke { bulk: Direction::Down },
];

/// The servers at the end of every way.
pub(crate) struct Servers {
    pattern: Arc<Pattern>,
    /// Bulk and, on connections of their own, single questions.
    bulk: PatternServer,
    /// Many questions at once.
    echo: SocketAddr,
}

/// A way to each server.
pub(crate) struct Ways {
    pub(crate) name: &'static str,
    bulk: Way,
    echo: Way,
}

/// Figures of one measurement, as [`Load::columns`] names them; NaN where there is none.
pub(crate) type Sample = Vec<f64>;

impl Servers {
    pub(crate) fn start() -> Result<Servers, Box<dyn Error>> {
        let pattern = Arc::new(Pattern::new());
        let bulk = PatternServer::start(Arc::clone(&pattern))?;
        Ok(Servers { pattern, bulk, echo: start_echo_server()? })
    }

    /// A way to each, begun by `start`.
    pub(crate) fn ways(&self, name: &'static str, start: Start) -> Result<Ways, Box<dyn Error>> {
        Ok(Ways { name, bulk: start(self.bulk.address())?, echo: start(self.echo)? })
    }
}

impl Load {
    pub(crate) fn title(self) -> String {
        match self {
            Load::Bulk { direction, streams: 1 } => format!("bulk {}, 1 stream", said(direction)),
            Load::Bulk { direction, streams } => {
                format!("bulk {}, {streams} streams", said(direction))
            }
            Load::Requests => format!("{REQUEST_CONNECTIONS} x {MESSAGE_BYTES} bytes each way"),
            Load::Keystroke { bulk } => format!("keystroke beside bulk {}", said(bulk)),
        }
    }

    /// The names of the figures. The first is the rate by which ways are compared.
    pub(crate) fn columns(self) -> &'static [&'static str] {
        match self {
            Load::Bulk { .. } => &["GiB/s", "relays s/GiB", "path s/GiB"],
            Load::Requests => &["k/s", "p50 us", "p99 us", "relays us/each", "path us/each"],
            Load::Keystroke { .. } => {
                &["k/s", "p50 us", "p99 us", "bulk GiB/s", "alone GiB/s", "kept"]
            }
        }
    }

    /// Gives it to a way for about `duration`, twice that where bulk is measured alone first.
    pub(crate) fn run(
        self,
        ways: &Ways,
        servers: &Servers,
        duration: Duration,
    ) -> Result<Sample, Box<dyn Error>> {
        match self {
            Load::Bulk { direction, streams } => {
                let cpu = Cpu::now(&ways.bulk)?;
                let moved = ways.bulk(servers, direction, streams, duration)?;
                let (relays, path) = cpu.since_per(moved.gib())?;
                Ok(vec![moved.gib_per_sec(), relays, path])
            }
            Load::Requests => {
                let cpu = Cpu::now(&ways.echo)?;
                let (times, elapsed) =
                    requests(ways.echo.address(), REQUEST_CONNECTIONS, duration)?;
                let (relays, path) = cpu.since_per(times.count() as f64 / 1e6)?;
                let [rate, p50, p99] = small(&times, elapsed);
                Ok(vec![rate, p50, p99, relays, path])
            }
            Load::Keystroke { bulk } => {
                let alone = ways.bulk(servers, bulk, 1, duration)?.gib_per_sec();
                let plan =
                    RoundTrips { message_bytes: MESSAGE_BYTES, pause: Duration::ZERO, duration };
                let (beside, times) = thread::scope(|scope| {
                    let beside =
                        scope.spawn(|| ways.bulk(servers, bulk, 1, duration).map_err(text));
                    let times = round_trips(ways.bulk.address(), plan);
                    (beside.join().expect("client thread"), times)
                });
                let beside = beside?.gib_per_sec();
                let [rate, p50, p99] = small(&times?, duration);
                Ok(vec![rate, p50, p99, beside, alone, beside / alone])
            }
        }
    }
}

impl Ways {
    fn bulk(
        &self,
        servers: &Servers,
        direction: Direction,
        streams: u32,
        duration: Duration,
    ) -> Result<Bulk, Box<dyn Error>> {
        let moved =
            bulk(self.bulk.address(), &servers.pattern, direction, streams, duration, false);
        // The client itself only sees its connection break.
        moved.map_err(|error| servers.bulk.take_failure().unwrap_or(error).into())
    }
}

/// Processor times when a measurement began.
struct Cpu<'a> {
    way: &'a Way,
    relays: Duration,
    process: Duration,
}

impl Cpu<'_> {
    fn now(way: &Way) -> Result<Cpu<'_>, Box<dyn Error>> {
        Ok(Cpu { way, relays: way.relay_cpu_time()?, process: process_cpu_time()? })
    }

    /// Seconds per unit since then: of the relays, and of the whole path, which is this process.
    fn since_per(&self, units: f64) -> Result<(f64, f64), Box<dyn Error>> {
        let process = process_cpu_time()? - self.process;
        // A kernel worker that ended meanwhile takes its time with it.
        let relays = self.way.relay_cpu_time()?.saturating_sub(self.relays);
        let relays = if self.way.is_direct() { f64::NAN } else { relays.as_secs_f64() / units };
        Ok((relays, process.as_secs_f64() / units))
    }
}

/// Thousands of answers a second, and the microseconds that half and 99 % of them took at most.
fn small(times: &Latencies, elapsed: Duration) -> [f64; 3] {
    let micros = |percent| times.percentile(percent).as_secs_f64() * 1e6;
    [times.count() as f64 / 1000.0 / elapsed.as_secs_f64(), micros(50.0), micros(99.0)]
}

fn said(direction: Direction) -> &'static str {
    match direction {
        Direction::Up => "up",
        Direction::Down => "down",
    }
}

/// An error that may leave its thread.
fn text(error: Box<dyn Error>) -> String {
    error.to_string()
}
