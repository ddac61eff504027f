//! SockMux 1's windows: how much of each stream the peer may send before our local socket has
//! taken it.
//!
//! A stream begins with the window that we offered. It grows when half of it was used up within
//! two round trips, which is when it and not the path is what holds the stream back, to eight times
//! what that half shows the path to have on the way; so it settles at four to eight times. The time
//! runs from the first byte behind the last credit, so that a stream that was silent in between, or
//! has just begun, grows with its first burst. All streams of a tunnel share one budget for what they
//! have beyond their first window.

use std::time::Duration;

use super::stream::Stream;
use super::{Moment, Session, StreamKey, first_window_bytes};
use crate::limits::{
    STREAM_WINDOW_BYTES_MAX, WINDOW_BUDGET_BYTES, WINDOW_GROWTH_MAX, WINDOW_LASTS_MICROS_MIN,
};

/// The windows of one stream, in bytes: for tests, which reckon them on their own.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// What we may send.
    pub credit_bytes: u64,
    /// What the peer may send.
    pub allowance_bytes: u64,
    /// What has come and was not taken.
    pub backlog_bytes: u64,
    /// What was taken, or added to the window, and the peer not told of.
    pub untold_bytes: u64,
    /// The window that is kept open.
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
            untold_bytes: stream.ack_bytes,
            window_bytes: stream.window_bytes,
        })
    }

    /// What all windows have beyond those that their streams began with, in bytes.
    #[doc(hidden)]
    pub fn extra_window_bytes(&self) -> u64 {
        self.extra_window_bytes
    }

    /// Gives a new stream the windows that it begins with.
    pub(super) fn open_windows(&mut self, key: StreamKey) {
        let own = self.first_window_bytes();
        let peers = first_window_bytes(self.peer.offer);
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.window_bytes = own;
        stream.allowance_bytes = own;
        stream.credit_bytes = peers;
    }

    /// Takes back what a stream that has ended had of the budget.
    pub(super) fn close_windows(&mut self, stream: &Stream) {
        self.extra_window_bytes -= stream.window_bytes.saturating_sub(self.first_window_bytes());
    }

    /// Allows the peer more, when half of the window is used up.
    pub(super) fn grant(&mut self, key: StreamKey, now: Moment) {
        let round_trip = self.round_trip();
        let left = WINDOW_BUDGET_BYTES.saturating_sub(self.extra_window_bytes);
        let Some(stream) = self.streams.get_mut(key) else { return };
        // What is to be allowed and has not gone out yet takes along whatever comes meanwhile.
        let waits = stream.todo.ack;
        if stream.ack_bytes < stream.window_bytes / 2 || stream.peer_end || waits {
            return;
        }
        let began = stream.filling_since.take().unwrap_or(stream.granted_at);
        let micros = now.0.saturating_sub(began.0);
        let times = round_trip.map_or(1, |round_trip| growth(micros, round_trip));
        if times > 1 {
            let room = STREAM_WINDOW_BYTES_MAX.saturating_sub(stream.window_bytes);
            let more = (stream.window_bytes * (times - 1)).min(room).min(left);
            stream.window_bytes += more;
            stream.ack_bytes += more;
            self.extra_window_bytes += more;
        }
        stream.granted_at = now;
        stream.todo.ack = true;
        self.schedule_control(key);
    }
}

/// How many times its size a window is to have, half of which was used up within `micros`.
fn growth(micros: u64, round_trip: Duration) -> u64 {
    let round_trip = (round_trip.as_micros() as u64).max(WINDOW_LASTS_MICROS_MIN);
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
        // Half of the window in two round trips: it is four times what the path has on the way.
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
