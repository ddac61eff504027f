//! Runs proxy sessions: streams whose client is asked for the destination, see
//! [`crate::proxy_proto`].
//!
//! The stream is accepted at once. Data of the client and of the requested server goes to the
//! protocol, and the steps it returns are executed here. After [`ProxyStep::Pass`] the stream is
//! like any other. [`crate::worker::stream::handshake`] moves the bytes.

use std::io;
use std::rc::Rc;

use tracing::{debug, warn};

use crate::io::driver::Driver;
use crate::policy::connection_limits::LimitGuard;
use crate::policy::destinations::Asker;
use crate::proxy_proto::config::ConversationConfig;
use crate::proxy_proto::{Conversation, ProxyStep};
use crate::session::NO_ADDRESS;
use crate::worker::context::log_limit::Class;
use crate::worker::context::{Cx, Drain};
use crate::worker::exits::ExitState;
use crate::worker::message::{HandshakeEvent, Incoming};
use crate::worker::proxy::Proxies;
use crate::worker::proxy::session::ProxySession;
use crate::worker::stream::Streams;
use crate::worker::stream::handshake::Held;
use crate::worker::stream::server::UpstreamState;
use crate::worker::table::Key;

/// Reason to refuse a client that may be guessing.
const TOO_MANY_WRONG: &str = "too many wrong passwords from this client's address: not read for some \
                              seconds";

