//! Streams: the connection of a client, or to a server, that belongs to one stream of a tunnel.
//!
//! [`conn`] is such a connection. [`read`] and [`write`] move its bytes, [`lifecycle`] does what the
//! session says, [`broken`] delivers what a broken one had sent. [`exits`], [`unix`] and [`exec`] are
//! where the peer's streams leave. [`stalled`] takes pipes and buffers back.

pub(in crate::worker) mod broken;
pub(in crate::worker) mod client;
pub(in crate::worker) mod conn;
pub(in crate::worker) mod exec;
pub(in crate::worker) mod exits;
pub(in crate::worker) mod lifecycle;
pub(in crate::worker) mod payload_queue;
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

/// The connections of streams.
pub(in crate::worker) struct Conns {
    table: Table<Conn>,
    /// Have output to write.
    dirty: Vec<Key>,
    exits: Exits,
    /// When pipes of stalled streams were last looked for.
    pipes_looked_for: Moment,
    /// When receive buffers that such hold were.
    buffers_looked_for: Moment,
    next_sweep: Moment,
}

impl Conns {
    pub(in crate::worker) fn new(plan: &Plan) -> Conns {
        Conns {
            table: Table::new(CONNECTIONS_MAX),
            dirty: Vec::new(),
            exits: Exits::new(plan),
            pipes_looked_for: Moment(0),
            buffers_looked_for: Moment(0),
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

    /// One more; `None` when there are too many.
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

    /// A connection may have output to write, or an end to make: at the end of the turn.
    #[inline]
    pub(in crate::worker) fn mark(&mut self, key: Key) {
        let Some(conn) = self.table.get_mut(key) else { return };
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(key);
        }
    }

    /// Whether some may have something to write.
    pub(in crate::worker) fn any_marked(&self) -> bool {
        !self.dirty.is_empty()
    }
}
