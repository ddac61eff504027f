//! Whether to look for what comes next before sleeping.
//!
//! To be woken up takes longer than everything else that a keystroke needs here. So while small
//! messages follow each other closely, the worker looks out for the next one for a moment. While
//! there is bulk, that is what the processor is for.

use std::time::Duration;

use crate::limits::{WATCH_INTERVAL_MICROS, WATCH_MICROS};
use crate::session::Moment;

/// How long bulk is said to go on after the last of it.
const BULK_MICROS: u64 = 5_000;

/// What is known of the last few messages.
#[derive(Debug, Default)]
pub(super) struct BusyPoll {
    small_at: Moment,
    bulk_at: Option<Moment>,
    /// Time from one turn with something small to the next, averaged over the last few, in
    /// microseconds.
    interval_micros: u64,
}

impl BusyPoll {
    /// Payload has come from a socket: a whole large buffer, or less.
    #[inline]
    pub(super) fn came(&mut self, large: bool, now: Moment) {
        if large {
            self.bulk_at = Some(now);
        } else if self.small_at != now {
            // One long silence is forgotten after a few messages.
            let interval = now.0.saturating_sub(self.small_at.0).min(4 * WATCH_INTERVAL_MICROS);
            self.interval_micros = (self.interval_micros * 7 + interval) / 8;
            self.small_at = now;
        }
    }

    /// How long to look for what comes next, if at all.
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

    /// How many of a hundred turns, so far apart, end in looking.
    fn looks(watch: &mut BusyPoll, now: &mut Moment, apart_micros: u64) -> usize {
        (0..100)
            .filter(|_| {
                now.0 += apart_micros;
                watch.came(false, *now);
                watch.time(*now).is_some()
            })
            .count()
    }

    #[test]
    fn only_while_small_messages_follow_each_other_closely() {
        let (mut watch, mut now) = (BusyPoll::default(), Moment(1_000_000));
        assert_eq!(watch.time(now), None);
        assert!(looks(&mut watch, &mut now, 10 * WATCH_INTERVAL_MICROS) < 10);
        assert!(looks(&mut watch, &mut now, WATCH_INTERVAL_MICROS / 2) > 80);
        now.0 += 10_000_000;
        assert!(looks(&mut watch, &mut now, WATCH_INTERVAL_MICROS / 2) > 80);
        now.0 += WATCH_MICROS;
        assert_eq!(watch.time(now), None, "nothing has come");
    }

    #[test]
    fn not_beside_bulk() {
        let (mut watch, mut now) = (BusyPoll::default(), Moment(1_000_000));
        looks(&mut watch, &mut now, 10);
        watch.came(true, now);
        assert_eq!(looks(&mut watch, &mut now, 10), 0);
        now.0 += BULK_MICROS;
        assert!(looks(&mut watch, &mut now, 10) > 80);
    }
}