impl Proxies {
    /// Opens a stream whose exit is a proxy.
    pub(in crate::worker) fn open_proxy_session<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        incoming: &Incoming,
        limit_guard: Option<LimitGuard>,
        (exit, config): (&Rc<ExitState>, &ConversationConfig),
        asker: Asker,
    ) {
        let client = incoming.caller().client;
        let (conversation, proxy) = (config.begin(client), config.proxy());
        let stream = (incoming.tunnel, incoming.stream);
        let session = ProxySession::new(conversation, proxy, asker, exit, stream);
        let Some(key) = streams.begin_handshake(cx, incoming, limit_guard) else { return };
        self.sessions.insert(key, session);
        let client = incoming.client.unwrap_or(NO_ADDRESS);
        let (stream, tunnel) = (key.number(), incoming.tunnel.number());
        debug!(stream, tunnel, %client, proxy = proxy.word(), "exit");
        self.converse(cx, streams, key, |conversation, steps| conversation.begin(steps));
    }

    /// Passes an event to the protocol, executes its steps, and then passes on held data.
    pub(super) fn converse<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
        what: impl FnOnce(&mut dyn Conversation, &mut Vec<ProxyStep>),
    ) {
        self.tell(cx, streams, key, what);
        self.pass_held_data(cx, streams, key);
    }

    pub(super) fn tell<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
        what: impl FnOnce(&mut dyn Conversation, &mut Vec<ProxyStep>),
    ) {
        self.tell_one(cx, streams, key, what);
        self.pass_answers(cx, streams, key);
    }

    /// As [`Self::tell`], without passing on answers that are available at once.
    pub(super) fn tell_one<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
        what: impl FnOnce(&mut dyn Conversation, &mut Vec<ProxyStep>),
    ) {
        streams.note_exchange(cx, key);
        let Some(session) = self.proxy_session(streams, key) else { return };
        let mut steps = Vec::new();
        what(&mut *session.conversation, &mut steps);
        let held_bytes = session.conversation.held_bytes();
        let before = std::mem::replace(&mut session.held_bytes, held_bytes);
        self.held.changed(before, held_bytes);
        for step in steps {
            self.do_step(cx, streams, key, step);
        }
        self.update_request_deadline(cx, streams, key);
        self.shed(cx, streams);
    }

    /// Passes held client data to the protocol as far as it wants it, then the client's end of
    /// data.
    pub(super) fn pass_held_data<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
    ) {
        while let Some(session) = self.sessions.get(&key) {
            let is_wanted = session.conversation.takes_client();
            let is_braked = session.asks_user()
                && session.conversation.awaits_client()
                && !self.wrong_passwords.may_try(session.asker.caller.client, cx.now.0);
            match streams.take_held(cx, key, is_wanted) {
                Some(Held::Data(_)) if is_braked => {
                    let step = ProxyStep::Reset(TOO_MANY_WRONG.to_owned());
                    return self.do_step(cx, streams, key, step);
                }
                Some(Held::Data(piece)) => {
                    self.tell(cx, streams, key, |conversation, steps| {
                        conversation.from_client(&piece, steps)
                    });
                }
                Some(Held::End) => {
                    return self.tell(cx, streams, key, |conversation, steps| {
                        conversation.client_ended(steps)
                    });
                }
                None => return,
            }
        }
    }

    /// Runs the deadline while a request is awaited, counted from the beginning of that wait.
    fn update_request_deadline<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
    ) {
        let now = cx.now;
        if !streams.listens(key) {
            return;
        }
        let Some(session) = self.proxy_session(streams, key) else { return };
        if !session.conversation.awaits_client() {
            session.awaited_since = None;
            streams.set_deadline(cx, key, None);
        } else if cx.drain != Drain::No {
            self.end_session(cx, streams, key);
        } else if session.awaited_since.is_none() {
            session.awaited_since = Some(now);
            let ask = session.exit.timeouts.ask;
            streams.set_deadline(cx, key, ask.map(|ask| now.after(ask)));
        }
    }

    pub(super) fn do_step<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
        step: ProxyStep,
    ) {
        match step {
            ProxyStep::ToClient(bytes) => streams.send_to_client(cx, key, &bytes),
            ProxyStep::ToServer(bytes) => streams.send_to_server(cx, key, &bytes),
            ProxyStep::Connect(target) => {
                self.leave_upstream(cx, streams, key, UpstreamState::Closing(target));
                self.closing.push(key);
            }
            ProxyStep::Pass => {
                self.close_ports(cx, streams, key);
                self.forget(key);
                streams.pass(cx, key);
            }
            ProxyStep::OpenPort { request, lead } => {
                self.open_port(cx, streams, key, request, lead)
            }
            ProxyStep::ClosePort(request) => self.close_port(cx, streams, key, request),
            ProxyStep::ListenHere { request, own, from, then } => {
                self.listen_once(cx, streams, key, request, own, (from, then));
            }
            ProxyStep::CheckHost(target) => self.check_host(cx, streams, key, target),
            ProxyStep::EndServer => streams.end_server(key),
            ProxyStep::EndClient => self.end_session(cx, streams, key),
            ProxyStep::Reset(why) => {
                self.note(cx, streams, key, &why);
                let error = io::Error::other(why);
                streams.finish_broken(cx, key, "reset by the proxy", &error);
            }
            ProxyStep::Note(what) => self.note(cx, streams, key, &what),
            ProxyStep::WrongPassword(what) => {
                if let Some(session) = self.sessions.get(&key) {
                    self.wrong_passwords.add(session.asker.caller.client, cx.now.0);
                }
                self.note(cx, streams, key, &what);
            }
        }
    }

    fn note<D: Driver>(&mut self, cx: &mut Cx<D>, streams: &mut Streams, key: Key, what: &str) {
        let Some(client) = streams.client(key) else { return };
        streams.server_refused(key, what);
        if cx.may_log(Class::Refusal) {
            warn!(stream = key.number(), %client, reason = what, "not served by the proxy");
        }
    }

    /// Ends the session: its client is sent what is left, and what that sends is discarded.
    fn end_session<D: Driver>(&mut self, cx: &mut Cx<D>, streams: &mut Streams, key: Key) {
        self.leave_upstream(cx, streams, key, UpstreamState::Over);
        self.close_ports(cx, streams, key);
        streams.end_client(cx, key);
    }

    /// Leaves the server of a session, if any.
    pub(super) fn leave_upstream<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
        next: UpstreamState,
    ) {
        streams.leave_server(cx, key, next);
        if let Some(session) = self.sessions.get_mut(&key) {
            session.awaited_since = None;
        }
    }

    /// Something happened to a stream in a handshake.
    pub(in crate::worker) fn on_handshake<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
        event: HandshakeEvent,
    ) {
        match event {
            HandshakeEvent::Client => {
                self.pass_held_data(cx, streams, key);
                streams.read_conn(cx, key);
            }
            HandshakeEvent::ServerData(chunk) => self.on_server_data(cx, streams, key, &chunk),
            HandshakeEvent::ServerEnded => {
                self.converse(cx, streams, key, |conversation, steps| {
                    conversation.server_ended(steps)
                });
            }
            HandshakeEvent::ServerFailed => {
                if let Some(session) = self.sessions.get_mut(&key) {
                    session.awaited_since = None;
                }
                self.converse(cx, streams, key, |conversation, steps| {
                    conversation.server_failed(steps)
                });
            }
            HandshakeEvent::Deadline => self.proxy_deadline_expired(cx, streams, key),
        }
    }

    /// The deadline of a session, for its client or its server, has expired.
    fn proxy_deadline_expired<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
    ) {
        let now = cx.now;
        let Some(session) = self.sessions.get(&key) else { return };
        let ask = session.exit.timeouts.ask;
        let asked_long = session
            .awaited_since
            .is_some_and(|since| ask.is_some_and(|ask| since.after(ask) <= now));
        if matches!(streams.server_of(key), Some(UpstreamState::Dialing(_))) {
            // The dial enforces TIMEOUT=con.
            return;
        }
        if asked_long {
            self.converse(cx, streams, key, |conversation, steps| conversation.timed_out(steps));
        }
        // The protocol continues all the same, or the stream was idle for TIMEOUT=io.
        if let Some(server) = streams.server_of(key)
            && (!asked_long || !matches!(server, UpstreamState::Over))
        {
            let over = io::Error::from(io::ErrorKind::TimedOut);
            streams.conn_failed(cx, key, "timed out", &over);
        }
    }

    /// The process drains: ends sessions that await a request or their client's end.
    pub(in crate::worker) fn end_idle_proxy_sessions<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
    ) {
        let is_over = |key| matches!(streams.server_of(key), Some(UpstreamState::Over));
        let sessions = self.sessions.iter();
        let idle =
            sessions.filter(|&(&key, session)| session.awaited_since.is_some() || is_over(key));
        let mut idle: Vec<Key> = idle.map(|(&key, _)| key).collect();
        idle.sort_unstable();
        for key in idle {
            self.end_session(cx, streams, key);
        }
    }
}
