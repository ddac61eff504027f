//! Flows and their table, indexed by client address, by key, by who began them and by last use.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;

use hashlink::LinkedHashMap;

use crate::cli::plan::Target;
use crate::io::datagram::SegmentLimit;
use crate::io::driver::{Fd, Gather};
use crate::io::net;
use crate::limits::{DATAGRAM_WAITING_BYTES, UDP_FLOWS_MAX};
use crate::policy::connection_limits::LimitGuard;
use crate::session::{Moment, StreamKey};
use crate::worker::access_entry::AccessEntry;
use crate::worker::datagram::association::UdpAssociation;
use crate::worker::datagram::coalesce::Coalescing;
use crate::worker::message::{FlowOrigin, PortName};
use crate::worker::payload_queue::PayloadQueue;
use crate::worker::table::{Key, Table};

/// The server side of a flow.
#[derive(Debug)]
pub(in crate::worker) enum FlowServer {
    /// Through the tunnel.
    Peer,
    /// The look-up is in progress; runs wait.
    Unknown(Box<Waiting>),
    /// Local: a socket connected to the server.
    Reached(Fd),
    /// Local: each datagram names its destination.
    UdpAssociation(Box<UdpAssociation>),
}

/// Name of a local server, to detect that its address changed.
#[derive(Debug)]
pub(super) struct ServerName {
    pub(super) target: Target,
    /// Since when there was neither an answer nor a look-up.
    pub(super) silent_since: Moment,
}

/// The datagrams of one client and their answers.
#[derive(Debug)]
pub(in crate::worker) struct Flow {
    /// The client's address, for the log.
    pub(super) client: SocketAddr,
    /// The client side, if the client is local.
    pub(super) origin: Option<FlowOrigin>,
    pub(super) server: FlowServer,
    /// Set if the server was given by name: looked up again when it does not answer.
    pub(super) server_name: Option<Box<ServerName>>,
    /// Returns the limits when dropped.
    pub(super) limit_guard: Option<LimitGuard>,
    /// Its line in the access log.
    pub(super) entry: AccessEntry,
    /// Set while the stream may have to begin again on another tunnel: the entrance, and the
    /// tunnels whose peers have refused it.
    pub(super) tentative: Option<Box<(SocketAddr, Vec<Key>)>>,
    /// The tunnel whose peer has begun it; `None`: a client of this end.
    pub(super) opener: Option<Key>,
    /// `None` in a plain relay.
    pub(super) stream: Option<(Key, StreamKey)>,
    /// Received and not yet framed.
    pub(super) queue: PayloadQueue,
    /// Segmentation limits of the kernel on the way to the local client or server.
    pub(super) limit: SegmentLimit,
    pub(super) coalescing: Coalescing,
    /// Time of the last datagram in either direction.
    pub(super) last_used: Moment,
}

/// The newest runs that wait for their server's address.
#[derive(Debug)]
pub(in crate::worker) struct Waiting {
    pub(super) target: Target,
    runs: VecDeque<(Box<Gather>, u32)>,
    bytes: usize,
}

impl Waiting {
    pub(in crate::worker) fn new(target: Target) -> Box<Waiting> {
        Box::new(Waiting { target, runs: VecDeque::new(), bytes: 0 })
    }

    /// Queues a run; returns older ones that exceed the limits.
    pub(super) fn push(&mut self, run: Box<Gather>, size_bytes: u32) -> Vec<(Box<Gather>, u32)> {
        self.bytes += run.len_bytes();
        self.runs.push_back((run, size_bytes));
        let mut gone = Vec::new();
        while self.bytes > DATAGRAM_WAITING_BYTES || self.runs.len() > WAITING_RUNS {
            let Some((run, size_bytes)) = self.runs.pop_front() else { break };
            self.bytes -= run.len_bytes();
            gone.push((run, size_bytes));
        }
        gone
    }

    pub(super) fn take(&mut self) -> VecDeque<(Box<Gather>, u32)> {
        self.bytes = 0;
        std::mem::take(&mut self.runs)
    }
}

/// Maximum number of waiting runs, whatever their size.
const WAITING_RUNS: usize = 64;

/// All flows.
#[derive(Debug)]
pub(super) struct Flows {
    table: Table<Flow>,
    by_origin: HashMap<FlowOrigin, Key>,
    /// The flows of each port that a peer has asked for, which end with it.
    by_asked: HashMap<PortName, HashSet<Key>>,
    /// Least recently used first.
    order: LinkedHashMap<Key, ()>,
    /// The same of each opener.
    of_openers: HashMap<Option<Key>, LinkedHashMap<Key, ()>>,
    /// The last one found: datagrams of one client come in batches.
    last: Option<(FlowOrigin, Key)>,
    max: usize,
}

