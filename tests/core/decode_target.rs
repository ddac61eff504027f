//! Any bytes, read in any pieces.

use super::reading::read;

/// Any bytes in any pieces: the decoder neither panics nor hangs, and pieces make no difference.
pub(crate) fn run(data: &[u8]) {
    let Some((&how, rest)) = data.split_first() else { return };
    let whole = read([rest].into_iter());
    let piece = 1 + usize::from(how);
    assert_eq!(read(rest.chunks(piece)), whole, "in pieces of {piece}");
    // Frames do not outnumber headers.
    assert!(whole.0.len() <= rest.len() / 8);
}
