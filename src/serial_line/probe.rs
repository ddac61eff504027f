//! Identification of the peer by its first bytes, which no check protects.

use crate::limits::{LINE_HELLO_BYTES_MAX, LINE_OFFER_BYTES_MAX, PEER_WINDOW_BYTES_MAX};
use crate::wire::v03::{self, Offer};

/// Length of `YYYYMMDD-HHMMSS.uuuuuu `.
const STAMP_BYTES: usize = 23;
/// First bytes of an offer.
const MAGIC: &[u8] = b"SMXU";

/// What a whole HELLO shows of its sender. A HELLOOK shows nothing: its sender has received ours,
/// and is not known to have been received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FoundHello {
    /// It speaks the link layer.
    Checked,
    /// It does not.
    Plain,
}

#[derive(Debug, PartialEq, Eq)]
enum ProbeVerdict {
    /// No HELLO begins here.
    No,
    /// It may; more bytes are needed.
    More,
    Whole(FoundHello, usize),
    /// A whole HELLOOK.
    Answer(usize),
}

/// Searches for a HELLO that is valid in every part.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// Input from the first byte on that may begin one.
    kept: Vec<u8>,
    /// Length in `kept` of the HELLO that was found.
    hello_bytes: usize,
    /// The HELLOOK before it, to ours, from a peer whose HELLO we have not received: it is not
    /// repeated.
    answer: Vec<u8>,
    /// What followed that and was no HELLO, up to `kept`.
    behind_answer: Vec<u8>,
}

impl Scanner {
    /// Consumes `input` as far as needed. Returns how much, and what was found. `own` is our own
    /// HELLO, which an echoing line sends back.
    pub(super) fn take(&mut self, input: &[u8], own: &[u8]) -> (usize, Option<FoundHello>, u64) {
        let (mut taken, mut skipped) = (0, 0);
        loop {
            let (mut start, mut answered_at) = (0, 0);
            let found = loop {
                match judge(&self.kept[start..]) {
                    ProbeVerdict::No => start += 1,
                    ProbeVerdict::More => break None,
                    ProbeVerdict::Answer(len) => {
                        self.answer.clear();
                        self.answer.extend_from_slice(&self.kept[start..][..len]);
                        self.behind_answer.clear();
                        start += len;
                        answered_at = start;
                    }
                    ProbeVerdict::Whole(_, len) if self.kept[start..][..len] == *own => {
                        start += len
                    }
                    ProbeVerdict::Whole(found, len) => {
                        self.hello_bytes = len;
                        break Some(found);
                    }
                }
            };
            if !self.answer.is_empty() {
                self.behind_answer.extend_from_slice(&self.kept[answered_at..start]);
            }
            self.kept.drain(..start);
            skipped += start as u64;
            if found.is_some() || taken == input.len() {
                return (taken, found, skipped);
            }
            let more = (input.len() - taken).min(LINE_HELLO_BYTES_MAX);
            self.kept.extend_from_slice(&input[taken..][..more]);
            taken += more;
        }
    }

    /// The HELLO that was found, the HELLOOK before it (empty if none), and what was read after it.
    pub(super) fn found(&self) -> [&[u8]; 3] {
        let (hello, behind) = self.kept.split_at(self.hello_bytes);
        [hello, &self.answer, behind]
    }

    /// The HELLOOK without a HELLO (empty if none), and everything after it, in two parts.
    pub(super) fn answered(&self) -> [&[u8]; 3] {
        [&self.answer, &self.behind_answer, &self.kept]
    }

    /// Frees the memory when the search is over.
    pub(super) fn clear(&mut self) {
        *self = Scanner::default();
    }
}

