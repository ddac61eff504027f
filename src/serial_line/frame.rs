//! The three frames of the link layer, without flags and check.

use bytes::{Buf, BufMut};

use crate::limits::{LINE_PAYLOAD_BYTES_MAX, LINE_WINDOW_FRAMES};
use crate::narrow::to_u8;

/// Newest version of the link layer. Both sides speak the lower of theirs; so far there is one.
const VERSION: u8 = 1;
const KIND_SYN: u8 = 1;
const KIND_DATA: u8 = 2;
const KIND_ACK: u8 = 3;
/// Flag of SYN: its sender waits for one.
const FLAG_ANSWER: u8 = 0x01;
const SYN_BYTES: usize = 18;
/// Longest head of DATA and ACK.
const HEAD_BYTES_MAX: usize = 3 + 8;
/// Overhead of a DATA beside its payload if nothing is missing: head, check, one flag.
pub(super) const OVERHEAD_BYTES: usize = 3 + super::framing::CHECK_BYTES + 1;

/// Starts a line, and is sent until the peer is known to have received it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Syn {
    /// Incarnation of its sender.
    pub from: u32,
    /// The peer's incarnation as known to the sender; 0 if it is not.
    pub to: u32,
    /// The sender waits for a SYN.
    pub wants_answer: bool,
    /// Frames that the sender keeps behind a missing one.
    pub window_frames: u8,
    /// Largest payload that the sender accepts.
    pub payload_bytes_max: u16,
    /// The sender's setting of the line rate.
    pub bytes_per_second: u32,
}

/// Acknowledgement: everything before `next`, and the frames in the bitmap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ack {
    /// Sequence number of the first missing frame, its lower 8 bits.
    pub next: u8,
    /// Bit i: frame `next + 1 + i` was received.
    pub beyond: u64,
}

/// The lower 8 bits of a frame's number, which are all that the wire has of it.
#[inline]
pub(super) fn sequence(number: u64) -> u8 {
    (number & 0xff) as u8
}

/// A received frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineFrame<'a> {
    Syn(Syn),
    Data { sequence: u8, ack: Ack, payload: &'a [u8] },
    Ack(Ack),
}

impl Syn {
    pub(super) fn encode(&self) -> [u8; SYN_BYTES] {
        let flags = if self.wants_answer { FLAG_ANSWER } else { 0 };
        let mut out = [0; SYN_BYTES];
        let mut fields = &mut out[..];
        fields.put_slice(&[KIND_SYN << 4, VERSION, flags, self.window_frames]);
        fields.put_u32(self.from);
        fields.put_u32(self.to);
        fields.put_u16(self.payload_bytes_max);
        fields.put_u32(self.bytes_per_second);
        out
    }

    fn decode(body: &[u8]) -> Option<Syn> {
        // Of a longer one, of a later version, the first bytes are read.
        let mut fields = body.get(1..SYN_BYTES)?;
        let (version, flags, window_frames) = (fields.get_u8(), fields.get_u8(), fields.get_u8());
        let syn = Syn {
            from: fields.get_u32(),
            to: fields.get_u32(),
            wants_answer: flags & FLAG_ANSWER != 0,
            window_frames,
            payload_bytes_max: fields.get_u16(),
            bytes_per_second: fields.get_u32(),
        };
        let is_right = version >= VERSION && syn.from != 0;
        (is_right && syn.window_frames > 0 && syn.payload_bytes_max > 0).then_some(syn)
    }
}

/// The head of a DATA or ACK.
pub(super) struct Head {
    bytes: [u8; HEAD_BYTES_MAX],
    len: usize,
}

