//! Handling of frames from the peer.

use std::net::SocketAddr;

use super::control::ControlFrame;
use super::liveness::FAREWELL;
use super::runs::Runs;
use super::stream::{Stream, StreamState};
use super::{Ended, Event, Moment, Related, Session, Sink, StreamKey, TunnelError, v03};
use crate::limits::{BEFORE_HELLO_MAX, CREDIT_BYTES_MAX};
use crate::wire::{Frame, Protocol, StreamRef, Transport};

impl Session {
    /// Handles a frame from the peer, and returns where the payload behind it goes.
    ///
    /// The caller handles all events before it delivers that payload.
    ///
    /// # Errors
    /// [`TunnelError`] when the peer breaks the protocol: the tunnel is over.
    pub fn on_frame(&mut self, frame: Frame<'_>, now: Moment) -> Result<Sink, TunnelError> {
        self.counters.frames_in += 1;
        if self.protocol == Protocol::V1
            && let Frame::Data { bytes, .. }
            | Frame::Datagrams { bytes, .. }
            | Frame::Open { first_bytes: bytes, .. } = frame
        {
            // Counted even if no stream takes it, because it was read from the link.
            self.link_received(u64::from(bytes), now);
        }
        match frame {
            Frame::Hello { ids, offer, lane } => self.on_hello(ids, (offer, lane), now)?,
            Frame::HelloOk { ids } => self.on_hello_ok(ids, now),
            // Frames before the end of the hello are discarded, as the original does.
            frame if !self.hello.is_done() => {
                self.counters.ignored_frames += 1;
                if self.counters.ignored_frames > BEFORE_HELLO_MAX {
                    return Err(TunnelError::NoHello);
                }
                self.counters.discarded_bytes += u64::from(frame.payload_bytes());
            }
            Frame::Data { to, bytes } => return self.on_data(to, bytes, now),
            Frame::Datagrams { to, size_bytes, bytes } => {
                return Ok(self.on_datagrams(to, size_bytes, bytes));
            }
            Frame::Consumed { to, bytes } => self.on_consumed(to, bytes)?,
            Frame::End { to } => self.on_end(to),
            Frame::LaneTaken { total_bytes } => self.on_lane_taken(total_bytes, now)?,
            Frame::LaneRead { position } => self.on_lane_read(position, now)?,
            Frame::GoingAway { .. } => self.on_going_away()?,
            Frame::Open { from, client, entrance, transport, first_bytes } => {
                let Some(key) = self.on_open(from, client, entrance, transport)? else {
                    return Ok(self.discard(first_bytes));
                };
                return self.deliver_first(key, first_bytes, now);
            }
            Frame::Listen { to, request, transport } => self.on_listen(to, request, transport)?,
            Frame::Listening { to, request, result } => self.on_listening(to, request, result)?,
            Frame::Unlisten { to, request } => self.on_unlisten(to, request)?,
            Frame::Related { from, transport, what, client, entrance } => {
                self.on_related(from, transport, what, (client, entrance))?;
            }
            Frame::Entrance { request, transport, at } => {
                self.on_entrance(request, transport, at)?;
            }
            Frame::EntranceState { request, state } => self.on_entrance_state(request, state)?,
            Frame::Opened { from, to, first_bytes } => {
                let Some(key) = self.on_opened(from, to) else {
                    return Ok(self.discard(first_bytes));
                };
                return self.deliver_first(key, first_bytes, now);
            }
            Frame::Urgent { to, bytes, .. } => return Ok(self.on_urgent(to, bytes)),
            Frame::Close { from, to, reason, kind } => self.on_close(from, to, reason, kind),
            Frame::Closed { from, to } => self.on_closed(from, to),
            Frame::Ping { ids, payload } if payload == FAREWELL => self.farewell_asked = Some(ids),
            Frame::Ping { ids, payload } => self.outbox.push_pong(ids, payload),
            Frame::Pong { payload } => self.on_pong(payload, now),
            Frame::PacketSize(bytes) => {
                self.peer.packet_bytes = bytes.min(self.config.packet_bytes);
                self.peer.packet_size_said = true;
            }
            Frame::FirstData => self.peer.first_data = true,
            Frame::CipherOn => return Err(TunnelError::CipherOn),
            Frame::UrgentTaken => {}
            Frame::Ignored(_) => self.counters.ignored_frames += 1,
        }
        Ok(Sink::Discard)
    }

