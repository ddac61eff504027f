//! Streams: the local connections of tunnel streams, to a client that came in at an entrance or to
//! a server or command behind an exit. The plane owns the table of connections.
//!
//! [`conn`] is the state of one connection. [`read`] and [`write`] move its bytes, [`lifecycle`]
//! handles events of the session, [`broken`] delivers what a broken connection had sent. [`exits`],
//! [`unix`] and [`exec`] are the exits of the peer's streams. [`stalled`] reclaims pipes and
//! buffers, [`sweep`] enforces deadlines. The event loop dispatches connection completions here and
//! flushes marked connections at the end of a turn.

pub(in crate::worker) mod broken;
pub(in crate::worker) mod client;
pub(in crate::worker) mod conn;
pub(in crate::worker) mod exec;
pub(in crate::worker) mod exits;
pub(in crate::worker) mod lifecycle;
pub(in crate::worker) mod read;
pub(in crate::worker) mod stalled;
mod sweep;
pub(in crate::worker) mod unix;
pub(in crate::worker) mod write;

use self::conn::Conn;
use self::exits::Exits;
use crate::cli::plan::Plan;
use crate::limits::CONNECTIONS_MAX;
use crate::session::Moment;
use crate::worker::table::{Key, Table};

/// All connections of streams.
pub(in crate::worker) struct Conns {
    table: Table<Conn>,
    /// Connections with output to write.
    dirty: Vec<Key>,
    exits: Exits,
    /// Last scan for pipes of stalled streams.
    pipes_scanned_at: Moment,
    /// Last scan for receive buffers held by stalled streams.
    buffers_scanned_at: Moment,
    next_sweep: Moment,
}

impl Conns {
    pub(in crate::worker) fn new(plan: &Plan) -> Conns {
        Conns {
            table: Table::new(CONNECTIONS_MAX),
            dirty: Vec::new(),
            exits: Exits::new(plan),
            pipes_scanned_at: Moment(0),
            buffers_scanned_at: Moment(0),
            next_sweep: Moment(0),
        }
    }

    #[inline]
    pub(in crate::worker) fn get(&self, key: Key) -> Option<&Conn> {
        self.table.get(key)
    }

    #[inline]
    pub(in crate::worker) fn get_mut(&mut self, key: Key) -> Option<&mut Conn> {
        self.table.get_mut(key)
    }

    /// Adds a connection. `None`: the table is full.
    pub(in crate::worker) fn insert(&mut self, conn: Conn) -> Option<Key> {
        self.table.insert(conn)
    }

    pub(in crate::worker) fn remove(&mut self, key: Key) -> Option<Conn> {
        self.table.remove(key)
    }

    pub(in crate::worker) fn iter(&self) -> impl Iterator<Item = (Key, &Conn)> {
        self.table.iter()
    }

    pub(in crate::worker) fn len(&self) -> usize {
        self.table.len()
    }

    /// Marks a connection with output to write or to shut down; it is flushed at the end of the
    /// turn.
    #[inline]
    pub(in crate::worker) fn mark(&mut self, key: Key) {
        let Some(conn) = self.table.get_mut(key) else { return };
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(key);
        }
    }

    /// Whether any connection is marked.
    pub(in crate::worker) fn any_marked(&self) -> bool {
        !self.dirty.is_empty()
    }
}
