//! Encoding of SockMux 0.3.

use std::io::Write as _;
use std::net::SocketAddr;

use super::text::addresses_text;
use super::{LaneHello, NO_ID, NOT_TAKEN, Offer, PAYLOAD_BYTES_MAX, VERSION, kind, option};
use crate::narrow::{to_u8, to_u16, to_u32};

/// Encodes SockMux 0.3 packets and appends them to a buffer. Of a packet with stream payload it
/// writes the part before the payload.
#[derive(Debug, Clone, Copy, Default)]
pub struct Encoder;

impl Encoder {
    fn header(self, out: &mut Vec<u8>, kind: u8, from: u16, to: u16, bytes: usize) {
        assert!(
            bytes <= PAYLOAD_BYTES_MAX as usize,
            "a packet of {bytes} bytes would drop the tunnel"
        );
        // In one piece, from registers: field by field it takes twice as long.
        let [from_high, from_low] = from.to_be_bytes();
        let [to_high, to_low] = to.to_be_bytes();
        let [high, low] = to_u16(bytes).to_be_bytes();
        out.extend_from_slice(&[VERSION, kind, from_high, from_low, to_high, to_low, high, low]);
    }

    fn packet(self, out: &mut Vec<u8>, kind: u8, from: u16, to: u16, payload: &[u8]) {
        self.header(out, kind, from, to, payload.len());
        out.extend_from_slice(payload);
    }

    fn count(self, out: &mut Vec<u8>, kind: u8, from: u16, to: u16, count: u64) {
        let start = out.len();
        self.header(out, kind, from, to, 0);
        write!(out, "{count}\0").expect("writing to a Vec cannot fail");
        let bytes = to_u8(out.len() - start - super::HEADER_BYTES);
        out[start + 7] = bytes;
    }

    /// HELLO: our text, and behind its NUL the offer to a peer of ours, with what it is told of lanes.
    pub fn hello(
        self,
        out: &mut Vec<u8>,
        text: &str,
        offer: Option<Offer>,
        lane: Option<&LaneHello>,
    ) {
        let mut payload = Vec::with_capacity(text.len() + 32);
        payload.extend_from_slice(text.as_bytes());
        payload.push(0);
        if let Some(offer) = offer {
            payload.extend_from_slice(&offer.encode());
            if let Some(lane) = lane {
                lane.encode(&mut payload);
            }
        }
        self.packet(out, kind::HELLO, NO_ID, NO_ID, &payload);
    }

    /// HELLOOK: repeats the ids of the packet that it answers, with our own text.
    pub fn hello_ok(self, out: &mut Vec<u8>, ids: (u16, u16), text: &str) {
        self.header(out, kind::HELLO_OK, ids.0, ids.1, text.len() + 1);
        out.extend_from_slice(text.as_bytes());
        out.push(0);
    }

    /// SETOPT packet size.
    pub fn packet_size(self, out: &mut Vec<u8>, bytes: u16) {
        let [high, low] = bytes.to_be_bytes();
        self.packet(out, kind::SETOPT, NO_ID, NO_ID, &[option::PACKET_SIZE, high, low]);
    }

    /// SETOPT "first data may be sent in CONNECT and CONNECTED".
    pub fn first_data(self, out: &mut Vec<u8>) {
        self.packet(out, kind::SETOPT, NO_ID, NO_ID, &[option::FIRST_DATA, 1, 0]);
    }

    /// SETOPT "no stream is accepted any more", for a peer of ours.
    pub fn going_away(self, out: &mut Vec<u8>, reason: &str) {
        self.header(out, kind::SETOPT, NO_ID, NO_ID, reason.len() + 2);
        out.push(option::GOING_AWAY);
        out.extend_from_slice(reason.as_bytes());
        out.push(0);
    }

    /// Bytes of the packet that the text of CONNECT or CONNECTED occupies.
    pub fn open_text_bytes(self, first: SocketAddr, second: SocketAddr) -> u32 {
        to_u32(addresses_text(first, second).len())
    }

    /// CONNECT; first data follows.
    pub fn connect(
        self,
        out: &mut Vec<u8>,
        from: u16,
        client: SocketAddr,
        entrance: SocketAddr,
        first_bytes: u32,
    ) {
        let text = addresses_text(client, entrance);
        self.header(out, kind::CONNECT, from, NO_ID, text.len() + first_bytes as usize);
        out.extend_from_slice(text.as_bytes());
    }

    /// CONNECTED; first data follows.
    pub fn connected(
        self,
        out: &mut Vec<u8>,
        from: u16,
        to: u16,
        server: SocketAddr,
        own: SocketAddr,
        first_bytes: u32,
    ) {
        let text = addresses_text(server, own);
        self.header(out, kind::CONNECTED, from, to, text.len() + first_bytes as usize);
        out.extend_from_slice(text.as_bytes());
    }

    /// SEND; its payload follows. 0 bytes is the end of data, between two of ours.
    pub fn data(self, out: &mut Vec<u8>, from: u16, to: u16, bytes: u32) {
        self.header(out, kind::SEND, from, to, bytes as usize);
    }

    /// SENT.
    pub fn consumed(self, out: &mut Vec<u8>, from: u16, to: u16, bytes: u64) {
        self.count(out, kind::SENT, from, to, bytes);
    }

    /// SENDOOB; its payload follows.
    pub fn urgent(self, out: &mut Vec<u8>, from: u16, to: u16, bytes: u32) {
        self.header(out, kind::SEND_OOB, from, to, bytes as usize);
    }

    /// SENTOOB.
    pub fn urgent_taken(self, out: &mut Vec<u8>, from: u16, to: u16, bytes: u64) {
        self.count(out, kind::SENT_OOB, from, to, bytes);
    }

    /// CLOSE with its text; without an id of ours it refuses an open.
    pub fn close(self, out: &mut Vec<u8>, from: Option<u16>, to: u16, text: &str) {
        self.header(out, kind::CLOSE, from.unwrap_or(NO_ID), to, text.len() + 1);
        out.extend_from_slice(text.as_bytes());
        out.push(0);
    }

    /// CLOSE that refuses an open for which no server was tried: a flag for a peer of ours follows
    /// the NUL of its reason.
    pub fn not_taken(self, out: &mut Vec<u8>, to: u16, reason: &str) {
        self.header(out, kind::CLOSE, NO_ID, to, reason.len() + 3);
        out.push(b'#');
        out.extend_from_slice(reason.as_bytes());
        out.extend_from_slice(&[0, NOT_TAKEN]);
    }

    /// CLOSED: the ids of the CLOSE, swapped.
    pub fn closed(self, out: &mut Vec<u8>, from: u16, to: u16) {
        self.packet(out, kind::CLOSED, from, to, b"OK closed\0");
    }

    /// ECHO of the tunnel itself.
    pub fn ping(self, out: &mut Vec<u8>, payload: &[u8]) {
        self.packet(out, kind::ECHO, NO_ID, NO_ID, payload);
    }

    /// ECHOOK: the ids of the ECHO swapped, its payload unchanged.
    pub fn pong(self, out: &mut Vec<u8>, ids: (u16, u16), payload: &[u8]) {
        self.packet(out, kind::ECHO_OK, ids.1, ids.0, payload);
    }
}
