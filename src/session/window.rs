//! SockMux 1's windows: how many bytes of each stream the peer may send before the local socket
//! consumes them.
//!
//! A stream begins with the window that we offered, and the window then follows the path.
//!
//! - It grows when half of it was used up within two round trips, because then the window and not
//!   the path limits the stream. It grows to eight times the bytes in flight that this half
//!   indicates. The time runs from the first byte after the last grant, so that a stream that was
//!   silent in between, or is new, grows with its first burst.
//! - On a short path a burst proves little: after a pause of the scheduler half of any window
//!   arrives at once. So the window does not grow beyond [`ceiling`]: eight times what the local
//!   socket consumes in a round trip, averaged over a time longer than such pauses. The round trip
//!   is the recent minimum, without the queue that a large window causes. Data beyond the capacity
//!   of the exit's pipes would have to be copied, so any path may have half of that capacity.
//! - A window above its ceiling that does not grow shrinks: credit is withheld until it fits.
//!
//! All streams of a tunnel share one budget for the part of their windows beyond the first.

use std::time::Duration;

use super::stream::Stream;
use super::{Moment, Session, StreamKey, first_window_bytes};
use crate::limits::{
    STREAM_WINDOW_BYTES_MAX, WINDOW_CEILING_ROUND_TRIPS, WINDOW_GROWTH_MAX,
    WINDOW_LASTS_MICROS_MIN, WINDOW_RATE_MICROS_MIN, WINDOW_RATE_ROUND_TRIPS,
    WINDOW_SHORT_PATH_BYTES,
};
use crate::narrow;

/// Rate at which a stream's local socket consumes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ConsumeRate {
    /// Start of the current measurement, and bytes consumed since.
    since: Moment,
    bytes: u64,
    /// Result of the last measurements.
    bytes_per_second: u64,
}

impl ConsumeRate {
    #[inline]
    pub(super) fn consumed(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Ends the measurement if it has lasted `least_micros`. A slower rate counts by an eighth for
    /// each such period.
    fn measure(&mut self, now: Moment, least_micros: u64) {
        let micros = now.0.saturating_sub(self.since.0);
        if micros >= least_micros {
            let rate = self.bytes.saturating_mul(1_000_000) / micros;
            let eighths_left = 8_u64.saturating_sub(micros / least_micros);
            let bytes_per_second = rate.max(self.bytes_per_second / 8 * eighths_left);
            *self = ConsumeRate { since: now, bytes: 0, bytes_per_second };
        }
    }
}

/// The windows of one stream, in bytes. Public for tests, which compute them on their own.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// What we may send.
    pub credit_bytes: u64,
    /// What the peer may send.
    pub allowance_bytes: u64,
    /// Received and not consumed.
    pub backlog_bytes: u64,
    /// Consumed, or added to the window, and not reported to the peer.
    pub unreported_bytes: u64,
    /// The window.
    pub window_bytes: u64,
}

impl Session {
    /// The windows of a stream, in SockMux 1.
    #[doc(hidden)]
    pub fn windows(&self, key: StreamKey) -> Option<Windows> {
        let stream = self.streams.get(key)?;
        Some(Windows {
            credit_bytes: stream.credit_bytes,
            allowance_bytes: stream.allowance_bytes,
            backlog_bytes: stream.backlog_bytes,
            unreported_bytes: stream.ack_bytes,
            window_bytes: stream.window_bytes,
        })
    }

    /// Total of the windows beyond each stream's first window, in bytes.
    #[doc(hidden)]
    pub fn extra_window_bytes(&self) -> u64 {
        self.extra_window_bytes
    }

    /// Sets the initial windows of a new stream.
    pub(super) fn open_windows(&mut self, key: StreamKey) {
        let own = self.first_window_bytes();
        let peers = first_window_bytes(self.peer.offer);
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.window_bytes = own;
        stream.allowance_bytes = own;
        stream.credit_bytes = peers;
    }

    /// Returns the budget of a stream that has ended.
    pub(super) fn close_windows(&mut self, stream: &Stream) {
        self.extra_window_bytes -= stream.window_bytes.saturating_sub(self.first_window_bytes());
    }

