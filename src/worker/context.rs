//! The context: what every plane of the worker needs beside its own state.

use std::collections::VecDeque;
use std::fmt::Display;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use super::Counters;
use super::buffers::Buffers;
use super::busy_poll::BusyPoll;
use super::datagram::flow::Origin;
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

/// What a plane asks of another, or of the worker: done in the same turn, by [`super::dispatch`].
#[derive(Debug)]
pub(in crate::worker) enum Effect {
    /// A dial has ended: with a connection, or without one.
    Dialled { owner: Owner, result: Result<Fd, DialError> },
    /// A client that has no flow has sent datagrams of this size.
    UnknownClient { origin: Origin, payload: Box<[u8]>, size_bytes: u32 },
    /// The exit of a stream cannot be reached. `tried`: a server was.
    RefuseStream { stream: (Key, StreamKey), client: SocketAddr, reason: String, tried: bool },
    /// The link that the connector keeps up has come about.
    LinkUp(Link),
    /// Descriptors are short: clients are to be left in the kernel's queue.
    PauseClients,
    /// They may come again.
    ResumeClients,
}

/// Who asked for a name to be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Lookup {
    Dial(Key),
    /// The server of a flow.
    Flow(Key),
    /// A destination that a datagram of this flow names, by its place there.
    Destination(Key, usize),
    /// A host that a proxy session has asked about.
    Host(Key),
}

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
    pub(in crate::worker) congestion: CongestionPolicy,
    pub(in crate::worker) resolver: Resolver<Lookup>,
    pub(in crate::worker) dialer: Dialer,
    pub(in crate::worker) effects: VecDeque<Effect>,
    /// Who waits for a buffer.
    pub(in crate::worker) waiters: Waiters,
    /// Connections that the next sweep has to look at.
    pub(in crate::worker) deadline_count: usize,
    /// Ends commands if this process is killed.
    pub(in crate::worker) watchdog: Watchdog,
    /// How many streams and flows a client may have.
    pub(in crate::worker) connection_limits: ConnectionLimits,
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
        congestion: CongestionPolicy,
        resolver: Resolver<Lookup>,
        dialer: Dialer,
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
        self.now = Moment(self.began.elapsed().as_micros() as u64);
    }

    /// Refuses a stream of a peer.
    pub(in crate::worker) fn refuse_stream(
        &mut self,
        stream: (Key, StreamKey),
        client: SocketAddr,
        reason: String,
        tried: bool,
    ) {
        self.effects.push_back(Effect::RefuseStream { stream, client, reason, tried });
    }

    /// Resets a client's connection, which the caller then drops, and logs why.
    pub(in crate::worker) fn turn_away(
        &mut self,
        socket: &OwnedFd,
        client: impl Display,
        reason: &str,
    ) {
        net::reset_on_close(socket);
        self.log_refused(client, reason);
    }
}
