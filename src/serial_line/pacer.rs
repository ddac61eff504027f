//! Pacing: bytes are handed to the device as fast as it sends them, and only a little ahead.

use crate::limits::LINE_AHEAD_MICROS;
use crate::session::Moment;

/// Computes when the device will have sent what it was given.
#[derive(Debug)]
pub(super) struct Pacer {
    bytes_per_second: u64,
    /// When the line is free, in nanoseconds: at high rates a byte takes less than a microsecond.
    free_nanos: u64,
}

impl Pacer {
    pub(super) fn new(bytes_per_second: u32) -> Pacer {
        Pacer { bytes_per_second: u64::from(bytes_per_second.max(1)), free_nanos: 0 }
    }

    /// Capacity of the line, in bytes per second.
    pub(super) fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }

    /// Time of so many bytes on the line, in nanoseconds.
    pub(super) fn nanos(&self, bytes: u64) -> u64 {
        bytes.saturating_mul(1_000_000_000) / self.bytes_per_second
    }

    /// Time of so many bytes on the line, in microseconds.
    pub(super) fn micros(&self, bytes: u64) -> u64 {
        self.nanos(bytes) / 1_000
    }

    /// Time until the device has sent what it was given, in nanoseconds.
    pub(super) fn ahead_nanos(&self, now: Moment) -> u64 {
        self.free_nanos.saturating_sub(now.0.saturating_mul(1_000))
    }

    /// What may be handed over before the device is ahead enough, in nanoseconds of the line;
    /// `None` if it is.
    pub(super) fn room_nanos(&self, now: Moment) -> Option<u64> {
        (LINE_AHEAD_MICROS * 1_000).checked_sub(self.ahead_nanos(now))
    }

    /// Records bytes handed over, and returns when they will be sent.
    pub(super) fn spend(&mut self, bytes: usize, now: Moment) -> Moment {
        let start = self.free_nanos.max(now.0.saturating_mul(1_000));
        self.free_nanos = start.saturating_add(self.nanos(bytes as u64));
        Moment(self.free_nanos.div_ceil(1_000))
    }

    /// When there is room again.
    pub(super) fn opens_at(&self) -> Moment {
        Moment(self.free_nanos.div_ceil(1_000).saturating_sub(LINE_AHEAD_MICROS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_filled_a_little_ahead() {
        let mut pacer = Pacer::new(11_520);
        let now = Moment(1_000_000);
        assert_eq!(pacer.room_nanos(now), Some(5_000_000));
        assert_eq!(pacer.spend(115, now), Moment(1_009_983));
        assert_eq!(pacer.room_nanos(now), None);
        assert_eq!(pacer.opens_at(), Moment(1_004_983));
        assert!(pacer.room_nanos(pacer.opens_at()).is_some());
    }

    #[test]
    fn no_fraction_of_a_byte_is_lost_at_high_rates() {
        let mut pacer = Pacer::new(5_000_000);
        let mut sent = 0;
        for millisecond in 0..1_000 {
            let now = Moment(millisecond * 1_000);
            while pacer.room_nanos(now).is_some() {
                pacer.spend(333, now);
                sent += 333;
            }
        }
        assert!((5_000_000..5_030_000).contains(&sent), "{sent} bytes in a second");
    }
}
