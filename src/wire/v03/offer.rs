//! What two of ours tell each other inside a 0.3 hello.
//!
//! The original ignores whatever stands behind the NUL of the HELLO text, in both roles, so an
//! offer there reaches a peer of our kind and harms no other. Both ends know what they agreed on
//! before anything else is sent.

/// First bytes of an offer.
const MAGIC: [u8; 4] = *b"SMXU";
/// Length of an offer, in bytes. A longer one (of a later version) is read by its first bytes.
const OFFER_BYTES: usize = 16;
/// Flag: SEND without payload is the end of data in its direction.
const FLAG_HALF_CLOSE: u8 = 0x01;
/// Flag: SockMux 1's DATAGRAMS, and OPEN for streams that carry them.
const FLAG_DATAGRAMS: u8 = 0x02;
/// Flag: the link layer of serial lines.
const FLAG_CHECKED_LINE: u8 = 0x04;
/// Flag: SockMux 1's LISTEN and what belongs to it.
const FLAG_PORTS: u8 = 0x08;

/// What one of ours can do beyond the original.
///
/// On the wire, big-endian: `"SMXU" | newest protocol u8 | flags u8 | 0 u16 | window u32 |
/// streams u32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Newest protocol it speaks: 0 is SockMux 0.3.
    pub newest: u8,
    /// It understands SEND without payload as the end of data.
    pub half_close: bool,
    /// It takes streams that carry datagrams in SockMux 1.
    pub datagrams: bool,
    /// On a serial line it speaks the link layer of [`crate::serial_line`]. Says nothing on other links.
    pub checked_line: bool,
    /// In SockMux 1 it opens ports on request, and takes streams beside others.
    pub ports: bool,
    /// Bytes per stream that it takes before its local socket has taken any.
    pub window_bytes: u32,
    /// Streams at once that it takes.
    pub streams_max: u32,
}

impl Offer {
    /// The offer as it stands behind the NUL.
    pub fn encode(&self) -> [u8; OFFER_BYTES] {
        let mut out = [0; OFFER_BYTES];
        out[..4].copy_from_slice(&MAGIC);
        out[4] = self.newest;
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        out[5] = flag(self.half_close, FLAG_HALF_CLOSE)
            | flag(self.datagrams, FLAG_DATAGRAMS)
            | flag(self.checked_line, FLAG_CHECKED_LINE)
            | flag(self.ports, FLAG_PORTS);
        out[8..12].copy_from_slice(&self.window_bytes.to_be_bytes());
        out[12..16].copy_from_slice(&self.streams_max.to_be_bytes());
        out
    }

    /// Reads an offer from what follows the NUL; `None` where there is none.
    pub fn decode(bytes: &[u8]) -> Option<Offer> {
        let bytes: &[u8; OFFER_BYTES] = bytes.first_chunk()?;
        if bytes[..4] != MAGIC {
            return None;
        }
        let word = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Some(Offer {
            newest: bytes[4],
            half_close: bytes[5] & FLAG_HALF_CLOSE != 0,
            datagrams: bytes[5] & FLAG_DATAGRAMS != 0,
            checked_line: bytes[5] & FLAG_CHECKED_LINE != 0,
            ports: bytes[5] & FLAG_PORTS != 0,
            window_bytes: word(8),
            streams_max: word(12),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_survives_the_wire() {
        for flags in 0..16 {
            let offer = Offer {
                newest: 0,
                half_close: flags & 1 != 0,
                datagrams: flags & 2 != 0,
                checked_line: flags & 4 != 0,
                ports: flags & 8 != 0,
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
            window_bytes: 7,
            streams_max: 8,
        };
        let mut bytes = offer.encode().to_vec();
        bytes.extend_from_slice(b"from the future");
        assert_eq!(Offer::decode(&bytes), Some(offer));
    }
}
