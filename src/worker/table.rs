//! Tables with generational keys. Completions, sessions and timers refer to entries by key.

use slab::Slab;

/// Key of an entry: its slot and the generation of its content. The key of a removed entry finds
/// nothing, even when its slot is in use again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    index: u32,
    generation: u32,
}

/// Bits of the slot number, so that an operation's kind and a key fit into 64 bits.
const INDEX_BITS: u32 = 24;

impl Key {
    /// Matches no entry: generations begin at 1.
    pub(super) const NONE: Key = Key { index: 0, generation: 0 };

    /// The entry's id in the log: entries of a table are counted from 1.
    pub(super) fn number(self) -> u32 {
        self.generation
    }

    /// The key as a number of 56 bits.
    pub(super) fn pack(self) -> u64 {
        u64::from(self.index) << 32 | u64::from(self.generation)
    }

    /// From [`Key::pack`]; higher bits are ignored.
    pub(super) fn unpack(packed: u64) -> Key {
        let index = (packed >> 32) as u32 & ((1 << INDEX_BITS) - 1);
        Key { index, generation: packed as u32 }
    }
}

/// A table with a maximum size.
#[derive(Debug)]
pub(super) struct Table<T> {
    slots: Slab<(u32, T)>,
    generation: u32,
    max: usize,
}

impl<T> Table<T> {
    pub(super) fn new(max: usize) -> Table<T> {
        assert!(max < 1 << INDEX_BITS);
        Table { slots: Slab::new(), generation: 0, max }
    }

    /// Adds an entry. `None`: the table is full.
    pub(super) fn insert(&mut self, value: T) -> Option<Key> {
        self.insert_with(|_| value)
    }

    /// Adds an entry that is made with its key. `None`: the table is full, and none was made.
    pub(super) fn insert_with(&mut self, make: impl FnOnce(Key) -> T) -> Option<Key> {
        if self.slots.len() >= self.max {
            return None;
        }
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let slot = self.slots.vacant_entry();
        let key = Key { index: slot.key() as u32, generation };
        slot.insert((generation, make(key)));
        Some(key)
    }

    #[inline]
    pub(super) fn get(&self, key: Key) -> Option<&T> {
        let (generation, value) = self.slots.get(key.index as usize)?;
        (*generation == key.generation).then_some(value)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (generation, value) = self.slots.get_mut(key.index as usize)?;
        (*generation == key.generation).then_some(value)
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        Some(self.slots.remove(key.index as usize).1)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// How many more entries there may be.
    pub(super) fn room(&self) -> usize {
        self.max - self.slots.len()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        self.slots.iter_mut().map(|(index, (generation, value))| {
            (Key { index: index as u32, generation: *generation }, value)
        })
    }

    /// The entries in so many slots from this one on, and the slot behind them if there are more. What stays
    /// in the table keeps its slot, so pages one after the other have it once.
    pub(super) fn page(
        &self,
        from: usize,
        slots: usize,
    ) -> (impl Iterator<Item = (Key, &T)>, Option<usize>) {
        let end = from.saturating_add(slots).min(self.slots.capacity());
        let entries = (from..end).filter_map(|index| {
            let (generation, value) = self.slots.get(index)?;
            Some((Key { index: index as u32, generation: *generation }, value))
        });
        (entries, Some(end).filter(|end| *end < self.slots.capacity()))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots.iter().map(|(index, (generation, value))| {
            (Key { index: index as u32, generation: *generation }, value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_each_entry_that_stays_once() {
        let mut table = Table::new(100);
        let keys: Vec<Key> = (0..10).filter_map(|number| table.insert(number)).collect();
        table.remove(keys[3]);
        let (mut from, mut found) = (Some(0), Vec::new());
        while let Some(slot) = from {
            let (entries, next) = table.page(slot, 4);
            found.extend(entries.map(|(_, number)| *number));
            assert!(found.len() <= slot + 4);
            from = next;
            // Another one comes and goes meanwhile.
            let key = table.insert(99).unwrap();
            table.remove(key);
        }
        assert_eq!(found, [0, 1, 2, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn keys_of_removed_entries_find_nothing() {
        let mut table = Table::new(2);
        let old = table.insert('a').unwrap();
        assert_eq!(table.remove(old), Some('a'));
        let new = table.insert('b').unwrap();
        assert_eq!(old.index, new.index);
        assert_eq!((table.get(old), table.get(new)), (None, Some(&'b')));
        assert_eq!(Key::unpack(new.pack()), new);
        assert!(table.insert('c').is_some());
        assert!(table.insert('d').is_none());
    }
}
