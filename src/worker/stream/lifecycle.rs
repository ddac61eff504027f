//! Handles events of sessions: opens exits and ends streams. Called after received frames and after
//! writes of a link.

use std::rc::Rc;

use tracing::{debug, trace};

use crate::cli::plan::{ExitKind, Proxy, Transport};
use crate::io::driver::{Driver, Fd};
use crate::io::net;
use crate::policy::connection_limits::LimitGuard;
use crate::policy::routing;
use crate::proxy_proto::proxy_header;
use crate::session::{Ended, Event, NO_ADDRESS, Related, StreamKey};
use crate::worker::dialer::dial::{Owner, Request};
use crate::worker::ingress::access::Incoming;
use crate::worker::stream::conn::{Conn, Stage};
use crate::worker::token::StreamOwner;
use crate::worker::{Key, Worker};

impl<D: Driver> Worker<D> {
    /// Handles pending events of a tunnel's session.
    #[inline]
    pub(in crate::worker) fn handle_events(&mut self, key: Key) {
        while let Some(event) =
            self.tunnels.get_mut(key).and_then(|tunnel| tunnel.session_mut().poll_event())
        {
            match event {
                Event::Up { ours, protocol } => self.tunnel_up(key, ours, protocol),
                Event::GoingAway => self.tunnel_leaves(key),
                Event::Incoming { key: stream, client, entrance, transport, related: None } => {
                    let tunnel = key;
                    let (exit, call) = (None, None);
                    self.open_exit(Incoming {
                        tunnel,
                        stream,
                        client,
                        entrance,
                        transport,
                        exit,
                        call,
                    });
                }
                Event::Incoming {
                    key: stream,
                    transport,
                    related: Some(Related::Call { user, port }),
                    ..
                } => self.on_callback((key, stream), transport, (user, port)),
                Event::PortAsked { user, request, transport } => {
                    self.port_asked(key, user, request, transport);
                }
                Event::PortClosed { user, request } => self.port_not_needed(user, request),
                Event::Incoming {
                    key: stream,
                    client,
                    entrance,
                    transport,
                    related: Some(Related::Port { user, request }),
                } => {
                    let tunnel = key;
                    let (exit, call) = (None, None);
                    self.on_stream_by_port(
                        Incoming { tunnel, stream, client, entrance, transport, exit, call },
                        (user, request),
                    );
                }
                Event::PortGiven { user, request, result } => {
                    self.port_given(Key::unpack(user), request, result);
                }
                Event::Opened { user } => self.stream_opened(user),
                Event::ReadMore { user } => self.read_conn(Key::unpack(user)),
                Event::EndOfData { user } => self.end_of_data(Key::unpack(user)),
                Event::Ended { user, how } => match StreamOwner::of(user) {
                    StreamOwner::Flow(flow) => {
                        let (cx, tunnels) = (&mut self.cx, &mut self.tunnels);
                        self.datagrams.flow_ended(cx, tunnels, flow, &how);
                    }
                    StreamOwner::Conn(conn) => self.stream_ended(conn, &how),
                },
            }
        }
    }

