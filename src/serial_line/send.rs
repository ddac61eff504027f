//! The sender: frames in flight, lost frames, and the next ones.

use super::estimate::{Losses, RoundTrip};
use super::frame::{self, Ack, OVERHEAD_BYTES};
use super::pacer::Pacer;
use crate::limits::{LINE_QUEUE_MICROS, LINE_SMALL_BYTES, LINE_WINDOW_FRAMES};
use crate::narrow::to_usize;
use crate::session::Moment;

const WINDOW: u64 = LINE_WINDOW_FRAMES as u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SendState {
    /// Never sent: bytes may be added.
    Waiting,
    OnTheWay,
    /// To be sent again.
    Lost,
    Arrived,
}

/// A frame, immutable once it was sent.
#[derive(Debug)]
struct SendSlot {
    payload: Vec<u8>,
    state: SendState,
    /// Its length on the line; an estimate before it was sent.
    wire_bytes: u64,
    /// Number of its last transmission among all transmissions.
    order: u64,
    /// Only an acknowledgement of the last transmission is possible: the earlier ones are known to
    /// be lost.
    is_sure: bool,
    /// When it was first handed over.
    begun: Moment,
    /// When its last transmission has left, as far as that is known.
    left: Moment,
}

/// Frames from the first that is not acknowledged to the last that was written.
#[derive(Debug)]
pub(super) struct Sender {
    slots: Box<[SendSlot]>,
    /// The first that is not acknowledged.
    base: u64,
    /// The first that was never sent.
    unsent: u64,
    /// The next to be written.
    next: u64,
    /// Frames that the peer accepts at once.
    window_frames: u64,
    /// Payload of a frame on a line without losses, in bytes.
    payload_bytes_max: usize,
    /// Transmissions so far.
    order: u64,
    /// The latest transmission that is known to have arrived. Transmissions before it that are not
    /// acknowledged are lost, because a line never reorders.
    arrived_order: u64,
    /// Consecutive timeouts since the last acknowledgement.
    waits: u32,
    on_the_way_bytes: u64,
    /// Waiting and lost.
    queued_bytes: u64,
    lost_frames: u32,
    losses: Losses,
    round_trip: RoundTrip,
    /// What may be in flight beyond the round trip, in microseconds of the line.
    queue_micros: u64,
}

/// A frame to be handed over.
pub(super) struct OutgoingFrame<'a> {
    pub sequence: u8,
    pub payload: &'a [u8],
    pub is_again: bool,
    number: u64,
}

