//! Exits that think: streams whose client is asked where to go, see [`crate::proxy_proto`].
//!
//! Such a stream is accepted at once. What its client says, and what the server says that the
//! conversation has asked for, is told to the conversation; what that answers is done here, step by
//! step. When it says that bytes are to pass, the stream becomes one like any other.
//!
//! What the client says is told only while it is of use and the server takes what came of it. The
//! rest is held and the peer not told that it was taken, so that no more than a window of it comes.
//! The server is read as far as the session has room for its answer.

use std::io;
use std::time::Duration;

use tracing::{debug, warn};

use crate::cli::plan::{Proxy, Way};
use crate::io::chunk::Chunk;
use crate::io::driver::Driver;
use crate::limits::{LEAVE_MILLIS, PROXY_PIECE_BYTES, PROXY_WAITING_BYTES};
use crate::policy::connection_limits::LimitGuard;
use crate::proxy_proto::{Conversation, ProxyStep};
use crate::session::NO_ADDRESS;
use crate::worker::ingress::access::Incoming;
use crate::worker::log_limit::Class;
use crate::worker::proxy::session::{ProxySession, Server};
use crate::worker::stream::conn::{Conn, Stage};
use crate::worker::stream::payload_queue::PayloadQueue;
use crate::worker::{Drain, Key, Worker};

