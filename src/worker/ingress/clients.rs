//! Clients that come in at entrances, and which tunnel each takes: the one that came up last, or the
//! next if that is full or refuses the stream.
//!
//! A stream that another tunnel may still take is begun tentatively: what went out of its data is kept
//! until the peer has taken it. A peer that has not tried any server says so, and then the stream is
//! begun again by the next tunnel, as if nothing had been.

use std::net::SocketAddr;

use tracing::debug;

use crate::io::driver::Driver;
use crate::io::net;
use crate::limits::TENTATIVE_BYTES;
use crate::session::{NO_ADDRESS, OpenError, Session, StreamKey};
use crate::worker::ingress::access::Came;
use crate::worker::stream::conn::{Conn, Stage};
use crate::worker::stream::payload_queue::Piece;
use crate::worker::token::StreamOwner;
use crate::worker::{Drain, Key, Worker};

/// What is needed to begin a stream again.
#[derive(Debug)]
pub(in crate::worker) struct Tentative {
    entrance: SocketAddr,
    /// The tunnels whose peers have not taken it.
    refused_by: Vec<Key>,
    /// What has gone out, from the stream's first byte on.
    sent: Vec<u8>,
    urgent: Option<u8>,
}

impl Tentative {
    fn new(entrance: SocketAddr) -> Box<Tentative> {
        Box::new(Tentative { entrance, refused_by: Vec::new(), sent: Vec::new(), urgent: None })
    }
}

impl Conn {
    /// So many bytes of its input are about to go out: keeps them where its stream may have to begin
    /// again. A peer that lets more go out than it was to has the stream for good.
    pub(in crate::worker) fn keep_sent(&mut self, bytes: u64) {
        let Some(tentative) = &mut self.tentative else { return };
        let fits = tentative.sent.len() as u64 + bytes <= TENTATIVE_BYTES;
        if !fits || !self.input.copy_front(bytes as usize, &mut tentative.sent) {
            self.tentative = None;
        }
    }

    /// Urgent data is about to go out.
    pub(in crate::worker) fn keep_urgent(&mut self, byte: u8) {
        if let Some(tentative) = &mut self.tentative {
            tentative.urgent = Some(byte);
        }
    }
}

impl<D: Driver> Worker<D> {
    /// A client has come in at an entrance.
    pub(in crate::worker) fn client_came(&mut self, came: Came) {
        let has_room = self.has_room();
        if !has_room && self.hold_is_over() {
            let why = self.why_held();
            return self.cx.reject(&came.socket, came.client, &why);
        }
        if !has_room && self.drain != Drain::No {
            return self.cx.reject(&came.socket, came.client, "the tunnel is down");
        }
        let Some((key, entrance)) = self.seat_client(came, Key::NONE) else { return };
        let tentative = Tentative::new(entrance);
        if !has_room || !self.ingress.waiting.is_empty() {
            return self.await_tunnel(key, tentative);
        }
        if let Err(error) = self.begin_by_next(key, tentative) {
            self.refuse_client(key, &error.to_string());
        }
    }

    /// A client was on its way from the kernel's queue when the last tunnel went, or its last slot: it
    /// waits here, for as long as those who are still there.
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

    /// A tunnel is up and has room: begins the streams of clients that wait here.
    pub(in crate::worker) fn serve_waiting_clients(&mut self) {
        while self.has_room() {
            let Some(key) = self.ingress.waiting.pop_front() else { return };
            let Some(conn) = self.conns.get_mut(key) else { continue };
            let Some(tentative) = conn.tentative.take() else { continue };
            conn.stage = Stage::Open;
            conn.deadline = None;
            if let Err(error) = self.begin_by_next(key, tentative) {
                self.refuse_client(key, &error.to_string());
            }
        }
    }

    /// No tunnel comes any more for clients that wait here.
    pub(in crate::worker) fn refuse_waiting_clients(&mut self) {
        for key in std::mem::take(&mut self.ingress.waiting) {
            self.refuse_client(key, "the tunnel is down");
        }
    }

    /// No tunnel has come for a client that waits here.
    pub(in crate::worker) fn client_hold_expired(&mut self, key: Key) {
        self.ingress.waiting.retain(|&waiting| waiting != key);
        let why = self.why_held();
        self.refuse_client(key, &why);
    }

    /// Begins a stream in this tunnel and no other for a client that has come in, by what `open` does
    /// with the engine's number and the addresses of client and entrance.
    pub(in crate::worker) fn take_client(
        &mut self,
        tunnel: Key,
        came: Came,
        related: Option<Key>,
        open: impl FnOnce(&mut Session, u64, (SocketAddr, SocketAddr)) -> Result<StreamKey, OpenError>,
    ) {
        let Some((key, entrance)) = self.seat_client(came, tunnel) else { return };
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

    /// A connection without a stream for a client that has come in, and the entrance that it
    /// came in by. `None`: it may not stay.
    fn seat_client(&mut self, came: Came, tunnel: Key) -> Option<(Key, SocketAddr)> {
        let Came { socket, client, at, unix, .. } = came;
        let limit_guard = match self.cx.connection_limits.acquire(client.ip()) {
            Ok(limit_guard) => limit_guard,
            Err(reason) => {
                self.cx.reject(&socket, client, &reason);
                return None;
            }
        };
        // The client's own destination, so that an entrance on every address says which it was.
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

    /// Resets a client that has no stream.
    fn refuse_client(&mut self, key: Key, reason: &str) {
        let Some(conn) = self.conns.get(key) else { return };
        let client = conn.client;
        self.reset_conn(key);
        self.cx.log_refused(client, reason);
    }

    /// Begins a client's stream by the newest tunnel that is up and takes it, of those that have not
    /// refused it.
    ///
    /// # Errors
    /// Why the last of them does not.
    fn begin_by_next(&mut self, key: Key, tentative: Box<Tentative>) -> Result<(), OpenError> {
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

    /// A client's stream has begun in this tunnel.
    fn stream_begun(&mut self, key: Key, tunnel_key: Key, stream: StreamKey) {
        let now = self.cx.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.tunnel = tunnel_key;
        conn.stream = Some(stream);
        debug!(client = %conn.client, "client");
        // Of a stream that has begun before.
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

    /// The peer has the stream: it is not begun again.
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

    /// The peer has not taken a client's stream, and has tried no server: begins it again by the next
    /// tunnel. `false`: there is none.
    pub(in crate::worker) fn begin_on_next_tunnel(&mut self, key: Key, reason: &str) -> bool {
        let Some(conn) = self.conns.get_mut(key) else { return false };
        let Some(mut tentative) = conn.tentative.take() else { return false };
        if conn.fd.is_none() || !matches!(conn.stage, Stage::Open) {
            // The client has gone meanwhile.
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
        if self.begin_by_next(key, tentative).is_err() {
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
