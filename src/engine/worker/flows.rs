//! The life of a flow: it begins with a datagram from a client that nobody knows, here or at the
//! peer, and ends when it is silent, evicted, refused or ended by the peer. It holds nothing that a
//! new one could not make good: the next datagram begins it anew.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use tracing::{debug, warn};

use super::asked::PortName;
use super::flow::{FLOW_BIT, Flow, Origin, Server, ServerName, Waiting};
use super::gathering::Source;
use super::listeners::Purpose;
use super::log_limit::Class;
use super::{Drain, Key, Worker};
use crate::endpoint::seats::Seat;
use crate::engine::datagram::{self, SegmentLimit};
use crate::engine::driver::Driver;
use crate::engine::net;
use crate::engine::resolver::Resolver;
use crate::limits::{DRAIN_FLOW_MILLIS, UNANSWERED_SECS};
use crate::params::plan::Target;
use crate::session::{Ended, Moment, OpenError, Session, StreamKey};

impl<D: Driver> Worker<D> {
    /// A client that nobody knows has sent something. `None`: nobody would carry it.
    pub(super) fn begin_flow(&mut self, origin: Origin) -> Option<Key> {
        if let PortName::Asked(key) = origin.port {
            return self.begin_asked_flow(key, origin);
        }
        if self.drain != Drain::No {
            return None;
        }
        let port = self.ports.get(origin.port)?;
        let client = net::plain(origin.client);
        let (purpose, address) = (port.purpose, port.address);
        let seat = self.admit_datagrams(client, (address.port(), purpose))?;
        match purpose {
            Purpose::Relay => {
                let target = match self.relay_target(address) {
                    Ok(target) => target,
                    Err(reason) => {
                        self.log_refused(client, &reason);
                        return None;
                    }
                };
                let mut flow =
                    Flow::new(client, Server::Unknown(Waiting::new(target.clone())), self.now);
                flow.origin = Some(origin);
                flow.seat = seat;
                let key = self.insert_flow(flow)?;
                self.find_server(key, &target);
                Some(key)
            }
            Purpose::Entrance | Purpose::Receptor => {
                if self.up.is_empty() {
                    return None;
                }
                let mut entrance = address;
                if let Some(own) = origin.own {
                    entrance = net::plain(SocketAddr::new(own, entrance.port()));
                }
                let mut flow = Flow::new(client, Server::Peer, self.now);
                flow.origin = Some(origin);
                flow.seat = seat;
                let key = self.insert_flow(flow)?;
                match self.begin_flow_by_next(key, Box::new((entrance, Vec::new()))) {
                    Ok(()) => Some(key),
                    Err(error) => {
                        self.flow_not_begun(key, error);
                        None
                    }
                }
            }
        }
    }

    /// Begins a stream for a flow.
    pub(super) fn open_flow(
        &mut self,
        tunnel_key: Key,
        flow: Flow,
        entrance: SocketAddr,
        open: impl FnOnce(&mut Session, u64) -> Result<StreamKey, OpenError>,
    ) -> Option<Key> {
        let client = flow.client;
        let key = self.insert_flow(flow)?;
        let opened = match self.tunnels.get_mut(tunnel_key) {
            Some(tunnel) => open(&mut tunnel.session, key.pack() | FLOW_BIT),
            None => Err(OpenError::NotUp),
        };
        match opened {
            Ok(stream) => {
                debug!(%client, %entrance, "flow");
                if let Some(flow) = self.flows.get_mut(key) {
                    flow.stream = Some((tunnel_key, stream));
                }
                Some(key)
            }
            Err(error) => {
                self.flow_not_begun(key, error);
                None
            }
        }
    }

    /// No tunnel takes a flow.
    fn flow_not_begun(&mut self, key: Key, error: OpenError) {
        let Some(flow) = self.flows.remove(key) else { return };
        // The peer takes fewer than we do: the next datagram finds room.
        if matches!(error, OpenError::TooMany { .. }) {
            self.evict_flow();
        }
        self.log_refused(flow.client, &error.to_string());
    }

