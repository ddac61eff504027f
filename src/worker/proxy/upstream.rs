//! The servers of conversations: reached one after another, as the conversation asks, and heard for
//! it. See [`crate::worker::proxy::conversation`].

use std::io;

use tracing::debug;

use crate::cli::plan::Target;
use crate::io::chunk::Chunk;
use crate::io::driver::{Driver, Fd};
use crate::io::net;
use crate::proxy_proto::Unreached;
use crate::worker::broken::Broken;
use crate::worker::dialer::dial::{Owner, Permission, Request};
use crate::worker::proxy::session::Server;
use crate::worker::stream::conn::{Conn, ReadMode, Reading, Stage};
use crate::worker::{Key, Worker};

impl<D: Driver> Worker<D> {
    /// Gives up the server that is connected, if one is.
    pub(in crate::worker) fn leave_server(&mut self, key: Key, next: Server) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Stage::ProxyHandshake(talk) = &mut conn.stage else { return };
        if matches!(next, Server::Closing(_)) {
            self.proxies.closing.push(key);
        }
        if let Server::Dialing(dial) = std::mem::replace(&mut talk.server, next) {
            self.cx.forget_dial(dial);
        }
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Stage::ProxyHandshake(talk) = &mut conn.stage else { return };
        talk.awaited_since = None;
        conn.deadline = None;
        if let Some(fd) = conn.fd.take() {
            net::shut_down(&fd);
            self.cx.driver.cancel_all(&fd);
        }
        conn.forget_output(&mut self.cx.buffers.pipes);
        conn.end_after_output = false;
        conn.end_doubtful = false;
        conn.read_mode = ReadMode::Sparse;
        conn.streak = 0;
    }

    /// Whether [`Self::dial_after_closing`] has something to do.
    pub(in crate::worker) fn may_dial_next_server(&self) -> bool {
        self.proxies.closing.iter().any(|&key| self.conns.get(key).is_none_or(is_quiet))
    }

    /// Sets out for the servers of those conversations whose last one is gone by now.
    pub(in crate::worker) fn dial_after_closing(&mut self) {
        if self.proxies.closing.is_empty() {
            return;
        }
        for key in std::mem::take(&mut self.proxies.closing) {
            let Some(conn) = self.conns.get_mut(key) else { continue };
            let quiet = is_quiet(conn);
            let Stage::ProxyHandshake(talk) = &mut conn.stage else { continue };
            match std::mem::replace(&mut talk.server, Server::None) {
                Server::Closing(target) if quiet => self.dial_server(key, target),
                server @ Server::Closing(_) => {
                    talk.server = server;
                    self.proxies.closing.push(key);
                }
                server => talk.server = server,
            }
        }
    }

    fn dial_server(&mut self, key: Key, target: Target) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        // The end of the server before is not that of the next.
        conn.read_ended = false;
        debug!(client = %conn.client, host = %target.host, port = target.port, "proxy connects");
        let connect = self.cx.plan.timeouts_of(conn.exit).connect;
        let overall = connect.map(|connect| self.cx.now.after(connect));
        let Stage::ProxyHandshake(talk) = &mut conn.stage else { return };
        let mut request = Request::new(Owner::Conversation(key), target, overall);
        if talk.is_judged {
            request.permission = Permission::Proxy(talk.protocol(), talk.asker.clone());
        }
        let Some(dial) = self.cx.dial(request) else {
            let why = String::from("too many connections are open");
            return self.not_reached(key, Unreached::Other(why));
        };
        talk.server = Server::Dialing(dial);
    }

    /// The server of a conversation cannot be reached.
    pub(in crate::worker) fn not_reached(&mut self, key: Key, unreached: Unreached) {
        self.leave_server(key, Server::None);
        self.converse(key, |conversation, steps| conversation.connected(Err(unreached), steps));
    }

    /// The server of a conversation is reached.
    pub(in crate::worker) fn server_connected(&mut self, key: Key, server: Fd) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Stage::ProxyHandshake(talk) = &mut conn.stage else { return };
        let addresses = (net::peer_address(&server), net::local_address(&server));
        talk.server = Server::Connected { broken: None };
        conn.fd = Some(server);
        conn.deadline = None;
        self.converse(key, |conversation, steps| conversation.connected(Ok(addresses), steps));
        self.read_conn(key);
    }

    /// Bytes of the server.
    pub(in crate::worker) fn server_said(&mut self, key: Key, chunk: &Chunk) {
        let Some(conn) = self.conns.get(key) else { return };
        // What the one before says is nobody's answer.
        if let Stage::ProxyHandshake(talk) = &conn.stage
            && talk.reads_server()
        {
            let (tunnel, stream) = (conn.tunnel, conn.stream);
            self.converse(key, |conversation, steps| conversation.from_server(chunk, steps));
            let may_go_on = stream.is_some_and(|stream| {
                self.tunnels.get_mut(tunnel).is_some_and(|t| t.session_mut().may_read(stream))
            });
            self.update_read_mode(key, chunk.len(), may_go_on);
        }
    }

    /// The server has said all.
    pub(in crate::worker) fn server_said_all(&mut self, key: Key) {
        let Some(conn) = self.conns.get(key) else { return };
        let Stage::ProxyHandshake(talk) = &conn.stage else { return };
        if let Server::Connected { broken: Some(broken) } = &talk.server
            && !broken.ends_in_order()
        {
            let error = io::Error::from(io::ErrorKind::ConnectionReset);
            return self.reading_failed(key, &error);
        }
        if talk.reads_server() {
            self.converse(key, |conversation, steps| conversation.server_ended(steps));
        }
    }

    /// The socket of a stream is broken: it failed to be read.
    pub(in crate::worker) fn reading_failed(&mut self, key: Key, error: &io::Error) {
        let Some(conn) = self.conns.get(key) else { return };
        let Stage::ProxyHandshake(talk) = &conn.stage else {
            return match conn.stage {
                Stage::Open => self.finish_broken(key, "reset", error),
                _ => self.conn_failed(key, "reset", error),
            };
        };
        if talk.reads_server() {
            debug!(client = %conn.client, %error, "the proxy's server failed");
            self.leave_server(key, Server::None);
            self.converse(key, |conversation, steps| conversation.server_failed(steps));
        }
    }

    /// The same: it failed to be written to. A server may have answered before it broke off.
    pub(in crate::worker) fn writing_failed(&mut self, key: Key, error: &io::Error) {
        let now = self.cx.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        let linger = self.cx.plan.timeouts_of(conn.exit).linger;
        let Stage::ProxyHandshake(talk) = &mut conn.stage else {
            return self.break_conn(key, Some(error));
        };
        if let Server::Connected { broken } = &mut talk.server {
            broken.get_or_insert_with(|| Broken::new(now, linger)).write_failed(error);
            conn.forget_output(&mut self.cx.buffers.pipes);
            self.tell_held(key);
        }
    }

    /// Of so many bytes that a server has taken, those that the session has delivered.
    pub(in crate::worker) fn delivered_part(&mut self, key: Key, bytes: u64) -> u64 {
        let Some(conn) = self.conns.get_mut(key) else { return bytes };
        let own_bytes = conn.own_bytes.min(bytes);
        conn.own_bytes -= own_bytes;
        bytes - own_bytes
    }
}

/// Nothing is under way on the socket that it had last.
fn is_quiet(conn: &Conn) -> bool {
    conn.reading == Reading::Idle && !conn.sending
}
