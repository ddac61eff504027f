//! Access control: applies `RELIABLE=`, host lists of exits and `MAXIMA=` to connections, datagrams
//! and streams of the peer. Where a verdict depends on the client's name, the name is looked up
//! first. Meanwhile a connection stays accepted, and a stream keeps the data its client sends.
//! Datagrams at an entrance are dropped; later ones find the name in the cache.
//!
//! Behind `?proxy=accept` the address in the header is judged, not that of the socket; anyone who
//! can connect to such a port can claim any address. Clients of Unix sockets have no address and
//! are unknown to host lists.

use std::net::{IpAddr, SocketAddr};

use tracing::{debug, warn};

use crate::cli::hostlist::ClientName;
use crate::cli::plan::{Caller, LinkPlan, Target, Transport};
use crate::io::driver::{Driver, Fd};
use crate::io::link::Link;
use crate::io::net;
use crate::policy::connection_limits::LimitGuard;
use crate::policy::destinations::Asker;
use crate::policy::routing::{self, NameWanted};
use crate::session::{NO_ADDRESS, StreamKey};
use crate::worker::datagram::flow::{Flow, Server, Waiting};
use crate::worker::forward::callback::Call;
use crate::worker::log_limit::Class;
use crate::worker::purpose::Purpose;
use crate::worker::stream::client::Client;
use crate::worker::stream::conn::{Conn, Stage};
use crate::worker::token::StreamOwner;
use crate::worker::{Drain, Key, Worker};

/// Reason when too many look-ups are pending.
const TOO_MANY: &str = "too many clients' names are being looked up";

/// An accepted connection.
#[derive(Debug)]
pub(in crate::worker) struct Came {
    pub(in crate::worker) socket: Fd,
    pub(in crate::worker) purpose: Purpose,
    /// The client that is judged; behind a PROXY header, the one it names.
    pub(in crate::worker) client: Client,
    /// Address of the listener; unspecified for a Unix socket.
    pub(in crate::worker) at: SocketAddr,
    /// Accepted at a Unix socket.
    pub(in crate::worker) unix: bool,
}

/// A stream begun by the peer.
#[derive(Debug, Clone, Copy)]
pub(in crate::worker) struct Incoming {
    pub(in crate::worker) tunnel: Key,
    pub(in crate::worker) stream: StreamKey,
    pub(in crate::worker) client: Option<SocketAddr>,
    pub(in crate::worker) entrance: Option<SocketAddr>,
    pub(in crate::worker) transport: Option<Transport>,
    /// Index of its exit in the plan, once chosen.
    pub(in crate::worker) exit: Option<usize>,
    /// A callback to a client of this end. `client` is then that client, and `entrance` the address
    /// it had connected to.
    pub(in crate::worker) call: Option<Call>,
}

impl Incoming {
    /// The caller for host lists. A client without an address is reported as the unspecified
    /// address, and an entrance without a port as port 0.
    pub(in crate::worker) fn caller(&self) -> Caller {
        let client = self.client.map(|client| client.ip());
        Caller {
            client: client.filter(|client| !client.is_unspecified()),
            entrance_port: self.entrance.map(|entrance| entrance.port()).filter(|&port| port != 0),
        }
    }
}

/// What continues once a client's name is known.
#[derive(Debug)]
pub(in crate::worker) enum Waiter {
    /// An accepted connection.
    Connection(Came),
    /// A stream. This connection without a server holds its place.
    Stream(Key, Incoming),
    /// A stream of datagrams. This flow without a server holds its place.
    Flow(Key, Incoming),
}

