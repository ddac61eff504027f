//! Liveness of the peer: the hello's deadline, the keep-alive, and the round trip.
//!
//! The round trip is meant to be the path's, without queueing in the sockets at both ends. So the
//! smallest measurement counts. A longer one replaces it after a while, and only if next to nothing
//! was in flight beside its ping. Without that rule a queue would lengthen the round trip, a longer
//! round trip enlarge the windows, and larger windows lengthen the queue.

use std::time::Duration;

use super::control::ControlFrame;
use super::{Moment, Session, SessionConfig, TunnelError};
use crate::limits::{
    KEEPALIVE_INTERVALS, ROUND_TRIP_EVERY_MICROS, ROUND_TRIP_KEPT_MICROS, ROUND_TRIP_QUIET_BYTES,
    ROUND_TRIPS_AT_FIRST,
};
use crate::wire::Protocol;

/// Payload of the ping behind GOING_AWAY; other pings carry a number.
pub(super) const FAREWELL: &[u8] = b"farewell";

/// Timers of the tunnel itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Liveness {
    hello_deadline: Option<Moment>,
    hello_timeout: Option<Duration>,
    /// Nothing was received yet, and the peer may take any time to appear.
    awaits_peer: bool,
    keepalive: Option<Duration>,
    last_received: Moment,
    last_ping: Moment,
    /// The last ping, while it is unanswered.
    asked: Option<PendingPing>,
    /// The round trip, and when it was measured.
    round_trip: Option<(Duration, Moment)>,
    /// Consecutive pings at the start that are still to be sent.
    first_pings: u8,
}

/// An unanswered ping.
#[derive(Debug, Clone, Copy)]
struct PendingPing {
    at: Moment,
    /// Little of our data was in flight before it.
    was_quiet: bool,
    /// Payload received by then.
    received_bytes: u64,
}

impl Liveness {
    pub(super) fn new(config: &SessionConfig, now: Moment) -> Liveness {
        Liveness {
            hello_deadline: config
                .hello_timeout
                .filter(|_| !config.awaits_peer)
                .map(|timeout| now.after(timeout)),
            hello_timeout: config.hello_timeout,
            awaits_peer: config.awaits_peer,
            keepalive: config.keepalive,
            last_received: now,
            last_ping: now,
            asked: None,
            round_trip: None,
            first_pings: ROUND_TRIPS_AT_FIRST,
        }
    }

    pub(super) fn hello_done(&mut self) {
        self.hello_deadline = None;
    }

    /// Another connection goes on: the path may be another one, too.
    pub(super) fn begin_again(&mut self, now: Moment) {
        (self.last_received, self.last_ping) = (now, now);
        (self.asked, self.round_trip) = (None, None);
        self.first_pings = ROUND_TRIPS_AT_FIRST;
    }

    fn next_ping(&self) -> Option<Moment> {
        Some(self.last_received.max(self.last_ping).after(self.keepalive?))
    }

    /// Earliest time of the next measurement of the round trip.
    fn next_measurement(&self) -> Moment {
        let round_trip = self.round_trip.map_or(Duration::ZERO, |(time, _)| time);
        let least = Duration::from_micros(ROUND_TRIP_EVERY_MICROS);
        self.last_ping.after(least.max(round_trip * 4))
    }

    /// Records a measurement. `is_quiet`: next to nothing was queued beside the ping.
    fn measured(&mut self, time: Duration, is_quiet: bool, now: Moment) {
        let kept = Duration::from_micros(ROUND_TRIP_KEPT_MICROS);
        let stands = self
            .round_trip
            .is_some_and(|(least, at)| least < time && (now < at.after(kept) || !is_quiet));
        if !stands {
            self.round_trip = Some((time, now));
        }
    }

    /// 0.3: the answer to an open takes at least a round trip. On a quiet tunnel this is the only
    /// measurement of it.
    pub(super) fn answered_open(&mut self, began: Moment, now: Moment) {
        self.measured(Duration::from_micros(now.0.saturating_sub(began.0)), true, now);
    }

    pub(super) fn last_received(&self) -> Moment {
        self.last_received
    }

    fn silent_since(&self) -> Option<Moment> {
        if self.awaits_peer {
            return None;
        }
        Some(self.last_received.after(self.keepalive? * KEEPALIVE_INTERVALS))
    }
}

