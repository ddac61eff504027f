//! Random numbers that nobody can guess.

/// Random bytes. `None`: the system gives none.
pub(crate) fn secret<const BYTES: usize>() -> Option<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(bytes)
}
