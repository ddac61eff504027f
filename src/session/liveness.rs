//! Is the peer still there, and how far away: the hello's deadline, the keep-alive, and the round
//! trip.
//!
//! The round trip is to be the path's, without what waits in the sockets at both ends. So the
//! smallest counts; a longer one takes its place after a while, and only if next to nothing was on
//! the way beside its ping. Without that rule a queue would make the round trip longer, that the
//! windows larger, and those the queue longer.

use std::time::Duration;

use super::transmit::Control;
use super::{Config, Moment, Session, TunnelError};
use crate::limits::{
    KEEPALIVE_INTERVALS, ROUND_TRIP_EVERY_MICROS, ROUND_TRIP_KEPT_MICROS, ROUND_TRIP_QUIET_BYTES,
    ROUND_TRIPS_AT_FIRST,
};
use crate::wire::Protocol;

/// What the ping behind GOING_AWAY carries; other pings carry a number.
pub(super) const FAREWELL: &[u8] = b"farewell";

/// Times of the tunnel itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Liveness {
    hello_deadline: Option<Moment>,
    hello_timeout: Option<Duration>,
    /// Nothing has come from a peer that may take as long as it likes to come.
    awaits_peer: bool,
    keepalive: Option<Duration>,
    last_received: Moment,
    last_ping: Moment,
    /// The last ping, while it is not answered.
    asked: Option<Asked>,
    /// The round trip, and when it was measured.
    round_trip: Option<(Duration, Moment)>,
    /// Pings that follow each other at the beginning, still to be sent.
    first_pings: u8,
}

/// A ping under way.
#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Moment,
    /// Little of ours was on the way before it.
    was_quiet: bool,
    /// Payload that had come by then.
    received_bytes: u64,
}

impl Liveness {
    pub(super) fn new(config: &Config, now: Moment) -> Liveness {
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

    fn next_ping(&self) -> Option<Moment> {
        Some(self.last_received.max(self.last_ping).after(self.keepalive?))
    }

    /// When the round trip may be measured again.
    fn next_measurement(&self) -> Moment {
        let round_trip = self.round_trip.map_or(Duration::ZERO, |(time, _)| time);
        let least = Duration::from_micros(ROUND_TRIP_EVERY_MICROS);
        self.last_ping.after(least.max(round_trip * 4))
    }

    /// A ping has shown this; `is_quiet`: nothing was in its way.
    fn measured(&mut self, time: Duration, is_quiet: bool, now: Moment) {
        let kept = Duration::from_micros(ROUND_TRIP_KEPT_MICROS);
        let stands = self
            .round_trip
            .is_some_and(|(least, at)| least < time && (now < at.after(kept) || !is_quiet));
        if !stands {
            self.round_trip = Some((time, now));
        }
    }

    /// 0.3: a stream that was opened then is answered now. That takes a round trip at least, and on a
    /// quiet tunnel there is no other measure of it.
    pub(super) fn answered_open(&mut self, began: Moment, now: Moment) {
        self.measured(Duration::from_micros(now.0.saturating_sub(began.0)), true, now);
    }

    fn silent_since(&self) -> Option<Moment> {
        if self.awaits_peer {
            return None;
        }
        Some(self.last_received.after(self.keepalive? * KEEPALIVE_INTERVALS))
    }
}

impl Session {
    /// Bytes have come from the peer, whatever they were.
    #[inline]
    pub fn received(&mut self, now: Moment) {
        self.liveness.last_received = now;
        if std::mem::take(&mut self.liveness.awaits_peer) {
            self.liveness.hello_deadline =
                self.liveness.hello_timeout.map(|timeout| now.after(timeout));
        }
        self.link_window.clock(now);
    }

    /// Round trip of the path, as pings have shown it.
    pub fn round_trip(&self) -> Option<Duration> {
        self.liveness.round_trip.map(|(time, _)| time)
    }

    /// When [`Session::on_time`] is to be called next.
    pub fn next_timeout(&self) -> Option<Moment> {
        if let Some(deadline) = self.liveness.hello_deadline {
            return Some(deadline);
        }
        // No ping goes out before the hello is done, even where no deadline is set for it.
        let ping = self.liveness.next_ping().filter(|_| self.hello.is_done());
        let acks = [self.queues.ack_deadline(), self.link_window.report_at()];
        [ping, self.liveness.silent_since(), self.next_hold_end()]
            .into_iter()
            .chain(acks)
            .flatten()
            .min()
    }

    /// It is now `now`.
    ///
    /// # Errors
    /// [`TunnelError`] when the peer has been silent for too long: the tunnel is over.
    pub fn on_time(&mut self, now: Moment) -> Result<(), TunnelError> {
        self.link_window.clock(now);
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
        self.end_holds(now);
        Ok(())
    }

    pub(super) fn ping(&mut self, now: Moment) {
        self.liveness.last_ping = now;
        self.liveness.asked = Some(Asked {
            at: now,
            was_quiet: self.link_window.in_flight_bytes() <= ROUND_TRIP_QUIET_BYTES,
            received_bytes: self.link_window.received_bytes(),
        });
        self.outbox.push(Control::Ping(now));
    }

    /// Bulk passes: measures the round trip again, if it is time and no ping is under way.
    pub(super) fn ping_beside_bulk(&mut self, now: Moment) {
        let may = self.protocol == Protocol::V1 && self.liveness.asked.is_none();
        if may && now >= self.liveness.next_measurement() {
            self.ping(now);
        }
    }

    /// The answer to a ping of ours, which carried the time in microseconds, or to the one behind
    /// GOING_AWAY.
    pub(super) fn on_pong(&mut self, payload: &[u8], now: Moment) {
        if payload == FAREWELL {
            // All that the peer opened before it knew has come.
            self.refusing = self.refusing.or(self.leaving.take());
            return;
        }
        let text = payload.split(|&b| b == 0).next().unwrap_or_default();
        let sent: Option<u64> = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        // A peer may answer with what it likes: only the last ping's own text is a measurement.
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
