//! Events of the local side of a stream.

use std::net::SocketAddr;

use super::hold::Hold;
use super::ports::PortRequests;
use super::runs::Runs;
use super::stream::{LocalEnd, StreamState};
use super::{Moment, OpenError, Session, StreamKey};
use crate::limits::{READ_AHEAD_BYTES, REASON_BYTES, TENTATIVE_BYTES};
use crate::wire::{self, Protocol, Transport};

impl Session {
    /// Opens a stream for a client that connected at an entrance.
    ///
    /// # Errors
    /// [`OpenError`] when the tunnel is not up or the peer takes no more streams.
    pub fn open(
        &mut self,
        user: u64,
        client: SocketAddr,
        entrance: SocketAddr,
    ) -> Result<StreamKey, OpenError> {
        self.begin(user, (client, entrance), Transport::Tcp, None)
    }

    /// As [`Session::open`], but the engine may move the stream to another tunnel if this peer does
    /// not accept it. At most [`TENTATIVE_BYTES`] of its data are sent before the peer accepts
    /// ([`super::Event::Opened`]), so that the engine can keep a copy of them.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn open_tentatively(
        &mut self,
        user: u64,
        client: SocketAddr,
        entrance: SocketAddr,
    ) -> Result<StreamKey, OpenError> {
        let key = self.open(user, client, entrance)?;
        let v1 = self.protocol == Protocol::V1;
        if let Some(stream) = self.streams.get_mut(key) {
            stream.tentative = true;
            if v1 {
                // 0.3 waits for the answer with everything but first data.
                stream.held_bytes = stream.credit_bytes.saturating_sub(TENTATIVE_BYTES);
                stream.credit_bytes -= stream.held_bytes;
            }
        }
        Ok(key)
    }

    /// SockMux 1: the peer has accepted the stream.
    pub(super) fn accepted_by_peer(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if !stream.opener || !std::mem::replace(&mut stream.tentative, false) {
            return;
        }
        stream.credit_bytes += std::mem::take(&mut stream.held_bytes);
        stream.state = StreamState::Open;
        self.schedule_data(key);
        self.resume_reading(key);
        self.check_end(key);
    }

    /// Opens a stream of bytes or of datagrams, by itself or related to another one.
    pub(super) fn begin(
        &mut self,
        user: u64,
        addresses: (SocketAddr, SocketAddr),
        transport: Transport,
        relation: Option<wire::Relation>,
    ) -> Result<StreamKey, OpenError> {
        if !self.hello.is_done() {
            return Err(OpenError::NotUp);
        }
        let limit = self.peer.streams_max();
        // A related stream is accepted for as long as its control stream lives.
        if self.peer_leaves && relation.is_none() {
            return Err(OpenError::GoingAway);
        }
        let are_datagrams = transport == Transport::Udp;
        if are_datagrams && self.protocol == Protocol::V1 && !self.peer.datagrams() {
            return Err(OpenError::NoDatagrams);
        }
        if self.streams.len() >= limit as usize {
            return Err(OpenError::TooMany { limit });
        }
        // SockMux 1 sends data without waiting for an answer to the open.
        let state = match self.protocol {
            Protocol::V03 => StreamState::Opening,
            Protocol::V1 => StreamState::Open,
        };
        let numbering = self.numbering(None);
        let key =
            self.streams.insert(state, true, numbering).ok_or(OpenError::TooMany { limit })?;
        self.open_windows(key);
        let now = self.link_window.now();
        if let Some(stream) = self.streams.get_mut(key) {
            stream.user = Some(user);
            stream.addresses = addresses;
            stream.began = now;
            stream.datagrams = are_datagrams.then(Runs::default);
            stream.ports = relation.map(PortRequests::of_relation);
            stream.todo.open = true;
        }
        self.counters.opened += 1;
        self.schedule_control(key);
        self.free_slots();
        Ok(key)
    }

    /// Sets the engine's own number of a stream that the peer opened.
    pub fn attach(&mut self, key: StreamKey, user: u64) {
        match self.streams.get_mut(key) {
            Some(stream) => stream.user = Some(user),
            None => self.counters.stale_keys += 1,
        }
    }

    /// The exit of a stream that the peer opened has connected to its server.
    pub fn accept(&mut self, key: StreamKey, server: SocketAddr, own: SocketAddr) {
        let Some(stream) = self.streams.get_mut(key) else {
            self.counters.stale_keys += 1;
            return;
        };
        debug_assert_eq!(stream.state, StreamState::Accepting);
        stream.state = StreamState::Open;
        stream.addresses = (server, own);
        stream.todo.opened = true;
        self.schedule_control(key);
    }

    /// Refuses a stream that the peer opened: it has no exit, or the server is `unreachable`. The
    /// key is void after this. An original peer gets the original's own text for `unreachable`.
    pub fn refuse(&mut self, key: StreamKey, reason: &str, unreachable: bool) {
        self.end_accepting(key, reason, unreachable, !unreachable);
    }

    fn end_accepting(&mut self, key: StreamKey, reason: &str, unreachable: bool, not_taken: bool) {
        let Some(stream) = self.remove(key) else {
            self.counters.stale_keys += 1;
            return;
        };
        let Some(to) = stream.peer_id else { return };
        let reason =
            if unreachable && !self.peer_is_ours() { String::new() } else { sayable(reason) };
        self.push_refusal(to, reason, not_taken && stream.tentative);
    }

    /// The engine has read `bytes` more of the stream, and holds them until they are sent.
    #[inline]
    pub fn data_ready(&mut self, key: StreamKey, bytes: u64) {
        let Some(stream) = self.streams.get_mut(key) else {
            self.counters.stale_keys += 1;
            return;
        };
        debug_assert!(stream.local_end == LocalEnd::Not && stream.datagrams.is_none());
        stream.ready_bytes += bytes;
        self.schedule_data(key);
    }

    /// Whether the engine may read more of this stream. If not, [`super::Event::ReadMore`] follows
    /// later.
    #[inline]
    pub fn may_read(&mut self, key: StreamKey) -> bool {
        let rule = self.send_rule();
        match self.streams.get_mut(key) {
            Some(stream) => {
                let may = stream.ready_bytes < READ_AHEAD_BYTES && rule.wants(stream);
                stream.read_paused = !may;
                may
            }
            None => false,
        }
    }

    /// The local socket has consumed `bytes` of what was delivered.
    #[inline]
    pub fn consumed(&mut self, key: StreamKey, bytes: u64, now: Moment) {
        self.link_window.clock(now);
        let Some(stream) = self.streams.get_mut(key) else {
            self.counters.stale_keys += 1;
            return;
        };
        assert!(stream.backlog_bytes >= bytes, "more was taken than had been delivered");
        stream.backlog_bytes -= bytes;
        let uncounted = bytes.min(stream.uncounted_bytes);
        stream.uncounted_bytes -= uncounted;
        stream.ack_bytes += bytes - uncounted;
        stream.rate.consumed(bytes);
        if let Some(hold) = &mut stream.hold {
            // The answer is still being delivered: extend the hold.
            hold.renew(now);
            self.free_slots();
        }
        self.schedule_ack(key, now);
    }

    /// Bytes that were delivered and that the local socket has not consumed.
    pub fn backlog_bytes(&self, key: StreamKey) -> u64 {
        self.streams.get(key).map_or(0, |stream| stream.backlog_bytes)
    }

    /// The local side has urgent data: the one byte that TCP keeps.
    pub fn urgent(&mut self, key: StreamKey, byte: u8) {
        match self.streams.get_mut(key) {
            Some(stream) if stream.local_end == LocalEnd::Not => stream.todo.urgent = Some(byte),
            _ => return,
        }
        self.schedule_control(key);
    }

    /// The local side has ended its data, and may still receive.
    pub fn data_end(&mut self, key: StreamKey, now: Moment) {
        self.link_window.clock(now);
        let half_close = self.half_close();
        let Some(stream) = self.streams.get_mut(key) else {
            self.counters.stale_keys += 1;
            return;
        };
        if stream.local_end != LocalEnd::Not {
            return;
        }
        stream.local_end = LocalEnd::Eof;
        if !half_close {
            // CLOSE would end both directions, so a client's is held while an answer may come. A
            // server (the side that did not open) that ends its data has answered.
            if stream.opener {
                stream.hold = Some(Hold::new(stream.answered, now));
                self.holds.push(key);
            }
        }
        self.check_end(key);
    }

    /// The local side was reset, or cannot receive what was delivered. Data ready to be sent still
    /// goes out as far as the peer's window allows now, so that the peer learns of the end without
    /// having to read first. `false`: nothing is left to send, and the engine may drop it; always
    /// so for datagrams.
    pub fn local_reset(&mut self, key: StreamKey, reason: &'static str) -> bool {
        self.end_by_reset(key, reason, false)
    }

    /// The local side is broken, and the engine holds all that it had sent. That goes out first,
    /// then the end of data if there was one, under the peer's backpressure. A peer that reads
    /// nothing never learns of the end: after some time the engine is to call
    /// [`Self::local_reset`]. `false`: nothing is left to send, and the engine may drop the stream.
    pub fn local_broken(&mut self, key: StreamKey, reason: &'static str) -> bool {
        self.end_by_reset(key, reason, true)
    }

    fn end_by_reset(&mut self, key: StreamKey, reason: &'static str, whole: bool) -> bool {
        let (rule, half_close) = (self.send_rule(), self.half_close());
        let Some(stream) = self.streams.get_mut(key) else {
            self.counters.stale_keys += 1;
            return false;
        };
        if stream.state == StreamState::Accepting {
            self.end_accepting(key, reason, false, false);
            return false;
        }
        let had_ended = stream.local_end == LocalEnd::Eof && !stream.end_sent;
        stream.end_before_reset = whole && half_close && (had_ended || stream.end_before_reset);
        stream.local_end = LocalEnd::Reset(reason);
        stream.hold = None;
        stream.write_failed = true;
        stream.backlog_bytes = 0;
        stream.uncounted_bytes = 0;
        stream.todo.urgent = None;
        if let Some(runs) = &mut stream.datagrams {
            self.datagram_cost_bytes -= runs.cost_bytes();
            *runs = Runs::default();
        }
        if !whole {
            let open = stream.state == StreamState::Open;
            let sendable = if open { rule.sendable(stream) } else { 0 };
            stream.ready_bytes = stream.ready_bytes.min(sendable);
        }
        let keep = stream.ready_bytes > 0;
        self.holds.retain(|&held| held != key);
        self.check_end(key);
        keep
    }

    /// Queues the end of the local side, if it can be sent now.
    pub(super) fn check_end(&mut self, key: StreamKey) {
        let (half_close, protocol) = (self.half_close(), self.protocol);
        let ours = self.peer_is_ours();
        let Some(stream) = self.streams.get_mut(key) else { return };
        // SockMux 1 may end a stream before it is answered.
        let gives_up = stream.state == StreamState::Opening
            && stream.route(protocol).is_some()
            && matches!(stream.local_end, LocalEnd::Reset(_));
        let stands = stream.state == StreamState::Open || gives_up;
        if stream.ready_bytes > 0 || !stands || stream.todo.close {
            return;
        }
        match stream.local_end {
            LocalEnd::Not => return,
            LocalEnd::Reset(_) => {
                if stream.end_before_reset && !stream.end_sent {
                    stream.end_sent = true;
                    stream.todo.end = true;
                }
                stream.todo.close = true;
            }
            LocalEnd::Eof if half_close => {
                if stream.end_sent {
                    return;
                }
                stream.end_sent = true;
                stream.todo.end = true;
            }
            LocalEnd::Eof => {
                // The original drops what its local side has not consumed 3 s after CLOSE: wait
                // until it has acknowledged everything.
                let all_taken = ours || stream.unacked_bytes == 0;
                if !all_taken {
                    return;
                }
                if stream.hold.is_some() {
                    return self.free_slots();
                }
                stream.todo.close = true;
            }
        }
        self.schedule_control(key);
        self.check_both_ended(key);
    }

    /// Closes the stream if both directions have ended and we opened it.
    pub(super) fn check_both_ended(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let both = stream.end_sent && stream.peer_end;
        if self.protocol == Protocol::V03
            && stream.opener
            && both
            && stream.state == StreamState::Open
        {
            stream.todo.close = true;
            self.schedule_control(key);
        }
    }
}

/// A reason as it is sent: one line without control characters, cut to the limit.
pub(super) fn sayable(reason: &str) -> String {
    let mut left_bytes = REASON_BYTES;
    let fits = |c: &char| {
        left_bytes = left_bytes.saturating_sub(c.len_utf8());
        left_bytes > 0
    };
    reason.chars().filter(|c| !c.is_control()).take_while(fits).collect()
}

/// The reason of a peer that refuses something, for the log.
pub(super) fn reason_of(reason: &[u8]) -> String {
    match &reason[..reason.len().min(REASON_BYTES)] {
        [] => String::from("the peer does not say why"),
        reason => String::from_utf8_lossy(reason).into_owned(),
    }
}
