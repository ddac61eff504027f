//! A connection: a client that came in at an entrance, or a server reached by an exit.

use std::path::Path;
use std::rc::Rc;

use crate::io::chunk::ChunkMut;
use crate::io::driver::{Driver, Fd, OpId, RecvMode};
use crate::io::pipe::Pipes;
use crate::policy::connection_limits::LimitGuard;
use crate::session::{Moment, StreamKey};
use crate::worker::broken::Broken;
use crate::worker::ingress::clients::Tentative;
use crate::worker::proxy::session::{ProxySession, Server};
use crate::worker::stream::client::Client;
use crate::worker::stream::payload_queue::PayloadQueue;
use crate::worker::table::Key;

/// Where a connection is in its life.
#[derive(Debug)]
pub(in crate::worker) enum Stage {
    /// A client that was accepted when the last tunnel was gone already: it waits for the next.
    Waiting,
    /// An exit that is to be chosen when the client's name is known.
    ResolvingName,
    /// An exit that has not reached its server: its dial, once that has begun.
    Dialing(Option<Key>),
    /// An exit whose Unix socket takes no more clients for now: asked again until this time.
    ConnectingUnix(Rc<Path>, Option<Moment>),
    /// An exit whose client is asked where to go.
    ProxyHandshake(Box<ProxySession>),
    /// Both directions may carry data.
    Open,
    /// The stream has ended: what was delivered is still to be written.
    Flushing {
        /// Then the connection is reset, not closed.
        then_reset: bool,
    },
    /// All is written and the connection is to be reset: waiting for what is written to arrive, which
    /// a reset would drop.
    Settling,
    /// All is written and the peer has been told: waiting for its end, so that closing does not
    /// reset what is still on its way to it.
    Lingering,
    /// The socket is gone; what it had sent still goes to the link.
    Draining,
}

impl Stage {
    /// The dial in progress for the server, if there is one.
    pub(in crate::worker) fn dial(&self) -> Option<Key> {
        match self {
            Stage::Dialing(dial) => *dial,
            Stage::ProxyHandshake(talk) => match talk.server {
                Server::Dialing(dial) => Some(dial),
                _ => None,
            },
            _ => None,
        }
    }
}

/// How a socket is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Reading {
    /// Not at all.
    Idle,
    /// Watched for data and urgent data.
    Watched,
    /// A receive is under way.
    Armed {
        op: OpId,
        mode: RecvMode,
        /// It was asked to end.
        cancelled: bool,
    },
}

impl Reading {
    /// Asks a multishot receive to end, once. It may bring more before it does.
    pub(in crate::worker) fn cancel<D: Driver>(&mut self, driver: &mut D) {
        if let Reading::Armed { op, mode: RecvMode::Multishot, cancelled } = self
            && !std::mem::replace(cancelled, true)
        {
            driver.cancel(*op);
        }
    }
}

/// How much a socket gives, which says how it is best read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum ReadMode {
    /// A keystroke now and then: watched, then received once. Only so urgent data is seen before
    /// the data behind it is read, which makes the kernel forget it.
    Sparse,
    /// Small messages in quick succession: one multishot receive.
    Busy,
    /// It fills buffers: received into large ones, one at a time, so that it cannot take more
    /// than its share of them.
    Bulk,
    /// Much more waits than such a buffer takes: watched, then spliced into the stream's pipe.
    Spliced,
}

