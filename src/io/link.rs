//! What the persistent connection goes through, whatever that is: a socket, or descriptors that
//! are none (FIFOs, pipes, devices), one to read from and one to write to.
//!
//! Sockets are read and written by the driver. Others are polled by it and read and written here,
//! at once: a ring has no receive for them, and its reads would occupy a kernel thread each.

use std::fmt;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::chunk::ChunkMut;
use super::congestion::CongestionPolicy;
use super::direct;
use super::driver::{Fd, Gather};
use super::fifo;
use super::net;
use super::serial::{OpenError, SerialPort};
use super::stdio::Unblocked;
use crate::limits::{LISTEN_AGAIN_MILLIS, LISTEN_PATIENCE_MILLIS};

/// What is to carry the persistent connection cannot be opened. Layer: engine; scope: the link; begun
/// by this machine.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct LinkError {
    /// What, with the parameter that named it, why, and what to do.
    text: String,
}

impl LinkError {
    /// Of something that has a path: `parameter` says by what words it was given.
    pub(crate) fn new(parameter: &str, path: &Path, why: &str, remedy: &str) -> LinkError {
        LinkError { text: format!("{parameter} {}: {why}; {remedy}", path.display()) }
    }

    /// Of something that has none.
    pub(crate) fn of(what: &str, why: &str, remedy: &str) -> LinkError {
        LinkError { text: format!("{what}: {why}; {remedy}") }
    }
}

impl From<OpenError> for LinkError {
    fn from(error: OpenError) -> LinkError {
        LinkError { text: error.to_string() }
    }
}

/// Why there is no link yet.
#[derive(Debug)]
pub(crate) enum NotYet {
    /// The peer has not come, or not gone: this is waited for.
    Waits(&'static str),
    /// Another process has it.
    Taken(LinkError),
    /// Something else is wrong that somebody may put right.
    Fails(LinkError),
}

impl NotYet {
    /// Opens as `open` does, and goes on trying for a moment while another process has it: one that
    /// was killed is gone before the kernel has let go of what its ring held.
    pub(crate) fn patiently<T>(mut open: impl FnMut() -> Result<T, NotYet>) -> Result<T, NotYet> {
        let until = Instant::now() + Duration::from_millis(LISTEN_PATIENCE_MILLIS);
        loop {
            match open() {
                Err(NotYet::Taken(_)) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(LISTEN_AGAIN_MILLIS));
                }
                other => return other,
            }
        }
    }
}

impl From<LinkError> for NotYet {
    fn from(error: LinkError) -> NotYet {
        NotYet::Fails(error)
    }
}

/// What the descriptors of a link are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One socket for both ways.
    Socket,
    /// FIFOs that others find by name, too.
    Fifos,
    /// Pipes that we were given.
    Pipes,
    /// One device for both ways.
    Device,
}

/// A link that is open.
#[derive(Debug)]
pub(crate) struct Link {
    kind: Kind,
    input: Fd,
    /// None when we have ended what we send.
    output: Option<Fd>,
    name: String,
    /// The peer has been heard: nobody else may write into this FIFO while we read it.
    is_claimed: bool,
    /// Of a serial line: bytes that it carries in a second, and whether what passes it is to be
    /// checked.
    line: Option<(u32, bool)>,
    /// What sets the device of a line as it was.
    _port: Option<SerialPort>,
    /// What sets input and output as they were.
    guards: (Option<Unblocked>, Option<Unblocked>),
}

impl Link {
    /// A connected socket, of the network or of this machine.
    pub(crate) fn socket(fd: Fd, name: String) -> Link {
        Link::new(Kind::Socket, Rc::clone(&fd), fd, name)
    }

    /// FIFOs, opened and locked by [`super::fifo`].
    pub(crate) fn fifos(input: Fd, output: Fd, name: String) -> Link {
        Link::new(Kind::Fifos, input, output, name)
    }

    /// Pipes, or sockets for one way each, that do not block.
    pub(crate) fn pipes(input: Fd, output: Fd, name: String) -> Link {
        Link::new(Kind::Pipes, input, output, name)
    }

    /// A device that does not block and can be polled.
    pub(crate) fn device(fd: Fd, name: String) -> Link {
        Link::new(Kind::Device, Rc::clone(&fd), fd, name)
    }

    fn new(kind: Kind, input: Fd, output: Fd, name: String) -> Link {
        let guards = (None, None);
        Link {
            kind,
            input,
            output: Some(output),
            name,
            is_claimed: false,
            line: None,
            _port: None,
            guards,
        }
    }

    /// A serial device. `checked`: between two of ours, by the link layer of [`crate::serial_line`].
    pub(crate) fn serial(port: SerialPort, checked: bool, name: String) -> Link {
        let link = Link::of_line(Rc::clone(port.fd()), (port.bytes_per_second(), checked), name);
        Link { _port: Some(port), ..link }
    }

