//! What goes to the link next: control before data, then streams that have just become busy,
//! then the others in turn, a packet each.

use std::collections::VecDeque;
use std::time::Duration;

use super::stream::{LocalEnd, State};
use super::{Event, Moment, Session, StreamKey, Transmit};
use crate::limits::{ACK_DELAY_MICROS, PONGS_MAX};
use crate::wire::v03::Encoder;

/// A control frame of the tunnel itself, or of a stream that is no more.
#[derive(Debug)]
pub(super) enum Control {
    Hello,
    HelloOk((u16, u16)),
    PacketSize,
    FirstData,
    Ping(Moment),
    Pong { ids: (u16, u16), payload: Vec<u8> },
    Closed { from: Option<u16>, to: Option<u16> },
    Refuse { to: u16, reason: String },
}

/// Control frames that wait. Bounded: each stream that the peer ends or opens gives one, and the
/// caller reads no further while it cannot write (see [`Outbox::len`]).
#[derive(Debug, Default)]
pub(super) struct Outbox {
    frames: VecDeque<Control>,
    pongs: usize,
}

impl Outbox {
    pub(super) fn push(&mut self, control: Control) {
        self.frames.push_back(control);
    }

    /// An answer to ECHO. A peer that asks without end and does not read loses answers.
    pub(super) fn push_pong(&mut self, ids: (u16, u16), payload: &[u8]) {
        if self.pongs < PONGS_MAX {
            self.pongs += 1;
            self.frames.push_back(Control::Pong { ids, payload: payload.to_vec() });
        }
    }

    fn pop(&mut self) -> Option<Control> {
        let control = self.frames.pop_front()?;
        if matches!(control, Control::Pong { .. }) {
            self.pongs -= 1;
        }
        Some(control)
    }

    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }
}

/// Streams that have something to send, each in a queue at most once.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// With control frames.
    control: VecDeque<StreamKey>,
    /// With data, after having had none: a keystroke goes before bulk.
    fresh: VecDeque<StreamKey>,
    /// With more data after a packet was sent.
    bulk: VecDeque<StreamKey>,
    /// With acknowledgements that may wait for company.
    lazy_acks: VecDeque<StreamKey>,
    ack_deadline: Option<Moment>,
    /// The waiting acknowledgements have waited long enough.
    acks_due: bool,
}

impl Queues {
    pub(super) fn ack_deadline(&self) -> Option<Moment> {
        self.ack_deadline
    }

    pub(super) fn acks_due_at(&mut self, now: Moment) {
        if self.ack_deadline.is_some_and(|at| now >= at) {
            self.acks_due = true;
            self.ack_deadline = None;
        }
    }
}

impl Session {
    /// Control frames of the tunnel that wait for the link. While they are many, the caller is
    /// to read no further.
    pub fn control_backlog(&self) -> usize {
        self.outbox.len()
    }

    pub(super) fn schedule_control(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if stream.todo.any() && !stream.in_control {
            stream.in_control = true;
            self.queues.control.push_back(key);
        }
    }

    #[inline]
    pub(super) fn schedule_data(&mut self, key: StreamKey) {
        let limit = self.peer.send_limit();
        let Some(stream) = self.streams.get_mut(key) else { return };
        let may = stream.ready_bytes > 0
            && stream.unacked_bytes <= limit
            && stream.state == State::Open
            && stream.peer_id.is_some();
        if may && !stream.in_data {
            stream.in_data = true;
            self.queues.fresh.push_back(key);
        }
    }

    #[inline]
    pub(super) fn schedule_ack(&mut self, key: StreamKey, now: Moment) {
        // Towards an original an acknowledgement goes with the next batch; towards one of ours
        // it waits for a quarter of the window, for another frame, or for a moment.
        let threshold =
            self.config.offer.and(self.peer.offer).map_or(1, |_| self.own_window_bytes() / 4);
        let Some(stream) = self.streams.get_mut(key) else { return };
        if stream.ack_bytes == 0 || stream.state == State::Accepting {
            return;
        }
        if stream.ack_bytes >= threshold {
            stream.todo.ack = true;
            self.schedule_control(key);
        } else if !stream.in_lazy {
            stream.in_lazy = true;
            self.queues.lazy_acks.push_back(key);
            if self.queues.ack_deadline.is_none() {
                let delay = Duration::from_micros(ACK_DELAY_MICROS);
                self.queues.ack_deadline = Some(now.after(delay));
            }
        }
    }

