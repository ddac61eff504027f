//! Flows of datagrams, and the table that finds them: by client, by what completions name them by,
//! and by how long they have been silent.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use hashlink::LinkedHashMap;

use crate::cli::plan::Target;
use crate::io::datagram::{SegmentLimit, Towards};
use crate::io::driver::{Fd, Gather};
use crate::limits::{DATAGRAM_WAITING_BYTES, UDP_FLOWS_MAX};
use crate::policy::connection_limits::LimitGuard;
use crate::session::{Moment, StreamKey};
use crate::worker::datagram::PortName;
use crate::worker::datagram::association::UdpAssociation;
use crate::worker::datagram::coalesce::Coalescing;
use crate::worker::payload_queue::PayloadQueue;
use crate::worker::table::{Key, Table};

/// Where a flow's client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::worker) struct Origin {
    /// Where it came in.
    pub(in crate::worker) port: PortName,
    /// The client, as the kernel says it.
    pub(in crate::worker) client: SocketAddr,
    /// The address of ours that it sends to, where the entrance has several.
    pub(in crate::worker) own: Option<IpAddr>,
}

impl Origin {
    /// How it is sent to.
    pub(in crate::worker) fn towards(&self) -> Towards {
        Towards { to: self.client, own: self.own }
    }
}

/// Where a flow's other side is.
#[derive(Debug)]
pub(in crate::worker) enum Server {
    /// Behind the tunnel.
    Peer,
    /// Its name is being looked up: what came for it waits.
    Unknown(Box<Waiting>),
    /// Here: a socket that is connected to it.
    Reached(Fd),
    /// Here: wherever each datagram says.
    UdpAssociation(Box<UdpAssociation>),
}

/// The name of a server that is here, and whether it still leads there.
#[derive(Debug)]
pub(in crate::worker) struct ServerName {
    pub(in crate::worker) target: Target,
    /// Since when the server has not answered, nor the name been looked up.
    pub(in crate::worker) silent_since: Moment,
}

/// One client's datagrams, and the answers to them.
#[derive(Debug)]
pub(in crate::worker) struct Flow {
    /// The client's address: for the log.
    pub(in crate::worker) client: SocketAddr,
    /// Where the client is, if it came in at this end.
    pub(in crate::worker) origin: Option<Origin>,
    pub(in crate::worker) server: Server,
    /// What its server is looked up by again when that does not answer; none where it is an address.
    pub(in crate::worker) server_name: Option<Box<ServerName>>,
    /// Given back with all the rest.
    pub(in crate::worker) limit_guard: Option<LimitGuard>,
    /// Its stream may have to begin again, by another tunnel: the entrance, and the tunnels whose peers
    /// have not taken it.
    pub(in crate::worker) tentative: Option<Box<(SocketAddr, Vec<Key>)>>,
    /// Its stream, unless this is a plain relay's.
    pub(in crate::worker) stream: Option<(Key, StreamKey)>,
    /// Received and not yet framed.
    pub(in crate::worker) queue: PayloadQueue,
    /// What the kernel does not cut, on the way to the client or to the server here.
    pub(in crate::worker) limit: SegmentLimit,
    pub(in crate::worker) coalescing: Coalescing,
    /// Last datagram either way.
    pub(in crate::worker) last_used: Moment,
}

/// Runs that wait for their server's address, the newest of them.
#[derive(Debug)]
pub(in crate::worker) struct Waiting {
    pub(in crate::worker) target: Target,
    runs: VecDeque<(Box<Gather>, u32)>,
    bytes: usize,
}

impl Waiting {
    pub(in crate::worker) fn new(target: Target) -> Box<Waiting> {
        Box::new(Waiting { target, runs: VecDeque::new(), bytes: 0 })
    }

    /// Keeps a run, in place of older ones. Those that have to go come back.
    pub(in crate::worker) fn push(
        &mut self,
        run: Box<Gather>,
        size_bytes: u32,
    ) -> Vec<(Box<Gather>, u32)> {
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

    pub(in crate::worker) fn take(&mut self) -> VecDeque<(Box<Gather>, u32)> {
        self.bytes = 0;
        std::mem::take(&mut self.runs)
    }
}

/// Runs that wait for an address at most, however small they are.
const WAITING_RUNS: usize = 64;

/// All flows of the process.
#[derive(Debug)]
pub(in crate::worker) struct Flows {
    table: Table<Flow>,
    by_origin: HashMap<Origin, Key>,
    /// The flows of each port on request, which end with it.
    by_asked: HashMap<Key, HashSet<Key>>,
    /// The one silent for longest first.
    order: LinkedHashMap<Key, ()>,
    /// The last that was found: datagrams of one client come in a row.
    last: Option<(Origin, Key)>,
    max: usize,
}

impl Flows {
    pub(in crate::worker) fn new(max: usize) -> Flows {
        Flows {
            table: Table::new(UDP_FLOWS_MAX + 1),
            by_origin: HashMap::new(),
            by_asked: HashMap::new(),
            order: LinkedHashMap::new(),
            last: None,
            max,
        }
    }

