//! SockMux 1: the window of the whole link, which bounds the bytes in flight so that a keystroke
//! stays fast beside bulk.
//!
//! A small frame waits behind the bulk that was sent before it. Most of that sits in the socket
//! buffers at both ends, where it cannot be reordered. So the receiver reports how much it has
//! read (LANE_TAKEN), and bulk is sent only while less than a cap is in flight: a small cap while
//! the link carries interactive traffic, a large one otherwise, and never less than the path's
//! bandwidth-delay product. Small frames are not subject to the cap.

use std::time::Duration;

use super::{Moment, Session, TunnelError};
use crate::limits::{
    FRAME_BYTES, INTERACTIVE_MICROS, LINK_ACK_BYTES, LINK_ACK_RUNS_BYTES, LINK_ACK_RUNS_MICROS,
    LINK_CAP_BULK_BYTES, LINK_CAP_INTERACTIVE_BYTES, LINK_CAP_INTERACTIVE_BYTES_MIN,
    LINK_CAP_INTERACTIVE_MICROS, LINK_CAP_RUNS_MILLIS, LINK_QUANTUM_BYTES, READ_AHEAD_BYTES,
    SMALL_FRAME_BYTES,
};
use crate::narrow;

/// Payload bytes that passed over the link. Public for tests, which keep their own count.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkCounts {
    /// Sent.
    pub sent_bytes: u64,
    /// Sent, and reported as read by the peer.
    pub consumed_bytes: u64,
    /// Received, of all streams together.
    pub received_bytes: u64,
    /// Received, and reported to the peer.
    pub reported_bytes: u64,
    /// Deadline for the next report, if one is pending.
    pub report_at: Option<Moment>,
}

/// Payload counts of one link, in both directions.
#[derive(Debug, Default)]
pub(super) struct LinkWindow {
    now: Moment,
    /// Sent.
    sent_bytes: u64,
    /// Sent, and reported as read by the peer.
    consumed_bytes: u64,
    /// Received.
    received_bytes: u64,
    /// Received, and reported to the peer.
    reported_bytes: u64,
    /// Deadline for the next report, if one is pending.
    report_at: Option<Moment>,
    /// A report is to be sent.
    report_due: bool,
    /// When a small frame last passed that was not the tail of bulk.
    interactive_at: Option<Moment>,
    /// When a large frame of datagrams last passed.
    ran_at: Option<Moment>,
    /// Start of the current measurement of the peer's read rate: time and count of bytes read.
    sample: (Moment, u64),
    /// The peer's best recent read rate.
    bytes_per_second: u64,
}

impl LinkWindow {
    pub(super) fn clock(&mut self, now: Moment) {
        self.now = now;
    }

    /// The time as last set by [`LinkWindow::clock`].
    pub(super) fn now(&self) -> Moment {
        self.now
    }

    /// Records a frame with payload, sent or received. `was_small` belongs to the stream and holds
    /// whether its previous frame was small.
    pub(super) fn passed(&mut self, bytes: u64, was_small: &mut bool) {
        // A frame of exactly the limit filled a small receive buffer: more data follows it, so it
        // does not count as small. One small frame may be the tail of bulk; two in a row are not.
        let small = bytes < SMALL_FRAME_BYTES;
        if small && *was_small {
            self.interactive_at = Some(self.now);
        }
        *was_small = small;
    }

    /// As [`LinkWindow::passed`], for a frame of datagrams. Large runs also want a short queue.
    pub(super) fn datagrams_passed(&mut self, bytes: u64, was_small: &mut bool) {
        self.passed(bytes, was_small);
        if bytes > SMALL_FRAME_BYTES {
            self.ran_at = Some(self.now);
        }
    }

    pub(super) fn report_at(&self) -> Option<Moment> {
        self.report_at
    }

    pub(super) fn report_is_due(&mut self) {
        self.report_due = true;
    }

    /// The total that was read, if it is to be reported now.
    #[inline]
    pub(super) fn take_report(&mut self) -> Option<u64> {
        if !std::mem::take(&mut self.report_due) {
            return None;
        }
        self.reported_bytes = self.received_bytes;
        Some(self.reported_bytes)
    }

    pub(super) fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Payload bytes sent and not yet reported as read.
    pub(super) fn in_flight_bytes(&self) -> u64 {
        self.sent_bytes - self.consumed_bytes
    }

