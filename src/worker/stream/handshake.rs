//! Streams in a proxy handshake, as far as their bytes are concerned: data of the client, which
//! is held until the protocol takes it, and what is sent to it. [`super::server`] has the other side.
//! [`crate::worker::proxy`] runs the protocol. It learns by a [`HandshakeEvent`] of what happens
//! here, and calls what it wants done.
//!
//! Backpressure: client data is passed on only while the protocol wants it and the server accepts
//! the output. The rest is held and its consumption not reported, so at most a window of it
//! arrives. The server is read as far as the session has room for its answer.

use std::io;
use std::time::Duration;

use crate::io::chunk::Chunk;
use crate::io::driver::Driver;
use crate::limits::{LEAVE_MILLIS, PROXY_PIECE_BYTES, PROXY_WAITING_BYTES};
use crate::policy::connection_limits::LimitGuard;
use crate::session::NO_ADDRESS;
use crate::worker::context::{Cx, Drain, Effect};
use crate::worker::message::{HandshakeEvent, Incoming};
use crate::worker::payload_queue::PayloadQueue;
use crate::worker::stream::Streams;
use crate::worker::stream::conn::{Conn, Stage};
use crate::worker::stream::server::UpstreamState;
use crate::worker::table::Key;

/// The bytes of a stream in a proxy handshake.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) server: UpstreamState,
    /// Client data not yet passed to the protocol. Its consumption has not been reported to the
    /// session either.
    held: PayloadQueue,
    held_bytes: u64,
    /// The client's end of data, which comes after `held`.
    client_ended: bool,
}

impl Handshake {
    /// Whether its server is to be read.
    pub(super) fn reads_server(&self) -> bool {
        matches!(self.server, UpstreamState::Connected { .. })
    }

    /// Whether the protocol accepts events of client and server.
    fn listens(&self) -> bool {
        matches!(self.server, UpstreamState::None | UpstreamState::Connected { .. })
    }

    /// The dial to the server in progress, if any.
    pub(super) fn dial(&self) -> Option<Key> {
        match self.server {
            UpstreamState::Dialing(dial) => Some(dial),
            _ => None,
        }
    }
}

/// What the client has sent next.
pub(in crate::worker) enum Held {
    Data(Chunk),
    End,
}

impl Streams {
    pub(super) fn handshake(&mut self, key: Key) -> Option<&mut Handshake> {
        match &mut self.conns.get_mut(key)?.stage {
            Stage::ProxyHandshake(handshake) => Some(handshake),
            _ => None,
        }
    }

