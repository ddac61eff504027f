#![allow(unsafe_code)]
//! What the kernel reads while an operation is in flight.

use std::ptr::NonNull;

/// A boxed value that is lent to the kernel: from before its addresses are taken until the last
/// completion of the operation that they were given to.
///
/// It may be moved meanwhile, into a table and with it: unlike a `Box`, which claims to be the only
/// way to its contents wherever it goes, this leaves the addresses valid that were taken before. If
/// it is dropped instead of taken back, the contents are leaked and not freed under the kernel's
/// hands.
#[derive(Debug)]
#[must_use]
pub(crate) struct Lent<T>(NonNull<T>);

impl<T> Lent<T> {
    #[inline]
    pub(crate) fn new(owned: Box<T>) -> Self {
        Self(NonNull::from(Box::leak(owned)))
    }

    /// Where it is.
    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut T {
        self.0.as_ptr()
    }

    /// The end of the loan.
    ///
    /// # Safety
    ///
    /// The operation that was given addresses of it has had its last completion, or was never
    /// begun.
    #[inline]
    pub(crate) unsafe fn take_back(self) -> Box<T> {
        // SAFETY: the contents came from a box, which nobody else has made again: this takes the
        // one handle. The kernel reads them no more, by the contract.
        unsafe { Box::from_raw(self.0.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::chunk::Pool;
    use crate::io::gather::{Gather, SendArgs};

    /// What a send does with a gather: its addresses are taken, it moves into a table, the table
    /// grows, the kernel reads, and the gather comes back. Miri finds it if a move on the way makes
    /// the addresses void, as moving a `Box` does.
    #[test]
    fn addresses_stay_valid_while_what_is_lent_moves() {
        let pool = Pool::new(3, 4).unwrap();
        let gathers = [[b"abc", b"def"], [b"ghi", b"jkl"]].map(|parts| {
            let mut gather = Box::new(Gather::new());
            for part in parts {
                let mut writer = pool.take().unwrap();
                writer.put(part);
                gather.push(writer.take_written());
            }
            gather
        });
        let (mut args, mut table) = (Vec::new(), Vec::with_capacity(1));
        for gather in gathers {
            let lent = Lent::new(gather);
            // SAFETY: nobody reads or writes the gather meanwhile.
            args.push(unsafe { (*lent.as_ptr()).send_args() });
            table.push(lent);
        }
        let mut sent = Vec::new();
        for args in args {
            let SendArgs::Many(header) = args else { panic!("two parts each") };
            // SAFETY: the gathers are lent until below, unchanged.
            unsafe {
                for at in 0..(*header).msg_iovlen {
                    let part = *(*header).msg_iov.add(at);
                    let bytes =
                        std::slice::from_raw_parts(part.iov_base.cast::<u8>(), part.iov_len);
                    sent.extend_from_slice(bytes);
                }
            }
        }
        assert_eq!(sent, b"abcdefghijkl");
        for lent in table {
            // SAFETY: what stood for the kernel has done.
            let mut gather = unsafe { lent.take_back() };
            gather.advance(6);
            assert!(gather.is_empty());
        }
        assert_eq!(pool.free(), 4);
    }
}
