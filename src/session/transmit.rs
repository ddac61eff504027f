//! Choice of the next frame for the link: control before data, and data in the order of
//! `session::turns`.

use std::collections::VecDeque;
use std::time::Duration;

use super::control::{ControlFrame, HelloFrame};
use super::liveness::FAREWELL;
use super::stream::{LocalEnd, StreamState};
use super::{Ended, Event, Moment, Session, SessionConfig, StreamKey, Transmit, turns};
use crate::limits::{ACK_DELAY_MICROS, SMALL_FRAME_BYTES, TENTATIVE_BYTES};
use crate::narrow::{to_u16, to_u32};
use crate::wire::{Encoder, Protocol, Route, v1, v03};

/// Streams with anything but data to send, each at most once per queue.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// With control frames.
    control: VecDeque<StreamKey>,
    /// With acknowledgements that may be delayed until other frames are sent.
    lazy_acks: VecDeque<StreamKey>,
    ack_deadline: Option<Moment>,
    /// The delay of the acknowledgements has expired.
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
    /// Number of queued control frames of the tunnel. While it is high, the caller is to stop
    /// reading.
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
        let (rule, quantum) = (self.send_rule(), self.quantum_bytes());
        let Some(stream) = self.streams.get_mut(key) else { return };
        let may = stream.waiting_bytes() > 0
            && rule.room(stream) > 0
            && stream.state == StreamState::Open
            && stream.route(rule.protocol).is_some();
        if may && !stream.in_data {
            self.turns.enter(key, stream, quantum);
        }
    }

    #[inline]
    pub(super) fn schedule_ack(&mut self, key: StreamKey, now: Moment) {
        if self.protocol == Protocol::V1 {
            return self.grant(key, now);
        }
        // Towards an original an acknowledgement goes with the next batch. Towards a peer of ours
        // it is delayed until a quarter of the window is consumed, another frame is sent, or a
        // short time has passed.
        let threshold =
            self.config.offer.and(self.peer.offer).map_or(1, |_| self.own_window_bytes() / 4);
        let Some(stream) = self.streams.get_mut(key) else { return };
        // Before CONNECTED and after CLOSE the peer has no stream that this could belong to.
        if stream.ack_bytes == 0
            || matches!(stream.state, StreamState::Accepting | StreamState::Closing)
        {
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
        let paused =
            self.streams.get(key).is_some_and(|stream| stream.read_paused && !stream.write_failed);
        if paused && self.may_read(key) {
            let user = self.streams.get(key).and_then(|stream| stream.user);
            if let Some(user) = user {
                self.events.push_back(Event::ReadMore { user });
            }
        }
    }

    /// Returns the next frame for the link, and appends its head to `head`. `in_batch`: other
    /// frames are sent anyway, so that delayed acknowledgements may join them. `None`: nothing can
    /// be sent now.
    pub fn poll_transmit(&mut self, head: &mut Vec<u8>, in_batch: bool) -> Option<Transmit> {
        if self.is_suspended || self.hello.undecided {
            return None;
        }
        let before = head.len();
        let transmit = self
            .transmit_hello(head)
            .or_else(|| self.transmit_report(head))
            .or_else(|| self.transmit_tunnel_control(head))
            .or_else(|| self.transmit_stream_control(head))
            .or_else(|| self.transmit_farewell_pong(head))
            .or_else(|| self.transmit_data(head))
            .or_else(|| self.transmit_lazy_ack(head, in_batch))?;
        self.counters.frames_out += 1;
        self.count_sent(&transmit, head.len() - before);
        Some(transmit)
    }

    /// The hello goes before everything else.
    fn transmit_hello(&mut self, head: &mut Vec<u8>) -> Option<Transmit> {
        match self.outbox.pop_hello()? {
            HelloFrame::Hello => {
                let SessionConfig { hello_text, offer, lane, .. } = &self.config;
                v03::Encoder.hello(head, hello_text, *offer, lane.as_ref());
            }
            HelloFrame::HelloOk(ids) => {
                v03::Encoder.hello_ok(head, ids, &self.config.answer_text);
            }
        }
        Some(Transmit::Unkept)
    }

    /// What reports on the lane goes before what belongs to it.
    fn transmit_report(&mut self, head: &mut Vec<u8>) -> Option<Transmit> {
        if let Some(total_bytes) = self.link_window.take_report() {
            v1::lane_taken(head, total_bytes);
            // Once there is something to send it costs little.
            self.place.report_soon();
            return Some(Transmit::Unkept);
        }
        let position = self.place.take_report()?;
        v1::lane_read(head, position);
        Some(Transmit::Unkept)
    }

    fn transmit_tunnel_control(&mut self, head: &mut Vec<u8>) -> Option<Transmit> {
        let encoder = self.encoder();
        let none = v03::NO_ID;
        match self.outbox.pop()? {
            ControlFrame::PacketSize => v03::Encoder.packet_size(head, self.config.packet_bytes),
            ControlFrame::FirstData => v03::Encoder.first_data(head),
            ControlFrame::Ping(at) => encoder.ping(head, format!("{}\0", at.0).as_bytes()),
            ControlFrame::Pong { ids, payload } => encoder.pong(head, ids, &payload),
            ControlFrame::Closed { from, to } => {
                let short = |id: Option<u32>| id.map_or(none, to_u16);
                v03::Encoder.closed(head, short(from), short(to));
            }
            ControlFrame::Refuse { to, reason, not_taken: true } => {
                encoder.not_taken(head, to, &reason)
            }
            ControlFrame::Refuse { to, reason, .. } => encoder.refuse(head, to, &reason),
            ControlFrame::Port(frame) => frame.encode(head),
            ControlFrame::Entrance(frame) => frame.encode(head),
            ControlFrame::GoingAway(reason) => encoder.going_away(head, reason),
            ControlFrame::Farewell => encoder.ping(head, FAREWELL),
        }
        Some(Transmit::Control)
    }

    fn transmit_farewell_pong(&mut self, head: &mut Vec<u8>) -> Option<Transmit> {
        let ids = self.farewell_asked.take()?;
        self.encoder().pong(head, ids, FAREWELL);
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
            // The rest needs the peer's id; the stream is queued again when that is known.
            self.queues.control.pop_front();
            if let Some(stream) = self.streams.get_mut(key) {
                stream.in_control = false;
            }
        }
    }

    /// Returns the next control frame of a stream.
    fn transmit_todo(&mut self, key: StreamKey, head: &mut Vec<u8>) -> Option<Transmit> {
        let (encoder, protocol) = (self.encoder(), self.protocol);
        let todo = self.streams.get(key)?.todo;
        // Computed only when needed: 0.3 formats the whole text to know its length.
        let first_room = if todo.open || todo.opened { self.first_data_room(key) } else { 0 };
        if todo.open {
            return self.transmit_open(key, first_room, head);
        }
        let stream = self.streams.get_mut(key)?;
        let route = stream.route(protocol)?;
        if stream.todo.opened {
            stream.todo.opened = false;
            let bytes = match protocol {
                Protocol::V03 => stream.take_first(first_room, &mut self.datagram_cost_bytes),
                Protocol::V1 => 0,
            };
            encoder.opened(head, route, stream.addresses, to_u32(bytes));
            return Some(self.first_data(key, bytes));
        }
        if let Some(byte) = stream.todo.urgent.take() {
            encoder.urgent(head, route);
            return Some(Transmit::Urgent { byte });
        }
        if stream.todo.urgent_taken > 0 {
            let bytes = std::mem::take(&mut stream.todo.urgent_taken);
            let (id, peer_id) = (to_u16(route.id), to_u16(route.peer_id));
            v03::Encoder.urgent_taken(head, id, peer_id, u64::from(bytes));
            return Some(Transmit::Control);
        }
        if stream.todo.ack {
            stream.todo.ack = false;
            let bytes = std::mem::take(&mut stream.ack_bytes);
            if bytes > 0 {
                if protocol == Protocol::V1 {
                    stream.allowance_bytes += bytes;
                }
                encoder.consumed(head, route, bytes);
                return Some(Transmit::Control);
            }
            return self.transmit_todo(key, head);
        }
        if stream.todo.end {
            stream.todo.end = false;
            stream.end_gone = true;
            encoder.end(head, route);
            if protocol == Protocol::V1 && stream.peer_end {
                self.finish(key, Ended::Orderly);
            }
            return Some(Transmit::Control);
        }
        if stream.todo.close {
            return self.transmit_close(key, route, head);
        }
        None
    }

    fn transmit_open(
        &mut self,
        key: StreamKey,
        first_room: u64,
        head: &mut Vec<u8>,
    ) -> Option<Transmit> {
        let encoder = self.encoder();
        let stream = self.streams.get_mut(key)?;
        stream.todo.open = false;
        let bytes = stream.take_first(first_room, &mut self.datagram_cost_bytes);
        let unknown = u32::from(v03::NO_ID);
        let route = Route { id: stream.id, peer_id: unknown, opener: true };
        if let Some(relation) = stream.take_relation() {
            v1::related(head, route, stream.transport(), relation, stream.addresses);
            return Some(self.first_data(key, 0));
        }
        encoder.open(head, route, stream.transport(), stream.addresses, to_u32(bytes));
        Some(self.first_data(key, bytes))
    }

    fn transmit_close(
        &mut self,
        key: StreamKey,
        route: Route,
        head: &mut Vec<u8>,
    ) -> Option<Transmit> {
        let encoder = self.encoder();
        let stream = self.streams.get_mut(key)?;
        stream.todo.close = false;
        stream.state = StreamState::Closing;
        let reset = match stream.local_end {
            LocalEnd::Reset(reason) => Some(reason),
            _ => None,
        };
        encoder.close(head, route, reset);
        if self.protocol == Protocol::V1 {
            let how = reset.map_or(Ended::Orderly, |reason| Ended::Reset(reason.to_owned()));
            self.finish(key, how);
        }
        Some(Transmit::Control)
    }

    /// Bytes of first data that may be sent in the frame that opens a stream, or that answers it.
    fn first_data_room(&self, key: StreamKey) -> u64 {
        let Some(stream) = self.streams.get(key) else { return 0 };
        let data_max = self.data_max();
        match self.protocol {
            Protocol::V1 if stream.datagrams.is_some() || stream.opens_related() => 0,
            Protocol::V1 => stream.credit_bytes.min(u64::from(v1::FIRST_BYTES_MAX)).min(data_max),
            Protocol::V03 if self.config.first_data && self.peer.first_data => {
                let (first, second) = stream.addresses;
                let text = u64::from(v03::Encoder.open_text_bytes(first, second));
                // At the exit, the stream no longer moves to another tunnel.
                let may_begin_again = stream.tentative && stream.opener;
                let most = match (may_begin_again, stream.datagrams.is_some()) {
                    (false, _) => data_max,
                    (true, false) => data_max.min(TENTATIVE_BYTES),
                    (true, true) => 0,
                };
                self.payload_max().saturating_sub(text).min(most)
            }
            Protocol::V03 => 0,
        }
    }

    fn first_data(&mut self, key: StreamKey, bytes: u64) -> Transmit {
        let v1 = self.protocol == Protocol::V1;
        let Some(stream) = self.streams.get_mut(key) else { return Transmit::Control };
        if v1 {
            stream.credit_bytes -= bytes;
            self.link_window.sent(bytes);
            turns::charge(stream, bytes);
        }
        let user = stream.user.filter(|_| bytes > 0);
        let are_datagrams = stream.datagrams.is_some();
        if user.is_some() {
            stream.payload_bytes_out += bytes;
        }
        // 0.3 neither counts nor acknowledges first data.
        self.schedule_data(key);
        self.check_end(key);
        self.resume_reading(key);
        let Some(user) = user else { return Transmit::Control };
        self.counters.payload_bytes_out += bytes;
        match are_datagrams {
            true => Transmit::Datagrams { key, user, bytes },
            false => Transmit::Data { key, user, bytes },
        }
    }

    #[inline]
    fn transmit_data(&mut self, head: &mut Vec<u8>) -> Option<Transmit> {
        let (rule, encoder) = (self.send_rule(), self.encoder());
        let (quantum, interactive) = (self.quantum_bytes(), self.link_window.is_interactive());
        let link_room = match rule.protocol {
            Protocol::V03 => u64::MAX,
            Protocol::V1 => self.link_window.room_bytes(self.round_trip()),
        };
        loop {
            // While the link window is full, bulk waits until the peer reports more bytes read.
            let (key, is_sparse) = match self.turns.next_sparse() {
                None if link_room == 0 => return None,
                None => (self.turns.next_bulk()?, false),
                Some(key) => (key, true),
            };
            let Some(stream) = self.streams.get_mut(key) else { continue };
            if link_room == 0 && stream.waiting_bytes() > SMALL_FRAME_BYTES {
                self.turns.put_off(key);
                continue;
            }
            if !is_sparse && !self.turns.begin(key, stream, quantum) {
                continue;
            }
            stream.in_data = false;
            let route = stream.route(rule.protocol);
            let (Some(route), Some(user)) = (route, stream.user) else { continue };
            // Not limited to the rest of its share: a frame cut there costs more than a longer one
            // whose excess is charged to the next share.
            let most = if interactive || !self.turns.is_alone() { quantum } else { u64::MAX };
            if stream.datagrams.is_some() {
                match self.transmit_datagrams(head, key, rule, most, link_room) {
                    None => continue,
                    transmit => return transmit,
                }
            }
            let bytes = stream.ready_bytes.min(rule.room(stream)).min(most);
            let bytes = if bytes > SMALL_FRAME_BYTES { bytes.min(link_room) } else { bytes };
            if bytes == 0 {
                continue;
            }
            stream.ready_bytes -= bytes;
            stream.payload_bytes_out += bytes;
            rule.spend(stream, bytes);
            turns::charge(stream, bytes);
            if rule.protocol == Protocol::V1 {
                self.link_window.sent(bytes);
                self.link_window.passed(bytes, &mut stream.small_out);
            }
            stream.answered = false;
            encoder.data(head, route, to_u32(bytes));
            if stream.ready_bytes > 0 {
                if rule.room(stream) > 0 {
                    self.turns.enter_again(key, stream);
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
            let Some(route) = stream.route(Protocol::V03) else { continue };
            if stream.ack_bytes > 0 && stream.state != StreamState::Closing {
                let bytes = std::mem::take(&mut stream.ack_bytes);
                Encoder(Protocol::V03).consumed(head, route, bytes);
                return Some(Transmit::Control);
            }
        }
    }
}
