//! Estimates of the line from the fate of frames: its round trip, and its rate of damaged bytes.

use super::frame::OVERHEAD_BYTES;
use crate::limits::{
    LINE_LOSS_BYTES, LINE_LOSS_BYTES_FIRST, LINE_PAYLOAD_BYTES_MIN, LINE_RETRY_MICROS_FIRST,
    LINE_RETRY_MICROS_MAX, LINE_RETRY_MICROS_MIN,
};

/// Retransmission timer: time from when a frame has left until it is acknowledged, as in TCP (RFC
/// 6298).
#[derive(Debug)]
pub(super) struct RoundTrip {
    /// Time that a frame of usual length takes on the line, in microseconds.
    frame_micros: u64,
    smoothed_micros: Option<u64>,
    varies_micros: u64,
    shortest_micros: Option<u64>,
}

impl RoundTrip {
    pub(super) fn new(frame_micros: u64) -> RoundTrip {
        RoundTrip { frame_micros, smoothed_micros: None, varies_micros: 0, shortest_micros: None }
    }

    pub(super) fn sample(&mut self, micros: u64) {
        self.shortest_micros = Some(self.shortest_micros.map_or(micros, |least| least.min(micros)));
        let Some(smoothed) = self.smoothed_micros else {
            self.smoothed_micros = Some(micros);
            self.varies_micros = micros / 2;
            return;
        };
        self.varies_micros = (3 * self.varies_micros + smoothed.abs_diff(micros)) / 4;
        self.smoothed_micros = Some((7 * smoothed + micros) / 8);
    }

    /// Timeout of an acknowledgement after `waits` consecutive timeouts.
    pub(super) fn retry_micros(&self, waits: u32) -> u64 {
        // The peer may delay the acknowledgement by one frame, which is queued behind another one.
        let least = 3 * self.frame_micros + LINE_RETRY_MICROS_MIN;
        let wait = match self.smoothed_micros {
            None => 3 * self.frame_micros + LINE_RETRY_MICROS_FIRST,
            Some(smoothed) => smoothed + (4 * self.varies_micros).max(least),
        };
        // On a slow line a single frame may take longer than the maximum.
        let longest = LINE_RETRY_MICROS_MAX.max(4 * self.frame_micros);
        wait.saturating_mul(1 << waits.min(16)).min(longest)
    }

    /// Shortest round trip so far, in microseconds: without any queue.
    pub(super) fn shortest_micros(&self) -> u64 {
        self.shortest_micros.unwrap_or(LINE_RETRY_MICROS_FIRST)
    }
}

/// Chooses the payload length of frames.
#[derive(Debug)]
pub(super) struct Losses {
    frames_lost: u64,
    bytes_tried: u64,
}

/// Fixed point of the counts, so that halving them keeps a fraction.
const SCALE: u64 = 1 << 10;

impl Losses {
    pub(super) fn new() -> Losses {
        // As if one frame had been lost: what is sent before the first acknowledgement is not cut
        // smaller later.
        Losses { frames_lost: SCALE, bytes_tried: LINE_LOSS_BYTES_FIRST * SCALE }
    }

    /// Records a frame of so many bytes on the line, as arrived or lost.
    pub(super) fn count(&mut self, bytes: u64, is_lost: bool) {
        self.bytes_tried += bytes * SCALE;
        self.frames_lost += u64::from(is_lost) * SCALE;
        if self.bytes_tried > LINE_LOSS_BYTES * SCALE {
            self.bytes_tried /= 2;
            self.frames_lost /= 2;
        }
    }

    /// Payload length with the best throughput, in bytes, at most `most`: with one of n bytes
    /// damaged and h bytes of overhead that is the square root of n · h.
    pub(super) fn payload_bytes(&self, most: usize) -> usize {
        let tried = self.bytes_tried.saturating_mul(OVERHEAD_BYTES as u64);
        let best = tried.checked_div(self.frames_lost).unwrap_or(u64::MAX).isqrt();
        usize::try_from(best).unwrap_or(usize::MAX).clamp(LINE_PAYLOAD_BYTES_MIN.min(most), most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_follows_losses_down_and_up() {
        let mut losses = Losses::new();
        assert_eq!(losses.payload_bytes(207), 207);
        assert!((207..256).contains(&losses.payload_bytes(512)));
        // Of 80 bytes each, one in six frames is lost: two bytes in a thousand are damaged.
        for frame in 0..2_000 {
            losses.count(80, frame % 6 == 0);
        }
        let payload_bytes = losses.payload_bytes(207);
        assert!((50..80).contains(&payload_bytes), "{payload_bytes}");
        for _ in 0..500 {
            losses.count(40, true);
        }
        assert_eq!(losses.payload_bytes(207), LINE_PAYLOAD_BYTES_MIN);
        for _ in 0..2_000 {
            losses.count(80, false);
        }
        assert_eq!(losses.payload_bytes(512), 512);
    }

    #[test]
    fn waits_grow_and_end() {
        let mut round_trip = RoundTrip::new(18_000);
        assert_eq!(round_trip.retry_micros(0), 354_000);
        for _ in 0..100 {
            round_trip.sample(20_000);
        }
        assert_eq!(round_trip.shortest_micros(), 20_000);
        assert_eq!(round_trip.retry_micros(0), 104_000);
        assert_eq!(round_trip.retry_micros(1), 208_000);
        assert_eq!(round_trip.retry_micros(100), LINE_RETRY_MICROS_MAX);
    }
}
