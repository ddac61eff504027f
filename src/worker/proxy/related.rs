//! Requests of proxy sessions beside their server: ports at the peer, streams that come in by them,
//! and checks of hosts. [`crate::worker::proxy::expected_conn`] has the listeners of this process.
//!
//! A result that is known at once is passed to the protocol after the steps it has just returned,
//! as if it had taken time.

use std::io;
use std::net::SocketAddr;

use tracing::debug;

use crate::cli::plan::{Target, Transport};
use crate::io::driver::Driver;
use crate::io::net;
use crate::io::resolver;
use crate::limits::PORTS_PER_STREAM;
use crate::policy::connection_limits::LimitGuard;
use crate::proxy_proto::{Lead, Unreached};
use crate::session::NO_ADDRESS;
use crate::worker::context::Lookup;
use crate::worker::dialer::dial::Request;
use crate::worker::ingress::access::Incoming;
use crate::worker::proxy::session::{Answer, Place, ProxySession};
use crate::worker::stream::conn::Stage;
use crate::worker::token::StreamOwner;
use crate::worker::{Key, Worker};

/// Reason why a port is not opened.
pub(in crate::worker) const NO_PORTS: &str =
    "the peer opens no ports: both ends have to speak SockMux 1";
/// Reason why a port is not opened.
const TOO_MANY: &str = "too many ports are open for this connection";
/// Reason for a stream by a port without an owner.
const NOBODY: &str = "its control stream has ended";

impl<D: Driver> Worker<D> {
    pub(in crate::worker) fn proxy_session(&mut self, key: Key) -> Option<&mut ProxySession> {
        match &mut self.conns.get_mut(key)?.stage {
            Stage::ProxyHandshake(session) => Some(session),
            _ => None,
        }
    }

    /// Queues a result for the protocol, to follow its current steps.
    pub(in crate::worker) fn answer(&mut self, key: Key, answer: Answer) {
        if let Some(session) = self.proxy_session(key) {
            session.answers.push_back(answer);
        }
    }

    /// Passes queued results to the protocol until none is left.
    pub(in crate::worker) fn pass_answers(&mut self, key: Key) {
        while let Some(answer) =
            self.proxy_session(key).and_then(|session| session.answers.pop_front())
        {
            self.tell_one(key, |conversation, steps| match answer {
                Answer::PortOpened(request, result) => {
                    conversation.port_opened(request, result, steps);
                }
                Answer::HostChecked(result) => conversation.host_checked(result, steps),
            });
        }
    }

    /// Whether a session has no room for another port; queues the refusal.
    pub(in crate::worker) fn has_many_ports(&mut self, key: Key, request: u32) -> bool {
        let full =
            self.proxy_session(key).is_some_and(|session| session.ports.len() >= PORTS_PER_STREAM);
        if full {
            self.answer(key, Answer::PortOpened(request, Err(TOO_MANY.to_owned())));
        }
        full
    }

    /// Whether the peer of a session opens ports and calls clients.
    pub(in crate::worker) fn peer_opens_ports(&self, key: Key) -> bool {
        let tunnel = self.conns.get(key).and_then(|conn| self.tunnels.get(conn.tunnel));
        tunnel.is_some_and(|tunnel| tunnel.session().peer_opens_ports())
    }

    /// Asks the peer to open a port for the session's client.
    pub(in crate::worker) fn open_port(&mut self, key: Key, request: u32, lead: Lead) {
        if self.has_many_ports(key, request) {
            return;
        }
        if let Err(why) = self.ask_for_port(key, request, lead) {
            return self.answer(key, Answer::PortOpened(request, Err(why)));
        }
        if let Some(session) = self.proxy_session(key) {
            session.ports.push((request, Place::Peer(lead)));
        }
    }

