//! The bytes of a plain relay: each direction of a pair is read only when all that was read of it
//! before is written, and by the way that is cheapest for what it carries, see [`Mode`].
//!
//! What is copied is received into a buffer of the driver's and sent from there, without waiting;
//! what the socket does not take is copied into buffers of our own, so that a slow reader never
//! holds the driver's, which all share. What is spliced never comes into the process.

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
use crate::worker::log_limit::Class;
use crate::worker::relay::pair::{Input, Mode, Output, Way};
use crate::worker::table::Key;
use crate::worker::waiters::Waiter;

impl Relay {
    /// Takes a direction's next step, if nothing is under way that will.
    pub(super) fn advance_half<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, way: Way) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let client = pair.peer;
        let is_of_broken = pair.broken.as_ref().is_some_and(|side| side.way == way);
        let is_sent_to = pair
            .half(way.other())
            .is_some_and(|(back, ..)| matches!(back.output, Output::Sending { .. }));
        let Some((half, from, to)) = pair.half(way) else { return };
        if half.output != Output::Idle {
            // The next message may be there as soon as this one is sent.
            if half.is_blocked() && (half.input, half.mode) == (Input::Idle, Mode::Sparse) {
                self.watch_half(cx, key, way);
            }
            return;
        }
        match (half.input, half.mode) {
            _ if half.pipe.is_some() => self.splice_half(cx, key, way),
            (Input::Ended, _) if is_of_broken => self.broken_side_ended(cx, key, way),
            // A send under way may have met a reset, and says so next.
            (Input::Ended, _) if is_sent_to && net::is_hung_up(from) => {}
            (Input::Ended, _) => {
                trace!(%client, way = way.name(), "end of data passed on");
                net::shut_down_write(to);
                half.output = Output::Shut;
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

    /// Asks to be told when a direction has something.
    fn watch_half<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, way: Way) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let Some((half, from, _)) = pair.half(way) else { return };
        let events = (libc::POLLIN | libc::POLLPRI) as u32;
        cx.driver.poll(from, events, false, way.kinds().ready.of(key));
        half.input = Input::Watched;
    }

    /// A watched direction has something: urgent data is passed on at once.
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
        // A watch that failed says nothing of the socket: receiving does.
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

    /// While a direction is blocked it is not read, and so would not notice that the side that it
    /// comes from is broken: asks to be told, once.
    fn guard_half<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, way: Way) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let Some((half, from, _)) = pair.half(way) else { return };
        if !std::mem::replace(&mut half.guarded, true) {
            // Errors and hang-ups are told of unasked.
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
        // One that is not blocked meets the error by reading, behind the data before it. A hang-up
        // without an error is an end in good order.
        if half.is_blocked() && events.is_ok_and(|events| events & libc::POLLERR as u32 != 0) {
            self.side_takes_no_more(cx, key, way, None);
        }
    }

    /// Receives what there is.
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
            // Nobody takes it.
            Ok(Some(_)) if half.output == Output::Broken => {}
            Ok(Some(chunk)) => {
                half.received(chunk.len(), bulk);
                cx.counters.relayed(way, chunk.len());
                let mut gather = cx.buffers.take_gather();
                gather.push(chunk);
                half.output = Output::Sending { stalled: false };
                cx.driver.send(to, gather, SendWait::No, way.kinds().send.of(key));
                let is_sparse = half.mode == Mode::Sparse;
                pair.last_data = now;
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

    /// There may be a buffer for a direction that found none.
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
            warn!(client = %pair.peer, free_buffers, "slow readers use up the buffers: connection reset");
        }
        self.pair_failed(cx, key, &io::Error::from(io::ErrorKind::OutOfMemory));
    }

    /// Moves what there is through a pipe.
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
            // Splicing stops at urgent data for ever, even when that has been taken; receiving
            // goes past it.
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

    /// Where a direction goes takes more, or is broken.
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

/// Why splicing stopped. In all cases but `Blocked` and `WriteFailed` the pipe is empty.
#[derive(Debug)]
enum Stop {
    /// Others have their turn.
    Turn,
    /// The input has nothing more now.
    Empty,
    /// The input has given its end of data.
    Ended,
    /// The output takes no more now.
    Blocked,
    /// The input is of a kind that cannot be spliced.
    Unspliceable,
    /// The input is broken, and has given all.
    ReadFailed,
    /// The output is broken.
    WriteFailed(io::Error),
}

/// Splices from a socket that was found ready to another, through a pipe that may hold something;
/// with how much came from the first.
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
