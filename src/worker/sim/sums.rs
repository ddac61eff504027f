//! What runs have met, counted.

use super::timers::TIMERS;

/// What runs have met, all together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) steps: u64,
    pub(super) turns: u64,
    pub(super) conversations: u64,
    pub(super) whole: u64,
    pub(super) reset: u64,
    pub(super) spliced_bytes: u64,
    pub(super) encrypted: u64,
    /// Tunnels that went on over another connection.
    pub(super) resumed: u64,
    pub(super) copied_fallbacks: u64,
    pub(super) no_buffers: u64,
    pub(super) pauses: u64,
    pub(super) cuts: u64,
    pub(super) datagrams: u64,
    pub(super) answered: u64,
    pub(super) replaced: u64,
    pub(super) drained: u64,
    /// Writes that a serial line has damaged.
    pub(super) damages: u64,
    /// Deadlines that have come, by [`super::timers::Timer`].
    pub(super) timers: [u64; TIMERS],
}

impl Sums {
    pub(super) fn add(&mut self, other: &Sums) {
        self.steps += other.steps;
        self.turns += other.turns;
        self.conversations += other.conversations;
        self.whole += other.whole;
        self.reset += other.reset;
        self.spliced_bytes += other.spliced_bytes;
        self.encrypted += other.encrypted;
        self.resumed += other.resumed;
        self.copied_fallbacks += other.copied_fallbacks;
        self.no_buffers += other.no_buffers;
        self.pauses += other.pauses;
        self.cuts += other.cuts;
        self.datagrams += other.datagrams;
        self.answered += other.answered;
        self.replaced += other.replaced;
        self.drained += other.drained;
        self.damages += other.damages;
        self.add_timers(other.timers);
    }

    pub(super) fn add_timers(&mut self, counts: [u64; TIMERS]) {
        self.timers.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }

    /// Whether everything that is to be checked was met.
    pub(super) fn is_varied(&self) -> bool {
        let met = [self.whole, self.reset, self.spliced_bytes, self.copied_fallbacks];
        met.into_iter()
            .chain([
                self.encrypted,
                self.resumed,
                self.no_buffers,
                self.pauses,
                self.cuts,
                self.replaced,
                self.answered,
                self.drained,
                self.damages,
            ])
            .chain(self.timers)
            .all(|n| n > 0)
    }
}
