//! Rate limits for log lines that remote parties can trigger.
//!
//! Anyone who can connect can trigger log lines by the thousand. Such a line is guarded by its
//! [`Class`]: `if cx.may_log(Class::Refusal) { warn!(...) }`. Suppressed lines are counted. The
//! counts are logged soon after the first suppressed line, again while the flood lasts, and at the
//! end. Lines at debug level and below are not limited.

use std::fmt::Display;
use std::time::Duration;

use tracing::{info, warn};

use super::Cx;
use crate::io::driver::Driver;
use crate::limits::{
    LOG_COMMANDS_BURST, LOG_COUNT_MILLIS, LOG_COUNT_SOON_MILLIS, LOG_REFILL_MILLIS,
    LOG_REFUSALS_BURST, LOG_SHORTAGES_BURST, LOG_SILENT_MIN, LOG_STRANGERS_BURST,
    LOG_TUNNELS_BURST, LOG_TUNNELS_REFILL_MILLIS,
};
use crate::narrow;
use crate::session::Moment;
use crate::worker::log_ids::LogIds;

/// Lines that share a limit. A flood in one class does not affect the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Class {
    /// A connection at the receptor's port that does not become a tunnel.
    Stranger,
    /// A tunnel that comes up, goes down or is about to.
    Tunnel,
    /// A stream, client or datagram refused at an entrance or an exit.
    Refusal,
    /// A line of a command's standard error; all commands share one limit.
    Command,
    /// Descriptors, local ports or buffers are exhausted.
    Shortage,
}

const CLASSES: [Class; 5] =
    [Class::Stranger, Class::Tunnel, Class::Refusal, Class::Command, Class::Shortage];

impl Class {
    /// Burst size, and the refill interval of one line.
    fn limit(self) -> (u32, Duration) {
        let (burst, millis) = match self {
            Class::Stranger => (LOG_STRANGERS_BURST, LOG_REFILL_MILLIS),
            Class::Tunnel => (LOG_TUNNELS_BURST, LOG_TUNNELS_REFILL_MILLIS),
            Class::Refusal => (LOG_REFUSALS_BURST, LOG_REFILL_MILLIS),
            Class::Command => (LOG_COMMANDS_BURST, LOG_REFILL_MILLIS),
            Class::Shortage => (LOG_SHORTAGES_BURST, LOG_REFILL_MILLIS),
        };
        (burst, Duration::from_millis(millis))
    }

    /// The message for suppressed lines.
    fn more(self) -> &'static str {
        match self {
            Class::Stranger => "more tunnels did not come up, not logged one by one",
            Class::Tunnel => "more tunnels came up or went down, not logged one by one",
            Class::Refusal => "more streams refused, not logged one by one",
            Class::Command => "more lines of commands, not logged one by one",
            Class::Shortage => {
                "more shortages of descriptors, ports or buffers, not logged one by one"
            }
        }
    }
}

/// The token buckets of all classes, and the counts of suppressed lines.
#[derive(Debug)]
pub(in crate::worker) struct LogLimit {
    buckets: [Bucket; CLASSES.len()],
    /// Connections at the receptor's port that closed before their first byte.
    silent: u64,
    /// When the counts are due, if there are any.
    count_at: Option<Moment>,
    /// Earliest time of the next counts.
    not_before: Moment,
}

/// A token bucket: a line takes one token; one is added per refill interval.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: u32,
    /// When the last token was added.
    since: Moment,
    kept_back: u64,
}

impl LogLimit {
    pub(in crate::worker) fn new(now: Moment) -> LogLimit {
        let full = |class: Class| Bucket { left: class.limit().0, since: now, kept_back: 0 };
        LogLimit { buckets: CLASSES.map(full), silent: 0, count_at: None, not_before: now }
    }

    /// Whether another line of this class may be logged. `false`: the line is counted as
    /// suppressed.
    pub(in crate::worker) fn allow(&mut self, class: Class, now: Moment) -> bool {
        let (burst, every) = class.limit();
        let every = narrow::micros(every);
        let bucket = &mut self.buckets[class as usize];
        let back = now.0.saturating_sub(bucket.since.0) / every;
        bucket.left = bucket.left.saturating_add(back.min(u64::from(burst)) as u32).min(burst);
        // The refill interval of a full bucket begins with the first token taken.
        bucket.since =
            if bucket.left == burst { now } else { Moment(bucket.since.0 + back * every) };
        if bucket.left > 0 {
            bucket.left -= 1;
            return true;
        }
        bucket.kept_back += 1;
        self.count_later(now);
        false
    }

    /// A connection at the receptor's port has closed before its first byte. Only many of them are
    /// worth a line, since health checks do this forever.
    fn left_silently(&mut self, now: Moment) {
        self.silent += 1;
        self.count_later(now);
    }

    fn count_later(&mut self, now: Moment) {
        let soon = now.after(Duration::from_millis(LOG_COUNT_SOON_MILLIS));
        self.count_at.get_or_insert(soon.max(self.not_before));
    }

