//! The bytes of a plain relay: each direction of a pair is read only when all that was read of it
//! before is written, and by the way that is cheapest for what it carries, see [`Mode`].
//!
//! What is copied is received into a buffer of the driver's and sent from there, without waiting;
//! what the socket does not take is copied into buffers of our own, so that a slow reader never
//! holds the driver's, which all share. What is spliced never comes into the process.

use std::io;
use std::os::fd::OwnedFd;

use tracing::warn;

use super::pair::{Input, Mode, Output, Way};
use super::{Key, Worker};
use crate::engine::chunk::Chunk;
use crate::engine::driver::{BufferClass, Driver, Gather, RecvMode, SendWait};
use crate::engine::net;
use crate::engine::pipe::Pipe;
use crate::limits::{PIPE_BYTES, SPLICE_TURN_BYTES};

impl<D: Driver> Worker<D> {
    /// Takes a direction's next step, if nothing is under way that will.
    pub(super) fn advance_flow(&mut self, key: Key, way: Way) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let Some((flow, _, to)) = pair.flow(way) else { return };
        if flow.output != Output::Idle {
            // The next message may be there as soon as this one is sent.
            if flow.is_blocked() && (flow.input, flow.mode) == (Input::Idle, Mode::Sparse) {
                self.watch_flow(key, way);
            }
            return;
        }
        match (flow.input, flow.mode) {
            _ if flow.pipe.is_some() => self.splice_flow(key, way),
            (Input::Ended, _) => {
                net::shut_down_write(to);
                flow.output = Output::Shut;
                if pair.is_over() {
                    self.end_pair(key);
                }
            }
            (Input::Idle, Mode::Sparse) => self.watch_flow(key, way),
            (Input::Ready, Mode::Sparse) => self.receive_flow(key, way, BufferClass::Small),
            (Input::Idle | Input::Ready, Mode::Bulk) => {
                self.receive_flow(key, way, BufferClass::Bulk);
            }
            (Input::Idle | Input::Ready, Mode::Spliced) => self.splice_flow(key, way),
            (Input::Watched | Input::Receiving | Input::Starved, _) => {}
        }
    }

    /// Asks to be told when a direction has something.
    fn watch_flow(&mut self, key: Key, way: Way) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let Some((flow, from, _)) = pair.flow(way) else { return };
        let events = (libc::POLLIN | libc::POLLPRI) as u32;
        self.driver.poll(from, events, false, way.kinds().ready.of(key));
        flow.input = Input::Watched;
    }

    /// A watched direction has something: urgent data is passed on at once.
    pub(super) fn flow_ready(&mut self, key: Key, way: Way, events: io::Result<u32>) {
        let Some((flow, from, to)) = self.pairs.get_mut(key).and_then(|pair| pair.flow(way)) else {
            self.counters.stale += 1;
            return;
        };
        // A watch that failed says nothing of the socket: receiving does.
        let events = events.unwrap_or(libc::POLLERR as u32);
        let urgent = libc::POLLPRI as u32;
        if events & urgent != 0
            && let Some(byte) = net::take_urgent(from)
        {
            net::send_urgent(to, byte);
        }
        flow.input = if events & !urgent != 0 { Input::Ready } else { Input::Idle };
        if flow.input == Input::Ready && flow.is_blocked() {
            self.guard_flow(key, way);
        }
        self.advance_flow(key, way);
    }

    /// While a direction is blocked it is not read, and so would not notice that the side that it
    /// comes from is broken: asks to be told, once.
    fn guard_flow(&mut self, key: Key, way: Way) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let Some((flow, from, _)) = pair.flow(way) else { return };
        if !std::mem::replace(&mut flow.guarded, true) {
            // Errors and hang-ups are told of unasked.
            self.driver.poll(from, 0, false, way.kinds().broken.of(key));
        }
    }

    pub(super) fn flow_broken(&mut self, key: Key, way: Way, events: io::Result<u32>) {
        let Some((flow, ..)) = self.pairs.get_mut(key).and_then(|pair| pair.flow(way)) else {
            self.counters.stale += 1;
            return;
        };
        // One that is not blocked meets the error by reading, behind the data before it. A hang-up
        // without an error is an end in good order.
        if flow.is_blocked() && events.is_ok_and(|events| events & libc::POLLERR as u32 != 0) {
            self.pair_failed(key, &io::Error::from(io::ErrorKind::ConnectionReset));
        }
    }

    /// Receives what there is.
    fn receive_flow(&mut self, key: Key, way: Way, class: BufferClass) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let Some((flow, from, _)) = pair.flow(way) else { return };
        flow.input = Input::Receiving;
        self.driver.recv(from, RecvMode::Now, class, way.kinds().receive.of(key));
    }

    pub(super) fn flow_received(&mut self, key: Key, way: Way, got: io::Result<Option<Chunk>>) {
        let now = self.now;
        let bulk = self.plan.soxconf.bulk;
        let Some(pair) = self.pairs.get_mut(key) else {
            self.counters.stale += 1;
            return;
        };
        pair.last_data = now;
        let Some((flow, _, to)) = pair.flow(way) else { return };
        flow.input = Input::Idle;
        match got {
            Ok(Some(chunk)) => {
                flow.received(chunk.len(), bulk);
                let mut gather = self.kit.take_gather();
                gather.push(chunk);
                flow.output = Output::Sending { stalled: false };
                self.driver.send(to, gather, SendWait::No, way.kinds().send.of(key));
                if flow.mode != Mode::Sparse {
                    self.guard_flow(key, way);
                }
                self.advance_flow(key, way);
            }
            Ok(None) => {
                flow.input = Input::Ended;
                self.advance_flow(key, way);
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN) => self.watch_flow(key, way),
                Some(libc::ENOBUFS) => {
                    flow.input = Input::Starved;
                    self.starved_flows.push((key, way));
                }
                _ => self.pair_failed(key, &error),
            },
        }
    }

    /// There may be a buffer for a direction that found none.
    pub(super) fn feed_flow(&mut self, key: Key, way: Way) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let Some((flow, ..)) = pair.flow(way) else { return };
        flow.input = Input::Ready;
        self.advance_flow(key, way);
    }

    pub(super) fn flow_sent(
        &mut self,
        key: Key,
        way: Way,
        result: io::Result<usize>,
        mut gather: Box<Gather>,
    ) {
        let now = self.now;
        let Some(pair) = self.pairs.get_mut(key) else {
            self.kit.give_back(gather);
            self.counters.stale += 1;
            return;
        };
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => 0,
            Err(error) => {
                self.kit.give_back(gather);
                return self.pair_failed(key, &error);
            }
        };
        pair.last_data = now;
        gather.advance(bytes);
        let Some((flow, _, to)) = pair.flow(way) else { return self.kit.give_back(gather) };
        if gather.is_empty() {
            self.kit.give_back(gather);
            flow.output = Output::Idle;
            return self.advance_flow(key, way);
        }
        let stalled = flow.output == Output::Sending { stalled: true };
        flow.output = Output::Sending { stalled: true };
        if stalled || self.kit.keep(&mut gather) {
            self.driver.send(to, gather, SendWait::Yes, way.kinds().send.of(key));
            return;
        }
        self.kit.give_back(gather);
        self.counters.spill_exhausted += 1;
        let free_buffers = self.kit.free_buffers();
        warn!(client = %pair.peer, free_buffers, "slow readers use up the buffers: connection reset");
        self.pair_failed(key, &io::Error::from(io::ErrorKind::OutOfMemory));
    }

    /// Moves what there is through a pipe.
    fn splice_flow(&mut self, key: Key, way: Way) {
        let now = self.now;
        let bulk = self.plan.soxconf.bulk;
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let Some((flow, from, to)) = pair.flow(way) else { return };
        let Some(pipe) = flow.pipe.take().or_else(|| self.kit.pipes.take()) else {
            flow.copy_instead(false);
            return self.receive_flow(key, way, BufferClass::Bulk);
        };
        let was_ready = std::mem::replace(&mut flow.input, Input::Idle) == Input::Ready;
        let before_bytes = pipe.held_bytes();
        let (moved_bytes, stop) = pass(from, &pipe, to);
        self.counters.spliced_from_local += moved_bytes as u64;
        self.counters.spliced_to_local += (before_bytes + moved_bytes - pipe.held_bytes()) as u64;
        match &stop {
            Stop::Blocked => {
                flow.output = Output::Full;
                flow.pipe = Some(pipe);
                self.driver.poll(to, libc::POLLOUT as u32, false, way.kinds().room.of(key));
            }
            _ => self.kit.pipes.give_back(pipe),
        }
        if moved_bytes > 0 {
            pair.last_data = now;
        }
        let Some((flow, ..)) = pair.flow(way) else { return };
        match stop {
            Stop::Blocked => flow.spliced(SPLICE_TURN_BYTES, bulk),
            Stop::Turn => {
                flow.spliced(moved_bytes, bulk);
                self.watch_flow(key, way);
            }
            Stop::Ended => {
                flow.input = Input::Ended;
                self.advance_flow(key, way);
            }
            // Splicing stops at urgent data for ever, even when that has been taken; receiving
            // goes past it.
            Stop::Empty if was_ready && moved_bytes == 0 => {
                self.receive_flow(key, way, BufferClass::Small);
            }
            Stop::Empty => {
                flow.spliced(moved_bytes, bulk);
                self.watch_flow(key, way);
            }
            Stop::Unspliceable => {
                self.counters.splice_refused += 1;
                flow.copy_instead(true);
                self.receive_flow(key, way, BufferClass::Bulk);
            }
            Stop::Failed(error) => self.pair_failed(key, &error),
        }
    }

    /// Where a direction goes takes more, or is broken.
    pub(super) fn flow_has_room(&mut self, key: Key, way: Way) {
        let Some((flow, ..)) = self.pairs.get_mut(key).and_then(|pair| pair.flow(way)) else {
            self.counters.stale += 1;
            return;
        };
        flow.output = Output::Idle;
        self.advance_flow(key, way);
    }
}

/// Why splicing stopped. In all cases but `Blocked` and `Failed` the pipe is empty.
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
    Failed(io::Error),
}

/// Splices from a socket that was found ready to another, through a pipe that may hold something;
/// with how much came from the first.
fn pass(from: &OwnedFd, pipe: &Pipe, to: &OwnedFd) -> (usize, Stop) {
    let mut moved_bytes = 0;
    loop {
        while pipe.held_bytes() > 0 {
            if let Err(error) = pipe.drain(to, pipe.held_bytes()) {
                let blocked = error.kind() == io::ErrorKind::WouldBlock;
                let stop = if blocked { Stop::Blocked } else { Stop::Failed(error) };
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
                    _ => Stop::Failed(error),
                };
                return (moved_bytes, stop);
            }
        }
    }
}
