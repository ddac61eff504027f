//! What the datagrams that came say about those that were sent.

use crate::content::{self, NUMBER_BYTES, Sizes};

/// A number so far beyond the last is no number, but something else that came: an hour's.
const AHEAD_MAX: u64 = 1 << 30;

/// Datagrams without a whole number that wait for one that has it.
const SMALL_MAX: usize = 4096;

/// Numbers that are looked through for the one that a small datagram may have.
const SEARCH_MAX: u64 = 1 << 16;

/// Counts of datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// All that came.
    pub(crate) received: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Right ones, each counted once.
    pub(crate) right: u64,
    /// Right, but behind one with a higher number. They are counted in `right` too.
    pub(crate) out_of_order: u64,
    /// Had come before.
    pub(crate) duplicated: u64,
    /// Right as far as the datagram goes, with more behind it.
    pub(crate) merged: u64,
    /// The first part of a datagram.
    pub(crate) split: u64,
    /// Whatever else is not what was sent.
    pub(crate) corrupt: u64,
    /// Too small for a number, and there is none that it could have where it came.
    pub(crate) misplaced: u64,
}

/// Looks at each datagram that comes.
pub(crate) struct Tally {
    sizes: Sizes,
    /// One more than the highest number so far.
    next: u64,
    /// A bit for each number that came.
    seen: Vec<u64>,
    /// Datagrams without a whole number since the last with one.
    small: Vec<(usize, [u8; NUMBER_BYTES])>,
    counts: Counts,
}

impl Tally {
    pub(crate) fn new(sizes: Sizes) -> Self {
        Tally {
            sizes,
            next: 0,
            seen: Vec::new(),
            small: Vec::with_capacity(SMALL_MAX),
            counts: Counts::default(),
        }
    }

    /// How many datagrams came so far.
    pub(crate) fn received(&self) -> u64 {
        self.counts.received
    }

    pub(crate) fn take(&mut self, datagram: &[u8]) {
        self.counts.received += 1;
        self.counts.bytes += datagram.len() as u64;
        let Some(number) = content::number(datagram) else {
            let mut bytes = [0; NUMBER_BYTES];
            bytes[..datagram.len()].copy_from_slice(datagram);
            self.small.push((datagram.len(), bytes));
            if self.small.len() == SMALL_MAX {
                self.place_small(self.next + SEARCH_MAX);
            }
            return;
        };
        if number >= self.next + AHEAD_MAX {
            self.counts.corrupt += 1;
            return;
        }
        let size = self.sizes.of(number);
        if !content::fits(number, &datagram[..size.min(datagram.len())]) {
            self.counts.corrupt += 1;
        } else if datagram.len() > size {
            self.counts.merged += 1;
        } else if datagram.len() < size {
            self.counts.split += 1;
        } else if number >= self.next {
            self.place_small(number);
            self.note(number);
            self.next = number + 1;
        } else if self.is_seen(number) {
            self.counts.duplicated += 1;
        } else {
            self.counts.out_of_order += 1;
            self.note(number);
        }
    }

    /// The counts, and one more than the highest number.
    pub(crate) fn finish(mut self) -> (Counts, u64) {
        self.place_small(self.next + SEARCH_MAX);
        (self.counts, self.next)
    }

    /// Gives small datagrams the first numbers below `end` that they can have in the order in which
    /// they came. That places as many of them as can be placed.
    fn place_small(&mut self, end: u64) {
        let small = std::mem::take(&mut self.small);
        for &(size, bytes) in &small {
            let found = (self.next..end.min(self.next + SEARCH_MAX)).find(|&number| {
                self.sizes.of(number) == size && content::fits(number, &bytes[..size])
            });
            match found {
                Some(number) => {
                    self.note(number);
                    self.next = number + 1;
                }
                None => self.counts.misplaced += 1,
            }
        }
        self.small = small;
        self.small.clear();
    }

    fn note(&mut self, number: u64) {
        let at = (number / 64) as usize;
        if at >= self.seen.len() {
            self.seen.resize(at + 1, 0);
        }
        self.seen[at] |= 1 << (number % 64);
        self.counts.right += 1;
    }

    fn is_seen(&self, number: u64) -> bool {
        let word = self.seen.get((number / 64) as usize);
        word.is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(number: u64, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        content::fill(number, &mut bytes);
        bytes
    }

    fn tally(sizes: Sizes, datagrams: impl IntoIterator<Item = Vec<u8>>) -> (Counts, u64) {
        let mut tally = Tally::new(sizes);
        for datagram in datagrams {
            tally.take(&datagram);
        }
        tally.finish()
    }

    fn mixed(numbers: impl IntoIterator<Item = u64>) -> Vec<Vec<u8>> {
        let one = |number| datagram(number, Sizes::Mixed.of(number));
        numbers.into_iter().map(one).collect()
    }

    #[test]
    fn what_comes_as_it_was_sent_is_right() {
        let (counts, next) = tally(Sizes::Mixed, mixed(0..5_000));
        assert_eq!(next, 5_000);
        let right =
            Counts { bytes: counts.bytes, received: 5_000, right: 5_000, ..Counts::default() };
        assert_eq!(counts, right);
    }

    #[test]
    fn losses_do_not_make_small_ones_wrong() {
        let (counts, _) = tally(Sizes::Mixed, mixed((0..50_000).filter(|number| number % 7 != 3)));
        assert_eq!(counts.right, counts.received);
    }

    #[test]
    fn every_fault_is_told_from_the_others() {
        let both = [datagram(6, 64), datagram(7, 64)].concat();
        let mut changed = datagram(8, 64);
        changed[63] ^= 1;
        let came = [
            datagram(0, 64),
            datagram(2, 64),
            datagram(1, 64),
            datagram(2, 64),
            datagram(5, 64)[..32].to_vec(),
            both,
            changed,
            Vec::new(),
        ];
        let (counts, next) = tally(Sizes::Fixed(64), came);
        assert_eq!(next, 3);
        assert_eq!((counts.received, counts.right), (8, 3));
        let one_each = [counts.out_of_order, counts.duplicated, counts.merged, counts.split];
        assert_eq!(one_each, [1; 4]);
        assert_eq!((counts.corrupt, counts.misplaced), (1, 1));
    }
}