    /// Begins a flow's stream by the newest tunnel that is up and takes it, of those that have not
    /// refused it.
    fn begin_flow_by_next(
        &mut self,
        key: Key,
        tentative: Box<(SocketAddr, Vec<Key>)>,
    ) -> Result<(), OpenError> {
        let (entrance, refused_by) = &*tentative;
        let mut why = OpenError::NotUp;
        for at in (0..self.up.len()).rev() {
            let tunnel_key = self.up[at];
            let Some(flow) = self.flows.get_mut(key) else { return Ok(()) };
            let Some(tunnel) = self.tunnels.get_mut(tunnel_key) else { continue };
            if refused_by.contains(&tunnel_key) {
                continue;
            }
            let (session, user) = (&mut tunnel.session, key.pack() | FLOW_BIT);
            let is_last = self.up[..at].iter().all(|key| refused_by.contains(key));
            let opened = match is_last {
                true => session.open_datagrams(user, flow.client, *entrance),
                false => session.open_datagrams_tentatively(user, flow.client, *entrance),
            };
            match opened {
                Ok(stream) => {
                    debug!(client = %flow.client, %entrance, "flow");
                    flow.stream = Some((tunnel_key, stream));
                    flow.tentative = (!is_last).then_some(tentative);
                    return Ok(());
                }
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// The peer has a flow: it is not begun again.
    pub(super) fn flow_opened(&mut self, key: Key) {
        if let Some(flow) = self.flows.get_mut(key) {
            flow.tentative = None;
        }
    }

    /// The peer has not taken a flow, and has tried no server: begins it again by the next tunnel, with
    /// the datagrams that waited. `false`: there is none.
    fn begin_flow_elsewhere(&mut self, key: Key, runs: &[(u32, u32)]) -> bool {
        let Some(flow) = self.flows.get_mut(key) else { return false };
        let Some(mut tentative) = flow.tentative.take() else { return false };
        tentative.1.extend(flow.stream.take().map(|(tunnel, _)| tunnel));
        let waited = std::mem::take(&mut flow.queue);
        if self.begin_flow_by_next(key, tentative).is_err() {
            return false;
        }
        let mut waiting = Vec::new();
        waited.copy_front(waited.len_bytes(), &mut waiting);
        let mut left = &waiting[..];
        for &(size_bytes, bytes) in runs {
            let (run, rest) = left.split_at((bytes as usize).min(left.len()));
            self.queue_run(key, size_bytes, run, None);
            left = rest;
        }
        if let Some((tunnel, _)) = self.flows.get_mut(key).and_then(|flow| flow.stream) {
            self.mark_tunnel(tunnel);
        }
        true
    }

    /// Puts a flow into the table, in place of another if need be.
    pub(super) fn insert_flow(&mut self, flow: Flow) -> Option<Key> {
        if self.flows.is_full() {
            self.evict_flow();
        }
        self.flows.insert(flow)
    }

    pub(super) fn evict_flow(&mut self) {
        if let Some((oldest, _)) = self.flows.oldest() {
            self.counters.flows_evicted += 1;
            self.end_flow(oldest, "evicted by a newer flow (SOXCONF=udpflows)");
        }
    }

    /// Opens a socket for datagrams to or at `address`. Where no local port is free for it, or no
    /// descriptor, the flow that was silent for longest is let go: its port serves at once, its
    /// descriptor the next datagram.
    pub(super) fn open_socket(
        &mut self,
        address: SocketAddr,
        mut open: impl FnMut() -> io::Result<OwnedFd>,
    ) -> io::Result<OwnedFd> {
        let error = match open() {
            Err(error) => error,
            opened => return opened,
        };
        let no_port = net::is_out_of_ports(&error, address);
        if !no_port && !matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
            return Err(error);
        }
        let error = io::Error::other(net::why_not_connected(&error, address));
        let Some(oldest) = self.flows.oldest_with_socket() else { return Err(error) };
        if self.may_log(Class::Shortage) {
            warn!(reason = %error, "the UDP flow that was silent for longest is let go for a new one");
        }
        if let Some(socket) = self.flows.get_mut(oldest).and_then(|flow| flow.socket()) {
            datagram::free_port(&socket);
        }
        self.counters.flows_evicted += 1;
        self.end_flow(oldest, "let go for a newer flow: no local port or descriptor was free");
        if no_port { open().map_err(|_| error) } else { Err(error) }
    }

    /// The peer began a flow, whose exit is this target.
    pub(super) fn open_exit_flow(
        &mut self,
        (tunnel_key, stream): (Key, StreamKey),
        client: SocketAddr,
        seat: Option<Seat>,
        target: &Target,
    ) {
        let server = Server::Unknown(Waiting::new(target.clone()));
        let mut flow = Flow::new(client, server, self.now);
        flow.stream = Some((tunnel_key, stream));
        flow.seat = seat;
        let Some(key) = self.insert_flow(flow) else {
            self.refuse_stream(tunnel_key, stream, client, "too many flows are open", false);
            return;
        };
        if let Some(tunnel) = self.tunnels.get_mut(tunnel_key) {
            tunnel.session.attach_datagrams(stream, key.pack() | FLOW_BIT);
        }
        debug!(%client, host = %target.host, port = target.port, "flow's exit");
        self.find_server(key, target);
    }

    fn find_server(&mut self, key: Key, target: &Target) {
        if let Some(address) = Resolver::literal(target) {
            self.flow_resolved(key, Ok(vec![address]));
        } else if let Err(error) = self.resolver.ask(FLOW_BIT | key.pack(), target) {
            self.flow_resolved(key, Err(error));
        }
    }

    /// The addresses of a flow's server: the first that a packet could be sent to is it. Whether
    /// anybody is there cannot be asked.
    pub(super) fn flow_resolved(&mut self, key: Key, found: io::Result<Vec<SocketAddr>>) {
        let Some(flow) = self.flows.get_mut(key) else {
            self.counters.stale += 1;
            return;
        };
        if let Server::Here(socket) = &flow.server {
            let current = net::peer_address(socket);
            return self.server_looked_up_again(key, current, found);
        }
        let socket = match self.first_that_can_be_sent_to(found, None) {
            Ok(Some(socket)) => Rc::new(socket),
            Ok(None) => return,
            Err(error) => return self.flow_unreachable(key, &error),
        };
        let now = self.now;
        let Some(flow) = self.flows.get_mut(key) else { return };
        let (server, own) = (net::peer_address(&socket), net::local_address(&socket));
        let before = std::mem::replace(&mut flow.server, Server::Here(socket));
        if let Server::Unknown(waiting) = &before
            && Resolver::literal(&waiting.target).is_none()
        {
            let target = waiting.target.clone();
            flow.server_name = Some(Box::new(ServerName { target, silent_since: now }));
        }
        if let Some((tunnel_key, stream)) = flow.stream {
            if let Some(tunnel) = self.tunnels.get_mut(tunnel_key) {
                tunnel.session.accept(stream, server, own);
            }
            self.mark_tunnel(tunnel_key);
        }
        self.watch_source(Source::Flow(key));
        if let Server::Unknown(mut waiting) = before {
            for (run, size_bytes) in waiting.take() {
                self.send_run(key, run, size_bytes);
            }
        }
    }

    /// A socket to the first of the addresses that a packet could be sent to, or why there is none.
    /// `Ok(None)`: that is the `current` one.
    fn first_that_can_be_sent_to(
        &mut self,
        found: io::Result<Vec<SocketAddr>>,
        current: Option<SocketAddr>,
    ) -> io::Result<Option<OwnedFd>> {
        let mut addresses =
            found.map_err(|error| io::Error::other(format!("name not found: {error}")))?;
        let place = addresses.iter().position(|&address| current == Some(address));
        addresses.truncate(place.unwrap_or(addresses.len()));
        let opened = match addresses.first() {
            Some(&first) => self.open_socket(first, || connected_to_one_of(&addresses)),
            None => Err(io::Error::other("no address")),
        };
        match (opened, place) {
            (Ok(socket), _) => Ok(Some(socket)),
            (Err(_), Some(_)) => Ok(None),
            (Err(error), None) => Err(error),
        }
    }

    /// Something was sent to a flow's server: its name is looked up again if nothing has come back for
    /// `TIMEOUT=udp`.
    #[inline]
    pub(super) fn look_up_if_unanswered(&mut self, key: Key) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let Some(name) = &mut flow.server_name else { return };
        let patience = self.plan.timeouts.udp.unwrap_or(Duration::from_secs(UNANSWERED_SECS));
        if name.silent_since.after(patience) > self.now {
            return;
        }
        name.silent_since = self.now;
        if let Err(error) = self.resolver.ask(FLOW_BIT | key.pack(), &name.target) {
            debug!(client = %flow.client, %error, "cannot look a silent server up again");
        }
    }

    /// What the name of a flow's silent server leads to now: a new flow's server would be the first.
    fn server_looked_up_again(
        &mut self,
        key: Key,
        current: SocketAddr,
        found: io::Result<Vec<SocketAddr>>,
    ) {
        let found = self.first_that_can_be_sent_to(found, Some(current));
        let Some(flow) = self.flows.get_mut(key) else { return };
        let client = flow.client;
        match found {
            Ok(None) => {}
            Err(error) => debug!(%client, %error, "a silent server's name leads nowhere now"),
            Ok(Some(socket)) => {
                let server = net::peer_address(&socket);
                debug!(%client, %current, %server, "a silent server's name leads elsewhere now");
                flow.limit = SegmentLimit::default();
                let before = std::mem::replace(&mut flow.server, Server::Here(Rc::new(socket)));
                if let Server::Here(socket) = before {
                    // With the end of what watches the old socket the new one is read and watched. One
                    // that rests is not watched, and the new one read when the rest is over.
                    self.driver.cancel_all(&socket);
                }
            }
        }
    }

    /// A flow whose server cannot be sent to.
    fn flow_unreachable(&mut self, key: Key, error: &io::Error) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let (client, stream) = (flow.client, flow.stream);
        let reason = match &flow.server {
            Server::Unknown(waiting) => format!("{}/udp: {error}", waiting.target),
            Server::Here(_) | Server::Anywhere(_) | Server::Peer => error.to_string(),
        };
        self.forget_flow(key);
        match stream {
            Some((tunnel, stream)) => self.refuse_stream(tunnel, stream, client, &reason, true),
            None => self.log_refused(client, &reason),
        }
    }

