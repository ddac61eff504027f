//! SockMux 1's windows: how much of each stream the peer may send before our local socket has
//! taken it.
//!
//! A stream begins with the window that we offered. It doubles when half of it was used up within
//! two round trips, which is when it and not the path is what holds the stream back; so it settles
//! at four to eight times what the path has on the way. All streams of a tunnel share one budget for what
//! they have beyond their first window.

use std::time::Duration;

use super::stream::Stream;
use super::{Moment, Session, StreamKey, first_window_bytes};
use crate::limits::{STREAM_WINDOW_BYTES_MAX, WINDOW_BUDGET_BYTES};

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
        let since = Duration::from_micros(now.0.saturating_sub(stream.granted_at.0));
        let held_back = round_trip.is_some_and(|round_trip| since < round_trip * 2);
        if held_back {
            let room = STREAM_WINDOW_BYTES_MAX.saturating_sub(stream.window_bytes);
            let more = stream.window_bytes.min(room).min(left);
            stream.window_bytes += more;
            stream.ack_bytes += more;
            self.extra_window_bytes += more;
        }
        stream.granted_at = now;
        stream.todo.ack = true;
        self.schedule_control(key);
    }
}
