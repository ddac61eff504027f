//! What a session tells its engine.

use std::net::SocketAddr;

use super::StreamKey;
use crate::wire::{Protocol, Transport};

/// Something happened. `user` is the engine's own number for the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The hello is done.
    Up {
        /// The peer is one of ours.
        ours: bool,
        /// What is spoken from now on.
        protocol: Protocol,
    },
    /// The peer began a stream: find an exit, then [`super::Session::accept`] or
    /// [`super::Session::refuse`]. To be given a `user` by [`super::Session::attach`] before the
    /// next frame is read, because first data may follow; or by
    /// [`super::Session::attach_datagrams`], where it carries datagrams.
    Incoming {
        /// The stream.
        key: StreamKey,
        /// The client's address as the peer says.
        client: Option<SocketAddr>,
        /// The entrance that it came in by.
        entrance: Option<SocketAddr>,
        /// What it carries; 0.3 does not say.
        transport: Option<Transport>,
        /// Another stream's affair: then no exit is looked for.
        related: Option<Related>,
    },
    /// The peer asks for a port for the client of a stream that began here, see
    /// [`super::Session::answer_port`].
    PortAsked {
        /// The engine's number of that stream.
        user: u64,
        /// The peer's number of the port, among those of the stream.
        request: u32,
        /// What comes in by it.
        transport: Transport,
    },
    /// The peer needs a port that it asked for no more.
    PortClosed {
        /// The engine's number of the stream.
        user: u64,
        /// The peer's number of the port.
        request: u32,
    },
    /// What became of [`super::Session::ask_port`].
    PortGiven {
        /// The engine's number of the stream.
        user: u64,
        /// Our number of the port.
        request: u32,
        /// Where the peer listens, or why it does not.
        result: Result<SocketAddr, String>,
    },
    /// The stream that began here has reached its server.
    Opened {
        /// The engine's number.
        user: u64,
    },
    /// The peer takes no new streams any more.
    GoingAway,
    /// Nothing more comes from the peer: after what was delivered, shut down the local socket
    /// for writing.
    EndOfData {
        /// The engine's number.
        user: u64,
    },
    /// The stream has room again: read on from the local socket.
    ReadMore {
        /// The engine's number.
        user: u64,
    },
    /// The stream has ended and its key is void. What was delivered may still be written.
    Ended {
        /// The engine's number.
        user: u64,
        /// How.
        how: Ended,
    },
}

/// What a stream that the peer began has to do with another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Related {
    /// It came in at the peer by a port that was asked for.
    Port {
        /// The engine's number of the stream that it was asked for.
        user: u64,
        /// Our number of the port.
        request: u32,
    },
    /// It is to be led to the client of a stream that began here.
    Call {
        /// The engine's number of that stream.
        user: u64,
        /// The port of the client's host.
        port: u16,
    },
}

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// All was said.
    Orderly,
    /// The other side was reset or gave up.
    Reset(String),
    /// The peer found no server.
    Refused(String),
    /// The peer has no exit for it, or no room, and has tried no server: another tunnel may take it.
    NotTaken {
        /// Why.
        reason: String,
        /// Datagrams that still waited: size and bytes of each run of them, oldest first.
        runs: Vec<(u32, u32)>,
    },
}

/// Where the payload behind a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// There is none, or nobody to take it.
    Discard,
    /// To this stream's local socket.
    Stream(StreamKey),
    /// To this stream's local socket, as urgent data.
    Urgent(StreamKey),
    /// SockMux 1: a run of datagrams, to this stream's local socket. [`super::Session::consumed`] is
    /// not told of them.
    Datagrams {
        /// The stream.
        key: StreamKey,
        /// Size of each but the last, which may be shorter. 0 is one empty datagram, behind which
        /// no payload comes: it is here.
        size_bytes: u32,
    },
}

/// What to write to the link next. The head (header, text, control payload) has been appended
/// to the caller's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transmit {
    /// Nothing follows the head.
    Control,
    /// This many bytes of the stream follow it.
    Data {
        /// The stream.
        key: StreamKey,
        /// The engine's number.
        user: u64,
        /// Bytes.
        bytes: u64,
    },
    /// This many bytes of a stream that carries datagrams follow it, from the front of what the
    /// engine holds. They may be none: an empty datagram.
    Datagrams {
        /// The stream.
        key: StreamKey,
        /// The engine's number.
        user: u64,
        /// Bytes.
        bytes: u64,
    },
    /// The stream's urgent byte follows it.
    Urgent {
        /// The byte.
        byte: u8,
    },
}
