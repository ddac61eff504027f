//! What conversations ask for beside their server: ports at the peer and what comes in by them, and
//! whether a host may be reached. [`crate::worker::proxy::expected_conn`] has the ports that are opened here.
//!
//! Whatever is known at once is told to the conversation behind the steps that it has just said,
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

/// What a conversation is told for a port that it asks for in vain.
pub(in crate::worker) const NO_PORTS: &str =
    "the peer opens no ports: both ends have to speak SockMux 1";
/// The same.
const TOO_MANY: &str = "too many ports are open for this connection";
/// What is said to a stream that comes in by a port of nobody's.
const NOBODY: &str = "its control stream has ended";

impl<D: Driver> Worker<D> {
    pub(in crate::worker) fn talk(&mut self, key: Key) -> Option<&mut ProxySession> {
        match &mut self.conns.get_mut(key)?.stage {
            Stage::ProxyHandshake(talk) => Some(talk),
            _ => None,
        }
    }

    /// The conversation is told this when it has taken its last steps.
    pub(in crate::worker) fn answer(&mut self, key: Key, answer: Answer) {
        if let Some(talk) = self.talk(key) {
            talk.answers.push_back(answer);
        }
    }

    /// Tells the conversation what has been found out for it, until nothing more comes of it.
    pub(in crate::worker) fn tell_answers(&mut self, key: Key) {
        while let Some(answer) = self.talk(key).and_then(|talk| talk.answers.pop_front()) {
            self.tell_one(key, |conversation, steps| match answer {
                Answer::PortOpened(request, result) => {
                    conversation.port_opened(request, result, steps);
                }
                Answer::HostChecked(result) => conversation.host_checked(result, steps),
            });
        }
    }

    /// Whether a conversation has no room for one more port.
    pub(in crate::worker) fn has_many_ports(&mut self, key: Key, request: u32) -> bool {
        let full = self.talk(key).is_some_and(|talk| talk.ports.len() >= PORTS_PER_STREAM);
        if full {
            self.answer(key, Answer::PortOpened(request, Err(TOO_MANY.to_owned())));
        }
        full
    }

    /// Whether the peer of a conversation opens ports, and calls clients.
    pub(in crate::worker) fn peer_opens_ports(&self, key: Key) -> bool {
        let tunnel = self.conns.get(key).and_then(|conn| self.tunnels.get(conn.tunnel));
        tunnel.is_some_and(|tunnel| tunnel.session().peer_opens_ports())
    }

    /// The peer is to open a port for the conversation's client.
    pub(in crate::worker) fn open_port(&mut self, key: Key, request: u32, lead: Lead) {
        if self.has_many_ports(key, request) {
            return;
        }
        if let Err(why) = self.ask_for_port(key, request, lead) {
            return self.answer(key, Answer::PortOpened(request, Err(why)));
        }
        if let Some(talk) = self.talk(key) {
            talk.ports.push((request, Place::Peer(lead)));
        }
    }

