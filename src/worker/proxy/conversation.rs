//! Runs proxy sessions: streams whose client is asked for the destination, see
//! [`crate::proxy_proto`].
//!
//! The stream is accepted at once. Data of the client and of the requested server goes to the
//! protocol, and the steps it returns are executed here. After [`ProxyStep::Pass`] the stream is
//! like any other.
//!
//! Backpressure: client data is passed on only while the protocol wants it and the server accepts
//! the output. The rest is held and its consumption not reported, so at most a window of it
//! arrives. The server is read as far as the session has room for its answer.

use std::io;
use std::time::Duration;

use tracing::{debug, warn};

use crate::cli::plan::{ExitKind, Proxy};
use crate::io::chunk::Chunk;
use crate::io::driver::Driver;
use crate::limits::{LEAVE_MILLIS, PROXY_PIECE_BYTES, PROXY_WAITING_BYTES};
use crate::policy::connection_limits::LimitGuard;
use crate::proxy_proto::{Conversation, ProxyStep};
use crate::session::NO_ADDRESS;
use crate::worker::ingress::access::Incoming;
use crate::worker::log_limit::Class;
use crate::worker::payload_queue::PayloadQueue;
use crate::worker::proxy::session::{ProxySession, Server};
use crate::worker::stream::conn::{Conn, Stage};
use crate::worker::{Drain, Key, Worker};

impl<D: Driver> Worker<D> {
    /// Opens a stream whose exit is a proxy.
    pub(in crate::worker) fn open_proxy_session(
        &mut self,
        incoming: &Incoming,
        limit_guard: Option<LimitGuard>,
        (exit, proxy): (usize, Proxy),
    ) {
        let client = incoming.caller().client;
        let conversation = self.proxies.beginnings.begin(exit, client);
        // The operator has permitted a server named by the exit itself.
        let is_judged = matches!(self.cx.plan.exits[exit].way, ExitKind::Proxy(_));
        let session = ProxySession::new(conversation, proxy, self.asker(incoming), is_judged);
        let stage = Stage::ProxyHandshake(Box::new(session));
        let Some(key) = self.begin_exit(incoming, limit_guard, None, stage) else { return };
        if let Some(conn) = self.conns.get_mut(key) {
            // The protocol must see the data, so it cannot be spliced.
            conn.copy_only = true;
        }
        if let Some(tunnel) = self.tunnels.get_mut(incoming.tunnel) {
            tunnel.session_mut().accept(incoming.stream, NO_ADDRESS, NO_ADDRESS);
        }
        self.tunnels.mark(incoming.tunnel);
        let client = incoming.client.unwrap_or(NO_ADDRESS);
        debug!(%client, proxy = proxy.word(), "exit");
        self.converse(key, |conversation, steps| conversation.begin(steps));
    }

    /// Passes an event to the protocol, executes its steps, and then passes on held data.
    pub(in crate::worker) fn converse(
        &mut self,
        key: Key,
        what: impl FnOnce(&mut dyn Conversation, &mut Vec<ProxyStep>),
    ) {
        self.tell(key, what);
        self.pass_held_data(key);
    }

    pub(in crate::worker) fn tell(
        &mut self,
        key: Key,
        what: impl FnOnce(&mut dyn Conversation, &mut Vec<ProxyStep>),
    ) {
        self.tell_one(key, what);
        self.pass_answers(key);
    }

