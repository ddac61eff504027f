//! Two ends of a serial line under virtual time, and a line between them that damages bytes.
//!
//! After each step the bytes delivered at an end are a prefix of the bytes written at the other.

use std::collections::VecDeque;

use sockmux_uring::limits::{LINE_INBOX_BYTES, LINE_PAYLOAD_BYTES_MAX};
use sockmux_uring::serial_line::{LineChecks, LineConfig, LineError, LineProtocol};
use sockmux_uring::session::Moment;
use sockmux_uring::wire::v03::{Encoder, Offer};

use super::choice::Choice;

/// Time of the beginning, in microseconds.
pub(crate) const START_MICROS: u64 = 1_000_000;

/// How often a line damages a byte, per million.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    pub drop: u64,
    pub flip: u64,
    pub repeat: u64,
    pub insert: u64,
    pub pause: u64,
    /// Longest pause, in microseconds.
    pub pause_micros: u64,
}

/// A line and how its ends use it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// The rate that the ends assume.
    pub bytes_per_second: u32,
    /// The real rate.
    pub real_bytes_per_second: u64,
    pub latency_micros: u64,
    /// Longest delay of a read.
    pub read_late_micros: u64,
    /// The ends read their clocks at multiples of this only.
    pub tick_micros: u64,
    pub faults: Faults,
    /// Of each end.
    pub checks: [LineChecks; 2],
}

impl Setting {
    /// A line of 115,200 baud, 8N1, without faults.
    pub(crate) fn clean() -> Setting {
        Setting {
            bytes_per_second: 11_520,
            real_bytes_per_second: 11_520,
            latency_micros: 500,
            read_late_micros: 1_000,
            tick_micros: 1,
            faults: Faults::default(),
            checks: [LineChecks::WherePeerDoes; 2],
        }
    }
}

/// One direction of the line.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    /// Arrival of each byte, in nanoseconds, and its value on arrival.
    bytes: VecDeque<(u64, u8)>,
    /// When all accepted bytes will have been sent.
    pub free_nanos: u64,
    read_at: Option<u64>,
}

/// A small write, in addition to other traffic.
#[derive(Debug, Clone, Copy)]
struct Small {
    asked_at: u64,
    /// The position in the stream at which it ends; 0: not written yet.
    end: u64,
}

/// Length of a small write: a keystroke in a frame of SockMux 1.
pub(crate) const SMALL_BYTES: u64 = 13;

pub(crate) struct Side {
    pub line: Option<LineProtocol>,
    /// Number of this opening of the line.
    pub epoch: u64,
    pub starts_at: u64,
    hello: Vec<u8>,
    /// Bytes written of the present stream, the hello included.
    pub written: u64,
    pub bulk_left: u64,
    small: VecDeque<Small>,
    /// Time of each small write to the other end, in microseconds.
    pub small_micros: Vec<u64>,
    /// Bytes delivered of the peer's stream.
    pub delivered: u64,
    /// Number of the peer's opening that they belong to.
    peer_epoch: Option<u64>,
    pub ended: Vec<LineError>,
    /// Bytes are read from the line.
    pub reads: bool,
}

pub(crate) struct World {
    pub setting: Setting,
    pub now: u64,
    pub sides: [Side; 2],
    /// Towards side 0, and side 1.
    pub wires: [Wire; 2],
    input: Vec<u8>,
    output: Vec<u8>,
}

/// The hello of a side's opening.
fn hello(side: usize, epoch: u64) -> Vec<u8> {
    let offer = Offer {
        newest: 1,
        half_close: true,
        datagrams: true,
        checked_line: true,
        ports: true,
        entrances: true,
        window_bytes: 1 << 20,
        streams_max: 16_000,
    };
    let mut out = Vec::new();
    Encoder.hello(&mut out, &format!("20260101-000000.{epoch:06} side{side}"), Some(offer), None);
    out
}

