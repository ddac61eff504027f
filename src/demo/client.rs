//! The clients before the entrance: bulk streams and request/response, timed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::DemoError;
use super::pattern::Pattern;
use super::traffic::{Direction, Request, prepare, receive_bulk, send_bulk};
use crate::limits::{DEMO_MESSAGE_BYTES, DEMO_STALL_SECS};

/// Result of a run of bulk streams.
#[derive(Debug, Clone, Copy)]
pub struct Bulk {
    /// Payload of all streams together.
    pub bytes: u64,
    /// From the first byte of the first stream to the last byte of the last, arrived.
    pub elapsed: Duration,
}

impl Bulk {
    /// GiB.
    #[must_use]
    pub fn gib(&self) -> f64 {
        self.bytes as f64 / f64::from(1 << 30)
    }

    /// GiB a second.
    #[must_use]
    pub fn gib_per_sec(&self) -> f64 {
        self.gib() / self.elapsed.as_secs_f64()
    }
}

/// Moves bulk data over `streams` connections at once for about `duration`. With `verify` every
/// byte is checked where it arrives, else only counted.
///
/// # Errors
/// A connection failed or stalled, or the received bytes are not those sent.
pub fn bulk(
    server: SocketAddr,
    pattern: &Pattern,
    direction: Direction,
    streams: u32,
    duration: Duration,
    verify: bool,
) -> Result<Bulk, DemoError> {
    let sockets = (0..streams).map(|_| connect(server)).collect::<Result<Vec<_>, _>>()?;
    let one = |socket: &TcpStream, stream: u32| -> Result<(Instant, u64, Instant), DemoError> {
        let begin = Instant::now();
        let bytes = match direction {
            Direction::Up => up(socket, pattern, stream, duration, verify)?,
            Direction::Down => {
                Request::Down { stream, duration }
                    .write(socket)
                    .map_err(|source| DemoError::io("send a request", source))?;
                receive_bulk(socket, pattern, stream, verify)?
            }
        };
        Ok((begin, bytes, Instant::now()))
    };
    let results = thread::scope(|scope| {
        let one = &one;
        let threads: Vec<_> = sockets
            .iter()
            .zip(0..)
            .map(|(socket, stream)| scope.spawn(move || one(socket, stream)))
            .collect();
        // A client that panicked is a bug of ours, not a result.
        threads
            .into_iter()
            .map(|thread| thread.join().expect("client thread"))
            .collect::<Result<Vec<_>, _>>()
    })?;
    let begin = results.iter().map(|result| result.0).min();
    let end = results.iter().map(|result| result.2).max();
    let elapsed = begin.zip(end).map_or(Duration::ZERO, |(begin, end)| end - begin);
    Ok(Bulk { bytes: results.iter().map(|result| result.1).sum(), elapsed })
}

fn up(
    mut socket: &TcpStream,
    pattern: &Pattern,
    stream: u32,
    duration: Duration,
    verify: bool,
) -> Result<u64, DemoError> {
    let failed = |source| DemoError::io(format!("send data of stream {stream}"), source);
    Request::Up { stream, verify }.write(socket).map_err(failed)?;
    let sent = send_bulk(socket, pattern, stream, duration).map_err(failed)?;
    let mut received = [0; 8];
    socket
        .read_exact(&mut received)
        .map_err(|source| DemoError::io(format!("await the end of stream {stream}"), source))?;
    let received = u64::from_be_bytes(received);
    if received == sent { Ok(sent) } else { Err(DemoError::Count { stream, sent, received }) }
}

/// How to ask and await answers on one connection.
#[derive(Debug, Clone, Copy)]
pub struct RoundTrips {
    /// Size of a message, the same both ways; 8 bytes to [`DEMO_MESSAGE_BYTES`].
    pub message_bytes: usize,
    /// Wait between an answer and the next question; zero is a closed loop.
    pub pause: Duration,
    /// How long in all.
    pub duration: Duration,
}

/// Round-trip times, sorted.
#[derive(Debug, Clone, Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// How many round trips there were.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that `percent` (0 to 100) of the round trips stayed within; zero if there were
    /// none.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Duration {
        // Nearest rank: the smallest time that at least `percent` of all do not exceed.
        let rank = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }
}

impl FromIterator<Duration> for Latencies {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        let mut times: Vec<_> = times.into_iter().collect();
        times.sort_unstable();
        Latencies(times)
    }
}

/// Sends messages one at a time, each unlike the last, and awaits each one's echo.
///
/// # Errors
/// The connection failed or stalled, or an answer is not its question.
pub fn round_trips(server: SocketAddr, plan: RoundTrips) -> Result<Latencies, DemoError> {
    let mut socket = connect(server)?;
    let failed = |source| DemoError::io("exchange messages", source);
    Request::Echo.write(&socket).map_err(failed)?;
    let mut question = vec![0x5a; plan.message_bytes.clamp(8, DEMO_MESSAGE_BYTES)];
    let mut answer = vec![0; question.len()];
    let mut times = Vec::new();
    let deadline = Instant::now() + plan.duration;
    while Instant::now() < deadline {
        let number = times.len() as u64;
        question[..8].copy_from_slice(&number.to_be_bytes());
        let asked = Instant::now();
        socket.write_all(&question).map_err(failed)?;
        socket.read_exact(&mut answer).map_err(failed)?;
        times.push(asked.elapsed());
        if answer != question {
            return Err(DemoError::Echo { number });
        }
        if !plan.pause.is_zero() {
            thread::sleep(plan.pause);
        }
    }
    Ok(times.into_iter().collect())
}

fn connect(server: SocketAddr) -> Result<TcpStream, DemoError> {
    TcpStream::connect_timeout(&server, Duration::from_secs(DEMO_STALL_SECS))
        .and_then(|socket| prepare(&socket).map(|()| socket))
        .map_err(|source| DemoError::io(format!("connect to {server}"), source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let times: Latencies = (1..=100).rev().map(Duration::from_micros).collect();
        assert_eq!(times.percentile(50.0), Duration::from_micros(50));
        assert_eq!(times.percentile(99.0), Duration::from_micros(99));
        assert_eq!(times.percentile(100.0), Duration::from_micros(100));
        assert_eq!(times.percentile(0.0), Duration::from_micros(1));
        assert_eq!(Latencies::default().percentile(50.0), Duration::ZERO);
    }
}
