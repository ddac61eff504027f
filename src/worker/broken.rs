//! Broken connections: a socket that accepts no more writes, shared by [`super::stream`] and
//! [`super::relay`].
//!
//! A server may answer early and close with part of the request unread, which resets the
//! connection. The kernel keeps the data received before the reset. So the socket is read to its
//! end, the data is delivered, and the other side is reset only when its kernel has acknowledged
//! everything, since a reset discards unacknowledged data. A client whose connection is reset after
//! it has sent data is treated the same.
//!
//! Bounds: a broken TCP socket yields at most its receive queue. A connection without progress for
//! [`BROKEN_QUIET_MILLIS`], or that takes longer than `TIMEOUT=lin` in total, is dropped.

use std::io;
use std::time::Duration;

use crate::limits::{BROKEN_QUIET_MILLIS, SWEEP_MILLIS};
use crate::session::Moment;

/// The grace period for delivering what a broken connection had sent.
#[derive(Debug)]
pub(in crate::worker) struct GracePeriod {
    /// Time of the last progress.
    moved_at: Moment,
    until: Option<Moment>,
    /// Undelivered bytes at the last check.
    undelivered_bytes: usize,
}

impl GracePeriod {
    pub(in crate::worker) fn new(now: Moment, linger: Option<Duration>) -> GracePeriod {
        let until = linger.map(|linger| now.after(linger));
        GracePeriod { moved_at: now, until, undelivered_bytes: 0 }
    }

    /// Whether it has expired. `last_data`: when bytes were last moved here.
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

/// A socket that accepts no more writes.
#[derive(Debug)]
pub(in crate::worker) struct Broken {
    /// A write has reported the reset. The kernel reports a reset once, so an end of data that is
    /// read afterwards is the reset and not a shutdown. `EPIPE` does not consume the report: an end
    /// of data after it was sent before the reset.
    reset_reported: bool,
    pub(in crate::worker) grace: GracePeriod,
}

impl Broken {
    pub(in crate::worker) fn new(now: Moment, linger: Option<Duration>) -> Broken {
        Broken { reset_reported: false, grace: GracePeriod::new(now, linger) }
    }

    /// A write has failed.
    pub(in crate::worker) fn write_failed(&mut self, error: &io::Error) {
        self.reset_reported |= error.raw_os_error() != Some(libc::EPIPE);
    }

    /// Whether an end of data read now is an orderly shutdown by the other end.
    pub(in crate::worker) fn ends_in_order(&self) -> bool {
        !self.reset_reported
    }
}

/// When to check the grace period again.
pub(in crate::worker) fn next_check(now: Moment) -> Moment {
    now.after(Duration::from_millis(SWEEP_MILLIS))
}
