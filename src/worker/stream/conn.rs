//! The state of a connection: a client accepted at an entrance, or a server reached by an exit. The
//! modules of [`super`] operate on it.

use std::path::Path;
use std::rc::Rc;

use crate::io::chunk::ChunkMut;
use crate::io::driver::{Driver, Fd, OpId, RecvMode};
use crate::io::pipe::Pipes;
use crate::policy::connection_limits::LimitGuard;
use crate::session::{Moment, StreamKey};
use crate::worker::access_entry::AccessEntry;
use crate::worker::broken::Broken;
use crate::worker::client::Client;
use crate::worker::exits::ExitState;
use crate::worker::payload_queue::PayloadQueue;
use crate::worker::stream::clients::Tentative;
use crate::worker::stream::handshake::Handshake;
use crate::worker::table::Key;

/// State in the life of a connection.
#[derive(Debug)]
pub(super) enum Stage {
    /// A client that was accepted just after the last tunnel went down: it waits for the next
    /// tunnel.
    Waiting,
    /// An exit that cannot be chosen before the client's name is known.
    ResolvingName,
    /// An exit whose server is being dialled: its dial, once begun.
    Dialing(Option<Key>),
    /// An exit whose Unix socket has a full backlog: retried until this time.
    ConnectingUnix(Rc<Path>, Option<Moment>),
    /// An exit that runs a proxy protocol with its client.
    ProxyHandshake(Box<Handshake>),
    /// Both directions may carry data.
    Open,
    /// The stream has ended; delivered data is still to be written.
    Flushing {
        /// Then reset the connection instead of closing it.
        then_reset: bool,
    },
    /// All output is written and the connection is to be reset. Waits for acknowledgement, since a
    /// reset discards unacknowledged data.
    Settling,
    /// All output is written and the socket is shut down for writing. Waits for the peer's end of
    /// data, since closing earlier would reset data in flight.
    Lingering,
    /// The socket is closed; data received from it still goes to the link.
    Draining,
}

impl Stage {
    /// The dial to the server in progress, if any.
    pub(super) fn dial(&self) -> Option<Key> {
        match self {
            Stage::Dialing(dial) => *dial,
            Stage::ProxyHandshake(handshake) => handshake.dial(),
            _ => None,
        }
    }
}

/// State of the read side of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// No read in flight.
    Idle,
    /// Polled for data and urgent data.
    Watched,
    /// A receive is in flight.
    Armed {
        op: OpId,
        mode: RecvMode,
        /// Cancellation was requested.
        cancelled: bool,
    },
}

impl Reading {
    /// Requests cancellation of a multishot receive, once. It may deliver more data before it ends.
    pub(super) fn cancel<D: Driver>(&mut self, driver: &mut D) {
        if let Reading::Armed { op, mode: RecvMode::Multishot, cancelled } = self
            && !std::mem::replace(cancelled, true)
        {
            driver.cancel(*op);
        }
    }
}

/// The last operations on a socket, which may be over. They are cancelled by their ids: a search for all
/// operations on a descriptor costs the more the more there are on others.
#[derive(Debug, Default)]
pub(super) struct Ops {
    /// A receive, or a poll for data.
    pub(super) read: Option<OpId>,
    /// A poll for errors.
    pub(super) guard: Option<OpId>,
    /// A send, or a poll for room.
    pub(super) write: Option<OpId>,
}

impl Ops {
    /// Cancels those in flight.
    pub(super) fn cancel<D: Driver>(&mut self, driver: &mut D) {
        let Ops { read, guard, write } = std::mem::take(self);
        [read, guard, write].into_iter().flatten().for_each(|op| driver.cancel(op));
    }
}

/// How a socket is read, chosen by how much data it delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadMode {
    /// Occasional small messages: polled, then received once. Only a poll reports urgent data
    /// before the data behind it is read, which makes the kernel forget it.
    Sparse,
    /// Small messages in quick succession: one multishot receive.
    Busy,
    /// Data fills buffers: received into bulk buffers, one at a time, so that a stream cannot take
    /// more than its share.
    Bulk,
    /// Far more data waits than a bulk buffer takes: polled, then spliced into the stream's pipe.
    Spliced,
}

