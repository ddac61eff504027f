//! Streams that carry datagrams: they are never held up, and never hold others up. What finds no
//! room is dropped, the oldest first, because a late datagram is worth nothing.
//!
//! In SockMux 1 a run of them is one frame, outside of all windows. In 0.3, which knows bytes only,
//! each is a packet, under the windows of 0.3.

use std::net::SocketAddr;

use super::runs::{Dropped, Run, Runs};
use super::stream::{LocalEnd, State, Stream};
use super::{Moment, OpenError, SendRule, Session, Sink, StreamKey, Transmit, turns};
use crate::limits::{DATAGRAM_BYTES_MAX, DATAGRAM_QUEUE_BYTES, SMALL_FRAME_BYTES};
use crate::wire::{Protocol, StreamRef, Transport};

/// What became of a run that was to be queued, and of those that waited before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    /// It waits for the tunnel. `false`: nothing of it does.
    pub taken: bool,
    /// Datagrams that were dropped: older ones, and those of this run if it was not taken.
    pub dropped: u64,
    /// What the engine is to drop from the front of what it holds of the stream, before it puts
    /// this run behind it.
    pub dropped_bytes: u64,
    /// It was not taken because the protocol carries none of this size.
    pub too_big: bool,
}

impl Queued {
    fn refused(run: Run, too_big: bool) -> Queued {
        Queued { taken: false, dropped: run.datagrams(), dropped_bytes: 0, too_big }
    }
}

impl Session {
    /// As [`Session::open`], for a stream that carries datagrams.
    ///
    /// # Errors
    /// [`OpenError`] when the tunnel is not up or the peer takes no more streams, or none of
    /// this kind.
    pub fn open_datagrams(
        &mut self,
        user: u64,
        client: SocketAddr,
        entrance: SocketAddr,
    ) -> Result<StreamKey, OpenError> {
        self.begin(user, (client, entrance), Transport::Udp, None)
    }

    /// As [`Session::open_datagrams`], where another tunnel may take the stream if this peer does not.
    /// Datagrams wait until the peer has taken it ([`super::Event::Opened`]).
    ///
    /// # Errors
    /// As there.
    pub fn open_datagrams_tentatively(
        &mut self,
        user: u64,
        client: SocketAddr,
        entrance: SocketAddr,
    ) -> Result<StreamKey, OpenError> {
        let key = self.open_datagrams(user, client, entrance)?;
        if let Some(stream) = self.streams.get_mut(key) {
            stream.tentative = true;
            stream.state = State::Opening;
        }
        Ok(key)
    }

    /// As [`Session::attach`], for a stream that carries datagrams: where the peer did not say so,
    /// as in 0.3, it does from here on.
    pub fn attach_datagrams(&mut self, key: StreamKey, user: u64) {
        self.attach(key, user);
        if let Some(stream) = self.streams.get_mut(key) {
            stream.datagrams.get_or_insert_default();
        }
    }

    /// The engine has received a run of datagrams: so many bytes of this size each, the last perhaps
    /// shorter; size and bytes 0 are one empty datagram. They wait for the tunnel, unless there is
    /// no room for them.
    ///
    /// A stream may take as much of the space for all as it leaves free: a flood has half of it, and
    /// others still find room beside it.
    pub fn datagrams_ready(
        &mut self,
        key: StreamKey,
        size_bytes: u32,
        bytes: u32,
        now: Moment,
    ) -> Queued {
        self.link_window.clock(now);
        let run = Run::new(size_bytes, bytes);
        let (protocol, payload_max) = (self.protocol, self.datagram_max());
        let Some(stream) = self.streams.get_mut(key) else {
            self.counters.stale_keys += 1;
            return Queued::refused(run, false);
        };
        let Some(runs) = &mut stream.datagrams else {
            debug_assert!(false, "datagrams of a stream of bytes");
            return Queued::refused(run, false);
        };
        // An empty packet of 0.3 is the end of data.
        let is_carried = run.size_bytes > 0 || (protocol == Protocol::V1 && bytes == 0);
        let too_big = bytes > DATAGRAM_BYTES_MAX
            || (protocol == Protocol::V03 && u64::from(run.size_bytes) > payload_max);
        if !is_carried || too_big || stream.local_end != LocalEnd::Not {
            return Queued::refused(run, too_big);
        }
        let before = runs.cost_bytes();
        let others = self.datagram_cost_bytes - before;
        let left = DATAGRAM_QUEUE_BYTES.saturating_sub(others);
        let mut dropped = Dropped::default();
        runs.drop_aged(now, &mut dropped);
        // What it then has, twice: once for itself and once left free.
        let taken = 2 * run.cost_bytes() <= left;
        if taken {
            let excess = (2 * (runs.cost_bytes() + run.cost_bytes())).saturating_sub(left);
            runs.drop_oldest(excess.div_ceil(2), &mut dropped);
            runs.push(run, now, protocol == Protocol::V1);
        } else {
            dropped.datagrams += run.datagrams();
        }
        self.datagram_cost_bytes = others + runs.cost_bytes();
        self.schedule_data(key);
        let Dropped { datagrams, bytes } = dropped;
        Queued { taken, dropped: datagrams, dropped_bytes: bytes, too_big: false }
    }

