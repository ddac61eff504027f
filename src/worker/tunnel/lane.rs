//! A lane: one connection of a session. A link, a transform that its bytes pass through, the decoder
//! of its frames, and what is under way on it.

use std::rc::Rc;

use super::serial::SerialLine;
use crate::io::driver::{Gather, OpId};
use crate::io::link::Link;
use crate::io::pipe::Pipe;
use crate::limits::{AHEAD_BYTES_MIN, BATCH_BYTES};
use crate::serial_line::LineError;
use crate::session::Moment;
use crate::wire::Decoder;
use crate::worker::datagram::datagrams::Run;
use crate::worker::stream::conn::Reading;
use crate::worker::stream::stalled::STALLED;
use crate::worker::table::Key;

/// Where the payload of the frame being read goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    Nowhere,
    Conn(Key),
    Urgent(Key),
    /// To the run that is coming in.
    Flow,
}

/// How the link is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkReadMode {
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
    pub(super) conn: Key,
    pub(super) pipe: Rc<Pipe>,
    pub(super) left_bytes: usize,
}

/// What stands between the frames of a session and the bytes of its link.
#[derive(Debug)]
pub(super) enum Transform {
    /// Nothing: frames may be spliced, and batched.
    None,
    /// The link layer of a serial line.
    SerialLine(Box<SerialLine>),
}

impl Transform {
    /// What a link needs.
    pub(super) fn of(link: &Link, now: Moment) -> Transform {
        match link.line() {
            Some((bytes_per_second, checked)) => {
                Transform::SerialLine(Box::new(SerialLine::new(bytes_per_second, checked, now)))
            }
            None => Transform::None,
        }
    }

    /// Whether the link's bytes are the frames themselves.
    #[inline]
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Transform::None)
    }

    pub(super) fn serial_line(&mut self) -> Option<&mut SerialLine> {
        match self {
            Transform::SerialLine(line) => Some(line),
            Transform::None => None,
        }
    }

    /// What a frame of the session carries at most, if this bounds it.
    pub(super) fn frame_bytes_max(&self) -> Option<u64> {
        match self {
            Transform::SerialLine(line) => Some(line.frame_bytes()),
            Transform::None => None,
        }
    }

    /// Bytes after which no further frame is put into a batch. A serial line takes one at a time, so
    /// that the most urgent goes next.
    #[inline]
    pub(super) fn batch_bytes(&self) -> usize {
        match self {
            Transform::SerialLine(_) => 1,
            Transform::None => BATCH_BYTES,
        }
    }

    /// Whether the link is read however much waits for the session.
    #[inline]
    pub(super) fn is_always_read(&self) -> bool {
        matches!(self, Transform::SerialLine(line) if line.is_always_read())
    }

    /// All that was written is with the peer, as far as that can be known.
    fn is_settled(&self) -> bool {
        match self {
            Transform::SerialLine(line) => line.is_settled(),
            Transform::None => true,
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Moment> {
        match self {
            Transform::SerialLine(line) => line.next_timeout(),
            Transform::None => None,
        }
    }

    /// It is now `now`.
    pub(super) fn on_time(&mut self, now: Moment) -> Result<(), LineError> {
        match self {
            Transform::SerialLine(line) => line.on_time(now),
            Transform::None => Ok(()),
        }
    }
}

/// One connection of a session: a link, what its bytes pass through, and what is known of those.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) transform: Transform,
    pub(super) link: Link,
    pub(super) decoder: Decoder,
    pub(super) destination: Destination,
    pub(super) reading: Reading,
    pub(super) read_mode: LinkReadMode,
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
    /// A batch is under way, or the link is watched for room.
    pub(super) sending: bool,
    /// Since when the link has taken nothing, if so.
    pub(super) sending_since: Moment,
    /// The send of a batch that may stand in receive buffers.
    pub(super) send: Option<OpId>,
    /// What is left of a batch while a link that is no socket is watched for room, or of a frame
    /// that the link layer has not taken.
    pub(super) unsent: Option<Box<Gather>>,
    /// What goes out before anything else does, behind the batch under way.
    pub(super) outgoing: Option<Outgoing>,
    /// The run of datagrams that is coming in.
    pub(super) run: Option<Run>,
    /// Bytes of frames, heads among them, that were given to this link, and that were read from it.
    /// The peer's counts are the same.
    pub(super) framed_bytes: u64,
    pub(super) read_bytes: u64,
}

impl Lane {
    pub(super) fn new(
        link: Link,
        transform: Transform,
        decoder: Decoder,
        copy_only: bool,
        now: Moment,
    ) -> Lane {
        let read_mode =
            if link.is_socket() { LinkReadMode::Received } else { LinkReadMode::Spliced };
        Lane {
            transform,
            link,
            decoder,
            destination: Destination::Nowhere,
            reading: Reading::Idle,
            read_mode,
            streak: 0,
            ahead_bytes: AHEAD_BYTES_MIN,
            passing: false,
            copy_only,
            starved: None,
            waits_for_pool: false,
            sending: false,
            sending_since: now,
            send: None,
            unsent: None,
            outgoing: None,
            run: None,
            framed_bytes: 0,
            read_bytes: 0,
        }
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
        self.transform.is_settled() && !self.sending && self.unsent.is_none()
    }
}