    fn on_hello(
        &mut self,
        ids: (u16, u16),
        (offer, lane): (Option<v03::Offer>, Option<v03::LaneHello>),
        now: Moment,
    ) -> Result<(), TunnelError> {
        if self.hello.greeted {
            return Err(TunnelError::HelloAgain);
        }
        self.hello.greeted = true;
        if !self.hello.is_said() {
            self.say_hello();
        }
        self.peer.offer = self.config.offer.and(offer);
        let may_resume = offer.is_some_and(|offer| offer.newest >= 1);
        self.peer.lane = self.config.lane.and(lane).filter(|_| may_resume);
        if let Some(again) = self.peer.lane.and_then(|lane| lane.again) {
            self.hello.undecided = true;
            self.events.push_back(Event::TakeUp { again });
        }
        self.say_hello_ok(ids);
        self.check_up(now);
        Ok(())
    }

    fn on_hello_ok(&mut self, ids: (u16, u16), now: Moment) {
        // The second HELLOOK of each side carries nothing new.
        if self.hello.answered {
            return;
        }
        self.hello.answered = true;
        if !self.hello.is_said() {
            self.say_hello();
        }
        // If it were going to send HELLO, that would have preceded its answer.
        self.hello.greeted |= self.config.answer_suffices;
        self.say_hello_ok(ids);
        self.check_up(now);
    }

    fn check_up(&mut self, now: Moment) {
        if !self.hello.is_done() {
            return;
        }
        self.liveness.hello_done();
        let newest = |offer: v03::Offer| offer.newest;
        let (own, peer) = (self.config.offer.map(newest), self.peer.offer.map(newest));
        if own >= Some(1) && peer >= Some(1) {
            self.protocol = Protocol::V1;
            self.place.begin(self.peer.lane.is_some());
            // Windows are sized by the round trip of the path.
            self.ping(now);
        } else {
            self.outbox.push(ControlFrame::PacketSize);
            if self.config.first_data {
                self.outbox.push(ControlFrame::FirstData);
            }
        }
        if let (Some(reason), true) = (self.refusing, self.peer_is_ours()) {
            self.outbox.push(ControlFrame::GoingAway(reason));
        }
        self.events.push_back(Event::Up { ours: self.peer_is_ours(), protocol: self.protocol });
    }

    fn on_going_away(&mut self) -> Result<(), TunnelError> {
        if !self.peer_is_ours() {
            // No original sends it.
            self.counters.ignored_frames += 1;
        } else if std::mem::replace(&mut self.peer_leaves, true) {
            return Err(TunnelError::GoingAwayAgain);
        } else {
            self.events.push_back(Event::GoingAway);
        }
        Ok(())
    }

    pub(super) fn discard(&mut self, bytes: u32) -> Sink {
        self.counters.discarded_bytes += u64::from(bytes);
        Sink::Discard
    }

    pub(super) fn find(&mut self, to: StreamRef) -> Option<StreamKey> {
        let key = match self.protocol {
            Protocol::V03 => self.streams.by_short(to),
            Protocol::V1 => self.streams.by_number(to),
        };
        if key.is_none() {
            self.counters.unknown_ids += 1;
        }
        key
    }

    #[inline]
    fn on_data(&mut self, to: StreamRef, bytes: u32, now: Moment) -> Result<Sink, TunnelError> {
        let Some(key) = self.find(to) else { return Ok(self.discard(bytes)) };
        if bytes == 0 {
            if self.half_close() && !self.is_unsuited(key) {
                self.on_peer_end(key);
            }
            return Ok(Sink::Discard);
        }
        if self.protocol == Protocol::V1 && self.is_unsuited(key) {
            return Ok(self.discard(bytes));
        }
        self.deliver(key, bytes, false, now)
    }

    /// Delivers first data, which the sender does not count and we do not acknowledge.
    fn deliver_first(
        &mut self,
        key: StreamKey,
        bytes: u32,
        now: Moment,
    ) -> Result<Sink, TunnelError> {
        if bytes == 0 { Ok(Sink::Discard) } else { self.deliver(key, bytes, true, now) }
    }