    /// A flow that is to be no more, for this reason: its stream ends, too.
    pub(super) fn end_flow(&mut self, key: Key, reason: &'static str) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let stream = flow.stream;
        debug!(client = %flow.client, reason, "flow ended");
        self.forget_flow(key);
        if let Some((tunnel_key, stream)) = stream {
            if let Some(tunnel) = self.tunnels.get_mut(tunnel_key) {
                tunnel.session.local_reset(stream, reason);
            }
            self.mark_tunnel(tunnel_key);
        }
    }

    /// The session has ended a flow's stream.
    pub(super) fn flow_ended(&mut self, key: Key, how: &Ended) {
        if let Ended::NotTaken { runs, .. } = how
            && self.begin_flow_elsewhere(key, runs)
        {
            return;
        }
        let Some(flow) = self.flows.get_mut(key) else { return };
        let client = flow.client;
        self.forget_flow(key);
        match how {
            Ended::Refused(reason) | Ended::NotTaken { reason, .. } => {
                self.log_refused(client, &format!("by the peer: {reason}"))
            }
            Ended::Reset(reason) => debug!(%client, reason, "flow ended by the peer"),
            Ended::Orderly => debug!(%client, "flow ended by the peer"),
        }
    }

    /// Takes a flow out of the table. Its session is not told.
    pub(super) fn forget_flow(&mut self, key: Key) {
        let Some(mut flow) = self.flows.remove(key) else { return };
        flow.queue.clear(&mut self.kit.pipes);
        match flow.server {
            Server::Here(socket) => self.driver.cancel_all(&socket),
            Server::Anywhere(anywhere) => self.driver.cancel_all(&anywhere.socket),
            Server::Unknown(mut waiting) => {
                waiting.take().into_iter().for_each(|(run, _)| self.kit.give_back(run));
            }
            Server::Peer => {}
        }
    }

