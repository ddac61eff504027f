//! The context: what every plane of the worker needs beside its own state. The worker passes it to
//! each handler of a plane. A plane affects another plane only through an [`Effect`].

use std::collections::VecDeque;
use std::fmt::Display;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use super::Counters;
use super::buffers::Buffers;
use super::busy_poll::BusyPoll;
use super::dialer::Dialer;
use super::dialer::dial::{DialError, Owner};
use super::log_limit::LogLimit;
use super::table::Key;
use super::waiters::Waiters;
use crate::cli::plan::Plan;
use crate::io::command::Watchdog;
use crate::io::congestion::CongestionPolicy;
use crate::io::driver::{Driver, Fd};
use crate::io::link::Link;
use crate::io::net;
use crate::io::resolver::Resolver;
use crate::policy::connection_limits::ConnectionLimits;
use crate::policy::destinations::Destinations;
use crate::session::{Moment, StreamKey};

/// A request of one plane to another or to the worker. [`super::dispatch`] applies it in the same
/// turn.
#[derive(Debug)]
pub(in crate::worker) enum Effect {
    /// A dial has completed.
    Dialled { owner: Owner, result: Result<Fd, DialError> },
    /// The exit of a stream is unreachable. `tried`: a connect to a server was attempted.
    RefuseStream { stream: (Key, StreamKey), client: SocketAddr, reason: String, tried: bool },
    /// The connector has established its link.
    LinkUp(Link),
    /// Descriptors are short: stop accepting, so that clients wait in the kernel's queue.
    PauseClients,
    /// Descriptors are available again: resume accepting.
    ResumeClients,
}

/// The owner of a name look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Lookup {
    Dial(Key),
    /// The server of a flow.
    Flow(Key),
    /// A destination named by a datagram of this flow, and its index there.
    Destination(Key, usize),
    /// A host requested by a proxy session.
    Host(Key),
}

/// Shared state, passed to every handler of a plane.
pub(in crate::worker) struct Cx<D> {
    /// Starts operations; their completions arrive in [`super::dispatch`].
    pub(in crate::worker) driver: D,
    /// The clock, read once per turn.
    pub(in crate::worker) now: Moment,
    pub(in crate::worker) plan: Plan,
    pub(in crate::worker) buffers: Buffers,
    pub(in crate::worker) counters: Counters,
    /// Rate limit of log lines that remote parties can trigger.
    pub(in crate::worker) log_limit: LogLimit,
    pub(in crate::worker) busy_poll: BusyPoll,
    pub(in crate::worker) congestion: CongestionPolicy,
    pub(in crate::worker) resolver: Resolver<Lookup>,
    pub(in crate::worker) dialer: Dialer,
    pub(in crate::worker) effects: VecDeque<Effect>,
    /// Operations that wait for a buffer.
    pub(in crate::worker) waiters: Waiters,
    /// Number of connections with a deadline, which the next sweep must visit.
    pub(in crate::worker) deadline_count: usize,
    /// Kills commands if this process is killed.
    pub(in crate::worker) watchdog: Watchdog,
    /// Limits on streams and flows per client.
    pub(in crate::worker) connection_limits: ConnectionLimits,
    /// Destinations that proxies may reach.
    pub(in crate::worker) destinations: Destinations,
    /// Keys collected for a sweep; kept to reuse the allocation.
    pub(in crate::worker) scratch: Vec<Key>,
}

impl<D: Driver> Cx<D> {
    pub(in crate::worker) fn new(
        driver: D,
        plan: Plan,
        buffers: Buffers,
        congestion: CongestionPolicy,
        resolver: Resolver<Lookup>,
        dialer: Dialer,
        destinations: Destinations,
    ) -> Cx<D> {
        let now = Moment(0);
        Cx {
            driver,
            now,
            buffers,
            counters: Counters::default(),
            log_limit: LogLimit::new(now),
            busy_poll: BusyPoll::default(),
            congestion,
            resolver,
            dialer,
            effects: VecDeque::new(),
            waiters: Waiters::default(),
            deadline_count: 0,
            watchdog: Watchdog::default(),
            connection_limits: ConnectionLimits::new(plan.maxima),
            destinations,
            scratch: Vec::new(),
            plan,
        }
    }

    /// Reads the clock.
    #[inline]
    pub(in crate::worker) fn tick(&mut self) {
        self.now = Moment(self.driver.now().as_micros() as u64);
    }

    /// Refuses a stream of a peer. Applied by the tunnel plane in the same turn.
    pub(in crate::worker) fn refuse_stream(
        &mut self,
        stream: (Key, StreamKey),
        client: SocketAddr,
        reason: String,
        tried: bool,
    ) {
        self.effects.push_back(Effect::RefuseStream { stream, client, reason, tried });
    }

    /// Makes the caller's drop of this socket reset the connection, and logs the reason.
    pub(in crate::worker) fn reject(
        &mut self,
        socket: &OwnedFd,
        client: impl Display,
        reason: &str,
    ) {
        net::reset_on_close(socket);
        self.log_refused(client, reason);
    }
}