    fn own_window_bytes(&self) -> u64 {
        self.config.offer.map_or(0, |offer| u64::from(offer.window_bytes))
    }

    pub(super) fn resume_reading(&mut self, key: StreamKey) {
        let paused = self.streams.get(key).is_some_and(|stream| stream.read_paused && !stream.deaf);
        if paused && self.may_read(key) {
            let user = self.streams.get(key).and_then(|stream| stream.user);
            if let Some(user) = user {
                self.events.push_back(Event::ReadMore { user });
            }
        }
    }

    /// The next frame for the link: its head is appended to `head`, and what follows it is said.
    /// `in_batch`: something else goes out with it anyway, so that acknowledgements that wait for
    /// company may join. `None`: nothing to send now.
    pub fn poll_transmit(&mut self, head: &mut Vec<u8>, in_batch: bool) -> Option<Transmit> {
        let transmit = self
            .transmit_tunnel_control(head)
            .or_else(|| self.transmit_stream_control(head))
            .or_else(|| self.transmit_data(head))
            .or_else(|| self.transmit_lazy_ack(head, in_batch))?;
        self.counters.frames_out += 1;
        Some(transmit)
    }

    fn transmit_tunnel_control(&mut self, head: &mut Vec<u8>) -> Option<Transmit> {
        match self.outbox.pop()? {
            Control::Hello => Encoder.hello(head, &self.config.hello_text, self.config.offer),
            Control::HelloOk(ids) => Encoder.hello_ok(head, ids, &self.config.hello_text),
            Control::PacketSize => Encoder.packet_size(head, self.config.packet_bytes),
            Control::FirstData => Encoder.first_data(head),
            Control::Ping(at) => Encoder.ping(head, format!("{}\0", at.0).as_bytes()),
            Control::Pong { ids, payload } => Encoder.pong(head, ids, &payload),
            Control::Closed { from, to } => {
                let none = crate::wire::v03::NO_ID;
                Encoder.closed(head, from.unwrap_or(none), to.unwrap_or(none));
            }
            Control::Refuse { to, reason } if reason.is_empty() => {
                Encoder.close(head, None, to, "No server");
            }
            Control::Refuse { to, reason } => {
                Encoder.close(head, None, to, &format!("#{reason}"));
            }
        }
        Some(Transmit::Control)
    }

    fn transmit_stream_control(&mut self, head: &mut Vec<u8>) -> Option<Transmit> {
        loop {
            let key = *self.queues.control.front()?;
            let Some(stream) = self.streams.get(key) else {
                self.queues.control.pop_front();
                continue;
            };
            if !stream.todo.any() {
                self.queues.control.pop_front();
                if let Some(stream) = self.streams.get_mut(key) {
                    stream.in_control = false;
                }
                continue;
            }
            if let Some(transmit) = self.transmit_todo(key, head) {
                return Some(transmit);
            }
            // What is left must wait for the peer's id: it comes back when that is known.
            self.queues.control.pop_front();
            if let Some(stream) = self.streams.get_mut(key) {
                stream.in_control = false;
            }
        }
    }

