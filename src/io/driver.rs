//! What the worker asks of the kernel: operations that are started, and complete later.
//!
//! A driver owns every operation in flight, with all that the kernel may still touch for it: the
//! descriptor, the bytes to send, the address. The worker gets these back, or their result, with
//! the completion. It never waits inside an operation, only in [`Driver::wait`].

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use socket2::SockAddr;

use super::chunk::Chunk;
pub use super::gather::Gather;

/// A descriptor, shared with the operations in flight on it: it cannot be closed, nor its number
/// be given to another file, while the kernel may still act on it. Its sockets are non-blocking.
pub type Fd = Rc<OwnedFd>;

/// The worker's name for an operation. It means nothing to the driver and comes back with every
/// completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// The driver's name for one operation in flight, to cancel it by. An id whose operation is over
/// is stale, and is never confused with a later operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OpId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// Which of the driver's buffers a receive fills. Both are shared by all receives of their class,
/// so that an idle connection holds no buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BufferClass {
    /// Many small buffers, for interactive streams.
    Small,
    /// Fewer large ones, for streams in bulk and for the persistent connection.
    Bulk,
}

/// How often a receive completes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecvMode {
    /// Again and again, until end of data, an error (no buffer left is one) or cancellation. Any
    /// completion may be the last: watch [`Completion::more`].
    Multishot,
    /// Once, what there is; with nothing there it ends with `EAGAIN` instead of waiting, so that
    /// no receive that is under way claims a buffer for long.
    Now,
}

/// What a send does when the socket takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SendWait {
    /// Waits until at least one byte was taken.
    Yes,
    /// Completes at once with `EAGAIN`.
    No,
}

/// What came of an operation. Errors carry the kernel's number (`raw_os_error`); a cancelled
/// operation ends with `ECANCELED`, unless its real end came first.
#[derive(Debug)]
pub enum Outcome {
    /// A connection, non-blocking and close-on-exec.
    Accepted(io::Result<OwnedFd>),
    /// Bytes, or `None` at end of data. `ENOBUFS`: no buffer of the class was free (this may come
    /// before any data does); start the receive again when chunks were dropped.
    Received(io::Result<Option<Chunk>>),
    /// How many bytes of the gather were taken, from its front. It comes back as it was given,
    /// not advanced.
    Sent {
        /// Bytes taken: fewer than were given is usual.
        result: io::Result<usize>,
        /// The gather that was given.
        gather: Box<Gather>,
    },
    /// The connection was made, or refused.
    Connected(io::Result<()>),
    /// The events that happened (`POLLIN` and so on, as in poll(2)).
    Polled(io::Result<u32>),
}

/// One step of an operation.
#[derive(Debug)]
pub struct Completion {
    /// As given when the operation was started.
    pub token: Token,
    /// Whether the operation goes on and will complete again. Every operation has exactly one
    /// completion where this is false, its last.
    pub more: bool,
    /// What happened.
    pub outcome: Outcome,
}

/// What a driver has done since it was made. Plain sums, for metrics and for tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DriverCounters {
    /// Times the kernel was entered to submit, reap or wait.
    pub enters: u64,
    /// Operations given to the kernel, cancellations included.
    pub submissions: u64,
    /// Receives among them.
    pub receives: u64,
    /// Sends among them.
    pub sends: u64,
    /// Polls among them.
    pub polls: u64,
    /// Completions passed to the worker.
    pub completions: u64,
    /// Cancellations by an id whose operation was already over.
    pub stale: u64,
    /// Receives that ended because no buffer was free.
    pub no_buffers: u64,
    /// Times that operations were queued faster than the queue to the kernel holds.
    pub queue_full: u64,
    /// Times that the kernel had more completions than the queue from it holds.
    pub overflows: u64,
    /// Submissions that the kernel refused for the moment, and that were tried again.
    pub retries: u64,
    /// Sends that the kernel was asked to do from our own pages.
    pub zero_copy_sends: u64,
    /// Those of them that it reports to have copied after all.
    pub zero_copy_copied: u64,
}

/// A way of doing I/O on one thread.
///
/// Starting an operation never fails and never blocks: errors come as completions. Operations
/// are given to the kernel in the order in which they were started, at the latest in the next
/// [`wait`](Driver::wait); only one send may be in flight per descriptor.
pub trait Driver {
    /// For logs: which driver this is.
    fn name(&self) -> &'static str;

    /// The time since the driver was made. It never goes back.
    fn now(&self) -> Duration;

    /// Accepts connections on a listening socket, one completion for each, until an error or
    /// cancellation.
    fn accept(&mut self, fd: &Fd, token: Token) -> OpId;

    /// Accepts one connection, and leaves all others in the kernel's queue.
    fn accept_one(&mut self, fd: &Fd, token: Token) -> OpId;

    /// Receives into buffers of `class`.
    fn recv(&mut self, fd: &Fd, mode: RecvMode, class: BufferClass, token: Token) -> OpId;

    /// Sends a gather (not empty). No `SIGPIPE` comes of it. The driver may share a chunk for
    /// longer than the operation lasts, until the far end has it; a wait ends when it lets go.
    fn send(&mut self, fd: &Fd, gather: Box<Gather>, wait: SendWait, token: Token) -> OpId;

    /// Connects a socket.
    fn connect(&mut self, fd: &Fd, addr: SockAddr, token: Token) -> OpId;

    /// Waits for any of `events` (as in poll(2)) on a descriptor. A multishot poll completes for
    /// what is so already when it is started, and then whenever more happens: like an edge, so
    /// read until `EAGAIN`.
    fn poll(&mut self, fd: &Fd, events: u32, multishot: bool, token: Token) -> OpId;

    /// Asks for the end of an operation. Racy by nature: whatever it was about to do may still
    /// happen, and it completes exactly once with `more == false` either way. A stale id does
    /// nothing and is counted.
    fn cancel(&mut self, op: OpId);

    /// Asks for the end of all operations on a descriptor, each of which then completes.
    fn cancel_all(&mut self, fd: &Fd);

    /// As [`cancel_all`](Driver::cancel_all), for a descriptor that another process goes on with: what
    /// happens on it is not told of any more, even after it is closed here.
    fn leave(&mut self, fd: &Fd) {
        self.cancel_all(fd);
    }

    /// Submits everything started, waits for at least one completion or for `timeout` (`None`: for
    /// ever; zero: not at all), and appends all completions there are to `out`. May return with
    /// none before the time: after a signal, or when only buffers have come back.
    ///
    /// # Errors
    ///
    /// Only when the driver itself can go on no more.
    fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> io::Result<()>;

    /// Submits everything started and looks for completions for `time` at most, without sleeping;
    /// whoever else wants the processor gets it meanwhile. The next [`wait`](Driver::wait) has them.
    /// For those who expect an answer sooner than waking up takes.
    fn watch_for(&mut self, time: Duration);

    /// Buffers of a class that no chunk holds: those in the kernel's hands and those about to be.
    fn free_buffers(&self, class: BufferClass) -> usize;

    /// Operations that have not had their last completion.
    fn in_flight(&self) -> usize;

    /// What was done so far.
    fn counters(&self) -> &DriverCounters;
}
