//! Outputs of a session to its engine.

use std::net::SocketAddr;

use super::{EntranceAnswer, StreamKey};
use crate::wire::v03::TakeUp;
use crate::wire::{Protocol, Transport};

/// An event. `user` is the engine's own number of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The hello is complete.
    Up {
        /// The peer is sockmux-uring as well.
        ours: bool,
        /// The protocol from here on.
        protocol: Protocol,
    },
    /// The peer's hello takes up a lane. If it is one of ours, and this is its peer, the engine lets it
    /// go on over this connection: see [`super::Session::take_up`] and the methods beside it.
    TakeUp {
        /// The lane, and how far the peer has read it.
        again: TakeUp,
    },
    /// Something waits for the peer to read it, and nothing has come from the peer for a while, not even
    /// the answer to a ping: another connection may be better.
    Doubted,
    /// The peer opened a stream: find an exit, then call [`super::Session::accept`] or
    /// [`super::Session::refuse`]. The engine sets `user` by [`super::Session::attach`], or for
    /// datagrams by [`super::Session::attach_datagrams`], before it reads the next frame, because
    /// first data may follow.
    Incoming {
        /// The stream.
        key: StreamKey,
        /// The client's address as the peer reports it.
        client: Option<SocketAddr>,
        /// The entrance at which the client connected.
        entrance: Option<SocketAddr>,
        /// What it carries; unknown in 0.3.
        transport: Option<Transport>,
        /// Set if it belongs to another stream: then no exit is looked up.
        related: Option<Related>,
    },
    /// The peer requests a port for the client of a stream that was opened here. Answered by
    /// [`super::Session::answer_port`].
    PortAsked {
        /// The engine's number of that stream.
        user: u64,
        /// The peer's number of the port, unique within the stream.
        request: u32,
        /// The transport to listen for.
        transport: Transport,
    },
    /// The peer does not need a requested port any more.
    PortClosed {
        /// The engine's number of the stream.
        user: u64,
        /// The peer's number of the port.
        request: u32,
    },
    /// The answer to [`super::Session::ask_port`].
    PortGiven {
        /// The engine's number of the stream.
        user: u64,
        /// Our number of the port.
        request: u32,
        /// The peer's listening address, or why it does not listen.
        result: Result<SocketAddr, String>,
    },
    /// The peer asks for an entrance here. Answered by [`super::Session::answer_entrance`].
    EntranceAsked {
        /// The peer's number of the entrance, unique within the tunnel.
        request: u32,
        /// The transport to listen for.
        transport: Transport,
        /// Where to listen.
        at: SocketAddr,
    },
    /// The answer to [`super::Session::ask_entrance`], or the end of an entrance.
    EntranceAnswered {
        /// Our number of the entrance.
        request: u32,
        /// What has become of it.
        answer: EntranceAnswer,
    },
    /// A stream that was opened here has connected to its server.
    Opened {
        /// The engine's number.
        user: u64,
    },
    /// The peer accepts no new streams any more.
    GoingAway,
    /// The peer has ended its data: after what was delivered, shut down the local socket for
    /// writing.
    EndOfData {
        /// The engine's number.
        user: u64,
    },
    /// The stream may be read again.
    ReadMore {
        /// The engine's number.
        user: u64,
    },
    /// The stream has ended, and its key is void. Delivered data may still be written.
    Ended {
        /// The engine's number.
        user: u64,
        /// The reason.
        how: Ended,
    },
}

/// How a stream that the peer opened relates to another one, the control stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Related {
    /// Its client connected at the peer to a port that we requested.
    Port {
        /// The engine's number of the control stream.
        user: u64,
        /// Our number of the port.
        request: u32,
    },
    /// It is to be connected to the client of a stream that was opened here.
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
    /// All data was exchanged.
    Orderly,
    /// The other side was reset or gave up.
    Reset(String),
    /// The peer found no server.
    Refused(String),
    /// The peer has no exit or no room for it, and has tried no server: it may move to another
    /// tunnel.
    NotTaken {
        /// The reason.
        reason: String,
        /// Datagrams still queued: size and bytes of each run, oldest first.
        runs: Vec<(u32, u32)>,
    },
}

/// Destination of the payload behind a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// There is no payload, or no stream takes it.
    Discard,
    /// This stream's local socket.
    Stream(StreamKey),
    /// This stream's local socket, as urgent data.
    Urgent(StreamKey),
    /// SockMux 1: a run of datagrams for this stream's local socket. They are not reported to
    /// [`super::Session::consumed`].
    Datagrams {
        /// The stream.
        key: StreamKey,
        /// Size of each but the last, which may be shorter. 0 is one empty datagram: no payload
        /// follows.
        size_bytes: u32,
    },
}

/// What follows the head of a frame. The head (header, text, control payload) was appended to the
/// caller's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transmit {
    /// Nothing follows the head.
    Control,
    /// The same, for what is no part of the lane: a packet of the hello, or a report on the lane. It comes
    /// before all others, and is not sent again over another connection.
    Unkept,
    /// This many bytes of the stream.
    Data {
        /// The stream.
        key: StreamKey,
        /// The engine's number.
        user: u64,
        /// Bytes.
        bytes: u64,
    },
    /// This many bytes of a datagram stream, from the front of what the engine holds. 0 is an empty
    /// datagram.
    Datagrams {
        /// The stream.
        key: StreamKey,
        /// The engine's number.
        user: u64,
        /// Bytes.
        bytes: u64,
    },
    /// The stream's urgent byte.
    Urgent {
        /// The byte.
        byte: u8,
    },
}
