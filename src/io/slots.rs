//! A table of operations in flight, by name.

use super::driver::OpId;
use crate::narrow::to_u32;

/// End of the list of free slots, and a number that no slot has.
pub(crate) const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Slot<T> {
    /// Counts the operations this slot has had, so that an old name does not fit a new one.
    generation: u32,
    next_free: u32,
    op: Option<T>,
}

/// A slab with generations: constant time, and no allocation once it has its usual size.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    slots: Vec<Slot<T>>,
    first_free: u32,
    len: usize,
}

impl<T> Slots<T> {
    pub(crate) fn with_capacity(operations: usize) -> Self {
        Self { slots: Vec::with_capacity(operations), first_free: NONE, len: 0 }
    }

    /// Operations in the table.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn insert(&mut self, op: T) -> OpId {
        self.len += 1;
        if self.first_free == NONE {
            let index = to_u32(self.slots.len());
            assert!(index < NONE, "more operations in flight than can be numbered");
            self.slots.push(Slot { generation: 0, next_free: NONE, op: Some(op) });
            return OpId { index, generation: 0 };
        }
        let index = self.first_free;
        let slot = &mut self.slots[index as usize];
        self.first_free = slot.next_free;
        slot.op = Some(op);
        OpId { index, generation: slot.generation }
    }

    /// The operation of that name, if it is still in flight.
    #[inline]
    pub(crate) fn get(&self, id: OpId) -> Option<&T> {
        let slot = self.slots.get(id.index as usize)?;
        if slot.generation == id.generation { slot.op.as_ref() } else { None }
    }

    /// The same, to be changed.
    pub(crate) fn get_mut(&mut self, id: OpId) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation == id.generation { slot.op.as_mut() } else { None }
    }

    #[inline]
    pub(crate) fn remove(&mut self, id: OpId) -> Option<T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let op = slot.op.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        slot.next_free = self.first_free;
        self.first_free = id.index;
        self.len -= 1;
        Some(op)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_name_does_not_fit_a_new_operation() {
        let mut slots = Slots::with_capacity(2);
        let first = slots.insert(1);
        let second = slots.insert(2);
        assert_eq!(slots.remove(first), Some(1));
        assert!(slots.remove(first).is_none());
        let third = slots.insert(3);
        assert_eq!(third.index, first.index, "the slot is used again");
        assert!(slots.get(first).is_none());
        assert_eq!((slots.get(third), slots.get(second)), (Some(&3), Some(&2)));
        assert_eq!(slots.len(), 2);
    }
}
