//! Adaptive busy polling: whether to poll for the next message before sleeping.
//!
//! Waking up a sleeping thread costs more than everything else on the path of a keystroke. While
//! small messages arrive in close succession, the worker polls for a moment before it sleeps. It
//! does not while bulk is in flight, which needs the CPU. The event loop asks [`BusyPoll::time`]
//! before each wait.

use std::time::Duration;

use crate::limits::{WATCH_INTERVAL_MICROS, WATCH_MICROS};
use crate::session::Moment;

/// Bulk counts as in flight for this long after its last buffer.
const BULK_MICROS: u64 = 5_000;

/// Statistics of recent messages.
#[derive(Debug, Default)]
pub(super) struct BusyPoll {
    small_at: Moment,
    bulk_at: Option<Moment>,
    /// Moving average of the time between turns with a small message, in microseconds.
    interval_micros: u64,
}

impl BusyPoll {
    /// Payload was received: a full large buffer, or less.
    #[inline]
    pub(super) fn on_payload(&mut self, large: bool, now: Moment) {
        if large {
            self.bulk_at = Some(now);
        } else if self.small_at != now {
            // The cap lets a few messages outweigh one long silence.
            let interval = now.0.saturating_sub(self.small_at.0).min(4 * WATCH_INTERVAL_MICROS);
            self.interval_micros = (self.interval_micros * 7 + interval) / 8;
            self.small_at = now;
        }
    }

    /// How long to poll before sleeping. `None`: not at all.
    #[inline]
    pub(super) fn time(&self, now: Moment) -> Option<Duration> {
        let since = |at: Moment| now.0.saturating_sub(at.0);
        let bulk = self.bulk_at.is_some_and(|at| since(at) < BULK_MICROS);
        let left = WATCH_MICROS.saturating_sub(since(self.small_at));
        (left > 0 && !bulk && self.interval_micros < WATCH_INTERVAL_MICROS)
            .then_some(Duration::from_micros(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a hundred turns this far apart, how many poll.
    fn looks(poll: &mut BusyPoll, now: &mut Moment, apart_micros: u64) -> usize {
        (0..100)
            .filter(|_| {
                now.0 += apart_micros;
                poll.on_payload(false, *now);
                poll.time(*now).is_some()
            })
            .count()
    }

    #[test]
    fn only_while_small_messages_follow_each_other_closely() {
        let (mut poll, mut now) = (BusyPoll::default(), Moment(1_000_000));
        assert_eq!(poll.time(now), None);
        assert!(looks(&mut poll, &mut now, 10 * WATCH_INTERVAL_MICROS) < 10);
        assert!(looks(&mut poll, &mut now, WATCH_INTERVAL_MICROS / 2) > 80);
        now.0 += 10_000_000;
        assert!(looks(&mut poll, &mut now, WATCH_INTERVAL_MICROS / 2) > 80);
        now.0 += WATCH_MICROS;
        assert_eq!(poll.time(now), None, "nothing has come");
    }

    #[test]
    fn not_beside_bulk() {
        let (mut poll, mut now) = (BusyPoll::default(), Moment(1_000_000));
        looks(&mut poll, &mut now, 10);
        poll.on_payload(true, now);
        assert_eq!(looks(&mut poll, &mut now, 10), 0);
        now.0 += BULK_MICROS;
        assert!(looks(&mut poll, &mut now, 10) > 80);
    }
}