    /// The peer began a stream: selects its exit and connects.
    pub(in crate::worker) fn open_exit(&mut self, incoming: Incoming) {
        if let Some(call) = incoming.call {
            return self.connect_callback(incoming, call);
        }
        let Some((place, limit_guard)) = self.admit(&incoming) else { return };
        let incoming = Incoming { exit: Some(place), ..incoming };
        let Incoming { tunnel, stream, client, entrance, .. } = incoming;
        let exit = &self.cx.plan.exits[place];
        let transport = exit.transport();
        let header =
            exit.proxy_header.map(|version| proxy_header::write(version, client, entrance));
        let found = match &exit.way {
            ExitKind::Server { target, .. } => Ok(target.clone()),
            ExitKind::SamePort { host, offset, .. } => {
                routing::at_port_of(host, *offset, &incoming.caller())
            }
            &ExitKind::Proxy(proxy) => {
                return self.open_proxy_session(&incoming, limit_guard, (place, proxy));
            }
            ExitKind::Ftp(_) => {
                return self.open_proxy_session(&incoming, limit_guard, (place, Proxy::Ftp));
            }
            ExitKind::Unix(path) => {
                let path = Rc::from(path.as_path());
                return self.open_unix_exit(&incoming, limit_guard, header, path);
            }
            ExitKind::Command(command) => {
                let command = command.clone();
                return self.open_exec(&incoming, limit_guard, &command);
            }
        };
        let client = client.unwrap_or(NO_ADDRESS);
        let target = match found {
            Ok(target) => target,
            Err(reason) => return self.refuse_stream(tunnel, stream, client, &reason, false),
        };
        if transport == Transport::Udp {
            let (cx, tunnels) = (&mut self.cx, &mut self.tunnels);
            self.datagrams.open_exit_flow(
                cx,
                tunnels,
                (tunnel, stream),
                client,
                limit_guard,
                &target,
            );
            return;
        }
        let connect = self.cx.plan.timeouts_of(Some(place)).connect;
        let overall = connect.map(|connect| self.cx.now.after(connect));
        debug!(%client, host = %target.host, port = target.port, "exit");
        let header = header.map(Vec::into_boxed_slice);
        self.begin_dialled_exit(&incoming, limit_guard, |owner| Request {
            greeting: header,
            ..Request::new(owner, target, overall)
        });
    }

    /// As [`Worker::begin_exit`], and dials the server.
    pub(in crate::worker) fn begin_dialled_exit(
        &mut self,
        incoming: &Incoming,
        limit_guard: Option<LimitGuard>,
        request: impl FnOnce(Owner) -> Request,
    ) -> Option<Key> {
        let key = self.begin_exit(incoming, limit_guard, None, Stage::Dialing(None))?;
        let dial = self.cx.dial(request(Owner::Exit(key)));
        match (dial, self.conns.get_mut(key)) {
            (Some(dial), Some(conn)) => {
                conn.stage = Stage::Dialing(Some(dial));
                Some(key)
            }
            _ => {
                self.exit_unreachable(key, "too many connections are open");
                None
            }
        }
    }

    /// Opens an exit to a command.
    fn open_exec(&mut self, incoming: &Incoming, limit_guard: Option<LimitGuard>, command: &str) {
        let Incoming { tunnel, stream, client, .. } = *incoming;
        let name = client.unwrap_or(NO_ADDRESS);
        let started = self.execs.start(&self.cx, command, (&incoming.caller(), client));
        let (running, socket) = match started {
            Ok(started) => started,
            Err(reason) => return self.refuse_stream(tunnel, stream, name, &reason, false),
        };
        let Some(key) = self.begin_exit(incoming, limit_guard, None, Stage::Open) else { return };
        self.execs.register(&mut self.cx, (running, command), name, key);
        if let Some(conn) = self.conns.get_mut(key) {
            conn.fd = Some(Rc::new(socket));
        }
        self.exit_reached(key);
    }

    /// Adds a connection for a stream of the peer; `header` is sent to its server first. `None`:
    /// there is no room, and the peer was told.
    pub(in crate::worker) fn begin_exit(
        &mut self,
        incoming: &Incoming,
        limit_guard: Option<LimitGuard>,
        header: Option<Vec<u8>>,
        stage: Stage,
    ) -> Option<Key> {
        let Incoming { tunnel, stream, client, .. } = *incoming;
        let client = client.unwrap_or(NO_ADDRESS);
        let mut conn = Conn::new(tunnel, stage, client, self.cx.now);
        conn.stream = Some(stream);
        conn.exit = incoming.exit;
        conn.limit_guard = limit_guard;
        conn.header = header.map(Vec::into_boxed_slice);
        let Some(key) = self.conns.insert(conn) else {
            self.refuse_stream(tunnel, stream, client, "too many connections are open", false);
            return None;
        };
        if let Some(tunnel) = self.tunnels.get_mut(tunnel) {
            tunnel.session_mut().attach(stream, StreamOwner::Conn(key).user());
        }
        Some(key)
    }

