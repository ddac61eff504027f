//! Tunnels: sessions over links. The plane owns all tunnels and the order in which new streams
//! prefer them.
//!
//! A tunnel is a [`Session`] over a [`lane`]. [`lifecycle`] begins and ends tunnels. [`link_read`],
//! [`link_frames`] and [`link_write`] move bytes between link and session, within the tunnel's [`budget`],
//! [`serial`] does so for serial lines, [`encrypted`] where [`tls`] is the transform, and [`splice`] moves bulk
//! through pipes. [`rights`] says who a peer is and what it may have, [`up`] which tunnels clients may take. [`loopback`] connects the process to
//! itself, [`report`] tells operators of tunnels. [`strangers`] bounds peers that have connected here and not completed their hello. The event loop
//! dispatches link completions here and flushes marked tunnels at the end of a turn.

mod budget;
mod encrypted;
mod lane;
pub(super) mod lifecycle;
mod link_frames;
mod link_read;
mod link_write;
pub(super) mod loopback;
mod outgoing;
mod report;
mod resume;
mod retained;
mod rights;
mod serial;
pub(super) mod splice;
mod strangers;
mod tls;
mod up;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};

use hashlink::LinkedHashMap;

use self::lane::{Destination, Lack, Lane};
use self::resume::Suspended;
use self::strangers::Strangers;
use crate::io::chunk::{Chunk, ChunkMut};
use crate::io::driver::Driver;
use crate::limits::BATCH_BYTES;
use crate::policy::ceilings::Ceilings;
use crate::session::{EntranceAnswer, Moment, OpenError, Session, Sink};
use crate::wire::{Protocol, Transport};
use crate::worker::buffers::Buffers;
use crate::worker::context::Cx;
use crate::worker::deadlines::Deadlines;
use crate::worker::message::Run;
use crate::worker::table::{Key, Table};

/// All tunnels.
pub(in crate::worker) struct Tunnels {
    table: Table<Tunnel>,
    /// The tunnel of each link.
    links: Table<Key>,
    /// Most of those that are no strangers.
    max: usize,
    /// Those of the table that have connected here and not completed their hello. They have room of
    /// their own in it.
    strangers: Strangers,
    /// Tunnels whose hello is done, in that order.
    up: Vec<Key>,
    /// How often these have changed.
    up_changes: u64,
    /// Tunnels that may have something to send.
    dirty: Vec<Key>,
    /// Tunnels that have more to send than one turn may take.
    unfinished: Vec<Key>,
    deadlines: Deadlines,
    /// Tunnels that were changed, so that `deadlines` may have others of them.
    touched: Vec<Key>,
    /// Tunnels that have received more than one turn may take.
    overdue: VecDeque<Key>,
    /// Tunnels that wait for a look at the peers file, by its number; in the order of these.
    lookers: LinkedHashMap<Key, u64>,
}

impl Tunnels {
    pub(super) fn new(ceilings: &Ceilings) -> Tunnels {
        Tunnels {
            table: Table::new(ceilings.tunnels + ceilings.strangers),
            links: Table::new(ceilings.tunnels + ceilings.strangers),
            max: ceilings.tunnels,
            strangers: Strangers::of_process(ceilings.strangers),
            up: Vec::new(),
            up_changes: 0,
            dirty: Vec::new(),
            unfinished: Vec::new(),
            deadlines: Deadlines::default(),
            touched: Vec::new(),
            overdue: VecDeque::new(),
            lookers: LinkedHashMap::new(),
        }
    }

    /// Whether no further tunnel may be added to those that are no strangers.
    fn are_too_many(&self) -> bool {
        self.len() >= self.max
    }

    /// Whether there are more than may stay.
    fn are_more_than_room(&self) -> bool {
        self.len() > self.max
    }