/// Whether a HELLO begins here. Decides by the first bytes that do not fit, so that a damaged
/// length does not hide the packets behind it.
fn judge(bytes: &[u8]) -> ProbeVerdict {
    let kind = match *bytes {
        [] | [v03::VERSION] => return ProbeVerdict::More,
        [v03::VERSION, kind @ (v03::kind::HELLO | v03::kind::HELLO_OK), ..] => kind,
        _ => return ProbeVerdict::No,
    };
    let is_answer = kind == v03::kind::HELLO_OK;
    let Some((header, rest)) = bytes.split_first_chunk::<{ v03::HEADER_BYTES }>() else {
        return ProbeVerdict::More;
    };
    let payload_bytes = usize::from(u16::from_be_bytes([header[6], header[7]]));
    // The stamp, a name of one letter, and NUL.
    if !(STAMP_BYTES + 2..=LINE_HELLO_BYTES_MAX - v03::HEADER_BYTES).contains(&payload_bytes) {
        return ProbeVerdict::No;
    }
    let payload = &rest[..rest.len().min(payload_bytes)];
    let text = payload.iter().position(|&byte| byte == 0).unwrap_or(payload.len());
    if !is_text(&payload[..text]) {
        return ProbeVerdict::No;
    }
    if text == payload.len() {
        return if text < payload_bytes { ProbeVerdict::More } else { ProbeVerdict::No };
    }
    if text <= STAMP_BYTES {
        return ProbeVerdict::No;
    }
    let whole = v03::HEADER_BYTES + payload_bytes;
    let behind = &payload[text + 1..];
    let offer_bytes = payload_bytes - (text + 1);
    match (offer_bytes, is_answer) {
        (0, true) => return ProbeVerdict::Answer(whole),
        (0, false) => return ProbeVerdict::Whole(FoundHello::Plain, whole),
        _ => {}
    }
    let begins = behind.len().min(MAGIC.len());
    if is_answer || offer_bytes > LINE_OFFER_BYTES_MAX || behind[..begins] != MAGIC[..begins] {
        return ProbeVerdict::No;
    }
    if behind.len() < offer_bytes {
        return ProbeVerdict::More;
    }
    match Offer::decode(behind) {
        Some(offer) if offer.checked_line => ProbeVerdict::Whole(FoundHello::Checked, whole),
        Some(offer) if is_plausible(&offer) && behind[6..8] == [0, 0] => {
            ProbeVerdict::Whole(FoundHello::Plain, whole)
        }
        _ => ProbeVerdict::No,
    }
}

/// A peer of ours offers nothing else. An offer that lacks a byte does: its numbers are shifted.
fn is_plausible(offer: &Offer) -> bool {
    offer.window_bytes <= PEER_WINDOW_BYTES_MAX && offer.streams_max <= u32::from(u16::MAX)
}

/// Whether these are the first letters of `YYYYMMDD-HHMMSS.uuuuuu NAME`.
fn is_text(text: &[u8]) -> bool {
    text.iter().enumerate().all(|(at, byte)| match at {
        8 => *byte == b'-',
        15 => *byte == b'.',
        22 => *byte == b' ',
        0..STAMP_BYTES => byte.is_ascii_digit(),
        _ => byte.is_ascii_graphic(),
    })
}

/// Follows packets of SockMux 0.3 by their lengths.
#[derive(Debug, Default)]
pub(super) struct Packets {
    header: [u8; v03::HEADER_BYTES],
    have: usize,
    payload_left: usize,
}