    fn ask_for_port(&mut self, key: Key, request: u32, lead: Lead) -> Result<(), String> {
        if let Some(ProxySession { is_judged: true, .. }) = self.proxy_session(key)
            && let Lead::Server(server) = lead
            && self.cx.destinations.is_own(server, net::is_ours)
        {
            return Err(format!("{server} is a port of this relay"));
        }
        let transport = match lead {
            Lead::Server(_) => crate::wire::Transport::Tcp,
            Lead::SocksDatagrams => crate::wire::Transport::Udp,
        };
        if !self.peer_opens_ports(key) {
            return Err(NO_PORTS.to_owned());
        }
        let Some(conn) = self.conns.get(key) else { return Err(NOBODY.to_owned()) };
        let (tunnel, stream) = (conn.tunnel, conn.stream);
        let asked = match (self.tunnels.get_mut(tunnel), stream) {
            (Some(tunnel), Some(stream)) => {
                tunnel.session_mut().ask_port(stream, request, transport)
            }
            _ => return Err(NOBODY.to_owned()),
        };
        self.tunnels.mark(tunnel);
        asked.map_err(|error| error.to_string())
    }

    /// The peer has opened or refused a port.
    pub(in crate::worker) fn port_given(
        &mut self,
        key: Key,
        request: u32,
        result: Result<SocketAddr, String>,
    ) {
        let Some(session) = self.proxy_session(key) else { return };
        let asked = |port: &(u32, Place)| port.0 == request && matches!(port.1, Place::Peer(_));
        // A port closed before it was opened no longer matters.
        let Some(at) = session.ports.iter().position(asked) else { return };
        if result.is_err() {
            session.ports.swap_remove(at);
        }
        self.converse(key, |conversation, steps| conversation.port_opened(request, result, steps));
    }

    /// A session no longer needs a port.
    pub(in crate::worker) fn close_port(&mut self, key: Key, request: u32) {
        let Some(session) = self.proxy_session(key) else { return };
        let Some(at) = session.ports.iter().position(|port| port.0 == request) else { return };
        let (_, place) = session.ports.swap_remove(at);
        match place {
            Place::Peer(lead) => {
                self.close_port_at_peer(key, request);
                if lead == Lead::SocksDatagrams {
                    self.datagrams.end_associations(&mut self.cx, &mut self.tunnels, key);
                }
            }
            Place::ExpectedConn(port) => self.drop_expected(port),
        }
    }

    fn close_port_at_peer(&mut self, key: Key, request: u32) {
        let Some(conn) = self.conns.get(key) else { return };
        let (tunnel, stream) = (conn.tunnel, conn.stream);
        if let (Some(tunnel), Some(stream)) = (self.tunnels.get_mut(tunnel), stream) {
            tunnel.session_mut().close_port(stream, request);
        }
        self.tunnels.mark(tunnel);
    }

    /// Closes all ports of a session. Connections that came in by them continue.
    pub(in crate::worker) fn close_ports(&mut self, key: Key) {
        while let Some(session) = self.proxy_session(key)
            && let Some(&(request, _)) = session.ports.last()
        {
            self.close_port(key, request);
        }
    }

    /// The client of a session has connected to a port that the peer opened for it.
    pub(in crate::worker) fn on_stream_by_port(
        &mut self,
        mut incoming: Incoming,
        (user, request): (u64, u32),
    ) {
        let Incoming { tunnel, stream, client, transport, .. } = incoming;
        let admitted =
            StreamOwner::conn(user).ok_or_else(|| NOBODY.to_owned()).and_then(|session| {
                incoming.exit = self.proxy_session(session).and_then(|session| session.asker.exit);
                Ok((session, self.admit_stream_by_port(&incoming, session, request)?))
            });
        match admitted {
            Ok((session, (Lead::Server(server), limit_guard))) => {
                self.connect_to_server(&incoming, session, limit_guard, server);
            }
            Ok((session, (Lead::SocksDatagrams, limit_guard))) => {
                if let Some(asker) =
                    self.proxy_session(session).map(|session| session.asker.clone())
                {
                    let (cx, tunnels) = (&mut self.cx, &mut self.tunnels);
                    let (at, of) = ((tunnel, stream), (session, asker));
                    let client = client.unwrap_or(NO_ADDRESS);
                    self.datagrams.open_association(cx, tunnels, at, client, of, limit_guard);
                }
            }
            Err(reason) => {
                let transport = transport.map(Transport::name);
                debug!(transport, request, "a stream by a port on request is refused");
                let client = client.unwrap_or(NO_ADDRESS);
                self.refuse_stream(tunnel, stream, client, &reason, false);
            }
        }
    }

