//! The context: what every plane of the worker needs beside its own state. The worker passes it to
//! each handler of a plane. A plane affects another plane only through an [`Effect`].
//!
//! [`dialer`] resolves and connects for all planes, [`waiters`] queues operations that lack a
//! buffer, [`log_limit`] rate-limits remotely triggered log lines, [`counts`] logs the counters.

pub(in crate::worker) mod counts;
pub(in crate::worker) mod dialer;
pub(in crate::worker) mod log_limit;
pub(in crate::worker) mod waiters;

use std::collections::VecDeque;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use tracing::info;

use self::counts::Counters;
use self::dialer::Dialer;
use self::dialer::dial::{DialError, Owner};
use self::log_limit::LogLimit;
use self::waiters::Waiters;
use crate::cli::plan::{LinkPlan, Plan, Timeouts};
use crate::io::command::Watchdog;
use crate::io::congestion::CongestionPolicy;
use crate::io::driver::{BufferClass, Driver, Fd};
use crate::io::link::Link;
use crate::io::lookout::Lookout;
use crate::io::net;
use crate::io::resolver::Resolver;
use crate::limits::{BULK_BUFFERS_SCARCE, SMALL_BUFFERS_SCARCE, TURN_WORK};
use crate::narrow;
use crate::observe::access::AccessLog;
use crate::policy::ceilings::Ceilings;
use crate::policy::connection_limits::{ConnectionLimits, LimitGuard, PeerLimits};
use crate::policy::destinations::{Asker, Destinations};
use crate::policy::routing::StreamPeer;
use crate::session::{Event, Moment, StreamKey};
use crate::tls::settings::Settings;
use crate::worker::access_entry::{AccessEntry, Beginning, Side};
use crate::worker::buffers::Buffers;
use crate::worker::busy_poll::BusyPoll;
use crate::worker::exits::{ExitState, Exits};
use crate::worker::message::{HandshakeEvent, NameWaiter};
use crate::worker::port_range::PortRange;
use crate::worker::table::Key;

/// A request of one plane to another or to the worker. [`crate::worker::dispatch`] applies it in
/// the same turn.
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
    /// No tunnel is left: clients wait from now on.
    HoldClients,
    /// The hold time of a client that waits for a tunnel has expired.
    HoldExpired(Key),
    /// An event of a session that the byte path does not handle itself. The tunnel's next frame is
    /// read when it is handled.
    Session { tunnel: Key, event: Event },
    /// Such an event is handled: the tunnel continues.
    Continue { tunnel: Key },
    /// A tunnel is gone.
    TunnelGone(Key),
    /// A tunnel whose peer has asked for entrances is gone, or its peer takes no more streams.
    EntrancesOver(Key),
    /// A connection's stream is over, so what belongs to it ends: ports and the proxy session.
    StreamOver(Key),
    /// An event of a stream in a proxy handshake.
    Handshake(Key, HandshakeEvent),
    /// A client of a plain relay was admitted at this address.
    RelayClient { socket: Fd, at: SocketAddr },
    /// A stream left the tunnels of a loopback: its client and its server become a pair.
    Pair { client: SocketAddr, ends: (Fd, Fd), limit_guard: Option<LimitGuard>, entry: AccessEntry },
    /// A client whose name is known now, or will not be.
    Resume(NameWaiter),
    /// A stream that came in by a port of this proxy session begins a UDP association.
    OpenAssociation {
        stream: (Key, StreamKey),
        client: SocketAddr,
        session: (Key, Asker),
        limit_guard: Option<LimitGuard>,
    },
    /// A proxy session no longer needs its port for datagrams.
    EndAssociations(Key),
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

/// Progress of the shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Drain {
    No,
    /// Draining since a stop; until this deadline if there is one.
    Until(Option<Moment>),
    /// All streams have ended and the last bytes are sent. Waits until the peers have read them,
    /// which they show by closing, or until this deadline. Exiting at once would close sockets with
    /// unsent data, and the kernel would answer anything the peer still sends with a reset.
    Leaving(Moment),
    AtOnce,
}

