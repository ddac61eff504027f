//! Fuzz target: the decoder on any bytes, in any pieces.

use super::reading::{HELLO_PACKETS, hello, read};

/// The decoder neither panics nor hangs, and its result does not depend on the pieces. The first
/// byte selects 0.3, or the bytes that follow a hello for SockMux 1.
pub(crate) fn run(data: &[u8]) {
    let Some((&[newest, how], rest)) = data.split_first_chunk() else { return };
    let newest = newest % 2;
    let mut bytes = hello(newest);
    bytes.extend_from_slice(rest);
    let whole = read(newest, [&bytes[..]].into_iter());
    let piece = 1 + usize::from(how);
    assert_eq!(read(newest, bytes.chunks(piece)), whole, "in pieces of {piece}");
    // Frames do not outnumber headers.
    let most = if newest == 1 { HELLO_PACKETS + rest.len() / 12 } else { rest.len() / 8 };
    assert!(whole.0.len() <= most);
}
