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

use crate::io::chunk::ChunkMut;
use crate::io::driver::{Gather, OpId};
use crate::io::link::Link;
use crate::io::pipe::Pipe;
use crate::session::{Moment, Session};
use crate::wire::Decoder;
use crate::worker::datagram::datagrams::Run;
use crate::worker::stream::local::Reading;
use crate::worker::stream::stalled::STALLED;
use crate::worker::table::Key;
use crate::worker::tunnel::serial::SerialLine;

/// Where the payload of the frame being read goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Destination {
    Nowhere,
    Local(Key),
    Urgent(Key),
    /// To the run that is coming in.
    Flow,
}

/// How the link is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum LinkPace {
    /// By one multishot receive into large buffers.
    Received,
    /// Big frames come: watched, read ahead a little, and the rest of such a frame is spliced. What
    /// is no socket is always read in this way.
    Spliced,
}

/// What a link waits for that finds no buffer to read into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Lack {
    /// A bulk receive buffer.
    Receive,
    /// A buffer of the engine's own pool, to read ahead into.
    Pool,
}

/// The spliced end of a frame whose head has been sent.
#[derive(Debug)]
pub(in crate::worker) struct Outgoing {
    /// Whose it is: it may be gone by now, and the frame must be finished all the same.
    pub(in crate::worker) local: Key,
    pub(in crate::worker) pipe: Rc<Pipe>,
    pub(in crate::worker) left_bytes: usize,
}

/// One persistent connection with its session.
#[derive(Debug)]
pub(in crate::worker) struct Tunnel {
    pub(in crate::worker) link: Link,
    pub(in crate::worker) session: Session,
    pub(in crate::worker) decoder: Decoder,
    pub(in crate::worker) destination: Destination,
    pub(in crate::worker) reading: Reading,
    pub(in crate::worker) pace: LinkPace,
    /// Received: big frames in a row. Spliced: turns in a row that brought none.
    pub(in crate::worker) streak: u8,
    /// How much is read ahead next.
    pub(in crate::worker) ahead_bytes: usize,
    /// Payload of the frame being read was spliced: so is what is left of it, little as it may be.
    pub(in crate::worker) passing: bool,
    /// Splicing this link was refused: it is copied.
    pub(in crate::worker) copy_only: bool,
    /// The link is not read until there is a buffer.
    pub(in crate::worker) starved: Option<Lack>,
    /// In the list of those that wait for the engine's own pool.
    pub(in crate::worker) waits_for_pool: bool,
    /// Where small payload is copied to that waits for the link while receive buffers are scarce.
    pub(in crate::worker) packed: Option<ChunkMut>,
    /// A batch is under way, or the link is watched for room.
    pub(in crate::worker) sending: bool,
    /// Since when the link has taken nothing, if so.
    pub(in crate::worker) sending_since: Moment,
    /// The send of a batch that may stand in receive buffers.
    pub(in crate::worker) send: Option<OpId>,
    /// The link layer of a serial line.
    pub(in crate::worker) serial: Option<Box<SerialLine>>,
    /// What is left of a batch while a link that is no socket is watched for room, or of a frame
    /// that the link layer has not taken.
    pub(in crate::worker) unsent: Option<Box<Gather>>,
    /// What goes out before anything else does, behind the batch under way.
    pub(in crate::worker) outgoing: Option<Outgoing>,
    /// The run of datagrams that is coming in.
    pub(in crate::worker) run: Option<Run>,
    /// In the list of those that may have something to send.
    pub(in crate::worker) dirty: bool,
    pub(in crate::worker) began: Moment,
    /// Something has come from the peer.
    pub(in crate::worker) heard: bool,
    /// The peer has closed the link, and nothing was left to do.
    pub(in crate::worker) ended_in_order: bool,
}

impl Tunnel {
    /// When session or line have something to do.
    pub(in crate::worker) fn next_timeout(&self) -> Option<Moment> {
        let line = self.serial.as_ref().and_then(|serial| serial.next_timeout());
        [self.session.next_timeout(), line].into_iter().flatten().min()
    }

    /// A batch is under way, or the link is watched for room, from now on.
    #[inline]
    pub(in crate::worker) fn begin_sending(&mut self, send: Option<OpId>, now: Moment) {
        (self.sending, self.sending_since, self.send) = (true, now, send);
    }

    /// The link has taken nothing for a while, though there is something for it.
    pub(in crate::worker) fn stands_still(&self, now: Moment) -> bool {
        self.sending && self.sending_since.after(STALLED) <= now
    }

    /// Nothing of ours is on its way, as far as can be known here.
    pub(in crate::worker) fn is_settled(&self) -> bool {
        let line = self.serial.as_ref().is_none_or(|serial| serial.is_settled());
        line && !self.sending && self.unsent.is_none()
    }
}