    /// Why a tunnel whose hello is complete, and which was a stranger, cannot stay. No address has more than
    /// half of the room, so that one cannot lock out all others.
    fn excess(&self, source: IpAddr) -> Option<&'static str> {
        let of_source = self.table.iter().filter(|(_, tunnel)| tunnel.source == Some(source));
        if self.len() > self.max {
            Some("too many tunnels are open")
        } else if of_source.count() >= self.max / 2 {
            Some("too many tunnels of its address are open")
        } else {
            None
        }
    }

    #[inline]
    pub(in crate::worker) fn get(&self, key: Key) -> Option<&Tunnel> {
        self.table.get(key)
    }

    #[inline]
    pub(in crate::worker) fn get_mut(&mut self, key: Key) -> Option<&mut Tunnel> {
        let tunnel = self.table.get_mut(key)?;
        if !std::mem::replace(&mut tunnel.touched, true) {
            self.touched.push(key);
        }
        Some(tunnel)
    }

    /// Adds a tunnel. `None`: there are too many.
    fn insert(&mut self, tunnel: Tunnel) -> Option<Key> {
        let key = self.table.insert(tunnel)?;
        let id = self.links.insert(key).expect("no tunnel has two links");
        self.table.get_mut(key)?.lane.id = id;
        self.touched.push(key);
        Some(key)
    }

    /// The tunnel that has this link. `None`: it has none any more, or another one.
    #[inline]
    fn of_link_mut(&mut self, link: Key) -> Option<(Key, &mut Tunnel)> {
        let key = *self.links.get(link)?;
        Some((key, self.get_mut(key)?))
    }

    fn remove(&mut self, key: Key) -> Option<Tunnel> {
        let mut tunnel = self.table.remove(key)?;
        self.links.remove(tunnel.lane.id);
        self.deadlines.replace(key, &mut tunnel.due, None);
        self.lookers.remove(&key);
        Some(tunnel)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &Tunnel)> {
        self.table.iter()
    }

    /// Number of tunnels, without strangers.
    pub(in crate::worker) fn len(&self) -> usize {
        self.table.len() - self.strangers.len()
    }

    /// Number of peers that have connected here and not completed their hello.
    pub(in crate::worker) fn stranger_count(&self) -> usize {
        self.strangers.len()
    }

    /// Asks the peer of a tunnel for an entrance.
    ///
    /// # Errors
    /// As [`Session::ask_entrance`].
    pub(in crate::worker) fn ask_entrance(
        &mut self,
        key: Key,
        request: u32,
        (transport, at): (Transport, SocketAddr),
    ) -> Result<(), OpenError> {
        let tunnel = self.get_mut(key).ok_or(OpenError::NotUp)?;
        tunnel.session.ask_entrance(request, transport, at)?;
        self.mark(key);
        Ok(())
    }

    /// Tells the peer of a tunnel what has become of an entrance that it has asked for.
    pub(in crate::worker) fn answer_entrance(
        &mut self,
        key: Key,
        request: u32,
        answer: EntranceAnswer,
    ) {
        if let Some(tunnel) = self.get_mut(key) {
            tunnel.session.answer_entrance(request, answer);
        }
        self.mark(key);
    }

    /// Marks a tunnel that may have something to send; it is flushed at the end of the turn.
    #[inline]
    pub(in crate::worker) fn mark(&mut self, key: Key) {
        let Some(tunnel) = self.table.get_mut(key) else { return };
        if !tunnel.dirty {
            tunnel.dirty = true;
            self.dirty.push(key);
        }
    }

    /// Whether any tunnel is marked, or has more to read.
    pub(super) fn any_marked(&self) -> bool {
        !self.dirty.is_empty() || !self.overdue.is_empty()
    }

    /// Number of tunnels that have received more than one turn may take.
    pub(in crate::worker) fn overdue_count(&self) -> usize {
        self.overdue.len()
    }

    /// The next tunnel whose turn it is to go on with what it has received.
    pub(in crate::worker) fn take_overdue(&mut self) -> Option<Key> {
        let key = self.overdue.pop_front()?;
        if let Some(tunnel) = self.table.get_mut(key) {
            tunnel.lane.is_overdue = false;
        }
        Some(key)
    }

    /// A tunnel has used up its share of this turn. The rest waits; nothing more is received, so that
    /// what it keeps is no more than what was on its way.
    fn postpone<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(tunnel) = self.table.get_mut(key) else { return };
        tunnel.lane.reading.cancel(&mut cx.driver);
        if !std::mem::replace(&mut tunnel.lane.is_overdue, true) {
            self.overdue.push_back(key);
        }
    }

    /// The earliest deadline of all tunnels.
    pub(in crate::worker) fn next_timeout(&self) -> Option<Moment> {
        let touched = self.touched.iter().filter_map(|&key| self.table.get(key)?.next_timeout());
        touched.chain(self.deadlines.first()).min()
    }

    /// Takes the deadlines of tunnels that were changed: of those alone, since a receptor may have a
    /// thousand that are idle.
    pub(in crate::worker) fn take_deadlines(&mut self) {
        let Tunnels { table, deadlines, touched, .. } = self;
        for key in touched.drain(..) {
            let Some(tunnel) = table.get_mut(key) else { continue };
            tunnel.touched = false;
            let at = tunnel.next_timeout();
            deadlines.replace(key, &mut tunnel.due, at);
        }
    }

    /// What each session has named. For the simulator, as are those below.
    #[cfg(test)]
    pub(in crate::worker) fn session_deadlines(&self) -> impl Iterator<Item = Moment> {
        self.table.iter().filter_map(|(_, tunnel)| tunnel.session.next_timeout())
    }

    #[cfg(test)]
    pub(in crate::worker) fn lane_deadlines(&self) -> impl Iterator<Item = Moment> {
        self.table.iter().filter_map(|(_, tunnel)| tunnel.lane.transform.next_timeout())
    }

    /// Frames that came, of all tunnels that there are.
    #[cfg(test)]
    pub(in crate::worker) fn frames_in(&self) -> u64 {
        self.table.iter().map(|(_, tunnel)| tunnel.session.counters().frames_in).sum()
    }

    /// Shuts down the sending side of every link, which makes the peers close.
    pub(in crate::worker) fn end_output(&mut self, buffers: &mut Buffers) {
        let mut unsettled = Vec::new();
        for (key, tunnel) in self.table.iter_mut() {
            tunnel.lane.say_end(buffers);
            tunnel.lane.link.end_output();
            if !tunnel.lane.is_settled() {
                unsettled.push(key);
            }
        }
        // On a serial line what was said last may have to be said again.
        unsettled.into_iter().for_each(|key| self.mark(key));
    }

    /// Whether no peer can have unread data from this process. A peer whose hello was never done
    /// has none.
    pub(in crate::worker) fn all_have_read(&self) -> bool {
        let may_have = |tunnel: &Tunnel| {
            tunnel.session.is_up() && !(tunnel.lane.link.has_no_end() && tunnel.lane.is_settled())
        };
        !self.table.iter().any(|(_, tunnel)| may_have(tunnel))
    }

    /// Whether any tunnel has streams or something to send. With `farewells`, a peer that may still
    /// report a stream counts as well, unless nobody has answered there for a while.
    pub(in crate::worker) fn any_busy(&self, farewells: bool) -> bool {
        self.table.iter().any(|(_, tunnel)| {
            let session = &tunnel.session;
            session.stream_count() > 0
                || !tunnel.lane.is_settled()
                || (farewells && session.is_leaving() && !tunnel.lane.is_unheard())
        })
    }

    /// Copies batches of stalled links, so that their receive buffers are returned.
    pub(super) fn free_stalled_buffers<D: Driver>(&mut self, cx: &mut Cx<D>) {
        for (_, tunnel) in self.table.iter_mut() {
            let lane = &mut tunnel.lane;
            let unsealed = lane.transform.tls_mut().and_then(|tls| tls.unsealed.as_mut());
            lane.retained.free_received(&cx.buffers);
            for batch in [lane.unsent.as_mut(), unsealed].into_iter().flatten() {
                cx.buffers.copy_bulk_of_batch(batch);
            }
            // The driver owns the batch until its send completes. The cancelled send brings it back
            // to [`Streams::link_sent`](crate::worker::stream::Streams::link_sent), which copies it.
            if tunnel.lane.is_stalled(cx.now)
                && cx.buffers.has_half_beside(BATCH_BYTES)
                && let Some(send) = tunnel.lane.send.take()
            {
                cx.driver.cancel(send);
            }
        }
    }

    /// A link found no bulk buffer to receive into: queues it.
    fn wait_for_buffer<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(tunnel) = self.table.get_mut(key) else { return };
        if tunnel.lane.starved.replace(Lack::Receive) != Some(Lack::Receive) {
            cx.waiters.links.push_back(key);
        }
    }

    /// A tunnel found no buffer in the worker's own pool: queues it.
    fn wait_for_pool<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(tunnel) = self.table.get_mut(key) else { return };
        if !std::mem::replace(&mut tunnel.lane.waits_for_pool, true) {
            cx.waiters.pool.push_back(key);
        }
    }

    /// The worker's own pool has buffers again.
    pub(in crate::worker) fn pool_available(&mut self, key: Key) {
        let Some(tunnel) = self.table.get_mut(key) else { return };
        tunnel.lane.waits_for_pool = false;
        tunnel.lane.starved.take_if(|lack| *lack == Lack::Pool);
        // The flush of a tunnel also resumes reading.
        self.mark(key);
    }
}

