//! Encoding and decoding of frames. Pure: no descriptor, clock, randomness or log.
//!
//! Both codecs share one frame vocabulary ([`Frame`]), so that the session does not depend on the
//! protocol. [`v03`] is SockMux 0.3, the original's; [`v1`] is ours. A connection begins in 0.3 and
//! continues in 1 if both sides offered it in their hello: [`Decoder`] switches by itself.
//!
//! Payload of a stream is never part of a frame here. A frame announces how many bytes of payload
//! follow ([`Frame::payload_bytes`]), and the reader passes those on by count, so that they may
//! stay where the kernel put them.
#![warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

mod codec;
pub mod v03;
pub mod v1;

pub(crate) use codec::HELLO_PACKETS;
pub use codec::{DecodeStep, Decoder, Encoder, Protocol};

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

/// How a new stream relates to another one, the control stream; see [`Frame::Related`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// A client has connected to a requested port.
    Port {
        /// The control stream, by the number that the sender of the frame gave it.
        control: u32,
        /// The receiver's number of the port.
        request: u32,
    },
    /// The control stream's client is to be connected to.
    Call {
        /// The control stream, by the number that the receiver of the frame gave it.
        control: u32,
        /// The port of the client's host.
        port: u16,
    },
}

/// What has become of an entrance that was asked for; see [`Frame::EntranceState`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntranceState<'a> {
    /// It is open, at this address.
    Open(SocketAddr),
    /// It is not opened, however often it is asked for in this tunnel.
    Refused(&'a [u8]),
    /// It cannot be opened now.
    NotNow(&'a [u8]),
    /// It was open, and is closed.
    Closed(&'a [u8]),
}

/// The stream that a frame is for, from the receiver's point of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamRef {
    /// The number that the receiver assigned.
    Ours(u32),
    /// The number that the sender assigned.
    Theirs(u32),
    /// No stream.
    None,
}

/// The stream that a frame is for, from the sender's point of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The sender's number.
    pub id: u32,
    /// The receiver's number; the protocol's "none" if it is not known.
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

/// One frame, as the session sees it. `from` is the sender's number of the stream, `to` refers to
/// the receiver's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Starts the hello.
    Hello {
        /// The two id fields as received: the answer repeats them.
        ids: (u16, u16),
        /// Offer of a peer of ours, sent behind the text; the original sends none.
        offer: Option<v03::Offer>,
        /// What it says of lanes, behind the offer.
        lane: Option<v03::LaneHello>,
    },
    /// Answers a hello.
    HelloOk {
        /// The two id fields as received: the answer repeats them.
        ids: (u16, u16),
    },
    /// Opens a stream. First data follows.
    Open {
        /// The opener's id.
        from: Option<u32>,
        /// Address of the client, if it could be read.
        client: Option<SocketAddr>,
        /// Address of the entrance at which the client connected, if it could be read.
        entrance: Option<SocketAddr>,
        /// What it carries; 0.3 does not announce it.
        transport: Option<Transport>,
        /// Bytes of first data that follow.
        first_bytes: u32,
    },
    /// The stream has connected to its server. First data follows.
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
        /// Payload bytes. In 0.3, 0 is the end of data if both sides offered that.
        bytes: u32,
    },
    /// End of data in this direction.
    End {
        /// The receiver's id.
        to: StreamRef,
    },
    /// Bytes that the receiver has passed to its local socket (0.3), or that are granted beyond the
    /// credit so far (1).
    Consumed {
        /// The receiver's id.
        to: StreamRef,
        /// Bytes since the last such frame.
        bytes: u64,
    },
    /// TCP urgent data.
    Urgent {
        /// The receiver's id.
        to: StreamRef,
        /// Bytes that follow.
        bytes: u32,
    },
    /// SockMux 1: a run of datagrams of one size; only the last may be shorter.
    Datagrams {
        /// The receiver's id.
        to: StreamRef,
        /// Size of each but the last. 0 is one empty datagram, without payload.
        size_bytes: u32,
        /// Payload bytes of all of them together.
        bytes: u32,
    },
    /// Urgent bytes consumed. Nothing depends on it.
    UrgentTaken,
    /// Ends the stream in both directions, or refuses an open.
    Close {
        /// The sender's id; none when it refuses an open.
        from: Option<u32>,
        /// The receiver's id.
        to: StreamRef,
        /// The reason, without the leading `#` and the trailing NUL; empty when the text is no
        /// reason.
        reason: &'a [u8],
        /// The kind of end.
        kind: CloseKind,
    },
    /// Answers [`Frame::Close`].
    Closed {
        /// The sender's id; none if the sender does not know the stream by one.
        from: Option<u32>,
        /// The receiver's id.
        to: StreamRef,
    },
    /// Requests a sign of life.
    Ping {
        /// The two id fields as received: the answer swaps them.
        ids: (u16, u16),
        /// To be returned unchanged.
        payload: &'a [u8],
    },
    /// Answers a ping.
    Pong {
        /// Payload of the ping.
        payload: &'a [u8],
    },
    /// The largest packet that the peer accepts, header included, in bytes.
    PacketSize(u16),
    /// The peer sends and accepts first data in Open and Opened.
    FirstData,
    /// The peer has switched its cipher on: no more frames can be read.
    CipherOn,
    /// LANE_TAKEN: payload bytes of all streams together that the peer has read so far.
    LaneTaken {
        /// Total since the start.
        total_bytes: u64,
    },
    /// LANE_READ: bytes of frames, heads included, that the peer has read so far.
    LaneRead {
        /// Total since the lane began.
        position: u64,
    },
    /// The peer accepts no new streams any more.
    GoingAway {
        /// The reason.
        reason: &'a [u8],
    },
    /// SockMux 1: requests a port for the client of this stream.
    Listen {
        /// The control stream.
        to: StreamRef,
        /// The sender's number of the port, unique within the stream.
        request: u32,
        /// The transport to listen for.
        transport: Transport,
    },
    /// Answers [`Frame::Listen`].
    Listening {
        /// The control stream.
        to: StreamRef,
        /// The receiver's number of the port.
        request: u32,
        /// The sender's listening address, or why it does not listen.
        result: Result<SocketAddr, &'a [u8]>,
    },
    /// A requested port is not needed any more.
    Unlisten {
        /// The control stream.
        to: StreamRef,
        /// The sender's number of the port.
        request: u32,
    },
    /// BESIDE: opens a stream related to another one. It has no first data.
    Related {
        /// The opener's number of the new stream.
        from: u32,
        /// What it carries.
        transport: Transport,
        /// Its relation to the control stream.
        what: Relation,
        /// Address of the client, or of the calling server, if it is known.
        client: Option<SocketAddr>,
        /// The opener's own address of that connection, if it is known.
        entrance: Option<SocketAddr>,
    },
    /// SockMux 1: asks for an entrance at the receiver's end, for clients of the sender's exits.
    Entrance {
        /// The sender's number of the entrance, unique within the tunnel.
        request: u32,
        /// The transport to listen for.
        transport: Transport,
        /// Where to listen. An unspecified IPv6 address stands for every address of both families.
        at: SocketAddr,
    },
    /// Answers [`Frame::Entrance`], and tells of its end.
    EntranceState {
        /// The receiver's number of the entrance.
        request: u32,
        /// What has become of it.
        state: EntranceState<'a>,
    },
    /// A frame to be ignored, with its type byte.
    Ignored(u8),
}

