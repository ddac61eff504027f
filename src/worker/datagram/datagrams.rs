//! The path of datagrams: from sockets of entrances and flows to sessions and back; in a plain
//! relay from one socket to the other. There is no backpressure: a datagram that can neither be
//! sent at once nor be queued within the session's bounds is dropped and counted.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use tracing::{debug, warn};

use super::Datagrams;
use crate::io::chunk::Chunk;
use crate::io::datagram::{Inbox, Received, Sent};
use crate::io::driver::{Driver, Fd, Gather};
use crate::io::net;
use crate::io::takeover::Handed;
use crate::limits::{DATAGRAM_BYTES_MAX, DATAGRAMS_AT_ONCE};
use crate::session::Moment;
use crate::worker::context::Cx;
use crate::worker::datagram::coalesce::{Coalescing, Next, ReadTally, Source};
use crate::worker::datagram::flow::FlowServer;
use crate::worker::log_ids::LogIds;
use crate::worker::message::{LedTo, PortName, Run};
use crate::worker::purpose::Purpose;
use crate::worker::stream::tunnel::Tunnels;
use crate::worker::table::Key;
use crate::worker::token::Kind;

/// A socket where clients' datagrams arrive.
#[derive(Debug)]
pub(crate) struct DatagramPort {
    pub(super) fd: Fd,
    address: SocketAddr,
    purpose: Purpose,
    /// Of an entrance: the tunnels that its clients may take.
    pub(super) led_to: LedTo,
    coalescing: Coalescing,
    /// A successor reads it, and this process does not.
    is_left: bool,
}

impl DatagramPort {
    pub(crate) fn new(fd: OwnedFd, purpose: Purpose) -> DatagramPort {
        let (address, coalescing) = (net::local_address(&fd), Coalescing::default());
        let led_to = LedTo::Any;
        DatagramPort { fd: Fd::new(fd), address, purpose, led_to, coalescing, is_left: false }
    }

    /// The peers that its clients go to.
    pub(crate) fn with_peers(self, peers: &[String]) -> DatagramPort {
        DatagramPort { led_to: LedTo::names(peers), ..self }
    }

    /// For a successor: a duplicate.
    pub(super) fn offer(&self) -> io::Result<Handed> {
        let is_asked = matches!(self.led_to, LedTo::Tunnel(_));
        Ok(Handed { fd: self.fd.try_clone()?, is_ours: true, is_asked })
    }

    /// A successor reads it.
    pub(super) fn leave(&mut self) {
        self.is_left = true;
    }

    /// An entrance that the peer of this tunnel has asked for.
    pub(in crate::worker) fn asked_by(fd: OwnedFd, tunnel: Key) -> DatagramPort {
        let led_to = LedTo::Tunnel(tunnel);
        DatagramPort { led_to, ..DatagramPort::new(fd, Purpose::Entrance) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(in crate::worker) fn purpose(&self) -> Purpose {
        self.purpose
    }
}

/// A read of one socket whose messages are being handled.
pub(in crate::worker) struct SourceRead {
    source: Source,
    inbox: Box<Inbox>,
    came: ReadTally,
    dropped_before: u64,
}

impl SourceRead {
    /// The next message.
    pub(in crate::worker) fn take_next(&mut self) -> Option<Received<'_>> {
        let got = self.inbox.take_next()?;
        self.came.bytes += got.payload.len();
        self.came.datagrams += datagrams(got.payload.len(), got.size_bytes);
        Some(got)
    }
}

impl Datagrams {
    /// Polls every entrance.
    pub(in crate::worker) fn watch_ports<D: Driver>(&mut self, cx: &mut Cx<D>) {
        for number in 0..self.entrances.len() as u32 {
            self.watch_source(cx, Source::Port(PortName::Entrance(number)));
        }
    }

