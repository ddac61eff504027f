//! Tunnels: a link, its session, and how both come about and end.
//!
//! [`connector`] dials the persistent connection, [`openings`] opens what has a path, [`command`] starts
//! what is a command, [`loopback`] joins the process with itself. [`lifecycle`] begins and ends tunnels.
//! [`link_io`] moves bytes between a link and its session ([`serial`], where that is a serial line),
//! [`splice`] moves bulk through pipes.

pub(in crate::worker) mod command;
pub(in crate::worker) mod connector;
pub(in crate::worker) mod lifecycle;
pub(in crate::worker) mod link_io;
pub(in crate::worker) mod loopback;
pub(in crate::worker) mod openings;
pub(in crate::worker) mod serial;
pub(in crate::worker) mod splice;

use std::rc::Rc;

use tracing::info;

use crate::io::chunk::Chunk;
use crate::io::chunk::ChunkMut;
use crate::io::driver::{Driver, Gather, OpId};
use crate::io::link::Link;
use crate::io::pipe::Pipe;
use crate::limits::{BATCH_BYTES, STATE_TUNNELS_MAX, TUNNELS_MAX};
use crate::session::{Moment, Session};
use crate::wire::{Decoder, Protocol};
use crate::worker::context::Cx;
use crate::worker::datagram::datagrams::Run;
use crate::worker::stream::conn::Reading;
use crate::worker::stream::stalled::STALLED;
use crate::worker::table::{Key, Table};
use crate::worker::tunnel::serial::SerialLine;

/// Where the payload of the frame being read goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Destination {
    Nowhere,
    Conn(Key),
    Urgent(Key),
    /// To the run that is coming in.
    Flow,
}

/// How the link is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkReadMode {
    /// By one multishot receive into large buffers.
    Received,
    /// Big frames come: watched, read ahead a little, and the rest of such a frame is spliced. What
    /// is no socket is always read in this way.
    Spliced,
}

/// What a link waits for that finds no buffer to read into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    /// A bulk receive buffer.
    Receive,
    /// A buffer of the engine's own pool, to read ahead into.
    Pool,
}

/// The spliced end of a frame whose head has been sent.
#[derive(Debug)]
struct Outgoing {
    /// Whose it is: it may be gone by now, and the frame must be finished all the same.
    conn: Key,
    pipe: Rc<Pipe>,
    left_bytes: usize,
}

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
            tunnel.link.end_output();
        }
    }

    /// No peer is left that may still have something of ours to read. One whose hello was never
    /// done has nothing.
    pub(in crate::worker) fn all_have_read(&self) -> bool {
        let may_have = |tunnel: &Tunnel| {
            tunnel.session.is_up() && !(tunnel.link.has_no_end() && tunnel.is_settled())
        };
        !self.table.iter().any(|(_, tunnel)| may_have(tunnel))
    }

    /// Whether one still has streams, or something to send, or while `farewells` are waited for a
    /// peer that may still tell of a stream.
    pub(in crate::worker) fn any_busy(&self, farewells: bool) -> bool {
        self.table.iter().any(|(_, tunnel)| {
            let session = &tunnel.session;
            session.stream_count() > 0
                || !tunnel.is_settled()
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
                    peer = %tunnel.link,
                    up = tunnel.session.is_up(),
                    streams = tunnel.session.stream_count(),
                    bytes_in = counters.payload_bytes_in,
                    bytes_out = counters.payload_bytes_out,
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
            if let Some(batch) = &mut tunnel.unsent {
                cx.buffers.copy_bulk_of_batch(batch);
            }
            // A batch is the driver's until its send is over, and is copied then.
            if tunnel.stands_still(cx.now)
                && cx.buffers.has_half_beside(BATCH_BYTES)
                && let Some(send) = tunnel.send.take()
            {
                cx.driver.cancel(send);
            }
        }
    }

    /// A link found no bulk buffer to receive into.
    fn wait_for_buffer<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(tunnel) = self.table.get_mut(key) else { return };
        if tunnel.starved.replace(Lack::Receive) != Some(Lack::Receive) {
            cx.waiters.links.push_back(key);
        }
    }

    /// A tunnel found no buffer of the worker's own pool.
    fn wait_for_pool<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(tunnel) = self.table.get_mut(key) else { return };
        if !std::mem::replace(&mut tunnel.waits_for_pool, true) {
            cx.waiters.pool.push_back(key);
        }
    }

    /// There is a buffer in the worker's own pool again.
    pub(in crate::worker) fn pool_is_back(&mut self, key: Key) {
        let Some(tunnel) = self.table.get_mut(key) else { return };
        tunnel.waits_for_pool = false;
        tunnel.starved.take_if(|lack| *lack == Lack::Pool);
        // Writing comes back to reading.
        self.mark(key);
    }
}

