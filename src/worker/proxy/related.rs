//! Requests of proxy sessions beside their server: ports at the peer, streams that come in by them,
//! and checks of hosts. [`crate::worker::proxy::expected_conn`] has the listeners of this process.
//!
//! A result that is known at once is passed to the protocol after the steps it has just returned,
//! as if it had taken time.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tracing::debug;

use crate::cli::plan::{Target, Transport};
use crate::io::driver::Driver;
use crate::io::net;
use crate::io::resolver;
use crate::limits::PORTS_PER_STREAM;
use crate::policy::connection_limits::LimitGuard;
use crate::proxy_proto::{Lead, Unreached};
use crate::session::NO_ADDRESS;
use crate::worker::context::dialer::dial::Request;
use crate::worker::context::{Cx, Effect, Lookup};
use crate::worker::message::Incoming;
use crate::worker::proxy::Proxies;
use crate::worker::proxy::session::{Answer, Place, ProxySession};
use crate::worker::stream::Streams;
use crate::worker::table::Key;
use crate::worker::token::StreamOwner;

/// Reason why a port is not opened.
pub(super) const NO_PORTS: &str = "the peer opens no ports: both ends have to speak SockMux 1";
/// Reason why a port is not opened.
const TOO_MANY: &str = "too many ports are open for this connection";
/// Reason for a stream by a port without an owner.
const NOBODY: &str = "its control stream has ended";

impl Proxies {
    pub(super) fn proxy_session(
        &mut self,
        streams: &Streams,
        key: Key,
    ) -> Option<&mut ProxySession> {
        if !streams.is_proxy_handshake(key) {
            return None;
        }
        self.sessions.get_mut(&key)
    }

    /// Queues a result for the protocol, to follow its current steps.
    pub(super) fn answer(&mut self, streams: &Streams, key: Key, answer: Answer) {
        if let Some(session) = self.proxy_session(streams, key) {
            session.answers.push_back(answer);
        }
    }

