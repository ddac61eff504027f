//! Bytes that identify their position: each is a function of a seed and its offset, so a reader
//! notices one that is lost, duplicated, swapped, or from another stream.

use std::io::{Read, Write};

/// Bytes handled at a time. Not a power of two, so that reads and writes fall everywhere.
const CHUNK_BYTES: usize = 60_007;

/// A place in the endless sequence of one seed.
#[derive(Debug, Clone, Copy)]
pub struct Pattern {
    seed: u64,
    offset: u64,
}

impl Pattern {
    /// The sequence of `seed`, from its start.
    pub fn new(seed: u64) -> Pattern {
        Pattern { seed: mix(seed), offset: 0 }
    }

    /// How many bytes have been taken so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Fills `buffer` with the next bytes.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        let mut at = 0;
        while at < buffer.len() {
            let word = mix(self.seed.wrapping_add(self.offset / 8)).to_le_bytes();
            let word = &word[(self.offset % 8) as usize..];
            let taken = word.len().min(buffer.len() - at);
            buffer[at..at + taken].copy_from_slice(&word[..taken]);
            at += taken;
            self.offset += taken as u64;
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