    /// The server of an exit is connected.
    pub(in crate::worker) fn exit_connected(&mut self, key: Key, server: Fd) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.fd = Some(server);
            self.exit_reached(key);
        }
    }

    /// The server of an exit is unreachable.
    pub(in crate::worker) fn exit_unreachable(&mut self, key: Key, reason: &str) {
        let Some(conn) = self.conns.remove(key) else { return };
        if let Some(stream) = conn.stream {
            self.refuse_stream(conn.tunnel, stream, conn.client, reason, true);
        }
    }

    pub(in crate::worker) fn refuse_stream(
        &mut self,
        tunnel: Key,
        stream: StreamKey,
        client: impl std::fmt::Display,
        reason: &str,
        unreachable: bool,
    ) {
        self.refuse_silently(tunnel, stream, reason, unreachable);
        self.cx.log_refused(client, reason);
    }

    /// As [`Worker::refuse_stream`], without a log line.
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
    pub(in crate::worker) fn exit_reached(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(fd) = &conn.fd else { return };
        let (server, own) = (net::peer_address(fd), net::local_address(fd));
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
            let linger = self.cx.plan.timeouts_of(conn.exit).linger;
            self.set_deadline(key, linger.map(|linger| self.cx.now.after(linger)));
        }
        if let (Some(tunnel), Some(stream)) = (self.tunnels.get_mut(tunnel), stream) {
            tunnel.session_mut().accept(stream, server, own);
        }
        self.tunnels.mark(tunnel);
        if let Err(error) = urgent {
            return self.break_conn(key, Some(&error));
        }
        self.read_conn(key);
        self.conns.mark(key);
    }

    /// The peer has ended its direction of the stream.
    fn end_of_data(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if matches!(conn.stage, Stage::ProxyHandshake(_)) {
            return self.on_client_end(key);
        }
        trace!(client = %conn.client, "end of data from the peer");
        conn.end_after_output = true;
        self.conns.mark(key);
    }

    /// The session has ended the stream; delivered data is still written.
    fn stream_ended(&mut self, key: Key, how: &Ended) {
        if let Ended::NotTaken { reason, .. } = how
            && self.begin_on_next_tunnel(key, reason)
        {
            return;
        }
        self.close_asked_of(key);
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.stream = None;
        conn.input.clear(&mut self.cx.buffers.pipes);
        let client = conn.client;
        // Data of the client must still reach the server.
        let is_connecting = matches!(conn.stage, Stage::Dialing(_) | Stage::ConnectingUnix(..))
            && !conn.output_is_empty();
        match how {
            Ended::Orderly => {
                debug!(%client, "stream ended");
                if !is_connecting {
                    self.flush_and_close(key, false);
                }
            }
            Ended::Reset(reason) => {
                debug!(%client, reason, "stream reset by the peer");
                conn.reset_when_reached = is_connecting;
                if !is_connecting {
                    self.flush_and_close(key, true);
                }
            }
            Ended::Refused(reason) | Ended::NotTaken { reason, .. } => {
                self.cx.log_refused(client, &format!("by the peer: {reason}"));
                self.flush_and_close(key, true);
            }
        }
    }

    fn flush_and_close(&mut self, key: Key, then_reset: bool) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let linger = self.cx.plan.timeouts_of(conn.exit).linger;
        let deadline =
            if then_reset { linger.map(|linger| self.cx.now.after(linger)) } else { None };
        let is_broken = conn.fd.is_none() || conn.broken.is_some();
        if is_broken || matches!(conn.stage, Stage::Dialing(_) | Stage::ProxyHandshake(_)) {
            // The client no longer waits for the server, or the socket accepts nothing.
            self.reset_conn(key);
            return;
        }
        conn.stage = Stage::Flushing { then_reset };
        self.set_deadline(key, deadline);
        self.conns.mark(key);
    }

    /// Resets a connection now. The session is not notified.
    pub(in crate::worker) fn reset_conn(&mut self, key: Key) {
        self.close_asked_of(key);
        self.close_ports(key);
        let Some(conn) = self.conns.remove(key) else { return };
        if let Some(dial) = conn.stage.dial() {
            self.cx.forget_dial(dial);
        }
        if let Some(fd) = conn.fd {
            // The descriptor is closed when operations in flight on it have ended.
            net::reset_on_close(&fd);
            self.cx.driver.cancel_all(&fd);
        }
    }
}