    /// As [`Self::tell`], without passing on answers that are available at once.
    pub(in crate::worker) fn tell_one(
        &mut self,
        key: Key,
        what: impl FnOnce(&mut dyn Conversation, &mut Vec<ProxyStep>),
    ) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Stage::ProxyHandshake(session) = &mut conn.stage else { return };
        conn.last_data = self.cx.now;
        let mut steps = Vec::new();
        what(&mut *session.conversation, &mut steps);
        for step in steps {
            self.do_step(key, step);
        }
        self.update_request_deadline(key);
    }

    /// Passes held client data to the protocol as far as it wants it, then the client's end of
    /// data.
    pub(in crate::worker) fn pass_held_data(&mut self, key: Key) {
        while let Some(conn) = self.conns.get_mut(key)
            && let Stage::ProxyHandshake(session) = &mut conn.stage
            && session.listens()
        {
            if session.held.is_empty() {
                if std::mem::take(&mut session.client_ended) {
                    self.tell(key, |conversation, steps| conversation.client_ended(steps));
                }
                return;
            }
            if conn.own_bytes > PROXY_WAITING_BYTES || !session.conversation.takes_client() {
                return;
            }
            let Some(mut rest) = session.held.pop_chunk() else { return };
            let piece = rest.split_to(rest.len().min(PROXY_PIECE_BYTES));
            if !rest.is_empty() {
                session.held.push_chunk_front(rest);
            }
            session.held_bytes -= piece.len() as u64;
            self.report_consumed(key, piece.len() as u64);
            self.tell(key, |conversation, steps| conversation.from_client(&piece, steps));
        }
    }

    /// Reports delivered data as consumed.
    fn report_consumed(&mut self, key: Key, bytes: u64) {
        let now = self.cx.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        let (tunnel, stream) = (conn.tunnel, conn.stream);
        if let (Some(tunnel), Some(stream)) = (self.tunnels.get_mut(tunnel), stream) {
            tunnel.session_mut().consumed(stream, bytes, now);
        }
        self.tunnels.mark(tunnel);
    }

    /// Runs the deadline while a request is awaited, counted from the beginning of that wait.
    fn update_request_deadline(&mut self, key: Key) {
        let now = self.cx.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        let ask = self.cx.plan.timeouts_of(conn.exit).ask;
        let Stage::ProxyHandshake(session) = &mut conn.stage else { return };
        if !session.listens() {
            return;
        }
        if !session.conversation.awaits_client() {
            session.awaited_since = None;
            conn.deadline = None;
        } else if self.drain != Drain::No {
            self.end_client(key);
        } else if session.awaited_since.is_none() {
            session.awaited_since = Some(now);
            self.set_deadline(key, ask.map(|ask| now.after(ask)));
        }
    }

    fn do_step(&mut self, key: Key, step: ProxyStep) {
        match step {
            ProxyStep::ToClient(bytes) => self.send_to_client(key, &bytes),
            ProxyStep::ToServer(bytes) => self.send_to_server(key, &bytes),
            ProxyStep::Connect(target) => self.leave_server(key, Server::Closing(target)),
            ProxyStep::Pass => self.pass(key),
            ProxyStep::OpenPort { request, lead } => self.open_port(key, request, lead),
            ProxyStep::ClosePort(request) => self.close_port(key, request),
            ProxyStep::ListenHere { request, own, from, then } => {
                self.listen_once(key, request, own, (from, then));
            }
            ProxyStep::CheckHost(target) => self.check_host(key, target),
            ProxyStep::EndServer => {
                if let Some(conn) = self.conns.get_mut(key) {
                    conn.end_after_output = true;
                    self.conns.mark(key);
                }
            }
            ProxyStep::EndClient => self.end_client(key),
            ProxyStep::Reset(why) => {
                self.note(key, &why);
                let error = io::Error::other(why);
                self.finish_broken(key, "reset by the proxy", &error);
            }
            ProxyStep::Note(what) => self.note(key, &what),
        }
    }

    fn note(&mut self, key: Key, what: &str) {
        let Some(conn) = self.conns.get(key) else { return };
        let client = conn.client;
        if self.cx.may_log(Class::Refusal) {
            warn!(%client, reason = what, "not served by the proxy");
        }
    }

    fn send_to_client(&mut self, key: Key, bytes: &[u8]) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if !self.cx.buffers.has_room_for(bytes.len()) {
            return self.out_of_buffers(key);
        }
        self.cx.buffers.store(bytes, &mut conn.input);
        let (tunnel, stream) = (conn.tunnel, conn.stream);
        if let (Some(tunnel), Some(stream)) = (self.tunnels.get_mut(tunnel), stream) {
            tunnel.session_mut().data_ready(stream, bytes.len() as u64);
        }
        self.tunnels.mark(tunnel);
    }

    fn send_to_server(&mut self, key: Key, bytes: &[u8]) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Stage::ProxyHandshake(session) = &conn.stage else { return };
        if !matches!(session.server, Server::Connected { broken: None }) {
            return;
        }
        if !self.cx.buffers.has_room_for(bytes.len()) {
            return self.out_of_buffers(key);
        }
        self.cx.buffers.store(bytes, &mut conn.output);
        conn.own_bytes += bytes.len() as u64;
        self.conns.mark(key);
    }

    /// Data of the client.
    pub(in crate::worker) fn on_client_data(&mut self, key: Key, chunk: &Chunk) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Stage::ProxyHandshake(session) = &mut conn.stage else { return };
        let bytes = chunk.len() as u64;
        if matches!(session.server, Server::Over) {
            return self.report_consumed(key, bytes);
        }
        // Copied, because it may be held for long and the link needs its buffer back.
        if !self.cx.buffers.spill(chunk, &mut conn.spill, &mut session.held) {
            return self.out_of_buffers(key);
        }
        session.held_bytes += bytes;
        self.pass_held_data(key);
        self.read_conn(key);
    }

    /// Whether a stream is in a proxy handshake.
    pub(in crate::worker) fn is_proxy_handshake(&self, key: Key) -> bool {
        self.conns.get(key).is_some_and(|conn| matches!(conn.stage, Stage::ProxyHandshake(_)))
    }

    /// Hands over client data that was held while the client's name was looked up.
    pub(in crate::worker) fn take_over_held(&mut self, key: Key, before: &mut Conn) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Stage::ProxyHandshake(session) = &mut conn.stage else { return };
        // Nothing else can be held yet: the session has just begun.
        std::mem::swap(&mut conn.spill, &mut before.spill);
        while let Some(chunk) = before.output.pop_chunk() {
            session.held_bytes += chunk.len() as u64;
            session.held.push_chunk(chunk);
        }
        session.client_ended |= before.end_after_output;
        self.pass_held_data(key);
    }

    /// The client has ended its direction.
    pub(in crate::worker) fn on_client_end(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if let Stage::ProxyHandshake(session) = &mut conn.stage {
            session.client_ended = true;
            self.pass_held_data(key);
        }
    }

    /// The handshake is done: turns the stream into an ordinary one.
    fn pass(&mut self, key: Key) {
        self.close_ports(key);
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Stage::ProxyHandshake(session) = std::mem::replace(&mut conn.stage, Stage::Open) else {
            return;
        };
        conn.copy_only = false;
        conn.deadline = None;
        let ProxySession { mut held, client_ended, server, .. } = *session;
        while let Some(chunk) = held.pop_chunk() {
            conn.output.push_chunk(chunk);
        }
        conn.end_after_output |= client_ended;
        if conn.fd.is_none() {
            let gone = io::Error::from(io::ErrorKind::NotConnected);
            return self.finish_broken(key, "reset", &gone);
        }
        if let Server::Connected { broken: Some(broken) } = server {
            conn.broken = Some(Box::new(broken));
            return match conn.read_ended {
                true => self.conn_ended(key),
                false => self.break_conn(key, None),
            };
        }
        if conn.read_ended {
            self.conn_ended(key);
        }
        self.conns.mark(key);
        self.join_when_quiescent(key);
        self.read_conn(key);
    }

    /// Ends the direction to the client. Its further data is discarded.
    fn end_client(&mut self, key: Key) {
        let now = self.cx.now;
        self.leave_server(key, Server::Over);
        self.close_ports(key);
        let Some(conn) = self.conns.get_mut(key) else { return };
        let grace = match self.drain {
            Drain::No => self.cx.plan.timeouts_of(conn.exit).linger,
            _ => Some(Duration::from_millis(LEAVE_MILLIS)),
        };
        let Stage::ProxyHandshake(session) = &mut conn.stage else { return };
        session.held = PayloadQueue::default();
        let held_bytes = std::mem::take(&mut session.held_bytes);
        let (tunnel, stream) = (conn.tunnel, conn.stream);
        if let (Some(tunnel), Some(stream)) = (self.tunnels.get_mut(tunnel), stream) {
            tunnel.session_mut().data_end(stream, now);
        }
        self.report_consumed(key, held_bytes);
        self.set_deadline(key, grace.map(|grace| now.after(grace)));
    }

    /// The deadline of a session, for its client or its server, has expired.
    pub(in crate::worker) fn proxy_deadline_expired(&mut self, key: Key) {
        let now = self.cx.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        let ask = self.cx.plan.timeouts_of(conn.exit).ask;
        let Stage::ProxyHandshake(session) = &mut conn.stage else { return };
        let asked_long = session
            .awaited_since
            .is_some_and(|since| ask.is_some_and(|ask| since.after(ask) <= now));
        if matches!(session.server, Server::Dialing(_)) {
            // The dial enforces TIMEOUT=con.
            return;
        }
        if asked_long {
            self.converse(key, |conversation, steps| conversation.timed_out(steps));
        }
        // The protocol continues all the same, or the stream was idle for TIMEOUT=io.
        if let Some(conn) = self.conns.get(key)
            && let Stage::ProxyHandshake(session) = &conn.stage
            && (!asked_long || !matches!(session.server, Server::Over))
        {
            let over = io::Error::from(io::ErrorKind::TimedOut);
            self.conn_failed(key, "timed out", &over);
        }
    }

    /// The process drains: ends sessions that await a request or their client's end.
    pub(in crate::worker) fn end_idle_proxy_sessions(&mut self) {
        let is_idle = |conn: &Conn| match &conn.stage {
            Stage::ProxyHandshake(session) => {
                session.awaited_since.is_some() || matches!(session.server, Server::Over)
            }
            _ => false,
        };
        let idle = self.conns.iter().filter(|(_, conn)| is_idle(conn)).map(|(key, _)| key);
        for key in idle.collect::<Vec<_>>() {
            self.end_client(key);
        }
    }
}
