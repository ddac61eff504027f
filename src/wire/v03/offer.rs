//! The offer that a peer of ours makes inside a 0.3 hello.
//!
//! The original ignores everything behind the NUL of the HELLO text, in both roles, so an offer
//! there reaches a peer of ours and harms no other. Both ends know the result before anything else
//! is sent.

use bytes::{Buf, BufMut};

/// First bytes of an offer.
const MAGIC: [u8; 4] = *b"SMXU";
/// Length of an offer, in bytes. Of a longer one, of a later version, the first bytes are read.
pub(super) const OFFER_BYTES: usize = 16;
/// Flag: SEND without payload is the end of data in its direction.
const FLAG_HALF_CLOSE: u8 = 0x01;
/// Flag: SockMux 1's DATAGRAMS, and OPEN for streams that carry them.
const FLAG_DATAGRAMS: u8 = 0x02;
/// Flag: the link layer of serial lines.
const FLAG_CHECKED_LINE: u8 = 0x04;
/// Flag: SockMux 1's LISTEN and the frames related to it.
const FLAG_PORTS: u8 = 0x08;
/// Flag: SockMux 1's ENTRANCE and its answers.
const FLAG_ENTRANCES: u8 = 0x10;

/// Capabilities beyond the original.
///
/// On the wire, big-endian: `"SMXU" | newest protocol u8 | flags u8 | 0 u16 | window u32 |
/// streams u32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Newest protocol: 0 is SockMux 0.3.
    pub newest: u8,
    /// SEND without payload is understood as the end of data.
    pub half_close: bool,
    /// Datagram streams are accepted in SockMux 1.
    pub datagrams: bool,
    /// The link layer of [`crate::serial_line`] is spoken on serial lines. Meaningless on other
    /// links.
    pub checked_line: bool,
    /// SockMux 1: ports are opened on request, and related streams accepted.
    pub ports: bool,
    /// SockMux 1: entrances may be asked for. Whether one is opened is decided for each.
    pub entrances: bool,
    /// Bytes of a stream that are accepted before the local socket consumes any.
    pub window_bytes: u32,
    /// Most concurrent streams.
    pub streams_max: u32,
}

impl Offer {
    /// Encodes the offer as sent behind the NUL.
    pub fn encode(&self) -> [u8; OFFER_BYTES] {
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let flags = flag(self.half_close, FLAG_HALF_CLOSE)
            | flag(self.datagrams, FLAG_DATAGRAMS)
            | flag(self.checked_line, FLAG_CHECKED_LINE)
            | flag(self.ports, FLAG_PORTS)
            | flag(self.entrances, FLAG_ENTRANCES);
        let mut out = [0; OFFER_BYTES];
        let mut fields = &mut out[..];
        fields.put_slice(&MAGIC);
        fields.put_slice(&[self.newest, flags, 0, 0]);
        fields.put_u32(self.window_bytes);
        fields.put_u32(self.streams_max);
        out
    }

    /// Decodes an offer from the bytes behind the NUL; `None` if there is none.
    pub fn decode(bytes: &[u8]) -> Option<Offer> {
        let mut fields = bytes.get(..OFFER_BYTES)?.strip_prefix(&MAGIC)?;
        let (newest, flags) = (fields.get_u8(), fields.get_u8());
        fields.advance(2);
        Some(Offer {
            newest,
            half_close: flags & FLAG_HALF_CLOSE != 0,
            datagrams: flags & FLAG_DATAGRAMS != 0,
            checked_line: flags & FLAG_CHECKED_LINE != 0,
            ports: flags & FLAG_PORTS != 0,
            entrances: flags & FLAG_ENTRANCES != 0,
            window_bytes: fields.get_u32(),
            streams_max: fields.get_u32(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_survives_the_wire() {
        for flags in 0..32 {
            let offer = Offer {
                newest: 0,
                half_close: flags & 1 != 0,
                datagrams: flags & 2 != 0,
                checked_line: flags & 4 != 0,
                ports: flags & 8 != 0,
                entrances: flags & 16 != 0,
                window_bytes: 1 << 20,
                streams_max: 4096,
            };
            assert_eq!(offer.encode()[5], flags);
            assert_eq!(Offer::decode(&offer.encode()), Some(offer));
        }
    }

    #[test]
    fn other_bytes_are_no_offer() {
        assert_eq!(Offer::decode(b""), None);
        assert_eq!(Offer::decode(b"SMXU"), None);
        assert_eq!(Offer::decode(&[b'x'; 24]), None);
    }

    #[test]
    fn a_longer_offer_is_read_by_its_beginning() {
        let offer = Offer {
            newest: 9,
            half_close: false,
            datagrams: false,
            checked_line: false,
            ports: false,
            entrances: false,
            window_bytes: 7,
            streams_max: 8,
        };
        let mut bytes = offer.encode().to_vec();
        bytes.extend_from_slice(b"from the future");
        assert_eq!(Offer::decode(&bytes), Some(offer));
    }
}
