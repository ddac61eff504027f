//! Related streams: what planes above need of the stream that others belong to, the control stream
//! of FTP and of SOCKS.

use std::net::SocketAddr;
use std::rc::Rc;

use tracing::debug;

use crate::io::driver::{Driver, Fd};
use crate::io::net;
use crate::policy::routing::StreamPeer;
use crate::session::{OpenError, StreamKey};
use crate::wire::Transport;
use crate::worker::client::Client;
use crate::worker::context::Cx;
use crate::worker::stream::Streams;
use crate::worker::stream::conn::{Conn, Stage};
use crate::worker::table::Key;
use crate::worker::token::StreamOwner;

impl Streams {
    /// The client of a stream.
    pub(in crate::worker) fn client(&self, key: Key) -> Option<Client> {
        Some(self.conns.get(key)?.client)
    }

    /// The stream of a connection, and its tunnel.
    pub(in crate::worker) fn stream_of(&self, key: Key) -> Option<(Key, StreamKey)> {
        let conn = self.conns.get(key)?;
        Some((conn.tunnel, conn.stream?))
    }

    /// The socket of a client whose stream carries data.
    pub(in crate::worker) fn open_socket_of(&self, key: Key) -> Option<(Client, &Fd)> {
        let conn = self.conns.get(key)?;
        match (&conn.stage, conn.stream, &conn.fd) {
            (Stage::Open, Some(_), Some(fd)) => Some((conn.client, fd)),
            _ => None,
        }
    }

    /// Makes a connection one that belongs to another.
    pub(in crate::worker) fn relate(&mut self, key: Key, control: Key) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.related = Some(control);
        }
    }

    /// Whether the peer of a stream opens ports and calls clients.
    pub(in crate::worker) fn peer_opens_ports(&self, key: Key) -> bool {
        let tunnel = self.conns.get(key).and_then(|conn| self.tunnels.get(conn.tunnel));
        tunnel.is_some_and(|tunnel| tunnel.session().peer_opens_ports())
    }

    /// Asks the peer to open a port for the client of a stream. `None`: the stream is over.
    pub(in crate::worker) fn ask_port(
        &mut self,
        key: Key,
        request: u32,
        transport: Transport,
    ) -> Option<Result<(), OpenError>> {
        let (tunnel, stream) = self.stream_of(key)?;
        let asked =
            self.tunnels.get_mut(tunnel)?.session_mut().ask_port(stream, request, transport);
        self.tunnels.mark(tunnel);
        Some(asked)
    }

    /// Tells the peer that a port is no longer needed.
    pub(in crate::worker) fn close_port_at_peer(
        &mut self,
        (tunnel, stream): (Key, StreamKey),
        request: u32,
    ) {
        if let Some(tunnel) = self.tunnels.get_mut(tunnel) {
            tunnel.session_mut().close_port(stream, request);
        }
        self.tunnels.mark(tunnel);
    }

    /// Answers the peer that has asked for a port.
    pub(in crate::worker) fn answer_port(
        &mut self,
        tunnel_key: Key,
        stream: StreamKey,
        request: u32,
        result: Result<SocketAddr, &str>,
    ) {
        if let Some(tunnel) = self.tunnels.get_mut(tunnel_key) {
            tunnel.session_mut().answer_port(stream, request, result);
        }
        self.tunnels.mark(tunnel_key);
    }

    /// Asks the peer to connect a server to the client.
    pub(in crate::worker) fn call_client<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        session: Key,
        socket: &Fd,
        (server, port): (SocketAddr, u16),
    ) -> Result<(), String> {
        const GONE: OpenError = OpenError::NoPorts;
        let conn = self.conns.get(session).ok_or_else(|| GONE.to_string())?;
        let (client, tunnel_key, control) = (conn.client, conn.tunnel, conn.stream);
        let exit = conn.exit.clone();
        let limit_guard = cx.acquire_limits(exit.as_ref(), client.ip(), StreamPeer::default())?;
        let mut conn = Conn::new(tunnel_key, Stage::Open, client, cx.now);
        conn.exit = exit;
        conn.related = Some(session);
        conn.fd = Some(Rc::clone(socket));
        conn.limit_guard = limit_guard;
        let key = self.conns.insert(conn).ok_or("too many connections are open here")?;
        let called = match (self.tunnels.get_mut(tunnel_key), control) {
            (Some(tunnel), Some(control)) => {
                let own = net::local_address(socket);
                tunnel.session_mut().call(
                    StreamOwner::Conn(key).user(),
                    (control, port),
                    (server, own),
                )
            }
            _ => Err(GONE),
        };
        match called {
            Ok(stream) => {
                let (stream_number, tunnel) = (key.number(), tunnel_key.number());
                debug!(stream = stream_number, tunnel, %client, %server, port, "calling the client");
                if let Some(conn) = self.conns.get_mut(key) {
                    conn.stream = Some(stream);
                    conn.entry = cx.entry_of_exit("stream", key, client, conn.exit.as_ref());
                    conn.entry.in_tunnel(tunnel, self.tunnels.peer_of(tunnel_key).name);
                    conn.entry.server_at(server);
                }
                self.read_conn(cx, key);
                self.tunnels.mark(tunnel_key);
                Ok(())
            }
            Err(error) => {
                self.conns.remove(key);
                Err(error.to_string())
            }
        }
    }
}