/// Shared state, passed to every handler of a plane.
pub(in crate::worker) struct Cx<D> {
    /// Starts operations; their completions arrive in [`crate::worker::dispatch`].
    pub(in crate::worker) driver: D,
    /// The clock, read once per turn.
    pub(in crate::worker) now: Moment,
    /// What a tunnel may cause in a turn.
    pub(in crate::worker) turn_work: u32,
    pub(in crate::worker) drain: Drain,
    pub(in crate::worker) plan: Plan,
    /// Exits for streams of peers.
    pub(in crate::worker) exits: Exits,
    pub(in crate::worker) buffers: Buffers,
    pub(in crate::worker) counters: Counters,
    /// Rate limit of log lines that remote parties can trigger.
    pub(in crate::worker) log_limit: LogLimit,
    pub(in crate::worker) busy_poll: BusyPoll,
    pub(in crate::worker) congestion: CongestionPolicy,
    /// How many there may be of what takes memory.
    pub(in crate::worker) ceilings: Ceilings,
    /// What links are encrypted with, if they are to be.
    pub(in crate::worker) encryption: Option<Rc<Settings>>,
    pub(in crate::worker) resolver: Resolver<Lookup>,
    /// Where each stream has a line at its end, if anywhere.
    pub(in crate::worker) access_log: Option<AccessLog>,
    /// Looks at the peers file, if there is one.
    pub(in crate::worker) lookout: Option<Lookout>,
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
    /// Limits on the streams of a peer.
    pub(in crate::worker) peer_limits: PeerLimits,
    /// Destinations that proxies may reach.
    pub(in crate::worker) destinations: Destinations,
    /// Numbers of the ports that are opened on request.
    pub(in crate::worker) port_range: PortRange,
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
            turn_work: TURN_WORK,
            drain: Drain::No,
            buffers,
            counters: Counters::default(),
            log_limit: LogLimit::new(now),
            busy_poll: BusyPoll::default(),
            congestion,
            ceilings: Ceilings::within(None),
            encryption: None,
            resolver,
            access_log: None,
            lookout: None,
            dialer,
            effects: VecDeque::new(),
            waiters: Waiters::default(),
            deadline_count: 0,
            watchdog: Watchdog::default(),
            connection_limits: ConnectionLimits::new(plan.maxima),
            peer_limits: PeerLimits::default(),
            destinations,
            exits: Exits::new(&plan),
            port_range: PortRange::new(plan.soxconf.request_ports.clone()),
            scratch: Vec::new(),
            plan,
        }
    }

    /// Reads the clock.
    #[inline]
    pub(in crate::worker) fn tick(&mut self) {
        self.now = Moment(narrow::micros(self.driver.now()));
    }

    /// Whether so few receive buffers of a class are left that what waits should not keep one.
    #[inline]
    pub(in crate::worker) fn is_scarce(&self, class: BufferClass) -> bool {
        let few = match class {
            BufferClass::Small => SMALL_BUFFERS_SCARCE,
            BufferClass::Bulk => BULK_BUFFERS_SCARCE,
        };
        self.driver.free_buffers(class) < few
    }

    /// Whether this process is its own peer.
    pub(in crate::worker) fn is_loopback(&self) -> bool {
        self.plan.link == LinkPlan::Loopback
    }

    /// The timeouts of a stream. Without an exit it is one of a local entrance.
    pub(in crate::worker) fn timeouts_of<'a>(
        &'a self,
        exit: Option<&'a Rc<ExitState>>,
    ) -> &'a Timeouts {
        exit.map_or(&self.plan.timeouts, |exit| &exit.timeouts)
    }

    /// Acquires a slot from the limits of the process and of the exit, and for a stream that a peer
    /// opens from those of the peer.
    ///
    /// # Errors
    /// The reason to refuse the stream.
    pub(in crate::worker) fn acquire_limits(
        &self,
        exit: Option<&Rc<ExitState>>,
        client: Option<IpAddr>,
        opener: StreamPeer<'_>,
    ) -> Result<Option<LimitGuard>, String> {
        let of_peer = self.acquire_of_peer(opener)?;
        // With loopback the client has acquired its slot at the entrance.
        let limit_guard =
            if self.is_loopback() { None } else { self.connection_limits.acquire(client)? };
        let limit_guard = LimitGuard::both(limit_guard, of_peer);
        match exit {
            Some(exit) => Ok(LimitGuard::both(limit_guard, exit.acquire(client)?)),
            None => Ok(limit_guard),
        }
    }

    /// Acquires a slot from the limit of the peer that opens a stream.
    ///
    /// # Errors
    /// The reason to refuse the stream.
    pub(in crate::worker) fn acquire_of_peer(
        &self,
        opener: StreamPeer<'_>,
    ) -> Result<Option<LimitGuard>, String> {
        let limit = opener.name.zip(opener.options.and_then(|options| options.streams));
        limit.map(|(name, max)| self.peer_limits.acquire(name, max)).transpose()
    }

    /// Refuses a stream of a peer. Applied by the tunnel's plane in the same turn.
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
        self.note_refused(None, "stream", Side::Entrance, &client, reason);
        self.log_refused(client, reason);
    }

    /// SIGHUP: the access log has been rotated. Its thread logs what came of it.
    pub(in crate::worker) fn reopen_access_log(&self) {
        match &self.access_log {
            Some(log) if log.reopen() => {}
            Some(_) => info!(
                "SIGHUP: there is nothing to reload, and the access log is no file to be opened anew"
            ),
            None => info!(
                "SIGHUP: there is nothing to reload; what the command line says holds until the end"
            ),
        }
    }

    /// The entry of what has begun at an entrance, in the access log.
    pub(in crate::worker) fn entry_of_client(
        &self,
        kind: &'static str,
        key: Key,
        client: impl Display,
        entrance: impl FnOnce() -> String,
    ) -> AccessEntry {
        AccessEntry::new(self.access_log.as_ref(), || Beginning {
            kind,
            number: Some(key.number()),
            side: Side::Entrance,
            client: client.to_string(),
            place: Some(entrance()),
        })
    }

    /// The entry of a stream or flow of the peer. A loopback has the one of its client.
    pub(in crate::worker) fn entry_of_exit(
        &self,
        kind: &'static str,
        key: Key,
        client: impl Display,
        exit: Option<&Rc<ExitState>>,
    ) -> AccessEntry {
        let log = self.access_log.as_ref().filter(|_| !self.is_loopback());
        AccessEntry::new(log, || Beginning {
            kind,
            number: Some(key.number()),
            side: Side::Exit,
            client: client.to_string(),
            place: exit.map(|exit| exit.plan.name.clone()),
        })
    }

    /// Has a line in the access log for a stream that was refused before it had a number.
    pub(in crate::worker) fn note_refused(
        &self,
        tunnel: Option<(Key, Option<&str>)>,
        kind: &'static str,
        side: Side,
        client: &impl Display,
        reason: &str,
    ) {
        let mut entry = AccessEntry::new(self.access_log.as_ref(), || Beginning {
            kind,
            number: None,
            side,
            client: client.to_string(),
            place: None,
        });
        if let Some((tunnel, peer)) = tunnel {
            entry.in_tunnel(tunnel.number(), peer);
        }
        entry.refused_here(reason);
    }
}
