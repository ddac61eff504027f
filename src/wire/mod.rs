//! Bytes to frames and back. Pure: no descriptor, clock, randomness or log.
//!
//! One frame vocabulary ([`Frame`]) stands above the codecs, so that the session does not know
//! which protocol is on the wire. [`v03`] is SockMux 0.3, the original's.
//!
//! Payload of a stream is never part of a frame here. A frame that announces payload says how
//! many bytes follow ([`Frame::payload_bytes`]), and the reader hands those on by count, so that
//! they may stay where the kernel put them.

use std::net::SocketAddr;

pub mod v03;

/// One frame, as the session understands it. Ids are as on the wire: `from` is the sender's
/// name for the stream, `to` the receiver's; `None` is "no id".
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
        from: Option<u16>,
        /// Address of the client, if it could be read.
        client: Option<SocketAddr>,
        /// Address of the entrance that the client came in by, if it could be read.
        entrance: Option<SocketAddr>,
        /// Bytes of first data that follow.
        first_bytes: u32,
    },
    /// The stream has reached its server, with first data behind it.
    Opened {
        /// The answering side's id.
        from: Option<u16>,
        /// The opener's id.
        to: Option<u16>,
        /// Bytes of first data that follow.
        first_bytes: u32,
    },
    /// Stream data.
    Data {
        /// The receiver's id.
        to: Option<u16>,
        /// Bytes that follow. 0 is the end of data between two of ours that both said so.
        bytes: u32,
    },
    /// Bytes that the receiver has handed to its local socket.
    Taken {
        /// The receiver's id.
        to: Option<u16>,
        /// How many since the last such frame.
        bytes: u64,
    },
    /// TCP urgent data.
    Urgent {
        /// The receiver's id.
        to: Option<u16>,
        /// The sender's id, for the acknowledgement.
        from: Option<u16>,
        /// Bytes that follow.
        bytes: u32,
    },
    /// Urgent bytes handed on. Nothing depends on it.
    UrgentTaken,
    /// The stream ends, in both directions; or an open is refused.
    Close {
        /// The sender's id; none when it refuses an open.
        from: Option<u16>,
        /// The receiver's id.
        to: Option<u16>,
        /// Why, without the leading `#` and the trailing NUL; empty when the text is no reason.
        reason: &'a [u8],
        /// What kind of end it is.
        kind: CloseKind,
    },
    /// Answers [`Frame::Close`].
    Closed {
        /// The receiver's id.
        to: Option<u16>,
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
    /// Anything that is to be passed over: the type byte.
    Ignored(u8),
}

impl Frame<'_> {
    /// How many payload bytes follow the frame.
    pub fn payload_bytes(&self) -> u32 {
        match *self {
            Frame::Open { first_bytes, .. } | Frame::Opened { first_bytes, .. } => first_bytes,
            Frame::Data { bytes, .. } | Frame::Urgent { bytes, .. } => bytes,
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
    /// A packet is longer than any that was agreed.
    #[error("packet of type {kind:#04x} has {bytes} bytes of payload, at most {limit} are allowed")]
    Oversize {
        /// Type byte.
        kind: u8,
        /// Its payload length in bytes.
        bytes: u32,
        /// The most allowed, in bytes.
        limit: u32,
    },
    /// A number that is not one.
    #[error("packet of type {kind:#04x} does not carry a decimal count")]
    Count {
        /// Type byte.
        kind: u8,
    },
}
