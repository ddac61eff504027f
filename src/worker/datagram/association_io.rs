//! I/O of UDP associations: datagrams arrive by a port that the peer has opened, and each begins
//! with its destination ([`datagram`]). Every destination is judged like that of a connection.
//! [`crate::worker::datagram::association`] is the state.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tracing::{debug, warn};

use super::Datagrams;
use crate::cli::plan::{Proxy, Target};
use crate::io::datagram::{Received, Towards, unconnected};
use crate::io::driver::{Driver, Gather};
use crate::io::net;
use crate::limits::DATAGRAM_BYTES_MAX;
use crate::policy::connection_limits::LimitGuard;
use crate::policy::destinations::Asker;
use crate::proxy_proto::socks::datagram::{self, DatagramTarget};
use crate::session::{NO_ADDRESS, StreamKey};
use crate::worker::context::log_limit::Class;
use crate::worker::context::{Cx, Lookup};
use crate::worker::datagram::association::{Known, UdpAssociation};
use crate::worker::datagram::coalesce::Source;
use crate::worker::datagram::datagrams::datagrams;
use crate::worker::datagram::flow::{Flow, FlowServer};
use crate::worker::stream::tunnel::Tunnels;
use crate::worker::table::Key;
use crate::worker::token::StreamOwner;

