//! Ports on request: the peer's exit has asked for one more way in for a client of ours (FTP's
//! passive mode, datagrams of SOCKS).
//!
//! Such a port is open at the address that the client has reached, for the client's IP address and
//! nobody else: whoever finds the port first would have what was meant for the client. One for TCP
//! takes one connection; one for datagrams has flows as an entrance has. Both are closed with the
//! client's stream; what came in by them goes on.
//!
//! Behind a PROXY header the socket's own peer is a balancer, behind which all clients look alike. So
//! it is the address that the header names which may come in, past the balancer; where that cannot
//! reach the address here it does in vain, and the port is closed after a while.

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
use crate::worker::ingress::listeners::Purpose;
use crate::worker::log_limit::Class;
use crate::worker::stream::client::Client;
use crate::worker::stream::conn::Stage;
use crate::worker::token::{Kind, StreamOwner};
use crate::worker::{Key, Worker};

/// What is said of who comes to another's port.
const STRANGER: &str = "the port was opened for another client";

/// A client of ours whose stream others may belong to.
#[derive(Debug, Clone, Copy)]
pub(in crate::worker) struct Guest {
    pub(in crate::worker) client: SocketAddr,
    /// The address of ours that it has reached.
    pub(in crate::worker) own: SocketAddr,
}

impl<D: Driver> Worker<D> {
    /// The client of a stream, if it is one that ports can be opened for.
    ///
    /// # Errors
    /// Why it is not, for the peer.
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

    /// The peer asks for a port for the client of a stream.
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

    /// The peer needs a port no more.
    pub(in crate::worker) fn port_not_needed(&mut self, user: u64, request: u32) {
        let asked = &self.forwards.asked;
        match StreamOwner::conn(user).and_then(|owner| asked.find(owner, request)) {
            Some(key) => drop(self.close_asked(key)),
            // It has had its connection, or nobody came.
            None => self.cx.counters.stale += 1,
        }
    }

    /// A client's stream is over.
    pub(in crate::worker) fn close_asked_of(&mut self, owner: Key) {
        while let Some(key) = self.forwards.asked.any_of(owner) {
            self.close_asked(key);
        }
    }

    fn close_asked(&mut self, key: Key) -> Option<AskedPort> {
        let port = self.forwards.asked.remove(key)?;
        match &port.socket {
            AskedSocket::Listener(fd) => {
                // Whoever comes from now on is refused by the kernel.
                net::shut_down(fd);
                self.cx.driver.cancel_all(fd);
            }
            AskedSocket::Datagrams(_) => {
                self.datagrams.close_asked(&mut self.cx, &mut self.tunnels, key);
            }
        }
        Some(port)
    }

    /// Closes listeners that nobody came to. The peer waits no longer, either.
    pub(in crate::worker) fn asked_ports_on_time(&mut self) {
        while let Some((key, until)) = self.forwards.asked.next_due()
            && until <= self.cx.now
        {
            if let Some(port) = self.close_asked(key) {
                debug!(client = %port.client, "nobody came to a port on request");
            }
        }
    }

    /// Somebody has connected to a port on request.
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
                    return self.guest_came(key, socket, client);
                }
                self.cx.counters.strangers += 1;
                self.cx.reject(&socket, client, STRANGER);
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                    if self.cx.may_log(Class::Shortage) {
                        warn!(%error, "cannot accept at a port on request: raise the limit of open files (ulimit -n)");
                    }
                    // The client is to know now, not when it is tired of waiting.
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

    /// The client has connected to its port, which has served its turn.
    fn guest_came(&mut self, key: Key, socket: OwnedFd, client: SocketAddr) {
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

    /// Somebody has sent datagrams to a port on request who has no flow there. `None`: it is not the
    /// client, or nobody would carry them.
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
