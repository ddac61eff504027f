//! Expected connections: one-shot listeners of proxy sessions ([`ProxyStep::ListenHere`]). Each
//! accepts one connection from one host and is then closed.
//!
//! [`ProxyStep::ListenHere`]: crate::proxy_proto::ProxyStep::ListenHere

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use tracing::debug;

use crate::io::driver::{Driver, Fd};
use crate::io::net;
use crate::limits::PORT_WAIT_SECS;
use crate::proxy_proto::PortUse;
use crate::session::{Moment, OpenError};
use crate::worker::proxy::related::NO_PORTS;
use crate::worker::proxy::session::{Answer, Place, ProxySession, Server};
use crate::worker::stream::conn::{Conn, Reading, Stage};
use crate::worker::token::{Kind, StreamOwner};
use crate::worker::{Key, Worker};

/// A listener that waits for its connection.
#[derive(Debug)]
pub(in crate::worker) struct ExpectedConn {
    fd: Fd,
    /// Its session, and its number there.
    session: Key,
    request: u32,
    /// The host that may connect.
    from: IpAddr,
    then: PortUse,
    until: Moment,
}

impl<D: Driver> Worker<D> {
    /// Listens for one connection from `from`.
    pub(in crate::worker) fn listen_once(
        &mut self,
        session: Key,
        request: u32,
        own: Option<IpAddr>,
        (from, then): (IpAddr, PortUse),
    ) {
        if self.has_many_ports(session, request) {
            return;
        }
        let result = self.open_expected(session, request, own, (from.to_canonical(), then));
        if let Err(error) = &result {
            debug!(%error, %from, "cannot listen for a conversation");
        }
        self.answer(
            session,
            Answer::PortOpened(request, result.map_err(|error| error.to_string())),
        );
    }

    fn open_expected(
        &mut self,
        session: Key,
        request: u32,
        own: Option<IpAddr>,
        (from, then): (IpAddr, PortUse),
    ) -> io::Result<SocketAddr> {
        // Refused now rather than after a server has connected.
        if matches!(then, PortUse::CallClient(_)) && !self.peer_opens_ports(session) {
            return Err(io::Error::other(NO_PORTS));
        }
        let own = own.map_or_else(|| net::address_towards(from), Ok)?.to_canonical();
        let fd = Rc::new(self.forwards.port_range().open(SocketAddr::new(own, 0), net::listen)?);
        let address = net::local_address(&fd);
        let until = self.cx.now.after(Duration::from_secs(PORT_WAIT_SECS));
        let expected = ExpectedConn { fd: Rc::clone(&fd), session, request, from, then, until };
        let too_many = || io::Error::other("too many ports on request are open");
        let key = self.proxies.expected_conns.insert(expected).ok_or_else(too_many)?;
        if let Some(session) = self.proxy_session(session) {
            session.ports.push((request, Place::ExpectedConn(key)));
        }
        debug!(%address, %from, "listening for a conversation");
        self.cx.driver.accept(&fd, Kind::ExpectedAccept.of(key));
        Ok(address)
    }

