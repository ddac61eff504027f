//! Sends datagrams, one by one or in trains, at a rate or as fast as it goes.

use std::io::{self, IoSlice};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};

use crate::content::{self, SIZE_MAX, Sizes};
use crate::sockets::{Sources, is_passing};
use crate::{Ends, SizeWords};

/// Most that the kernel cuts one send into.
const SEGMENTS_MAX: usize = 64;

/// Shortest sleep: a source that turns around instead takes a core from what is measured.
const SLEEP: Duration = Duration::from_micros(50);

/// What is due for longer, because this process was not scheduled, is left out: it would come as
/// one burst.
const LATE_MAX: Duration = Duration::from_millis(5);

/// Datagrams between two looks at the clock, when nothing paces them.
const BETWEEN_LOOKS: u64 = 64;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    ends: Ends,
    #[command(flatten)]
    size: SizeWords,
    /// Datagrams per second, or "max".
    #[arg(long, default_value = "max")]
    rate: Rate,
    /// How long to send.
    #[arg(long, required_unless_present = "count")]
    secs: Option<f64>,
    /// How many to send.
    #[arg(long)]
    count: Option<u64>,
    /// Up to so many datagrams of one size in one send (UDP_SEGMENT).
    #[arg(long, default_value_t = 1)]
    segment: usize,
}

#[derive(Clone, Copy)]
struct Rate(Option<f64>);

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word.parse::<f64>() {
            _ if word == "max" => Ok(Rate(None)),
            Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(Rate(Some(rate))),
            _ => Err("a number above 0, or max"),
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<Value, String> {
    let sizes = options.size.sizes()?;
    if !(1..=SEGMENTS_MAX).contains(&options.segment) {
        return Err(format!("--segment {}: from 1 to {SEGMENTS_MAX}", options.segment));
    }
    let mut sources = Sources::new(options.ends, None)?;
    let count = options.count.unwrap_or(u64::MAX);
    let secs = options.secs.map_or(Duration::MAX, Duration::from_secs_f64);
    let mut train = vec![0; SIZE_MAX];
    let (mut number, mut refused, mut sends) = (0, 0, 0_u64);
    let began = Instant::now();
    let mut pace = Pace::new(options.rate, options.segment as u64, began);
    loop {
        let now = Instant::now();
        if number >= count || now - began >= secs {
            break;
        }
        let Some(due) = pace.due(now) else { continue };
        let end = count.min(number + due);
        let first = number;
        while number < end {
            let (datagrams, size) = load(sizes, number, options.segment, end, &mut train);
            let bytes = &train[..datagrams as usize * size];
            match send(sources.next()?, bytes, datagrams, size) {
                Ok(()) => {}
                Err(error) if is_passing(&error) => refused += datagrams,
                Err(error) => return Err(format!("cannot send {size} bytes: {error}")),
            }
            number += datagrams;
            sends += 1;
        }
        pace.sent += number - first;
    }
    let took = began.elapsed().as_secs_f64();
    Ok(json!({
        "sent": number,
        "refused": refused,
        "sends": sends,
        "secs": took,
        "per_sec": number as f64 / took,
    }))
}

/// How many datagrams are due.
struct Pace {
    rate: Rate,
    /// Datagrams that go together: none goes before all of them are due.
    train: u64,
    /// When the first was due, later by what was left out since.
    began: Instant,
    sent: u64,
}

impl Pace {
    fn new(rate: Rate, train: u64, began: Instant) -> Self {
        Pace { rate, train, began, sent: 0 }
    }

    /// How many are to be sent now; `None` after a sleep because there are none.
    fn due(&mut self, now: Instant) -> Option<u64> {
        let Some(rate) = self.rate.0 else {
            return Some(BETWEEN_LOOKS);
        };
        let last = self.sent + self.train - 1;
        let turn = Duration::from_secs_f64(last as f64 / rate);
        let elapsed = now - self.began;
        if elapsed < turn {
            thread::sleep((turn - elapsed).max(SLEEP));
            return None;
        }
        if elapsed > turn + LATE_MAX {
            self.began += elapsed - turn - LATE_MAX;
        }
        let late = (now - self.began - turn).as_secs_f64();
        Some(((late * rate) as u64 + self.train) / self.train * self.train)
    }
}

/// Fills `train` with the datagrams that go in one send: equal sizes, as many as are allowed before
/// `end`. How many, and their size.
fn load(sizes: Sizes, first: u64, most: usize, end: u64, train: &mut [u8]) -> (u64, usize) {
    let size = sizes.of(first);
    let most = most.min(SIZE_MAX.checked_div(size).unwrap_or(1)) as u64;
    let mut number = first;
    while number < end && number - first < most && sizes.of(number) == size {
        let at = (number - first) as usize * size;
        content::fill(number, &mut train[at..at + size]);
        number += 1;
    }
    (number - first, size)
}

fn send(socket: &UdpSocket, bytes: &[u8], datagrams: u64, size: usize) -> io::Result<()> {
    if datagrams == 1 {
        return socket.send(bytes).map(drop);
    }
    let size = size as u16;
    let control = [ControlMessage::UdpGsoSegments(&size)];
    let data = [IoSlice::new(bytes)];
    sendmsg::<()>(socket.as_raw_fd(), &data, &control, MsgFlags::empty(), None)?;
    Ok(())
}
