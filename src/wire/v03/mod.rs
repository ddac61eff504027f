//! SockMux 0.3, the original's protocol.
//!
//! A packet is 8 bytes, big-endian, then the payload:
//!
//! ```text
//! version u8 = 3 | type u8 | sender's id u16 | receiver's id u16 | payload length u16
//! ```
//!
//! The format was measured on recordings of the original (`tests/traces`); `docs/protocol.md`
//! describes it in full, with the additions between two of ours.

use super::StreamRef;

mod decode;
mod encode;
mod lane;
mod offer;
mod text;

pub use decode::Decoder;
pub use encode::Encoder;
pub use lane::{LaneHello, LaneName, SECRET_BYTES, TakeUp};
pub use offer::Offer;
pub use text::{NO_HELLO_TEXT, hello_text};

/// Version byte of every packet.
pub const VERSION: u8 = 3;
/// Bytes of a packet's header.
pub const HEADER_BYTES: usize = 8;
/// "No id": ids are 8 bits inside the original, and all ones says none.
pub const NO_ID: u16 = 0x00ff;
/// Largest packet, header included. The original allocates for no more.
pub const PACKET_BYTES_MAX: u16 = 16384;
/// Largest payload. One byte more drops the original's tunnel, and ours.
#[expect(clippy::cast_possible_truncation, reason = "a header has 8 bytes")]
pub const PAYLOAD_BYTES_MAX: u32 = PACKET_BYTES_MAX as u32 - HEADER_BYTES as u32;
/// Packet size towards a peer that has not reported one: the original then sends 504-byte payloads.
pub const PACKET_BYTES_UNSAID: u16 = 512;
/// Smallest packet size that the original accepts from a peer.
pub const PACKET_BYTES_MIN: u16 = 129;
/// First number in the text of CONNECT and CONNECTED: the original's buffer per stream.
pub const STREAM_BUFFER_BYTES: u32 = 98_304;

/// Type bytes.
pub(crate) mod kind {
    pub(crate) const HELLO: u8 = 0x01;
    pub(crate) const HELLO_OK: u8 = 0x41;
    pub(crate) const CONNECT: u8 = 0x02;
    pub(crate) const CONNECTED: u8 = 0x42;
    pub(crate) const SEND: u8 = 0x06;
    pub(crate) const SENT: u8 = 0x46;
    pub(crate) const SEND_OOB: u8 = 0x07;
    pub(crate) const SENT_OOB: u8 = 0x47;
    pub(crate) const CLOSE: u8 = 0x08;
    pub(crate) const CLOSED: u8 = 0x48;
    pub(crate) const ECHO: u8 = 0x09;
    pub(crate) const ECHO_OK: u8 = 0x49;
    pub(crate) const SETOPT: u8 = 0x0a;
    pub(crate) const CRYPT_ON: u8 = 0x0c;
}

/// Option codes of SETOPT.
pub(crate) mod option {
    pub(crate) const FIRST_DATA: u8 = 0x02;
    pub(crate) const PACKET_SIZE: u8 = 0x03;
    /// Between two of ours: no stream is accepted any more. The original knows codes up to 4.
    pub(crate) const GOING_AWAY: u8 = 0x67;
}

/// Follows the NUL of a refusal's reason, between two of ours: no server was tried.
const NOT_TAKEN: u8 = 1;

/// The sender's id, for the session.
fn id(field: u16) -> Option<u32> {
    (field != NO_ID).then_some(u32::from(field))
}

/// The receiver's id, for the session.
fn name(field: u16) -> StreamRef {
    id(field).map_or(StreamRef::None, StreamRef::Ours)
}