    /// Destination and limits of a stream that came in by a port. A TCP connection uses the port
    /// up.
    fn admit_stream_by_port(
        &mut self,
        incoming: &Incoming,
        session: Key,
        request: u32,
    ) -> Result<(Lead, Option<LimitGuard>), String> {
        let wanted = match incoming.transport {
            Some(Transport::Udp) => Transport::Udp,
            _ => Transport::Tcp,
        };
        let ports = &mut self.proxy_session(session).ok_or(NOBODY)?.ports;
        let led = ports.iter().enumerate().find_map(|(at, port)| match *port {
            (of, Place::Peer(lead)) if of == request => Some((at, lead)),
            _ => None,
        });
        let (at, lead) = led.ok_or("its port was closed")?;
        match (lead, wanted) {
            (Lead::Server(_), Transport::Tcp) => {
                ports.swap_remove(at);
            }
            (Lead::SocksDatagrams, Transport::Udp) => {}
            _ => return Err(String::from("its port is of the other kind (TCP, UDP)")),
        }
        let limit_guard = self.acquire_limits(incoming.exit, incoming.caller().client)?;
        Ok((lead, limit_guard))
    }

    fn connect_to_server(
        &mut self,
        incoming: &Incoming,
        session: Key,
        limit_guard: Option<LimitGuard>,
        server: SocketAddr,
    ) {
        let overall = self
            .cx
            .plan
            .timeouts_of(incoming.exit)
            .connect
            .map(|connect| self.cx.now.after(connect));
        let target = Target { host: server.ip().to_string(), port: server.port() };
        let begun = self.begin_dialled_exit(incoming, limit_guard, |owner| Request {
            address: Some(server),
            ..Request::new(owner, target, overall)
        });
        let Some(key) = begun else { return };
        if let Some(conn) = self.conns.get_mut(key) {
            conn.related = Some(session);
        }
        debug!(client = %incoming.client.unwrap_or(NO_ADDRESS), %server, "exit by a port on request");
    }

    /// Checks whether a session may reach a host.
    pub(in crate::worker) fn check_host(&mut self, key: Key, target: Target) {
        let Some(session) = self.proxy_session(key) else { return };
        session.checking = Some(target.clone());
        if let Some(address) = resolver::literal(&target) {
            self.host_found(key, Ok(vec![address]));
        } else if let Err(error) = self.cx.resolver.ask(Lookup::Host(key), &target) {
            self.host_found(key, Err(error));
        }
    }

    /// The addresses of a host being checked.
    pub(in crate::worker) fn host_resolved(
        &mut self,
        key: Key,
        found: io::Result<Vec<SocketAddr>>,
    ) {
        self.host_found(key, found);
        self.pass_answers(key);
        self.pass_held_data(key);
    }

    fn host_found(&mut self, key: Key, found: io::Result<Vec<SocketAddr>>) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Stage::ProxyHandshake(session) = &mut conn.stage else { return };
        let Some(target) = session.checking.take() else { return };
        let result = match found {
            Ok(addresses) => {
                let (access, name, asker) = (&self.cx.destinations, &target.host, &session.asker);
                access
                    .permitted(session.protocol(), addresses, name, asker, net::is_ours)
                    .map_err(Unreached::NotPermitted)
            }
            Err(error) => Err(Unreached::NameNotFound(format!("name not found: {error}"))),
        };
        session.answers.push_back(Answer::HostChecked(result));
    }
}
