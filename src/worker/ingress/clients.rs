//! Opens streams for clients of entrances, on the newest tunnel, or on the next one if that is full
//! or refuses the stream.
//!
//! While another tunnel could still take a stream it is tentative: data sent is kept until the peer
//! has accepted the stream. A peer that refuses it without having tried a server reports so, and
//! the stream begins again on the next tunnel.

use std::net::SocketAddr;

use tracing::debug;

use crate::io::driver::Driver;
use crate::io::net;
use crate::limits::TENTATIVE_BYTES;
use crate::session::{NO_ADDRESS, OpenError, Session, StreamKey};
use crate::worker::ingress::access::Came;
use crate::worker::payload_queue::Piece;
use crate::worker::stream::conn::{Conn, Stage};
use crate::worker::token::StreamOwner;
use crate::worker::{Drain, Key, Worker};

/// State needed to begin a stream again.
#[derive(Debug)]
pub(in crate::worker) struct Tentative {
    entrance: SocketAddr,
    /// Tunnels whose peers have refused it.
    refused_by: Vec<Key>,
    /// Data sent so far, from the first byte.
    sent: Vec<u8>,
    urgent: Option<u8>,
}

impl Tentative {
    fn new(entrance: SocketAddr) -> Box<Tentative> {
        Box::new(Tentative { entrance, refused_by: Vec::new(), sent: Vec::new(), urgent: None })
    }
}

impl Conn {
    /// Keeps input that is about to be sent, while the stream may have to begin again. Gives up if
    /// it exceeds the limit: the peer that allowed so much keeps the stream.
    pub(in crate::worker) fn keep_sent(&mut self, bytes: u64) {
        let Some(tentative) = &mut self.tentative else { return };
        let fits = tentative.sent.len() as u64 + bytes <= TENTATIVE_BYTES;
        if !fits || !self.input.copy_front(bytes as usize, &mut tentative.sent) {
            self.tentative = None;
        }
    }

    /// Keeps urgent data that is about to be sent.
    pub(in crate::worker) fn keep_urgent(&mut self, byte: u8) {
        if let Some(tentative) = &mut self.tentative {
            tentative.urgent = Some(byte);
        }
    }
}

impl<D: Driver> Worker<D> {
    /// Handles a client accepted at an entrance.
    pub(in crate::worker) fn on_client(&mut self, came: Came) {
        let has_room = self.has_room();
        if !has_room && self.hold_has_expired() {
            let why = self.hold_reason();
            return self.cx.reject(&came.socket, came.client, &why);
        }
        if !has_room && self.drain != Drain::No {
            return self.cx.reject(&came.socket, came.client, "the tunnel is down");
        }
        let Some((key, entrance)) = self.add_client(came, Key::NONE) else { return };
        let tentative = Tentative::new(entrance);
        if !has_room || !self.ingress.waiting.is_empty() {
            return self.await_tunnel(key, tentative);
        }
        if let Err(error) = self.begin_on_newest(key, tentative) {
            self.refuse_client(key, &error.to_string());
        }
    }

    /// Keeps a client that was accepted just after the last tunnel, or its last slot, was gone. It
    /// waits as long as those in the kernel's queue.
    fn await_tunnel(&mut self, key: Key, tentative: Box<Tentative>) {
        if !self.ingress.clients_held {
            self.hold_clients();
        }
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.stage = Stage::Waiting;
        conn.tentative = Some(tentative);
        self.set_deadline(key, self.ingress.hold_deadline);
        self.ingress.waiting.push_back(key);
    }

    /// Begins streams of waiting clients while a tunnel has room.
    pub(in crate::worker) fn serve_waiting_clients(&mut self) {
        while self.has_room() {
            let Some(key) = self.ingress.waiting.pop_front() else { return };
            let Some(conn) = self.conns.get_mut(key) else { continue };
            let Some(tentative) = conn.tentative.take() else { continue };
            conn.stage = Stage::Open;
            conn.deadline = None;
            if let Err(error) = self.begin_on_newest(key, tentative) {
                self.refuse_client(key, &error.to_string());
            }
        }
    }

    /// Refuses all waiting clients: no tunnel will come.
    pub(in crate::worker) fn refuse_waiting_clients(&mut self) {
        for key in std::mem::take(&mut self.ingress.waiting) {
            self.refuse_client(key, "the tunnel is down");
        }
    }

    /// The hold time of a waiting client has expired.
    pub(in crate::worker) fn client_hold_expired(&mut self, key: Key) {
        self.ingress.waiting.retain(|&waiting| waiting != key);
        let why = self.hold_reason();
        self.refuse_client(key, &why);
    }

    /// Begins a stream of a client on this tunnel only. `open` gets the owner value and the
    /// addresses of client and entrance.
    pub(in crate::worker) fn take_client(
        &mut self,
        tunnel: Key,
        came: Came,
        related: Option<Key>,
        open: impl FnOnce(&mut Session, u64, (SocketAddr, SocketAddr)) -> Result<StreamKey, OpenError>,
    ) {
        let Some((key, entrance)) = self.add_client(came, tunnel) else { return };
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.related = related;
        let addresses = (conn.client.address(), entrance);
        let opened = match self.tunnels.get_mut(tunnel) {
            Some(tunnel) => open(tunnel.session_mut(), StreamOwner::Conn(key).user(), addresses),
            None => Err(OpenError::NotUp),
        };
        match opened {
            Ok(stream) => self.stream_begun(key, tunnel, stream),
            Err(error) => self.refuse_client(key, &error.to_string()),
        }
    }