impl Datagrams {
    /// Opens the flow of a session's client that sends datagrams by its port.
    pub(in crate::worker) fn open_association<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        (tunnel, stream): (Key, StreamKey),
        client: SocketAddr,
        (session, asker): (Key, Asker),
        limit_guard: Option<LimitGuard>,
    ) {
        let socket = match self.open_socket(cx, tunnels, NO_ADDRESS, unconnected) {
            Ok(socket) => Rc::new(socket),
            Err(error) => {
                return cx.refuse_stream((tunnel, stream), client, error.to_string(), false);
            }
        };
        let association = Box::new(UdpAssociation::new(socket, session, asker));
        let server = FlowServer::UdpAssociation(association);
        let mut flow = Flow::of_peer(client, server, (tunnel, stream), cx.now);
        flow.limit_guard = limit_guard;
        let Some(key) = self.insert_flow(cx, tunnels, flow) else {
            let reason = String::from("too many flows are open");
            return cx.refuse_stream((tunnel, stream), client, reason, false);
        };
        if let Some(tunnel) = tunnels.get_mut(tunnel) {
            tunnel.session_mut().attach_datagrams(stream, StreamOwner::Flow(key).user());
            tunnel.session_mut().accept(stream, NO_ADDRESS, NO_ADDRESS);
        }
        tunnels.mark(tunnel);
        let peer = tunnels.peer_of(tunnel).name;
        let (flow, tunnel) = (key.number(), tunnel.number());
        debug!(flow, tunnel, %client, "datagrams by a port on request");
        if let Some(flow) = self.flows.get_mut(key) {
            flow.entry = cx.entry_of_exit("flow", key, client, None);
            flow.entry.in_tunnel(tunnel, peer);
        }
        self.watch_source(cx, Source::Flow(key));
    }

    /// Sends a run whose datagrams name their destinations.
    pub(super) fn send_by_association<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        run: Box<Gather>,
        size_bytes: u32,
    ) {
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        run.iter().for_each(|chunk| bytes.extend_from_slice(chunk));
        cx.buffers.give_back(run);
        if bytes.is_empty() {
            cx.counters.datagrams_dropped += 1;
        }
        for datagram in bytes.chunks(size_bytes.max(1) as usize) {
            self.send_one(cx, key, datagram);
        }
        self.scratch = bytes;
    }

    fn association(&mut self, key: Key) -> Option<&mut UdpAssociation> {
        match &mut self.flows.get_mut(key)?.server {
            FlowServer::UdpAssociation(association) => Some(association),
            _ => None,
        }
    }

    /// Sends one datagram to its destination, or keeps it during a look-up.
    fn send_one<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, bytes: &[u8]) {
        let now = cx.now;
        let (to, header_bytes) = match datagram::read(bytes) {
            Ok(read) => read,
            Err(why) => {
                debug!(flow = key.number(), %why, "a datagram without a destination");
                cx.counters.datagrams_dropped += 1;
                return;
            }
        };
        let payload = &bytes[header_bytes..];
        let Some(association) = self.association(key) else { return };
        let known = match to {
            DatagramTarget::Address(address) => {
                return self.send_if_permitted(cx, key, address, payload);
            }
            DatagramTarget::Name(host, port) => association.look_up(host, port, now),
        };
        match known {
            Some(Known::Address(address)) => self.send_payload(cx, key, address, payload),
            Some(Known::NotYet(place)) => {
                cx.counters.datagrams_dropped += association.keep(place, payload);
            }
            Some(Known::Unknown(place)) => {
                cx.counters.datagrams_dropped += association.keep(place, payload);
                self.ask_destination(cx, key, place);
            }
            Some(Known::Refused) | None => cx.counters.datagrams_dropped += 1,
        }
    }

    /// Sends to an address given in the datagram, if permitted.
    fn send_if_permitted<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        address: SocketAddr,
        payload: &[u8],
    ) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let FlowServer::UdpAssociation(association) = &mut flow.server else { return };
        let may = match association.may_reach(address) {
            Some(may) => may,
            None => {
                let (name, asker) = (address.ip().to_string(), &association.asker);
                let may = cx.destinations.may(Proxy::Socks5, address, &name, asker, net::is_ours);
                if let Err(why) = &may {
                    association.refuse(address);
                    let client = flow.client;
                    self.note_refused(cx, key, client, why);
                }
                may.is_ok()
            }
        };
        if !may {
            cx.counters.datagrams_dropped += 1;
            return;
        }
        if let Some(association) = self.association(key) {
            association.send_to(address, true);
        }
        self.send_payload(cx, key, address, payload);
    }

    fn note_refused<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, client: SocketAddr, why: &str) {
        if cx.may_log(Class::Refusal) {
            let flow = key.number();
            warn!(flow, %client, reason = why, "datagrams not passed on by the proxy");
        }
    }

    fn send_payload<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        address: SocketAddr,
        payload: &[u8],
    ) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let FlowServer::UdpAssociation(association) = &mut flow.server else { return };
        association.send_to(address, false);
        let to = net::as_seen_by(&association.socket, address);
        let (towards, size_bytes) = (Towards { to, own: None }, payload.len() as u32);
        let parts = std::iter::once(payload);
        let limit = &mut flow.limit;
        let sent = self.outbox.send(&association.socket, Some(&towards), parts, size_bytes, limit);
        cx.counters.datagrams_out += sent.datagrams;
        cx.counters.datagrams_dropped += sent.dropped;
        if let Some(error) = sent.error {
            debug!(flow = key.number(), %error, server = %address, "datagram not sent");
        }
    }

    /// Looks up the name at an index.
    fn ask_destination<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, place: usize) {
        let Some(association) = self.association(key) else { return };
        let Some((host, port)) = association.name(place) else { return };
        let target = Target { host: host.to_owned(), port };
        let lookup = Lookup::Destination(key, place);
        if let Err(error) = cx.resolver.ask(lookup, &target) {
            self.destination_resolved(cx, (key, place), Err(error));
        }
    }

    /// The look-up of a destination has ended: uses the first permitted address.
    pub(in crate::worker) fn destination_resolved<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        (key, place): (Key, usize),
        found: io::Result<Vec<SocketAddr>>,
    ) {
        let Some(flow) = self.flows.get_mut(key) else {
            cx.counters.stale += 1;
            return;
        };
        let client = flow.client;
        let FlowServer::UdpAssociation(association) = &mut flow.server else { return };
        let Some((host, _)) = association.name(place) else { return };
        let mut why = None;
        let address = match found {
            Ok(addresses) => addresses.into_iter().map(net::plain).find(|&address| {
                let asker = &association.asker;
                let may = cx.destinations.may(Proxy::Socks5, address, host, asker, net::is_ours);
                may.map_err(|denied| why = Some(denied)).is_ok()
            }),
            Err(error) => {
                why = Some(format!("{host}: name not found: {error}"));
                None
            }
        };
        association.found(place, address, cx.now);
        let waiting = association.take(place);
        match address {
            Some(address) => {
                for payload in waiting {
                    self.send_payload(cx, key, address, &payload);
                }
            }
            None => {
                cx.counters.datagrams_dropped += waiting.len() as u64;
                self.note_refused(cx, key, client, why.as_deref().unwrap_or("no address"));
            }
        }
    }

    /// Answers were received: forwards each with the address of its sender.
    pub(super) fn association_answered<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        key: Key,
        got: Received<'_>,
    ) {
        let Some(association) = self.association(key) else { return };
        let from = got.from.map(net::plain).filter(|&from| association.has_sent_to(from));
        let Some(from) = from else {
            let from = got.from.map(tracing::field::display);
            debug!(flow = key.number(), from, "dropped datagram from unexpected source");
            cx.counters.datagrams_dropped += datagrams(got.payload.len(), got.size_bytes);
            return;
        };
        let mut header = Vec::new();
        datagram::write(from, &mut header);
        let size_bytes = header.len() as u32 + got.size_bytes;
        if size_bytes > DATAGRAM_BYTES_MAX {
            let (flow, bytes) = (key.number(), got.size_bytes);
            debug!(flow, %from, bytes, "a datagram too long for one with a header");
            cx.counters.datagrams_dropped += 1;
            return;
        }
        let mut run = std::mem::take(&mut self.scratch);
        // An empty datagram has a header, too.
        let mut rest = Some(got.payload);
        while let Some(left) = rest.take() {
            run.clear();
            let mut next = left;
            loop {
                let (one, behind) = next.split_at(next.len().min(got.size_bytes as usize));
                run.extend_from_slice(&header);
                run.extend_from_slice(one);
                next = behind;
                if next.is_empty() {
                    break;
                }
                if run.len() + size_bytes as usize > DATAGRAM_BYTES_MAX as usize {
                    rest = Some(next);
                    break;
                }
            }
            self.queue_run(cx, tunnels, key, size_bytes, &run, None);
        }
        self.scratch = run;
    }

    /// A proxy session has ended: ends the flows of its ports.
    pub(in crate::worker) fn end_associations<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        session: Key,
    ) {
        let of_it = |flow: &Flow| match &flow.server {
            FlowServer::UdpAssociation(association) => association.session == session,
            _ => false,
        };
        let flows = self.flows.iter().filter(|(_, flow)| of_it(flow)).map(|(key, _)| key);
        for key in flows.collect::<Vec<_>>() {
            self.end_flow(cx, tunnels, key, "the connection that asked for its port has ended");
        }
    }
}
