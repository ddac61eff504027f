//! The source of a test's choices: a seed, or the bytes of a fuzzer.

/// A source of numbers. Every choice of a run comes from one source, so the run can be repeated.
pub(crate) trait Choice {
    /// A number below `bound`, or 0 if `bound` is 0. By convention 0 is the simplest choice.
    fn below(&mut self, bound: u64) -> u64;

    /// One of these.
    fn pick<T: Copy>(&mut self, from: &[T]) -> T
    where
        Self: Sized,
    {
        from[self.below(from.len() as u64) as usize]
    }
}
