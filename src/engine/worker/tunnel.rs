//! A persistent connection, as the worker holds it.

use std::rc::Rc;

use super::datagrams::Run;
use super::lines::SerialLine;
use super::local::Reading;
use super::stalled::STALLED;
use super::table::Key;
use crate::engine::chunk::ChunkMut;
use crate::engine::driver::{Gather, OpId};
use crate::engine::link::Link;
use crate::engine::pipe::Pipe;
use crate::session::{Moment, Session};
use crate::wire::Decoder;

/// Where the payload of the frame being read goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    Nowhere,
    Local(Key),
    Urgent(Key),
    /// To the run that is coming in.
    Flow,
}

/// How the link is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkPace {
    /// By one multishot receive into large buffers.
    Received,
    /// Big frames come: watched, read ahead a little, and the rest of such a frame is spliced. What
    /// is no socket is always read in this way.
    Spliced,
}

/// What a link waits for that finds no buffer to read into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    /// A bulk receive buffer.
    Receive,
    /// A buffer of the engine's own pool, to read ahead into.
    Pool,
}

/// The spliced end of a frame whose head has been sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Whose it is: it may be gone by now, and the frame must be finished all the same.
    pub(super) local: Key,
    pub(super) pipe: Rc<Pipe>,
    pub(super) left_bytes: usize,
}

/// One persistent connection with its session.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) link: Link,
    pub(super) session: Session,
    pub(super) decoder: Decoder,
    pub(super) destination: Destination,
    pub(super) reading: Reading,
    pub(super) pace: LinkPace,
    /// Received: big frames in a row. Spliced: turns in a row that brought none.
    pub(super) streak: u8,
    /// How much is read ahead next.
    pub(super) ahead_bytes: usize,
    /// Payload of the frame being read was spliced: so is what is left of it, little as it may be.
    pub(super) passing: bool,
    /// Splicing this link was refused: it is copied.
    pub(super) copy_only: bool,
    /// The link is not read until there is a buffer.
    pub(super) starved: Option<Lack>,
    /// In the list of those that wait for the engine's own pool.
    pub(super) waits_for_pool: bool,
    /// Where small payload is copied to that waits for the link while receive buffers are scarce.
    pub(super) packed: Option<ChunkMut>,
    /// A batch is under way, or the link is watched for room.
    pub(super) sending: bool,
    /// Since when the link has taken nothing, if so.
    pub(super) sending_since: Moment,
    /// The send of a batch that may stand in receive buffers.
    pub(super) send: Option<OpId>,
    /// The link layer of a serial line.
    pub(super) serial: Option<Box<SerialLine>>,
    /// What is left of a batch while a link that is no socket is watched for room, or of a frame
    /// that the link layer has not taken.
    pub(super) unsent: Option<Box<Gather>>,
    /// What goes out before anything else does, behind the batch under way.
    pub(super) outgoing: Option<Outgoing>,
    /// The run of datagrams that is coming in.
    pub(super) run: Option<Run>,
    /// In the list of those that may have something to send.
    pub(super) dirty: bool,
    pub(super) began: Moment,
    /// Something has come from the peer.
    pub(super) heard: bool,
    /// The peer has closed the link, and nothing was left to do.
    pub(super) ended_in_order: bool,
}

impl Tunnel {
    /// When session or line have something to do.
    pub(super) fn next_timeout(&self) -> Option<Moment> {
        let line = self.serial.as_ref().and_then(|serial| serial.next_timeout());
        [self.session.next_timeout(), line].into_iter().flatten().min()
    }

    /// A batch is under way, or the link is watched for room, from now on.
    #[inline]
    pub(super) fn begin_sending(&mut self, send: Option<OpId>, now: Moment) {
        (self.sending, self.sending_since, self.send) = (true, now, send);
    }

    /// The link has taken nothing for a while, though there is something for it.
    pub(super) fn stands_still(&self, now: Moment) -> bool {
        self.sending && self.sending_since.after(STALLED) <= now
    }

    /// Nothing of ours is on its way, as far as can be known here.
    pub(super) fn is_settled(&self) -> bool {
        let line = self.serial.as_ref().is_none_or(|serial| serial.is_settled());
        line && !self.sending && self.unsent.is_none()
    }
}