    /// Accepts a stream of the peer whose exit is a proxy. `None`: there is no room, and the peer
    /// was told.
    pub(in crate::worker) fn begin_handshake<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        incoming: &Incoming,
        limit_guard: Option<LimitGuard>,
    ) -> Option<Key> {
        let held = PayloadQueue::default();
        let handshake =
            Handshake { server: UpstreamState::None, held, held_bytes: 0, client_ended: false };
        let stage = Stage::ProxyHandshake(Box::new(handshake));
        let key = self.begin_exit(cx, incoming, limit_guard, None, stage)?;
        if let Some(conn) = self.conns.get_mut(key) {
            // The protocol must see the data, so it cannot be spliced.
            conn.copy_only = true;
        }
        if let Some(tunnel) = self.tunnels.get_mut(incoming.tunnel) {
            tunnel.session_mut().accept(incoming.stream, NO_ADDRESS, NO_ADDRESS);
        }
        self.tunnels.mark(incoming.tunnel);
        Some(key)
    }

    fn handshake_of(&self, key: Key) -> Option<&Handshake> {
        match &self.conns.get(key)?.stage {
            Stage::ProxyHandshake(handshake) => Some(handshake),
            _ => None,
        }
    }

    /// Whether a stream is in a proxy handshake.
    pub(in crate::worker) fn is_proxy_handshake(&self, key: Key) -> bool {
        self.handshake_of(key).is_some()
    }

    /// The server of a stream in a handshake.
    pub(in crate::worker) fn server_of(&self, key: Key) -> Option<&UpstreamState> {
        self.handshake_of(key).map(|handshake| &handshake.server)
    }

    /// Whether the protocol of a stream accepts events of client and server.
    pub(in crate::worker) fn listens(&self, key: Key) -> bool {
        self.handshake_of(key).is_some_and(Handshake::listens)
    }

    /// Notes that something was exchanged.
    pub(in crate::worker) fn note_exchange<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.last_data = cx.now;
        }
    }

    /// Data of the client.
    pub(super) fn hold_client_data<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, chunk: &Chunk) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Stage::ProxyHandshake(handshake) = &mut conn.stage else { return };
        let bytes = chunk.len() as u64;
        if matches!(handshake.server, UpstreamState::Over) {
            return self.report_consumed(cx, key, bytes);
        }
        // Copied, because it may be held for long and the link needs its buffer back.
        if !cx.buffers.spill(chunk, &mut conn.spill, &mut handshake.held) {
            return self.out_of_buffers(cx, key);
        }
        handshake.held_bytes += bytes;
        cx.effects.push_back(Effect::Handshake(key, HandshakeEvent::Client));
    }

    /// The client has ended its direction.
    pub(super) fn hold_client_end<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        if let Some(handshake) = self.handshake(key) {
            handshake.client_ended = true;
            cx.effects.push_back(Effect::Handshake(key, HandshakeEvent::Client));
        }
    }

    /// All output is written: the protocol may continue with what is held.
    pub(super) fn server_has_room<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        if let Some(handshake) = self.handshake(key)
            && (handshake.client_ended || !handshake.held.is_empty())
            && handshake.listens()
        {
            cx.effects.push_back(Effect::Handshake(key, HandshakeEvent::Client));
        }
    }

    /// What the client has sent next, as far as the protocol wants it and the server accepts it.
    pub(in crate::worker) fn take_held<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        is_wanted: bool,
    ) -> Option<Held> {
        let conn = self.conns.get_mut(key)?;
        let Stage::ProxyHandshake(handshake) = &mut conn.stage else { return None };
        if !handshake.listens() {
            return None;
        }
        if handshake.held.is_empty() {
            return std::mem::take(&mut handshake.client_ended).then_some(Held::End);
        }
        if conn.own_bytes > PROXY_WAITING_BYTES || !is_wanted {
            return None;
        }
        let mut rest = handshake.held.pop_chunk()?;
        let piece = rest.split_to(rest.len().min(PROXY_PIECE_BYTES));
        if !rest.is_empty() {
            handshake.held.push_chunk_front(rest);
        }
        handshake.held_bytes -= piece.len() as u64;
        self.report_consumed(cx, key, piece.len() as u64);
        Some(Held::Data(piece))
    }

    /// Reports delivered data as consumed.
    fn report_consumed<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, bytes: u64) {
        let now = cx.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        let (tunnel, stream) = (conn.tunnel, conn.stream);
        if let (Some(tunnel), Some(stream)) = (self.tunnels.get_mut(tunnel), stream) {
            tunnel.session_mut().consumed(stream, bytes, now);
        }
        self.tunnels.mark(tunnel);
    }

    /// Sends data of the protocol to the client.
    pub(in crate::worker) fn send_to_client<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        bytes: &[u8],
    ) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if !cx.buffers.has_room_for(bytes.len()) {
            return self.out_of_buffers(cx, key);
        }
        cx.buffers.store(bytes, &mut conn.input);
        let (tunnel, stream) = (conn.tunnel, conn.stream);
        if let (Some(tunnel), Some(stream)) = (self.tunnels.get_mut(tunnel), stream) {
            tunnel.session_mut().data_ready(stream, bytes.len() as u64);
        }
        self.tunnels.mark(tunnel);
    }

    /// Hands over client data that was held while the client's name was looked up.
    pub(super) fn take_over_held<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        before: &mut Conn,
    ) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Stage::ProxyHandshake(handshake) = &mut conn.stage else { return };
        // Nothing else can be held yet: the handshake has just begun.
        std::mem::swap(&mut conn.spill, &mut before.spill);
        while let Some(chunk) = before.output.pop_chunk() {
            handshake.held_bytes += chunk.len() as u64;
            handshake.held.push_chunk(chunk);
        }
        handshake.client_ended |= before.end_after_output;
        cx.effects.push_back(Effect::Handshake(key, HandshakeEvent::Client));
    }

    /// The handshake is done: turns the stream into an ordinary one.
    pub(in crate::worker) fn pass<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let handshake = match std::mem::replace(&mut conn.stage, Stage::Open) {
            Stage::ProxyHandshake(handshake) => handshake,
            other => return conn.stage = other,
        };
        conn.copy_only = false;
        conn.deadline = None;
        let Handshake { mut held, client_ended, server, .. } = *handshake;
        while let Some(chunk) = held.pop_chunk() {
            conn.output.push_chunk(chunk);
        }
        conn.end_after_output |= client_ended;
        if conn.fd.is_none() {
            let gone = io::Error::from(io::ErrorKind::NotConnected);
            return self.finish_broken(cx, key, "reset", &gone);
        }
        if let UpstreamState::Connected { broken: Some(broken) } = server {
            conn.broken = Some(Box::new(broken));
            return match conn.read_ended {
                true => self.conn_ended(cx, key),
                false => self.break_conn(cx, key, None),
            };
        }
        if conn.read_ended {
            self.conn_ended(cx, key);
        }
        self.conns.mark(key);
        self.join_when_quiescent(cx, key);
        self.read_conn(cx, key);
    }

    /// Ends the direction to the client, whose server was left. Its further data is discarded.
    pub(in crate::worker) fn end_client<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let now = cx.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        let grace = match cx.drain {
            Drain::No => cx.timeouts_of(conn.exit.as_ref()).linger,
            _ => Some(Duration::from_millis(LEAVE_MILLIS)),
        };
        let Stage::ProxyHandshake(handshake) = &mut conn.stage else { return };
        handshake.held = PayloadQueue::default();
        let held_bytes = std::mem::take(&mut handshake.held_bytes);
        let (tunnel, stream) = (conn.tunnel, conn.stream);
        if let (Some(tunnel), Some(stream)) = (self.tunnels.get_mut(tunnel), stream) {
            tunnel.session_mut().data_end(stream, now);
        }
        self.report_consumed(cx, key, held_bytes);
        self.set_deadline(cx, key, grace.map(|grace| now.after(grace)));
    }
}
