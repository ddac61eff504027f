//! Opens and serves forwarded ports: the exit of a peer requests another way in for a client of
//! this end (FTP's passive mode, SOCKS UDP).
//!
//! A port is opened at the address that the client has connected to, for the client's IP address
//! only; otherwise anyone who found the port first would receive the client's data. A TCP port
//! accepts one connection; a UDP port has flows like an entrance. Both are closed with the client's
//! stream; connections that came in by them continue.
//!
//! Behind a PROXY header the socket's peer is a balancer that all clients share, so the address in
//! the header is the one that may connect, bypassing the balancer. If it cannot reach this address
//! the port times out.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use tracing::{debug, warn};

use crate::io::datagram;
use crate::io::driver::{Driver, Fd};
use crate::io::net;
use crate::session::StreamKey;
use crate::wire::Transport;
use crate::worker::datagram::datagrams::DatagramPort;
use crate::worker::datagram::flow::{Flow, Origin, Server};
use crate::worker::forward::asked::{AskedPort, AskedSocket};
use crate::worker::ingress::access::Came;
use crate::worker::log_limit::Class;
use crate::worker::purpose::Purpose;
use crate::worker::stream::client::Client;
use crate::worker::stream::conn::Stage;
use crate::worker::token::{Kind, StreamOwner};
use crate::worker::{Key, Worker};

/// Reason for a connection of the wrong client.
const STRANGER: &str = "the port was opened for another client";

/// A client of this end whose stream can have related streams.
#[derive(Debug, Clone, Copy)]
pub(in crate::worker) struct Guest {
    pub(in crate::worker) client: SocketAddr,
    /// The local address that it has connected to.
    pub(in crate::worker) own: SocketAddr,
}

