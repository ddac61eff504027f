//! Where a test takes its choices from: a seed, or the bytes of a fuzzer.

/// Gives numbers. Every choice of a run comes from one of these, so that a run can be had again.
pub(crate) trait Choice {
    /// A number below `bound`; 0 where `bound` is 0. 0 is always the dullest choice.
    fn below(&mut self, bound: u64) -> u64;

    /// Yes, once in `out_of` times.
    fn once_in(&mut self, out_of: u64) -> bool {
        out_of > 0 && self.below(out_of) == out_of - 1
    }

    /// One of these.
    fn pick<T: Copy>(&mut self, from: &[T]) -> T
    where
        Self: Sized,
    {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Choices from a seed (SplitMix64, so that a seed means the same for ever).
pub(crate) struct Seeded(pub(crate) u64);

impl Choice for Seeded {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).checked_rem(bound).unwrap_or(0)
    }
}
