//! What is refused is logged, but no faster than somebody could read it.

use std::fmt::Display;

use tracing::warn;

use super::Worker;
use crate::engine::driver::Driver;
use crate::limits::REFUSALS_LOGGED_PER_SECOND;

/// Keeps a flood of refused streams out of the log.
#[derive(Debug, Default)]
pub(super) struct RefusalLog {
    second: u64,
    logged: u32,
    kept_back: u64,
}

impl<D: Driver> Worker<D> {
    /// Logs a refused stream, unless many were in this second.
    pub(super) fn log_refused(&mut self, client: impl Display, reason: &str) {
        if self.may_log_refusal() {
            warn!(client = %client, reason, "stream refused");
        }
    }

    /// Counts a refusal. `false`: many were in this second.
    pub(super) fn may_log_refusal(&mut self) -> bool {
        let second = self.now.0 / 1_000_000;
        if second != self.refusals.second {
            if self.refusals.kept_back > 0 {
                warn!(
                    count = self.refusals.kept_back,
                    "more streams refused, not logged one by one"
                );
            }
            self.refusals = RefusalLog { second, ..RefusalLog::default() };
        }
        let may = self.refusals.logged < REFUSALS_LOGGED_PER_SECOND;
        match may {
            true => self.refusals.logged += 1,
            false => self.refusals.kept_back += 1,
        }
        may
    }
}
