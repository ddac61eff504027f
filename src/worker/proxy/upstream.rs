//! The servers of proxy sessions: connected one after another as the protocol requests, and read
//! for it. See [`crate::worker::proxy::conversation`].

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
    /// Closes the current server, if any.
    pub(in crate::worker) fn leave_server(&mut self, key: Key, next: Server) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Stage::ProxyHandshake(session) = &mut conn.stage else { return };
        if matches!(next, Server::Closing(_)) {
            self.proxies.closing.push(key);
        }
        if let Server::Dialing(dial) = std::mem::replace(&mut session.server, next) {
            self.cx.forget_dial(dial);
        }
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Stage::ProxyHandshake(session) = &mut conn.stage else { return };
        session.awaited_since = None;
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

    /// Dials the next server of sessions whose previous socket is idle.
    pub(in crate::worker) fn dial_after_closing(&mut self) {
        if self.proxies.closing.is_empty() {
            return;
        }
        for key in std::mem::take(&mut self.proxies.closing) {
            let Some(conn) = self.conns.get_mut(key) else { continue };
            let quiet = is_quiet(conn);
            let Stage::ProxyHandshake(session) = &mut conn.stage else { continue };
            match std::mem::replace(&mut session.server, Server::None) {
                Server::Closing(target) if quiet => self.dial_server(key, target),
                server @ Server::Closing(_) => {
                    session.server = server;
                    self.proxies.closing.push(key);
                }
                server => session.server = server,
            }
        }
    }

    fn dial_server(&mut self, key: Key, target: Target) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        // The end of data of the previous server does not apply to the next.
        conn.read_ended = false;
        debug!(client = %conn.client, host = %target.host, port = target.port, "proxy connects");
        let connect = self.cx.plan.timeouts_of(conn.exit).connect;
        let overall = connect.map(|connect| self.cx.now.after(connect));
        let Stage::ProxyHandshake(session) = &mut conn.stage else { return };
        let mut request = Request::new(Owner::Conversation(key), target, overall);
        if session.is_judged {
            request.permission = Permission::Proxy(session.protocol(), session.asker.clone());
        }
        let Some(dial) = self.cx.dial(request) else {
            let why = String::from("too many connections are open");
            return self.upstream_unreachable(key, Unreached::Other(why));
        };
        session.server = Server::Dialing(dial);
    }

    /// The server of a session is unreachable.
    pub(in crate::worker) fn upstream_unreachable(&mut self, key: Key, unreached: Unreached) {
        self.leave_server(key, Server::None);
        self.converse(key, |conversation, steps| conversation.connected(Err(unreached), steps));
    }

    /// The server of a session is connected.
    pub(in crate::worker) fn server_connected(&mut self, key: Key, server: Fd) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Stage::ProxyHandshake(session) = &mut conn.stage else { return };
        let addresses = (net::peer_address(&server), net::local_address(&server));
        session.server = Server::Connected { broken: None };
        conn.fd = Some(server);
        conn.deadline = None;
        self.converse(key, |conversation, steps| conversation.connected(Ok(addresses), steps));
        self.read_conn(key);
    }

    /// Data of the server.
    pub(in crate::worker) fn on_server_data(&mut self, key: Key, chunk: &Chunk) {
        let Some(conn) = self.conns.get(key) else { return };
        // Late data of the previous server is no answer.
        if let Stage::ProxyHandshake(session) = &conn.stage
            && session.reads_server()
        {
            let (tunnel, stream) = (conn.tunnel, conn.stream);
            self.converse(key, |conversation, steps| conversation.from_server(chunk, steps));
            let may_go_on = stream.is_some_and(|stream| {
                self.tunnels.get_mut(tunnel).is_some_and(|t| t.session_mut().may_read(stream))
            });
            self.update_read_mode(key, chunk.len(), may_go_on);
        }
    }

    /// The server has ended its direction.
    pub(in crate::worker) fn on_server_end(&mut self, key: Key) {
        let Some(conn) = self.conns.get(key) else { return };
        let Stage::ProxyHandshake(session) = &conn.stage else { return };
        if let Server::Connected { broken: Some(broken) } = &session.server
            && !broken.ends_in_order()
        {
            let error = io::Error::from(io::ErrorKind::ConnectionReset);
            return self.reading_failed(key, &error);
        }
        if session.reads_server() {
            self.converse(key, |conversation, steps| conversation.server_ended(steps));
        }
    }

    /// Reading the socket of a stream has failed.
    pub(in crate::worker) fn reading_failed(&mut self, key: Key, error: &io::Error) {
        let Some(conn) = self.conns.get(key) else { return };
        let Stage::ProxyHandshake(session) = &conn.stage else {
            return match conn.stage {
                Stage::Open => self.finish_broken(key, "reset", error),
                _ => self.conn_failed(key, "reset", error),
            };
        };
        if session.reads_server() {
            debug!(client = %conn.client, %error, "the proxy's server failed");
            self.leave_server(key, Server::None);
            self.converse(key, |conversation, steps| conversation.server_failed(steps));
        }
    }

    /// Writing to the socket of a stream has failed. A server may have answered before it closed.
    pub(in crate::worker) fn writing_failed(&mut self, key: Key, error: &io::Error) {
        let now = self.cx.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        let linger = self.cx.plan.timeouts_of(conn.exit).linger;
        let Stage::ProxyHandshake(session) = &mut conn.stage else {
            return self.break_conn(key, Some(error));
        };
        if let Server::Connected { broken } = &mut session.server {
            broken.get_or_insert_with(|| Broken::new(now, linger)).write_failed(error);
            conn.forget_output(&mut self.cx.buffers.pipes);
            self.pass_held_data(key);
        }
    }

    /// Of `bytes` that a server has accepted, the number that came from the session and not from
    /// the protocol itself.
    pub(in crate::worker) fn delivered_part(&mut self, key: Key, bytes: u64) -> u64 {
        let Some(conn) = self.conns.get_mut(key) else { return bytes };
        let own_bytes = conn.own_bytes.min(bytes);
        conn.own_bytes -= own_bytes;
        bytes - own_bytes
    }
}

/// Nothing is in flight on its last socket.
fn is_quiet(conn: &Conn) -> bool {
    conn.reading == Reading::Idle && !conn.sending
}