    /// A connection was accepted.
    pub(in crate::worker) fn expected_accepted(
        &mut self,
        key: Key,
        more: bool,
        got: io::Result<OwnedFd>,
    ) {
        let Some(expected) = self.proxies.expected_conns.get(key) else {
            // A second connection, accepted before the listener was closed.
            self.cx.counters.stale += 1;
            return got.iter().for_each(net::reset_on_close);
        };
        match got {
            Ok(socket) => {
                let server = net::peer_address(&socket);
                if server.ip() == expected.from {
                    return self.expected_connected(key, Rc::new(socket), server);
                }
                let reason = format!("only {} may connect to this port", expected.from);
                self.cx.reject(&socket, server, &reason);
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return self.give_up_expected(key, error.to_string()),
        }
        if !more && let Some(expected) = self.proxies.expected_conns.get(key) {
            self.cx.driver.accept(&expected.fd, Kind::ExpectedAccept.of(key));
        }
    }

    /// The expected host has connected.
    fn expected_connected(&mut self, key: Key, socket: Fd, server: SocketAddr) {
        let Some(ExpectedConn { session, request, then, .. }) = self.close_expected(key) else {
            return;
        };
        net::set_up_local(&socket);
        self.cx.congestion.set_after(&socket);
        let done = match then {
            PortUse::CallClient(port) => self.call_client(session, &socket, (server, port)),
            PortUse::BeServer => self.become_server(session, &socket),
        };
        if done.is_err() {
            net::reset_on_close(&socket);
        }
        let result = done.map(|()| server);
        self.converse(session, |conversation, steps| {
            conversation.port_used(request, result, steps)
        });
        self.read_conn(session);
    }

    /// Asks the peer to connect a server to the client.
    fn call_client(
        &mut self,
        session: Key,
        socket: &Fd,
        (server, port): (SocketAddr, u16),
    ) -> Result<(), String> {
        const GONE: OpenError = OpenError::NoPorts;
        let conn = self.conns.get(session).ok_or_else(|| GONE.to_string())?;
        let (client, tunnel_key, control) = (conn.client, conn.tunnel, conn.stream);
        let exit = conn.exit;
        let limit_guard = self.acquire_limits(exit, client.ip())?;
        let mut conn = Conn::new(tunnel_key, Stage::Open, client, self.cx.now);
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
                debug!(%client, %server, port, "calling the client");
                if let Some(conn) = self.conns.get_mut(key) {
                    conn.stream = Some(stream);
                }
                self.read_conn(key);
                self.tunnels.mark(tunnel_key);
                Ok(())
            }
            Err(error) => {
                self.conns.remove(key);
                Err(error.to_string())
            }
        }
    }

    /// Makes a connection the server of the session.
    fn become_server(&mut self, key: Key, socket: &Fd) -> Result<(), String> {
        let Some(conn) = self.conns.get_mut(key) else { return Err(String::new()) };
        let is_free = conn.fd.is_none() && conn.reading == Reading::Idle && !conn.sending;
        match &mut conn.stage {
            Stage::ProxyHandshake(session) if is_free && matches!(session.server, Server::None) => {
                session.server = Server::Connected { broken: None };
                conn.fd = Some(Rc::clone(socket));
                conn.read_ended = false;
                Ok(())
            }
            _ => Err(String::from("the conversation has another server by now")),
        }
    }

    /// Gives up a listener and reports that to its session.
    fn give_up_expected(&mut self, key: Key, reason: String) {
        let Some(ExpectedConn { session, request, .. }) = self.close_expected(key) else { return };
        self.converse(session, |conversation, steps| {
            conversation.port_used(request, Err(reason), steps);
        });
    }

    /// Closes a listener and removes it from its session.
    fn close_expected(&mut self, key: Key) -> Option<ExpectedConn> {
        let expected = self.proxies.expected_conns.remove(key)?;
        // Shut down, so that none connects before the accept in flight has ended.
        net::shut_down(&expected.fd);
        self.cx.driver.cancel_all(&expected.fd);
        if let Some(ProxySession { ports, .. }) = self.proxy_session(expected.session) {
            ports.retain(|port| port.1 != Place::ExpectedConn(key));
        }
        Some(expected)
    }

    /// Closes a listener that its session no longer needs.
    pub(in crate::worker) fn drop_expected(&mut self, key: Key) {
        self.close_expected(key);
    }

    /// Gives up listeners whose deadline has passed.
    pub(in crate::worker) fn sweep_expected(&mut self) {
        let now = self.cx.now;
        let due: Vec<Key> = self
            .proxies
            .expected_conns
            .iter()
            .filter(|(_, expected)| expected.until <= now)
            .map(|(key, _)| key)
            .collect();
        for key in due {
            self.give_up_expected(key, format!("nobody has connected within {PORT_WAIT_SECS} s"));
        }
    }
}