    /// Passes queued results to the protocol until none is left.
    pub(super) fn pass_answers<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
    ) {
        while let Some(answer) =
            self.proxy_session(streams, key).and_then(|session| session.answers.pop_front())
        {
            self.tell_one(cx, streams, key, |conversation, steps| match answer {
                Answer::PortOpened(request, result) => {
                    conversation.port_opened(request, result, steps);
                }
                Answer::HostChecked(result) => conversation.host_checked(result, steps),
            });
        }
    }

    /// Whether a session has no room for another port; queues the refusal.
    pub(super) fn has_many_ports(&mut self, streams: &Streams, key: Key, request: u32) -> bool {
        let full = self
            .proxy_session(streams, key)
            .is_some_and(|session| session.ports.len() >= PORTS_PER_STREAM);
        if full {
            self.answer(streams, key, Answer::PortOpened(request, Err(TOO_MANY.to_owned())));
        }
        full
    }

    /// Asks the peer to open a port for the session's client.
    pub(super) fn open_port<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
        request: u32,
        lead: Lead,
    ) {
        if self.has_many_ports(streams, key, request) {
            return;
        }
        if let Err(why) = self.ask_for_port(cx, streams, key, request, lead) {
            return self.answer(streams, key, Answer::PortOpened(request, Err(why)));
        }
        if let Some(session) = self.proxy_session(streams, key) {
            session.ports.push((request, Place::Peer(lead)));
        }
    }

    fn ask_for_port<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
        request: u32,
        lead: Lead,
    ) -> Result<(), String> {
        if let Some(session) = self.proxy_session(streams, key)
            && let Lead::Server(server) = lead
        {
            if cx.destinations.leads_to_a_peer(server, net::is_ours) {
                return Err(format!("{server} is where a peer is accepted"));
            }
            if session.is_judged && cx.destinations.is_own(server, net::is_ours) {
                return Err(format!("{server} is a port of this relay"));
            }
        }
        let transport = match lead {
            Lead::Server(_) => crate::wire::Transport::Tcp,
            Lead::SocksDatagrams => crate::wire::Transport::Udp,
        };
        if !streams.peer_opens_ports(key) {
            return Err(NO_PORTS.to_owned());
        }
        let asked = streams.ask_port(key, request, transport).ok_or(NOBODY)?;
        asked.map_err(|error| error.to_string())
    }

    /// The peer has opened or refused a port.
    pub(in crate::worker) fn port_given<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
        request: u32,
        result: Result<SocketAddr, String>,
    ) {
        let Some(session) = self.proxy_session(streams, key) else { return };
        let asked = |port: &(u32, Place)| port.0 == request && matches!(port.1, Place::Peer(_));
        // A port closed before it was opened no longer matters.
        let Some(at) = session.ports.iter().position(asked) else { return };
        if result.is_err() {
            session.ports.swap_remove(at);
        }
        self.converse(cx, streams, key, |conversation, steps| {
            conversation.port_opened(request, result, steps)
        });
    }

    /// A session no longer needs a port.
    pub(super) fn close_port<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
        request: u32,
    ) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let Some(at) = session.ports.iter().position(|port| port.0 == request) else { return };
        let (_, place) = session.ports.swap_remove(at);
        match place {
            Place::Peer(lead) => {
                let stream = session.stream;
                streams.close_port_at_peer(stream, request);
                if lead == Lead::SocksDatagrams {
                    cx.effects.push_back(Effect::EndAssociations(key));
                }
            }
            Place::ExpectedConn(port) => self.drop_expected(cx, port),
        }
    }

    /// Closes all ports of a session. Connections that came in by them continue.
    pub(super) fn close_ports<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
    ) {
        while let Some(session) = self.sessions.get(&key)
            && let Some(&(request, _)) = session.ports.last()
        {
            self.close_port(cx, streams, key, request);
        }
    }

    /// The stream of a session is over.
    pub(in crate::worker) fn session_over<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
    ) {
        self.close_ports(cx, streams, key);
        self.forget(key);
    }

    /// The client of a session has connected to a port that the peer opened for it.
    pub(in crate::worker) fn on_stream_by_port<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        mut incoming: Incoming,
        (user, request): (u64, u32),
    ) {
        let Incoming { tunnel, stream, client, transport, .. } = incoming;
        let admitted =
            StreamOwner::conn(user).ok_or_else(|| NOBODY.to_owned()).and_then(|session| {
                incoming.exit =
                    self.proxy_session(streams, session).map(|session| Rc::clone(&session.exit));
                Ok((session, self.admit_stream_by_port(cx, streams, &incoming, session, request)?))
            });
        match admitted {
            Ok((session, (Lead::Server(server), limit_guard))) => {
                self.connect_to_server(cx, streams, &incoming, session, limit_guard, server);
            }
            Ok((session, (Lead::SocksDatagrams, limit_guard))) => {
                if let Some(asker) =
                    self.proxy_session(streams, session).map(|session| session.asker.clone())
                {
                    let (stream, session) = ((tunnel, stream), (session, asker));
                    let client = client.unwrap_or(NO_ADDRESS);
                    let begun = Effect::OpenAssociation { stream, client, session, limit_guard };
                    cx.effects.push_back(begun);
                }
            }
            Err(reason) => {
                let transport = transport.map(Transport::name);
                debug!(transport, request, "a stream by a port on request is refused");
                let client = client.unwrap_or(NO_ADDRESS);
                streams.refuse_stream(cx, tunnel, stream, client, &reason, false);
            }
        }
    }

    /// Destination and limits of a stream that came in by a port. A TCP connection uses the port
    /// up.
    fn admit_stream_by_port<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        incoming: &Incoming,
        session: Key,
        request: u32,
    ) -> Result<(Lead, Option<LimitGuard>), String> {
        let wanted = match incoming.transport {
            Some(Transport::Udp) => Transport::Udp,
            _ => Transport::Tcp,
        };
        let ports = &mut self.proxy_session(streams, session).ok_or(NOBODY)?.ports;
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
        let opener = streams.tunnels().peer_of(incoming.tunnel);
        let client = incoming.caller().client;
        let limit_guard = cx.acquire_limits(incoming.exit.as_ref(), client, opener)?;
        Ok((lead, limit_guard))
    }

    fn connect_to_server<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        incoming: &Incoming,
        session: Key,
        limit_guard: Option<LimitGuard>,
        server: SocketAddr,
    ) {
        let overall =
            cx.timeouts_of(incoming.exit.as_ref()).connect.map(|connect| cx.now.after(connect));
        let target = Target { host: server.ip().to_string(), port: server.port() };
        let begun = streams.begin_dialled_exit(cx, incoming, limit_guard, |owner| Request {
            address: Some(server),
            ..Request::new(owner, target, overall)
        });
        let Some(key) = begun else { return };
        streams.relate(key, session);
    }

    /// Checks whether a session may reach a host.
    pub(super) fn check_host<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
        target: Target,
    ) {
        let Some(session) = self.proxy_session(streams, key) else { return };
        session.checking = Some(target.clone());
        if let Some(address) = resolver::literal(&target) {
            self.host_found(cx, streams, key, Ok(vec![address]));
        } else if let Err(error) = cx.resolver.ask(Lookup::Host(key), &target) {
            self.host_found(cx, streams, key, Err(error));
        }
    }

    /// The addresses of a host being checked.
    pub(in crate::worker) fn host_resolved<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
        found: io::Result<Vec<SocketAddr>>,
    ) {
        self.host_found(cx, streams, key, found);
        self.pass_answers(cx, streams, key);
        self.pass_held_data(cx, streams, key);
    }

    fn host_found<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
        found: io::Result<Vec<SocketAddr>>,
    ) {
        let Some(session) = self.proxy_session(streams, key) else { return };
        let Some(target) = session.checking.take() else { return };
        let result = match found {
            Ok(addresses) => {
                let (access, name, asker) = (&cx.destinations, &target.host, &session.asker);
                access
                    .permitted(session.protocol(), addresses, name, asker, net::is_ours)
                    .map_err(Unreached::NotPermitted)
            }
            Err(error) => Err(Unreached::NameNotFound(format!("name not found: {error}"))),
        };
        session.answers.push_back(Answer::HostChecked(result));
    }
}
