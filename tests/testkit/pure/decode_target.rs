//! Any bytes, read in any pieces.

use super::reading::{HELLO_PACKETS, hello, read};

/// Any bytes in any pieces: the decoder neither panics nor hangs, and pieces make no difference.
/// The first byte picks 0.3, or what comes behind a hello that leads to SockMux 1.
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