/// A byte of a stream behind its hello.
fn pattern(side: usize, epoch: u64, at: u64) -> u8 {
    let mixed = (at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (side as u64 + 2 * epoch) << 56;
    (mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56) as u8
}

fn byte(hello: &[u8], side: usize, epoch: u64, at: u64) -> u8 {
    hello.get(at as usize).copied().unwrap_or_else(|| pattern(side, epoch, at))
}

impl World {
    /// Both ends are open from the beginning.
    pub(crate) fn new(setting: Setting) -> World {
        let side = |side| Side {
            line: None,
            epoch: 0,
            starts_at: START_MICROS,
            hello: hello(side, 0),
            written: 0,
            bulk_left: 0,
            small: VecDeque::new(),
            small_micros: Vec::new(),
            delivered: 0,
            peer_epoch: None,
            ended: Vec::new(),
            reads: true,
        };
        World {
            setting,
            now: START_MICROS,
            sides: [side(0), side(1)],
            wires: [Wire::default(), Wire::default()],
            input: Vec::new(),
            output: Vec::new(),
        }
    }

    /// Kills and restarts the process of a side.
    pub(crate) fn restart(&mut self, at: usize) {
        let side = &mut self.sides[at];
        side.epoch += 1;
        side.line = None;
        side.starts_at = self.now;
        side.hello = hello(at, side.epoch);
        (side.written, side.delivered, side.peer_epoch) = (0, 0, None);
        side.small.clear();
    }

    /// Schedules a small write of a side, not in the past.
    pub(crate) fn small_at(&mut self, side: usize, asked_at: u64) {
        self.sides[side].small.push_back(Small { asked_at, end: 0 });
    }

    /// Whether both are up and nothing is in flight.
    pub(crate) fn is_quiet(&self) -> bool {
        (0..2).all(|at| {
            let (side, peer) = (&self.sides[at], &self.sides[1 - at]);
            let line = side.line.as_ref().is_some_and(LineProtocol::is_up);
            let whole = peer.delivered == side.written && side.written >= side.hello.len() as u64;
            line && whole && side.bulk_left == 0 && side.small.is_empty()
        })
    }

    /// Runs until `until` (microseconds) or, if requested, until nothing is in flight.
    pub(crate) fn run(&mut self, choice: &mut impl Choice, until: u64, stop_when_quiet: bool) {
        while let Some(next) = self.next_event().filter(|next| *next <= until) {
            self.now = self.now.max(next.next_multiple_of(self.setting.tick_micros));
            self.step(choice);
            if stop_when_quiet && self.is_quiet() {
                return;
            }
        }
        self.now = self.now.max(until);
    }

    fn next_event(&self) -> Option<u64> {
        let sides = self.sides.iter().flat_map(|side| {
            let timeout = match &side.line {
                None => Some(side.starts_at),
                Some(line) => line.next_timeout().map(|at| at.0),
            };
            let small = side.small.iter().find(|small| small.end == 0 && small.asked_at > self.now);
            [timeout, small.map(|small| small.asked_at)]
        });
        sides.chain(self.wires.iter().map(|wire| wire.read_at)).flatten().min()
    }

    fn step(&mut self, choice: &mut impl Choice) {
        for at in 0..2 {
            let now = Moment(self.now);
            if self.sides[at].line.is_none() {
                if self.sides[at].starts_at > self.now {
                    // The device is not open: received bytes are lost.
                    self.read(at);
                    continue;
                }
                let config = LineConfig {
                    bytes_per_second: self.setting.bytes_per_second,
                    incarnation: (1 + at as u64 + 2 * self.sides[at].epoch) as u32,
                    checks: self.setting.checks[at],
                };
                self.sides[at].line = Some(LineProtocol::new(config, now));
            }
            let mut result = Ok(());
            if self.read(at) {
                let Some(line) = &mut self.sides[at].line else { continue };
                for piece in pieces(&self.input, choice) {
                    result = result.and_then(|()| line.received(piece, now));
                }
            }
            let Some(line) = &mut self.sides[at].line else { continue };
            if result.is_ok() && line.next_timeout().is_some_and(|due| due <= now) {
                result = line.on_time(now);
                assert!(line.next_timeout().is_none_or(|due| due > now), "time goes on");
            }
            self.deliver(at);
            if let Err(error) = result {
                self.sides[at].ended.push(error);
                self.restart(at);
                continue;
            }
            self.write(at, choice);
        }
    }

    /// Moves the bytes that have arrived at a side into `input`. Returns whether any were due.
    fn read(&mut self, at: usize) -> bool {
        let wire = &mut self.wires[at];
        if wire.read_at.is_none_or(|due| due > self.now) {
            return false;
        }
        self.input.clear();
        while let Some(&(arrives, byte)) = wire.bytes.front()
            && arrives <= self.now * 1_000
        {
            self.input.push(byte);
            wire.bytes.pop_front();
        }
        wire.read_at = wire.bytes.front().map(|(arrives, _)| arrives.div_ceil(1_000));
        true
    }

    fn deliver(&mut self, at: usize) {
        let (first, second) = self.sides.split_at_mut(1);
        let (side, peer) = match at {
            0 => (&mut first[0], &mut second[0]),
            _ => (&mut second[0], &mut first[0]),
        };
        let Some(line) = side.line.as_mut().filter(|_| side.reads) else { return };
        self.input.clear();
        line.read(&mut self.input);
        assert!(self.input.len() <= LINE_INBOX_BYTES + 64 * LINE_PAYLOAD_BYTES_MAX);
        if self.input.is_empty() {
            return;
        }
        let mut epoch = *side.peer_epoch.get_or_insert(peer.epoch);
        let mut hello = hello(1 - at, epoch);
        for &got in &self.input {
            let wanted = byte(&hello, 1 - at, epoch, side.delivered);
            // What it said before it began anew may come first. Its hello has the number of its opening.
            let so_far = side.delivered as usize;
            if got != wanted && so_far < hello.len() {
                let same =
                    |older: &Vec<u8>| older[..so_far] == hello[..so_far] && older[so_far] == got;
                let older = (0..epoch).rev().map(|older| (older, self::hello(1 - at, older)));
                if let Some(found) = older.into_iter().find(|(_, older)| same(older)) {
                    (epoch, hello) = found;
                    side.peer_epoch = Some(epoch);
                }
            }
            let wanted = byte(&hello, 1 - at, epoch, side.delivered);
            assert_eq!(got, wanted, "byte {} of opening {epoch} at side {at}", side.delivered);
            side.delivered += 1;
        }
        if side.peer_epoch == Some(peer.epoch) {
            assert!(side.delivered <= peer.written, "delivered before it was written");
            while let Some(&small) = peer.small.front()
                && (1..=side.delivered).contains(&small.end)
            {
                peer.small.pop_front();
                peer.small_micros.push(self.now - small.asked_at);
            }
        }
    }

    /// Writes data of a side as far as the line accepts it, small writes first, and passes the line's
    /// bytes to the device.
    fn write(&mut self, at: usize, choice: &mut impl Choice) {
        let now = Moment(self.now);
        loop {
            let side = &mut self.sides[at];
            let Some(line) = &mut side.line else { return };
            loop {
                let room = line.room_bytes(now) as u64;
                let is_due = |small: &&mut Small| small.end == 0 && small.asked_at <= now.0;
                let hello_left = (side.hello.len() as u64).saturating_sub(side.written);
                let mut small = side.small.iter_mut().find(is_due);
                let bytes = match &mut small {
                    _ if hello_left > 0 => hello_left.min(room),
                    Some(_) if room >= SMALL_BYTES => SMALL_BYTES,
                    // It waits for room, and is first then.
                    Some(_) => break,
                    None => side.bulk_left.min(room),
                };
                if bytes == 0 {
                    break;
                }
                let stream = side.written..side.written + bytes;
                self.input.clear();
                self.input.extend(stream.map(|n| byte(&side.hello, at, side.epoch, n)));
                assert_eq!(line.write(&self.input, now) as u64, bytes, "room is kept to");
                side.written += bytes;
                match small {
                    Some(small) if hello_left == 0 => small.end = side.written,
                    _ if hello_left == 0 => side.bulk_left -= bytes,
                    _ => {}
                }
            }
            self.output.clear();
            if !line.poll_output(&mut self.output, now) {
                return;
            }
            self.send(1 - at, choice);
        }
    }

    /// Puts `output` on the line towards a side.
    fn send(&mut self, to: usize, choice: &mut impl Choice) {
        let (setting, wire) = (self.setting, &mut self.wires[to]);
        let byte_nanos = 1_000_000_000 / setting.real_bytes_per_second;
        let faults = setting.faults;
        wire.free_nanos = wire.free_nanos.max(self.now * 1_000);
        for &byte in &self.output {
            wire.free_nanos += byte_nanos;
            if once_in_a_million(choice, faults.pause) {
                wire.free_nanos += choice.below(faults.pause_micros) * 1_000;
            }
            let arrives = wire.free_nanos + setting.latency_micros * 1_000;
            let is_flipped = once_in_a_million(choice, faults.flip);
            let byte = if is_flipped { byte ^ 1 << choice.below(8) } else { byte };
            if once_in_a_million(choice, faults.insert) {
                wire.bytes.push_back((arrives, choice.below(256) as u8));
            }
            if !once_in_a_million(choice, faults.drop) {
                wire.bytes.push_back((arrives, byte));
            }
            if once_in_a_million(choice, faults.repeat) {
                wire.bytes.push_back((arrives, byte));
            }
        }
        if wire.read_at.is_none()
            && let Some((arrives, _)) = wire.bytes.front()
        {
            let late = choice.below(setting.read_late_micros + 1);
            wire.read_at = Some(arrives.div_ceil(1_000) + late);
        }
    }
}

fn once_in_a_million(choice: &mut impl Choice, times: u64) -> bool {
    // Without faults no choice is consumed, so a clean line is fast. 0, the simplest choice, is no fault.
    times > 0 && choice.below(1_000_000) >= 1_000_000 - times
}

/// Splits bytes as reads of a device may.
fn pieces<'a>(bytes: &'a [u8], choice: &mut impl Choice) -> impl Iterator<Item = &'a [u8]> {
    let most = choice.pick(&[4_096, 1, 7, 64, 200]);
    bytes.chunks(most)
}
