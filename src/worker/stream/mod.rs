//! The path of bytes: sessions over links ([`tunnel`]), and the connections at the ends of their
//! streams, to a client that came in at an entrance or to a server or command behind an exit. It is
//! one plane, since a byte passes all of it in one call. The plane owns the tunnels, the connector,
//! the table of connections, and the commands.
//!
//! [`conn`] is the state of one connection. [`read`] and [`write`] move its bytes, [`lifecycle`]
//! handles events of the session, [`broken`] delivers what a broken connection had sent. [`clients`]
//! begins streams of clients; [`unix`] and [`exec`] are exits of the peer's streams,
//! [`handshake`] what they exchange before their destination is known, with one [`server`] after
//! another, and [`held`] what they bring before their client's name is known. [`related`] answers for streams that others belong to.
//! [`stalled`] reclaims pipes and buffers, [`make_room`] does so when the pool is used up, [`sweep`] enforces deadlines. The event loop dispatches
//! completions of links and connections here, and flushes what is marked at the end of a turn.

mod broken;
mod clients;
mod conn;
mod exec;
pub(in crate::worker) mod handshake;
mod held;
mod lifecycle;
mod make_room;
mod read;
mod related;
mod report;
pub(in crate::worker) mod server;
mod stalled;
mod sweep;
pub(in crate::worker) mod tunnel;
mod unix;
mod write;

use self::conn::Conn;
use self::exec::Execs;
use self::tunnel::Tunnels;
use self::tunnel::loopback::Loopback;
use crate::io::driver::Driver;
use crate::io::net;
use crate::policy::ceilings::Ceilings;
use crate::session::{Ended, Moment};
use crate::worker::connector::{Connector, LinkSource};
use crate::worker::context::Cx;
use crate::worker::message::Run;
use crate::worker::payload_queue::PayloadQueue;
use crate::worker::table::{Key, Table};

/// Flows of datagrams, as the path of bytes needs them: they are streams of a tunnel, too.
/// [`crate::worker::datagram`] has them.
pub(in crate::worker) trait Flows {
    /// The queue of a flow towards its tunnel.
    fn queue_of(&mut self, key: Key) -> Option<&mut PayloadQueue>;

    /// A run was received completely from the link.
    fn on_run<D: Driver>(&mut self, cx: &mut Cx<D>, tunnels: &mut Tunnels, run: Run);

    /// The peer has accepted a flow.
    fn on_opened(&mut self, key: Key);

    /// The session has ended a flow's stream.
    fn on_ended<D: Driver>(&mut self, cx: &mut Cx<D>, tunnels: &mut Tunnels, key: Key, how: &Ended);
}

/// State of the path of bytes.
pub(in crate::worker) struct Streams {
    tunnels: Tunnels,
    connector: Option<Connector>,
    conns: Conns,
    execs: Execs,
    loopback: Loopback,
}

impl Streams {
    pub(in crate::worker) fn new(source: Option<LinkSource>, ceilings: &Ceilings) -> Streams {
        Streams {
            tunnels: Tunnels::new(ceilings),
            connector: source.map(Connector::new),
            conns: Conns::new(ceilings.connections),
            execs: Execs::new(),
            loopback: Loopback::default(),
        }
    }

    pub(in crate::worker) fn tunnels(&self) -> &Tunnels {
        &self.tunnels
    }

    pub(in crate::worker) fn tunnels_mut(&mut self) -> &mut Tunnels {
        &mut self.tunnels
    }

    pub(in crate::worker) fn connector(&self) -> Option<&Connector> {
        self.connector.as_ref()
    }

    pub(in crate::worker) fn connector_mut(&mut self) -> Option<&mut Connector> {
        self.connector.as_mut()
    }

    pub(in crate::worker) fn execs(&self) -> &Execs {
        &self.execs
    }

    pub(in crate::worker) fn execs_mut(&mut self) -> &mut Execs {
        &mut self.execs
    }

    /// Number of connections.
    pub(in crate::worker) fn conn_count(&self) -> usize {
        self.conns.len()
    }

    /// Whether any connection or tunnel is marked.
    pub(in crate::worker) fn any_marked(&self) -> bool {
        self.conns.any_marked() || self.tunnels.any_marked()
    }

    /// Whether a connection is queued for a receive buffer.
    pub(in crate::worker) fn is_starved(&self, key: Key) -> bool {
        self.conns.get(key).is_some_and(|conn| conn.starved)
    }

    /// Makes the close of all connections a reset, at the end of the run.
    pub(in crate::worker) fn reset_all(&mut self) {
        for (_, conn) in self.conns.table.iter_mut() {
            conn.entry.drained();
            if let Some(fd) = &conn.fd {
                net::reset_on_close(fd);
            }
        }
    }
}

/// All connections of streams.
struct Conns {
    table: Table<Conn>,
    /// Connections with output to write.
    dirty: Vec<Key>,
    /// Last scan for pipes of stalled streams.
    pipes_scanned_at: Moment,
    /// Last scan for receive buffers held by stalled streams.
    buffers_scanned_at: Moment,
    /// No room is made in the pool before.
    next_room: Moment,
    next_sweep: Moment,
}

impl Conns {
    fn new(max: usize) -> Conns {
        Conns {
            table: Table::new(max),
            dirty: Vec::new(),
            pipes_scanned_at: Moment(0),
            buffers_scanned_at: Moment(0),
            next_room: Moment(0),
            next_sweep: Moment(0),
        }
    }

    #[inline]
    fn get(&self, key: Key) -> Option<&Conn> {
        self.table.get(key)
    }

    #[inline]
    fn get_mut(&mut self, key: Key) -> Option<&mut Conn> {
        self.table.get_mut(key)
    }

    /// Adds a connection. `None`: the table is full.
    fn insert(&mut self, conn: Conn) -> Option<Key> {
        self.table.insert(conn)
    }

    fn remove(&mut self, key: Key) -> Option<Conn> {
        self.table.remove(key)
    }

    fn iter(&self) -> impl Iterator<Item = (Key, &Conn)> {
        self.table.iter()
    }

    fn len(&self) -> usize {
        self.table.len()
    }

    /// Marks a connection with output to write or to shut down; it is flushed at the end of the
    /// turn.
    #[inline]
    fn mark(&mut self, key: Key) {
        let Some(conn) = self.table.get_mut(key) else { return };
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(key);
        }
    }

    /// Whether any connection is marked.
    fn any_marked(&self) -> bool {
        !self.dirty.is_empty()
    }
}