    /// Takes out what waits to be sent of a stream of datagrams: size and bytes of each run.
    pub(super) fn take_runs(&mut self, key: StreamKey) -> Vec<(u32, u32)> {
        let runs = self.streams.get_mut(key).and_then(|stream| stream.datagrams.as_mut());
        let Some(runs) = runs else { return Vec::new() };
        self.datagram_cost_bytes -= runs.cost_bytes();
        let mut runs = std::mem::take(runs);
        std::iter::from_fn(|| runs.take(u64::MAX)).map(|run| (run.size_bytes, run.bytes)).collect()
    }

    /// What all datagrams that wait cost, in bytes.
    #[doc(hidden)]
    pub fn datagram_cost_bytes(&self) -> u64 {
        self.datagram_cost_bytes
    }

    /// A run has come.
    pub(super) fn on_datagrams(&mut self, to: StreamRef, size_bytes: u32, bytes: u32) -> Sink {
        let Some(key) = self.find(to) else { return self.discard(bytes) };
        let Some(stream) = self.streams.get_mut(key) else { return self.discard(bytes) };
        if stream.datagrams.is_none() {
            self.counters.unsuited_frames += 1;
            return self.discard(bytes);
        }
        if stream.write_failed {
            return self.discard(bytes);
        }
        self.link_window.datagrams_passed(u64::from(bytes), &mut stream.small_in);
        self.counters.payload_bytes_in += u64::from(bytes);
        Sink::Datagrams { key, size_bytes }
    }

    /// A frame has come that is for streams of bytes only: counts it if this one carries datagrams.
    pub(super) fn is_unsuited(&mut self, key: StreamKey) -> bool {
        let is = self.streams.get(key).is_some_and(|stream| stream.datagrams.is_some());
        self.counters.unsuited_frames += u64::from(is);
        is
    }

    /// The next frame of a stream whose turn it is: of at most so many bytes if it can be cut so, and
    /// of what the link window has room for if it is more than a small one.
    pub(super) fn transmit_datagrams(
        &mut self,
        head: &mut Vec<u8>,
        key: StreamKey,
        rule: SendRule,
        most_bytes: u64,
        link_room_bytes: u64,
    ) -> Option<Transmit> {
        let encoder = self.encoder();
        let stream = self.streams.get_mut(key)?;
        let (route, user) = (stream.route(rule.protocol)?, stream.user?);
        if rule.room(stream) == 0 {
            return None;
        }
        let runs = stream.datagrams.as_mut()?;
        let before = runs.cost_bytes();
        let run = match rule.protocol {
            // One a packet. What was queued before the peer said a smaller packet size goes out as
            // it is: a peer takes the largest, whatever it said.
            Protocol::V03 => runs.take(0)?,
            Protocol::V1 if u64::from(runs.front()?.bytes) <= SMALL_FRAME_BYTES => {
                runs.take(most_bytes)?
            }
            Protocol::V1 => runs.take(most_bytes.min(link_room_bytes))?,
        };
        self.datagram_cost_bytes -= before - runs.cost_bytes();
        let bytes = u64::from(run.bytes);
        turns::charge(stream, run.cost_bytes());
        match rule.protocol {
            Protocol::V03 => rule.spend(stream, bytes),
            Protocol::V1 => {
                self.link_window.sent(bytes);
                self.link_window.datagrams_passed(bytes, &mut stream.small_out);
            }
        }
        encoder.datagrams(head, route, run.size_bytes, run.bytes);
        if stream.waiting_bytes() > 0 && rule.room(stream) > 0 {
            self.turns.enter_again(key, stream);
        }
        self.counters.payload_bytes_out += bytes;
        Some(Transmit::Datagrams { key, user, bytes })
    }
}

impl Stream {
    /// What it carries.
    pub(super) fn transport(&self) -> Transport {
        if self.datagrams.is_some() { Transport::Udp } else { Transport::Tcp }
    }

    /// What waits to be sent, in bytes; of datagrams with what they cost beside their bytes, so that
    /// empty ones are something too.
    #[inline]
    pub(super) fn waiting_bytes(&self) -> u64 {
        self.ready_bytes + self.datagrams.as_ref().map_or(0, Runs::cost_bytes)
    }

    /// Takes out what may ride in the frame that opens the stream, or answers that: of datagrams one,
    /// if it fits whole. In bytes.
    pub(super) fn take_first(&mut self, room_bytes: u64, datagram_cost_bytes: &mut u64) -> u64 {
        let Some(runs) = &mut self.datagrams else {
            let bytes = self.ready_bytes.min(room_bytes);
            self.ready_bytes -= bytes;
            return bytes;
        };
        let before = runs.cost_bytes();
        // An empty one would be nothing there.
        let sizes = 1..=room_bytes;
        let fits = runs.front().is_some_and(|run| sizes.contains(&u64::from(run.size_bytes)));
        let run = if fits { runs.take(0) } else { None };
        *datagram_cost_bytes -= before - runs.cost_bytes();
        run.map_or(0, |run| u64::from(run.bytes))
    }
}