impl<D: Driver> Worker<D> {
    /// The client of a stream, if ports can be opened for it.
    ///
    /// # Errors
    /// The reason, for the peer.
    pub(in crate::worker) fn guest(&self, owner: Key) -> Result<Guest, &'static str> {
        let conn = self.conns.get(owner).ok_or("the client is gone")?;
        let (Stage::Open, Some(_), Some(fd)) = (&conn.stage, conn.stream, &conn.fd) else {
            return Err("the client is gone");
        };
        if !net::is_internet(fd) {
            return Err("the client came in by a Unix socket");
        }
        let (client, own) = (conn.client.address(), net::local_address(fd));
        if client.ip().is_unspecified() || own.ip().is_unspecified() {
            return Err("the client's address is not known");
        }
        if client.is_ipv4() != own.is_ipv4() {
            return Err("the client's address is not of the family of the one it has reached");
        }
        Ok(Guest { client, own })
    }

    /// The peer requests a port for the client of a stream.
    pub(in crate::worker) fn port_asked(
        &mut self,
        tunnel_key: Key,
        user: u64,
        request: u32,
        transport: Transport,
    ) {
        let (stream, opened) = match StreamOwner::of(user) {
            StreamOwner::Flow(flow) => {
                let stream = self.datagrams.stream_of(flow).map(|(_, stream)| stream);
                (stream, Err(String::from("the client sends datagrams, and has no connection")))
            }
            StreamOwner::Conn(conn) => {
                let stream = self.conns.get(conn).and_then(|conn| conn.stream);
                (stream, self.open_asked(conn, request, transport))
            }
        };
        let Some(stream) = stream else {
            self.cx.counters.stale += 1;
            return;
        };
        if let Some(tunnel) = self.tunnels.get_mut(tunnel_key) {
            let result = opened.as_ref().map(|&address| address).map_err(String::as_str);
            tunnel.session_mut().answer_port(stream, request, result);
        }
        self.tunnels.mark(tunnel_key);
    }

    fn open_asked(
        &mut self,
        owner: Key,
        request: u32,
        transport: Transport,
    ) -> Result<SocketAddr, String> {
        let Guest { client, own } = self.guest(owner)?;
        self.forwards.asked.may_add(owner, request)?;
        let failed = |error: io::Error| {
            let why = net::why_not_connected(&error, own);
            format!("no port can be opened at {}: {why}", own.ip())
        };
        let mut datagram_port = None;
        let (socket, address) = match transport {
            Transport::Tcp => {
                let fd = self.forwards.port_range.open(own, net::listen).map_err(failed)?;
                self.cx.congestion.set_before(&fd);
                let address = net::local_address(&fd);
                (AskedSocket::Listener(Fd::new(fd)), address)
            }
            Transport::Udp => {
                let mut range = std::mem::take(&mut self.forwards.port_range);
                let (cx, tunnels) = (&mut self.cx, &mut self.tunnels);
                let open = || range.open(own, datagram::bind);
                let opened = self.datagrams.open_socket(cx, tunnels, own, open);
                self.forwards.port_range = range;
                let fd = opened.map_err(failed)?;
                let port = DatagramPort::new(fd, Purpose::Entrance);
                let address = port.address;
                datagram_port = Some(port);
                (AskedSocket::Datagrams(address), address)
            }
        };
        let listener = match &socket {
            AskedSocket::Listener(fd) => Some(Fd::clone(fd)),
            AskedSocket::Datagrams(_) => None,
        };
        let port = AskedPort { owner, request, client: client.ip().to_canonical(), socket };
        let key = self.forwards.asked.insert(port, self.cx.now).ok_or("too many ports are open")?;
        if let Some(fd) = listener {
            self.cx.driver.accept(&fd, Kind::AskedAccept.of(key));
        }
        if let Some(port) = datagram_port {
            self.datagrams.open_asked(&mut self.cx, key, port);
        }
        debug!(%client, %address, transport = transport.name(), "port on request");
        Ok(address)
    }

    /// The peer no longer needs a port.
    pub(in crate::worker) fn port_not_needed(&mut self, user: u64, request: u32) {
        let asked = &self.forwards.asked;
        match StreamOwner::conn(user).and_then(|owner| asked.find(owner, request)) {
            Some(key) => drop(self.close_asked(key)),
            // It was used up or timed out.
            None => self.cx.counters.stale += 1,
        }
    }

    /// Closes all ports of a client whose stream has ended.
    pub(in crate::worker) fn close_asked_of(&mut self, owner: Key) {
        while let Some(key) = self.forwards.asked.any_of(owner) {
            self.close_asked(key);
        }
    }

    fn close_asked(&mut self, key: Key) -> Option<AskedPort> {
        let port = self.forwards.asked.remove(key)?;
        match &port.socket {
            AskedSocket::Listener(fd) => {
                // The kernel refuses later connections.
                net::shut_down(fd);
                self.cx.driver.cancel_all(fd);
            }
            AskedSocket::Datagrams(_) => {
                self.datagrams.close_asked(&mut self.cx, &mut self.tunnels, key);
            }
        }
        Some(port)
    }

    /// Closes listeners whose deadline has passed; the peer has the same timeout.
    pub(in crate::worker) fn asked_ports_on_time(&mut self) {
        while let Some((key, until)) = self.forwards.asked.next_due()
            && until <= self.cx.now
        {
            if let Some(port) = self.close_asked(key) {
                debug!(client = %port.client, "nobody came to a port on request");
            }
        }
    }

    /// A connection at a forwarded port was accepted.
    pub(in crate::worker) fn asked_accepted(
        &mut self,
        key: Key,
        more: bool,
        got: io::Result<OwnedFd>,
    ) {
        let Some(port) = self.forwards.asked.get(key) else {
            self.cx.counters.stale += 1;
            if let Ok(socket) = got {
                net::reset_on_close(&socket);
            }
            return;
        };
        let AskedSocket::Listener(listener) = &port.socket else { return };
        let (wanted, listener) = (port.client, Fd::clone(listener));
        match got {
            Ok(socket) => {
                let client = net::peer_address(&socket);
                if client.ip() == wanted {
                    return self.on_expected_client(key, socket, client);
                }
                self.cx.counters.strangers += 1;
                self.cx.reject(&socket, client, STRANGER);
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                    if self.cx.may_log(Class::Shortage) {
                        warn!(%error, "cannot accept at a port on request: raise the limit of open files (ulimit -n)");
                    }
                    // Closed at once, so that the client does not wait for its timeout.
                    self.close_asked(key);
                    return;
                }
                _ => debug!(%error, "accept failed at a port on request"),
            },
        }
        if !more {
            self.cx.driver.accept(&listener, Kind::AskedAccept.of(key));
        }
    }

    /// The expected client has connected, which uses the port up.
    fn on_expected_client(&mut self, key: Key, socket: OwnedFd, client: SocketAddr) {
        let Some(AskedPort { owner, request, .. }) = self.close_asked(key) else { return };
        let Some((tunnel, stream)) = self.stream_of(owner) else {
            net::reset_on_close(&socket);
            return;
        };
        let came = Came {
            at: net::local_address(&socket),
            socket: Fd::new(socket),
            purpose: Purpose::Entrance,
            client: Client::Address(client),
            unix: false,
        };
        self.take_client(tunnel, came, Some(owner), |session, user, addresses| {
            session.open_related(user, (stream, request), addresses, Transport::Tcp)
        });
    }

    /// Begins a flow at a forwarded port. `None`: it is another client, or the flow cannot be
    /// carried.
    pub(in crate::worker) fn begin_asked_flow(&mut self, key: Key, origin: Origin) -> Option<Key> {
        let port = self.forwards.asked.get(key)?;
        let AskedSocket::Datagrams(entrance) = port.socket else { return None };
        let (owner, request) = (port.owner, port.request);
        let client = net::plain(origin.client);
        if client.ip() != port.client {
            self.cx.log_refused(client, STRANGER);
            return None;
        }
        let (tunnel, stream) = self.stream_of(owner)?;
        let limit_guard = match self.cx.connection_limits.acquire(Some(client.ip())) {
            Ok(limit_guard) => limit_guard,
            Err(reason) => {
                self.cx.log_refused(client, &reason);
                return None;
            }
        };
        let mut flow = Flow::new(client, Server::Peer, self.cx.now);
        flow.origin = Some(origin);
        flow.limit_guard = limit_guard;
        let (cx, tunnels) = (&mut self.cx, &mut self.tunnels);
        self.datagrams.open_flow(cx, tunnels, tunnel, flow, entrance, |session, user| {
            session.open_related(user, (stream, request), (client, entrance), Transport::Udp)
        })
    }

    fn stream_of(&self, owner: Key) -> Option<(Key, StreamKey)> {
        let conn = self.conns.get(owner)?;
        Some((conn.tunnel, conn.stream?))
    }
}
