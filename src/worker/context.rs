//! The context: what every plane of the worker needs beside its own state.

use std::time::Instant;

use super::Counters;
use super::buffers::Buffers;
use super::busy_poll::BusyPoll;
use super::log_limit::LogLimit;
use super::table::Key;
use crate::cli::plan::Plan;
use crate::io::congestion::Choice;
use crate::io::driver::Driver;
use crate::io::resolver::Resolver;
use crate::policy::destinations::Destinations;
use crate::policy::seats::Seats;
use crate::session::Moment;

/// Handed to whatever a plane does.
pub(in crate::worker) struct Cx<D> {
    /// Starts operations; their ends come back to [`super::dispatch`].
    pub(in crate::worker) driver: D,
    began: Instant,
    /// The time, read once a turn.
    pub(in crate::worker) now: Moment,
    pub(in crate::worker) plan: Plan,
    pub(in crate::worker) buffers: Buffers,
    pub(in crate::worker) counters: Counters,
    /// Keeps what others can cause from filling the log.
    pub(in crate::worker) log_limit: LogLimit,
    pub(in crate::worker) busy_poll: BusyPoll,
    pub(in crate::worker) congestion: Choice,
    pub(in crate::worker) resolver: Resolver,
    /// How many streams and flows a client may have.
    pub(in crate::worker) seats: Seats,
    /// What proxies may reach.
    pub(in crate::worker) destinations: Destinations,
    /// Keys collected for a sweep, kept for its memory.
    pub(in crate::worker) scratch: Vec<Key>,
}

impl<D: Driver> Cx<D> {
    pub(in crate::worker) fn new(
        driver: D,
        plan: Plan,
        buffers: Buffers,
        congestion: Choice,
        resolver: Resolver,
        destinations: Destinations,
    ) -> Cx<D> {
        let now = Moment(0);
        Cx {
            driver,
            began: Instant::now(),
            now,
            buffers,
            counters: Counters::default(),
            log_limit: LogLimit::new(now),
            busy_poll: BusyPoll::default(),
            congestion,
            resolver,
            seats: Seats::new(plan.maxima),
            destinations,
            scratch: Vec::new(),
            plan,
        }
    }

    /// Reads the clock.
    #[inline]
    pub(in crate::worker) fn tick(&mut self) {
        self.now = Moment(self.began.elapsed().as_micros() as u64);
    }
}
