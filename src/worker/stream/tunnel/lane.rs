//! A lane: one connection of a session. It holds a link, the transform between frames and link
//! bytes, the frame decoder, and the state of reads and writes in flight. The modules of [`super`]
//! operate on it.

use std::collections::VecDeque;
use std::rc::Rc;

use super::budget::Budget;
use super::retained::Retained;
use super::serial::SerialLine;
use super::tls::{Tls, TlsError};
use crate::io::chunk::Chunk;
use crate::io::driver::{Driver, Fd, Gather, OpId};
use crate::io::link::Link;
use crate::io::pipe::Pipe;
use crate::limits::{AHEAD_BYTES_MIN, BATCH_BYTES, BATCH_PARTS, ENCRYPTED_FRAME_BYTES};
use crate::serial_line::LineError;
use crate::session::Moment;
use crate::tls::settings::Settings;
use crate::wire::Decoder;
use crate::worker::buffers::Buffers;
use crate::worker::message::Run;
use crate::worker::stream::conn::Reading;
use crate::worker::stream::stalled::STALLED;
use crate::worker::table::Key;

/// Sink of the payload of the frame being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    Nowhere,
    Conn(Key),
    Urgent(Key),
    /// The run of datagrams being received.
    Flow,
}

/// How the link is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkReadMode {
    /// One multishot receive into bulk buffers.
    Received,
    /// For big frames: the link is polled and read ahead a little, and the rest of a big frame is
    /// spliced. Links that are not sockets are always read this way.
    Spliced,
}

/// The resource that a link lacks to read into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    /// A bulk receive buffer.
    Receive,
    /// A buffer of the worker's own pool, to read ahead into.
    Pool,
}

/// The spliced rest of a frame whose head was sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// The source. It may be gone, but the frame must be completed all the same.
    pub(super) conn: Key,
    pub(super) pipe: Rc<Pipe>,
    pub(super) left_bytes: usize,
    /// How many of them, the next ones, are kept for the case that the connection breaks.
    pub(super) kept_bytes: usize,
}

impl Outgoing {
    /// So many of the next bytes have left the pipe.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.left_bytes -= bytes;
        self.kept_bytes = self.kept_bytes.saturating_sub(bytes);
    }
}

/// What stands between the frames of a session and the bytes of its link.
#[derive(Debug)]
pub(super) enum Transform {
    /// Identity: frames may be spliced and batched.
    None,
    /// The link layer of a serial line, with encryption above it if that is wanted.
    SerialLine(Box<SerialLine>),
    /// Encryption alone. A batch of frames is sealed at once.
    Tls(Box<Tls>),
}

