//! Where a test takes its choices from: a seed, or the bytes of a fuzzer.

/// Gives numbers. Every choice of a run comes from one of these, so that a run can be had again.
pub(crate) trait Choice {
    /// A number below `bound`; 0 where `bound` is 0. 0 is always the dullest choice.
    fn below(&mut self, bound: u64) -> u64;

    /// One of these.
    fn pick<T: Copy>(&mut self, from: &[T]) -> T
    where
        Self: Sized,
    {
        from[self.below(from.len() as u64) as usize]
    }
}