/// What waits for another plane to handle an event.
#[derive(Debug)]
struct Deferred {
    /// The payload of the frame that the event came by: its sink and its bytes.
    payload: Option<(Sink, u32)>,
}

/// A session and the lane that carries it.
#[derive(Debug)]
pub(in crate::worker) struct Tunnel {
    lane: Lane,
    session: Session,
    /// Small payload that waits for the link is copied here while receive buffers are scarce.
    packed: Option<ChunkMut>,
    /// Queued in [`Tunnels::dirty`].
    dirty: bool,
    /// Queued in [`Tunnels::touched`].
    touched: bool,
    /// Its deadline in [`Tunnels::deadlines`].
    due: Option<Moment>,
    began: Moment,
    /// When its connection began.
    link_began: Moment,
    /// What counts as the peer's address, of one that has connected here and said hello.
    source: Option<IpAddr>,
    /// Something was received from the peer.
    heard: bool,
    /// Another plane handles an event of the session; what was received behind it waits.
    deferred: Option<Deferred>,
    /// The peer has closed the link and nothing was outstanding.
    ended_in_order: bool,
    /// Its connection broke, and another one is waited for.
    suspended: Option<Suspended>,
    /// How often it went on over another connection.
    resumptions: u32,
}

impl Tunnel {
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    pub(in crate::worker) fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Whether bulk of its streams may be spliced.
    pub(super) fn splices(&self) -> bool {
        self.session.protocol() == Protocol::V1 && self.lane.transform.is_none()
    }