    pub(super) fn sent(&mut self, bytes: u64) {
        self.sent_bytes += bytes;
    }

    /// Interactive traffic: small frames passed recently, in either direction.
    pub(super) fn is_interactive(&self) -> bool {
        self.is_recent(self.interactive_at)
    }

    fn is_recent(&self, at: Option<Moment>) -> bool {
        at.is_some_and(|at| self.now.0 - at.0.min(self.now.0) < INTERACTIVE_MICROS)
    }

    /// The quantum of a stream's turn: what the peer reads in a millisecond, within bounds. A smaller
    /// quantum would cost more than it brings; a larger one exceeds what a stream can hold ready.
    pub(super) fn quantum_bytes(&self) -> u64 {
        const MOST: u64 =
            if FRAME_BYTES < READ_AHEAD_BYTES { FRAME_BYTES } else { READ_AHEAD_BYTES };
        (self.bytes_per_second / 1_000).clamp(LINK_QUANTUM_BYTES, MOST)
    }

    /// Bytes of bulk that may be sent now.
    pub(super) fn room_bytes(&self, round_trip: Option<Duration>) -> u64 {
        let least = if self.is_interactive() {
            // A slow reader, such as of small datagrams, gets a smaller cap.
            let waits = self.bytes_per_second / 1_000_000 * LINK_CAP_INTERACTIVE_MICROS;
            waits.clamp(LINK_CAP_INTERACTIVE_BYTES_MIN, LINK_CAP_INTERACTIVE_BYTES)
        } else if self.is_recent(self.ran_at) {
            // Bounds the queueing delay that a flood of datagrams causes itself.
            let waits = self.bytes_per_second / 1_000 * LINK_CAP_RUNS_MILLIS;
            waits.clamp(LINK_CAP_INTERACTIVE_BYTES, LINK_CAP_BULK_BYTES)
        } else {
            LINK_CAP_BULK_BYTES
        };
        let micros = round_trip.map_or(0, narrow::micros);
        // 1.5 times the bandwidth-delay product: were it exactly that, a rate that is limited by
        // this cap could never grow.
        let path = self.bytes_per_second / 1_000 * micros * 3 / 2_000;
        let room = least.max(path).saturating_sub(self.in_flight_bytes());
        if room < LINK_QUANTUM_BYTES { 0 } else { room }
    }
}

impl Session {
    /// The link's counts so far.
    #[doc(hidden)]
    pub fn link_counts(&self) -> LinkCounts {
        let &LinkWindow {
            sent_bytes,
            consumed_bytes,
            received_bytes,
            reported_bytes,
            report_at,
            ..
        } = &self.link_window;
        LinkCounts { sent_bytes, consumed_bytes, received_bytes, reported_bytes, report_at }
    }

    /// Counts received payload, whether or not a stream takes it, and reports it to the peer when
    /// enough has accumulated.
    pub(super) fn link_received(&mut self, bytes: u64, now: Moment) {
        self.link_window.received_bytes += bytes;
        let unreported_bytes = self.link_window.received_bytes - self.link_window.reported_bytes;
        // While only floods pass, a report costs more than it helps.
        let may_wait = self.link_window.is_recent(self.link_window.ran_at)
            && !self.link_window.is_interactive();
        if unreported_bytes >= if may_wait { LINK_ACK_RUNS_BYTES } else { LINK_ACK_BYTES } {
            self.report_received(now);
        } else if unreported_bytes >= LINK_ACK_BYTES {
            let patience = Duration::from_micros(LINK_ACK_RUNS_MICROS);
            self.link_window.report_at.get_or_insert(now.after(patience));
        }
    }

    /// Sends a report whose deadline has passed.
    pub(super) fn report_if_due(&mut self, now: Moment) {
        if self.link_window.report_at.is_some_and(|at| now >= at) {
            self.report_received(now);
        }
    }

    fn report_received(&mut self, now: Moment) {
        self.link_window.report_at = None;
        self.link_window.reported_bytes = self.link_window.received_bytes;
        self.link_window.report_due = true;
        self.ping_beside_bulk(now);
    }

