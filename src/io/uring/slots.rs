//! Operations in flight, each with what the kernel may still touch for it, and how their names travel.

use std::os::fd::AsRawFd;

use socket2::SockAddr;

use crate::io::driver::{BufferClass, Fd, Gather, OpId, Token};
use crate::io::lent::Lent;
use crate::io::slots::{NONE, Slots};
use crate::narrow::halves;

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
}

/// Memory the kernel reads while the operation is in flight.
#[derive(Debug)]
pub(super) enum Held {
    Nothing,
    Gather(Lent<Gather>),
    Address(Lent<SockAddr>),
}

/// One operation in flight.
#[derive(Debug)]
pub(super) struct Op {
    pub(super) token: Token,
    pub(super) what: What,
    pub(super) held: Held,
    /// Keeps the descriptor open, and its number ours, until the last completion.
    pub(super) fd: Fd,
    /// Its neighbours among the operations of the descriptor.
    older: OpId,
    newer: OpId,
}

/// No operation has this name.
const NOBODY: OpId = OpId { index: NONE, generation: 0 };

/// All of them, by name and by descriptor. The kernel finds those of a descriptor by looking at all that
/// there are, which are thousands.
#[derive(Debug)]
pub(super) struct Ops {
    slots: Slots<Op>,
    /// The newest operation of each descriptor, by its number. Grows with the highest number there was.
    newest: Vec<OpId>,
}

impl Ops {
    pub(super) fn with_capacity(operations: usize) -> Ops {
        Ops { slots: Slots::with_capacity(operations), newest: Vec::with_capacity(operations) }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    #[inline]
    pub(super) fn insert(&mut self, fd: &Fd, token: Token, what: What, held: Held) -> OpId {
        let number = number_of(fd);
        if number >= self.newest.len() {
            self.newest.resize(number + 1, NOBODY);
        }
        let older = self.newest[number];
        let fd = Fd::clone(fd);
        let id = self.slots.insert(Op { token, what, held, fd, older, newer: NOBODY });
        if let Some(older) = self.slots.get_mut(older) {
            older.newer = id;
        }
        self.newest[number] = id;
        id
    }

    #[inline]
    pub(super) fn get(&self, id: OpId) -> Option<&Op> {
        self.slots.get(id)
    }

    pub(super) fn get_mut(&mut self, id: OpId) -> Option<&mut Op> {
        self.slots.get_mut(id)
    }

    #[inline]
    pub(super) fn remove(&mut self, id: OpId) -> Option<Op> {
        let op = self.slots.remove(id)?;
        match self.slots.get_mut(op.newer) {
            Some(newer) => newer.older = op.older,
            None => self.newest[number_of(&op.fd)] = op.older,
        }
        if let Some(older) = self.slots.get_mut(op.older) {
            older.newer = op.newer;
        }
        Some(op)
    }

    /// The newest operation on a descriptor.
    pub(super) fn newest_on(&self, fd: &Fd) -> Option<OpId> {
        self.newest.get(number_of(fd)).copied().filter(|&id| self.slots.get(id).is_some())
    }

    /// The next older one on the same descriptor.
    pub(super) fn older_than(&self, id: OpId) -> Option<OpId> {
        self.slots.get(id).map(|op| op.older).filter(|&id| self.slots.get(id).is_some())
    }
}

#[inline]
fn number_of(fd: &Fd) -> usize {
    fd.as_raw_fd().cast_unsigned() as usize
}

/// The name as the 64 bits that travel with an operation.
#[inline]
pub(super) fn user_data(id: OpId) -> u64 {
    u64::from(id.generation) << 32 | u64::from(id.index)
}

/// The name that travelled.
#[inline]
pub(super) fn op_id(user_data: u64) -> OpId {
    let (generation, index) = halves(user_data);
    OpId { index, generation }
}

/// What cancellations carry, which need no slot. No slot has that number.
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
    let (notice, index) = halves(user_data);
    (index == NONE && user_data != OWN).then_some(notice)
}

#[cfg(test)]
mod tests {
    use super::*;

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
