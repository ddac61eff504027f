//! Moves the bytes of a plain relay. A direction is read only when everything read before is
//! written, and in the way that is cheapest for its traffic, see [`Mode`]. This is its
//! backpressure.
//!
//! Copied data is received into a driver buffer and sent from there without waiting. What the
//! socket does not accept is copied into the pool, so that a slow reader never holds the driver's
//! buffers, which all share. Spliced data never enters the process.

use std::io;
use std::os::fd::OwnedFd;

use tracing::{trace, warn};

use super::Relay;
use crate::io::chunk::Chunk;
use crate::io::driver::{BufferClass, Driver, Gather, RecvMode, SendWait};
use crate::io::net;
use crate::io::pipe::Pipe;
use crate::limits::{PIPE_BYTES, SPLICE_TURN_BYTES};
use crate::worker::context::Cx;
use crate::worker::context::log_limit::Class;
use crate::worker::context::waiters::Waiter;
use crate::worker::relay::pair::{Input, Mode, Output};
use crate::worker::table::Key;
use crate::worker::way::Way;

impl Relay {
    /// Takes the next step of a direction, unless an operation in flight will.
    pub(super) fn advance_half<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, way: Way) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let client = pair.peer;
        let is_of_broken = pair.broken.as_ref().is_some_and(|side| side.way == way);
        let is_sent_to = pair
            .half(way.other())
            .is_some_and(|(back, ..)| matches!(back.output, Output::Sending { .. }));
        let Some((half, from, to)) = pair.half(way) else { return };
        if half.output != Output::Idle {
            // The next message may arrive as soon as this one is sent.
            if half.is_blocked() && (half.input, half.mode) == (Input::Idle, Mode::Sparse) {
                self.watch_half(cx, key, way);
            }
            return;
        }
        match (half.input, half.mode) {
            _ if half.pipe.is_some() => self.splice_half(cx, key, way),
            (Input::Ended, _) if is_of_broken => self.broken_side_ended(cx, key, way),
            // The send in flight may have met a reset, and will report it.
            (Input::Ended, _) if is_sent_to && net::is_hung_up(from) => {}
            (Input::Ended, _) => {
                trace!(pair = key.number(), %client, way = way.name(), "end of data passed on");
                net::shut_down_write(to);
                half.output = Output::Shut;
                pair.entry.data_ended(matches!(way, Way::Up));
                if pair.is_over() {
                    self.end_pair(cx, key);
                }
            }
            (Input::Idle, Mode::Sparse) => self.watch_half(cx, key, way),
            (Input::Ready, Mode::Sparse) => self.receive_half(cx, key, way, BufferClass::Small),
            (Input::Idle | Input::Ready, Mode::Bulk) => {
                self.receive_half(cx, key, way, BufferClass::Bulk);
            }
            (Input::Idle | Input::Ready, Mode::Spliced) => self.splice_half(cx, key, way),
            (Input::Watched | Input::Receiving(_) | Input::Starved, _) => {}
        }
    }

    /// Polls the source of a direction.
    fn watch_half<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, way: Way) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let Some((half, from, _)) = pair.half(way) else { return };
        let events = (libc::POLLIN | libc::POLLPRI) as u32;
        cx.driver.poll(from, events, false, way.kinds().ready.of(key));
        half.input = Input::Watched;
    }

    /// A polled source is readable: forwards urgent data at once.
    pub(super) fn half_ready<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        way: Way,
        events: io::Result<u32>,
    ) {
        let Some((half, from, to)) = self.pairs.get_mut(key).and_then(|pair| pair.half(way)) else {
            cx.counters.stale += 1;
            return;
        };
        // A failed poll tells nothing about the socket; receiving does.
        let events = events.unwrap_or(libc::POLLERR as u32);
        let urgent = libc::POLLPRI as u32;
        if events & urgent != 0
            && let Some(byte) = net::take_urgent(from)
            && half.output != Output::Broken
            && let Err(error) = net::send_urgent(to, byte)
        {
            self.side_takes_no_more(cx, key, way.other(), Some(&error));
        }
        let Some((half, ..)) = self.pairs.get_mut(key).and_then(|pair| pair.half(way)) else {
            return;
        };
        half.input = if events & !urgent != 0 { Input::Ready } else { Input::Idle };
        if half.input == Input::Ready && half.is_blocked() {
            self.guard_half(cx, key, way);
        }
        self.advance_half(cx, key, way);
    }

    /// A blocked direction is not read and so would not notice an error of its source: polls for
    /// errors, once.
    fn guard_half<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, way: Way) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let Some((half, from, _)) = pair.half(way) else { return };
        if !std::mem::replace(&mut half.guarded, true) {
            // Errors and hang-ups are reported without being requested.
            cx.driver.poll(from, 0, false, way.kinds().broken.of(key));
        }
    }

    pub(super) fn half_broken<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        way: Way,
        events: io::Result<u32>,
    ) {
        let Some((half, ..)) = self.pairs.get_mut(key).and_then(|pair| pair.half(way)) else {
            cx.counters.stale += 1;
            return;
        };
        half.guarded = false;
        // A direction that is not blocked meets the error by reading, after the data before it. A
        // hang-up without an error is an orderly end.
        if half.is_blocked() && events.is_ok_and(|events| events & libc::POLLERR as u32 != 0) {
            self.side_takes_no_more(cx, key, way, None);
        }
    }

    /// Receives available data.
    fn receive_half<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, way: Way, class: BufferClass) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let Some((half, from, _)) = pair.half(way) else { return };
        half.input = Input::Receiving(class);
        cx.driver.recv(from, RecvMode::Now, class, way.kinds().receive.of(key));
    }

    pub(super) fn half_received<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        way: Way,
        got: io::Result<Option<Chunk>>,
    ) {
        let now = cx.now;
        let bulk = cx.plan.soxconf.bulk;
        let Some(pair) = self.pairs.get_mut(key) else {
            cx.counters.stale += 1;
            return;
        };
        let Some((half, _, to)) = pair.half(way) else { return };
        let input = std::mem::replace(&mut half.input, Input::Idle);
        match got {
            // The sink accepts nothing.
            Ok(Some(_)) if half.output == Output::Broken => {}
            Ok(Some(chunk)) => {
                let bytes = chunk.len();
                half.received(bytes, bulk);
                cx.counters.relayed(way, bytes);
                let mut gather = cx.buffers.take_gather();
                gather.push(chunk);
                half.output = Output::Sending { stalled: false };
                cx.driver.send(to, gather, SendWait::No, way.kinds().send.of(key));
                let is_sparse = half.mode == Mode::Sparse;
                pair.last_data = now;
                pair.moved(way, bytes);
                if !is_sparse {
                    self.guard_half(cx, key, way);
                }
                self.advance_half(cx, key, way);
            }
            Ok(None) => {
                half.input = Input::Ended;
                self.advance_half(cx, key, way);
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN) => self.watch_half(cx, key, way),
                Some(libc::ENOBUFS) => {
                    if let Input::Receiving(class) = input {
                        half.input = Input::Starved;
                        cx.waiters.push(class, Waiter::Half(key, way));
                    }
                }
                _ => self.side_is_empty(cx, key, way),
            },
        }
    }

    /// Retries a direction that waited for a buffer.
    pub(in crate::worker) fn resume_half<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, way: Way) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let Some((half, ..)) = pair.half(way) else { return };
        if half.input == Input::Starved {
            half.input = Input::Ready;
            self.advance_half(cx, key, way);
        }
    }

    pub(super) fn half_sent<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        way: Way,
        result: io::Result<usize>,
        mut gather: Box<Gather>,
    ) {
        let now = cx.now;
        let Some(pair) = self.pairs.get_mut(key) else {
            cx.buffers.give_back(gather);
            cx.counters.stale += 1;
            return;
        };
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => 0,
            Err(error) => {
                cx.buffers.give_back(gather);
                return self.side_takes_no_more(cx, key, way.other(), Some(&error));
            }
        };
        gather.advance(bytes);
        if pair.half(way).is_none_or(|(half, ..)| half.output == Output::Broken) {
            return cx.buffers.give_back(gather);
        }
        if bytes > 0 {
            pair.last_data = now;
        }
        let Some((half, _, to)) = pair.half(way) else { return };
        if gather.is_empty() {
            cx.buffers.give_back(gather);
            half.output = Output::Idle;
            let back = pair.half(way.other());
            if back.is_some_and(|(back, ..)| back.input == Input::Ended) {
                self.advance_half(cx, key, way.other());
            }
            return self.advance_half(cx, key, way);
        }
        let stalled = half.output == Output::Sending { stalled: true };
        half.output = Output::Sending { stalled: true };
        if stalled || cx.buffers.keep(&mut gather) {
            cx.driver.send(to, gather, SendWait::Yes, way.kinds().send.of(key));
            return;
        }
        cx.buffers.give_back(gather);
        cx.counters.spill_exhausted += 1;
        if cx.log_limit.allow(Class::Shortage, cx.now) {
            let free_buffers = cx.buffers.free_buffers();
            let (pair, client) = (key.number(), pair.peer);
            warn!(pair, %client, free_buffers, "slow readers use up the buffers: connection reset");
        }
        self.pair_failed(cx, key, &io::Error::from(io::ErrorKind::OutOfMemory));
    }

    /// Moves data through a pipe.
    fn splice_half<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, way: Way) {
        let now = cx.now;
        let bulk = cx.plan.soxconf.bulk;
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let Some((half, from, to)) = pair.half(way) else { return };
        let Some(pipe) = half.pipe.take().or_else(|| cx.buffers.pipes.take()) else {
            half.copy_instead(false);
            return self.receive_half(cx, key, way, BufferClass::Bulk);
        };
        let was_ready = std::mem::replace(&mut half.input, Input::Idle) == Input::Ready;
        let before_bytes = pipe.held_bytes();
        let (moved_bytes, stop) = pass(from, &pipe, to);
        cx.counters.spliced_from_local += moved_bytes as u64;
        cx.counters.relayed(way, moved_bytes);
        cx.counters.spliced_to_local += (before_bytes + moved_bytes - pipe.held_bytes()) as u64;
        match &stop {
            Stop::Blocked => {
                half.output = Output::Full;
                half.pipe = Some(pipe);
                cx.driver.poll(to, libc::POLLOUT as u32, false, way.kinds().room.of(key));
            }
            _ => cx.buffers.pipes.give_back(pipe),
        }
        if moved_bytes > 0 {
            pair.last_data = now;
            pair.moved(way, moved_bytes);
        }
        let Some((half, ..)) = pair.half(way) else { return };
        match stop {
            Stop::Blocked => {
                half.spliced(SPLICE_TURN_BYTES, bulk);
                self.guard_half(cx, key, way);
            }
            Stop::Turn => {
                half.spliced(moved_bytes, bulk);
                self.watch_half(cx, key, way);
            }
            Stop::Ended => {
                half.input = Input::Ended;
                self.advance_half(cx, key, way);
            }
            // Splicing stops at urgent data for ever, even after it was taken; a receive gets past
            // it.
            Stop::Empty if was_ready && moved_bytes == 0 => {
                self.receive_half(cx, key, way, BufferClass::Small);
            }
            Stop::Empty => {
                half.spliced(moved_bytes, bulk);
                self.watch_half(cx, key, way);
            }
            Stop::Unspliceable => {
                cx.counters.splice_refused += 1;
                half.copy_instead(true);
                self.receive_half(cx, key, way, BufferClass::Bulk);
            }
            Stop::ReadFailed => self.side_is_empty(cx, key, way),
            Stop::WriteFailed(error) => self.side_takes_no_more(cx, key, way.other(), Some(&error)),
        }
    }

    /// The sink of a direction is writable, or broken.
    pub(super) fn half_has_room<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, way: Way) {
        let Some((half, ..)) = self.pairs.get_mut(key).and_then(|pair| pair.half(way)) else {
            cx.counters.stale += 1;
            return;
        };
        if half.output == Output::Full {
            half.output = Output::Idle;
        }
        self.advance_half(cx, key, way);
    }
}

