//! SockMux 1: what is on the way over the whole connection, so that a keystroke stays fast beside
//! bulk.
//!
//! What a small frame waits behind is what bulk has put before it, and most of that stands in the
//! sockets at both ends, where nobody can reorder it. So the receiver says how much it has read,
//! and bulk is sent only while not more than a cap is on the way: little while somebody types,
//! much otherwise, and never less than what fills the path. Small frames do not ask.

use std::time::Duration;

use super::transmit::Control;
use super::{Moment, Session, TunnelError};
use crate::limits::{
    FRAME_BYTES, LANE_ACK_BYTES, LANE_ACK_RUNS_BYTES, LANE_ACK_RUNS_MICROS, LANE_CAP_BULK_BYTES,
    LANE_CAP_RUNS_MILLIS, LANE_CAP_TYPING_BYTES, LANE_CAP_TYPING_BYTES_MIN, LANE_CAP_TYPING_MICROS,
    LANE_QUANTUM_BYTES, READ_AHEAD_BYTES, SMALL_FRAME_BYTES, TYPING_MICROS,
};

/// What has passed over the connection, in bytes of payload: for tests, which count it on their own.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneCounts {
    /// Sent.
    pub sent_bytes: u64,
    /// Of these, the peer has said it has read them.
    pub taken_bytes: u64,
    /// Come, for whomever.
    pub received_bytes: u64,
    /// Of these, the peer was told.
    pub told_bytes: u64,
    /// When it is told of the rest at the latest, if that is much.
    pub tell_at: Option<Moment>,
}

/// Counts of one connection, both ways.
#[derive(Debug, Default)]
pub(super) struct Lane {
    now: Moment,
    /// Payload bytes sent.
    sent_bytes: u64,
    /// Of these, read by the peer.
    taken_bytes: u64,
    /// Payload bytes that have come.
    received_bytes: u64,
    /// Of these, the peer knows.
    told_bytes: u64,
    /// When it is told of the rest at the latest, if that is much.
    tell_at: Option<Moment>,
    /// When a small frame last passed that was not the tail of bulk, or datagrams.
    typed_at: Option<Moment>,
    /// When a large frame with datagrams last passed.
    ran_at: Option<Moment>,
    /// The beginning of the present measurement of the peer's speed: when, and at which count.
    sample: (Moment, u64),
    /// Bytes per second that the peer has read lately, at its best.
    bytes_per_second: u64,
}

impl Lane {
    pub(super) fn clock(&mut self, now: Moment) {
        self.now = now;
    }

    /// The time that was told last.
    pub(super) fn now(&self) -> Moment {
        self.now
    }

    /// A frame with payload passed, either way; `was_small` is the stream's memory of whether
    /// the frame before it was small, too.
    pub(super) fn passed(&mut self, bytes: u64, was_small: &mut bool) {
        // One that is as large as small frames get is the beginning of more: what a receive into a
        // small buffer has left behind comes next.
        let small = bytes < SMALL_FRAME_BYTES;
        if small && *was_small {
            self.typed_at = Some(self.now);
        }
        *was_small = small;
    }

    /// As [`Lane::passed`], for a frame with datagrams: who sends many wants them to be there soon,
    /// too.
    pub(super) fn datagrams_passed(&mut self, bytes: u64, was_small: &mut bool) {
        self.passed(bytes, was_small);
        if bytes > SMALL_FRAME_BYTES {
            self.ran_at = Some(self.now);
        }
    }

    pub(super) fn tell_at(&self) -> Option<Moment> {
        self.tell_at
    }

    pub(super) fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Payload bytes that the peer has not said it has read.
    pub(super) fn on_the_way_bytes(&self) -> u64 {
        self.sent_bytes - self.taken_bytes
    }

    pub(super) fn sent(&mut self, bytes: u64) {
        self.sent_bytes += bytes;
    }

    /// A small frame or a datagram passed a moment ago, either way.
    pub(super) fn somebody_types(&self) -> bool {
        self.is_recent(self.typed_at)
    }

