//! Is the peer still there: the hello's deadline and the keep-alive.

use std::time::Duration;

use super::transmit::Control;
use super::{Config, Moment, Session, TunnelError};
use crate::limits::KEEPALIVE_INTERVALS;

/// What the ping behind GOING_AWAY carries; other pings carry a number.
pub(super) const FAREWELL: &[u8] = b"farewell";

/// Times of the tunnel itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Liveness {
    hello_deadline: Option<Moment>,
    hello_timeout: Duration,
    keepalive: Option<Duration>,
    last_received: Moment,
    last_ping: Moment,
    /// Smallest round trip of a ping so far.
    round_trip: Option<Duration>,
}

impl Liveness {
    pub(super) fn new(config: &Config, now: Moment) -> Liveness {
        Liveness {
            hello_deadline: config.hello_timeout.map(|timeout| now.after(timeout)),
            hello_timeout: config.hello_timeout.unwrap_or_default(),
            keepalive: config.keepalive,
            last_received: now,
            last_ping: now,
            round_trip: None,
        }
    }

    pub(super) fn hello_done(&mut self) {
        self.hello_deadline = None;
    }

    fn next_ping(&self) -> Option<Moment> {
        Some(self.last_received.max(self.last_ping).after(self.keepalive?))
    }

    fn silent_since(&self) -> Option<Moment> {
        Some(self.last_received.after(self.keepalive? * KEEPALIVE_INTERVALS))
    }
}

impl Session {
    /// Bytes have come from the peer, whatever they were.
    #[inline]
    pub fn received(&mut self, now: Moment) {
        self.liveness.last_received = now;
        self.lane.clock(now);
    }

    /// Smallest round trip that a ping has shown.
    pub fn round_trip(&self) -> Option<Duration> {
        self.liveness.round_trip
    }

    /// When [`Session::on_time`] is to be called next.
    pub fn next_timeout(&self) -> Option<Moment> {
        if let Some(deadline) = self.liveness.hello_deadline {
            return Some(deadline);
        }
        let holds =
            self.holds.iter().filter_map(|&key| Some(self.streams.get(key)?.hold?.until)).min();
        // No ping goes out before the hello is done, even where no deadline is set for it.
        let ping = self.liveness.next_ping().filter(|_| self.hello.is_done());
        [ping, self.liveness.silent_since(), self.queues.ack_deadline(), holds]
            .into_iter()
            .flatten()
            .min()
    }

    /// It is now `now`.
    ///
    /// # Errors
    /// [`TunnelError`] when the peer has been silent for too long: the tunnel is over.
    pub fn on_time(&mut self, now: Moment) -> Result<(), TunnelError> {
        self.lane.clock(now);
        if let Some(deadline) = self.liveness.hello_deadline {
            if now >= deadline {
                let seconds = self.liveness.hello_timeout.as_secs();
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
        self.end_holds(now);
        Ok(())
    }

    pub(super) fn ping(&mut self, now: Moment) {
        self.liveness.last_ping = now;
        self.outbox.push(Control::Ping(now));
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
        if let Some(sent) = sent.filter(|&sent| sent == self.liveness.last_ping.0) {
            let round_trip = Duration::from_micros(now.0.saturating_sub(sent));
            self.liveness.round_trip =
                Some(self.liveness.round_trip.map_or(round_trip, |least| least.min(round_trip)));
        }
    }
}
