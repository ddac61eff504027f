//! In which order what is due at one moment happens. An engine hears of it in whatever order the
//! kernel says, does several things before it writes, and writes before it has heard of all.

/// Choices of order: the natural one everywhere, or any, from a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order(u64);

impl Order {
    /// Everything in its natural order, all of it, once.
    pub(crate) const NATURAL: Order = Order(0);

    /// The order that this seed makes; 0 is the natural one.
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

    /// Puts something off that is due.
    pub(crate) fn puts_off(&mut self) -> bool {
        self.below(4) == 3
    }

    /// These in some order.
    pub(crate) fn of<const N: usize>(&mut self) -> [usize; N] {
        let mut steps = std::array::from_fn(|n| n);
        for n in 0..N {
            let with = n + self.below(N - n);
            steps.swap(n, with);
        }
        steps
    }
}
