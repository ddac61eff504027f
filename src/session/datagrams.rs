//! Streams that carry datagrams. They are never subject to backpressure, and never cause any.
//! Datagrams that find no room are dropped, the oldest first, because a late datagram is worthless.
//!
//! In SockMux 1 a run of datagrams is one frame, outside of all windows. In 0.3, which knows bytes
//! only, each is a packet, under the windows of 0.3.

use std::net::SocketAddr;

use super::runs::{Dropped, QueuedRun, Runs};
use super::stream::{LocalEnd, Stream, StreamState};
use super::{Moment, OpenError, SendRule, Session, Sink, StreamKey, Transmit, turns};
use crate::limits::{DATAGRAM_BYTES_MAX, SMALL_FRAME_BYTES};
use crate::wire::{Protocol, StreamRef, Transport};

/// Result of queueing a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    /// The run was queued. `false`: none of it was.
    pub taken: bool,
    /// Datagrams that were dropped: older ones, and those of this run if it was not queued.
    pub dropped: u64,
    /// Bytes to drop from the front of what the engine holds of the stream, before it appends this
    /// run.
    pub dropped_bytes: u64,
    /// Not queued, because the protocol carries no datagrams of this size.
    pub too_big: bool,
}

impl Queued {
    fn refused(run: QueuedRun, too_big: bool) -> Queued {
        Queued { taken: false, dropped: run.datagrams(), dropped_bytes: 0, too_big }
    }
}

impl Session {
    /// As [`Session::open`], for a stream that carries datagrams.
    ///
    /// # Errors
    /// [`OpenError`] when the tunnel is not up or the peer accepts no more streams, or no
    /// datagrams.
    pub fn open_datagrams(
        &mut self,
        user: u64,
        client: SocketAddr,
        entrance: SocketAddr,
    ) -> Result<StreamKey, OpenError> {
        self.begin(user, (client, entrance), Transport::Udp, None)
    }

    /// As [`Session::open_datagrams`], but the engine may move the stream to another tunnel if this
    /// peer does not accept it. Datagrams are queued until the peer accepts it
    /// ([`super::Event::Opened`]).
    ///
    /// # Errors
    /// As [`Session::open_datagrams`].
    pub fn open_datagrams_tentatively(
        &mut self,
        user: u64,
        client: SocketAddr,
        entrance: SocketAddr,
    ) -> Result<StreamKey, OpenError> {
        let key = self.open_datagrams(user, client, entrance)?;
        if let Some(stream) = self.streams.get_mut(key) {
            stream.tentative = true;
            stream.state = StreamState::Opening;
        }
        Ok(key)
    }

    /// As [`Session::attach`], for a stream that carries datagrams. In 0.3, where the peer does not
    /// announce this, the stream carries datagrams from here on.
    pub fn attach_datagrams(&mut self, key: StreamKey, user: u64) {
        self.attach(key, user);
        if let Some(stream) = self.streams.get_mut(key) {
            stream.datagrams.get_or_insert_default();
        }
    }

    /// Queues a run of datagrams that the engine has received: `bytes` in datagrams of `size_bytes`
    /// each, the last perhaps shorter. 0 and 0 are one empty datagram. They are dropped if there is
    /// no room.
    ///
    /// A stream may use as much of the shared queue as it leaves free. So a flood uses half of it,
    /// and others still find room.
    pub fn datagrams_ready(
        &mut self,
        key: StreamKey,
        size_bytes: u32,
        bytes: u32,
        now: Moment,
    ) -> Queued {
        self.link_window.clock(now);
        let run = QueuedRun::new(size_bytes, bytes);
        let (protocol, payload_max) = (self.protocol, self.datagram_max());
        let queue_bytes = self.config.datagram_queue_bytes;
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
        let left = queue_bytes.saturating_sub(others);
        let mut dropped = Dropped::default();
        runs.drop_aged(now, &mut dropped);
        // Counted twice: the room that the run takes, and as much again left free.
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

    /// Removes the queued datagrams of a stream: size and bytes of each run.
    pub(super) fn take_runs(&mut self, key: StreamKey) -> Vec<(u32, u32)> {
        let runs = self.streams.get_mut(key).and_then(|stream| stream.datagrams.as_mut());
        let Some(runs) = runs else { return Vec::new() };
        self.datagram_cost_bytes -= runs.cost_bytes();
        let mut runs = std::mem::take(runs);
        std::iter::from_fn(|| runs.take(u64::MAX)).map(|run| (run.size_bytes, run.bytes)).collect()
    }

    /// Memory accounted to all queued datagrams, in bytes.
    #[doc(hidden)]
    pub fn datagram_cost_bytes(&self) -> u64 {
        self.datagram_cost_bytes
    }

    /// Handles a run of datagrams from the peer.
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

    /// A frame for byte streams was received: counts it if this stream carries datagrams.
    pub(super) fn is_unsuited(&mut self, key: StreamKey) -> bool {
        let is = self.streams.get(key).is_some_and(|stream| stream.datagrams.is_some());
        self.counters.unsuited_frames += u64::from(is);
        is
    }

    /// Returns the next frame of the stream in turn. A run is cut to `most_bytes` if it can be, and
    /// to the room of the link window if it is more than a small frame.
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
            // One datagram per packet. What was queued before the peer reported a smaller packet
            // size is sent as it is: every peer accepts the largest.
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
    /// What the stream carries.
    pub(super) fn transport(&self) -> Transport {
        if self.datagrams.is_some() { Transport::Udp } else { Transport::Tcp }
    }

    /// Queued bytes. Datagrams are accounted with their overhead, so that empty ones count as well.
    #[inline]
    pub(super) fn waiting_bytes(&self) -> u64 {
        self.ready_bytes + self.datagrams.as_ref().map_or(0, Runs::cost_bytes)
    }

    /// Removes what may be sent in the frame that opens the stream, or that answers it: of
    /// datagrams one, if it fits whole. In bytes.
    pub(super) fn take_first(&mut self, room_bytes: u64, datagram_cost_bytes: &mut u64) -> u64 {
        let Some(runs) = &mut self.datagrams else {
            let bytes = self.ready_bytes.min(room_bytes);
            self.ready_bytes -= bytes;
            return bytes;
        };
        let before = runs.cost_bytes();
        // An empty datagram cannot be told from no first data.
        let sizes = 1..=room_bytes;
        let fits = runs.front().is_some_and(|run| sizes.contains(&u64::from(run.size_bytes)));
        let run = if fits { runs.take(0) } else { None };
        *datagram_cost_bytes -= before - runs.cost_bytes();
        run.map_or(0, |run| u64::from(run.bytes))
    }
}
