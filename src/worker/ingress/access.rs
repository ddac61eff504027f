//! Access control: applies `RELIABLE=`, host lists of exits and `MAXIMA=` to connections, datagrams
//! and streams of the peer. Where a verdict depends on the client's name, the name is looked up
//! first. Meanwhile a connection stays accepted, and a stream keeps the data its client sends.
//! Datagrams at an entrance are dropped; later ones find the name in the cache.
//!
//! Behind `?proxy=accept` the address in the header is judged, not that of the socket; anyone who
//! can connect to such a port can claim any address. Clients of Unix sockets have no address and
//! are unknown to host lists.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use tracing::debug;

use crate::cli::hostlist::ClientName;
use crate::cli::plan::{Caller, ExitKind, LinkPlan, Target, Transport};
use crate::io::driver::Driver;
use crate::io::link::Link;
use crate::io::net;
use crate::policy::connection_limits::LimitGuard;
use crate::policy::destinations::Asker;
use crate::policy::routing::{self, NameWanted, StreamPeer};
use crate::session::NO_ADDRESS;
use crate::worker::buffers;
use crate::worker::client::Client;
use crate::worker::context::{Cx, Drain, Effect};
use crate::worker::datagram::Datagrams;
use crate::worker::datagram::flow::{Flow, FlowServer, Waiting};
use crate::worker::exits::ExitState;
use crate::worker::ingress::Ingress;
use crate::worker::ingress::rejection::{Rejection, log_rejected, turn_away};
use crate::worker::log_ids::LogIds;
use crate::worker::message::{AcceptedConn, Incoming, NameWaiter};
use crate::worker::purpose::Purpose;
use crate::worker::stream::Streams;

/// Reason when too many look-ups are pending.
const TOO_MANY: &str = "too many clients' names are being looked up";

/// Why a stream has no exit: what the other end is told, and of whom.
fn no_exit<D: Driver>(
    cx: &Cx<D>,
    incoming: &Incoming,
    peer: StreamPeer<'_>,
) -> (String, &'static str) {
    if cx.exits.all().is_empty() {
        return (String::from("no exit"), "has neither DEST= nor SERVER=...,-in");
    }
    let port = incoming.caller().entrance_port.map_or(String::from("?"), |p| p.to_string());
    let udp = if incoming.transport == Some(Transport::Udp) { "/udp" } else { "" };
    let client = incoming.client.unwrap_or(NO_ADDRESS).ip();
    let what = format!("no exit for client {client} at entrance port {port}{udp}");
    match peer.options.is_some_and(|options| options.exits.is_some()) {
        true => {
            (what, "has none for it among those that the peer may use (exits= in the peers file)")
        }
        false => (what, "has none for it among its DEST= and SERVER=...,-in"),
    }
}