    /// Polls a socket for datagrams and errors.
    pub(super) fn watch_source<D: Driver>(&mut self, cx: &mut Cx<D>, source: Source) {
        let (socket, token) = match source {
            Source::Port(name) => {
                let Some(port) = self.port(name) else { return };
                let token = match name {
                    PortName::Entrance(number) => Kind::PortReady.number(number),
                    PortName::Asked(key) => Kind::AskedReady.of(key),
                    PortName::Given(key) => Kind::GivenReady.of(key),
                };
                (Fd::clone(&port.fd), token)
            }
            Source::Flow(key) => match self.flows.get_mut(key).and_then(|flow| flow.socket()) {
                Some(socket) => (socket, Kind::FlowReady.of(key)),
                None => return,
            },
        };
        cx.driver.poll(&socket, libc::POLLIN as u32, false, token);
    }

    /// How many sockets are paused.
    pub(in crate::worker) fn paused_count(&self) -> usize {
        self.paused.len()
    }

    /// The next socket whose pause is over.
    pub(in crate::worker) fn take_due(&mut self, now: Moment) -> Option<Source> {
        let &(until, source) = self.paused.front()?;
        if until > now {
            return None;
        }
        self.paused.pop_front();
        Some(source)
    }

    /// Receives from a socket, up to the maximum of a turn. The caller takes each message and then
    /// calls [`Datagrams::end_read`]. `None`: nothing is left to do, or the socket is gone.
    pub(in crate::worker) fn begin_read<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        source: Source,
    ) -> Option<SourceRead> {
        let mut inbox = self.inbox.take()?;
        let Some(count) = self.receive(cx, tunnels, &mut inbox, source) else {
            self.inbox = Some(inbox);
            return None;
        };
        let came = ReadTally { more: count == DATAGRAMS_AT_ONCE, ..ReadTally::default() };
        let dropped_before = cx.counters.datagrams_dropped;
        Some(SourceRead { source, inbox, came, dropped_before })
    }

