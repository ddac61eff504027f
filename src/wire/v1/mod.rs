//! SockMux 1, the protocol between two of ours after a 0.3 hello in which both offered it.
//!
//! A frame is 12 bytes, big-endian, then the payload:
//!
//! ```text
//! magic u8 = 0xb1 | type u8 | flags u16 | stream u32 | payload length u32
//! ```
//!
//! Every field of the header can be validated, and an invalid one ends the tunnel: a reader that
//! guesses would continue in the middle of some payload. `docs/protocol.md` describes it in full.

use crate::limits::DATAGRAM_BYTES_MAX;

mod decode;
mod encode;
mod entrances;
mod ports;

pub use decode::Decoder;
pub(crate) use encode::{
    credit, data, datagrams, end, going_away, lane_read, lane_taken, open, opened, ping, pong,
    reset, urgent,
};
pub use entrances::{entrance, entrance_state};
pub use ports::{listen, listening, related, unlisten};

/// First byte of every frame. No 0.3 packet begins with it.
pub const MAGIC: u8 = 0xb1;
/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 12;
/// Largest payload of a DATA frame, in bytes.
pub const DATA_BYTES_MAX: u32 = 1 << 20;
/// Largest first data in an OPEN frame, in bytes.
pub const FIRST_BYTES_MAX: u32 = 64 << 10;
/// Bytes of an OPEN before its first data: transport, three zeros, two addresses.
pub const OPEN_BYTES: u32 = 4 + 2 * ADDRESS_BYTES;
/// Bytes of an address: family, zero, port, sixteen of the host's.
pub const ADDRESS_BYTES: u32 = 20;
/// Bytes of a DATAGRAMS frame before its datagrams: their size.
pub const RUN_BYTES: u32 = 2;
/// Largest payload of any other frame, in bytes.
pub const CONTROL_BYTES_MAX: u32 = 512;

/// Flag: the stream's number was assigned by the sender of this frame.
pub(crate) const FLAG_SENDERS: u16 = 0x0001;

/// Type bytes.
pub(crate) mod kind {
    pub(crate) const OPEN: u8 = 0x01;
    pub(crate) const OPENED: u8 = 0x02;
    pub(crate) const DATA: u8 = 0x03;
    pub(crate) const END: u8 = 0x04;
    pub(crate) const RESET: u8 = 0x05;
    pub(crate) const CREDIT: u8 = 0x06;
    pub(crate) const URGENT: u8 = 0x07;
    pub(crate) const PING: u8 = 0x08;
    pub(crate) const PONG: u8 = 0x09;
    pub(crate) const GOING_AWAY: u8 = 0x0a;
    pub(crate) const LANE_TAKEN: u8 = 0x0b;
    pub(crate) const DATAGRAMS: u8 = 0x0c;
    pub(crate) const LISTEN: u8 = 0x0d;
    pub(crate) const LISTENING: u8 = 0x0e;
    pub(crate) const UNLISTEN: u8 = 0x0f;
    pub(crate) const BESIDE: u8 = 0x10;
    pub(crate) const ENTRANCE: u8 = 0x11;
    pub(crate) const ENTRANCE_STATE: u8 = 0x12;
    pub(crate) const LANE_READ: u8 = 0x13;
}

/// What a stream carries, in OPEN, LISTEN, BESIDE and ENTRANCE.
pub(crate) mod transport {
    use crate::wire::Transport;

    pub(crate) const BYTES: u8 = 0;
    pub(crate) const DATAGRAMS: u8 = 1;

    pub(crate) fn read(byte: u8) -> Option<Transport> {
        match byte {
            BYTES => Some(Transport::Tcp),
            DATAGRAMS => Some(Transport::Udp),
            _ => None,
        }
    }

    pub(crate) fn byte(transport: Transport) -> u8 {
        match transport {
            Transport::Tcp => BYTES,
            Transport::Udp => DATAGRAMS,
        }
    }
}

/// Codes of a RESET.
pub(crate) mod code {
    /// The stream's local side was reset or gave up.
    pub(crate) const RESET: u16 = 1;
    /// The open is refused: no server behind the exit.
    pub(crate) const REFUSED: u16 = 2;
    /// The open is refused, and no server was tried: no exit, or no room.
    pub(crate) const NOT_TAKEN: u16 = 3;
}

/// Whether the bytes can be datagrams of this size, of which only the last may be shorter. The
/// first has the size given, so that a run has one encoding only.
pub(crate) fn is_run(size_bytes: u32, bytes: u32) -> bool {
    match size_bytes {
        0 => bytes == 0,
        _ => size_bytes <= bytes && bytes <= DATAGRAM_BYTES_MAX,
    }
}