    /// Whether its link is encrypted, or will be.
    pub(super) fn is_encrypted(&self) -> bool {
        self.lane.transform.tls().is_some()
    }

    /// Small payload that waits for the link is copied here while receive buffers are scarce.
    pub(super) fn packed_mut(&mut self) -> &mut Option<ChunkMut> {
        &mut self.packed
    }

    /// Whether another plane has to handle an event first.
    #[inline]
    pub(in crate::worker::stream) fn is_deferred(&self) -> bool {
        self.deferred.is_some()
    }

    /// Another plane has to handle an event before the payload of the frame that it came by.
    pub(in crate::worker::stream) fn defer(&mut self, payload: Option<(Sink, u32)>) {
        self.deferred = Some(Deferred { payload });
    }

    /// Whether what was received waits for another plane or another turn, so that the link itself is
    /// not to be read.
    #[inline]
    fn is_held_up(&self) -> bool {
        self.is_deferred() || self.lane.is_overdue || self.suspended.is_some()
    }

    /// Begins to receive a run of datagrams. Returns the run if it is complete already.
    pub(super) fn begin_run(&mut self, run: Run) -> Option<Run> {
        self.lane.destination = Destination::Flow;
        if run.left_bytes == 0 {
            return Some(run);
        }
        self.lane.run = Some(run);
        None
    }

    /// Adds payload to the current run. Returns the run when it is complete.
    pub(super) fn continue_run(&mut self, payload: Chunk) -> Option<Run> {
        let run = self.lane.run.as_mut()?;
        run.left_bytes -= payload.len() as u32;
        run.parts.push(payload);
        self.lane.run.take_if(|run| run.left_bytes == 0)
    }

    /// The earliest deadline of session and transform.
    fn next_timeout(&self) -> Option<Moment> {
        if let Some(suspended) = &self.suspended {
            return suspended.until;
        }
        [self.session.next_timeout(), self.lane.transform.next_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The link has data to send and has accepted none for a while.
    pub(super) fn is_stalled(&self, now: Moment) -> bool {
        self.suspended.is_some() || self.lane.is_stalled(now)
    }
}

/// The descriptor has no data, or no room, for now.
pub(in crate::worker::stream) fn is_again(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}