impl ReadMode {
    /// Name of the mode in the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            ReadMode::Sparse => "sparse",
            ReadMode::Busy => "busy",
            ReadMode::Bulk => "bulk",
            ReadMode::Spliced => "spliced",
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Conn {
    /// `None` until an exit has reached its server, and while draining.
    pub(super) fd: Option<Fd>,
    pub(super) tunnel: Key,
    /// `None` once the session has ended the stream.
    pub(super) stream: Option<StreamKey>,
    pub(super) stage: Stage,
    /// Its exit. `None` for clients of local entrances.
    pub(super) exit: Option<Rc<ExitState>>,
    /// The control connection that this one belongs to. Data here keeps that one from being idle.
    pub(super) related: Option<Key>,
    /// The client, here or at the peer; for the log.
    pub(super) client: Client,
    /// Set while the stream may have to begin again on another tunnel.
    pub(super) tentative: Option<Box<Tentative>>,
    /// Returns the limits when dropped.
    pub(super) limit_guard: Option<LimitGuard>,
    /// Its line in the access log.
    pub(super) entry: AccessEntry,
    /// The PROXY header that the server receives first.
    pub(super) header: Option<Box<[u8]>>,

    pub(super) ops: Ops,
    pub(super) reading: Reading,
    pub(super) read_mode: ReadMode,
    /// In bulk or spliced: short reads in a row. Otherwise: reads in quick succession.
    pub(super) streak: u8,
    /// In bulk: reads in a row that filled their buffers.
    pub(super) full_reads: u8,
    /// Splicing this socket was refused: copy instead.
    pub(super) copy_only: bool,
    /// Queued for a receive buffer.
    pub(super) starved: bool,
    /// The end of data was read from the socket.
    pub(super) read_ended: bool,
    /// An end of data was read that may be a reset; the send in flight will tell.
    pub(super) end_doubtful: bool,
    /// Set while a socket that accepts no writes is drained, or while waiting for the rest of such
    /// a socket.
    pub(super) broken: Option<Box<Broken>>,
    /// An error poll is armed, because the socket is not being read.
    pub(super) guarded: bool,
    /// Received and not yet framed.
    pub(super) input: PayloadQueue,
    /// Input is copied here while receive buffers are scarce.
    pub(super) packed: Option<ChunkMut>,
    /// Time of the last input.
    pub(super) received_at: Moment,

    /// Delivered and not yet written.
    pub(super) output: PayloadQueue,
    /// Bytes at the front of `output` that the worker wrote itself; the session does not count
    /// them.
    pub(super) own_bytes: u64,
    /// Output of a slow reader is copied here.
    pub(super) spill: Option<ChunkMut>,
    /// The socket has not accepted all output: the output is in pool buffers, and the send in
    /// flight waits for room.
    pub(super) stalled: bool,
    /// A send is in flight, or the socket is polled for room.
    pub(super) sending: bool,
    /// The socket is polled for room.
    pub(super) waiting: bool,
    /// Queued in the list of connections with output.
    pub(super) dirty: bool,
    /// The stream was reset before the server was reached: the server gets the remaining data and
    /// then a reset.
    pub(super) reset_when_reached: bool,
    /// Urgent data received before the server was reached.
    pub(super) urgent: Option<u8>,
    /// Reading is paused, because the stream is about to be joined with its other end in this
    /// process.
    pub(super) joining: bool,
    /// Shut down the socket for writing once all output is written.
    pub(super) end_after_output: bool,

    pub(super) began: Moment,
    /// Deadline, enforced by sweeps.
    pub(super) deadline: Option<Moment>,
    /// Time of the last data in either direction.
    pub(super) last_data: Moment,
}

impl Conn {
    pub(super) fn new(tunnel: Key, stage: Stage, client: impl Into<Client>, now: Moment) -> Conn {
        Conn {
            fd: None,
            tunnel,
            stream: None,
            stage,
            exit: None,
            related: None,
            client: client.into(),
            tentative: None,
            limit_guard: None,
            entry: AccessEntry::default(),
            header: None,
            ops: Ops::default(),
            reading: Reading::Idle,
            read_mode: ReadMode::Sparse,
            streak: 0,
            full_reads: 0,
            copy_only: false,
            starved: false,
            read_ended: false,
            end_doubtful: false,
            broken: None,
            guarded: false,
            input: PayloadQueue::default(),
            packed: None,
            received_at: now,
            output: PayloadQueue::default(),
            own_bytes: 0,
            spill: None,
            stalled: false,
            sending: false,
            waiting: false,
            dirty: false,
            reset_when_reached: false,
            joining: false,
            urgent: None,
            end_after_output: false,
            began: now,
            deadline: None,
            last_data: now,
        }
    }

    /// Discards unwritten output.
    pub(super) fn forget_output(&mut self, pipes: &mut Pipes) {
        self.output.clear(pipes);
        self.own_bytes = 0;
        self.stalled = false;
    }

    /// Whether all delivered data is written.
    pub(super) fn output_is_empty(&self) -> bool {
        self.output.is_empty() && !self.sending
    }
}
