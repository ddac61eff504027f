//! Operations in flight, each with what the kernel may still touch for it, and how their names travel.

use socket2::SockAddr;

use crate::io::driver::{BufferClass, Fd, Gather, OpId, Token};
use crate::io::lent::Lent;
use crate::io::slots::NONE;
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
    /// The driver's own: cancellation of all operations on a descriptor, which it keeps open.
    CancelAll,
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