    fn ask_for_port(&mut self, key: Key, request: u32, lead: Lead) -> Result<(), String> {
        if let Some(ProxySession { is_judged: true, .. }) = self.talk(key)
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

    /// What became of a port that the peer was asked for.
    pub(in crate::worker) fn port_given(
        &mut self,
        key: Key,
        request: u32,
        result: Result<SocketAddr, String>,
    ) {
        let Some(talk) = self.talk(key) else { return };
        let asked = |port: &(u32, Place)| port.0 == request && matches!(port.1, Place::Peer(_));
        // One that was closed before it was open concerns nobody any more.
        let Some(at) = talk.ports.iter().position(asked) else { return };
        if result.is_err() {
            talk.ports.swap_remove(at);
        }
        self.converse(key, |conversation, steps| conversation.port_opened(request, result, steps));
    }

    /// A conversation needs a port no more.
    pub(in crate::worker) fn close_port(&mut self, key: Key, request: u32) {
        let Some(talk) = self.talk(key) else { return };
        let Some(at) = talk.ports.iter().position(|port| port.0 == request) else { return };
        let (_, place) = talk.ports.swap_remove(at);
        match place {
            Place::Peer(lead) => {
                self.close_port_at_peer(key, request);
                if lead == Lead::SocksDatagrams {
                    self.datagrams.end_associations(&mut self.cx, &mut self.tunnels, key);
                }
            }
            Place::ExpectedConn(port) => self.drop_here(port),
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

    /// A conversation is over: its ports are closed. Connections that came in by them go on.
    pub(in crate::worker) fn close_ports(&mut self, key: Key) {
        while let Some(talk) = self.talk(key)
            && let Some(&(request, _)) = talk.ports.last()
        {
            self.close_port(key, request);
        }
    }

    /// The client of a conversation has come in by a port that the peer has opened for it.
    pub(in crate::worker) fn came_by_port(
        &mut self,
        mut incoming: Incoming,
        (user, request): (u64, u32),
    ) {
        let Incoming { tunnel, stream, client, transport, .. } = incoming;
        let admitted = StreamOwner::conn(user).ok_or_else(|| NOBODY.to_owned()).and_then(|talk| {
            incoming.exit = self.talk(talk).and_then(|talk| talk.asker.exit);
            Ok((talk, self.admit_by_port(&incoming, talk, request)?))
        });
        match admitted {
            Ok((talk, (Lead::Server(server), limit_guard))) => {
                self.lead_to_server(&incoming, talk, limit_guard, server);
            }
            Ok((talk, (Lead::SocksDatagrams, limit_guard))) => {
                if let Some(asker) = self.talk(talk).map(|session| session.asker.clone()) {
                    let (cx, tunnels) = (&mut self.cx, &mut self.tunnels);
                    let of = (talk, asker);
                    self.datagrams.open_association(cx, tunnels, &incoming, of, limit_guard);
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

    /// Where a stream that came in by a port is led, and its guard of the limits. A connection uses the port up.
    fn admit_by_port(
        &mut self,
        incoming: &Incoming,
        talk: Key,
        request: u32,
    ) -> Result<(Lead, Option<LimitGuard>), String> {
        let wanted = match incoming.transport {
            Some(Transport::Udp) => Transport::Udp,
            _ => Transport::Tcp,
        };
        let ports = &mut self.talk(talk).ok_or(NOBODY)?.ports;
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

    fn lead_to_server(
        &mut self,
        incoming: &Incoming,
        talk: Key,
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
            conn.related = Some(talk);
        }
        debug!(client = %incoming.client.unwrap_or(NO_ADDRESS), %server, "exit by a port on request");
    }

    /// A conversation wants to know whether a host may be reached.
    pub(in crate::worker) fn check_host(&mut self, key: Key, target: Target) {
        let Some(talk) = self.talk(key) else { return };
        talk.checking = Some(target.clone());
        if let Some(address) = resolver::literal(&target) {
            self.host_found(key, Ok(vec![address]));
        } else if let Err(error) = self.cx.resolver.ask(Lookup::Host(key), &target) {
            self.host_found(key, Err(error));
        }
    }

    /// The addresses of a host that a conversation has asked about.
    pub(in crate::worker) fn host_resolved(
        &mut self,
        key: Key,
        found: io::Result<Vec<SocketAddr>>,
    ) {
        self.host_found(key, found);
        self.tell_answers(key);
        self.tell_held(key);
    }

    fn host_found(&mut self, key: Key, found: io::Result<Vec<SocketAddr>>) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Stage::ProxyHandshake(talk) = &mut conn.stage else { return };
        let Some(target) = talk.checking.take() else { return };
        let result = match found {
            Ok(addresses) => {
                let (access, name, asker) = (&self.cx.destinations, &target.host, &talk.asker);
                access
                    .permitted(talk.protocol(), addresses, name, asker, net::is_ours)
                    .map_err(Unreached::NotPermitted)
            }
            Err(error) => Err(Unreached::NameNotFound(format!("name not found: {error}"))),
        };
        talk.answers.push_back(Answer::HostChecked(result));
    }
}
