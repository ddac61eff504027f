//! Bytes to frames and back. Pure: no descriptor, clock, randomness or log.
//!
//! One frame vocabulary ([`Frame`]) stands above the codecs, so that the session does not know
//! which protocol is on the wire. [`v03`] is SockMux 0.3, the original's.
//!
//! Payload of a stream is never part of a frame here. A frame that announces payload says how
//! many bytes follow ([`Frame::payload_bytes`]), and the reader hands those on by count, so that
//! they may stay where the kernel put them.
//!
//! [`v1`] is ours. A connection begins as 0.3 and goes on as 1 when both sides offered it in their
//! hello: [`Decoder`] changes over by itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

mod codec;
pub mod v03;
pub mod v1;

pub use codec::{Decoder, Encoder, Protocol, Step};

/// Stands for an unknown address in texts.
pub(crate) const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A byte stream.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Transport {
    /// Its name for the log.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        }
    }
}

/// What a stream has to do with another one, the control stream: see [`Frame::Related`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The client of a port that was asked for has come.
    Port {
        /// The control stream, by the number that the sender of the frame gave it.
        control: u32,
        /// The receiver's number of the port.
        request: u32,
    },
    /// The control stream's client is to be called.
    Call {
        /// The control stream, by the number that the receiver of the frame gave it.
        control: u32,
        /// The port of the client's host.
        port: u16,
    },
}

/// Which stream a frame is for, as its receiver sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamRef {
    /// By the number that the receiver gave it.
    Ours(u32),
    /// By the number that the sender gave it.
    Theirs(u32),
    /// None.
    None,
}

/// Which stream a frame is for, as its sender sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The sender's number.
    pub id: u32,
    /// The receiver's number; the protocol's "none" where it is not known.
    pub peer_id: u32,
    /// The sender opened the stream.
    pub opener: bool,
}

impl Route {
    /// The tunnel itself.
    pub const TUNNEL: Route = Route { id: 0, peer_id: 0, opener: false };

    /// SockMux 1: a stream that the sender opened.
    pub const fn ours(id: u32) -> Route {
        Route { id, peer_id: 0, opener: true }
    }

    /// SockMux 1: a stream that the receiver opened.
    pub const fn theirs(peer_id: u32) -> Route {
        Route { id: 0, peer_id, opener: false }
    }
}

/// One frame, as the session understands it. `from` is the number that the sender gives the
/// stream, `to` says which of the receiver's streams is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Opens a connection between two programs.
    Hello {
        /// The two id fields as found: an answer repeats them.
        ids: (u16, u16),
        /// What a peer of our kind offers behind the text; the original sends nothing there.
        offer: Option<v03::Offer>,
    },
    /// Answers a hello.
    HelloOk {
        /// The two id fields as found: an answer repeats them.
        ids: (u16, u16),
    },
    /// A new stream, with first data behind it.
    Open {
        /// The opener's id.
        from: Option<u32>,
        /// Address of the client, if it could be read.
        client: Option<SocketAddr>,
        /// Address of the entrance that the client came in by, if it could be read.
        entrance: Option<SocketAddr>,
        /// What it carries; 0.3 does not say.
        transport: Option<Transport>,
        /// Bytes of first data that follow.
        first_bytes: u32,
    },
    /// The stream has reached its server, with first data behind it.
    Opened {
        /// The answering side's id.
        from: Option<u32>,
        /// The opener's id.
        to: StreamRef,
        /// Bytes of first data that follow.
        first_bytes: u32,
    },
    /// Stream data.
    Data {
        /// The receiver's id.
        to: StreamRef,
        /// Bytes that follow. In 0.3, 0 is the end of data between two of ours that both said so.
        bytes: u32,
    },
    /// No more data comes in this direction.
    End {
        /// The receiver's id.
        to: StreamRef,
    },
    /// Bytes that the receiver has handed to its local socket (0.3), or that may be sent beyond
    /// what was allowed before (1).
    Consumed {
        /// The receiver's id.
        to: StreamRef,
        /// How many since the last such frame.
        bytes: u64,
    },
    /// TCP urgent data.
    Urgent {
        /// The receiver's id.
        to: StreamRef,
        /// Bytes that follow.
        bytes: u32,
    },
    /// SockMux 1: a run of datagrams, one behind the other: all of the same size, but the last may
    /// be shorter.
    Datagrams {
        /// The receiver's id.
        to: StreamRef,
        /// Size of each but the last. 0 is one empty datagram, behind which nothing follows.
        size_bytes: u32,
        /// Bytes that follow: of all of them together.
        bytes: u32,
    },
    /// Urgent bytes handed on. Nothing depends on it.
    UrgentTaken,
    /// The stream ends, in both directions; or an open is refused.
    Close {
        /// The sender's id; none when it refuses an open.
        from: Option<u32>,
        /// The receiver's id.
        to: StreamRef,
        /// Why, without the leading `#` and the trailing NUL; empty when the text is no reason.
        reason: &'a [u8],
        /// What kind of end it is.
        kind: CloseKind,
    },
    /// Answers [`Frame::Close`].
    Closed {
        /// The sender's id; none when it answers for a stream that it does not know by one.
        from: Option<u32>,
        /// The receiver's id.
        to: StreamRef,
    },
    /// Asks for a sign of life.
    Ping {
        /// The two id fields as found: the answer has them swapped.
        ids: (u16, u16),
        /// To be returned as it is.
        payload: &'a [u8],
    },
    /// Answers a ping.
    Pong {
        /// What the ping carried.
        payload: &'a [u8],
    },
    /// The largest packet that the peer takes, header included, in bytes.
    PacketSize(u16),
    /// The peer may put first data into Open and Opened, and takes it there.
    FirstData,
    /// The peer has switched its cipher on: nothing behind it can be read.
    CipherOn,
    /// Payload bytes of all streams together that the peer has read so far.
    LaneTaken {
        /// Their sum since the beginning.
        total_bytes: u64,
    },
    /// The peer takes no new streams any more.
    GoingAway {
        /// Why.
        reason: &'a [u8],
    },
    /// SockMux 1: the receiver is to open a port for the client of this stream.
    Listen {
        /// The control stream.
        to: StreamRef,
        /// The sender's number of the port, among those of the stream.
        request: u32,
        /// What is to come in by it.
        transport: Transport,
    },
    /// Answers [`Frame::Listen`].
    Listening {
        /// The control stream.
        to: StreamRef,
        /// The receiver's number of the port.
        request: u32,
        /// Where the sender listens, or why it does not.
        result: Result<SocketAddr, &'a [u8]>,
    },
    /// A port that was asked for is of no more use.
    Unlisten {
        /// The control stream.
        to: StreamRef,
        /// The sender's number of the port.
        request: u32,
    },
    /// SockMux 1: a new stream that belongs to another one. No first data goes with it.
    Related {
        /// The opener's number of the new stream.
        from: u32,
        /// What it carries.
        transport: Transport,
        /// What it has to do with which stream.
        what: Relation,
        /// Address of the client, or of the server that calls, if it is known.
        client: Option<SocketAddr>,
        /// The opener's address towards that, if it is known.
        entrance: Option<SocketAddr>,
    },
    /// Anything that is to be passed over: the type byte.
    Ignored(u8),
}