    /// A tunnel is gone, and its flows with it.
    pub(super) fn forget_flows_of(&mut self, tunnel: Key) {
        let mut gone = std::mem::take(&mut self.scratch);
        let of_it = |flow: &Flow| flow.stream.is_some_and(|(of, _)| of == tunnel);
        gone.extend(self.flows.iter().filter(|(_, flow)| of_it(flow)).map(|(key, _)| key));
        for key in gone.drain(..) {
            self.forget_flow(key);
        }
        self.scratch = gone;
    }

    /// Ends flows that have been silent for too long; when to look again.
    pub(super) fn flows_on_time(&mut self) -> Option<Moment> {
        let patience = match self.drain {
            Drain::No => self.plan.timeouts.udp?,
            _ => Duration::from_millis(DRAIN_FLOW_MILLIS),
        };
        while let Some((key, last_used)) = self.flows.oldest() {
            let until = last_used.after(patience);
            if until > self.now {
                return Some(until);
            }
            self.end_flow(key, "silent for too long (TIMEOUT=udp)");
        }
        None
    }
}

/// A socket to the first of the addresses that a packet could be sent to. The lack of a port is what is
/// reported first, since something can be done about it.
fn connected_to_one_of(addresses: &[SocketAddr]) -> io::Result<OwnedFd> {
    let (mut last, mut no_port) = (None, None);
    for &address in addresses {
        match datagram::connected(address) {
            Err(error) if net::is_out_of_ports(&error, address) => no_port = Some(error),
            Err(error) => last = Some(error),
            opened => return opened,
        }
    }
    Err(no_port.or(last).unwrap_or_else(|| io::Error::other("no address")))
}