impl Session {
    /// Bytes of any kind were received from the peer.
    #[inline]
    pub fn received(&mut self, now: Moment) {
        self.liveness.last_received = now;
        self.trust();
        if std::mem::take(&mut self.liveness.awaits_peer) {
            self.liveness.hello_deadline =
                self.liveness.hello_timeout.map(|timeout| now.after(timeout));
        }
        self.link_window.clock(now);
    }

    /// Round trip of the path, as measured by pings.
    pub fn round_trip(&self) -> Option<Duration> {
        self.liveness.round_trip.map(|(time, _)| time)
    }

    /// When [`Session::on_time`] is to be called next.
    pub fn next_timeout(&self) -> Option<Moment> {
        if self.is_suspended {
            return None;
        }
        if let Some(deadline) = self.liveness.hello_deadline {
            return Some(deadline);
        }
        // No ping is sent before the hello is complete, even if that has no deadline.
        let ping = self.liveness.next_ping().filter(|_| self.hello.is_done());
        let acks =
            [self.queues.ack_deadline(), self.link_window.report_at(), self.place.report_at()];
        [ping, self.liveness.silent_since(), self.next_hold_end(), self.doubt_at()]
            .into_iter()
            .chain(acks)
            .flatten()
            .min()
    }

    /// Handles expired timers.
    ///
    /// # Errors
    /// [`TunnelError`] when the peer has been silent for too long: the tunnel is over.
    pub fn on_time(&mut self, now: Moment) -> Result<(), TunnelError> {
        self.link_window.clock(now);
        if self.is_suspended {
            return Ok(());
        }
        if let Some(deadline) = self.liveness.hello_deadline {
            if now >= deadline {
                let seconds = self.liveness.hello_timeout.unwrap_or_default().as_secs();
                return Err(TunnelError::HelloTimeout { seconds });
            }
            return Ok(());
        }
        if self.liveness.silent_since().is_some_and(|at| now >= at) {
            let interval = self.liveness.keepalive.unwrap_or_default();
            return Err(TunnelError::Silent {
                seconds: (interval * KEEPALIVE_INTERVALS).as_secs(),
            });
        }
        if self.hello.is_done() && self.liveness.next_ping().is_some_and(|at| now >= at) {
            self.ping(now);
        }
        self.queues.acks_due_at(now);
        self.report_if_due(now);
        self.place.report_on_time(now);
        self.doubt_on_time(now);
        self.end_holds(now);
        Ok(())
    }

    pub(super) fn ping(&mut self, now: Moment) {
        self.liveness.last_ping = now;
        self.liveness.asked = Some(PendingPing {
            at: now,
            was_quiet: self.link_window.in_flight_bytes() <= ROUND_TRIP_QUIET_BYTES,
            received_bytes: self.link_window.received_bytes(),
        });
        self.outbox.push(ControlFrame::Ping(now));
    }

    /// Measures the round trip again beside bulk, if it is due and no ping is unanswered.
    pub(super) fn ping_beside_bulk(&mut self, now: Moment) {
        let may = self.protocol == Protocol::V1 && self.liveness.asked.is_none();
        if may && now >= self.liveness.next_measurement() {
            self.ping(now);
        }
    }

    /// Handles the answer to a ping of ours, which carried the time in microseconds, or to the one
    /// behind GOING_AWAY.
    pub(super) fn on_pong(&mut self, payload: &[u8], now: Moment) {
        if payload == FAREWELL {
            // Everything that the peer opened before it knew has been received.
            self.refusing = self.refusing.or(self.leaving.take());
            return;
        }
        let text = payload.split(|&b| b == 0).next().unwrap_or_default();
        let sent: Option<u64> = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        // The payload is under the peer's control: only the last ping's own text counts as a
        // measurement.
        if let Some(asked) = self.liveness.asked.take_if(|asked| Some(asked.at.0) == sent) {
            let came_bytes = self.link_window.received_bytes() - asked.received_bytes;
            let is_quiet = asked.was_quiet && came_bytes <= ROUND_TRIP_QUIET_BYTES;
            let time = Duration::from_micros(now.0.saturating_sub(asked.at.0));
            self.liveness.measured(time, is_quiet, now);
            if self.liveness.first_pings > 0 {
                self.liveness.first_pings -= 1;
                self.ping(now);
            }
        }
    }
}
