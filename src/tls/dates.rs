//! Dates of certificates, in words.

use rustls::pki_types::UnixTime;

const MINUTE_SECS: u64 = 60;
const HOUR_SECS: u64 = 60 * MINUTE_SECS;
const DAY_SECS: u64 = 24 * HOUR_SECS;

/// How long it is from one time to another, in the largest unit of which there is more than one.
pub fn between(from: UnixTime, to: UnixTime) -> String {
    let seconds = to.as_secs().saturating_sub(from.as_secs());
    for (unit, of) in [("days", DAY_SECS), ("hours", HOUR_SECS), ("minutes", MINUTE_SECS)] {
        if seconds >= 2 * of {
            return format!("{} {unit}", seconds / of);
        }
    }
    format!("{seconds} s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_unit_of_which_there_is_more_than_one_counts() {
        let after = |seconds| {
            let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
            between(at(1_000), at(1_000 + seconds))
        };
        assert_eq!(after(0), "0 s");
        assert_eq!(after(119), "119 s");
        assert_eq!(after(120), "2 minutes");
        assert_eq!(after(2 * HOUR_SECS - 1), "119 minutes");
        assert_eq!(after(2 * DAY_SECS - 1), "47 hours");
        assert_eq!(after(400 * DAY_SECS), "400 days");
        let [early, late] =
            [1, 9].map(|at| UnixTime::since_unix_epoch(std::time::Duration::from_secs(at)));
        assert_eq!(between(late, early), "0 s");
    }
}