    #[inline]
    fn deliver(
        &mut self,
        key: StreamKey,
        bytes: u32,
        first: bool,
        now: Moment,
    ) -> Result<Sink, TunnelError> {
        let (protocol, backlog_limit) = (self.protocol, self.backlog_limit());
        let Some(stream) = self.streams.get_mut(key) else { return Ok(self.discard(bytes)) };
        if stream.write_failed || stream.peer_end {
            return Ok(self.discard(bytes));
        }
        let bytes = u64::from(bytes);
        stream.backlog_bytes += bytes;
        self.link_window.passed(bytes, &mut stream.small_in);
        stream.answered = true;
        stream.filling_since.get_or_insert(now);
        let limit_bytes = match protocol {
            Protocol::V03 => backlog_limit,
            Protocol::V1 => stream.window_bytes,
        };
        let within = match protocol {
            Protocol::V03 => stream.backlog_bytes <= limit_bytes,
            Protocol::V1 => match stream.allowance_bytes.checked_sub(bytes) {
                Some(rest) => {
                    stream.allowance_bytes = rest;
                    true
                }
                None => false,
            },
        };
        if !within {
            let backlog_bytes = stream.backlog_bytes;
            return Err(TunnelError::WindowOverrun { backlog_bytes, limit_bytes });
        }
        if first && protocol == Protocol::V03 {
            stream.uncounted_bytes += bytes;
        }
        stream.payload_bytes_in += bytes;
        self.counters.payload_bytes_in += bytes;
        Ok(Sink::Stream(key))
    }

    fn on_end(&mut self, to: StreamRef) {
        if let Some(key) = self.find(to)
            && !self.is_unsuited(key)
        {
            self.on_peer_end(key);
        }
    }

    fn on_peer_end(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if std::mem::replace(&mut stream.peer_end, true) {
            return;
        }
        let both_gone = self.protocol == Protocol::V1 && stream.end_gone;
        if let (Some(user), false) = (stream.user, stream.write_failed) {
            self.events.push_back(Event::EndOfData { user });
        }
        if both_gone {
            self.finish(key, Ended::Orderly);
        } else {
            self.check_both_ended(key);
        }
    }

    #[inline]
    fn on_consumed(&mut self, to: StreamRef, bytes: u64) -> Result<(), TunnelError> {
        let Some(key) = self.find(to) else { return Ok(()) };
        let protocol = self.protocol;
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        match protocol {
            Protocol::V03 => {
                let Some(rest) = stream.unacked_bytes.checked_sub(bytes) else {
                    let extra_bytes = bytes.saturating_sub(stream.unacked_bytes);
                    return Err(TunnelError::AckOverrun { extra_bytes });
                };
                stream.unacked_bytes = rest;
                if let Some(hold) = stream.hold.as_mut().filter(|_| rest == 0) {
                    hold.renew(self.link_window.now());
                }
            }
            Protocol::V1 if stream.datagrams.is_some() => {
                self.counters.unsuited_frames += 1;
                return Ok(());
            }
            Protocol::V1 => {
                stream.credit_bytes += bytes;
                if stream.credit_bytes > CREDIT_BYTES_MAX {
                    let extra_bytes = stream.credit_bytes;
                    return Err(TunnelError::AckOverrun { extra_bytes });
                }
            }
        }
        self.schedule_data(key);
        self.resume_reading(key);
        self.check_end(key);
        Ok(())
    }

    fn on_open(
        &mut self,
        from: Option<u32>,
        client: Option<SocketAddr>,
        entrance: Option<SocketAddr>,
        transport: Option<Transport>,
    ) -> Result<Option<StreamKey>, TunnelError> {
        // Without an id of the peer's the open cannot be answered.
        let Some(from) = from else { return Ok(None) };
        self.check_number(from)?;
        self.refusals.remove(from);
        if let Some(reason) = self.refusing {
            self.push_refusal(from, String::from(reason), true);
            return Ok(None);
        }
        Ok(self.let_in(from, (client, entrance), transport, None))
    }

