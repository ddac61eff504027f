//! The order of events that are due at one moment. An engine receives them in any order that the
//! kernel chooses, handles several before it writes, and writes before it has received all.

/// Choices of order: the natural one everywhere, or any, from a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order(u64);

impl Order {
    /// All events, in the natural order, once.
    pub(crate) const NATURAL: Order = Order(0);

    /// The order of this seed; 0 is the natural one.
    pub(crate) fn from(seed: u64) -> Order {
        Order(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A number below `bound`; 0 in the natural order.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 16) as usize).checked_rem(bound).unwrap_or(0)
    }

    /// Whether to postpone an event that is due.
    pub(crate) fn puts_off(&mut self) -> bool {
        self.below(4) == 3
    }

    /// Orders these.
    pub(crate) fn of<const N: usize>(&mut self) -> [usize; N] {
        let mut steps = std::array::from_fn(|n| n);
        for n in 0..N {
            let with = n + self.below(N - n);
            steps.swap(n, with);
        }
        steps
    }
}