    /// Grants the peer more credit when half of the window is used up.
    pub(super) fn grant(&mut self, key: StreamKey, now: Moment) {
        let round_trip = self.round_trip();
        let first_bytes = self.first_window_bytes();
        let left = self.config.window_budget_bytes.saturating_sub(self.extra_window_bytes);
        let Some(stream) = self.streams.get_mut(key) else { return };
        // A queued grant that has not been sent includes whatever is added meanwhile.
        let waits = stream.todo.ack;
        if stream.ack_bytes < stream.window_bytes / 2 || stream.peer_end || waits {
            return;
        }
        let began = stream.filling_since.take().unwrap_or(stream.granted_at);
        let micros = now.0.saturating_sub(began.0);
        if let Some(round_trip) = round_trip {
            let least_micros = rate_micros(round_trip);
            if began.0.saturating_sub(stream.granted_at.0) >= least_micros {
                // The stream was silent: measure what was received since by itself.
                stream.rate = ConsumeRate { since: began, bytes: stream.ack_bytes, ..stream.rate };
            }
            stream.rate.measure(now, least_micros);
            let ceiling_bytes = ceiling(stream.rate.bytes_per_second, round_trip);
            let times = growth(micros, round_trip);
            let grows = times > 1;
            // At the start of a long path the rate lags behind what the window allows.
            let most_bytes = match grows && is_long(round_trip) {
                true => STREAM_WINDOW_BYTES_MAX,
                false => ceiling_bytes.max(first_bytes),
            };
            if stream.window_bytes > most_bytes {
                let less = (stream.window_bytes - most_bytes).min(stream.ack_bytes);
                stream.window_bytes -= less;
                stream.ack_bytes -= less;
                self.extra_window_bytes -= less;
            } else if grows {
                let room = most_bytes - stream.window_bytes;
                let more = (stream.window_bytes * (times - 1)).min(room).min(left);
                stream.window_bytes += more;
                stream.ack_bytes += more;
                self.extra_window_bytes += more;
            }
        }
        stream.granted_at = now;
        stream.todo.ack = true;
        self.schedule_control(key);
    }
}

/// Whether a path is too long for a burst to be a pause of the scheduler.
fn is_long(round_trip: Duration) -> bool {
    narrow::micros(round_trip) >= WINDOW_RATE_MICROS_MIN
}

/// Shortest measurement of a rate, in microseconds.
fn rate_micros(round_trip: Duration) -> u64 {
    (narrow::micros(round_trip) * WINDOW_RATE_ROUND_TRIPS).max(WINDOW_RATE_MICROS_MIN)
}

/// Largest window: several times what fills the path at this rate, and at least what any path may
/// have.
fn ceiling(bytes_per_second: u64, round_trip: Duration) -> u64 {
    let micros = narrow::micros(round_trip) * WINDOW_CEILING_ROUND_TRIPS;
    let path_bytes = u128::from(bytes_per_second) * u128::from(micros) / 1_000_000;
    let path_bytes = u64::try_from(path_bytes).unwrap_or(u64::MAX);
    path_bytes.clamp(WINDOW_SHORT_PATH_BYTES, STREAM_WINDOW_BYTES_MAX)
}

/// Factor by which a window grows if half of it was used up within `micros`.
fn growth(micros: u64, round_trip: Duration) -> u64 {
    let round_trip = narrow::micros(round_trip).max(WINDOW_LASTS_MICROS_MIN);
    match 4 * round_trip / micros.max(1) {
        0 | 1 => 1,
        times => times.min(WINDOW_GROWTH_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_grows_to_eight_times_what_the_path_has_on_the_way() {
        let round_trip = Duration::from_millis(100);
        // Half of the window in two round trips is four times the bytes in flight.
        assert_eq!(growth(200_001, round_trip), 1);
        assert_eq!(growth(130_000, round_trip), 3);
        assert_eq!(growth(100_000, round_trip), 4);
        assert_eq!(growth(50_000, round_trip), 8);
        assert_eq!(growth(0, round_trip), WINDOW_GROWTH_MAX);
    }

    #[test]
    fn on_loopback_a_window_lasts_as_long_as_the_processes_need() {
        assert_eq!(growth(WINDOW_LASTS_MICROS_MIN, Duration::ZERO), 4);
        assert_eq!(growth(2 * WINDOW_LASTS_MICROS_MIN + 1, Duration::ZERO), 1);
    }
}