impl ReadMode {
    /// Its name for the log.
    pub(in crate::worker) fn name(self) -> &'static str {
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
pub(in crate::worker) struct Conn {
    /// None until an exit has reached its server, and when draining.
    pub(in crate::worker) fd: Option<Fd>,
    pub(in crate::worker) tunnel: Key,
    /// None once the session has ended the stream.
    pub(in crate::worker) stream: Option<StreamKey>,
    pub(in crate::worker) stage: Stage,
    /// The place of its exit in the plan, for what that has for itself; none of a client's that came
    /// in here.
    pub(in crate::worker) exit: Option<usize>,
    /// The control connection whose affair this one is: that is not silent while this carries data.
    pub(in crate::worker) related: Option<Key>,
    /// The client, here or at the peer: for the log.
    pub(in crate::worker) client: Client,
    /// Its stream may have to begin again, by another tunnel.
    pub(in crate::worker) tentative: Option<Box<Tentative>>,
    /// Given back with all the rest.
    pub(in crate::worker) limit_guard: Option<LimitGuard>,
    /// The PROXY header that the server gets before anything else.
    pub(in crate::worker) header: Option<Box<[u8]>>,

    pub(in crate::worker) reading: Reading,
    pub(in crate::worker) read_mode: ReadMode,
    /// While in bulk or spliced, short reads in a row; else, reads in a row that came close
    /// together.
    pub(in crate::worker) streak: u8,
    /// While in bulk, reads in a row that left nothing of their buffers.
    pub(in crate::worker) full_reads: u8,
    /// Splicing this socket was refused: it is copied.
    pub(in crate::worker) copy_only: bool,
    /// In the list of those that wait for a receive buffer.
    pub(in crate::worker) starved: bool,
    /// The socket has given its end of data.
    pub(in crate::worker) read_ended: bool,
    /// It has, and may have been reset: the send under way will say.
    pub(in crate::worker) end_doubtful: bool,
    /// It takes no more, and gives what it has left; or it waits for the rest of one like that.
    pub(in crate::worker) broken: Option<Box<Broken>>,
    /// It is watched for breaking, which is not noticed by reading while that has to wait.
    pub(in crate::worker) guarded: bool,
    /// Received and not yet framed.
    pub(in crate::worker) input: PayloadQueue,
    /// Where more of it is copied to while receive buffers are scarce.
    pub(in crate::worker) packed: Option<ChunkMut>,
    /// When the last of it came.
    pub(in crate::worker) received_at: Moment,

    /// Delivered and not yet written.
    pub(in crate::worker) output: PayloadQueue,
    /// So many bytes at the front of it are our own: the session does not know of them.
    pub(in crate::worker) own_bytes: u64,
    /// Where a slow reader's output is copied to.
    pub(in crate::worker) spill: Option<ChunkMut>,
    /// The socket did not take all it was given: output is kept in buffers of our own, and the
    /// send under way waits until there is room.
    pub(in crate::worker) stalled: bool,
    /// A send is under way, or the socket is watched for room.
    pub(in crate::worker) sending: bool,
    /// It is watched for room.
    pub(in crate::worker) waiting: bool,
    /// In the list of those with output to write.
    pub(in crate::worker) dirty: bool,
    /// Its stream was reset before the server was reached: that gets what is left, and is reset.
    pub(in crate::worker) reset_when_reached: bool,
    /// Urgent data that came before the server was reached.
    pub(in crate::worker) urgent: Option<u8>,
    /// It is left unread: it is about to be joined with the other end of its stream, here.
    pub(in crate::worker) joining: bool,
    /// When all output is written, the socket is shut down for writing.
    pub(in crate::worker) end_after_output: bool,

    /// When patience ends; looked at in sweeps.
    pub(in crate::worker) deadline: Option<Moment>,
    /// Last data either way.
    pub(in crate::worker) last_data: Moment,
}

impl Conn {
    pub(in crate::worker) fn new(
        tunnel: Key,
        stage: Stage,
        client: impl Into<Client>,
        now: Moment,
    ) -> Conn {
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
            header: None,
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
            deadline: None,
            last_data: now,
        }
    }

    /// Drops what was not written.
    pub(in crate::worker) fn forget_output(&mut self, pipes: &mut Pipes) {
        self.output.clear(pipes);
        self.own_bytes = 0;
        self.stalled = false;
    }

    /// Nothing delivered is left to be written.
    pub(in crate::worker) fn output_is_empty(&self) -> bool {
        self.output.is_empty() && !self.sending
    }
}