/// One persistent connection with its session.
#[derive(Debug)]
pub(in crate::worker) struct Tunnel {
    link: Link,
    session: Session,
    decoder: Decoder,
    destination: Destination,
    reading: Reading,
    read_mode: LinkReadMode,
    /// Received: big frames in a row. Spliced: turns in a row that brought none.
    streak: u8,
    /// How much is read ahead next.
    ahead_bytes: usize,
    /// Payload of the frame being read was spliced: so is what is left of it, little as it may be.
    passing: bool,
    /// Splicing this link was refused: it is copied.
    copy_only: bool,
    /// The link is not read until there is a buffer.
    starved: Option<Lack>,
    /// In the list of those that wait for the engine's own pool.
    waits_for_pool: bool,
    /// Where small payload is copied to that waits for the link while receive buffers are scarce.
    packed: Option<ChunkMut>,
    /// A batch is under way, or the link is watched for room.
    sending: bool,
    /// Since when the link has taken nothing, if so.
    sending_since: Moment,
    /// The send of a batch that may stand in receive buffers.
    send: Option<OpId>,
    /// The link layer of a serial line.
    serial: Option<Box<SerialLine>>,
    /// What is left of a batch while a link that is no socket is watched for room, or of a frame
    /// that the link layer has not taken.
    unsent: Option<Box<Gather>>,
    /// What goes out before anything else does, behind the batch under way.
    outgoing: Option<Outgoing>,
    /// The run of datagrams that is coming in.
    run: Option<Run>,
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
        self.session.protocol() == Protocol::V1 && self.serial.is_none()
    }

    /// Where small payload is copied to that waits for the link while receive buffers are scarce.
    pub(in crate::worker) fn packed_mut(&mut self) -> &mut Option<ChunkMut> {
        &mut self.packed
    }

    /// A run of datagrams comes next. It is given back if it is whole already.
    pub(in crate::worker) fn begin_run(&mut self, run: Run) -> Option<Run> {
        self.destination = Destination::Flow;
        if run.left_bytes == 0 {
            return Some(run);
        }
        self.run = Some(run);
        None
    }

    /// More of the run has come. It is given back when it is whole.
    pub(in crate::worker) fn continue_run(&mut self, payload: Chunk) -> Option<Run> {
        let run = self.run.as_mut()?;
        run.left_bytes -= payload.len() as u32;
        run.parts.push(payload);
        self.run.take_if(|run| run.left_bytes == 0)
    }

    /// When session or line have something to do.
    fn next_timeout(&self) -> Option<Moment> {
        let line = self.serial.as_ref().and_then(|serial| serial.next_timeout());
        [self.session.next_timeout(), line].into_iter().flatten().min()
    }

    /// A batch is under way, or the link is watched for room, from now on.
    #[inline]
    fn begin_sending(&mut self, send: Option<OpId>, now: Moment) {
        (self.sending, self.sending_since, self.send) = (true, now, send);
    }

    /// The link has taken nothing for a while, though there is something for it.
    pub(in crate::worker) fn stands_still(&self, now: Moment) -> bool {
        self.sending && self.sending_since.after(STALLED) <= now
    }

    /// Nothing of ours is on its way, as far as can be known here.
    fn is_settled(&self) -> bool {
        let line = self.serial.as_ref().is_none_or(|serial| serial.is_settled());
        line && !self.sending && self.unsent.is_none()
    }
}
