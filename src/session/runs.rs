//! Queued datagrams, as runs of one size.

use std::collections::VecDeque;

use super::Moment;
use crate::limits::{DATAGRAM_AGE_MICROS, DATAGRAM_BYTES_MAX, DATAGRAM_COST_BYTES};
use crate::narrow::to_u32;

/// Consecutive datagrams of one size; the last may be shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueuedRun {
    /// 0: one empty datagram.
    pub(super) size_bytes: u32,
    /// Total bytes.
    pub(super) bytes: u32,
}

impl QueuedRun {
    /// A run of a single datagram has its actual size.
    pub(super) fn new(size_bytes: u32, bytes: u32) -> QueuedRun {
        QueuedRun { size_bytes: size_bytes.min(bytes), bytes }
    }

    pub(super) fn datagrams(self) -> u64 {
        match self.size_bytes {
            0 => 1,
            size => u64::from(self.bytes.div_ceil(size)),
        }
    }

    /// Memory accounted to the run.
    pub(super) fn cost_bytes(self) -> u64 {
        u64::from(self.bytes) + DATAGRAM_COST_BYTES
    }

    /// Splits off whole datagrams from the front: as many as fit into `most_bytes`, but at least
    /// one. Also returns the rest.
    fn split(self, most_bytes: u64) -> (QueuedRun, Option<QueuedRun>) {
        let size = u64::from(self.size_bytes);
        if most_bytes >= u64::from(self.bytes) {
            return (self, None);
        }
        let bytes = to_u32((most_bytes / size * size).max(size));
        let rest =
            (bytes < self.bytes).then(|| QueuedRun::new(self.size_bytes, self.bytes - bytes));
        (QueuedRun { size_bytes: self.size_bytes, bytes }, rest)
    }

    /// This run joined with the one behind it, if they form one run.
    fn joined(self, behind: QueuedRun) -> Option<QueuedRun> {
        let QueuedRun { size_bytes, bytes } = self;
        let fits = size_bytes > 0
            && behind.size_bytes == size_bytes
            && bytes.is_multiple_of(size_bytes)
            && bytes + behind.bytes <= DATAGRAM_BYTES_MAX;
        fits.then_some(QueuedRun { size_bytes, bytes: bytes + behind.bytes })
    }
}

/// Counts of dropped datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) datagrams: u64,
    pub(super) bytes: u64,
}

impl Dropped {
    fn count(&mut self, run: QueuedRun) {
        self.datagrams += run.datagrams();
        self.bytes += u64::from(run.bytes);
    }
}

/// The queued runs of one stream, oldest first.
#[derive(Debug, Default)]
pub(super) struct Runs {
    queue: VecDeque<(QueuedRun, Moment)>,
    cost_bytes: u64,
}

/// A queue that grew larger than this frees its memory when it is empty: a flood passes, and the
/// stream may stay for minutes after it.
const KEPT_ENTRIES: usize = 32;

/// Runs are joined only if the older one has waited no longer than this, in microseconds: the
/// joined run keeps the older age.
const JOIN_MICROS: u64 = DATAGRAM_AGE_MICROS / 8;

impl Runs {
    /// Memory accounted to all of them, in bytes.
    #[inline]
    pub(super) fn cost_bytes(&self) -> u64 {
        self.cost_bytes
    }

    /// The oldest run.
    pub(super) fn front(&self) -> Option<QueuedRun> {
        self.queue.front().map(|&(run, _)| run)
    }

    /// Appends a run, and joins it with the last one where that is allowed.
    pub(super) fn push(&mut self, run: QueuedRun, now: Moment, may_join: bool) {
        if may_join
            && let Some((last, since)) = self.queue.back_mut()
            && now.0.saturating_sub(since.0) < JOIN_MICROS
            && let Some(joined) = last.joined(run)
        {
            *last = joined;
            self.cost_bytes += u64::from(run.bytes);
            return;
        }
        self.queue.push_back((run, now));
        self.cost_bytes += run.cost_bytes();
    }

    /// Removes whole datagrams of the oldest run: as many as fit into `most_bytes`, but at least
    /// one.
    pub(super) fn take(&mut self, most_bytes: u64) -> Option<QueuedRun> {
        let (front, _) = self.queue.front_mut()?;
        let (taken, rest) = front.split(most_bytes);
        match rest {
            Some(rest) => {
                *front = rest;
                self.cost_bytes -= u64::from(taken.bytes);
            }
            None => {
                self.queue.pop_front();
                self.cost_bytes -= taken.cost_bytes();
                if self.queue.is_empty() && self.queue.capacity() > KEPT_ENTRIES {
                    self.queue = VecDeque::new();
                }
            }
        }
        Some(taken)
    }

