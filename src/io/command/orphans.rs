#![allow(unsafe_code)]
//! As process 1 of a container we are given what commands have left behind, and nobody else waits for
//! it.

use std::mem::MaybeUninit;

use crate::limits::ORPHANS_AT_ONCE;

/// Waits for children that have ended and are not `ours`, which have their own ways. True when there
/// may be more: one of ours stands before them, and is about to be waited for.
pub fn reap(ours: impl Fn(u32) -> bool) -> bool {
    for _ in 0..ORPHANS_AT_ONCE {
        match ended(libc::P_ALL, 0, libc::WNOWAIT) {
            None => return false,
            Some(child) if ours(child) => return true,
            Some(child) => drop(ended(libc::P_PID, child, 0)),
        }
    }
    true
}

/// A child that has ended, if there is one. It is waited for, unless told otherwise.
fn ended(which: libc::idtype_t, child: u32, more: libc::c_int) -> Option<u32> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WNOHANG | more;
    // SAFETY: the kernel writes one structure, which is ours, before the call returns. All zeros is a
    // value of it, and the one that says that no child has ended; waitid's has a process.
    let (told, process) = unsafe {
        let told = libc::waitid(which, child, info.as_mut_ptr(), options);
        (told, info.assume_init().si_pid())
    };
    (told == 0 && process > 0).then(|| process.unsigned_abs())
}
