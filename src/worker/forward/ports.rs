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
use crate::wire::Transport;
use crate::worker::client::Client;
use crate::worker::context::Cx;
use crate::worker::context::log_limit::Class;
use crate::worker::datagram::Datagrams;
use crate::worker::datagram::datagrams::DatagramPort;
use crate::worker::datagram::flow::{Flow, FlowServer};
use crate::worker::forward::Forwards;
use crate::worker::forward::asked::{AskedPort, AskedSocket};
use crate::worker::message::{AcceptedConn, FlowOrigin, LedTo, PortName};
use crate::worker::purpose::Purpose;
use crate::worker::stream::Streams;
use crate::worker::table::Key;
use crate::worker::token::{Kind, StreamOwner};

/// Reason for a connection of the wrong client.
const STRANGER: &str = "the port was opened for another client";

/// A client of this end whose stream can have related streams.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guest {
    pub(super) client: SocketAddr,
    /// The local address that it has connected to.
    pub(super) own: SocketAddr,
}

impl Forwards {
    /// The client of a stream, if ports can be opened for it.
    ///
    /// # Errors
    /// The reason, for the peer.
    pub(super) fn guest(&self, streams: &Streams, owner: Key) -> Result<Guest, &'static str> {
        let (client, fd) = streams.open_socket_of(owner).ok_or("the client is gone")?;
        if !net::is_internet(fd) {
            return Err("the client came in by a Unix socket");
        }
        let (client, own) = (client.address(), net::local_address(fd));
        if client.ip().is_unspecified() || own.ip().is_unspecified() {
            return Err("the client's address is not known");
        }
        if client.is_ipv4() != own.is_ipv4() {
            return Err("the client's address is not of the family of the one it has reached");
        }
        Ok(Guest { client, own })
    }

    /// The peer requests a port for the client of a stream.
    pub(in crate::worker) fn port_asked<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        (tunnel, user): (Key, u64),
        request: u32,
        transport: Transport,
    ) {
        let (stream, opened) = match StreamOwner::of(user) {
            StreamOwner::Flow(flow) => {
                let stream = datagrams.stream_of(flow).map(|(_, stream)| stream);
                (stream, Err(String::from("the client sends datagrams, and has no connection")))
            }
            StreamOwner::Conn(conn) => {
                let stream = streams.stream_of(conn).map(|(_, stream)| stream);
                (stream, self.open_asked(cx, streams, datagrams, conn, request, transport))
            }
        };
        let Some(stream) = stream else {
            cx.counters.stale += 1;
            return;
        };
        let result = opened.as_ref().map(|&address| address).map_err(String::as_str);
        streams.answer_port(tunnel, stream, request, result);
    }

    fn open_asked<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        owner: Key,
        request: u32,
        transport: Transport,
    ) -> Result<SocketAddr, String> {
        let Guest { client, own } = self.guest(streams, owner)?;
        self.asked.may_add(owner, request)?;
        let failed = |error: io::Error| {
            let why = net::why_not_connected(&error, own);
            format!("no port can be opened at {}: {why}", own.ip())
        };
        let mut datagram_port = None;
        let (socket, address) = match transport {
            Transport::Tcp => {
                let fd = cx.port_range.open(own, net::listen).map_err(failed)?;
                cx.congestion.set_before(&fd);
                let address = net::local_address(&fd);
                (AskedSocket::Listener(Fd::new(fd)), address)
            }
            Transport::Udp => {
                let mut range = std::mem::take(&mut cx.port_range);
                let tunnels = streams.tunnels_mut();
                let open = || range.open(own, datagram::bind);
                let opened = datagrams.open_socket(cx, tunnels, own, open);
                cx.port_range = range;
                let fd = opened.map_err(failed)?;
                let port = DatagramPort::new(fd, Purpose::Entrance);
                let address = port.address();
                datagram_port = Some(port);
                (AskedSocket::Datagrams(address), address)
            }
        };
        let listener = match &socket {
            AskedSocket::Listener(fd) => Some(Fd::clone(fd)),
            AskedSocket::Datagrams(_) => None,
        };
        let port = AskedPort { owner, request, client: client.ip().to_canonical(), socket };
        let key = self.asked.insert(port, cx.now).ok_or("too many ports are open")?;
        if let Some(fd) = listener {
            cx.driver.accept(&fd, Kind::AskedAccept.of(key));
        }
        if let Some(port) = datagram_port {
            datagrams.open_asked(cx, PortName::Asked(key), port);
        }
        debug!(%client, %address, transport = transport.name(), "port on request");
        Ok(address)
    }

    /// The peer no longer needs a port.
    pub(in crate::worker) fn port_not_needed<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        user: u64,
        request: u32,
    ) {
        let asked = &self.asked;
        match StreamOwner::conn(user).and_then(|owner| asked.find(owner, request)) {
            Some(key) => drop(self.close_asked(cx, streams, datagrams, key)),
            // It was used up or timed out.
            None => cx.counters.stale += 1,
        }
    }

    /// Closes all ports of a client whose stream has ended.
    pub(in crate::worker) fn close_asked_of<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        owner: Key,
    ) {
        while let Some(key) = self.asked.any_of(owner) {
            self.close_asked(cx, streams, datagrams, key);
        }
    }

    fn close_asked<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        key: Key,
    ) -> Option<AskedPort> {
        let port = self.asked.remove(key)?;
        match &port.socket {
            AskedSocket::Listener(fd) => {
                // The kernel refuses later connections.
                net::shut_down(fd);
                cx.driver.cancel_all(fd);
            }
            AskedSocket::Datagrams(_) => {
                datagrams.close_asked(cx, streams.tunnels_mut(), PortName::Asked(key));
            }
        }
        Some(port)
    }

    /// Closes listeners whose deadline has passed; the peer has the same timeout.
    pub(in crate::worker) fn asked_ports_on_time<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
    ) {
        while let Some((key, until)) = self.asked.next_due()
            && until <= cx.now
        {
            if let Some(port) = self.close_asked(cx, streams, datagrams, key) {
                debug!(client = %port.client, "nobody came to a port on request");
            }
        }
    }

    /// A connection at a forwarded port was accepted.
    pub(in crate::worker) fn asked_accepted<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        key: Key,
        more: bool,
        got: io::Result<OwnedFd>,
    ) {
        let Some(port) = self.asked.get(key) else {
            cx.counters.stale += 1;
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
                    return self.on_expected_client(cx, streams, datagrams, key, socket, client);
                }
                cx.counters.strangers += 1;
                cx.reject(&socket, client, STRANGER);
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                    if cx.may_log(Class::Shortage) {
                        warn!(%error, "cannot accept at a port on request: raise the limit of open files (ulimit -n)");
                    }
                    // Closed at once, so that the client does not wait for its timeout.
                    self.close_asked(cx, streams, datagrams, key);
                    return;
                }
                _ => debug!(%error, "accept failed at a port on request"),
            },
        }
        if !more {
            cx.driver.accept(&listener, Kind::AskedAccept.of(key));
        }
    }

    /// The expected client has connected, which uses the port up.
    fn on_expected_client<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        key: Key,
        socket: OwnedFd,
        client: SocketAddr,
    ) {
        let Some(AskedPort { owner, request, .. }) = self.close_asked(cx, streams, datagrams, key)
        else {
            return;
        };
        let Some((tunnel, stream)) = streams.stream_of(owner) else {
            net::reset_on_close(&socket);
            return;
        };
        let came = AcceptedConn {
            at: net::local_address(&socket),
            socket: Fd::new(socket),
            purpose: Purpose::Entrance,
            client: Client::Address(client),
            unix: false,
            led_to: LedTo::Any,
        };
        streams.take_client(cx, tunnel, came, Some(owner), |session, user, addresses| {
            session.open_related(user, (stream, request), addresses, Transport::Tcp)
        });
    }

    /// Begins a flow at a forwarded port. `None`: it is another client, or the flow cannot be
    /// carried.
    pub(in crate::worker) fn begin_asked_flow<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        key: Key,
        origin: FlowOrigin,
    ) -> Option<Key> {
        let port = self.asked.get(key)?;
        let AskedSocket::Datagrams(entrance) = port.socket else { return None };
        let (owner, request) = (port.owner, port.request);
        let client = net::plain(origin.client);
        if client.ip() != port.client {
            cx.log_refused(client, STRANGER);
            return None;
        }
        let (tunnel, stream) = streams.stream_of(owner)?;
        let limit_guard = match cx.connection_limits.acquire(Some(client.ip())) {
            Ok(limit_guard) => limit_guard,
            Err(reason) => {
                cx.log_refused(client, &reason);
                return None;
            }
        };
        let flow = Flow::of_client(origin, FlowServer::Peer, limit_guard, cx.now);
        let tunnels = streams.tunnels_mut();
        datagrams.open_flow(cx, tunnels, tunnel, flow, entrance, |session, user| {
            session.open_related(user, (stream, request), (client, entrance), Transport::Udp)
        })
    }
}
