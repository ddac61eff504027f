//! Records that are in pieces: received in several chunks, or to be sealed from several.

use crate::io::chunk::Chunk;
use crate::io::driver::Gather;
use crate::tls::record::{self, HEAD_BYTES, RecordError, Records};

/// Moves bytes to `carry` until a whole record stands there. `false`: it goes on in the next chunk.
pub(super) fn fill(carry: &mut Vec<u8>, chunk: &mut Chunk) -> Result<bool, RecordError> {
    let mut take = |carry: &mut Vec<u8>, wanted: usize| {
        let bytes = wanted.saturating_sub(carry.len()).min(chunk.len());
        carry.extend_from_slice(&chunk[..bytes]);
        chunk.advance(bytes);
        carry.len() >= wanted
    };
    if !take(carry, HEAD_BYTES) {
        return Ok(false);
    }
    Ok(record::length(carry)?.is_some_and(|whole| take(carry, whole)))
}

/// Seals the first `bytes` of a batch into `room`: where they stand if that is one chunk.
pub(super) fn seal_front(
    records: &mut Records,
    plain: &mut Gather,
    bytes: usize,
    room: &mut [u8],
) -> Result<usize, RecordError> {
    let front = plain.iter().next().filter(|front| front.len() >= bytes);
    let length = match front {
        Some(front) => records.seal(&front[..bytes], room)?,
        None => {
            let mut at = HEAD_BYTES;
            for part in plain.iter() {
                let part_bytes = part.len().min(HEAD_BYTES + bytes - at);
                room[at..at + part_bytes].copy_from_slice(&part[..part_bytes]);
                at += part_bytes;
                if at == HEAD_BYTES + bytes {
                    break;
                }
            }
            records.seal_in_place(room, bytes)?
        }
    };
    plain.advance(bytes);
    Ok(length)
}