    /// LANE_TAKEN: the total that the peer has read.
    pub(super) fn on_lane_taken(
        &mut self,
        total_bytes: u64,
        now: Moment,
    ) -> Result<(), TunnelError> {
        let (sent_bytes, before) = (self.link_window.sent_bytes, self.link_window.consumed_bytes);
        if total_bytes > sent_bytes || total_bytes < before {
            let extra_bytes = total_bytes.abs_diff(sent_bytes);
            return Err(TunnelError::AckOverrun { extra_bytes });
        }
        self.link_window.consumed_bytes = total_bytes;
        let (began, at_bytes) = self.link_window.sample;
        let micros = self.link_window.now.0 - began.0.min(self.link_window.now.0);
        let round_trip = self.round_trip().map_or(1_000, narrow::micros);
        if micros >= round_trip.max(1_000) {
            let speed = (total_bytes - at_bytes).saturating_mul(1_000_000) / micros;
            // The rate decays by an eighth for each measurement that is slower.
            let fading = self.link_window.bytes_per_second / 8 * 7;
            self.link_window.bytes_per_second = speed.max(fading);
            self.link_window.sample = (self.link_window.now, total_bytes);
        }
        self.ping_beside_bulk(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(now: u64) -> LinkWindow {
        LinkWindow { now: Moment(now), ..LinkWindow::default() }
    }

    #[test]
    fn two_small_frames_in_a_row_are_interactive() {
        let mut window = window(1_000_000);
        let mut was_small = true;
        window.passed(200_000, &mut was_small);
        window.passed(100, &mut was_small);
        assert_eq!(
            window.room_bytes(None),
            LINK_CAP_BULK_BYTES,
            "the tail of bulk is not interactive"
        );
        window.passed(100, &mut was_small);
        assert_eq!(
            window.room_bytes(None),
            LINK_CAP_INTERACTIVE_BYTES_MIN,
            "its speed is not known"
        );
        window.bytes_per_second = 2_000_000_000;
        assert_eq!(window.room_bytes(None), LINK_CAP_INTERACTIVE_BYTES);
        window.bytes_per_second = 350_000_000;
        assert_eq!(window.room_bytes(None), 350 * LINK_CAP_INTERACTIVE_MICROS);
        window.clock(Moment(1_000_000 + INTERACTIVE_MICROS));
        assert_eq!(window.room_bytes(None), LINK_CAP_BULK_BYTES);
    }

    #[test]
    fn bytes_in_flight_reduce_the_room_and_small_fragments_are_not_sent() {
        let mut window = window(0);
        window.sent(LINK_CAP_BULK_BYTES - LINK_QUANTUM_BYTES);
        assert_eq!(window.room_bytes(None), LINK_QUANTUM_BYTES);
        window.sent(1);
        assert_eq!(window.room_bytes(None), 0);
        window.consumed_bytes = window.sent_bytes;
        assert_eq!(window.room_bytes(None), LINK_CAP_BULK_BYTES);
    }

    #[test]
    fn a_flood_is_reported_rarely_but_soon() {
        let mut session = Session::new(super::super::SessionConfig::default(), Moment(0));
        session.link_window.clock(Moment(1_000_000));
        session.link_window.datagrams_passed(60_000, &mut true);
        session.link_received(LINK_ACK_RUNS_BYTES - 1, Moment(1_000_000));
        assert_eq!(session.link_counts().reported_bytes, 0);
        let at = session.link_window.report_at().expect("a report is pending");
        assert_eq!(at, Moment(1_000_000 + LINK_ACK_RUNS_MICROS));
        session.report_if_due(at);
        let counts = session.link_counts();
        assert_eq!(counts.reported_bytes, counts.received_bytes);
        assert_eq!(session.link_window.report_at(), None);
        session.link_received(LINK_ACK_RUNS_BYTES, at);
        assert_eq!(
            session.link_counts().reported_bytes,
            counts.reported_bytes + LINK_ACK_RUNS_BYTES
        );
        // A keystroke ends the delay of reports.
        session.link_window.passed(1, &mut true);
        session.link_received(LINK_ACK_BYTES, at);
        let counts = session.link_counts();
        assert_eq!(counts.reported_bytes, counts.received_bytes);
    }

    #[test]
    fn a_long_path_is_filled_also_during_interactive_traffic() {
        let mut window = window(1_000_000);
        window.passed(1, &mut true);
        window.bytes_per_second = 125_000_000;
        let round_trip = Some(Duration::from_millis(100));
        assert_eq!(window.room_bytes(round_trip), 18_750_000);
    }
}