impl<D: Driver> Worker<D> {
    /// Judges an accepted connection whose client is known, and serves it.
    pub(in crate::worker) fn on_connection(&mut self, came: Came) {
        let Came { client, at, .. } = came;
        let entrance_port = Some(at.port()).filter(|&port| port != 0);
        let caller = Caller { client: client.ip(), entrance_port };
        let verdict = self.verdict_on(&caller, came.purpose);
        if let (Some(Ok(())), Purpose::Relay | Purpose::Entrance) = (verdict, came.purpose)
            && let Err(reason) = self.count_service(came.purpose)
        {
            return self.cx.reject(&came.socket, client, &reason);
        }
        match (verdict, came.purpose) {
            (Some(Ok(())), Purpose::Receptor) => {
                self.begin_tunnel(Link::socket(came.socket, client.to_string()));
            }
            (Some(Ok(())), Purpose::Relay) => self.relay.on_client(&mut self.cx, came.socket, at),
            (Some(Ok(())), Purpose::Entrance) => self.on_client(came),
            (Some(Err(reason)), Purpose::Receptor) => {
                net::reset_on_close(&came.socket);
                if self.cx.may_log(Class::Stranger) {
                    let port = at.port();
                    let reason = format!("{reason}: add its address, or -P{port} for any peer");
                    warn!(peer = %client, reason, "tunnel did not come up");
                }
            }
            (Some(Err(reason)), _) => self.cx.reject(&came.socket, client, reason),
            (None, _) => {
                // Only a client with an address has a name.
                if let Some(client) = caller.client {
                    self.await_name(client, Waiter::Connection(came));
                }
            }
        }
    }

    /// Judges datagrams of a new client at an entrance. `None`: rejected, or undecided until the
    /// name is known.
    pub(in crate::worker) fn admit_datagrams(
        &mut self,
        client: SocketAddr,
        (port, purpose): (u16, Purpose),
    ) -> Option<Option<LimitGuard>> {
        let caller = Caller { client: Some(client.ip()), entrance_port: Some(port) };
        match self.verdict_on(&caller, purpose) {
            Some(Ok(())) => match self.cx.connection_limits.acquire(caller.client) {
                Ok(limit_guard) => return Some(limit_guard),
                Err(reason) => self.cx.log_refused(client, &reason),
            },
            Some(Err(reason)) => self.cx.log_refused(client, reason),
            None => self.look_up_name(client.ip()),
        }
        None
    }

    /// Selects the exit of a stream and acquires its limits. `None`: the stream was refused, or
    /// waits for its client's name.
    pub(in crate::worker) fn admit(
        &mut self,
        incoming: &Incoming,
    ) -> Option<(usize, Option<LimitGuard>)> {
        let Incoming { tunnel, stream, client, transport, .. } = *incoming;
        let caller = incoming.caller();
        let client = client.unwrap_or(NO_ADDRESS);
        let chosen = match self.is_reliable(&caller) {
            None => Err(NameWanted),
            Some(false) => {
                let reason = format!("RELIABLE= does not let in client {}", client.ip());
                self.refuse_stream(tunnel, stream, client, &reason, false);
                return None;
            }
            Some(true) => {
                let name = self.name_of(&caller);
                let chosen = routing::choose_by_name(&self.cx.plan.exits, &caller, name, transport);
                chosen.and_then(|exit| {
                    let taken =
                        exit.map(|exit| self.exit_takes(exit, &caller, name)).transpose()?;
                    Ok(exit.zip(taken))
                })
            }
        };
        let reason = match chosen {
            Ok(Some((exit, Ok(())))) => match self.acquire_limits(Some(exit), caller.client) {
                Ok(limit_guard) => return Some((exit, limit_guard)),
                Err(reason) => reason,
            },
            Ok(Some((_, Err(list)))) => format!("{list} does not let in client {}", client.ip()),
            Ok(None) => {
                let (what, why) = if self.cx.plan.exits.is_empty() {
                    (String::from("no exit"), "has neither DEST= nor SERVER=...,-in")
                } else {
                    let port = caller.entrance_port.map_or(String::from("?"), |p| p.to_string());
                    let udp = if transport == Some(Transport::Udp) { "/udp" } else { "" };
                    let client = client.ip();
                    let what = format!("no exit for client {client} at entrance port {port}{udp}");
                    (what, "has none for it among its DEST= and SERVER=...,-in")
                };
                // Both ends log it; only this end can fix it.
                let reason = format!("{what}: the other end {why}");
                self.refuse_silently(tunnel, stream, &reason, false);
                self.cx.log_refused(client, &format!("{what}: this end {why}"));
                return None;
            }
            Err(NameWanted) => {
                self.hold_stream(incoming, client);
                return None;
            }
        };
        self.refuse_stream(tunnel, stream, client, &reason, false);
        None
    }