/// Why splicing stopped. The pipe is empty except after `Blocked` and `WriteFailed`.
#[derive(Debug)]
enum Stop {
    /// The share of this turn is used up.
    Turn,
    /// The source has no more data for now.
    Empty,
    /// The source has reached its end of data.
    Ended,
    /// The sink accepts no more for now.
    Blocked,
    /// The source does not support splicing.
    Unspliceable,
    /// The source is broken and has no data left.
    ReadFailed,
    /// The sink is broken.
    WriteFailed(io::Error),
}

/// Splices from a readable socket to another through a pipe that may hold data. Also returns the
/// number of bytes read from the source.
fn pass(from: &OwnedFd, pipe: &Pipe, to: &OwnedFd) -> (usize, Stop) {
    let mut moved_bytes = 0;
    loop {
        while pipe.held_bytes() > 0 {
            if let Err(error) = pipe.drain(to, pipe.held_bytes()) {
                let blocked = error.kind() == io::ErrorKind::WouldBlock;
                let stop = if blocked { Stop::Blocked } else { Stop::WriteFailed(error) };
                return (moved_bytes, stop);
            }
        }
        if moved_bytes >= SPLICE_TURN_BYTES {
            return (moved_bytes, Stop::Turn);
        }
        match pipe.fill(from, PIPE_BYTES) {
            Ok(0) => return (moved_bytes, Stop::Ended),
            Ok(bytes) => moved_bytes += bytes,
            Err(error) => {
                let stop = match error.raw_os_error() {
                    Some(libc::EAGAIN) => Stop::Empty,
                    Some(libc::EINVAL) => Stop::Unspliceable,
                    _ => Stop::ReadFailed,
                };
                return (moved_bytes, stop);
            }
        }
    }
}