    /// One control frame of a stream.
    fn transmit_todo(&mut self, key: StreamKey, head: &mut Vec<u8>) -> Option<Transmit> {
        let packet_payload = self.peer.payload_max();
        let first_data = self.config.first_data && self.peer.first_data;
        let stream = self.streams.get_mut(key)?;
        let id = stream.id;
        let (first, second) = stream.addresses;
        let room = |first, second| {
            let text = u64::from(Encoder.open_text_bytes(first, second));
            if first_data { packet_payload.saturating_sub(text) } else { 0 }
        };
        if stream.todo.open {
            stream.todo.open = false;
            let bytes = stream.ready_bytes.min(room(first, second));
            stream.ready_bytes -= bytes;
            Encoder.connect(head, id, first, second, bytes as u32);
            return Some(self.first_data(key, bytes));
        }
        let peer_id = stream.peer_id?;
        if stream.todo.opened {
            stream.todo.opened = false;
            let bytes = stream.ready_bytes.min(room(first, second));
            stream.ready_bytes -= bytes;
            Encoder.connected(head, id, peer_id, first, second, bytes as u32);
            let transmit = self.first_data(key, bytes);
            self.schedule_data(key);
            // What first data the server has taken meanwhile owes no acknowledgement, but an end
            // that came while we were connecting is to be told.
            self.check_end(key);
            return Some(transmit);
        }
        if let Some(byte) = stream.todo.urgent.take() {
            Encoder.urgent(head, id, peer_id, 1);
            return Some(Transmit::Urgent { byte });
        }
        if stream.todo.urgent_taken > 0 {
            let bytes = std::mem::take(&mut stream.todo.urgent_taken);
            Encoder.urgent_taken(head, id, peer_id, u64::from(bytes));
            return Some(Transmit::Control);
        }
        if stream.todo.ack {
            stream.todo.ack = false;
            let bytes = std::mem::take(&mut stream.ack_bytes);
            if bytes > 0 {
                Encoder.taken(head, id, peer_id, bytes);
                return Some(Transmit::Control);
            }
            return self.transmit_todo(key, head);
        }
        if stream.todo.end {
            stream.todo.end = false;
            Encoder.data(head, id, peer_id, 0);
            return Some(Transmit::Control);
        }
        if stream.todo.close {
            stream.todo.close = false;
            stream.state = State::Closing;
            match stream.local_end {
                LocalEnd::Reset(reason) => {
                    Encoder.close(head, Some(id), peer_id, &format!("#{reason}"));
                }
                _ => Encoder.close(head, Some(id), peer_id, "DO close"),
            }
            return Some(Transmit::Control);
        }
        None
    }

    fn first_data(&mut self, key: StreamKey, bytes: u64) -> Transmit {
        let Some(stream) = self.streams.get(key) else { return Transmit::Control };
        let Some(user) = stream.user.filter(|_| bytes > 0) else { return Transmit::Control };
        self.counters.payload_bytes_out += bytes;
        Transmit::Data { key, user, bytes }
    }

    #[inline]
    fn transmit_data(&mut self, head: &mut Vec<u8>) -> Option<Transmit> {
        let payload_max = self.peer.payload_max();
        let limit = self.peer.send_limit();
        loop {
            let key = self.queues.fresh.pop_front().or_else(|| self.queues.bulk.pop_front())?;
            let Some(stream) = self.streams.get_mut(key) else { continue };
            stream.in_data = false;
            let (Some(peer_id), Some(user)) = (stream.peer_id, stream.user) else { continue };
            let bytes = stream.ready_bytes.min(payload_max);
            if bytes == 0 || stream.unacked_bytes > limit {
                continue;
            }
            stream.ready_bytes -= bytes;
            stream.unacked_bytes += bytes;
            stream.answered = false;
            Encoder.data(head, stream.id, peer_id, bytes as u32);
            if stream.ready_bytes > 0 {
                if stream.unacked_bytes <= limit {
                    stream.in_data = true;
                    self.queues.bulk.push_back(key);
                }
            } else if stream.local_end != LocalEnd::Not {
                self.check_end(key);
            }
            self.resume_reading(key);
            self.counters.payload_bytes_out += bytes;
            return Some(Transmit::Data { key, user, bytes });
        }
    }

    fn transmit_lazy_ack(&mut self, head: &mut Vec<u8>, in_batch: bool) -> Option<Transmit> {
        if !in_batch && !self.queues.acks_due {
            return None;
        }
        loop {
            let Some(key) = self.queues.lazy_acks.pop_front() else {
                self.queues.acks_due = false;
                self.queues.ack_deadline = None;
                return None;
            };
            let Some(stream) = self.streams.get_mut(key) else { continue };
            stream.in_lazy = false;
            let Some(peer_id) = stream.peer_id else { continue };
            if stream.ack_bytes > 0 && stream.state != State::Closing {
                let bytes = std::mem::take(&mut stream.ack_bytes);
                Encoder.taken(head, stream.id, peer_id, bytes);
                return Some(Transmit::Control);
            }
        }
    }
}