    /// Verdict of the host lists on a new connection. `None`: depends on its name.
    fn verdict_on(&self, caller: &Caller, purpose: Purpose) -> Option<Result<(), &'static str>> {
        if !self.is_reliable(caller)? {
            return Some(Err("rejected by RELIABLE="));
        }
        // Elsewhere `PERMIT=` applies to exits.
        if let (LinkPlan::Relay { transport, .. }, Purpose::Relay) = (&self.cx.plan.link, purpose) {
            let (word, name) = (transport.relay_word(), self.name_of(caller));
            if !self.cx.plan.permits_client(word, caller, name)? {
                return Some(Err("rejected by PERMIT="));
            }
        }
        Some(Ok(()))
    }

    /// Verdict of `RELIABLE=`. `None`: depends on the caller's name.
    fn is_reliable(&self, caller: &Caller) -> Option<bool> {
        match &self.cx.plan.reliable {
            Some(list) => list.verdict(caller, self.name_of(caller)),
            None => Some(true),
        }
    }

    /// The client of a stream to a proxy, for [`crate::policy::destinations`].
    pub(in crate::worker) fn asker(&self, incoming: &Incoming) -> Asker {
        let caller = incoming.caller();
        let name = match self.name_of(&caller) {
            ClientName::Is(name) => Some(name.to_owned()),
            ClientName::Unasked | ClientName::None => None,
        };
        Asker { caller, name, exit: incoming.exit }
    }

    pub(in crate::worker) fn name_of(&self, caller: &Caller) -> ClientName<'_> {
        caller.client.map_or(ClientName::None, |client| {
            self.ingress.names.get(client.to_canonical(), self.cx.now)
        })
    }

    /// Holds a stream and its data until the client's name is known.
    pub(in crate::worker) fn hold_stream(&mut self, incoming: &Incoming, client: SocketAddr) {
        let Incoming { tunnel, stream, transport, .. } = *incoming;
        let waiter = if transport == Some(Transport::Udp) {
            // The target is unknown so far; what is looked up is the client.
            let target = Target { host: client.ip().to_string(), port: client.port() };
            let mut flow = Flow::new(client, Server::Unknown(Waiting::new(target)), self.cx.now);
            flow.stream = Some((tunnel, stream));
            self.datagrams
                .insert_flow(&mut self.cx, &mut self.tunnels, flow)
                .map(|key| Waiter::Flow(key, *incoming))
        } else {
            let mut conn = Conn::new(tunnel, Stage::ResolvingName, client, self.cx.now);
            conn.stream = Some(stream);
            self.conns.insert(conn).map(|key| Waiter::Stream(key, *incoming))
        };
        let Some(waiter) = waiter else {
            self.refuse_stream(tunnel, stream, client, "too many connections are open", false);
            return;
        };
        if let Some(tunnel) = self.tunnels.get_mut(tunnel) {
            match waiter {
                Waiter::Flow(key, _) => {
                    tunnel.session_mut().attach_datagrams(stream, StreamOwner::Flow(key).user());
                }
                Waiter::Stream(key, _) => {
                    tunnel.session_mut().attach(stream, StreamOwner::Conn(key).user())
                }
                Waiter::Connection(_) => {}
            }
        }
        self.await_name(client.ip(), waiter);
    }

    fn await_name(&mut self, client: IpAddr, waiter: Waiter) {
        match self.ingress.names.wait(client.to_canonical(), waiter, self.cx.now) {
            Ok(()) => self.look_up_name(client),
            Err(Waiter::Connection(came)) => {
                self.cx.reject(&came.socket, came.client, TOO_MANY);
            }
            Err(Waiter::Stream(key, incoming)) => {
                self.conns.remove(key);
                self.refuse_waiting(&incoming);
            }
            Err(Waiter::Flow(key, incoming)) => {
                self.datagrams.forget_flow(&mut self.cx, key);
                self.refuse_waiting(&incoming);
            }
        }
    }

    fn refuse_waiting(&mut self, incoming: &Incoming) {
        let client = incoming.client.unwrap_or(NO_ADDRESS);
        self.refuse_stream(incoming.tunnel, incoming.stream, client, TOO_MANY, false);
    }

    /// Looks up a client's name unless that is in progress.
    fn look_up_name(&mut self, client: IpAddr) {
        let client = client.to_canonical();
        if self.ingress.names.begin(client, self.cx.now)
            && let Err(error) = self.cx.resolver.ask_name(client)
        {
            debug!(%client, %error, "cannot look up a client's name");
            self.name_found(client, None);
        }
    }

    /// Stores the result of a look-up and resumes its waiters.
    pub(in crate::worker) fn name_found(&mut self, client: IpAddr, name: Option<String>) {
        debug!(%client, name, "name of a client");
        self.ingress.names.found(client, name, self.cx.now);
        while let Some(waiter) = self.ingress.names.take(client) {
            match waiter {
                Waiter::Connection(came) if self.drain != Drain::No => {
                    net::reset_on_close(&came.socket);
                }
                Waiter::Connection(came) => self.on_connection(came),
                Waiter::Stream(key, incoming) => self.resume_stream(key, incoming),
                Waiter::Flow(key, incoming) => self.resume_flow(key, incoming),
            }
        }
    }

    /// Resumes waiters whose deadline has passed, without a name.
    pub(in crate::worker) fn names_on_time(&mut self) {
        while let Some((client, until)) = self.ingress.names.oldest()
            && until <= self.cx.now
        {
            self.name_found(client, None);
        }
    }

    /// Opens the exit of a held stream, and hands over data delivered meanwhile.
    fn resume_stream(&mut self, key: Key, incoming: Incoming) {
        // Gone if the stream has ended.
        let Some(mut held) = self.conns.remove(key) else { return };
        self.open_exit(incoming);
        if let Some(StreamOwner::Conn(key)) = self.owner_of(&incoming) {
            if self.is_proxy_handshake(key) {
                return self.take_over_held(key, &mut held);
            }
            if let Some(conn) = self.conns.get_mut(key) {
                std::mem::swap(&mut conn.output, &mut held.output);
                std::mem::swap(&mut conn.spill, &mut held.spill);
                conn.urgent = held.urgent;
                conn.end_after_output = held.end_after_output;
                self.conns.mark(key);
            }
        }
        held.output.clear(&mut self.cx.buffers.pipes);
    }

    fn resume_flow(&mut self, key: Key, incoming: Incoming) {
        let Some(runs) = self.datagrams.take_waiting(key) else { return };
        self.datagrams.forget_flow(&mut self.cx, key);
        self.open_exit(incoming);
        let flow = match self.owner_of(&incoming) {
            Some(StreamOwner::Flow(flow)) => Some(flow),
            _ => None,
        };
        for (run, size_bytes) in runs {
            match flow {
                Some(flow) => {
                    let (cx, tunnels) = (&mut self.cx, &mut self.tunnels);
                    self.datagrams.send_run(cx, tunnels, flow, run, size_bytes);
                }
                None => self.cx.buffers.give_back(run),
            }
        }
    }

    /// The owner that a stream is attached to.
    fn owner_of(&self, incoming: &Incoming) -> Option<StreamOwner> {
        let session = self.tunnels.get(incoming.tunnel)?.session();
        session.user_of(incoming.stream).map(StreamOwner::of)
    }
}