    fn is_recent(&self, at: Option<Moment>) -> bool {
        at.is_some_and(|at| self.now.0 - at.0.min(self.now.0) < TYPING_MICROS)
    }

    /// What the peer reads in a millisecond, but no crumb, and not more than a stream has at once.
    pub(super) fn quantum_bytes(&self) -> u64 {
        const MOST: u64 =
            if FRAME_BYTES < READ_AHEAD_BYTES { FRAME_BYTES } else { READ_AHEAD_BYTES };
        (self.bytes_per_second / 1_000).clamp(LANE_QUANTUM_BYTES, MOST)
    }

    /// How much bulk may be sent now.
    pub(super) fn room_bytes(&self, round_trip: Option<Duration>) -> u64 {
        let least = if self.somebody_types() {
            // A peer that reads small datagrams has fewer bytes on its way.
            let waits = self.bytes_per_second / 1_000_000 * LANE_CAP_TYPING_MICROS;
            waits.clamp(LANE_CAP_TYPING_BYTES_MIN, LANE_CAP_TYPING_BYTES)
        } else if self.is_recent(self.ran_at) {
            // A flood of datagrams waits behind itself for so long at most.
            let waits = self.bytes_per_second / 1_000 * LANE_CAP_RUNS_MILLIS;
            waits.clamp(LANE_CAP_TYPING_BYTES, LANE_CAP_BULK_BYTES)
        } else {
            LANE_CAP_BULK_BYTES
        };
        let micros = round_trip.map_or(0, |time| time.as_micros() as u64);
        // What the path holds at the peer's speed, and half of it more, so that a speed that this
        // holds back can grow.
        let path = self.bytes_per_second / 1_000 * micros * 3 / 2_000;
        let room = least.max(path).saturating_sub(self.on_the_way_bytes());
        if room < LANE_QUANTUM_BYTES { 0 } else { room }
    }
}

impl Session {
    /// What has passed so far.
    #[doc(hidden)]
    pub fn lane_counts(&self) -> LaneCounts {
        let &Lane { sent_bytes, taken_bytes, received_bytes, told_bytes, tell_at, .. } = &self.lane;
        LaneCounts { sent_bytes, taken_bytes, received_bytes, told_bytes, tell_at }
    }

    /// Payload has come, for whomever: says so to the peer from time to time.
    pub(super) fn lane_received(&mut self, bytes: u64, now: Moment) {
        self.lane.received_bytes += bytes;
        let untold_bytes = self.lane.received_bytes - self.lane.told_bytes;
        let may_wait = self.lane.is_recent(self.lane.ran_at) && !self.lane.somebody_types();
        if untold_bytes >= if may_wait { LANE_ACK_RUNS_BYTES } else { LANE_ACK_BYTES } {
            self.tell_lane(now);
        } else if untold_bytes >= LANE_ACK_BYTES {
            let patience = Duration::from_micros(LANE_ACK_RUNS_MICROS);
            self.lane.tell_at.get_or_insert(now.after(patience));
        }
    }

    /// Tells what has waited long enough.
    pub(super) fn lane_on_time(&mut self, now: Moment) {
        if self.lane.tell_at.is_some_and(|at| now >= at) {
            self.tell_lane(now);
        }
    }

    fn tell_lane(&mut self, now: Moment) {
        self.lane.tell_at = None;
        self.lane.told_bytes = self.lane.received_bytes;
        self.outbox.push(Control::LaneTaken(self.lane.received_bytes));
        self.ping_beside_bulk(now);
    }