/// Ends the link. Layer: that of the transform.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransformError {
    #[error(transparent)]
    Line(#[from] LineError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Transform {
    /// The transform that a link requires. `encryption`: with what it is to be encrypted.
    pub(super) fn of(link: &Link, encryption: Option<&Settings>, now: Moment) -> Transform {
        match (link.line(), encryption) {
            (Some(line), encryption) => {
                Transform::SerialLine(Box::new(SerialLine::new(line, encryption, now)))
            }
            (None, Some(settings)) => {
                Transform::Tls(Box::new(Tls::new(settings, link.may_await_peer(), now)))
            }
            (None, None) => Transform::None,
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
            Transform::Tls(_) | Transform::None => None,
        }
    }

    pub(super) fn tls(&self) -> Option<&Tls> {
        match self {
            Transform::Tls(tls) => Some(tls),
            Transform::SerialLine(line) => line.tls(),
            Transform::None => None,
        }
    }

    #[inline]
    pub(super) fn tls_mut(&mut self) -> Option<&mut Tls> {
        match self {
            Transform::Tls(tls) => Some(tls),
            Transform::SerialLine(line) => line.tls_mut(),
            Transform::None => None,
        }
    }

    /// The transform's limit on the payload of a frame, if any.
    pub(super) fn frame_bytes_max(&self) -> Option<u64> {
        match self {
            Transform::SerialLine(line) => Some(line.frame_bytes()),
            Transform::Tls(_) => Some(ENCRYPTED_FRAME_BYTES),
            Transform::None => None,
        }
    }

    /// Batch size after which no further frame is added. A serial line takes one frame at a time,
    /// so that the most urgent one is always next.
    #[inline]
    pub(super) fn batch_bytes(&self) -> usize {
        match self {
            Transform::SerialLine(_) => 1,
            Transform::Tls(_) | Transform::None => BATCH_BYTES,
        }
    }

    /// Whether the link is read regardless of the session's backlog.
    #[inline]
    pub(super) fn is_always_read(&self) -> bool {
        matches!(self, Transform::SerialLine(line) if line.is_always_read())
    }

    /// Whether the link is not read, since what was received waits for buffers.
    #[inline]
    pub(super) fn is_backed_up(&self) -> bool {
        matches!(self, Transform::Tls(tls) if tls.is_backed_up())
    }

    /// Whether all written data has reached the peer, as far as that is known.
    fn is_settled(&self) -> bool {
        match self {
            Transform::SerialLine(line) => line.is_settled(),
            Transform::Tls(tls) => tls.is_settled(),
            Transform::None => true,
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Moment> {
        match self {
            Transform::SerialLine(line) => line.next_timeout(),
            Transform::Tls(tls) => tls.next_timeout(),
            Transform::None => None,
        }
    }

    /// Advances the clock.
    pub(super) fn on_time(&mut self, now: Moment) -> Result<(), TransformError> {
        match self {
            Transform::SerialLine(line) => line.on_time(now),
            Transform::Tls(tls) => Ok(tls.on_time(now)?),
            Transform::None => Ok(()),
        }
    }
}

/// One connection of a session: a link, its transform, and the state of both directions.
#[derive(Debug)]
pub(super) struct Lane {
    /// What operations on the link are named after. They find nothing when another link has taken its place.
    pub(super) id: Key,
    pub(super) transform: Transform,
    pub(super) link: Link,
    pub(super) decoder: Decoder,
    pub(super) destination: Destination,
    /// Received and not decoded.
    pub(super) received: VecDeque<Chunk>,
    /// The peer ends behind that.
    pub(super) input_ended: bool,
    /// What may be decoded in this turn.
    pub(super) budget: Budget,
    /// The rest is queued for a later turn.
    pub(super) is_overdue: bool,
    pub(super) reading: Reading,
    pub(super) read_mode: LinkReadMode,
    /// `Received`: big frames in a row. `Spliced`: turns in a row without one.
    pub(super) streak: u8,
    /// Size of the next read ahead.
    pub(super) ahead_bytes: usize,
    /// Part of the frame being read was spliced, so the rest is spliced too, even if it is small.
    pub(super) splicing: bool,
    /// Splicing this link was refused: copy instead.
    pub(super) copy_only: bool,
    /// The link is not read until this resource is available.
    pub(super) starved: Option<Lack>,
    /// Queued for the worker's own pool.
    pub(super) waits_for_pool: bool,
    /// A batch is in flight, or the link is polled for room.
    pub(super) sending: bool,
    /// While `sending`: time at which the link last accepted data.
    pub(super) sending_since: Moment,
    /// The send of a batch that may refer to receive buffers.
    pub(super) send: Option<OpId>,
    /// The rest of a batch, while a link that is not a socket is polled for room, or of a frame
    /// that the transform has not accepted.
    pub(super) unsent: Option<Box<Gather>>,
    /// Spliced payload that must follow the batch in flight, before anything else.
    pub(super) outgoing: Option<Outgoing>,
    /// The run of datagrams being received.
    pub(super) run: Option<Run>,
    /// Bytes of frames, heads included, that were given to this link and read from it. The peer's
    /// counts are the same.
    pub(super) framed_bytes: u64,
    pub(super) read_bytes: u64,
    /// What was sent and the peer has not read, where another connection may go on.
    pub(super) retained: Retained,
    /// What this link sends first: it goes on for one that broke.
    pub(super) resend: VecDeque<Chunk>,
}

impl Lane {
    pub(super) fn new(
        link: Link,
        transform: Transform,
        decoder: Decoder,
        copy_only: bool,
        now: Moment,
    ) -> Lane {
        // What is encrypted passes through the process.
        let copy_only = copy_only || transform.tls().is_some();
        let read_mode =
            if link.is_socket() { LinkReadMode::Received } else { LinkReadMode::Spliced };
        Lane {
            id: Key::NONE,
            transform,
            link,
            decoder,
            destination: Destination::Nowhere,
            received: VecDeque::new(),
            input_ended: false,
            budget: Budget::default(),
            is_overdue: false,
            reading: Reading::Idle,
            read_mode,
            streak: 0,
            ahead_bytes: AHEAD_BYTES_MIN,
            splicing: false,
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
            retained: Retained::default(),
            resend: VecDeque::new(),
        }
    }

    /// The link broke: what belongs to it alone goes, and what the lane is stays.
    pub(super) fn leave_link<D: Driver>(
        &mut self,
        driver: &mut D,
        buffers: &mut Buffers,
        null: Fd,
    ) {
        self.end(driver);
        self.link.close(null);
        if let Some(unsent) = self.unsent.take() {
            buffers.give_back(unsent);
        }
        if let Some(tls) = self.transform.tls_mut() {
            tls.leave_link(buffers);
        }
        self.received.clear();
        self.resend.clear();
        (self.sending, self.send, self.input_ended) = (false, None, false);
        (self.reading, self.starved, self.waits_for_pool) = (Reading::Idle, None, false);
    }

    /// The lane goes on over the link of another one, behind what that sends first. Of what it receives first
    /// it has read so many bytes.
    pub(super) fn go_on_over(&mut self, mut first: Gather, other: Lane, skip_bytes: u64) {
        let broken = std::mem::replace(self, other);
        self.decoder.take_up(broken.decoder, skip_bytes);
        self.destination = broken.destination;
        self.run = broken.run;
        self.outgoing = broken.outgoing;
        self.framed_bytes = broken.framed_bytes;
        self.read_bytes = broken.read_bytes;
        self.retained = broken.retained;
        self.resend = first.drain().chain(self.retained.chunks().cloned()).collect();
        (self.is_overdue, self.starved, self.waits_for_pool) = (false, None, false);
    }

    /// Puts the next of what is sent first into an empty batch. `false`: nothing is left of it.
    pub(super) fn take_resend(&mut self, batch: &mut Gather, batch_bytes: usize) -> bool {
        while batch.len_bytes() < batch_bytes
            && batch.parts() < BATCH_PARTS
            && let Some(chunk) = self.resend.pop_front()
        {
            batch.push(chunk);
        }
        !batch.is_empty()
    }

    /// Spliced payload that is to follow the batch that is sent now, in bytes.
    #[inline]
    pub(super) fn outgoing_bytes(&self) -> Option<usize> {
        let outgoing = self.outgoing.as_ref().filter(|_| self.resend.is_empty())?;
        Some(outgoing.left_bytes)
    }

    /// Whether nothing but spliced payload may be sent now.
    #[inline]
    pub(super) fn outgoing_is_next(&self) -> bool {
        self.outgoing.is_some() && self.resend.is_empty()
    }

    /// Keeps the rest of what was being decoded.
    pub(super) fn put_back(&mut self, rest: Chunk) {
        if !rest.is_empty() {
            self.received.push_front(rest);
        }
    }

    /// Ends the link and what is in flight on it. Where that is a socket, what is not named here ends
    /// with it: a search for all operations on a descriptor costs the more the more others there are.
    pub(super) fn end<D: Driver>(&mut self, driver: &mut D) {
        self.link.shut_down();
        if !self.link.is_socket() {
            driver.cancel_all(self.link.input());
            if let Some(output) = self.link.lone_output() {
                driver.cancel_all(output);
            }
            return;
        }
        // A peer that goes on sending would be received from for as long as it does.
        self.reading.cancel(driver);
        if let Some(send) = self.send.take() {
            driver.cancel(send);
        }
    }

    /// Tells the peer that nothing follows, or what was wrong, where the transform has words for that.
    /// As far as the link takes it at once; behind half a record it would mean nothing.
    pub(super) fn say_end(&mut self, buffers: &mut Buffers) {
        if let Some(tls) = self.transform.tls_mut() {
            tls.say_end(None);
        }
        if self.sending || self.unsent.is_some() {
            return;
        }
        let tls = match &mut self.transform {
            Transform::None => return,
            Transform::SerialLine(line) => return line.say_last(&self.link),
            Transform::Tls(tls) => tls,
        };
        let mut last = buffers.take_gather();
        tls.write_control(buffers, &mut last);
        if !last.is_empty() {
            // Whether the peer still reads does not matter any more.
            let _ = self.link.send(&mut last, false);
        }
        buffers.give_back(last);
    }

    /// Notes that a batch is in flight or the link is polled for room, as of now.
    #[inline]
    pub(super) fn begin_sending(&mut self, send: Option<OpId>, now: Moment) {
        (self.sending, self.sending_since, self.send) = (true, now, send);
    }

    /// The link has data to send and has accepted none for a while.
    pub(super) fn is_stalled(&self, now: Moment) -> bool {
        self.sending && self.sending_since.after(STALLED) <= now
    }

    /// Whether nothing sent is still in flight, as far as that is known here, or nobody seems to be there
    /// to take it.
    pub(super) fn is_settled(&self) -> bool {
        let is_taken = self.transform.is_settled() && !self.sending && self.unsent.is_none();
        is_taken || self.is_unheard()
    }

    /// Whether nobody has answered to what was sent for so long that a process that leaves does not wait
    /// for it.
    pub(super) fn is_unheard(&self) -> bool {
        matches!(&self.transform, Transform::SerialLine(line) if line.is_unheard())
    }
}
