//! Framing: frames between flag bytes, with every byte escaped that has a meaning to the line.

use crate::limits::LINE_PAYLOAD_BYTES_MAX;

/// Stands before and after each frame; one does for two frames without a pause between.
pub(super) const FLAG: u8 = 0x7e;
/// Escape: bit 5 of the next byte is inverted.
pub(super) const ESCAPE: u8 = 0x7d;
const TURNED: u8 = 0x20;
/// Bytes used by software flow control.
const XON: u8 = 0x11;
const XOFF: u8 = 0x13;
/// Bytes of the CRC-32C at the end of a frame.
pub(super) const CHECK_BYTES: usize = 4;
/// Longest frame without flags and escapes: a DATA with a full bitmap.
const FRAME_BYTES_MAX: usize = 3 + 8 + LINE_PAYLOAD_BYTES_MAX + CHECK_BYTES;

/// Appends a frame made of these parts, with its check (seeded with `seed`) and the flag after it.
/// The caller adds the flag before it, if the line was silent.
pub(super) fn put(out: &mut Vec<u8>, seed: u32, parts: [&[u8]; 2]) {
    let mut check = seed;
    for part in parts {
        check = crc32c::crc32c_append(check, part);
        escape(out, part);
    }
    escape(out, &check.to_be_bytes());
    out.push(FLAG);
}

fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        if matches!(byte, FLAG | ESCAPE | XON | XOFF) {
            out.extend_from_slice(&[ESCAPE, byte ^ TURNED]);
        } else {
            out.push(byte);
        }
    }
}

/// The frame without its check, if the check is valid.
pub(super) fn checked(frame: &[u8], seed: u32) -> Option<&[u8]> {
    let (body, check) = frame.split_last_chunk::<CHECK_BYTES>()?;
    (crc32c::crc32c_append(seed, body) == u32::from_be_bytes(*check)).then_some(body)
}

/// Extracts what stands between flags.
#[derive(Debug)]
pub(super) struct Deframer {
    frame: Vec<u8>,
    /// Raw length since the last flag, escapes included.
    raw_bytes: u64,
    is_escaped: bool,
    /// Too long, or wrongly escaped: skipped up to the next flag.
    is_spoiled: bool,
}

/// What a flag has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Segment<'a> {
    /// A possible frame, whose check is still to be verified.
    Frame(&'a [u8]),
    /// No frame.
    Rubbish,
}

impl Deframer {
    pub(super) fn new() -> Deframer {
        Deframer {
            frame: Vec::with_capacity(FRAME_BYTES_MAX),
            raw_bytes: 0,
            is_escaped: false,
            is_spoiled: false,
        }
    }

    /// Consumes `input` up to and including the next flag. Returns the number of bytes, and whether
    /// a flag ended something.
    pub(super) fn take(&mut self, input: &[u8]) -> (usize, bool) {
        for (at, &byte) in input.iter().enumerate() {
            match byte {
                FLAG if self.raw_bytes > 0 => return (at + 1, true),
                FLAG => continue,
                // Inserted by a driver for flow control, since ours are escaped.
                XON | XOFF => continue,
                _ if self.is_spoiled => {}
                ESCAPE if self.is_escaped => self.is_spoiled = true,
                ESCAPE => self.is_escaped = true,
                _ if self.frame.len() == FRAME_BYTES_MAX => self.is_spoiled = true,
                _ => {
                    let turned = if self.is_escaped { TURNED } else { 0 };
                    self.frame.push(byte ^ turned);
                    self.is_escaped = false;
                }
            }
            self.raw_bytes += 1;
        }
        (input.len(), false)
    }

    /// What the flag ended, and its raw length.
    pub(super) fn segment(&self) -> (Segment<'_>, u64) {
        let is_whole = !self.is_spoiled && !self.is_escaped;
        let segment = if is_whole { Segment::Frame(&self.frame) } else { Segment::Rubbish };
        (segment, self.raw_bytes)
    }

    /// Starts again after a flag.
    pub(super) fn clear(&mut self) {
        self.frame.clear();
        self.raw_bytes = 0;
        self.is_escaped = false;
        self.is_spoiled = false;
    }

    /// Raw length since the last flag.
    pub(super) fn pending_bytes(&self) -> u64 {
        self.raw_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All frames in `bytes` with a valid check.
    fn read(bytes: &[u8], piece: usize, seed: u32) -> Vec<Vec<u8>> {
        let mut deframer = Deframer::new();
        let mut found = Vec::new();
        for mut input in bytes.chunks(piece) {
            while !input.is_empty() {
                let (taken, is_ended) = deframer.take(input);
                input = &input[taken..];
                if is_ended {
                    if let (Segment::Frame(frame), _) = deframer.segment() {
                        found.extend(checked(frame, seed).map(<[u8]>::to_vec));
                    }
                    deframer.clear();
                }
            }
        }
        found
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_as_they_were_put(
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..500), 1..6),
            piece in 1_usize..700,
            seed in any::<u32>(),
        ) {
            let mut line = vec![FLAG];
            for frame in &frames {
                let (one, other) = frame.split_at(frame.len() / 2);
                put(&mut line, seed, [one, other]);
            }
            prop_assert!(!line.contains(&XON) && !line.contains(&XOFF));
            let read = read(&line, piece, seed);
            prop_assert_eq!(read, frames);
        }

        #[test]
        fn a_changed_byte_is_noticed(
            frame in proptest::collection::vec(any::<u8>(), 1..300),
            at in any::<prop::sample::Index>(),
            turned in 1_u8..=255,
        ) {
            let mut line = vec![FLAG];
            put(&mut line, 7, [&frame, &[]]);
            let at = at.index(line.len());
            line[at] ^= turned;
            line.push(FLAG);
            for found in read(&line, line.len(), 7) {
                // The flag before the frame is not needed at the beginning of all.
                prop_assert_eq!(found, &frame[..]);
            }
        }
    }

    #[test]
    fn rubbish_without_an_end_is_bounded() {
        let mut deframer = Deframer::new();
        for _ in 0..100 {
            assert_eq!(deframer.take(&[b'x'; 1000]), (1000, false));
        }
        assert!(deframer.frame.capacity() <= 2 * FRAME_BYTES_MAX);
        assert_eq!(deframer.take(&[FLAG]), (1, true));
        assert_eq!(deframer.segment(), (Segment::Rubbish, 100_000));
    }

    #[test]
    fn the_check_is_crc_32c() {
        // The check value of CRC-32C (Castagnoli) for these nine bytes.
        let mut out = Vec::new();
        put(&mut out, 0, [b"1234", b"56789"]);
        assert_eq!(out, [&b"123456789"[..], &[0xe3, 0x06, 0x92, 0x83, FLAG]].concat());
    }
}
