//! The protocol of client and server: a request, then bulk data in chunks one way, or an echo.
//!
//! Bulk data carries its own end (a chunk of length 0, with the checksum) because a sender stops by the
//! clock, and because not every tunnel that this traffic has to pass supports a half-close.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::DemoError;
use super::pattern::{Checker, Pattern};
use crate::limits::{DEMO_CHUNK_BYTES, DEMO_READ_BYTES, DEMO_STALL_SECS};

/// Which way bulk data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Client to server.
    Up,
    /// Server to client.
    Down,
}

/// A client's request, at the beginning of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// The client sends chunks; the server answers their end with the payload's length.
    Up { stream: u32, verify: bool },
    /// The server sends chunks for this long.
    Down { stream: u32, duration: Duration },
    /// The server echoes until the client closes.
    Echo,
}

const REQUEST_BYTES: usize = 16;
/// Place of the chunk in the stream's payload (8), its length (4).
const CHUNK_HEADER_BYTES: usize = 12;

impl Request {
    pub(super) fn write(self, mut to: impl Write) -> io::Result<()> {
        let (kind, verify, stream, micros) = match self {
            Request::Up { stream, verify } => (b'U', verify, stream, 0),
            Request::Down { stream, duration } => {
                (b'D', false, stream, u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
            }
            Request::Echo => (b'E', false, 0, 0),
        };
        let mut bytes = [0; REQUEST_BYTES];
        bytes[0] = kind;
        bytes[1] = verify.into();
        bytes[4..8].copy_from_slice(&stream.to_be_bytes());
        bytes[8..].copy_from_slice(&micros.to_be_bytes());
        to.write_all(&bytes)
    }

    pub(super) fn read(mut from: impl Read) -> io::Result<Self> {
        let mut bytes = [0; REQUEST_BYTES];
        from.read_exact(&mut bytes)?;
        let stream = be_u32(&bytes[4..8]);
        match bytes[0] {
            b'U' => Ok(Request::Up { stream, verify: bytes[1] != 0 }),
            b'D' => {
                Ok(Request::Down { stream, duration: Duration::from_micros(be_u64(&bytes[8..])) })
            }
            b'E' => Ok(Request::Echo),
            other => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the request began with byte {other:#04x}: damaged on its way"),
            )),
        }
    }
}

/// No delay for small messages, and an error in place of waiting for ever.
pub(super) fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let stall = Some(Duration::from_secs(DEMO_STALL_SECS));
    socket.set_read_timeout(stall)?;
    socket.set_write_timeout(stall)
}

/// Sends stream `stream` of the pattern for `duration`, then its end. Returns the payload's bytes.
pub(super) fn send_bulk(
    mut to: impl Write,
    pattern: &Pattern,
    stream: u32,
    duration: Duration,
) -> io::Result<u64> {
    let deadline = Instant::now() + duration;
    let mut position = 0;
    while Instant::now() < deadline {
        let header = chunk_header(position, DEMO_CHUNK_BYTES as u32);
        write_both(&mut to, &header, pattern.at(stream, position, DEMO_CHUNK_BYTES))?;
        position += DEMO_CHUNK_BYTES as u64;
    }
    let sum = pattern.checksum(stream, position).to_be_bytes();
    write_both(&mut to, &chunk_header(position, 0), &sum)?;
    Ok(position)
}

/// Receives bulk data to its end; with `verify` every byte is compared and summed up, else only
/// counted. Returns the payload's bytes.
pub(super) fn receive_bulk(
    mut from: impl Read,
    pattern: &Pattern,
    stream: u32,
    verify: bool,
) -> Result<u64, DemoError> {
    let failed = |source| DemoError::io(format!("receive data of stream {stream}"), source);
    let mut checker = Checker::new(pattern, stream);
    let mut buffer = vec![0; DEMO_READ_BYTES];
    let mut received = 0;
    loop {
        let mut header = [0; CHUNK_HEADER_BYTES];
        from.read_exact(&mut header).map_err(failed)?;
        let (position, len) = (be_u64(&header[..8]), be_u32(&header[8..]) as usize);
        if position != received || len > DEMO_CHUNK_BYTES {
            return Err(DemoError::Misplaced { stream, expected: received, found: position });
        }
        if len == 0 {
            break;
        }
        let mut missing = len;
        while missing > 0 {
            let want = missing.min(buffer.len());
            let n = read_some(&mut from, &mut buffer[..want]).map_err(failed)?;
            if verify {
                checker
                    .check(&buffer[..n])
                    .map_err(|difference| DemoError::Differs { stream, difference })?;
            }
            missing -= n;
            received += n as u64;
        }
    }
    let mut sum = [0; 4];
    from.read_exact(&mut sum).map_err(failed)?;
    let (sent, found) = (u32::from_be_bytes(sum), checker.checksum());
    if verify && sent != found {
        return Err(DemoError::Checksum { stream, bytes: received, sent, found });
    }
    Ok(received)
}

fn chunk_header(position: u64, len: u32) -> [u8; CHUNK_HEADER_BYTES] {
    let mut header = [0; CHUNK_HEADER_BYTES];
    header[..8].copy_from_slice(&position.to_be_bytes());
    header[8..].copy_from_slice(&len.to_be_bytes());
    header
}

/// One gathered write: a header on its own would be a packet on its own.
fn write_both(to: &mut impl Write, first: &[u8], second: &[u8]) -> io::Result<()> {
    let mut both = [IoSlice::new(first), IoSlice::new(second)];
    let mut rest = &mut both[..];
    while !rest.is_empty() {
        match to.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut rest, n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// At least one byte, or an error.
fn read_some(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn be_u32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn be_u64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream of three chunks, as `send_bulk` writes it.
    fn three_chunks(pattern: &Pattern) -> Vec<u8> {
        let mut bytes = Vec::new();
        for position in [0, 1000, 2000] {
            bytes.extend(chunk_header(position, 1000));
            bytes.extend(pattern.at(5, position, 1000));
        }
        bytes.extend(chunk_header(3000, 0));
        bytes.extend(pattern.checksum(5, 3000).to_be_bytes());
        bytes
    }

    #[test]
    fn requests_survive_the_way() {
        let duration = Duration::from_millis(800);
        for request in [
            Request::Up { stream: 7, verify: true },
            Request::Down { stream: u32::MAX, duration },
            Request::Echo,
        ] {
            let mut bytes = Vec::new();
            request.write(&mut bytes).expect("a Vec takes all");
            assert_eq!(Request::read(&bytes[..]).expect("as written"), request);
        }
        assert!(Request::read(&[b'?'; REQUEST_BYTES][..]).is_err());
    }

    #[test]
    fn what_is_sent_is_received() {
        let pattern = Pattern::new();
        let mut bytes = Vec::new();
        let sent = send_bulk(&mut bytes, &pattern, 2, Duration::from_millis(5)).expect("a Vec");
        assert!(sent > 0);
        assert_eq!(receive_bulk(&bytes[..], &pattern, 2, true).expect("as sent"), sent);
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let pattern = Pattern::new();
        let good = three_chunks(&pattern);
        assert_eq!(receive_bulk(&good[..], &pattern, 5, true).expect("as sent"), 3000);
        for place in 0..good.len() {
            let mut bad = good.clone();
            bad[place] ^= 0x10;
            assert!(receive_bulk(&bad[..], &pattern, 5, true).is_err(), "byte {place}");
        }
        for len in 0..good.len() {
            assert!(receive_bulk(&good[..len], &pattern, 5, true).is_err(), "cut to {len}");
        }
    }
}
