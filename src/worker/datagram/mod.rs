//! Datagrams: UDP flows between clients, tunnels and servers. The plane owns UDP entrances,
//! forwarded UDP ports and the table of flows. The event loop dispatches readable sockets here;
//! received runs come from the path of bytes ([`crate::worker::stream::Flows`]).
//!
//! [`datagrams`] reads and writes sockets, [`coalesce`] decides when they are read, [`flow`] is the
//! table, [`lifecycle`] and [`servers`] begin and end flows. [`association`] and [`association_io`]
//! are the UDP associations of SOCKS, where each datagram names its destination.

mod association;
mod association_io;
pub(in crate::worker) mod coalesce;
pub(in crate::worker) mod datagrams;
pub(in crate::worker) mod flow;
mod lifecycle;
mod servers;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;

use self::coalesce::Source;
use self::datagrams::DatagramPort;
use self::flow::{FlowServer, Flows};
use crate::control::status::EntranceRow;
use crate::io::datagram::{self, Inbox, Outbox};
use crate::io::driver::{Driver, Gather};
use crate::io::takeover::Handed;
use crate::session::{Ended, Moment, StreamKey};
use crate::worker::context::Cx;
use crate::worker::message::{FlowOrigin, PortName, Run};
use crate::worker::payload_queue::PayloadQueue;
use crate::worker::purpose::Purpose;
use crate::worker::stream;
use crate::worker::stream::tunnel::Tunnels;
use crate::worker::table::Key;
use crate::worker::takeover::Offered;

/// State of the datagram plane.
pub(in crate::worker) struct Datagrams {
    entrances: Vec<DatagramPort>,
    /// Forwarded ports, and entrances that peers have asked for.
    asked: HashMap<PortName, DatagramPort>,
    flows: Flows,
    /// Taken out while a socket is being read.
    inbox: Option<Box<Inbox>>,
    outbox: Outbox,
    /// Sockets that are not polled but read at this time, so that datagrams coalesce.
    paused: VecDeque<(Moment, Source)>,
    /// See [`datagram::kept_open`].
    _kept_open: Option<OwnedFd>,
    /// An oversized datagram was logged.
    too_big_logged: bool,
    /// Scratch space to make a run contiguous.
    scratch: Vec<u8>,
}

impl Datagrams {
    pub(in crate::worker) fn new(
        entrances: Vec<DatagramPort>,
        flows_max: usize,
    ) -> io::Result<Datagrams> {
        Ok(Datagrams {
            entrances,
            asked: HashMap::new(),
            flows: Flows::new(flows_max),
            inbox: Some(Box::new(Inbox::new()?)),
            outbox: Outbox::default(),
            paused: VecDeque::new(),
            _kept_open: datagram::kept_open(),
            too_big_logged: false,
            scratch: Vec::new(),
        })
    }

    /// Number of flows.
    pub(in crate::worker) fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether clients' datagrams arrive in this process.
    pub(in crate::worker) fn has_entrances(&self) -> bool {
        !self.entrances.is_empty()
    }

    /// A port where datagrams arrive.
    #[inline]
    pub(in crate::worker) fn port(&self, name: PortName) -> Option<&DatagramPort> {
        port(&self.entrances, &self.asked, name)
    }

    #[inline]
    fn port_mut(&mut self, name: PortName) -> Option<&mut DatagramPort> {
        match name {
            PortName::Entrance(number) => self.entrances.get_mut(number as usize),
            PortName::Asked(_) | PortName::Given(_) => self.asked.get_mut(&name),
        }
    }

