//! Bytes that identify their position: each follows from a seed and its offset, so a reader notices one
//! that is lost, duplicated, swapped, or from another stream.

use std::io::{Read, Write};
use std::sync::OnceLock;

/// Bytes handled at a time. Not a power of two, so that reads and writes fall everywhere.
const CHUNK_BYTES: usize = 60_007;

/// Length of the table, which every sequence goes through from a place of its own: a prime, so that no
/// buffer, frame or window has its size.
const PERIOD_BYTES: u64 = 1_048_573;

/// How much further the table is begun in each round, so that no two rounds are the same.
const ROUND_SHIFT_BYTES: u64 = 7_919;

/// Tests move gigabytes without optimisation: bytes are made once, and copied.
static TABLE: OnceLock<Vec<u8>> = OnceLock::new();

fn table() -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in 0..PERIOD_BYTES.div_ceil(8) {
        bytes.extend_from_slice(&mix(word).to_le_bytes());
    }
    bytes
}

/// A place in the endless sequence of one seed.
#[derive(Debug, Clone, Copy)]
pub struct Pattern {
    /// Where in the table the sequence begins.
    seed: u64,
    offset: u64,
}

impl Pattern {
    /// The sequence of `seed`, from its start.
    pub fn new(seed: u64) -> Pattern {
        Pattern { seed: mix(seed) % PERIOD_BYTES, offset: 0 }
    }

    /// How many bytes have been taken so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Fills `buffer` with the next bytes.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        let table = TABLE.get_or_init(table);
        let mut at = 0;
        while at < buffer.len() {
            let (round, within) = (self.offset / PERIOD_BYTES, self.offset % PERIOD_BYTES);
            let place =
                (self.seed + round % PERIOD_BYTES * ROUND_SHIFT_BYTES + within) % PERIOD_BYTES;
            let run = (PERIOD_BYTES - within.max(place)).min((buffer.len() - at) as u64) as usize;
            let source = &table[place as usize..place as usize + run];
            buffer[at..at + run].copy_from_slice(source);
            at += run;
            self.offset += run as u64;
        }
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.fill(&mut bytes);
        bytes
    }

    /// Panics unless `got` is exactly the next part.
    pub fn check(&mut self, got: &[u8]) {
        let start = self.offset;
        let expected = self.take(got.len());
        if got != expected {
            let at = got.iter().zip(&expected).position(|(a, b)| a != b).expect("they differ");
            panic!("byte {} is {:#04x}, not {:#04x}", start + at as u64, got[at], expected[at]);
        }
    }

    /// Writes the next `count` bytes.
    pub fn send(&mut self, to: &mut impl Write, count: u64) -> std::io::Result<()> {
        let mut left = count;
        while left > 0 {
            let chunk = self.take(left.min(CHUNK_BYTES as u64) as usize);
            to.write_all(&chunk)?;
            left -= chunk.len() as u64;
        }
        Ok(())
    }

    /// Reads `count` bytes and checks each. An early end of data is an error.
    pub fn receive(&mut self, from: &mut impl Read, count: u64) -> std::io::Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut left = count;
        while left > 0 {
            let wanted = left.min(CHUNK_BYTES as u64) as usize;
            let got = match from.read(&mut buffer[..wanted]) {
                // A socket with a timeout is interrupted when the process was stopped and goes on.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                got => got?,
            };
            if got == 0 {
                return Err(std::io::Error::new(
                    std::io::ErrorKind::UnexpectedEof,
                    format!("end of data after {} bytes, {left} before time", self.offset),
                ));
            }
            self.check(&buffer[..got]);
            left -= got as u64;
        }
        Ok(())
    }
}

/// The finishing step of splitmix64: neighbours in, strangers out.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
