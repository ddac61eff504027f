//! Deadlines of the entries of a table, in their order: whoever asks for the earliest looks at no
//! other.

use std::collections::BTreeSet;

use super::table::Key;
use crate::session::Moment;

/// At most one deadline of each entry. The entry holds its own, so that it is found again here.
#[derive(Debug, Default)]
pub(in crate::worker) struct Deadlines(BTreeSet<(Moment, Key)>);

impl Deadlines {
    /// Replaces the deadline that an entry holds.
    #[inline]
    pub(in crate::worker) fn replace(
        &mut self,
        key: Key,
        held: &mut Option<Moment>,
        at: Option<Moment>,
    ) {
        let before = std::mem::replace(held, at);
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.0.remove(&(before, key));
        }
        if let Some(at) = at {
            self.0.insert((at, key));
        }
    }

    /// The earliest.
    #[inline]
    pub(in crate::worker) fn first(&self) -> Option<Moment> {
        self.0.first().map(|&(at, _)| at)
    }

    /// The entries whose deadlines have come, the earliest first.
    pub(in crate::worker) fn due(&self, now: Moment) -> impl Iterator<Item = Key> {
        self.0.iter().take_while(move |&&(at, _)| at <= now).map(|&(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_takes_the_place_of_the_one_before() {
        let (mut deadlines, mut held) = (Deadlines::default(), [None; 3]);
        let keys = [1, 2, 3].map(Key::unpack);
        let mut set = |at: usize, to: Option<u64>| {
            deadlines.replace(keys[at], &mut held[at], to.map(Moment));
            let due: Vec<_> = deadlines.due(Moment(50)).collect();
            (deadlines.first(), due)
        };
        assert_eq!(set(0, Some(40)), (Some(Moment(40)), vec![keys[0]]));
        assert_eq!(set(1, Some(30)), (Some(Moment(30)), vec![keys[1], keys[0]]));
        assert_eq!(set(2, Some(30)), (Some(Moment(30)), vec![keys[1], keys[2], keys[0]]));
        assert_eq!(set(1, Some(60)), (Some(Moment(30)), vec![keys[2], keys[0]]));
        assert_eq!(set(2, None), (Some(Moment(40)), vec![keys[0]]));
        assert_eq!(set(0, Some(40)), (Some(Moment(40)), vec![keys[0]]));
        assert_eq!(set(0, None), (Some(Moment(60)), vec![]));
        assert_eq!(set(1, None), (None, vec![]));
    }
}