impl Frame<'_> {
    /// Number of payload bytes that follow the frame.
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

/// Meaning of a CLOSE to its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseKind {
    /// All data has been sent: deliver it, then end.
    Orderly,
    /// The other side was reset or gave up: end with a reset.
    Reset,
    /// The open is refused (or no server answered).
    Refused,
    /// The open is refused, and no server was tried: the stream may move to another tunnel.
    NotTaken,
}

/// The bytes are no frame. Scope: the tunnel, because the next frame cannot be found.
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
    /// A field that must be 0 is not.
    #[error("frame of type {kind:#04x} has {flags:#06x} where only known flags may be set")]
    Flags {
        /// Type byte.
        kind: u8,
        /// The value found.
        flags: u16,
    },
    /// The type does not allow a payload of this length.
    #[error("frame of type {kind:#04x} has {bytes} bytes of payload, at most {limit} are allowed")]
    Oversize {
        /// Type byte.
        kind: u8,
        /// Its payload length in bytes.
        bytes: u32,
        /// The limit, in bytes.
        limit: u32,
    },
    /// The bytes cannot be divided into datagrams of this size.
    #[error("{bytes} bytes are no run of datagrams of {size_bytes} bytes each")]
    Run {
        /// The size given.
        size_bytes: u32,
        /// The payload bytes.
        bytes: u32,
    },
    /// A decimal number is malformed.
    #[error("packet of type {kind:#04x} does not carry a decimal count")]
    Count {
        /// Type byte.
        kind: u8,
    },
}