    /// A device behind which a line is, see [`Link::line`].
    pub(crate) fn of_line(fd: Fd, line: (u32, bool), name: String) -> Link {
        Link { line: Some(line), ..Link::device(fd, name) }
    }

    /// Bytes that the line carries in a second, and whether they are to be checked; `None` if it is
    /// no serial line.
    pub(crate) fn line(&self) -> Option<(u32, bool)> {
        self.line
    }

    /// What has come is acknowledged now and not with what is sent next: for a peer that holds back
    /// its next packet until then (Nagle's algorithm).
    pub(crate) fn acknowledge_now(&self) {
        if self.is_socket() {
            net::acknowledge_now(&self.input);
        }
    }

    /// Whether the peer cannot see that we end what we send.
    pub(crate) fn has_no_end(&self) -> bool {
        self.kind == Kind::Device
    }

    /// With what sets input and output as they were before, when they are used no more.
    pub(crate) fn with_guards(
        mut self,
        input: Option<Unblocked>,
        output: Option<Unblocked>,
    ) -> Link {
        self.guards = (input, output);
        self
    }

    /// Whether the driver may receive and send on it.
    #[inline]
    pub(crate) fn is_socket(&self) -> bool {
        self.kind == Kind::Socket
    }

    /// Whether it is open before there need be anybody at its other end.
    pub(crate) fn may_await_peer(&self) -> bool {
        matches!(self.kind, Kind::Fifos | Kind::Device)
    }

    /// What is read, and polled for input.
    #[inline]
    pub(crate) fn input(&self) -> &Fd {
        &self.input
    }

    /// What is written, and polled for room; `None` once [`Link::end_output`] was called on what is
    /// no socket.
    #[inline]
    pub(crate) fn output(&self) -> Option<&Fd> {
        self.output.as_ref()
    }

    /// What is written, where it is something else than what is read: that nobody reads it any
    /// more shows there alone.
    pub(crate) fn lone_output(&self) -> Option<&Fd> {
        self.output.as_ref().filter(|output| !Rc::ptr_eq(output, &self.input))
    }

    /// Sets what there is to set on a socket of the network, see [`net::set_up_link`].
    pub(crate) fn set_up(&self, congestion: &CongestionPolicy, patience: Option<Duration>) {
        if self.is_socket() && net::is_internet(&self.input) {
            net::set_up_link(&self.input, patience);
            congestion.set_after(&self.input);
        }
    }

    /// Writes as much of a gather (not empty) as is taken at once. `more`: it is followed at once.
    ///
    /// # Errors
    /// `EAGAIN`: nothing is taken now. `EPIPE`: nobody reads.
    pub(crate) fn send(&self, gather: &mut Gather, more: bool) -> io::Result<usize> {
        match (&self.output, self.kind) {
            (Some(output), Kind::Socket) => direct::send(output, gather, more),
            (Some(output), _) => direct::write(output, gather),
            (None, _) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Reads up to `most_bytes` behind what `buffer` holds: 0 is the end of data. Only after the
    /// input polled readable: a FIFO that nobody has opened for writing yet reads as ended.
    ///
    /// # Errors
    /// `EAGAIN`: nothing is there.
    pub(crate) fn receive(&self, buffer: &mut ChunkMut, most_bytes: usize) -> io::Result<usize> {
        match self.kind {
            Kind::Socket => direct::receive(&self.input, buffer, most_bytes),
            _ => direct::read(&self.input, buffer, most_bytes),
        }
    }

    /// Something has come, and is going to be read: from now on this session is the only one that
    /// may be heard here.
    ///
    /// # Errors
    /// What the system says of the lock.
    pub(crate) fn claim(&mut self) -> io::Result<()> {
        if self.kind == Kind::Fifos && !self.is_claimed {
            fifo::claim(&self.input)?;
        }
        self.is_claimed = true;
        Ok(())
    }

    /// Ends what we send; the peer reads end of data, unless [`Link::has_no_end`].
    pub(crate) fn end_output(&mut self) {
        match self.kind {
            Kind::Socket => net::shut_down_write(&self.input),
            Kind::Device => {}
            _ => {
                self.guards.1 = None;
                self.output = None;
            }
        }
    }

    /// Closes what this link had open; its name stays. `null` stands for what would be read and written.
    pub(crate) fn close(&mut self, null: Fd) {
        self.input = null;
        self.output = None;
        self.line = None;
        self._port = None;
        self.guards = (None, None);
    }

    /// Ends both directions, as far as that is not done by closing: operations in flight on a
    /// socket complete.
    pub(crate) fn shut_down(&self) {
        if self.is_socket() {
            net::shut_down(&self.input);
        }
    }
}

/// Its name for the log: an address, paths, a command.
impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
