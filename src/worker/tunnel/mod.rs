//! Tunnels: a link, its session, and how both come about and end.
//!
//! [`loopback`] joins the process with itself. [`lifecycle`] begins and ends tunnels.
//! A tunnel is a session over a [`lane`]. [`link_io`] moves bytes between the two ([`serial`], where the link is a serial line),
//! [`splice`] moves bulk through pipes.

mod lane;
pub(in crate::worker) mod lifecycle;
pub(in crate::worker) mod link_io;
pub(in crate::worker) mod loopback;
mod serial;
pub(in crate::worker) mod splice;

use tracing::info;

use self::lane::{Destination, Lack, Lane};

use crate::io::chunk::Chunk;
use crate::io::chunk::ChunkMut;
use crate::io::driver::Driver;
use crate::limits::{BATCH_BYTES, STATE_TUNNELS_MAX, TUNNELS_MAX};
use crate::session::{Moment, Session};
use crate::wire::Protocol;
use crate::worker::context::Cx;
use crate::worker::datagram::datagrams::Run;
use crate::worker::table::{Key, Table};

/// All tunnels there are.
pub(in crate::worker) struct Tunnels {
    table: Table<Tunnel>,
    /// Those whose hello is done, in the order in which it was.
    up: Vec<Key>,
    /// May have something to send.
    dirty: Vec<Key>,
    /// Have more to write than one turn may take.
    unfinished: Vec<Key>,
}

impl Tunnels {
    pub(in crate::worker) fn new() -> Tunnels {
        let table = Table::new(TUNNELS_MAX);
        Tunnels { table, up: Vec::new(), dirty: Vec::new(), unfinished: Vec::new() }
    }

    #[inline]
    pub(in crate::worker) fn get(&self, key: Key) -> Option<&Tunnel> {
        self.table.get(key)
    }

    #[inline]
    pub(in crate::worker) fn get_mut(&mut self, key: Key) -> Option<&mut Tunnel> {
        self.table.get_mut(key)
    }

    pub(in crate::worker) fn iter(&self) -> impl Iterator<Item = (Key, &Tunnel)> {
        self.table.iter()
    }

    pub(in crate::worker) fn len(&self) -> usize {
        self.table.len()
    }

    /// Those whose hello is done, in the order in which it was.
    pub(in crate::worker) fn up(&self) -> &[Key] {
        &self.up
    }

    /// Their sessions.
    pub(in crate::worker) fn up_sessions(&self) -> impl Iterator<Item = &Session> {
        self.up.iter().filter_map(|&key| Some(&self.table.get(key)?.session))
    }

    /// A tunnel may have something to send: it is written at the end of the turn.
    #[inline]
    pub(in crate::worker) fn mark(&mut self, key: Key) {
        let Some(tunnel) = self.table.get_mut(key) else { return };
        if !tunnel.dirty {
            tunnel.dirty = true;
            self.dirty.push(key);
        }
    }