    /// How many messages were received. `None`: the socket is gone.
    fn receive<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        inbox: &mut Inbox,
        source: Source,
    ) -> Option<usize> {
        let socket = match source {
            Source::Port(name) => {
                self.port(name).filter(|port| !port.is_left).map(|port| Fd::clone(&port.fd))
            }
            Source::Flow(key) => self.flows.get_mut(key).and_then(|flow| flow.socket()),
        };
        let Some(socket) = socket else {
            cx.counters.stale += 1;
            return None;
        };
        match inbox.receive(&socket) {
            Ok(count) => Some(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(0),
            Err(error) => {
                if let Source::Flow(key) = source
                    && error.kind() == io::ErrorKind::ConnectionRefused
                {
                    self.no_server(cx, tunnels, key);
                    return None;
                }
                debug!(%error, "receiving datagrams");
                Some(0)
            }
        }
    }

    /// All messages of a read are handled: the socket is polled again, or left alone for a moment.
    pub(in crate::worker) fn end_read<D: Driver>(&mut self, cx: &mut Cx<D>, read: SourceRead) {
        let SourceRead { source, inbox, mut came, dropped_before } = read;
        self.inbox = Some(inbox);
        came.dropped = cx.counters.datagrams_dropped > dropped_before;
        let now = cx.now;
        if came.datagrams > 0 {
            // More than one: not an interactive exchange.
            cx.busy_poll.on_payload(came.datagrams > 1, now);
        }
        let coalescing = match source {
            Source::Port(name) => self.port_mut(name).map(|port| &mut port.coalescing),
            Source::Flow(key) => {
                if came.datagrams > 0 {
                    self.flows.use_now(key, now);
                }
                self.flows.get_mut(key).map(|flow| &mut flow.coalescing)
            }
        };
        match coalescing.map(|coalescing| coalescing.read(came, now)) {
            Some(Next::Watch) => self.watch_source(cx, source),
            // Not before the next turn, so that other sockets are served.
            Some(Next::Rest(until)) => self.paused.push_back((until, source)),
            None => {}
        }
    }

    /// Forwards datagrams of a client to its flow.
    pub(in crate::worker) fn client_sent<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        key: Key,
        got: Received<'_>,
    ) {
        self.flows.use_now(key, cx.now);
        let Some(flow) = self.flows.get_mut(key) else { return };
        if flow.stream.is_some() {
            flow.entry.up(got.payload.len());
            return self.pass_to_tunnel(cx, tunnels, key, got);
        }
        match &mut flow.server {
            FlowServer::Reached(socket) => {
                flow.entry.up(got.payload.len());
                let parts = std::iter::once(got.payload);
                let sent = self.outbox.send(socket, None, parts, got.size_bytes, &mut flow.limit);
                self.count_sent(cx, tunnels, key, &sent);
                self.look_up_if_unanswered(cx, key);
            }
            FlowServer::Unknown(_) => {
                let mut run = cx.buffers.take_gather();
                if cx.buffers.has_room_for(got.payload.len()) {
                    cx.buffers.write(&mut run, got.payload);
                }
                self.send_run(cx, tunnels, key, run, got.size_bytes);
            }
            FlowServer::UdpAssociation(_) | FlowServer::Peer => {}
        }
    }

    /// Forwards datagrams of a flow's server.
    pub(in crate::worker) fn server_answered<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        key: Key,
        got: Received<'_>,
    ) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        if let Some(name) = &mut flow.server_name {
            name.silent_since = cx.now;
        }
        cx.counters.datagrams_in += datagrams(got.payload.len(), got.size_bytes);
        flow.entry.down(got.payload.len());
        if matches!(flow.server, FlowServer::UdpAssociation(_)) {
            return self.association_answered(cx, tunnels, key, got);
        }
        if flow.stream.is_some() {
            return self.pass_to_tunnel(cx, tunnels, key, got);
        }
        let Some(origin) = &flow.origin else { return };
        let Some(port) = super::port(&self.entrances, &self.asked, origin.port) else { return };
        let (towards, parts) = (origin.towards(), std::iter::once(got.payload));
        let limit = &mut flow.limit;
        let sent = self.outbox.send(&port.fd, Some(&towards), parts, got.size_bytes, limit);
        self.count_sent(cx, tunnels, key, &sent);
    }

    /// Passes a received run to the session of its flow. Splits it if it exceeds the maximum size
    /// of a run, which happens over IPv6.
    fn pass_to_tunnel<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        key: Key,
        got: Received<'_>,
    ) {
        let size_bytes = got.size_bytes;
        let fit = (DATAGRAM_BYTES_MAX / size_bytes.max(1) * size_bytes) as usize;
        if got.payload.len() <= fit || fit == 0 {
            return self.queue_run(cx, tunnels, key, size_bytes, got.payload, got.keep());
        }
        let (first, rest) = got.payload.split_at(fit);
        self.queue_run(cx, tunnels, key, size_bytes, first, None);
        self.queue_run(cx, tunnels, key, size_bytes, rest, None);
    }

    /// `kept`: the payload in a buffer that may be held.
    pub(super) fn queue_run<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        key: Key,
        size_bytes: u32,
        payload: &[u8],
        kept: Option<Chunk>,
    ) {
        let now = cx.now;
        let bytes = payload.len();
        let Some(flow) = self.flows.get_mut(key) else { return };
        let Some((tunnel_key, stream)) = flow.stream else { return };
        let Some(tunnel) = tunnels.get_mut(tunnel_key) else { return };
        if !cx.buffers.has_room_for(bytes) {
            cx.counters.datagrams_dropped += datagrams(bytes, size_bytes);
            return;
        }
        let queued = tunnel.session_mut().datagrams_ready(stream, size_bytes, bytes as u32, now);
        cx.counters.datagrams_dropped += queued.dropped;
        flow.queue.drop_chunks(queued.dropped_bytes as usize);
        if queued.taken {
            match kept {
                Some(chunk) => flow.queue.push_chunk(chunk),
                None => cx.buffers.store(payload, &mut flow.queue),
            }
        }
        if queued.too_big && !std::mem::replace(&mut self.too_big_logged, true) {
            let client = flow.client;
            warn!(
                flow = key.number(),
                tunnel = tunnel_key.number(),
                %client,
                bytes = size_bytes,
                "a datagram is longer than this tunnel carries: dropped; further ones are only counted"
            );
        }
        tunnels.mark(tunnel_key);
    }

    /// A run was received completely from the link.
    pub(super) fn run_came<D: Driver>(&mut self, cx: &mut Cx<D>, tunnels: &mut Tunnels, run: Run) {
        let now = cx.now;
        let Run { flow: key, stream, is_counted, size_bytes, parts, .. } = run;
        self.flows.use_now(key, now);
        if parts.len_bytes() > size_bytes as usize {
            cx.busy_poll.on_payload(true, now);
        }
        if is_counted
            && let Some((tunnel, _)) = self.flows.get_mut(key).and_then(|flow| flow.stream)
            && let Some(tunnel) = tunnels.get_mut(tunnel)
        {
            tunnel.session_mut().consumed(stream, parts.len_bytes() as u64, now);
        }
        self.send_run(cx, tunnels, key, parts, size_bytes);
    }

    /// Sends a run to the client or server, or keeps it while the server is looked up.
    pub(in crate::worker) fn send_run<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        key: Key,
        run: Box<Gather>,
        size_bytes: u32,
    ) {
        let Some(flow) = self.flows.get_mut(key) else { return cx.buffers.give_back(run) };
        let (socket, towards) = match (&mut flow.server, &flow.origin) {
            (FlowServer::Unknown(waiting), _) => {
                for (gone, size_bytes) in waiting.push(run, size_bytes) {
                    cx.counters.datagrams_dropped += datagrams(gone.len_bytes(), size_bytes);
                    cx.buffers.give_back(gone);
                }
                return;
            }
            (FlowServer::Reached(socket), _) => {
                flow.entry.up(run.len_bytes());
                (&*socket, None)
            }
            (FlowServer::UdpAssociation(_), _) => {
                flow.entry.up(run.len_bytes());
                return self.send_by_association(cx, key, run, size_bytes);
            }
            (FlowServer::Peer, Some(origin)) => {
                flow.entry.down(run.len_bytes());
                match super::port(&self.entrances, &self.asked, origin.port) {
                    Some(port) => (&port.fd, Some(origin.towards())),
                    None => return cx.buffers.give_back(run),
                }
            }
            (FlowServer::Peer, None) => return cx.buffers.give_back(run),
        };
        let parts = run.iter().map(|chunk| &chunk[..]);
        let sent = self.outbox.send(socket, towards.as_ref(), parts, size_bytes, &mut flow.limit);
        cx.buffers.give_back(run);
        self.count_sent(cx, tunnels, key, &sent);
        self.look_up_if_unanswered(cx, key);
    }

    fn count_sent<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        key: Key,
        sent: &Sent,
    ) {
        cx.counters.datagrams_out += sent.datagrams;
        cx.counters.datagrams_dropped += sent.dropped;
        match &sent.error {
            Some(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.no_server(cx, tunnels, key)
            }
            Some(error) => {
                debug!(flow = key.number(), %error, dropped = sent.dropped, "datagrams not sent");
            }
            None => {}
        }
    }

    /// The server's host reported the port as unreachable.
    fn no_server<D: Driver>(&mut self, cx: &mut Cx<D>, tunnels: &mut Tunnels, key: Key) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let client = flow.client;
        let server = flow.socket().map(|socket| net::peer_address(&socket));
        let at = server.unwrap_or(crate::session::NO_ADDRESS);
        let reason = format!("nobody listens at {at}/udp (port unreachable)");
        flow.entry.refused_here(&reason);
        self.end_flow(cx, tunnels, key, "nobody listens at the server's port");
        cx.log_refused_of(LogIds::flow(key), client, &reason);
    }
}

/// Number of datagrams in a run.
pub(in crate::worker) fn datagrams(bytes: usize, size_bytes: u32) -> u64 {
    (bytes as u64).div_ceil(u64::from(size_bytes.max(1))).max(1)
}