impl Flows {
    pub(super) fn new(max: usize) -> Flows {
        Flows {
            table: Table::new(UDP_FLOWS_MAX + 1),
            by_origin: HashMap::new(),
            by_asked: HashMap::new(),
            order: LinkedHashMap::new(),
            of_openers: HashMap::new(),
            last: None,
            max,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether a new flow needs an eviction.
    pub(super) fn is_full(&self) -> bool {
        self.table.len() >= self.max
    }

    /// The least recently used flow, and when it was used.
    pub(super) fn oldest(&self) -> Option<(Key, Moment)> {
        let (&key, ()) = self.order.front()?;
        Some((key, self.table.get(key)?.last_used))
    }

    /// The least recently used flow of an opener.
    pub(super) fn oldest_of(&self, opener: Option<Key>) -> Option<Key> {
        self.of_openers.get(&opener)?.front().map(|(&key, ())| key)
    }

    /// The flow that makes room for another one of this opener's: its own least recently used, unless it
    /// has less than an equal share. Then of the one who has most.
    pub(super) fn to_evict_for(&self, opener: Option<Key>) -> Option<Key> {
        let own = self.of_openers.get(&opener);
        let openers = self.of_openers.len() + usize::from(own.is_none());
        let has_share = |flows: &&LinkedHashMap<Key, ()>| flows.len() >= self.len() / openers;
        let flows = own.filter(has_share).or_else(|| self.most())?;
        flows.front().map(|(&key, ())| key)
    }

    /// The least recently used flow with a socket of its own, of the opener that has most flows if any of
    /// these has one.
    pub(super) fn oldest_with_socket(&self) -> Option<Key> {
        let has_socket = |key: &&Key| self.table.get(**key).is_some_and(Flow::has_socket);
        let mut of_most = self.most()?.keys();
        of_most.find(has_socket).or_else(|| self.order.keys().find(has_socket)).copied()
    }

    /// The flows of the opener that has most.
    fn most(&self) -> Option<&LinkedHashMap<Key, ()>> {
        self.of_openers.values().max_by_key(|flows| flows.len())
    }

    pub(super) fn find(&mut self, origin: &FlowOrigin) -> Option<Key> {
        if let Some((last, key)) = &self.last
            && last == origin
        {
            return Some(*key);
        }
        let key = *self.by_origin.get(origin)?;
        self.last = Some((*origin, key));
        Some(key)
    }

    /// Adds a flow as the most recently used. `None`: the table is full.
    pub(super) fn insert(&mut self, flow: Flow) -> Option<Key> {
        let (origin, opener) = (flow.origin, flow.opener);
        let key = self.table.insert(flow)?;
        if let Some(origin) = origin {
            self.by_origin.insert(origin, key);
            if is_asked(origin.port) {
                self.by_asked.entry(origin.port).or_default().insert(key);
            }
        }
        self.order.insert(key, ());
        self.of_openers.entry(opener).or_default().insert(key, ());
        Some(key)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Flow> {
        self.table.get_mut(key)
    }

    /// Marks a flow as used now.
    #[inline]
    pub(super) fn use_now(&mut self, key: Key, now: Moment) {
        let Some(flow) = self.table.get_mut(key) else { return };
        flow.last_used = now;
        if self.order.back().is_none_or(|(&last, ())| last != key) {
            self.order.to_back(&key);
            if let Some(flows) = self.of_openers.get_mut(&flow.opener) {
                flows.to_back(&key);
            }
        }
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Flow> {
        let flow = self.table.remove(key)?;
        self.order.remove(&key);
        if let Some(flows) = self.of_openers.get_mut(&flow.opener) {
            flows.remove(&key);
            if flows.is_empty() {
                self.of_openers.remove(&flow.opener);
            }
        }
        if let Some(origin) = flow.origin {
            self.by_origin.remove(&origin);
            self.last = None;
            if let Some(flows) = self.by_asked.get_mut(&origin.port) {
                flows.remove(&key);
                if flows.is_empty() {
                    self.by_asked.remove(&origin.port);
                }
            }
        }
        Some(flow)
    }

    /// Any flow of this port that a peer has asked for.
    pub(super) fn any_of(&self, port: PortName) -> Option<Key> {
        self.by_asked.get(&port)?.iter().next().copied()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut Flow)> {
        self.table.iter_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &Flow)> {
        self.table.iter()
    }
}

/// Whether a port is open since a peer has asked for it.
fn is_asked(port: PortName) -> bool {
    matches!(port, PortName::Asked(_) | PortName::Given(_))
}

impl Flow {
    fn new(client: SocketAddr, server: FlowServer, now: Moment) -> Flow {
        Flow {
            client,
            origin: None,
            server,
            server_name: None,
            limit_guard: None,
            entry: AccessEntry::default(),
            tentative: None,
            opener: None,
            stream: None,
            queue: PayloadQueue::default(),
            limit: SegmentLimit::default(),
            coalescing: Coalescing::default(),
            last_used: now,
        }
    }

    /// A flow of a client of this end.
    pub(in crate::worker) fn of_client(
        origin: FlowOrigin,
        server: FlowServer,
        limit_guard: Option<LimitGuard>,
        now: Moment,
    ) -> Flow {
        let flow = Flow::new(net::plain(origin.client), server, now);
        Flow { origin: Some(origin), limit_guard, ..flow }
    }

    /// A flow of the peer's: a stream of this tunnel.
    pub(in crate::worker) fn of_peer(
        client: SocketAddr,
        server: FlowServer,
        stream: (Key, StreamKey),
        now: Moment,
    ) -> Flow {
        Flow { opener: Some(stream.0), stream: Some(stream), ..Flow::new(client, server, now) }
    }

    fn has_socket(&self) -> bool {
        matches!(self.server, FlowServer::Reached(_) | FlowServer::UdpAssociation(_))
    }

    /// The socket to a local server.
    pub(super) fn socket(&self) -> Option<Fd> {
        match &self.server {
            FlowServer::Reached(fd) => Some(Rc::clone(fd)),
            FlowServer::UdpAssociation(association) => Some(Rc::clone(&association.socket)),
            FlowServer::Peer | FlowServer::Unknown(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(flows: &mut Flows, port: u16) -> (FlowOrigin, Key) {
        came_at(flows, PortName::Entrance(0), port)
    }

    fn came_at(flows: &mut Flows, at: PortName, port: u16) -> (FlowOrigin, Key) {
        let client = SocketAddr::from(([127, 0, 0, 1], port));
        let origin = FlowOrigin { port: at, client, own: None };
        let mut flow = Flow::new(client, FlowServer::Peer, Moment(u64::from(port)));
        flow.origin = Some(origin);
        (origin, flows.insert(flow).unwrap())
    }

    #[test]
    fn the_one_silent_for_longest_is_the_oldest() {
        let mut flows = Flows::new(2);
        let (first_origin, first) = flow(&mut flows, 1);
        assert!(!flows.is_full());
        let (second_origin, second) = flow(&mut flows, 2);
        assert!(flows.is_full());
        assert_eq!(flows.oldest(), Some((first, Moment(1))));
        flows.use_now(first, Moment(3));
        assert_eq!(flows.oldest(), Some((second, Moment(2))));
        assert_eq!(flows.find(&second_origin), Some(second));
        assert!(flows.remove(second).is_some());
        assert_eq!(flows.find(&second_origin), None);
        assert_eq!(flows.find(&first_origin), Some(first));
        assert_eq!((flows.oldest(), flows.len()), (Some((first, Moment(3))), 1));
        assert!(flows.remove(second).is_none());
    }

    /// The table is full: who has more than a share pays for what is new, and who has less does not.
    #[test]
    fn who_has_more_than_a_share_makes_room() {
        let mut flows = Flows::new(6);
        let [quiet, busy, new] = [1, 2, 3].map(|index| Some(Key::unpack(index)));
        let begin = |flows: &mut Flows, opener| {
            let flow = Flow::new(crate::session::NO_ADDRESS, FlowServer::Peer, Moment(0));
            flows.insert(Flow { opener, ..flow }).expect("room")
        };
        let of_quiet = [quiet, quiet].map(|opener| begin(&mut flows, opener));
        let of_busy = [busy; 4].map(|opener| begin(&mut flows, opener));
        assert!(flows.is_full());
        assert_eq!(flows.oldest().map(|(key, _)| key), Some(of_quiet[0]));
        for opener in [busy, quiet, new, None] {
            assert_eq!(flows.to_evict_for(opener), Some(of_busy[0]), "{opener:?}");
        }
        flows.use_now(of_busy[0], Moment(1));
        assert_eq!(flows.to_evict_for(busy), Some(of_busy[1]));
        // With an equal share each has its own.
        flows.remove(of_busy[0]);
        begin(&mut flows, quiet);
        assert_eq!(flows.to_evict_for(quiet), Some(of_quiet[0]));
        assert_eq!(flows.to_evict_for(busy), Some(of_busy[1]));
        of_busy.iter().for_each(|&key| drop(flows.remove(key)));
        assert_eq!((flows.of_openers.len(), flows.to_evict_for(new)), (1, Some(of_quiet[0])));
    }

    #[test]
    fn those_of_a_port_on_request_are_found_by_it() {
        let mut flows = Flows::new(9);
        let [one, other] = [PortName::Asked, PortName::Given].map(|of| of(Key::unpack(1)));
        let here = [1, 2].map(|port| came_at(&mut flows, one, port).1);
        let (_, there) = came_at(&mut flows, other, 1);
        flow(&mut flows, 1);
        let mut ended = Vec::new();
        while let Some(key) = flows.any_of(one) {
            flows.remove(key);
            ended.push(key);
        }
        ended.sort_by_key(|key| key.pack());
        assert_eq!((ended, flows.any_of(other)), (here.to_vec(), Some(there)));
        assert_eq!((flows.len(), flows.by_asked.len()), (2, 1));
    }
}