impl Head {
    /// For a DATA with this sequence number, or for an ACK.
    pub(super) fn new(sequence: Option<u8>, ack: Ack) -> Head {
        let beyond = ack.beyond.to_le_bytes();
        let bitmap_bytes = 8 - ack.beyond.leading_zeros() as usize / 8;
        let mut bytes = [0; HEAD_BYTES_MAX];
        let kind = if sequence.is_some() { KIND_DATA } else { KIND_ACK };
        bytes[0] = kind << 4 | to_u8(bitmap_bytes);
        let mut len = 1;
        if let Some(sequence) = sequence {
            bytes[len] = sequence;
            len += 1;
        }
        bytes[len] = ack.next;
        len += 1;
        bytes[len..len + bitmap_bytes].copy_from_slice(&beyond[..bitmap_bytes]);
        Head { bytes, len: len + bitmap_bytes }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl<'a> LineFrame<'a> {
    /// Whether this may be a SYN, whose check is seeded with 0; that of all others is seeded with
    /// both incarnations.
    pub(super) fn is_syn(frame: &[u8]) -> bool {
        frame.first() == Some(&(KIND_SYN << 4))
    }

    /// Decodes a frame with a valid check; `None` if it is malformed all the same.
    pub(super) fn decode(body: &'a [u8]) -> Option<LineFrame<'a>> {
        let (&first, rest) = body.split_first()?;
        let bitmap_bytes = usize::from(first & 0x0f);
        match first >> 4 {
            KIND_SYN => Syn::decode(body).map(LineFrame::Syn),
            KIND_DATA => {
                let (&sequence, rest) = rest.split_first()?;
                let (ack, payload) = Ack::decode(rest, bitmap_bytes)?;
                let is_right = (1..=LINE_PAYLOAD_BYTES_MAX).contains(&payload.len());
                is_right.then_some(LineFrame::Data { sequence, ack, payload })
            }
            KIND_ACK => {
                let (ack, rest) = Ack::decode(rest, bitmap_bytes)?;
                rest.is_empty().then_some(LineFrame::Ack(ack))
            }
            _ => None,
        }
    }
}

impl Ack {
    fn decode(rest: &[u8], bitmap_bytes: usize) -> Option<(Ack, &[u8])> {
        let (&next, rest) = rest.split_first()?;
        let (bitmap, rest) = rest.split_at_checked(bitmap_bytes)?;
        let mut beyond = [0; 8];
        beyond.get_mut(..bitmap_bytes)?.copy_from_slice(bitmap);
        Some((Ack { next, beyond: u64::from_le_bytes(beyond) }, rest))
    }
}

const _: () = assert!(LINE_WINDOW_FRAMES < 128, "old and new numbers of 8 bits are told apart");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire() {
        for beyond in [0, 1, 0x80, 0x100, u64::MAX, 1 << 62] {
            let ack = Ack { next: 0xfe, beyond };
            let head = Head::new(None, ack);
            assert_eq!(LineFrame::decode(head.as_bytes()), Some(LineFrame::Ack(ack)));
            let head = Head::new(Some(3), ack);
            let body = [head.as_bytes(), b"hello"].concat();
            let frame = LineFrame::Data { sequence: 3, ack, payload: b"hello" };
            assert_eq!(LineFrame::decode(&body), Some(frame));
        }
        let syn = Syn {
            from: 0x0102_0304,
            to: 0,
            wants_answer: true,
            window_frames: 64,
            payload_bytes_max: 512,
            bytes_per_second: 11_520,
        };
        let mut body = syn.encode().to_vec();
        assert!(LineFrame::is_syn(&body));
        assert_eq!(LineFrame::decode(&body), Some(LineFrame::Syn(syn)));
        body.extend_from_slice(b"from the future");
        assert_eq!(LineFrame::decode(&body), Some(LineFrame::Syn(syn)));
    }

    #[test]
    fn other_bodies_are_no_frames() {
        for body in [
            &b""[..],
            &[0x10],
            &[0x20],
            &[0x20, 1, 2],
            &[0x29, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9],
            &[0x30, 1, 2],
            &[0x31, 1],
            &[0x40, 1],
        ] {
            assert_eq!(LineFrame::decode(body), None, "{body:02x?}");
        }
    }
}
