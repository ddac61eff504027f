//! Ports that are opened here for conversations ([`ProxyStep::ListenHere`]): each takes one connection,
//! of one host, and is closed then.
//!
//! [`ProxyStep::ListenHere`]: crate::proxy_proto::Step::ListenHere

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

/// A port that waits for its connection.
#[derive(Debug)]
pub(in crate::worker) struct ExpectedConn {
    fd: Fd,
    /// Whose it is, and by which number.
    talk: Key,
    request: u32,
    /// Who may connect.
    from: IpAddr,
    then: PortUse,
    until: Moment,
}

impl<D: Driver> Worker<D> {
    /// Listens for one connection of `from`.
    pub(in crate::worker) fn listen_here(
        &mut self,
        talk: Key,
        request: u32,
        own: Option<IpAddr>,
        (from, then): (IpAddr, PortUse),
    ) {
        if self.has_many_ports(talk, request) {
            return;
        }
        let result = self.open_here(talk, request, own, (from.to_canonical(), then));
        if let Err(error) = &result {
            debug!(%error, %from, "cannot listen for a conversation");
        }
        self.answer(talk, Answer::PortOpened(request, result.map_err(|error| error.to_string())));
    }

    fn open_here(
        &mut self,
        talk: Key,
        request: u32,
        own: Option<IpAddr>,
        (from, then): (IpAddr, PortUse),
    ) -> io::Result<SocketAddr> {
        // Better said now than when a server has connected in vain.
        if matches!(then, PortUse::CallClient(_)) && !self.peer_opens_ports(talk) {
            return Err(io::Error::other(NO_PORTS));
        }
        let own = own.map_or_else(|| net::address_towards(from), Ok)?.to_canonical();
        let fd = Rc::new(self.forwards.port_range().open(SocketAddr::new(own, 0), net::listen)?);
        let address = net::local_address(&fd);
        let until = self.cx.now.after(Duration::from_secs(PORT_WAIT_SECS));
        let here = ExpectedConn { fd: Rc::clone(&fd), talk, request, from, then, until };
        let too_many = || io::Error::other("too many ports on request are open");
        let key = self.proxies.expected_conns.insert(here).ok_or_else(too_many)?;
        if let Some(talk) = self.talk(talk) {
            talk.ports.push((request, Place::ExpectedConn(key)));
        }
        debug!(%address, %from, "listening for a conversation");
        self.cx.driver.accept(&fd, Kind::ExpectedAccept.of(key));
        Ok(address)
    }

    /// Somebody has connected.
    pub(in crate::worker) fn expected_accepted(
        &mut self,
        key: Key,
        more: bool,
        got: io::Result<OwnedFd>,
    ) {
        let Some(here) = self.proxies.expected_conns.get(key) else {
            // A second one that was faster than the port's end.
            self.cx.counters.stale += 1;
            return got.iter().for_each(net::reset_on_close);
        };
        match got {
            Ok(socket) => {
                let server = net::peer_address(&socket);
                if server.ip() == here.from {
                    return self.here_used(key, Rc::new(socket), server);
                }
                let reason = format!("only {} may connect to this port", here.from);
                self.cx.reject(&socket, server, &reason);
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return self.here_given_up(key, error.to_string()),
        }
        if !more && let Some(here) = self.proxies.expected_conns.get(key) {
            self.cx.driver.accept(&here.fd, Kind::ExpectedAccept.of(key));
        }
    }

    /// The host that was waited for is there.
    fn here_used(&mut self, key: Key, socket: Fd, server: SocketAddr) {
        let Some(ExpectedConn { talk, request, then, .. }) = self.forget_here(key) else { return };
        net::set_up_local(&socket);
        self.cx.congestion.set_after(&socket);
        let done = match then {
            PortUse::CallClient(port) => self.call_client(talk, &socket, (server, port)),
            PortUse::BeServer => self.become_server(talk, &socket),
        };
        if done.is_err() {
            net::reset_on_close(&socket);
        }
        let result = done.map(|()| server);
        self.converse(talk, |conversation, steps| conversation.port_used(request, result, steps));
        self.read_conn(talk);
    }

    /// The peer is to lead a server to the client.
    fn call_client(
        &mut self,
        talk: Key,
        socket: &Fd,
        (server, port): (SocketAddr, u16),
    ) -> Result<(), String> {
        const GONE: OpenError = OpenError::NoPorts;
        let conn = self.conns.get(talk).ok_or_else(|| GONE.to_string())?;
        let (client, tunnel_key, control) = (conn.client, conn.tunnel, conn.stream);
        let exit = conn.exit;
        let limit_guard = self.acquire_limits(exit, client.ip())?;
        let mut conn = Conn::new(tunnel_key, Stage::Open, client, self.cx.now);
        conn.exit = exit;
        conn.related = Some(talk);
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

    /// Makes a connection the conversation's server.
    fn become_server(&mut self, key: Key, socket: &Fd) -> Result<(), String> {
        let Some(conn) = self.conns.get_mut(key) else { return Err(String::new()) };
        let is_free = conn.fd.is_none() && conn.reading == Reading::Idle && !conn.sending;
        match &mut conn.stage {
            Stage::ProxyHandshake(talk) if is_free && matches!(talk.server, Server::None) => {
                talk.server = Server::Connected { broken: None };
                conn.fd = Some(Rc::clone(socket));
                conn.read_ended = false;
                Ok(())
            }
            _ => Err(String::from("the conversation has another server by now")),
        }
    }

    /// A port that nobody will come to any more.
    fn here_given_up(&mut self, key: Key, reason: String) {
        let Some(ExpectedConn { talk, request, .. }) = self.forget_here(key) else { return };
        self.converse(talk, |conversation, steps| {
            conversation.port_used(request, Err(reason), steps);
        });
    }

    /// Closes a port, and takes it from its conversation.
    fn forget_here(&mut self, key: Key) -> Option<ExpectedConn> {
        let here = self.proxies.expected_conns.remove(key)?;
        // Nobody comes in any more, also before the accept under way has ended.
        net::shut_down(&here.fd);
        self.cx.driver.cancel_all(&here.fd);
        if let Some(ProxySession { ports, .. }) = self.talk(here.talk) {
            ports.retain(|port| port.1 != Place::ExpectedConn(key));
        }
        Some(here)
    }

    /// Closes a port whose conversation does not need it.
    pub(in crate::worker) fn drop_here(&mut self, key: Key) {
        self.forget_here(key);
    }

    /// Ends the wait for those who have not come.
    pub(in crate::worker) fn sweep_expected(&mut self) {
        let now = self.cx.now;
        let due: Vec<Key> = self
            .proxies
            .expected_conns
            .iter()
            .filter(|(_, here)| here.until <= now)
            .map(|(key, _)| key)
            .collect();
        for key in due {
            self.here_given_up(key, format!("nobody has connected within {PORT_WAIT_SECS} s"));
        }
    }
}