impl Frame<'_> {
    /// How many payload bytes follow the frame.
    pub fn payload_bytes(&self) -> u32 {
        match *self {
            Frame::Open { first_bytes, .. } | Frame::Opened { first_bytes, .. } => first_bytes,
            Frame::Data { bytes, .. }
            | Frame::Urgent { bytes, .. }
            | Frame::Datagrams { bytes, .. } => bytes,
            _ => 0,
        }
    }
}

/// What a CLOSE means to the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseKind {
    /// All data has been sent: deliver it, then end.
    Orderly,
    /// The other side was reset or gave up: end with a reset.
    Reset,
    /// The open is refused (or no server answered).
    Refused,
    /// The open is refused, and no server was tried: another tunnel may take it.
    NotTaken,
}

/// Bytes that cannot be a frame. Scope: the tunnel, because nothing behind them can be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The first byte of a packet is not the protocol's version.
    #[error("not SockMux 0.3: version byte {found:#04x} where 0x03 was expected")]
    Version {
        /// The byte found.
        found: u8,
    },
    /// The first byte of a frame is not SockMux 1's.
    #[error("not SockMux 1: first byte {found:#04x} where 0xb1 was expected")]
    Magic {
        /// The byte found.
        found: u8,
    },
    /// A frame of a type that SockMux 1 does not have.
    #[error("frame of unknown type {kind:#04x}")]
    Type {
        /// Type byte.
        kind: u8,
    },
    /// Something is set that has to be 0.
    #[error("frame of type {kind:#04x} has {flags:#06x} where only known flags may be set")]
    Flags {
        /// Type byte.
        kind: u8,
        /// What was found.
        flags: u16,
    },
    /// A packet has a length that its type does not allow.
    #[error("frame of type {kind:#04x} has {bytes} bytes of payload, at most {limit} are allowed")]
    Oversize {
        /// Type byte.
        kind: u8,
        /// Its payload length in bytes.
        bytes: u32,
        /// The most allowed, in bytes.
        limit: u32,
    },
    /// Bytes that cannot be divided into datagrams of this size.
    #[error("{bytes} bytes are no run of datagrams of {size_bytes} bytes each")]
    Run {
        /// The size given.
        size_bytes: u32,
        /// The bytes behind it.
        bytes: u32,
    },
    /// A number that is not one.
    #[error("packet of type {kind:#04x} does not carry a decimal count")]
    Count {
        /// Type byte.
        kind: u8,
    },
}