    /// Adds a port that a peer has asked for, and starts reading it.
    pub(in crate::worker) fn open_asked<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        name: PortName,
        port: DatagramPort,
    ) {
        self.asked.insert(name, port);
        self.watch_source(cx, Source::Port(name));
    }

    /// Closes such a port and ends its flows.
    pub(in crate::worker) fn close_asked<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        name: PortName,
    ) {
        let Some(port) = self.asked.remove(&name) else { return };
        cx.driver.cancel_all(&port.fd);
        while let Some(flow) = self.flows.any_of(name) {
            self.end_flow(cx, tunnels, flow, "the port that it came in by is closed");
        }
    }

    /// What operators are told of the entrances. Datagrams that come while no tunnel is up are dropped.
    pub(in crate::worker) fn rows(&self, has_tunnel: bool, drains: bool) -> Vec<EntranceRow> {
        let given = self.asked.iter().filter(|(name, _)| matches!(name, PortName::Given(_)));
        let ports = self.entrances.iter().chain(given.map(|(_, port)| port));
        let row = |port: &DatagramPort| {
            let (is_relay, address) = (port.purpose() == Purpose::Relay, port.address());
            let why = match (drains, has_tunnel || is_relay) {
                (true, _) => Some("the process drains"),
                (false, false) => Some("no tunnel is up"),
                (false, true) => None,
            };
            EntranceRow {
                address: format!("{address}/udp"),
                kind: if is_relay { "relay" } else { "entrance" }.to_owned(),
                open: why.is_none(),
                why: why.map(str::to_owned),
            }
        };
        ports.map(row).collect()
    }

    /// The entrances, for a successor. Forwarded ports end with the stream that they are for.
    pub(in crate::worker) fn offers(
        &self,
    ) -> impl Iterator<Item = (Offered, io::Result<Handed>)> + use<'_> {
        let own = (0..).zip(&self.entrances);
        let own = own.map(|(number, port)| (PortName::Entrance(number), port));
        let given = self.asked.iter().map(|(&name, port)| (name, port));
        let given = given.filter(|(name, _)| matches!(name, PortName::Given(_)));
        own.chain(given).map(|(name, port)| (Offered::Datagrams(name), port.offer()))
    }

    /// A successor reads there from now on. What servers answer to the flows of this process goes out
    /// by it as before.
    pub(in crate::worker) fn leave_port<D: Driver>(&mut self, cx: &mut Cx<D>, name: PortName) {
        if let Some(port) = self.port_mut(name) {
            port.leave();
            cx.driver.leave(&port.fd);
        }
    }

    /// When the next paused socket is read.
    pub(in crate::worker) fn next_read(&self) -> Option<Moment> {
        self.paused.front().map(|&(until, _)| until)
    }

    /// The flow of a client.
    pub(in crate::worker) fn find(&mut self, origin: &FlowOrigin) -> Option<Key> {
        self.flows.find(origin)
    }

    /// The stream of a flow.
    pub(in crate::worker) fn stream_of(&mut self, key: Key) -> Option<(Key, StreamKey)> {
        self.flows.get_mut(key)?.stream
    }

    /// Takes the runs that wait for a flow's server, to be sent elsewhere.
    pub(in crate::worker) fn take_waiting(&mut self, key: Key) -> Option<Waited> {
        match &mut self.flows.get_mut(key)?.server {
            FlowServer::Unknown(waiting) => Some(waiting.take()),
            _ => None,
        }
    }

    /// Flows of control connections, each with its last use. `owner_of`: the owner of a forwarded
    /// port.
    pub(in crate::worker) fn used_by_controls(
        &self,
        owner_of: impl Fn(Key) -> Option<Key>,
    ) -> impl Iterator<Item = (Key, Moment)> {
        self.flows.iter().filter_map(move |(_, flow)| {
            let control = match (&flow.server, flow.origin.as_ref().map(|origin| origin.port)) {
                (FlowServer::UdpAssociation(association), _) => association.session,
                (_, Some(PortName::Asked(port))) => owner_of(port)?,
                _ => return None,
            };
            Some((control, flow.last_used))
        })
    }
}

/// Runs that waited, each with the size of its datagrams.
type Waited = VecDeque<(Box<Gather>, u32)>;

fn port<'a>(
    entrances: &'a [DatagramPort],
    asked: &'a HashMap<PortName, DatagramPort>,
    name: PortName,
) -> Option<&'a DatagramPort> {
    match name {
        PortName::Entrance(number) => entrances.get(number as usize),
        PortName::Asked(_) | PortName::Given(_) => asked.get(&name),
    }
}

impl stream::Flows for Datagrams {
    fn queue_of(&mut self, key: Key) -> Option<&mut PayloadQueue> {
        Some(&mut self.flows.get_mut(key)?.queue)
    }

    fn on_run<D: Driver>(&mut self, cx: &mut Cx<D>, tunnels: &mut Tunnels, run: Run) {
        self.run_came(cx, tunnels, run);
    }

    fn on_opened(&mut self, key: Key) {
        self.flow_opened(key);
    }

    fn on_ended<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        key: Key,
        how: &Ended,
    ) {
        self.flow_ended(cx, tunnels, key, how);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_kept_while_those_of_flows_come_and_go() {
        let datagrams = Datagrams::new(Vec::new(), 1).expect("memory");
        assert!(datagrams._kept_open.is_some_and(|socket| datagram::joins(&socket)));
    }
}