impl<D: Driver> Worker<D> {
    /// The peer began a stream whose exit is a proxy.
    pub(in crate::worker) fn open_conversation(
        &mut self,
        incoming: &Incoming,
        limit_guard: Option<LimitGuard>,
        (exit, proxy): (usize, Proxy),
    ) {
        let client = incoming.caller().client;
        let conversation = self.proxies.beginnings.begin(exit, client);
        // Where the exit itself names the server, its operator has permitted it.
        let is_judged = matches!(self.cx.plan.exits[exit].way, Way::Proxy(_));
        let talk = ProxySession::new(conversation, proxy, self.asker(incoming), is_judged);
        let stage = Stage::ProxyHandshake(Box::new(talk));
        let Some(key) = self.begin_exit(incoming, limit_guard, None, stage) else { return };
        if let Some(conn) = self.conns.get_mut(key) {
            // What is said has to be seen.
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

    /// Tells the conversation something, does what it then asks for, and tells it what was held.
    pub(in crate::worker) fn converse(
        &mut self,
        key: Key,
        what: impl FnOnce(&mut dyn Conversation, &mut Vec<ProxyStep>),
    ) {
        self.tell(key, what);
        self.tell_held(key);
    }

    pub(in crate::worker) fn tell(
        &mut self,
        key: Key,
        what: impl FnOnce(&mut dyn Conversation, &mut Vec<ProxyStep>),
    ) {
        self.tell_one(key, what);
        self.tell_answers(key);
    }

    /// As [`Self::tell`], without what can be answered at once of that which is then asked for.
    pub(in crate::worker) fn tell_one(
        &mut self,
        key: Key,
        what: impl FnOnce(&mut dyn Conversation, &mut Vec<ProxyStep>),
    ) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Stage::ProxyHandshake(talk) = &mut conn.stage else { return };
        conn.last_data = self.cx.now;
        let mut steps = Vec::new();
        what(&mut *talk.conversation, &mut steps);
        for step in steps {
            self.do_step(key, step);
        }
        self.look_at_clock(key);
    }

    /// Tells the conversation what its client said, as far as it is of use now, and that it has
    /// said all.
    pub(in crate::worker) fn tell_held(&mut self, key: Key) {
        while let Some(conn) = self.conns.get_mut(key)
            && let Stage::ProxyHandshake(talk) = &mut conn.stage
            && talk.listens()
        {
            if talk.held.is_empty() {
                if std::mem::take(&mut talk.client_ended) {
                    self.tell(key, |conversation, steps| conversation.client_ended(steps));
                }
                return;
            }
            if conn.own_bytes > PROXY_WAITING_BYTES || !talk.conversation.takes_client() {
                return;
            }
            let Some(mut rest) = talk.held.pop_chunk() else { return };
            let piece = rest.split_to(rest.len().min(PROXY_PIECE_BYTES));
            if !rest.is_empty() {
                talk.held.push_chunk_front(rest);
            }
            talk.held_bytes -= piece.len() as u64;
            self.was_taken(key, piece.len() as u64);
            self.tell(key, |conversation, steps| conversation.from_client(&piece, steps));
        }
    }

    /// The session is told that so much of what it delivered is no longer held.
    fn was_taken(&mut self, key: Key, bytes: u64) {
        let now = self.cx.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        let (tunnel, stream) = (conn.tunnel, conn.stream);
        if let (Some(tunnel), Some(stream)) = (self.tunnels.get_mut(tunnel), stream) {
            tunnel.session_mut().consumed(stream, bytes, now);
        }
        self.tunnels.mark(tunnel);
    }

    /// The clock runs while a request is awaited, from when it first was.
    fn look_at_clock(&mut self, key: Key) {
        let now = self.cx.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        let ask = self.cx.plan.timeouts_of(conn.exit).ask;
        let Stage::ProxyHandshake(talk) = &mut conn.stage else { return };
        if !talk.listens() {
            return;
        }
        if !talk.conversation.awaits_client() {
            talk.awaited_since = None;
            conn.deadline = None;
        } else if self.drain != Drain::No {
            self.end_client(key);
        } else if talk.awaited_since.is_none() {
            talk.awaited_since = Some(now);
            self.set_deadline(key, ask.map(|ask| now.after(ask)));
        }
    }

    fn do_step(&mut self, key: Key, step: ProxyStep) {
        match step {
            ProxyStep::ToClient(bytes) => self.say_to_client(key, &bytes),
            ProxyStep::ToServer(bytes) => self.say_to_server(key, &bytes),
            ProxyStep::Connect(target) => self.leave_server(key, Server::Closing(target)),
            ProxyStep::Pass => self.pass(key),
            ProxyStep::OpenPort { request, lead } => self.open_port(key, request, lead),
            ProxyStep::ClosePort(request) => self.close_port(key, request),
            ProxyStep::ListenHere { request, own, from, then } => {
                self.listen_here(key, request, own, (from, then));
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

    fn say_to_client(&mut self, key: Key, bytes: &[u8]) {
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

    fn say_to_server(&mut self, key: Key, bytes: &[u8]) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Stage::ProxyHandshake(talk) = &conn.stage else { return };
        if !matches!(talk.server, Server::Connected { broken: None }) {
            return;
        }
        if !self.cx.buffers.has_room_for(bytes.len()) {
            return self.out_of_buffers(key);
        }
        self.cx.buffers.store(bytes, &mut conn.output);
        conn.own_bytes += bytes.len() as u64;
        self.conns.mark(key);
    }

    /// Bytes of the client.
    pub(in crate::worker) fn client_said(&mut self, key: Key, chunk: &Chunk) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Stage::ProxyHandshake(talk) = &mut conn.stage else { return };
        let bytes = chunk.len() as u64;
        if matches!(talk.server, Server::Over) {
            return self.was_taken(key, bytes);
        }
        // Copied: the link needs its buffer back, for it may be held.
        if !self.cx.buffers.spill(chunk, &mut conn.spill, &mut talk.held) {
            return self.out_of_buffers(key);
        }
        talk.held_bytes += bytes;
        self.tell_held(key);
        self.read_conn(key);
    }

    /// Whether a stream is asked where to go.
    pub(in crate::worker) fn is_proxy_handshake(&self, key: Key) -> bool {
        self.conns.get(key).is_some_and(|conn| matches!(conn.stage, Stage::ProxyHandshake(_)))
    }

    /// What the client said while its name was looked up, which a connection without a server
    /// has held.
    pub(in crate::worker) fn client_had_said(&mut self, key: Key, before: &mut Conn) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Stage::ProxyHandshake(talk) = &mut conn.stage else { return };
        // Nothing else can be held yet: the conversation has just begun.
        std::mem::swap(&mut conn.spill, &mut before.spill);
        while let Some(chunk) = before.output.pop_chunk() {
            talk.held_bytes += chunk.len() as u64;
            talk.held.push_chunk(chunk);
        }
        talk.client_ended |= before.end_after_output;
        self.tell_held(key);
    }

    /// The client has said all.
    pub(in crate::worker) fn client_said_all(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if let Stage::ProxyHandshake(talk) = &mut conn.stage {
            talk.client_ended = true;
            self.tell_held(key);
        }
    }

    /// The conversation is over, and bytes pass.
    fn pass(&mut self, key: Key) {
        self.close_ports(key);
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Stage::ProxyHandshake(talk) = std::mem::replace(&mut conn.stage, Stage::Open) else {
            return;
        };
        conn.copy_only = false;
        conn.deadline = None;
        let ProxySession { mut held, client_ended, server, .. } = *talk;
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

    /// Nothing more is said to the client; what it still says is not listened to.
    fn end_client(&mut self, key: Key) {
        let now = self.cx.now;
        self.leave_server(key, Server::Over);
        self.close_ports(key);
        let Some(conn) = self.conns.get_mut(key) else { return };
        let patience = match self.drain {
            Drain::No => self.cx.plan.timeouts_of(conn.exit).linger,
            _ => Some(Duration::from_millis(LEAVE_MILLIS)),
        };
        let Stage::ProxyHandshake(talk) = &mut conn.stage else { return };
        talk.held = PayloadQueue::default();
        let held_bytes = std::mem::take(&mut talk.held_bytes);
        let (tunnel, stream) = (conn.tunnel, conn.stream);
        if let (Some(tunnel), Some(stream)) = (self.tunnels.get_mut(tunnel), stream) {
            tunnel.session_mut().data_end(stream, now);
        }
        self.was_taken(key, held_bytes);
        self.set_deadline(key, patience.map(|patience| now.after(patience)));
    }

    /// GracePeriod with a conversation, its client or its server is over.
    pub(in crate::worker) fn proxy_deadline_expired(&mut self, key: Key) {
        let now = self.cx.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        let ask = self.cx.plan.timeouts_of(conn.exit).ask;
        let Stage::ProxyHandshake(talk) = &mut conn.stage else { return };
        let asked_long =
            talk.awaited_since.is_some_and(|since| ask.is_some_and(|ask| since.after(ask) <= now));
        if matches!(talk.server, Server::Dialing(_)) {
            // That has TIMEOUT=con.
            return;
        }
        if asked_long {
            self.converse(key, |conversation, steps| conversation.timed_out(steps));
        }
        // One that goes on all the same, or that was silent for TIMEOUT=io.
        if let Some(conn) = self.conns.get(key)
            && let Stage::ProxyHandshake(talk) = &conn.stage
            && (!asked_long || !matches!(talk.server, Server::Over))
        {
            let over = io::Error::from(io::ErrorKind::TimedOut);
            self.conn_failed(key, "timed out", &over);
        }
    }

    /// The process ends: nobody is waited for who has not said what it wants, nor for long who has
    /// been told all.
    pub(in crate::worker) fn end_idle_conversations(&mut self) {
        let is_idle = |conn: &Conn| match &conn.stage {
            Stage::ProxyHandshake(talk) => {
                talk.awaited_since.is_some() || matches!(talk.server, Server::Over)
            }
            _ => false,
        };
        let idle = self.conns.iter().filter(|(_, conn)| is_idle(conn)).map(|(key, _)| key);
        for key in idle.collect::<Vec<_>>() {
            self.end_client(key);
        }
    }
}
