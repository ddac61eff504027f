//! When to dial again. The first dials after a tunnel that was up follow soon; then capped
//! exponential backoff with full jitter.

use std::time::Duration;

use crate::limits::{
    HEALTHY_MILLIS, REDIAL_AWAITED_MAX_MILLIS, REDIAL_FIRST_MILLIS, REDIAL_MAX_MILLIS,
    REDIAL_SOON_MILLIS, REDIAL_SOON_TIMES, SHORT_LIVES_MAX,
};

/// Counts consecutive failures.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backoff {
    failures: u32,
    /// Consecutive tunnels that came up and were lost soon.
    short_lives: u32,
    /// Remaining dials at short intervals, after a tunnel that was up.
    soon_left: u32,
}

impl Backoff {
    /// Records the loss of a connection. `up`: how long its tunnel was up; `None`: the hello was
    /// never completed, which is a failure. A tunnel that was up resets the failures before it: its
    /// peer is being restarted, or the path broke. A peer that repeatedly completes the hello and
    /// drops the tunnel is no better than one that is absent: its short lives are forgiven a few
    /// times in a row, until one of its tunnels lasts.
    pub fn lost(&mut self, up: Option<Duration>) {
        let Some(up) = up else { return };
        let lasted = up >= Duration::from_millis(HEALTHY_MILLIS);
        self.short_lives = if lasted { 0 } else { self.short_lives.saturating_add(1) };
        let forgiven = self.short_lives <= SHORT_LIVES_MAX;
        if forgiven {
            self.failures = 0;
        }
        self.soon_left = if forgiven { REDIAL_SOON_TIMES } else { 0 };
    }

    /// The wait before the next dial. `random` is any number, evenly distributed: it places the
    /// wait between zero and the current bound, so that many connectors that lost the same receptor
    /// do not return in step. `is_awaited`: streams wait for the connection.
    pub fn next(&mut self, random: u64, is_awaited: bool) -> Duration {
        let Some(doublings) = self.failures.checked_sub(1) else {
            self.failures = 1;
            return Duration::ZERO;
        };
        if let Some(left) = self.soon_left.checked_sub(1) {
            self.soon_left = left;
            return Duration::from_millis(REDIAL_SOON_MILLIS / 2 + random % REDIAL_SOON_MILLIS);
        }
        let most = if is_awaited { REDIAL_AWAITED_MAX_MILLIS } else { REDIAL_MAX_MILLIS };
        let bound = REDIAL_FIRST_MILLIS.saturating_mul(1 << doublings.min(20)).min(most);
        self.failures = self.failures.saturating_add(1);
        Duration::from_millis(REDIAL_FIRST_MILLIS / 4 + random % bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTED: Option<Duration> = Some(Duration::from_millis(HEALTHY_MILLIS));
    const SHORT: Option<Duration> = Some(Duration::from_millis(10));

    #[test]
    fn the_first_dial_after_a_healthy_connection_is_at_once() {
        let mut backoff = Backoff::default();
        for random in 0..10 {
            backoff.next(random, false);
        }
        backoff.lost(LASTED);
        assert_eq!(backoff.next(7, false), Duration::ZERO);
    }

    #[test]
    fn waits_grow_to_the_cap_and_never_beyond() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next(u64::MAX, false), Duration::ZERO);
        let mut longest = Duration::ZERO;
        for attempt in 0..200u64 {
            let wait = backoff.next(attempt.wrapping_mul(0x9e37_79b9_7f4a_7c15), false);
            assert!(wait >= Duration::from_millis(REDIAL_FIRST_MILLIS / 4));
            assert!(wait <= Duration::from_millis(REDIAL_MAX_MILLIS + REDIAL_FIRST_MILLIS));
            longest = longest.max(wait);
        }
        assert!(longest > Duration::from_millis(REDIAL_MAX_MILLIS / 2));
    }

    #[test]
    fn waits_stay_short_while_streams_wait() {
        let mut backoff = Backoff::default();
        for attempt in 0..200u64 {
            let wait = backoff.next(attempt.wrapping_mul(0x9e37_79b9_7f4a_7c15), true);
            assert!(wait <= Duration::from_millis(REDIAL_AWAITED_MAX_MILLIS + REDIAL_FIRST_MILLIS));
        }
    }

    #[test]
    fn a_connection_that_drops_before_its_hello_is_no_success() {
        let mut backoff = Backoff::default();
        backoff.next(0, false);
        backoff.lost(None);
        assert!(backoff.next(0, false) > Duration::ZERO);
    }

    #[test]
    fn a_short_life_is_forgiven_a_few_times() {
        let mut backoff = Backoff::default();
        for attempt in 0..10 {
            backoff.next(attempt, false);
        }
        for _ in 0..SHORT_LIVES_MAX {
            backoff.lost(SHORT);
            assert_eq!(backoff.next(u64::MAX, false), Duration::ZERO);
        }
    }

    /// A restarted peer is not dialled at once, but soon.
    #[test]
    fn a_peer_that_was_there_a_moment_ago_is_dialled_again_soon() {
        let mut backoff = Backoff::default();
        backoff.lost(SHORT);
        backoff.next(0, false);
        let random = (0..).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let waits =
            random.take(REDIAL_SOON_TIMES as usize).map(|random| backoff.next(random, false));
        let whole: Duration = waits
            .inspect(|wait| assert!(*wait < Duration::from_millis(2 * REDIAL_SOON_MILLIS)))
            .sum();
        assert!(whole < Duration::from_millis(2_000), "{whole:?}");
        assert!(
            backoff.next(REDIAL_FIRST_MILLIS - 1, false)
                >= Duration::from_millis(REDIAL_FIRST_MILLIS)
        );
    }

    #[test]
    fn a_peer_that_says_hello_and_drops_for_ever_is_backed_off_to() {
        let mut backoff = Backoff::default();
        let mut longest = Duration::ZERO;
        let lives = 60;
        for _ in 0..lives {
            backoff.lost(SHORT);
            longest = longest.max(backoff.next(REDIAL_MAX_MILLIS - 1, false));
        }
        assert!(longest >= Duration::from_millis(REDIAL_MAX_MILLIS), "{longest:?}");
        // A tunnel that lasts resets the count.
        backoff.lost(LASTED);
        assert_eq!(backoff.next(0, false), Duration::ZERO);
        backoff.lost(SHORT);
        assert_eq!(backoff.next(0, false), Duration::ZERO);
    }
}