impl OutgoingFrame<'_> {
    /// For [`Sender::sent`].
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl Sender {
    pub(super) fn new(payload_bytes_max: usize, pacer: &Pacer) -> Sender {
        let frame_micros = pacer.micros((payload_bytes_max + OVERHEAD_BYTES) as u64);
        let slot = || SendSlot {
            payload: Vec::with_capacity(payload_bytes_max),
            state: SendState::Arrived,
            wire_bytes: 0,
            order: 0,
            is_sure: true,
            begun: Moment(0),
            left: Moment(0),
        };
        Sender {
            slots: (0..WINDOW).map(|_| slot()).collect(),
            base: 0,
            unsent: 0,
            next: 0,
            window_frames: WINDOW,
            payload_bytes_max,
            order: 0,
            arrived_order: 0,
            waits: 0,
            on_the_way_bytes: 0,
            queued_bytes: 0,
            lost_frames: 0,
            losses: Losses::new(),
            round_trip: RoundTrip::new(frame_micros),
            queue_micros: LINE_QUEUE_MICROS + 4 * frame_micros,
        }
    }

    /// The peer's limits from its SYN.
    pub(super) fn set_limits(&mut self, window_frames: u8, payload_bytes_max: u16) {
        self.window_frames = WINDOW.min(u64::from(window_frames));
        self.payload_bytes_max = self.payload_bytes_max.min(usize::from(payload_bytes_max));
    }

    fn slot(&mut self, number: u64) -> &mut SendSlot {
        &mut self.slots[(number % WINDOW) as usize]
    }

    fn set_state(&mut self, number: u64, state: SendState) {
        let slot = &mut self.slots[(number % WINDOW) as usize];
        let (was, bytes) = (std::mem::replace(&mut slot.state, state), slot.wire_bytes);
        match was {
            SendState::Waiting => self.queued_bytes -= bytes,
            SendState::Lost => {
                self.queued_bytes -= bytes;
                self.lost_frames -= 1;
            }
            SendState::OnTheWay => self.on_the_way_bytes -= bytes,
            SendState::Arrived => {}
        }
        match state {
            SendState::Waiting => self.queued_bytes += bytes,
            SendState::Lost => {
                self.queued_bytes += bytes;
                self.lost_frames += 1;
            }
            SendState::OnTheWay => self.on_the_way_bytes += bytes,
            SendState::Arrived => {}
        }
    }

    /// Most bytes in flight and queued: enough for the round trip and not more, because the rest
    /// would only fill the buffers of devices.
    fn flight_bytes_max(&self, pacer: &Pacer) -> u64 {
        let micros = self.round_trip.shortest_micros() + self.queue_micros;
        micros.saturating_mul(pacer.bytes_per_second()) / 1_000_000
    }

    /// Bytes of the stream that can be handed to the device in its turn. What would only be queued
    /// is not accepted, so that the caller can send what is most urgent next.
    pub(super) fn room_bytes(&self, pacer: &Pacer, now: Moment) -> usize {
        let queued_nanos = pacer.nanos(self.queued_bytes);
        let Some(nanos) = pacer.room_nanos(now).and_then(|room| room.checked_sub(queued_nanos))
        else {
            return 0;
        };
        if self.on_the_way_bytes + self.queued_bytes > self.flight_bytes_max(pacer) {
            return 0;
        }
        let payload_bytes = self.losses.payload_bytes(self.payload_bytes_max);
        let frame_nanos = pacer.nanos((payload_bytes + OVERHEAD_BYTES) as u64).max(1);
        let frames = (nanos / frame_nanos + 1).min(self.window_room());
        to_usize(frames) * payload_bytes
    }

    fn window_room(&self) -> u64 {
        self.window_frames.saturating_sub(self.next - self.base)
    }

    /// Puts bytes of the stream into frames, and returns how many fitted into the window.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        let is_small = bytes.len() <= LINE_SMALL_BYTES;
        let mut rest = bytes;
        while !rest.is_empty() {
            let payload_bytes = self.losses.payload_bytes(self.payload_bytes_max);
            let last = self.next.wrapping_sub(1);
            let len = if self.unsent < self.next { self.slot(last).payload.len() } else { 0 };
            // A small write is sent at once and never waits for a longer frame to fill.
            let fits = if is_small {
                len + rest.len() <= payload_bytes
            } else {
                len > LINE_SMALL_BYTES && len < payload_bytes
            };
            let number = if len > 0 && fits {
                last
            } else if self.window_room() > 0 {
                self.next += 1;
                self.begin(self.next - 1)
            } else {
                break;
            };
            let slot = self.slot(number);
            let take = rest.len().min(payload_bytes - slot.payload.len());
            slot.payload.extend_from_slice(&rest[..take]);
            slot.wire_bytes += take as u64;
            self.queued_bytes += take as u64;
            rest = &rest[take..];
        }
        bytes.len() - rest.len()
    }

    fn begin(&mut self, number: u64) -> u64 {
        let slot = self.slot(number);
        slot.payload.clear();
        slot.wire_bytes = OVERHEAD_BYTES as u64;
        slot.is_sure = true;
        self.set_state(number, SendState::Waiting);
        number
    }

    /// The next frame for the line; lost frames first.
    pub(super) fn next(&self) -> Option<OutgoingFrame<'_>> {
        let lost = (self.lost_frames > 0)
            .then(|| (self.base..self.unsent).find(|&n| self.state(n) == SendState::Lost));
        let number = lost.flatten().or((self.unsent < self.next).then_some(self.unsent))?;
        let slot = &self.slots[(number % WINDOW) as usize];
        let is_again = slot.state == SendState::Lost;
        Some(OutgoingFrame {
            sequence: frame::sequence(number),
            payload: &slot.payload,
            is_again,
            number,
        })
    }

    fn state(&self, number: u64) -> SendState {
        self.slots[(number % WINDOW) as usize].state
    }

    /// Records that the frame was handed over as so many bytes that will have left at `left`.
    pub(super) fn sent(&mut self, number: u64, wire_bytes: usize, now: Moment, left: Moment) {
        self.set_state(number, SendState::OnTheWay);
        self.order += 1;
        let slot = &mut self.slots[(number % WINDOW) as usize];
        let was = std::mem::replace(&mut slot.wire_bytes, wire_bytes as u64);
        (slot.order, slot.left) = (self.order, left);
        if number == self.unsent {
            slot.begun = now;
            self.unsent += 1;
        }
        self.on_the_way_bytes = self.on_the_way_bytes - was + wire_bytes as u64;
    }

    /// Handles an acknowledgement. `false`: it is impossible (an old one repeated by the line).
    pub(super) fn acknowledged(&mut self, ack: Ack, now: Moment) -> bool {
        let arrived = u64::from(ack.next.wrapping_sub(frame::sequence(self.base)));
        if arrived > self.unsent - self.base {
            return false;
        }
        let missing = self.base + arrived;
        let beyond =
            (missing + 1..self.unsent).filter(|n| ack.beyond >> (n - missing - 1) & 1 != 0);
        let mut latest = None;
        for number in (self.base..missing).chain(beyond) {
            if self.state(number) == SendState::Arrived {
                continue;
            }
            self.set_state(number, SendState::Arrived);
            self.waits = 0;
            let slot = &self.slots[(number % WINDOW) as usize];
            self.losses.count(slot.wire_bytes, false);
            if slot.is_sure && latest.is_none_or(|(order, _)| order < slot.order) {
                latest = Some((slot.order, slot.left));
            }
        }
        self.base = missing;
        if let Some((order, left)) = latest {
            self.round_trip.sample(now.0.saturating_sub(left.0));
            self.arrived_order = self.arrived_order.max(order);
            self.find_lost();
        }
        true
    }

    fn find_lost(&mut self) {
        for number in self.base..self.unsent {
            let slot = &mut self.slots[(number % WINDOW) as usize];
            if slot.state == SendState::OnTheWay && slot.order < self.arrived_order {
                slot.is_sure = true;
                self.losses.count(slot.wire_bytes, true);
                self.set_state(number, SendState::Lost);
            }
        }
    }

    /// The transmission that was in flight for longest.
    fn oldest(&self) -> Option<(u64, &SendSlot)> {
        let all = (self.base..self.unsent).map(|n| (n, &self.slots[(n % WINDOW) as usize]));
        all.filter(|(_, slot)| slot.state == SendState::OnTheWay).min_by_key(|(_, slot)| slot.order)
    }

    /// When an acknowledgement is overdue.
    pub(super) fn retry_at(&self) -> Option<Moment> {
        let (_, slot) = self.oldest()?;
        Some(Moment(slot.left.0.saturating_add(self.round_trip.retry_micros(self.waits))))
    }

    /// Marks overdue frames as lost, and returns whether there were any.
    pub(super) fn on_time(&mut self, now: Moment) -> bool {
        let mut any = false;
        while self.retry_at().is_some_and(|at| at <= now) {
            let Some((number, _)) = self.oldest() else { break };
            self.slot(number).is_sure = false;
            self.set_state(number, SendState::Lost);
            self.waits += 1;
            any = true;
        }
        any
    }

    /// Consecutive timeouts since the last acknowledgement.
    pub(super) fn waits(&self) -> u32 {
        self.waits
    }

    /// Since when the first unacknowledged frame has been in flight.
    pub(super) fn waiting_since(&self) -> Option<Moment> {
        (self.base < self.unsent).then(|| self.slots[(self.base % WINDOW) as usize].begun)
    }

    /// Something is in flight or waits to be sent.
    pub(super) fn is_busy(&self) -> bool {
        self.base < self.next
    }
}