    /// Drops runs that have waited for too long.
    pub(super) fn drop_aged(&mut self, now: Moment, dropped: &mut Dropped) {
        while let Some(&(run, since)) = self.queue.front()
            && now.0.saturating_sub(since.0) >= DATAGRAM_AGE_MICROS
        {
            dropped.count(run);
            self.take(u64::MAX);
        }
    }

    /// Drops the oldest until they cost `cost_bytes` less, or none are left.
    pub(super) fn drop_oldest(&mut self, cost_bytes: u64, dropped: &mut Dropped) {
        let goal = self.cost_bytes.saturating_sub(cost_bytes);
        while self.cost_bytes > goal {
            let size = self.front().map_or(1, |run| u64::from(run.size_bytes.max(1)));
            let excess = (self.cost_bytes - goal).div_ceil(size) * size;
            match self.take(excess) {
                Some(run) => dropped.count(run),
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: u64 = DATAGRAM_COST_BYTES;

    fn runs(of: &[(u32, u32)]) -> Runs {
        let mut runs = Runs::default();
        for &(size_bytes, bytes) in of {
            runs.push(QueuedRun::new(size_bytes, bytes), Moment(0), true);
        }
        runs
    }

    fn all(mut runs: Runs) -> Vec<(u32, u32)> {
        let mut all = Vec::new();
        while let Some(run) = runs.take(u64::MAX) {
            all.push((run.size_bytes, run.bytes));
        }
        assert_eq!(runs.cost_bytes(), 0);
        all
    }

    #[test]
    fn only_equal_sizes_become_one_run_and_only_behind_whole_ones() {
        assert_eq!(all(runs(&[(10, 20), (10, 15)])), [(10, 35)]);
        assert_eq!(all(runs(&[(10, 15), (10, 10)])), [(10, 15), (10, 10)]);
        assert_eq!(all(runs(&[(10, 20), (9, 9)])), [(10, 20), (9, 9)]);
        assert_eq!(all(runs(&[(0, 0), (0, 0)])), [(0, 0), (0, 0)]);
        let most = DATAGRAM_BYTES_MAX;
        assert_eq!(all(runs(&[(1, most - 1), (1, 1), (1, 1)])), [(1, most), (1, 1)]);
    }

    #[test]
    fn what_has_waited_is_not_joined() {
        let mut runs = runs(&[(10, 10)]);
        runs.push(QueuedRun::new(10, 10), Moment(JOIN_MICROS - 1), true);
        runs.push(QueuedRun::new(10, 10), Moment(JOIN_MICROS), true);
        runs.push(QueuedRun::new(10, 10), Moment(JOIN_MICROS), false);
        assert_eq!(all(runs), [(10, 20), (10, 10), (10, 10)]);
    }

    #[test]
    fn a_run_is_cut_between_datagrams() {
        let mut runs = runs(&[(10, 35)]);
        let mut take = |most| runs.take(most).map(|run| (run.size_bytes, run.bytes));
        assert_eq!(take(19), Some((10, 10)));
        assert_eq!(take(3), Some((10, 10)), "one goes in any case");
        assert_eq!(take(14), Some((10, 10)));
        assert_eq!(take(1), Some((5, 5)), "alone, the short one has its own size");
        assert_eq!(take(1), None);
    }

    #[test]
    fn the_oldest_are_dropped_and_no_more_than_need_be() {
        let mut dropped = Dropped::default();
        let mut runs = runs(&[(10, 35), (0, 0), (7, 7)]);
        assert_eq!(runs.cost_bytes(), 42 + 3 * COST);
        runs.drop_oldest(11, &mut dropped);
        assert_eq!(dropped, Dropped { datagrams: 2, bytes: 20 });
        assert_eq!(runs.front(), Some(QueuedRun::new(10, 15)));
        runs.drop_oldest(15 + COST + 1, &mut dropped);
        assert_eq!(dropped, Dropped { datagrams: 5, bytes: 35 });
        assert_eq!(all(runs), [(7, 7)]);
    }

    #[test]
    fn those_that_are_too_old_go_first() {
        let mut runs = runs(&[(5, 15)]);
        let later = Moment(DATAGRAM_AGE_MICROS);
        runs.push(QueuedRun::new(5, 5), Moment(1), false);
        let mut dropped = Dropped::default();
        runs.drop_aged(Moment(later.0 - 1), &mut dropped);
        assert_eq!(dropped, Dropped::default());
        runs.drop_aged(later, &mut dropped);
        assert_eq!(dropped, Dropped { datagrams: 3, bytes: 15 });
        assert_eq!(all(runs), [(5, 5)]);
    }

    #[test]
    fn a_long_queue_gives_its_memory_back() {
        let mut runs = runs(&[(0, 0); 1_000]);
        while runs.take(0).is_some() {}
        assert_eq!(runs.queue.capacity(), 0);
    }
}
