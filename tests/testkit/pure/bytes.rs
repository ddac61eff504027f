//! Choices from the bytes of a fuzzer or of a saved case.

use super::choice::Choice;

/// Takes choices from bytes: one byte per choice where that suffices, else as many as needed.
/// Once the bytes are used up, every choice is 0.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u64 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        u64::from(first)
    }
}

impl Choice for Bytes<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        let mut value = self.byte();
        let mut reach = 256;
        while reach < bound {
            value = value << 8 | self.byte();
            reach = reach.saturating_mul(256);
        }
        value.checked_rem(bound).unwrap_or(0)
    }
}