impl Packets {
    /// Follows bytes, and returns whether a HELLOOK began among them.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) -> bool {
        let mut is_answered = false;
        while !bytes.is_empty() {
            let skipped = bytes.len().min(self.payload_left);
            self.payload_left -= skipped;
            bytes = &bytes[skipped..];
            let take = bytes.len().min(v03::HEADER_BYTES - self.have);
            self.header[self.have..][..take].copy_from_slice(&bytes[..take]);
            self.have += take;
            bytes = &bytes[take..];
            if self.have == v03::HEADER_BYTES {
                self.have = 0;
                self.payload_left =
                    usize::from(u16::from_be_bytes([self.header[6], self.header[7]]));
                is_answered |= self.header[1] == v03::kind::HELLO_OK;
            }
        }
        is_answered
    }

    /// The next byte begins a packet.
    pub(super) fn is_between(&self) -> bool {
        self.have == 0 && self.payload_left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v03::Encoder;

    const TEXT: &str = "20261122-175008.475200 vm";

    fn hello(checked_line: Option<bool>) -> Vec<u8> {
        let offer = checked_line.map(|checked_line| Offer {
            newest: 1,
            half_close: true,
            datagrams: true,
            checked_line,
            ports: true,
            entrances: true,
            window_bytes: 1 << 20,
            streams_max: 16_000,
        });
        let mut out = Vec::new();
        Encoder.hello(&mut out, TEXT, offer, None);
        out
    }

    fn found(bytes: &[u8], piece: usize) -> (Option<FoundHello>, Vec<u8>) {
        let mut scanner = Scanner::default();
        for input in bytes.chunks(piece) {
            let (taken, found, _) = scanner.take(input, b"");
            if found.is_some() {
                return (found, scanner.kept.clone());
            }
            assert_eq!(taken, input.len());
            assert!(scanner.kept.len() < LINE_HELLO_BYTES_MAX);
        }
        (None, scanner.kept)
    }

    #[test]
    fn hellos_are_told_apart_in_any_pieces() {
        let mut answer = Vec::new();
        Encoder.hello_ok(&mut answer, (0x4c45, 0x4741), TEXT);
        for (packet, kind) in [
            (hello(Some(true)), Some(FoundHello::Checked)),
            (hello(Some(false)), Some(FoundHello::Plain)),
            (hello(None), Some(FoundHello::Plain)),
        ] {
            // An answer does not show whether its sender was received in turn.
            let bytes = [b"\x03\x01rubbish\x03", &answer[..], &packet].concat();
            for piece in 1..=bytes.len() {
                assert_eq!(found(&bytes, piece), (kind, packet.clone()), "pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_damaged_hello_of_ours_is_never_an_originals() {
        let whole = hello(Some(true));
        let magic = whole.len() - 16;
        for at in 0..whole.len() {
            for bit in 0..8 {
                // This bit marks the link layer: see `docs/protocol.md`.
                if (at, bit) == (magic + 5, 2) {
                    continue;
                }
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                let (found, _) = found(&flipped, flipped.len());
                assert!(found != Some(FoundHello::Plain), "bit {bit} of byte {at}");
            }
            for repeats in [0, 2] {
                let mut bytes = whole[..at].to_vec();
                bytes.extend(std::iter::repeat_n(whole[at], repeats));
                bytes.extend_from_slice(&whole[at + 1..]);
                // The next one, a second later, is whole.
                bytes.extend_from_slice(&whole);
                assert_eq!(
                    found(&bytes, 7).0,
                    Some(FoundHello::Checked),
                    "byte {at} {repeats} times"
                );
            }
        }
    }

    #[test]
    fn our_own_hello_is_an_echo() {
        let own = hello(Some(true));
        let mut scanner = Scanner::default();
        assert_eq!(scanner.take(&own, &own), (own.len(), None, own.len() as u64));
        assert!(scanner.kept.is_empty());
    }

    #[test]
    fn packets_are_followed_in_any_pieces() {
        let mut bytes = hello(None);
        let answer_at = bytes.len();
        Encoder.hello_ok(&mut bytes, (1, 2), TEXT);
        for piece in 1..bytes.len() {
            let mut packets = Packets::default();
            let answered = bytes.chunks(piece).map(|piece| packets.pass(piece));
            let first = answered.enumerate().find(|(_, is_answered)| *is_answered);
            assert_eq!(first.map(|(at, _)| at), Some((answer_at + 7) / piece));
        }
        let mut packets = Packets::default();
        assert!(packets.is_between());
        packets.pass(&bytes[..20]);
        assert!(!packets.is_between());
    }
}