    /// Whether some may have something to send.
    pub(in crate::worker) fn any_marked(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// When the first of them has something to do.
    pub(in crate::worker) fn next_timeout(&self) -> Option<Moment> {
        self.table.iter().filter_map(|(_, tunnel)| tunnel.next_timeout()).min()
    }

    /// Tells every peer that nothing more comes, which tells it to close.
    pub(in crate::worker) fn end_output(&mut self) {
        for (_, tunnel) in self.table.iter_mut() {
            tunnel.lane.link.end_output();
        }
    }

    /// No peer is left that may still have something of ours to read. One whose hello was never
    /// done has nothing.
    pub(in crate::worker) fn all_have_read(&self) -> bool {
        let may_have = |tunnel: &Tunnel| {
            tunnel.session.is_up() && !(tunnel.lane.link.has_no_end() && tunnel.lane.is_settled())
        };
        !self.table.iter().any(|(_, tunnel)| may_have(tunnel))
    }

    /// Whether one still has streams, or something to send, or while `farewells` are waited for a
    /// peer that may still tell of a stream.
    pub(in crate::worker) fn any_busy(&self, farewells: bool) -> bool {
        self.table.iter().any(|(_, tunnel)| {
            let session = &tunnel.session;
            session.stream_count() > 0
                || !tunnel.lane.is_settled()
                || (farewells && session.is_leaving())
        })
    }

    /// Logs each, up to a number of them; the payload that all have moved, in and out.
    pub(in crate::worker) fn log_state(&self, now: Moment) -> (u64, u64) {
        let (mut bytes_in, mut bytes_out) = (0, 0);
        for (logged, (_, tunnel)) in self.table.iter().enumerate() {
            let counters = tunnel.session.counters();
            bytes_in += counters.payload_bytes_in;
            bytes_out += counters.payload_bytes_out;
            if logged < STATE_TUNNELS_MAX {
                info!(
                    peer = %tunnel.lane.link,
                    up = tunnel.session.is_up(),
                    streams = tunnel.session.stream_count(),
                    bytes_in = counters.payload_bytes_in,
                    bytes_out = counters.payload_bytes_out,
                    link_bytes_in = tunnel.lane.read_bytes,
                    link_bytes_out = tunnel.lane.framed_bytes,
                    secs = (now.0 - tunnel.began.0) / 1_000_000,
                    "state of a tunnel"
                );
            }
        }
        (bytes_in, bytes_out)
    }

    /// Copies batches of links that take nothing, so that their receive buffers come back.
    pub(in crate::worker) fn free_stalled_buffers<D: Driver>(&mut self, cx: &mut Cx<D>) {
        for (_, tunnel) in self.table.iter_mut() {
            if let Some(batch) = &mut tunnel.lane.unsent {
                cx.buffers.copy_bulk_of_batch(batch);
            }
            // A batch is the driver's until its send is over, and is copied then.
            if tunnel.lane.stands_still(cx.now)
                && cx.buffers.has_half_beside(BATCH_BYTES)
                && let Some(send) = tunnel.lane.send.take()
            {
                cx.driver.cancel(send);
            }
        }
    }

    /// A link found no bulk buffer to receive into.
    fn wait_for_buffer<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(tunnel) = self.table.get_mut(key) else { return };
        if tunnel.lane.starved.replace(Lack::Receive) != Some(Lack::Receive) {
            cx.waiters.links.push_back(key);
        }
    }

    /// A tunnel found no buffer of the worker's own pool.
    fn wait_for_pool<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(tunnel) = self.table.get_mut(key) else { return };
        if !std::mem::replace(&mut tunnel.lane.waits_for_pool, true) {
            cx.waiters.pool.push_back(key);
        }
    }

    /// There is a buffer in the worker's own pool again.
    pub(in crate::worker) fn pool_is_back(&mut self, key: Key) {
        let Some(tunnel) = self.table.get_mut(key) else { return };
        tunnel.lane.waits_for_pool = false;
        tunnel.lane.starved.take_if(|lack| *lack == Lack::Pool);
        // Writing comes back to reading.
        self.mark(key);
    }
}

/// A session, and the lane that carries it.
#[derive(Debug)]
pub(in crate::worker) struct Tunnel {
    lane: Lane,
    session: Session,
    /// Where small payload is copied to that waits for the link while receive buffers are scarce.
    packed: Option<ChunkMut>,
    /// In the list of those that may have something to send.
    dirty: bool,
    began: Moment,
    /// Something has come from the peer.
    heard: bool,
    /// The peer has closed the link, and nothing was left to do.
    ended_in_order: bool,
}

impl Tunnel {
    pub(in crate::worker) fn session(&self) -> &Session {
        &self.session
    }

    pub(in crate::worker) fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Whether bulk of its streams may be spliced.
    pub(in crate::worker) fn splices(&self) -> bool {
        self.session.protocol() == Protocol::V1 && self.lane.transform.is_none()
    }

    /// Where small payload is copied to that waits for the link while receive buffers are scarce.
    pub(in crate::worker) fn packed_mut(&mut self) -> &mut Option<ChunkMut> {
        &mut self.packed
    }

    /// A run of datagrams comes next. It is given back if it is whole already.
    pub(in crate::worker) fn begin_run(&mut self, run: Run) -> Option<Run> {
        self.lane.destination = Destination::Flow;
        if run.left_bytes == 0 {
            return Some(run);
        }
        self.lane.run = Some(run);
        None
    }

    /// More of the run has come. It is given back when it is whole.
    pub(in crate::worker) fn continue_run(&mut self, payload: Chunk) -> Option<Run> {
        let run = self.lane.run.as_mut()?;
        run.left_bytes -= payload.len() as u32;
        run.parts.push(payload);
        self.lane.run.take_if(|run| run.left_bytes == 0)
    }

    /// When session or line have something to do.
    fn next_timeout(&self) -> Option<Moment> {
        [self.session.next_timeout(), self.lane.transform.next_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The link has taken nothing for a while, though there is something for it.
    pub(in crate::worker) fn stands_still(&self, now: Moment) -> bool {
        self.lane.stands_still(now)
    }
}
