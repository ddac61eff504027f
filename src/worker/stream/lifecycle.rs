//! Handles events of sessions: opens exits and ends streams. Called after received frames and after
//! writes of a link.

use std::rc::Rc;

use tracing::{debug, trace};

use crate::cli::plan::{ExitKind, Target, Transport};
use crate::io::driver::{Driver, Fd};
use crate::io::net;
use crate::policy::connection_limits::LimitGuard;
use crate::policy::routing;
use crate::proxy_proto::proxy_header;
use crate::session::{Ended, Event, NO_ADDRESS, StreamKey};
use crate::worker::access_entry::Side;
use crate::worker::context::dialer::dial::{Owner, Request};
use crate::worker::context::{Cx, Effect};
use crate::worker::log_ids::LogIds;
use crate::worker::message::Incoming;
use crate::worker::stream::conn::{Conn, Stage};
use crate::worker::stream::tunnel::Tunnel;
use crate::worker::stream::{Flows, Streams};
use crate::worker::table::Key;
use crate::worker::token::StreamOwner;

impl Streams {
    /// Handles pending events of a tunnel's session. `false`: another plane has to handle one
    /// first, and no frame of this tunnel may be read until [`Self::continue_tunnel`].
    #[inline]
    pub(super) fn handle_events<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        key: Key,
    ) -> bool {
        while let Some(tunnel) = self.tunnels.get_mut(key) {
            if tunnel.is_deferred() {
                return false;
            }
            let Some(event) = tunnel.session_mut().poll_event() else { return true };
            match event {
                Event::GoingAway => self.tunnel_leaves(cx, key),
                Event::Doubted => self.link_doubted(cx, key),
                Event::Opened { user } => self.stream_opened(flows, user),
                Event::ReadMore { user } => self.read_conn(cx, Key::unpack(user)),
                Event::EndOfData { user } => self.end_of_data(cx, Key::unpack(user)),
                Event::Ended { user, how } => match StreamOwner::of(user) {
                    StreamOwner::Flow(flow) => {
                        flows.on_ended(cx, &mut self.tunnels, flow, &how);
                    }
                    StreamOwner::Conn(conn) => self.stream_ended(cx, conn, &how),
                },
                Event::Up { .. }
                | Event::TakeUp { .. }
                | Event::Incoming { .. }
                | Event::PortAsked { .. }
                | Event::PortClosed { .. }
                | Event::PortGiven { .. }
                | Event::EntranceAsked { .. }
                | Event::EntranceAnswered { .. } => {
                    tunnel.defer(None);
                    cx.effects.push_back(Effect::Session { tunnel: key, event });
                }
            }
        }
        true
    }

    /// Opens the exit of a stream that was admitted to it, unless it is a proxy.
    ///
    /// Returns the target and the limits of an exit for datagrams, which begins a flow.
    pub(in crate::worker) fn open_exit<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        incoming: &Incoming,
        limit_guard: Option<LimitGuard>,
    ) -> Option<(Target, Option<LimitGuard>)> {
        let Incoming { tunnel, stream, client, entrance, .. } = *incoming;
        let exit = &incoming.exit.as_ref()?.plan;
        let transport = exit.transport();
        let header =
            exit.proxy_header.map(|version| proxy_header::write(version, client, entrance));
        let found = match &exit.way {
            ExitKind::Server { target, .. } => Ok(target.clone()),
            ExitKind::SamePort { host, offset, .. } => {
                routing::at_port_of(host, *offset, &incoming.caller())
            }
            ExitKind::Proxy(_) | ExitKind::Ftp(_) => return None,
            ExitKind::Unix(path) => {
                let path = Rc::from(path.as_path());
                self.open_unix_exit(cx, incoming, limit_guard, header, path);
                return None;
            }
            ExitKind::Command(command) => {
                self.open_exec(cx, incoming, limit_guard, command);
                return None;
            }
        };
        let client = client.unwrap_or(NO_ADDRESS);
        let target = match found {
            Ok(target) => target,
            Err(reason) => {
                self.refuse_stream(cx, tunnel, stream, client, &reason, false);
                return None;
            }
        };
        if transport == Transport::Udp {
            return Some((target, limit_guard));
        }
        let connect = cx.timeouts_of(incoming.exit.as_ref()).connect;
        let overall = connect.map(|connect| cx.now.after(connect));
        let header = header.map(Vec::into_boxed_slice);
        self.begin_dialled_exit(cx, incoming, limit_guard, |owner| Request {
            greeting: header,
            ..Request::new(owner, target, overall)
        });
        None
    }

    /// As [`Self::begin_exit`], and dials the server.
    pub(in crate::worker) fn begin_dialled_exit<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        incoming: &Incoming,
        limit_guard: Option<LimitGuard>,
        request: impl FnOnce(Owner) -> Request,
    ) -> Option<Key> {
        let key = self.begin_exit(cx, incoming, limit_guard, None, Stage::Dialing(None))?;
        let request = request(Owner::Exit(key));
        let (stream, tunnel) = (key.number(), incoming.tunnel.number());
        let client = incoming.client.unwrap_or(NO_ADDRESS);
        let Target { host, port } = &request.target;
        debug!(stream, tunnel, %client, %host, port, "exit");
        if let Some(conn) = self.conns.get_mut(key) {
            conn.entry.server_is(&request.target);
        }
        let dial = cx.dial(request);
        match (dial, self.conns.get_mut(key)) {
            (Some(dial), Some(conn)) => {
                conn.stage = Stage::Dialing(Some(dial));
                Some(key)
            }
            _ => {
                self.exit_unreachable(cx, key, "too many connections are open");
                None
            }
        }
    }

    /// Opens an exit to a command.
    fn open_exec<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        incoming: &Incoming,
        limit_guard: Option<LimitGuard>,
        command: &str,
    ) {
        let Incoming { tunnel, stream, client, .. } = *incoming;
        let name = client.unwrap_or(NO_ADDRESS);
        let started = self.execs.start(cx, command, (&incoming.caller(), client));
        let (running, socket) = match started {
            Ok(started) => started,
            Err(reason) => return self.refuse_stream(cx, tunnel, stream, name, &reason, false),
        };
        let Some(key) = self.begin_exit(cx, incoming, limit_guard, None, Stage::Open) else {
            return;
        };
        self.execs.register(cx, (running, command), name, key);
        if let Some(conn) = self.conns.get_mut(key) {
            conn.fd = Some(Rc::new(socket));
        }
        self.exit_reached(cx, key);
    }

    /// Adds a connection for a stream of the peer; `header` is sent to its server first. `None`:
    /// there is no room, and the peer was told.
    pub(super) fn begin_exit<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        incoming: &Incoming,
        limit_guard: Option<LimitGuard>,
        header: Option<Vec<u8>>,
        stage: Stage,
    ) -> Option<Key> {
        let Incoming { tunnel, stream, client, .. } = *incoming;
        let client = client.unwrap_or(NO_ADDRESS);
        let mut conn = Conn::new(tunnel, stage, client, cx.now);
        conn.stream = Some(stream);
        conn.exit = incoming.exit.clone();
        conn.limit_guard = limit_guard;
        conn.header = header.map(Vec::into_boxed_slice);
        let Some(key) = self.conns.insert(conn) else {
            self.refuse_stream(cx, tunnel, stream, client, "too many connections are open", false);
            return None;
        };
        if let Some(conn) = self.conns.get_mut(key) {
            conn.entry = cx.entry_of_exit("stream", key, client, incoming.exit.as_ref());
            conn.entry.in_tunnel(tunnel.number(), self.tunnels.peer_of(tunnel).name);
        }
        if let Some(tunnel) = self.tunnels.get_mut(tunnel) {
            tunnel.session_mut().attach(stream, StreamOwner::Conn(key).user());
        }
        Some(key)
    }

    /// The server of an exit is connected.
    pub(in crate::worker) fn exit_connected<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        server: Fd,
    ) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.fd = Some(server);
            self.exit_reached(cx, key);
        }
    }

    /// The server of an exit is unreachable.
    pub(in crate::worker) fn exit_unreachable<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        reason: &str,
    ) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.entry.refused_here(reason);
        if let (tunnel, Some(stream), client) = (conn.tunnel, conn.stream, conn.client) {
            self.refuse_stream(cx, tunnel, stream, client, reason, true);
        }
        self.conns.remove(key);
    }

    pub(in crate::worker) fn refuse_stream<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnel: Key,
        stream: StreamKey,
        client: impl std::fmt::Display,
        reason: &str,
        unreachable: bool,
    ) {
        let session = self.tunnels.get(tunnel).map(Tunnel::session);
        let user = session.and_then(|session| session.user_of(stream));
        let ids = LogIds::of(tunnel, user.map(StreamOwner::of));
        self.refuse_silently(tunnel, stream, reason, unreachable);
        self.note_refused(cx, (tunnel, user), &client, reason);
        cx.log_refused_of(ids, client, reason);
    }

    /// Has a line in the access log for a refused stream of the peer that has no entry of its own.
    pub(in crate::worker) fn note_refused<D: Driver>(
        &self,
        cx: &Cx<D>,
        (tunnel, user): (Key, Option<u64>),
        client: &impl std::fmt::Display,
        reason: &str,
    ) {
        let has_entry = match user.map(StreamOwner::of) {
            Some(StreamOwner::Conn(key)) => self.conns.get(key).is_some(),
            // Of a flow: its plane has the entry.
            Some(StreamOwner::Flow(_)) => true,
            None => cx.is_loopback(),
        };
        if !has_entry {
            let of = (tunnel, self.tunnels.peer_of(tunnel).name);
            cx.note_refused(Some(of), "stream", Side::Exit, client, reason);
        }
    }

    /// As [`Self::refuse_stream`], without a log line.
    pub(in crate::worker) fn refuse_silently(
        &mut self,
        tunnel: Key,
        stream: StreamKey,
        reason: &str,
        unreachable: bool,
    ) {
        if let Some(tunnel) = self.tunnels.get_mut(tunnel) {
            tunnel.session_mut().refuse(stream, reason, unreachable);
        }
        self.tunnels.mark(tunnel);
    }

    /// The exit is connected: accepts the stream and starts both directions.
    pub(super) fn exit_reached<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(fd) = &conn.fd else { return };
        let (server, own) = (net::peer_address(fd), net::local_address(fd));
        conn.entry.server_at(server);
        let urgent = conn.urgent.take().map_or(Ok(()), |byte| net::send_urgent(fd, byte));
        conn.header = None;
        conn.deadline = None;
        let (tunnel, stream) = (conn.tunnel, conn.stream);
        // The client may have left meanwhile; its data is delivered all the same.
        let then_reset = conn.reset_when_reached;
        conn.stage = match stream {
            Some(_) => Stage::Open,
            None => Stage::Flushing { then_reset },
        };
        if stream.is_none() && then_reset {
            let linger = cx.timeouts_of(conn.exit.as_ref()).linger;
            self.set_deadline(cx, key, linger.map(|linger| cx.now.after(linger)));
        }
        if let (Some(tunnel), Some(stream)) = (self.tunnels.get_mut(tunnel), stream) {
            tunnel.session_mut().accept(stream, server, own);
        }
        self.tunnels.mark(tunnel);
        if let Err(error) = urgent {
            return self.break_conn(cx, key, Some(&error));
        }
        self.read_conn(cx, key);
        self.conns.mark(key);
    }

    /// The peer has ended its direction of the stream.
    fn end_of_data<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if matches!(conn.stage, Stage::ProxyHandshake(_)) {
            return self.hold_client_end(cx, key);
        }
        trace!(stream = key.number(), client = %conn.client, "end of data from the peer");
        conn.end_after_output = true;
        conn.entry.remote_ended();
        self.conns.mark(key);
    }

    /// The session has ended the stream; delivered data is still written.
    fn stream_ended<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, how: &Ended) {
        if let Ended::NotTaken { reason, .. } = how
            && self.begin_on_next_tunnel(cx, key, reason)
        {
            return;
        }
        let Some(conn) = self.conns.get_mut(key) else { return };
        cx.effects.push_back(Effect::StreamOver(key));
        conn.stream = None;
        conn.input.clear(&mut cx.buffers.pipes);
        let (stream, client) = (key.number(), conn.client);
        let ids = LogIds::of(conn.tunnel, Some(StreamOwner::Conn(key)));
        // Data of the client must still reach the server.
        let is_connecting = matches!(conn.stage, Stage::Dialing(_) | Stage::ConnectingUnix(..))
            && !conn.output_is_empty();
        match how {
            Ended::Orderly => {
                debug!(stream, %client, "stream ended");
                // Towards an original there is no other end of data.
                if !conn.read_ended {
                    conn.entry.remote_ended();
                }
                conn.entry.closed();
                if !is_connecting {
                    self.flush_and_close(cx, key, false);
                }
            }
            Ended::Reset(reason) => {
                debug!(stream, %client, reason, "stream reset by the peer");
                conn.entry.reset_by_peer(reason);
                conn.reset_when_reached = is_connecting;
                if !is_connecting {
                    self.flush_and_close(cx, key, true);
                }
            }
            Ended::Refused(reason) | Ended::NotTaken { reason, .. } => {
                conn.entry.refused_by_peer(reason);
                cx.log_refused_of(ids, client, &format!("by the peer: {reason}"));
                self.flush_and_close(cx, key, true);
            }
        }
    }

    fn flush_and_close<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, then_reset: bool) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let linger = cx.timeouts_of(conn.exit.as_ref()).linger;
        let deadline = if then_reset { linger.map(|linger| cx.now.after(linger)) } else { None };
        let is_broken = conn.fd.is_none() || conn.broken.is_some();
        if is_broken || matches!(conn.stage, Stage::Dialing(_) | Stage::ProxyHandshake(_)) {
            // The client no longer waits for the server, or the socket accepts nothing.
            self.reset_conn(cx, key);
            return;
        }
        conn.stage = Stage::Flushing { then_reset };
        self.set_deadline(cx, key, deadline);
        self.conns.mark(key);
    }

    /// Resets a connection now. The session is not notified.
    pub(super) fn reset_conn<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(mut conn) = self.conns.remove(key) else { return };
        cx.effects.push_back(Effect::StreamOver(key));
        if let Some(dial) = conn.stage.dial() {
            cx.forget_dial(dial, conn.limit_guard);
        }
        if let Some(fd) = conn.fd {
            // The descriptor is closed when operations in flight on it have ended.
            net::reset_on_close(&fd);
            conn.ops.cancel(&mut cx.driver);
        }
    }
}
