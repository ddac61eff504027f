//! The table of operations in flight, each with what the kernel may still touch for it.

use socket2::SockAddr;

use crate::engine::driver::{BufferClass, Fd, Gather, OpId, Token};

/// What an operation does, and so how its completions read.
#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    Accept,
    Recv(BufferClass),
    Send,
    /// A send from our own pages, by the number of its notice.
    SendZeroCopy(u32),
    Connect,
    Poll,
    /// The driver's own: cancellation of all operations on a descriptor, which it keeps open.
    CancelAll,
}

/// Memory the kernel reads while the operation is in flight.
#[derive(Debug)]
pub(super) enum Held {
    Nothing,
    Gather(Box<Gather>),
    /// Boxed because the table may move when it grows. Only ever read by the kernel.
    Address {
        _boxed: Box<SockAddr>,
    },
}

/// One operation in flight.
#[derive(Debug)]
pub(super) struct Op {
    pub(super) token: Token,
    pub(super) what: What,
    pub(super) held: Held,
    /// Keeps the descriptor open, and its number ours, until the last completion.
    pub(super) fd: Fd,
}

#[derive(Debug)]
struct Slot {
    /// Counts the operations this slot has had, so that an old name does not fit a new one.
    generation: u32,
    next_free: u32,
    op: Option<Op>,
}

/// End of the list of free slots.
const NONE: u32 = u32::MAX;

/// A slab with generations: constant time, and no allocation once it has its usual size.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    first_free: u32,
    len: usize,
}

impl Slots {
    pub(super) fn with_capacity(operations: usize) -> Self {
        Self { slots: Vec::with_capacity(operations), first_free: NONE, len: 0 }
    }

    /// Operations in the table.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn insert(&mut self, op: Op) -> OpId {
        self.len += 1;
        if self.first_free == NONE {
            let index = self.slots.len() as u32;
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
    pub(super) fn get(&self, id: OpId) -> Option<&Op> {
        let slot = self.slots.get(id.index as usize)?;
        if slot.generation == id.generation { slot.op.as_ref() } else { None }
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, id: OpId) -> Option<&mut Op> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation == id.generation { slot.op.as_mut() } else { None }
    }

    #[inline]
    pub(super) fn remove(&mut self, id: OpId) -> Option<Op> {
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

/// The name as the 64 bits that travel with an operation.
#[inline]
pub(super) fn user_data(id: OpId) -> u64 {
    u64::from(id.generation) << 32 | u64::from(id.index)
}

/// The name that travelled.
#[inline]
pub(super) fn op_id(user_data: u64) -> OpId {
    OpId { index: user_data as u32, generation: (user_data >> 32) as u32 }
}

/// What operations of the driver's own carry that need no slot. No slot has that number.
pub(super) const OWN: u64 = u64::MAX;

/// What a send from our own pages carries: the number of its notice, where others have the
/// generation, and the same number that no slot has.
#[inline]
pub(super) fn notice_data(notice: u32) -> u64 {
    u64::from(notice) << 32 | u64::from(NONE)
}

/// The number of the notice that travelled, if that is what it was.
#[inline]
pub(super) fn notice_index(user_data: u64) -> Option<u32> {
    (user_data as u32 == NONE && user_data != OWN).then_some((user_data >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::rc::Rc;

    use super::*;

    fn op(token: u64) -> Op {
        let fd: Fd = Rc::new(File::open("/dev/null").unwrap().into());
        Op { token: Token(token), what: What::Poll, held: Held::Nothing, fd }
    }

    #[test]
    fn an_old_name_does_not_fit_a_new_operation() {
        let mut slots = Slots::with_capacity(2);
        let first = slots.insert(op(1));
        let second = slots.insert(op(2));
        assert_eq!(slots.remove(first).unwrap().token, Token(1));
        assert!(slots.remove(first).is_none());
        let third = slots.insert(op(3));
        assert_eq!(third.index, first.index, "the slot is used again");
        assert!(slots.get(first).is_none());
        assert_eq!(slots.get(third).unwrap().token, Token(3));
        assert_eq!(slots.get(second).unwrap().token, Token(2));
        assert_eq!(slots.len(), 2);
    }

    #[test]
    fn names_travel_whole() {
        let id = OpId { index: 0xfffe_1234, generation: 0xffff_ffff };
        assert_eq!(op_id(user_data(id)), id);
        assert_ne!(user_data(id), OWN);
        assert_eq!(notice_index(user_data(id)), None);
        assert_eq!(notice_index(OWN), None);
        assert_eq!(notice_index(notice_data(7)), Some(7));
    }
}
