//! SockMux 1's windows: how much of each stream the peer may send before our local socket has
//! taken it.
//!
//! A stream begins with the window that we offered. It doubles when half of it was used up within
//! two round trips, which is when it and not the path is what holds the stream back; so it settles
//! at about twice what the path has on the way. All streams of a tunnel share one budget for what
//! they have beyond their first window.

use std::time::Duration;

use super::stream::Stream;
use super::{Moment, Session, StreamKey, first_window_bytes};
use crate::limits::{STREAM_WINDOW_BYTES_MAX, WINDOW_BUDGET_BYTES};

impl Session {
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
        if stream.ack_bytes < stream.window_bytes / 2 || stream.peer_end {
            return;
        }
        let since = Duration::from_micros(now.0.saturating_sub(stream.granted_at.0));
        let held_back = round_trip.is_some_and(|round_trip| since < round_trip * 2);
        if held_back {
            let room = STREAM_WINDOW_BYTES_MAX.saturating_sub(stream.window_bytes);
            let more = stream.window_bytes.min(room).min(left);
            stream.window_bytes += more;
            stream.ack_bytes += more;
            self.extra_window_bytes += more;
        }
        stream.allowance_bytes += stream.ack_bytes;
        stream.granted_at = now;
        stream.todo.ack = true;
        self.schedule_control(key);
    }
}