    /// When [`LogLimit::log_counts`] is due, if it is.
    pub(in crate::worker) fn count_at(&self) -> Option<Moment> {
        self.count_at
    }

    /// Logs the counts since the last call.
    pub(in crate::worker) fn log_counts(&mut self, now: Moment) {
        self.count_at = None;
        self.not_before = now.after(Duration::from_millis(LOG_COUNT_MILLIS));
        for (class, bucket) in CLASSES.into_iter().zip(&mut self.buckets) {
            let count = std::mem::take(&mut bucket.kept_back);
            if count > 0 {
                warn!(count, "{}", class.more());
            }
        }
        let count = std::mem::take(&mut self.silent);
        if count >= LOG_SILENT_MIN {
            info!(count, "connections at the receptor's port ended before their first byte");
        }
    }
}

impl<D: Driver> Cx<D> {
    /// Whether a remotely triggered line may be logged, see [`LogLimit::allow`].
    pub(in crate::worker) fn may_log(&mut self, class: Class) -> bool {
        self.log_limit.allow(class, self.now)
    }

    /// Logs a refused client or datagram, within the rate limit.
    pub(in crate::worker) fn log_refused(&mut self, client: impl Display, reason: &str) {
        self.log_refused_of(LogIds::default(), client, reason);
    }

    /// As [`Self::log_refused`], for a stream, flow or pair that has begun.
    pub(in crate::worker) fn log_refused_of(
        &mut self,
        ids: LogIds,
        client: impl Display,
        reason: &str,
    ) {
        if self.may_log(Class::Refusal) {
            let LogIds { tunnel, stream, flow, pair } = ids;
            warn!(stream, flow, pair, tunnel, %client, reason, "stream refused");
        }
    }

    /// Counts a connection at the receptor's port that closed before its first byte.
    pub(in crate::worker) fn count_silent(&mut self) {
        self.counters.silent += 1;
        self.log_limit.left_silently(self.now);
    }

    /// Logs counts if it is time to.
    pub(in crate::worker) fn log_limit_on_time(&mut self) {
        if self.log_limit.count_at().is_some_and(|at| at <= self.now) {
            self.log_limit.log_counts(self.now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment(millis * 1_000)
    }

    /// How many of `asked` lines, evenly spread over a minute, are allowed.
    fn allowed(limit: &mut LogLimit, class: Class, asked: u64) -> u64 {
        (0..asked).map(|n| u64::from(limit.allow(class, at(n * 60_000 / asked)))).sum()
    }

    #[test]
    fn a_minute_of_everything_stays_below_two_hundred_lines() {
        let mut limit = LogLimit::new(at(0));
        let lines: u64 = CLASSES.map(|class| allowed(&mut limit, class, 20_000)).iter().sum();
        let counts = (60_000 / LOG_COUNT_MILLIS + 1) * (CLASSES.len() as u64 + 1);
        assert!(lines + counts < 200, "{lines} lines and {counts} counts");
        let kept_back: u64 = limit.buckets.iter().map(|bucket| bucket.kept_back).sum();
        assert_eq!(lines + kept_back, 20_000 * CLASSES.len() as u64);
    }

    #[test]
    fn a_flood_in_one_class_leaves_the_others_alone() {
        let mut limit = LogLimit::new(at(0));
        allowed(&mut limit, Class::Stranger, 20_000);
        assert!((0..LOG_TUNNELS_BURST).all(|_| limit.allow(Class::Tunnel, at(60_000))));
        assert!(!limit.allow(Class::Tunnel, at(60_000)));
    }

    #[test]
    fn lines_come_back_with_time_up_to_the_burst() {
        let mut limit = LogLimit::new(at(0));
        let burst = LOG_REFUSALS_BURST;
        let mut allowed = |millis| {
            (0..2 * burst).filter(|_| limit.allow(Class::Refusal, at(millis))).count() as u32
        };
        assert_eq!(allowed(1_000), burst);
        assert_eq!(allowed(1_000 + LOG_REFILL_MILLIS - 1), 0);
        assert_eq!(allowed(1_000 + LOG_REFILL_MILLIS), 1);
        assert_eq!(allowed(1_000 + 3 * LOG_REFILL_MILLIS), 2);
        assert_eq!(allowed(u64::MAX / 1_000_000), burst);
    }

    #[test]
    fn counts_are_due_a_while_after_the_first_that_was_kept_back() {
        let mut limit = LogLimit::new(at(0));
        while limit.allow(Class::Shortage, at(5)) {}
        limit.allow(Class::Shortage, at(7));
        let first = 5 + LOG_COUNT_SOON_MILLIS;
        assert_eq!(limit.count_at(), Some(at(first)));
        limit.log_counts(at(first));
        assert_eq!(limit.count_at(), None);
        // The flood continues.
        limit.left_silently(at(first + 1));
        assert_eq!(limit.count_at(), Some(at(first + LOG_COUNT_MILLIS)));
        limit.log_counts(at(first + LOG_COUNT_MILLIS));
        limit.left_silently(at(500_000));
        assert_eq!(limit.count_at(), Some(at(500_000 + LOG_COUNT_SOON_MILLIS)));
    }
}
