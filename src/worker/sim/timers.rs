//! No timer is late.
//!
//! Whoever names a deadline is asked for it here, and not the worker, which goes by the earliest of
//! what it asks for itself (`next_timeout` of [`crate::worker::turn`]): a deadline that is missing
//! there is served by whatever wakes the worker next, and nothing else shows it.

use crate::io::sim::SimDriver;
use crate::limits::SWEEP_MILLIS;
use crate::worker::{Drain, Worker};

/// Longest time that a deadline waits for its turn: a turn takes 10 us, and other ends may come
/// first.
const LATE_MICROS: u64 = 200;

/// Turns after which a deadline that has come is served. One may be named in the past.
const TURNS_MAX: usize = 3;

/// What names deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    Session,
    Lane,
    Dial,
    Conn,
    Flow,
    Connector,
}

pub(super) const TIMERS: usize = 6;

impl Timer {
    /// How late it may be served.
    fn bound_micros(self) -> u64 {
        match self {
            // A sweep finds it.
            Timer::Conn => SWEEP_MILLIS * 1_000 + LATE_MICROS,
            _ => LATE_MICROS,
        }
    }
}

/// The deadlines that an end has named.
#[derive(Debug, Default)]
pub(super) struct Timers {
    named: Vec<(Timer, u64)>,
    /// When that was asked: nothing changes between turns.
    asked_at: u64,
    /// Turns in a row that left one unserved.
    unserved: usize,
}

impl Timers {
    /// Asks whoever names deadlines, after a turn or whatever else has changed the end.
    pub(super) fn ask(&mut self, worker: &Worker<SimDriver>, now: u64) {
        let Worker { cx, streams, datagrams, .. } = worker;
        let drains = cx.drain != Drain::No;
        let (tunnels, connector) = (streams.tunnels(), streams.connector());
        let connector = connector.and_then(|connector| connector.next_timeout(cx.now, drains));
        self.named.clear();
        let mut add = |timer, at: crate::session::Moment| self.named.push((timer, at.0));
        tunnels.session_deadlines().for_each(|at| add(Timer::Session, at));
        tunnels.lane_deadlines().for_each(|at| add(Timer::Lane, at));
        streams.conn_deadlines().for_each(|at| add(Timer::Conn, at));
        cx.dialer.deadlines().for_each(|at| add(Timer::Dial, at));
        datagrams.flow_deadlines(cx, drains).for_each(|at| add(Timer::Flow, at));
        connector.into_iter().for_each(|at| add(Timer::Connector, at));
        self.asked_at = now;
    }

    /// Forgets an end that has stopped.
    pub(super) fn clear(&mut self) {
        self.named.clear();
    }

    /// A deadline has come, and no turn with it. An end that stood still has until then.
    pub(super) fn check_woken(&self, now: u64, paused_until: u64) -> Result<(), String> {
        let since = self.asked_at.max(paused_until);
        let is_late = |&&(timer, at): &&(Timer, u64)| now > at.max(since) + timer.bound_micros();
        match self.named.iter().find(is_late) {
            Some((timer, at)) => Err(format!("a timer is late: {timer:?} had named {at} us")),
            None => Ok(()),
        }
    }

    /// Those that have come by now, by kind; and so the turn that begins now is theirs.
    pub(super) fn due(&self, now: u64) -> [u64; TIMERS] {
        let mut counts = [0; TIMERS];
        for (timer, _) in self.named.iter().filter(|(_, at)| *at <= now) {
            counts[*timer as usize] += 1;
        }
        counts
    }

    /// A turn has left a deadline that had come, and so have those before.
    pub(super) fn check_served(&mut self, turn_at: u64) -> Result<(), String> {
        let is_left = |&&(timer, at): &&(Timer, u64)| at + timer.bound_micros() < turn_at;
        let left = self.named.iter().find(is_left);
        self.unserved = if left.is_some() { self.unserved + 1 } else { 0 };
        match left {
            Some((timer, at)) if self.unserved > TURNS_MAX => {
                Err(format!("a timer is not served: {timer:?} had named {at} us"))
            }
            _ => Ok(()),
        }
    }
}
