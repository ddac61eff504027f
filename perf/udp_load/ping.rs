//! Sends a datagram, waits until it is back, sends the next.

use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::Ends;
use crate::content::{self, NUMBER_BYTES, SIZE_MAX};
use crate::sockets::{Sources, is_passing};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    ends: Ends,
    /// Bytes of every datagram.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// How long to ping.
    #[arg(long, required_unless_present = "count")]
    secs: Option<f64>,
    /// How many to send.
    #[arg(long)]
    count: Option<u64>,
    /// What is not back after so long is lost.
    #[arg(long, default_value_t = 500)]
    lost_millis: u64,
}

pub(crate) fn run(options: &Options) -> Result<Value, String> {
    if !(NUMBER_BYTES..=SIZE_MAX).contains(&options.size) {
        return Err(format!("--size {}: from {NUMBER_BYTES} to {SIZE_MAX}", options.size));
    }
    let count = options.count.unwrap_or(u64::MAX);
    let secs = options.secs.map_or(Duration::MAX, Duration::from_secs_f64);
    let wait = Duration::from_millis(options.lost_millis.max(1));
    let mut sources = Sources::new(options.ends, Some(wait))?;
    let (mut ping, mut answer) = (vec![0; options.size], vec![0; SIZE_MAX]);
    let mut nanos = Vec::new();
    let (mut sent, mut wrong) = (0, 0_u64);
    let began = Instant::now();
    while sent < count && began.elapsed() < secs {
        let socket = sources.next()?;
        let failed = |error: io::Error| format!("to {}: {error}", options.ends.to);
        content::fill(sent, &mut ping);
        let start = Instant::now();
        match socket.send(&ping) {
            Err(error) if !is_passing(&error) => return Err(failed(error)),
            _ => {}
        }
        if await_answer(socket, &ping, &mut answer, start + wait, &mut wrong).map_err(failed)? {
            nanos.push(start.elapsed().as_nanos() as u64);
        }
        sent += 1;
    }
    let took = began.elapsed().as_secs_f64();
    nanos.sort_unstable();
    Ok(json!({
        "sent": sent,
        "answered": nanos.len(),
        "lost": sent - nanos.len() as u64,
        "wrong": wrong,
        "secs": took,
        "per_sec": nanos.len() as f64 / took,
        "p50_us": micros_at(&nanos, 0.5),
        "p99_us": micros_at(&nanos, 0.99),
        "max_us": micros_at(&nanos, 1.0),
    }))
}

/// Whether `ping` came back in time. Answers to earlier ones are passed over, and anything else is
/// counted.
fn await_answer(
    socket: &UdpSocket,
    ping: &[u8],
    answer: &mut [u8],
    deadline: Instant,
    wrong: &mut u64,
) -> io::Result<bool> {
    while Instant::now() < deadline {
        match socket.recv(answer) {
            Ok(size) if answer[..size] == *ping => return Ok(true),
            Ok(size) => {
                let answer = &answer[..size];
                let early = content::number(answer)
                    .is_some_and(|number| Some(number) < content::number(ping))
                    && content::number(answer).is_some_and(|number| content::fits(number, answer));
                *wrong += u64::from(!early);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

fn micros_at(sorted_nanos: &[u64], part: f64) -> Option<f64> {
    let last = sorted_nanos.len().checked_sub(1)?;
    Some(sorted_nanos[(last as f64 * part).round() as usize] as f64 / 1e3)
}