    /// Adds a connection without a stream for a client; also returns the address of the entrance.
    /// `None`: it was rejected.
    fn add_client(&mut self, came: Came, tunnel: Key) -> Option<(Key, SocketAddr)> {
        let Came { socket, client, at, unix, .. } = came;
        let limit_guard = match self.cx.connection_limits.acquire(client.ip()) {
            Ok(limit_guard) => limit_guard,
            Err(reason) => {
                self.cx.reject(&socket, client, &reason);
                return None;
            }
        };
        // The client's own destination tells which address of a wildcard entrance it used.
        let own = net::local_address(&socket);
        let entrance = if own == NO_ADDRESS { at } else { own };
        let mut conn = Conn::new(tunnel, Stage::Open, client, self.cx.now);
        conn.limit_guard = limit_guard;
        conn.fd = Some(socket.clone());
        let Some(key) = self.conns.insert(conn) else {
            self.cx.reject(&socket, client, "too many connections are open here");
            return None;
        };
        if !unix {
            net::set_up_local(&socket);
            self.cx.congestion.set_after(&socket);
        }
        Some((key, entrance))
    }

    /// Resets a client without a stream.
    fn refuse_client(&mut self, key: Key, reason: &str) {
        let Some(conn) = self.conns.get(key) else { return };
        let client = conn.client;
        self.reset_conn(key);
        self.cx.log_refused(client, reason);
    }

    /// Begins a stream on the newest tunnel that accepts it and has not refused it before.
    ///
    /// # Errors
    /// The reason of the last tunnel.
    fn begin_on_newest(&mut self, key: Key, tentative: Box<Tentative>) -> Result<(), OpenError> {
        let mut why = OpenError::NotUp;
        for at in (0..self.tunnels.up().len()).rev() {
            let tunnel_key = self.tunnels.up()[at];
            let refused = |key: &Key| tentative.refused_by.contains(key);
            let Some(conn) = self.conns.get_mut(key) else { return Ok(()) };
            let is_last = self.tunnels.up()[..at].iter().all(refused);
            let Some(tunnel) = self.tunnels.get_mut(tunnel_key) else { continue };
            if refused(&tunnel_key) {
                continue;
            }
            let (session, user) = (tunnel.session_mut(), StreamOwner::Conn(key).user());
            let (client, entrance) = (conn.client.address(), tentative.entrance);
            let opened = match is_last {
                true => session.open(user, client, entrance),
                false => session.open_tentatively(user, client, entrance),
            };
            match opened {
                Ok(stream) => {
                    conn.tentative = (!is_last).then_some(tentative);
                    self.stream_begun(key, tunnel_key, stream);
                    return Ok(());
                }
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// Registers a client's new stream.
    fn stream_begun(&mut self, key: Key, tunnel_key: Key, stream: StreamKey) {
        let now = self.cx.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.tunnel = tunnel_key;
        conn.stream = Some(stream);
        debug!(client = %conn.client, "client");
        // Input of an earlier attempt.
        let (bytes, ended) = (conn.input.len_bytes() as u64, conn.read_ended);
        if let Some(tunnel) = self.tunnels.get_mut(tunnel_key) {
            if bytes > 0 {
                tunnel.session_mut().data_ready(stream, bytes);
            }
            if ended {
                tunnel.session_mut().data_end(stream, now);
            }
        }
        self.read_conn(key);
        self.tunnels.mark(tunnel_key);
    }

    /// The peer has accepted the stream: it is no longer tentative.
    pub(in crate::worker) fn stream_opened(&mut self, user: u64) {
        match StreamOwner::of(user) {
            StreamOwner::Flow(flow) => self.datagrams.flow_opened(flow),
            StreamOwner::Conn(conn) => {
                if let Some(conn) = self.conns.get_mut(conn) {
                    conn.tentative = None;
                }
            }
        }
    }

    /// The peer has refused a stream without having tried a server: begins it again on the next
    /// tunnel. `false`: there is none.
    pub(in crate::worker) fn begin_on_next_tunnel(&mut self, key: Key, reason: &str) -> bool {
        let Some(conn) = self.conns.get_mut(key) else { return false };
        let Some(mut tentative) = conn.tentative.take() else { return false };
        if conn.fd.is_none() || !matches!(conn.stage, Stage::Open) {
            // The client is gone.
            return false;
        }
        debug!(client = %conn.client, reason, "the next tunnel is tried");
        tentative.refused_by.push(conn.tunnel);
        conn.stream = None;
        let sent = std::mem::take(&mut tentative.sent);
        if !sent.is_empty() {
            if !self.cx.buffers.has_room_for(sent.len()) {
                return false;
            }
            let rest = conn.input.take_queue();
            self.cx.buffers.store(&sent, &mut conn.input);
            for piece in rest {
                match piece {
                    Piece::Chunk(chunk) => conn.input.push_chunk(chunk),
                    Piece::Piped(bytes) => conn.input.push_piped(bytes),
                }
            }
        }
        let urgent = tentative.urgent;
        if self.begin_on_newest(key, tentative).is_err() {
            return false;
        }
        if let (Some(byte), Some(conn)) = (urgent, self.conns.get_mut(key)) {
            conn.keep_urgent(byte);
            if let (Some(tunnel), Some(stream)) = (self.tunnels.get_mut(conn.tunnel), conn.stream) {
                tunnel.session_mut().urgent(stream, byte);
            }
        }
        true
    }
}
