//! The servers of streams in a proxy handshake: one after another, as the protocol asks for them.
//! See [`super::handshake`].

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tracing::debug;

use crate::cli::plan::Target;
use crate::io::chunk::Chunk;
use crate::io::driver::{Driver, Fd};
use crate::io::net;
use crate::worker::broken::Broken;
use crate::worker::context::{Cx, Effect};
use crate::worker::message::HandshakeEvent;
use crate::worker::stream::Streams;
use crate::worker::stream::conn::{Conn, ReadMode, Reading, Stage};
use crate::worker::table::Key;

/// State of the server of a stream in a proxy handshake.
#[derive(Debug)]
pub(in crate::worker) enum UpstreamState {
    None,
    /// The next dial waits until nothing is in flight on the socket of the previous server, so that
    /// late data of that one cannot be taken for data of the next.
    Closing(Target),
    Dialing(Key),
    Connected {
        /// Set if it accepts no more writes; it may still deliver data.
        broken: Option<Broken>,
    },
    /// The session is over, and the client's end awaited.
    Over,
}

/// The next server of a session whose last one was left.
pub(in crate::worker) enum NextServer {
    Dial(Target),
    /// Something is in flight on the last one's socket.
    Wait,
    None,
}

impl Streams {
    /// Closes the current server, if any.
    pub(in crate::worker) fn leave_server<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        next: UpstreamState,
    ) {
        let Some(handshake) = self.handshake(key) else { return };
        if let UpstreamState::Dialing(dial) = std::mem::replace(&mut handshake.server, next) {
            cx.forget_dial(dial, None);
        }
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.deadline = None;
        if let Some(fd) = conn.fd.take() {
            net::shut_down(&fd);
            conn.ops.cancel(&mut cx.driver);
        }
        conn.forget_output(&mut cx.buffers.pipes);
        conn.end_after_output = false;
        conn.end_doubtful = false;
        conn.read_mode = ReadMode::Sparse;
        conn.streak = 0;
    }

    /// Whether the next server can be dialled, or the stream is gone.
    pub(in crate::worker) fn may_dial_next(&self, key: Key) -> bool {
        self.conns.get(key).is_none_or(is_quiet)
    }

    /// Takes the server that is to be dialled next.
    pub(in crate::worker) fn next_server(&mut self, key: Key) -> NextServer {
        let Some(conn) = self.conns.get_mut(key) else { return NextServer::None };
        let quiet = is_quiet(conn);
        let Stage::ProxyHandshake(handshake) = &mut conn.stage else { return NextServer::None };
        match std::mem::replace(&mut handshake.server, UpstreamState::None) {
            UpstreamState::Closing(target) if quiet => {
                // The end of data of the previous server does not apply to the next.
                conn.read_ended = false;
                NextServer::Dial(target)
            }
            server @ UpstreamState::Closing(_) => {
                handshake.server = server;
                NextServer::Wait
            }
            server => {
                handshake.server = server;
                NextServer::None
            }
        }
    }

    /// This server is dialled next.
    pub(in crate::worker) fn server_named(&mut self, key: Key, target: &Target) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.entry.server_is(target);
        }
    }

    /// The proxy refuses what its client asks for.
    pub(in crate::worker) fn server_refused(&mut self, key: Key, reason: &str) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.entry.refused_here(reason);
        }
    }

    /// The server is being dialled.
    pub(in crate::worker) fn server_dialled(&mut self, key: Key, dial: Key) {
        if let Some(handshake) = self.handshake(key) {
            handshake.server = UpstreamState::Dialing(dial);
        }
    }

    /// The server is connected. Returns its address and the one it is reached from.
    pub(in crate::worker) fn server_connected(
        &mut self,
        key: Key,
        server: Fd,
    ) -> Option<(SocketAddr, SocketAddr)> {
        let conn = self.conns.get_mut(key)?;
        let Stage::ProxyHandshake(handshake) = &mut conn.stage else { return None };
        let addresses = (net::peer_address(&server), net::local_address(&server));
        handshake.server = UpstreamState::Connected { broken: None };
        conn.fd = Some(server);
        conn.deadline = None;
        conn.entry.served();
        conn.entry.server_at(addresses.0);
        Some(addresses)
    }

    /// Makes a connection that was accepted the server.
    ///
    /// # Errors
    /// There is another one.
    pub(in crate::worker) fn become_server(&mut self, key: Key, socket: &Fd) -> Result<(), String> {
        let Some(conn) = self.conns.get_mut(key) else { return Err(String::new()) };
        let is_free = conn.fd.is_none() && is_quiet(conn);
        match &mut conn.stage {
            Stage::ProxyHandshake(handshake)
                if is_free && matches!(handshake.server, UpstreamState::None) =>
            {
                handshake.server = UpstreamState::Connected { broken: None };
                conn.fd = Some(Rc::clone(socket));
                conn.entry.server_at(net::peer_address(socket));
                conn.read_ended = false;
                Ok(())
            }
            _ => Err(String::from("the conversation has another server by now")),
        }
    }

    /// Data of the server.
    pub(super) fn server_answered<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, chunk: Chunk) {
        // Late data of the previous server is no answer.
        if self.handshake(key).is_some_and(|handshake| handshake.reads_server()) {
            let event = HandshakeEvent::ServerData(chunk);
            cx.effects.push_back(Effect::Handshake(key, event));
        }
    }

    /// The protocol has handled data of the server: reads on.
    pub(in crate::worker) fn read_server_on<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        bytes: usize,
    ) {
        let Some(conn) = self.conns.get(key) else { return };
        let (tunnel, stream) = (conn.tunnel, conn.stream);
        let may_go_on = stream.is_some_and(|stream| {
            self.tunnels.get_mut(tunnel).is_some_and(|t| t.session_mut().may_read(stream))
        });
        self.update_read_mode(cx, key, bytes, may_go_on);
        self.read_conn(cx, key);
    }

    /// The server has ended its direction.
    pub(super) fn server_ended<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(handshake) = self.handshake(key) else { return };
        if let UpstreamState::Connected { broken: Some(broken) } = &handshake.server
            && !broken.ends_in_order()
        {
            let error = io::Error::from(io::ErrorKind::ConnectionReset);
            return self.reading_failed(cx, key, &error);
        }
        if handshake.reads_server() {
            cx.effects.push_back(Effect::Handshake(key, HandshakeEvent::ServerEnded));
        }
    }

    /// Reading the server's socket has failed.
    pub(super) fn reading_server_failed<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        error: &io::Error,
    ) {
        let Some(conn) = self.conns.get(key) else { return };
        let Stage::ProxyHandshake(handshake) = &conn.stage else { return };
        if handshake.reads_server() {
            debug!(stream = key.number(), client = %conn.client, %error, "the proxy's server failed");
            self.leave_server(cx, key, UpstreamState::None);
            cx.effects.push_back(Effect::Handshake(key, HandshakeEvent::ServerFailed));
        }
    }

    /// Writing to the server's socket has failed. It may have answered before it closed.
    pub(super) fn writing_server_failed<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        error: &io::Error,
    ) {
        let now = cx.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        let linger = cx.timeouts_of(conn.exit.as_ref()).linger;
        let Stage::ProxyHandshake(handshake) = &mut conn.stage else { return };
        if let UpstreamState::Connected { broken } = &mut handshake.server {
            broken.get_or_insert_with(|| Broken::new(now, linger)).write_failed(error);
            conn.forget_output(&mut cx.buffers.pipes);
            cx.effects.push_back(Effect::Handshake(key, HandshakeEvent::Client));
        }
    }

    /// Sends data of the protocol to the server.
    pub(in crate::worker) fn send_to_server<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        bytes: &[u8],
    ) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Stage::ProxyHandshake(handshake) = &conn.stage else { return };
        if !matches!(handshake.server, UpstreamState::Connected { broken: None }) {
            return;
        }
        if !cx.buffers.has_room_for(bytes.len()) {
            return self.out_of_buffers(cx, key);
        }
        cx.buffers.store(bytes, &mut conn.output);
        conn.own_bytes += bytes.len() as u64;
        self.conns.mark(key);
    }

    /// Ends the direction to the server, behind what it is still to be sent.
    pub(in crate::worker) fn end_server(&mut self, key: Key) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.end_after_output = true;
            self.conns.mark(key);
        }
    }

    /// Of `bytes` that a server has accepted, the number that came from the session and not from
    /// the protocol itself.
    pub(super) fn delivered_part(&mut self, key: Key, bytes: u64) -> u64 {
        let Some(conn) = self.conns.get_mut(key) else { return bytes };
        let own_bytes = conn.own_bytes.min(bytes);
        conn.own_bytes -= own_bytes;
        bytes - own_bytes
    }
}

/// Nothing is in flight on its last socket.
fn is_quiet(conn: &Conn) -> bool {
    conn.reading == Reading::Idle && !conn.sending
}