    /// The peer has read so much.
    pub(super) fn on_lane_taken(
        &mut self,
        total_bytes: u64,
        now: Moment,
    ) -> Result<(), TunnelError> {
        let (sent_bytes, before) = (self.lane.sent_bytes, self.lane.taken_bytes);
        if total_bytes > sent_bytes || total_bytes < before {
            let extra_bytes = total_bytes.abs_diff(sent_bytes);
            return Err(TunnelError::AckOverrun { extra_bytes });
        }
        self.lane.taken_bytes = total_bytes;
        let (began, at_bytes) = self.lane.sample;
        let micros = self.lane.now.0 - began.0.min(self.lane.now.0);
        let round_trip = self.round_trip().map_or(1_000, |time| time.as_micros() as u64);
        if micros >= round_trip.max(1_000) {
            let speed = (total_bytes - at_bytes).saturating_mul(1_000_000) / micros;
            let fading = self.lane.bytes_per_second / 8 * 7;
            self.lane.bytes_per_second = speed.max(fading);
            self.lane.sample = (self.lane.now, total_bytes);
        }
        self.ping_beside_bulk(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(now: u64) -> Lane {
        Lane { now: Moment(now), ..Lane::default() }
    }

    #[test]
    fn somebody_types_when_two_small_frames_follow_each_other() {
        let mut lane = lane(1_000_000);
        let mut was_small = true;
        lane.passed(200_000, &mut was_small);
        lane.passed(100, &mut was_small);
        assert_eq!(lane.room_bytes(None), LANE_CAP_BULK_BYTES, "the tail of bulk is no typing");
        lane.passed(100, &mut was_small);
        assert_eq!(lane.room_bytes(None), LANE_CAP_TYPING_BYTES_MIN, "its speed is not known");
        lane.bytes_per_second = 2_000_000_000;
        assert_eq!(lane.room_bytes(None), LANE_CAP_TYPING_BYTES);
        lane.bytes_per_second = 350_000_000;
        assert_eq!(lane.room_bytes(None), 350 * LANE_CAP_TYPING_MICROS);
        lane.clock(Moment(1_000_000 + TYPING_MICROS));
        assert_eq!(lane.room_bytes(None), LANE_CAP_BULK_BYTES);
    }

    #[test]
    fn what_is_on_the_way_leaves_less_room_and_crumbs_are_none() {
        let mut lane = lane(0);
        lane.sent(LANE_CAP_BULK_BYTES - LANE_QUANTUM_BYTES);
        assert_eq!(lane.room_bytes(None), LANE_QUANTUM_BYTES);
        lane.sent(1);
        assert_eq!(lane.room_bytes(None), 0);
        lane.taken_bytes = lane.sent_bytes;
        assert_eq!(lane.room_bytes(None), LANE_CAP_BULK_BYTES);
    }

    #[test]
    fn a_flood_is_told_of_seldom_but_soon() {
        let mut session = Session::new(super::super::Config::default(), Moment(0));
        session.lane.clock(Moment(1_000_000));
        session.lane.datagrams_passed(60_000, &mut true);
        session.lane_received(LANE_ACK_RUNS_BYTES - 1, Moment(1_000_000));
        assert_eq!(session.lane_counts().told_bytes, 0);
        let at = session.lane.tell_at().expect("it is told of");
        assert_eq!(at, Moment(1_000_000 + LANE_ACK_RUNS_MICROS));
        session.lane_on_time(at);
        let counts = session.lane_counts();
        assert_eq!(counts.told_bytes, counts.received_bytes);
        assert_eq!(session.lane.tell_at(), None);
        session.lane_received(LANE_ACK_RUNS_BYTES, at);
        assert_eq!(session.lane_counts().told_bytes, counts.told_bytes + LANE_ACK_RUNS_BYTES);
        // A keystroke: what was held back is told with the next.
        session.lane.passed(1, &mut true);
        session.lane_received(LANE_ACK_BYTES, at);
        let counts = session.lane_counts();
        assert_eq!(counts.told_bytes, counts.received_bytes);
    }

    #[test]
    fn a_long_path_is_filled_also_while_somebody_types() {
        let mut lane = lane(1_000_000);
        lane.passed(1, &mut true);
        lane.bytes_per_second = 125_000_000;
        let round_trip = Some(Duration::from_millis(100));
        assert_eq!(lane.room_bytes(round_trip), 18_750_000);
    }
}