impl Ingress {
    /// Judges an accepted connection whose client is known, and serves it.
    pub(in crate::worker) fn on_connection<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        came: AcceptedConn,
    ) {
        let AcceptedConn { client, at, .. } = came;
        let entrance_port = Some(at.port()).filter(|&port| port != 0);
        let caller = Caller { client: client.ip(), entrance_port };
        let verdict = match client {
            // The file's mode has decided that, unless a list was given.
            Client::Process { .. } if cx.plan.reliable.is_none() => Some(Ok(())),
            _ => self.verdict_on(cx, &caller, came.purpose),
        };
        if let (Some(Ok(())), Purpose::Relay | Purpose::Entrance) = (verdict, came.purpose)
            && let Err(reason) = self.count_service(cx, came.purpose)
        {
            return cx.reject(&came.socket, client, &reason);
        }
        match (verdict, came.purpose) {
            (Some(Ok(())), Purpose::Receptor) => {
                let link = Link::socket(came.socket, client.to_string());
                streams.admit_stranger(cx, link, caller.client);
            }
            (Some(Ok(())), Purpose::Relay) => {
                let client = Effect::RelayClient { socket: came.socket, at };
                cx.effects.push_back(client);
            }
            (Some(Ok(())), Purpose::Entrance) => self.on_client(cx, streams, came),
            (Some(Err(rejection)), _) => turn_away(cx, &came, &caller, rejection),
            (None, _) => {
                // Only a client with an address has a name.
                if let Some(client) = caller.client {
                    self.await_name(cx, streams, datagrams, client, NameWaiter::Connection(came));
                }
            }
        }
    }

    /// Handles a connection whose PROXY header says whose it is. Where no `RELIABLE=` was given the
    /// sender itself is judged first: it could name any address of our networks.
    pub(super) fn on_header_sender<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        came: AcceptedConn,
    ) {
        let caller = Caller { client: came.client.ip(), entrance_port: None };
        let is_process = matches!(came.client, Client::Process { .. });
        if cx.plan.reliable.is_none()
            && !is_process
            && cx.plan.lets_in(&caller, ClientName::None) != Some(true)
        {
            return turn_away(cx, &came, &caller, Rejection::Reliable);
        }
        self.begin_header_read(cx, streams, datagrams, came);
    }

    /// Judges datagrams of a new client at an entrance. `None`: rejected, or undecided until the
    /// name is known.
    pub(super) fn admit_datagrams<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        client: SocketAddr,
        (port, purpose): (u16, Purpose),
    ) -> Option<Option<LimitGuard>> {
        if cx.buffers.are_low() {
            cx.log_refused(client, buffers::ARE_LOW);
            return None;
        }
        let caller = Caller { client: Some(client.ip()), entrance_port: Some(port) };
        match self.verdict_on(cx, &caller, purpose) {
            Some(Ok(())) => match cx.connection_limits.acquire(caller.client) {
                Ok(limit_guard) => return Some(limit_guard),
                Err(reason) => cx.log_refused(client, &reason),
            },
            Some(Err(rejection)) => log_rejected(cx, client, &caller, (rejection, purpose)),
            None => self.look_up_name(cx, client.ip()),
        }
        None
    }

    /// Selects the exit of a stream and acquires its limits. `None`: the stream was refused, or
    /// waits for its client's name.
    pub(in crate::worker) fn admit<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        incoming: &Incoming,
    ) -> Option<(Rc<ExitState>, Option<LimitGuard>)> {
        let Incoming { tunnel, stream, client, transport, .. } = *incoming;
        let caller = incoming.caller();
        let client = client.unwrap_or(NO_ADDRESS);
        if cx.buffers.are_low() {
            streams.refuse_stream(cx, tunnel, stream, client, buffers::ARE_LOW, false);
            return None;
        }
        let peer = streams.tunnels().peer_of(tunnel);
        let chosen = match cx.plan.takes_stream_of(&caller, self.name_of(cx, &caller)) {
            None => Err(NameWanted),
            Some(false) => {
                let reason = format!("RELIABLE= does not let in client {}", client.ip());
                streams.refuse_stream(cx, tunnel, stream, client, &reason, false);
                return None;
            }
            Some(true) => {
                let name = self.name_of(cx, &caller);
                let client = (&caller, name);
                let chosen = routing::choose_by_name(cx.exits.all(), peer, client, transport);
                chosen.and_then(|exit| {
                    let taken =
                        exit.map(|exit| self.exit_takes(cx, exit, &caller, name)).transpose()?;
                    Ok(exit.zip(taken))
                })
            }
        };
        let reason = match chosen {
            Ok(Some((exit, Ok(())))) => match cx.acquire_limits(Some(exit), caller.client, peer) {
                Ok(limit_guard) => return Some((Rc::clone(exit), limit_guard)),
                Err(reason) => reason,
            },
            Ok(Some((_, Err(list)))) => format!("{list} does not let in client {}", client.ip()),
            Ok(None) => {
                let (what, why) = no_exit(cx, incoming, peer);
                // Both ends log it; only this end can fix it.
                let reason = format!("{what}: the other end {why}");
                streams.refuse_silently(tunnel, stream, &reason, false);
                let ids = LogIds::of(tunnel, None);
                cx.log_refused_of(ids, client, &format!("{what}: this end {why}"));
                return None;
            }
            Err(NameWanted) => {
                self.hold_stream(cx, streams, datagrams, incoming, client);
                return None;
            }
        };
        streams.refuse_stream(cx, tunnel, stream, client, &reason, false);
        None
    }

    /// Verdict of the host lists on a new connection. `None`: depends on its name.
    fn verdict_on<D: Driver>(
        &self,
        cx: &Cx<D>,
        caller: &Caller,
        purpose: Purpose,
    ) -> Option<Result<(), Rejection>> {
        let name = self.name_of(cx, caller);
        let is_let_in = match purpose {
            Purpose::Receptor => cx.plan.lets_in_peer(caller, name),
            Purpose::Entrance | Purpose::Relay => cx.plan.lets_in(caller, name),
        };
        if !is_let_in? {
            return Some(Err(Rejection::Reliable));
        }
        // Elsewhere `PERMIT=` applies to exits.
        if let (LinkPlan::Relay { transport, .. }, Purpose::Relay) = (&cx.plan.link, purpose) {
            let (word, name) = (transport.relay_word(), self.name_of(cx, caller));
            if !cx.plan.permits_client(word, caller, name)? {
                return Some(Err(Rejection::Permit));
            }
        }
        Some(Ok(()))
    }

    /// The client of a stream to a proxy, for [`crate::policy::destinations`].
    pub(in crate::worker) fn asker<D: Driver>(&self, cx: &Cx<D>, incoming: &Incoming) -> Asker {
        let caller = incoming.caller();
        let name = match self.name_of(cx, &caller) {
            ClientName::Is(name) => Some(name.to_owned()),
            ClientName::Unasked | ClientName::None => None,
        };
        let permits = incoming.exit.as_ref().and_then(|exit| exit.permits.clone());
        Asker { caller, name, permits }
    }

    pub(in crate::worker) fn name_of<D: Driver>(
        &self,
        cx: &Cx<D>,
        caller: &Caller,
    ) -> ClientName<'_> {
        caller
            .client
            .map_or(ClientName::None, |client| self.names.get(client.to_canonical(), cx.now))
    }

    /// Holds a stream and its data until the client's name is known.
    pub(in crate::worker) fn hold_stream<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        incoming: &Incoming,
        client: SocketAddr,
    ) {
        let Incoming { tunnel, stream, transport, .. } = *incoming;
        let waiter = if transport == Some(Transport::Udp) {
            // The target is unknown so far; what is looked up is the client.
            let target = Target { host: client.ip().to_string(), port: client.port() };
            let server = FlowServer::Unknown(Waiting::new(target));
            let flow = Flow::of_peer(client, server, (tunnel, stream), cx.now);
            let held = datagrams.hold_flow(cx, streams.tunnels_mut(), flow);
            held.map(|key| NameWaiter::Flow(key, incoming.clone()))
        } else {
            let held = streams.hold_conn(cx, incoming, client);
            held.map(|key| NameWaiter::Stream(key, incoming.clone()))
        };
        let Some(waiter) = waiter else {
            streams.refuse_stream(
                cx,
                tunnel,
                stream,
                client,
                "too many connections are open",
                false,
            );
            return;
        };
        self.await_name(cx, streams, datagrams, client.ip(), waiter);
    }

    fn await_name<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        client: IpAddr,
        waiter: NameWaiter,
    ) {
        match self.names.wait(client.to_canonical(), waiter, cx.now) {
            Ok(()) => self.look_up_name(cx, client),
            Err(NameWaiter::Connection(came)) => {
                cx.reject(&came.socket, came.client, TOO_MANY);
            }
            Err(NameWaiter::Stream(key, incoming)) => {
                streams.take_held_stream(key);
                self.refuse_waiting(cx, streams, &incoming);
            }
            Err(NameWaiter::Flow(key, incoming)) => {
                datagrams.forget_flow(cx, key);
                self.refuse_waiting(cx, streams, &incoming);
            }
        }
    }

    fn refuse_waiting<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        incoming: &Incoming,
    ) {
        let client = incoming.client.unwrap_or(NO_ADDRESS);
        streams.refuse_stream(cx, incoming.tunnel, incoming.stream, client, TOO_MANY, false);
    }

    /// Looks up a client's name unless that is in progress.
    fn look_up_name<D: Driver>(&mut self, cx: &mut Cx<D>, client: IpAddr) {
        let client = client.to_canonical();
        if self.names.begin(client, cx.now)
            && let Err(error) = cx.resolver.ask_name(client)
        {
            debug!(%client, %error, "cannot look up a client's name");
            self.name_found(cx, client, None);
        }
    }

    /// Stores the result of a look-up and resumes its waiters.
    pub(in crate::worker) fn name_found<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        client: IpAddr,
        name: Option<String>,
    ) {
        debug!(%client, name, "name of a client");
        self.names.found(client, name, cx.now);
        while let Some(waiter) = self.names.take(client) {
            cx.effects.push_back(Effect::Resume(waiter));
        }
    }

    /// Serves a connection whose client's name was looked up.
    pub(in crate::worker) fn resume_connection<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        came: AcceptedConn,
    ) {
        match cx.drain {
            Drain::No => self.on_connection(cx, streams, datagrams, came),
            _ => net::reset_on_close(&came.socket),
        }
    }

    /// Resumes waiters whose deadline has passed, without a name.
    pub(in crate::worker) fn names_on_time<D: Driver>(&mut self, cx: &mut Cx<D>) {
        while let Some((client, until)) = self.names.oldest()
            && until <= cx.now
        {
            self.name_found(cx, client, None);
        }
    }

    /// Whether an exit accepts a caller, or the reason why not.
    ///
    /// # Errors
    /// The verdict depends on the caller's name, which is unknown.
    fn exit_takes<D: Driver>(
        &self,
        cx: &Cx<D>,
        exit: &ExitState,
        caller: &Caller,
        name: ClientName<'_>,
    ) -> Result<Result<(), &'static str>, NameWanted> {
        if let Some(list) = &exit.plan.options.reliable
            && !list.verdict(caller, name).ok_or(NameWanted)?
        {
            return Ok(Err("RELIABLE= of its exit"));
        }
        match exit.plan.way {
            // The destinations of a proxy may depend on the name, too.
            ExitKind::Proxy(proxy)
                if cx.destinations.want_name(proxy, exit.permits.as_deref(), caller, name) =>
            {
                Err(NameWanted)
            }
            ExitKind::Proxy(_) => Ok(Ok(())),
            _ => {
                let verdict = cx.plan.permits_client(&exit.plan.protocol, caller, name);
                let permitted = verdict.ok_or(NameWanted)?;
                Ok(if permitted { Ok(()) } else { Err("PERMIT=") })
            }
        }
    }
}
