//! The bytes of test traffic: every byte's value follows from its position in its stream, so a
//! receiver detects lost, duplicated, moved and foreign data.

use crc32fast::Hasher;

use crate::limits::{DEMO_CHUNK_BYTES, DEMO_PATTERN_BYTES};

/// A fixed random sequence that repeats after [`DEMO_PATTERN_BYTES`]. Each stream starts at a
/// place of its own in it, so that data of one stream never passes for another's.
#[derive(Debug)]
pub struct Pattern {
    /// The sequence, its beginning repeated behind its end: any chunk is one slice.
    bytes: Box<[u8]>,
}

impl Default for Pattern {
    fn default() -> Self {
        Self::new()
    }
}

impl Pattern {
    /// The same sequence in every process, so that two processes can check each other.
    #[must_use]
    pub fn new() -> Self {
        let mut bytes = vec![0; DEMO_PATTERN_BYTES + DEMO_CHUNK_BYTES].into_boxed_slice();
        fastrand::Rng::with_seed(0x0050_434b_4d55_5821).fill(&mut bytes[..DEMO_PATTERN_BYTES]);
        bytes.copy_within(..DEMO_CHUNK_BYTES, DEMO_PATTERN_BYTES);
        Pattern { bytes }
    }

    /// The `len` bytes at `position` of stream `stream`; `len` at most [`DEMO_CHUNK_BYTES`].
    #[must_use]
    pub fn at(&self, stream: u32, position: u64, len: usize) -> &[u8] {
        let start = Self::start(stream, position);
        &self.bytes[start..start + len]
    }

    /// CRC-32 of the first `len` bytes of stream `stream`. It is combined from the checksum of one
    /// period, so that a sender need not spend the time on it that it would measure.
    #[must_use]
    pub fn checksum(&self, stream: u32, len: u64) -> u32 {
        let period = DEMO_PATTERN_BYTES as u64;
        let start = Self::start(stream, 0);
        let mut one_period = Hasher::new();
        one_period.update(&self.bytes[start..DEMO_PATTERN_BYTES]);
        one_period.update(&self.bytes[..start]);

        let mut all = Hasher::new();
        for _ in 0..len / period {
            all.combine(&one_period);
        }
        let rest = (len % period) as usize;
        let first = rest.min(DEMO_CHUNK_BYTES);
        all.update(self.at(stream, 0, first));
        all.update(self.at(stream, first as u64, rest - first));
        all.finalize()
    }

    fn start(stream: u32, position: u64) -> usize {
        let period = DEMO_PATTERN_BYTES as u64;
        // Any odd step spreads the streams' starts; this one is 2^32 over the golden ratio.
        ((u64::from(stream) * 2_654_435_769 + position % period) % period) as usize
    }
}

/// Compares the received bytes of one stream with the pattern, and sums them up.
#[derive(Debug)]
pub struct Checker<'a> {
    pattern: &'a Pattern,
    stream: u32,
    position: u64,
    sum: Hasher,
}

/// The first byte that differs from the pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// Place in the stream, from 0.
    pub position: u64,
    /// The value by the pattern.
    pub expected: u8,
    /// The received value.
    pub found: u8,
}

impl<'a> Checker<'a> {
    /// A checker at the beginning of stream `stream`.
    #[must_use]
    pub fn new(pattern: &'a Pattern, stream: u32) -> Self {
        Checker { pattern, stream, position: 0, sum: Hasher::new() }
    }

    /// Checks the next bytes of the stream.
    ///
    /// # Errors
    /// The first byte that differs.
    pub fn check(&mut self, data: &[u8]) -> Result<(), Difference> {
        for part in data.chunks(DEMO_CHUNK_BYTES) {
            let expected = self.pattern.at(self.stream, self.position, part.len());
            if part != expected {
                let index = part.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(0);
                return Err(Difference {
                    position: self.position + index as u64,
                    expected: expected[index],
                    found: part[index],
                });
            }
            self.sum.update(part);
            self.position += part.len() as u64;
        }
        Ok(())
    }

    /// CRC-32 of everything checked so far.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        self.sum.clone().finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combined_checksum_is_that_of_the_bytes() {
        let pattern = Pattern::new();
        for len in [0, 1, 65_536, DEMO_PATTERN_BYTES as u64, 3 * DEMO_PATTERN_BYTES as u64 + 77] {
            for stream in [0, 1, 7] {
                let mut sum = Hasher::new();
                let mut position = 0;
                while position < len {
                    let n = (len - position).min(10_007) as usize;
                    sum.update(pattern.at(stream, position, n));
                    position += n as u64;
                }
                assert_eq!(pattern.checksum(stream, len), sum.finalize(), "{stream} {len}");
            }
        }
    }

    #[test]
    fn right_bytes_in_any_pieces_pass() {
        let pattern = Pattern::new();
        let mut checker = Checker::new(&pattern, 3);
        let mut position = 0;
        for len in [1, 16_384, 2, DEMO_CHUNK_BYTES, 99] {
            checker.check(pattern.at(3, position, len)).expect("the pattern itself");
            position += len as u64;
        }
        assert_eq!(checker.checksum(), pattern.checksum(3, position));
    }

    #[test]
    fn lost_moved_foreign_and_flipped_bytes_are_found() {
        let pattern = Pattern::new();
        let fresh = || Checker::new(&pattern, 3);
        assert!(fresh().check(pattern.at(3, 1, 64)).is_err(), "one byte lost");
        assert!(fresh().check(pattern.at(3, 16_384, 64)).is_err(), "one packet lost");
        assert!(fresh().check(pattern.at(3, 1 << 20, 64)).is_err(), "one chunk lost");
        assert!(fresh().check(pattern.at(4, 0, 64)).is_err(), "another stream's");
        let mut flipped = pattern.at(3, 0, 64).to_vec();
        flipped[40] ^= 1;
        let difference = fresh().check(&flipped).unwrap_err();
        assert_eq!(difference.position, 40);
        assert_eq!(difference.found, difference.expected ^ 1);
    }
}
