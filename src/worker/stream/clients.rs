//! Begins streams of clients of entrances, on the newest tunnel, or on the next one if that is full
//! or refuses the stream.
//!
//! While another tunnel could still take a stream it is tentative: data sent is kept until the peer
//! has accepted the stream. A peer that refuses it without having tried a server reports so, and
//! the stream begins again on the next tunnel.

use std::net::SocketAddr;

use tracing::debug;

use crate::io::driver::Driver;
use crate::io::net;
use crate::limits::{LISTEN_BACKLOG, TENTATIVE_BYTES};
use crate::session::{Moment, NO_ADDRESS, OpenError, Session, StreamKey};
use crate::worker::buffers;
use crate::worker::context::Cx;
use crate::worker::log_ids::LogIds;
use crate::worker::message::{AcceptedConn, LedTo};
use crate::worker::payload_queue::Piece;
use crate::worker::stream::conn::{Conn, Stage};
use crate::worker::stream::tunnel::Tunnels;
use crate::worker::stream::{Flows, Streams};
use crate::worker::table::Key;
use crate::worker::token::StreamOwner;

/// State needed to begin a stream again.
#[derive(Debug)]
pub(super) struct Tentative {
    entrance: SocketAddr,
    /// The tunnels that the entrance leads to.
    led_to: LedTo,
    /// Tunnels whose peers have refused it.
    refused_by: Vec<Key>,
    /// Data sent so far, from the first byte.
    sent: Vec<u8>,
    urgent: Option<u8>,
}

impl Tentative {
    fn new((entrance, led_to): (SocketAddr, LedTo)) -> Box<Tentative> {
        let (refused_by, sent) = (Vec::new(), Vec::new());
        Box::new(Tentative { entrance, led_to, refused_by, sent, urgent: None })
    }

    /// Whether a tunnel cannot take the stream.
    fn is_out(&self, tunnels: &Tunnels, key: Key) -> bool {
        self.refused_by.contains(&key) || !tunnels.may_take(key, self.entrance.port(), &self.led_to)
    }
}

impl Conn {
    /// Keeps input that is about to be sent, while the stream may have to begin again. Gives up if
    /// it exceeds the limit: the peer that allowed so much keeps the stream.
    pub(super) fn keep_sent(&mut self, bytes: u64) {
        let Some(tentative) = &mut self.tentative else { return };
        let fits = tentative.sent.len() as u64 + bytes <= TENTATIVE_BYTES;
        if !fits || !self.input.copy_front(bytes as usize, &mut tentative.sent) {
            self.tentative = None;
        }
    }

    /// Keeps urgent data that is about to be sent.
    pub(super) fn keep_urgent(&mut self, byte: u8) {
        if let Some(tentative) = &mut self.tentative {
            tentative.urgent = Some(byte);
        }
    }
}

