//! Broken connections. A server may answer early, close with part of a request unread and so reset
//! the connection; the kernel keeps what came before the reset. So a socket that takes no more is
//! read to its end, what it gave is delivered, and only then the other side is reset: when its kernel
//! has acknowledged all, since a reset drops what it has not. A client that is reset behind what it
//! has sent is treated the same.
//!
//! Bounds: a broken TCP socket gives no more than its receive queue holds. What stands still for
//! [`BROKEN_QUIET_MILLIS`], or takes longer than `TIMEOUT=lin` altogether, is dropped.

use std::io;
use std::time::Duration;

use crate::limits::{BROKEN_QUIET_MILLIS, SWEEP_MILLIS};
use crate::session::Moment;

/// How long what a broken connection had sent is waited for.
#[derive(Debug)]
pub(in crate::worker) struct Patience {
    /// Something moved, last.
    moved_at: Moment,
    until: Option<Moment>,
    /// What had not arrived when that was last asked, in bytes.
    undelivered_bytes: usize,
}

impl Patience {
    pub(in crate::worker) fn new(now: Moment, linger: Option<Duration>) -> Patience {
        let until = linger.map(|linger| now.after(linger));
        Patience { moved_at: now, until, undelivered_bytes: 0 }
    }

    /// Whether it is over. `last_data`: when bytes were last moved here.
    pub(in crate::worker) fn is_over(
        &mut self,
        now: Moment,
        last_data: Moment,
        undelivered_bytes: usize,
    ) -> bool {
        if undelivered_bytes != self.undelivered_bytes {
            self.undelivered_bytes = undelivered_bytes;
            self.moved_at = now;
        }
        let quiet = Duration::from_millis(BROKEN_QUIET_MILLIS);
        let still = self.moved_at.max(last_data).after(quiet) <= now;
        still || self.until.is_some_and(|until| until <= now)
    }
}

/// A socket that takes no more.
#[derive(Debug)]
pub(in crate::worker) struct Broken {
    /// A write has reported the reset. The kernel reports it once: the end of data that reading comes
    /// to is none. A write that fails with `EPIPE` says nothing of the kind: the end of data, if one
    /// comes, was sent before the reset.
    reset_reported: bool,
    pub(in crate::worker) patience: Patience,
}

impl Broken {
    pub(in crate::worker) fn new(now: Moment, linger: Option<Duration>) -> Broken {
        Broken { reset_reported: false, patience: Patience::new(now, linger) }
    }

    /// A write has failed.
    pub(in crate::worker) fn write_failed(&mut self, error: &io::Error) {
        self.reset_reported |= error.raw_os_error() != Some(libc::EPIPE);
    }

    /// An end of data that is read now was sent by the other end.
    pub(in crate::worker) fn ends_in_order(&self) -> bool {
        !self.reset_reported
    }
}

/// When what is waited for is looked at again.
pub(in crate::worker) fn next_look(now: Moment) -> Moment {
    now.after(Duration::from_millis(SWEEP_MILLIS))
}