    pub(in crate::worker) fn len(&self) -> usize {
        self.table.len()
    }

    /// A new flow would be one too many.
    pub(in crate::worker) fn is_full(&self) -> bool {
        self.table.len() >= self.max
    }

    /// The one silent for longest, with when it was used last.
    pub(in crate::worker) fn oldest(&self) -> Option<(Key, Moment)> {
        let (&key, ()) = self.order.front()?;
        Some((key, self.table.get(key)?.last_used))
    }

    /// The one silent for longest of those that have a socket of their own.
    pub(in crate::worker) fn oldest_with_socket(&self) -> Option<Key> {
        let has_socket = |key| self.table.get(key).is_some_and(Flow::has_socket);
        self.order.keys().copied().find(|&key| has_socket(key))
    }

    pub(in crate::worker) fn find(&mut self, origin: &Origin) -> Option<Key> {
        if let Some((last, key)) = &self.last
            && last == origin
        {
            return Some(*key);
        }
        let key = *self.by_origin.get(origin)?;
        self.last = Some((*origin, key));
        Some(key)
    }

    /// A new flow, the one used last. `None` when the table is full.
    pub(in crate::worker) fn insert(&mut self, flow: Flow) -> Option<Key> {
        let origin = flow.origin;
        let key = self.table.insert(flow)?;
        if let Some(origin) = origin {
            self.by_origin.insert(origin, key);
            if let PortName::Asked(port) = origin.port {
                self.by_asked.entry(port).or_default().insert(key);
            }
        }
        self.order.insert(key, ());
        Some(key)
    }

    #[inline]
    pub(in crate::worker) fn get_mut(&mut self, key: Key) -> Option<&mut Flow> {
        self.table.get_mut(key)
    }

    /// It carries something now.
    #[inline]
    pub(in crate::worker) fn use_now(&mut self, key: Key, now: Moment) {
        let Some(flow) = self.table.get_mut(key) else { return };
        flow.last_used = now;
        if self.order.back().is_none_or(|(&last, ())| last != key) {
            self.order.to_back(&key);
        }
    }

    pub(in crate::worker) fn remove(&mut self, key: Key) -> Option<Flow> {
        let flow = self.table.remove(key)?;
        self.order.remove(&key);
        if let Some(origin) = flow.origin {
            self.by_origin.remove(&origin);
            self.last = None;
            if let PortName::Asked(port) = origin.port
                && let Some(flows) = self.by_asked.get_mut(&port)
            {
                flows.remove(&key);
                if flows.is_empty() {
                    self.by_asked.remove(&port);
                }
            }
        }
        Some(flow)
    }

    /// A flow that came in by this port on request, if there is one.
    pub(in crate::worker) fn any_of(&self, port: Key) -> Option<Key> {
        self.by_asked.get(&port)?.iter().next().copied()
    }

    pub(in crate::worker) fn iter(&self) -> impl Iterator<Item = (Key, &Flow)> {
        self.table.iter()
    }
}

impl Flow {
    pub(in crate::worker) fn new(client: SocketAddr, server: Server, now: Moment) -> Flow {
        Flow {
            client,
            origin: None,
            server,
            server_name: None,
            limit_guard: None,
            tentative: None,
            stream: None,
            queue: PayloadQueue::default(),
            limit: SegmentLimit::default(),
            coalescing: Coalescing::default(),
            last_used: now,
        }
    }

    fn has_socket(&self) -> bool {
        matches!(self.server, Server::Reached(_) | Server::UdpAssociation(_))
    }

    /// The socket to its server, if that is here.
    pub(in crate::worker) fn socket(&self) -> Option<Fd> {
        match &self.server {
            Server::Reached(fd) => Some(Rc::clone(fd)),
            Server::UdpAssociation(association) => Some(Rc::clone(&association.socket)),
            Server::Peer | Server::Unknown(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(flows: &mut Flows, port: u16) -> (Origin, Key) {
        came_at(flows, PortName::Entrance(0), port)
    }

    fn came_at(flows: &mut Flows, at: PortName, port: u16) -> (Origin, Key) {
        let client = SocketAddr::from(([127, 0, 0, 1], port));
        let origin = Origin { port: at, client, own: None };
        let mut flow = Flow::new(client, Server::Peer, Moment(u64::from(port)));
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

    #[test]
    fn those_of_a_port_on_request_are_found_by_it() {
        let mut flows = Flows::new(9);
        let [one, other] = [Key::unpack(1), Key::unpack(2)];
        let here = [1, 2].map(|port| came_at(&mut flows, PortName::Asked(one), port).1);
        let (_, there) = came_at(&mut flows, PortName::Asked(other), 1);
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