impl Streams {
    /// Begins a stream of a client on this tunnel only. `open` gets the owner value and the
    /// addresses of client and entrance.
    pub(in crate::worker) fn take_client<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnel: Key,
        came: AcceptedConn,
        related: Option<Key>,
        open: impl FnOnce(&mut Session, u64, (SocketAddr, SocketAddr)) -> Result<StreamKey, OpenError>,
    ) {
        let Some((key, entrance)) = self.add_client(cx, came, tunnel) else { return };
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.related = related;
        let addresses = (conn.client.address(), entrance);
        let opened = match self.tunnels.get_mut(tunnel) {
            Some(tunnel) => open(tunnel.session_mut(), StreamOwner::Conn(key).user(), addresses),
            None => Err(OpenError::NotUp),
        };
        match opened {
            Ok(stream) => self.stream_begun(cx, key, tunnel, stream),
            Err(error) => self.refuse_client(cx, key, &error.to_string()),
        }
    }

    /// Whether any tunnel has room for another client.
    pub(in crate::worker) fn has_room(&self) -> bool {
        self.tunnels.up_sessions().any(Session::has_room)
    }

    /// Whether all tunnels together have room for more clients than fit into the queue of an
    /// entrance, so that accepting one at a time is not needed.
    pub(in crate::worker) fn has_room_for_many(&self) -> bool {
        let room: usize = self
            .tunnels
            .up_sessions()
            .map(|session| (session.streams_max() as usize).saturating_sub(session.stream_count()))
            .sum();
        room > LISTEN_BACKLOG as usize
    }

    /// Why no tunnel takes clients of the entrance at this port, which leads there.
    pub(in crate::worker) fn why_nobody(&self, port: u16, led_to: &LedTo) -> String {
        let any = self.tunnels.up().iter().any(|&key| self.tunnels.is_led_to(key, led_to));
        led_to.not_here().filter(|_| !any).unwrap_or_else(|| {
            format!("no peer that is here has clients of entrance port {port} (entrances=)")
        })
    }

    /// Maximum number of streams of the newest tunnel, if any is up.
    pub(in crate::worker) fn newest_limit(&self) -> Option<u32> {
        let newest = self.tunnels.up().last().and_then(|&key| self.tunnels.get(key));
        newest.map(|tunnel| tunnel.session().streams_max())
    }

    /// A client takes a stream of the newest tunnel.
    ///
    /// # Errors
    /// The reason of the last tunnel.
    pub(in crate::worker) fn begin_client<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        entrance: (SocketAddr, LedTo),
    ) -> Result<(), OpenError> {
        self.begin_on_newest(cx, key, Tentative::new(entrance))
    }

    /// Keeps a client until a tunnel has room, at most until the deadline.
    pub(in crate::worker) fn keep_client<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        entrance: (SocketAddr, LedTo),
        deadline: Option<Moment>,
    ) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.stage = Stage::Waiting;
        conn.tentative = Some(Tentative::new(entrance));
        self.set_deadline(cx, key, deadline);
    }

    /// A tunnel has room for a client that was kept.
    ///
    /// # Errors
    /// The reason of the last tunnel.
    pub(in crate::worker) fn serve_client<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
    ) -> Result<(), OpenError> {
        let Some(conn) = self.conns.get_mut(key) else { return Ok(()) };
        let Some(tentative) = conn.tentative.take() else { return Ok(()) };
        conn.stage = Stage::Open;
        conn.deadline = None;
        self.begin_on_newest(cx, key, tentative)
    }

    /// Adds a connection without a stream for a client; also returns the address of the entrance.
    /// `None`: it was rejected.
    pub(in crate::worker) fn add_client<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        came: AcceptedConn,
        tunnel: Key,
    ) -> Option<(Key, SocketAddr)> {
        let AcceptedConn { socket, client, at, unix, .. } = came;
        if cx.buffers.are_low() {
            cx.reject(&socket, client, buffers::ARE_LOW);
            return None;
        }
        let limit_guard = match cx.connection_limits.acquire(client.ip()) {
            Ok(limit_guard) => limit_guard,
            Err(reason) => {
                cx.reject(&socket, client, &reason);
                return None;
            }
        };
        // The client's own destination tells which address of a wildcard entrance it used.
        let own = net::local_address(&socket);
        let entrance = if own == NO_ADDRESS { at } else { own };
        let mut conn = Conn::new(tunnel, Stage::Open, client, cx.now);
        conn.limit_guard = limit_guard;
        conn.fd = Some(socket.clone());
        let Some(key) = self.conns.insert(conn) else {
            cx.reject(&socket, client, "too many connections are open here");
            return None;
        };
        if let Some(conn) = self.conns.get_mut(key) {
            conn.entry = cx.entry_of_client("stream", key, client, || match unix {
                true => net::own_path(&socket),
                false => entrance.to_string(),
            });
        }
        if !unix {
            net::set_up_local(&socket);
            cx.congestion.set_after(&socket);
        }
        Some((key, entrance))
    }

    /// Resets a client without a stream.
    pub(in crate::worker) fn refuse_client<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        reason: &str,
    ) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let client = conn.client;
        conn.entry.refused_here(reason);
        self.reset_conn(cx, key);
        cx.log_refused_of(LogIds::stream(key), client, reason);
    }

    /// Begins a stream on the newest tunnel that accepts it and has not refused it before.
    ///
    /// # Errors
    /// The reason of the last tunnel.
    fn begin_on_newest<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        tentative: Box<Tentative>,
    ) -> Result<(), OpenError> {
        let mut why = OpenError::NotUp;
        for at in (0..self.tunnels.up().len()).rev() {
            let tunnel_key = self.tunnels.up()[at];
            let is_out = |key: &Key| tentative.is_out(&self.tunnels, *key);
            if is_out(&tunnel_key) {
                continue;
            }
            let is_last = self.tunnels.up()[..at].iter().all(is_out);
            let Some(conn) = self.conns.get_mut(key) else { return Ok(()) };
            let Some(tunnel) = self.tunnels.get_mut(tunnel_key) else { continue };
            let (session, user) = (tunnel.session_mut(), StreamOwner::Conn(key).user());
            let (client, entrance) = (conn.client.address(), tentative.entrance);
            let opened = match is_last {
                true => session.open(user, client, entrance),
                false => session.open_tentatively(user, client, entrance),
            };
            match opened {
                Ok(stream) => {
                    conn.tentative = (!is_last).then_some(tentative);
                    self.stream_begun(cx, key, tunnel_key, stream);
                    return Ok(());
                }
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// Registers a client's new stream.
    fn stream_begun<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        tunnel_key: Key,
        stream: StreamKey,
    ) {
        let now = cx.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.tunnel = tunnel_key;
        conn.stream = Some(stream);
        let (number, tunnel) = (key.number(), tunnel_key.number());
        debug!(stream = number, tunnel, client = %conn.client, "client");
        conn.entry.in_tunnel(tunnel, self.tunnels.peer_of(tunnel_key).name);
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
        self.read_conn(cx, key);
        self.tunnels.mark(tunnel_key);
    }

    /// The peer has accepted the stream: it is no longer tentative.
    pub(super) fn stream_opened(&mut self, flows: &mut impl Flows, user: u64) {
        match StreamOwner::of(user) {
            StreamOwner::Flow(flow) => flows.on_opened(flow),
            StreamOwner::Conn(conn) => {
                if let Some(conn) = self.conns.get_mut(conn) {
                    conn.tentative = None;
                }
            }
        }
    }

    /// The peer has refused a stream without having tried a server: begins it again on the next
    /// tunnel. `false`: there is none.
    pub(super) fn begin_on_next_tunnel<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        reason: &str,
    ) -> bool {
        let Some(conn) = self.conns.get_mut(key) else { return false };
        let Some(mut tentative) = conn.tentative.take() else { return false };
        if conn.fd.is_none() || !matches!(conn.stage, Stage::Open) {
            // The client is gone.
            return false;
        }
        debug!(stream = key.number(), client = %conn.client, reason, "the next tunnel is tried");
        tentative.refused_by.push(conn.tunnel);
        conn.stream = None;
        let sent = std::mem::take(&mut tentative.sent);
        if !sent.is_empty() {
            if !cx.buffers.has_room_for(sent.len()) {
                return false;
            }
            let rest = conn.input.take_queue();
            cx.buffers.store(&sent, &mut conn.input);
            for piece in rest {
                match piece {
                    Piece::Chunk(chunk) => conn.input.push_chunk(chunk),
                    Piece::Piped(bytes) => conn.input.push_piped(bytes),
                }
            }
        }
        let urgent = tentative.urgent;
        if self.begin_on_newest(cx, key, tentative).is_err() {
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
