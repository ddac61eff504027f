//! When to dial again: capped exponential backoff with full jitter. Pure.

use std::time::Duration;

use crate::limits::{HEALTHY_MILLIS, REDIAL_FIRST_MILLIS, REDIAL_MAX_MILLIS};

/// Counts failures in a row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// A connection that was up for `up` is gone. One that was healthy forgives the failures
    /// before it; one that was not counts as a failure itself, so that a peer that accepts and
    /// drops at once is not dialled in a tight loop.
    pub fn lost(&mut self, up: Duration) {
        if up >= Duration::from_millis(HEALTHY_MILLIS) {
            self.failures = 0;
        }
    }

    /// How long to wait before the next dial. `random` is any number, evenly spread: it places
    /// the wait between nothing and the present bound, so that many connectors that lost the same
    /// receptor do not come back in step.
    pub fn next(&mut self, random: u64) -> Duration {
        let Some(doublings) = self.failures.checked_sub(1) else {
            self.failures = 1;
            return Duration::ZERO;
        };
        let bound =
            REDIAL_FIRST_MILLIS.saturating_mul(1 << doublings.min(20)).min(REDIAL_MAX_MILLIS);
        self.failures = self.failures.saturating_add(1);
        Duration::from_millis(REDIAL_FIRST_MILLIS / 4 + random % bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_dial_after_a_healthy_connection_is_at_once() {
        let mut backoff = Backoff::default();
        for random in 0..10 {
            backoff.next(random);
        }
        backoff.lost(Duration::from_millis(HEALTHY_MILLIS));
        assert_eq!(backoff.next(7), Duration::ZERO);
    }

    #[test]
    fn waits_grow_to_the_cap_and_never_beyond() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next(u64::MAX), Duration::ZERO);
        let mut longest = Duration::ZERO;
        for attempt in 0..200u64 {
            let wait = backoff.next(attempt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            assert!(wait >= Duration::from_millis(REDIAL_FIRST_MILLIS / 4));
            assert!(wait <= Duration::from_millis(REDIAL_MAX_MILLIS + REDIAL_FIRST_MILLIS));
            longest = longest.max(wait);
        }
        assert!(longest > Duration::from_millis(REDIAL_MAX_MILLIS / 2));
    }

    #[test]
    fn a_connection_that_drops_at_once_is_no_success() {
        let mut backoff = Backoff::default();
        backoff.next(0);
        backoff.lost(Duration::from_millis(10));
        assert!(backoff.next(0) > Duration::ZERO);
    }
}