    /// The number of a new stream of the peer must be free.
    pub(super) fn check_number(&self, number: u32) -> Result<(), TunnelError> {
        match self.protocol == Protocol::V1 && self.streams.is_taken(number) {
            true => Err(TunnelError::BadNumber { number }),
            false => Ok(()),
        }
    }

    /// Accepts a stream that the peer opens, or refuses it if there are too many.
    pub(super) fn let_in(
        &mut self,
        from: u32,
        (client, entrance): (Option<SocketAddr>, Option<SocketAddr>),
        transport: Option<Transport>,
        related: Option<Related>,
    ) -> Option<StreamKey> {
        // A peer of ours is held to the limit that we offered; an original keeps its own.
        let limit = match self.peer.offer.and(self.config.offer) {
            Some(offer) => offer.streams_max,
            None => self.peer.id_max(),
        };
        let numbering = self.numbering(Some(from));
        let key = (self.streams.len() < limit as usize)
            .then(|| self.streams.insert(StreamState::Accepting, false, numbering))
            .flatten();
        let Some(key) = key else {
            let reason = format!("at most {limit} streams at once are taken here");
            self.push_refusal(from, reason, true);
            return None;
        };
        self.open_windows(key);
        if let Some(stream) = self.streams.get_mut(key) {
            stream.peer_id = Some(from);
            stream.tentative = related.is_none();
            stream.datagrams = (transport == Some(Transport::Udp)).then(Runs::default);
        }
        self.counters.accepted += 1;
        self.free_slots();
        self.events.push_back(Event::Incoming { key, client, entrance, transport, related });
        Some(key)
    }

    fn on_opened(&mut self, from: Option<u32>, to: StreamRef) -> Option<StreamKey> {
        let key = self.find(to)?;
        let v1 = self.protocol == Protocol::V1;
        let stream = self.streams.get_mut(key)?;
        if v1 {
            // Data has been sent since the open, so only the engine needs to know.
            if let (Some(user), true, false) = (stream.user, stream.opener, stream.write_failed) {
                self.events.push_back(Event::Opened { user });
            }
            self.accepted_by_peer(key);
            return Some(key);
        }
        let from = from?;
        if stream.state != StreamState::Opening {
            self.counters.unknown_ids += 1;
            return None;
        }
        stream.state = StreamState::Open;
        stream.peer_id = Some(from);
        let began = stream.began;
        if let Some(hold) = &mut stream.hold {
            hold.renew(self.link_window.now());
        }
        if let (Some(user), false) = (stream.user, stream.write_failed) {
            self.events.push_back(Event::Opened { user });
        }
        self.liveness.answered_open(began, self.link_window.now());
        self.schedule_control(key);
        self.schedule_data(key);
        self.resume_reading(key);
        self.check_end(key);
        Some(key)
    }

    fn on_urgent(&mut self, to: StreamRef, bytes: u32) -> Sink {
        let Some(key) = self.find(to) else { return self.discard(bytes) };
        if self.is_unsuited(key) {
            return self.discard(bytes);
        }
        let Some(stream) = self.streams.get_mut(key) else { return self.discard(bytes) };
        // Before CONNECTED and after CLOSE the peer has no stream that the answer could belong to.
        if stream.state == StreamState::Open && self.protocol == Protocol::V03 {
            stream.todo.urgent_taken = stream.todo.urgent_taken.saturating_add(bytes);
        }
        let discards = stream.write_failed || stream.peer_end;
        self.schedule_control(key);
        if discards { self.discard(bytes) } else { Sink::Urgent(key) }
    }

    /// Removes a stream and releases its part of the shared budgets.
    pub(super) fn remove(&mut self, key: StreamKey) -> Option<Stream> {
        let stream = self.streams.remove(key)?;
        self.close_windows(&stream);
        self.datagram_cost_bytes -= stream.datagrams.as_ref().map_or(0, Runs::cost_bytes);
        Some(stream)
    }

    /// Removes a stream and reports its end to the engine.
    pub(super) fn finish(&mut self, key: StreamKey, how: Ended) {
        let Some(stream) = self.remove(key) else { return };
        self.holds.retain(|&held| held != key);
        if let Some(user) = stream.user {
            self.events.push_back(Event::Ended { user, how });
        }
    }
}
