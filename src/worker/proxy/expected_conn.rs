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
use crate::session::Moment;
use crate::worker::context::Cx;
use crate::worker::proxy::Proxies;
use crate::worker::proxy::related::NO_PORTS;
use crate::worker::proxy::session::{Answer, Place, ProxySession};
use crate::worker::stream::Streams;
use crate::worker::table::Key;
use crate::worker::token::Kind;

/// A listener that waits for its connection.
#[derive(Debug)]
pub(super) struct ExpectedConn {
    fd: Fd,
    /// Its session, and its number there.
    session: Key,
    request: u32,
    /// The host that may connect.
    from: IpAddr,
    then: PortUse,
    until: Moment,
}

impl Proxies {
    /// Listens for one connection from `from`.
    pub(super) fn listen_once<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        session: Key,
        request: u32,
        own: Option<IpAddr>,
        (from, then): (IpAddr, PortUse),
    ) {
        if self.has_many_ports(streams, session, request) {
            return;
        }
        let result =
            self.open_expected(cx, streams, session, request, own, (from.to_canonical(), then));
        if let Err(error) = &result {
            debug!(stream = session.number(), %error, %from, "cannot listen for a conversation");
        }
        self.answer(
            streams,
            session,
            Answer::PortOpened(request, result.map_err(|error| error.to_string())),
        );
    }

    fn open_expected<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        session: Key,
        request: u32,
        own: Option<IpAddr>,
        (from, then): (IpAddr, PortUse),
    ) -> io::Result<SocketAddr> {
        // Refused now rather than after a server has connected.
        if matches!(then, PortUse::CallClient(_)) && !streams.peer_opens_ports(session) {
            return Err(io::Error::other(NO_PORTS));
        }
        let own = own.map_or_else(|| net::address_towards(from), Ok)?.to_canonical();
        let fd = Rc::new(cx.port_range.open(SocketAddr::new(own, 0), net::listen)?);
        let address = net::local_address(&fd);
        let until = cx.now.after(Duration::from_secs(PORT_WAIT_SECS));
        let expected = ExpectedConn { fd: Rc::clone(&fd), session, request, from, then, until };
        let too_many = || io::Error::other("too many ports on request are open");
        let key = self.expected_conns.insert(expected).ok_or_else(too_many)?;
        if let Some(session) = self.proxy_session(streams, session) {
            session.ports.push((request, Place::ExpectedConn(key)));
        }
        debug!(stream = session.number(), %address, %from, "listening for a conversation");
        cx.driver.accept(&fd, Kind::ExpectedAccept.of(key));
        Ok(address)
    }

    /// A connection was accepted.
    pub(in crate::worker) fn expected_accepted<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
        more: bool,
        got: io::Result<OwnedFd>,
    ) {
        let Some(expected) = self.expected_conns.get(key) else {
            // A second connection, accepted before the listener was closed.
            cx.counters.stale += 1;
            return got.iter().for_each(net::reset_on_close);
        };
        match got {
            Ok(socket) => {
                let server = net::peer_address(&socket);
                if server.ip() == expected.from {
                    return self.expected_connected(cx, streams, key, Rc::new(socket), server);
                }
                let reason = format!("only {} may connect to this port", expected.from);
                cx.reject(&socket, server, &reason);
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return self.give_up_expected(cx, streams, key, error.to_string()),
        }
        if !more && let Some(expected) = self.expected_conns.get(key) {
            cx.driver.accept(&expected.fd, Kind::ExpectedAccept.of(key));
        }
    }

    /// The expected host has connected.
    fn expected_connected<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
        socket: Fd,
        server: SocketAddr,
    ) {
        let Some(ExpectedConn { session, request, then, .. }) = self.close_expected(cx, key) else {
            return;
        };
        net::set_up_local(&socket);
        cx.congestion.set_after(&socket);
        let done = match then {
            PortUse::CallClient(port) => streams.call_client(cx, session, &socket, (server, port)),
            PortUse::BeServer => streams.become_server(session, &socket),
        };
        if done.is_err() {
            net::reset_on_close(&socket);
        }
        let result = done.map(|()| server);
        self.converse(cx, streams, session, |conversation, steps| {
            conversation.port_used(request, result, steps)
        });
        streams.read_conn(cx, session);
    }

    /// Gives up a listener and reports that to its session.
    fn give_up_expected<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
        reason: String,
    ) {
        let Some(ExpectedConn { session, request, .. }) = self.close_expected(cx, key) else {
            return;
        };
        self.converse(cx, streams, session, |conversation, steps| {
            conversation.port_used(request, Err(reason), steps);
        });
    }

    /// Closes a listener and removes it from its session.
    fn close_expected<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) -> Option<ExpectedConn> {
        let expected = self.expected_conns.remove(key)?;
        // Shut down, so that none connects before the accept in flight has ended.
        net::shut_down(&expected.fd);
        cx.driver.cancel_all(&expected.fd);
        if let Some(ProxySession { ports, .. }) = self.sessions.get_mut(&expected.session) {
            ports.retain(|port| port.1 != Place::ExpectedConn(key));
        }
        Some(expected)
    }

    /// Closes a listener that its session no longer needs.
    pub(super) fn drop_expected<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        self.close_expected(cx, key);
    }

    /// Gives up listeners whose deadline has passed.
    pub(in crate::worker) fn sweep_expected<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
    ) {
        let now = cx.now;
        let due: Vec<Key> = self
            .expected_conns
            .iter()
            .filter(|(_, expected)| expected.until <= now)
            .map(|(key, _)| key)
            .collect();
        for key in due {
            self.give_up_expected(
                cx,
                streams,
                key,
                format!("nobody has connected within {PORT_WAIT_SECS} s"),
            );
        }
    }
}
