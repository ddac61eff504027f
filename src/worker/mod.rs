//! The worker: one thread, one driver, one event loop.
//!
//! Each turn waits for completions, dispatches them (bytes enter sessions and queues, nothing is
//! sent), runs the timers, and then flushes: one write per connection with queued data and one
//! batch of frames per tunnel. Data that arrives in one turn therefore leaves in one batch.
//!
//! [`dispatch`] routes completions and effects to planes; [`turn`] runs timers and flushes. Planes
//! own their state: [`ingress`] accepts clients and peers, [`tunnel`] holds sessions over links,
//! [`stream`] holds the sockets and commands at the ends of streams, [`proxy`] runs proxy sessions
//! of exits, [`forward`] serves ports requested by peers, [`datagram`] holds UDP flows, [`relay`]
//! is the plain relay. [`dialer`] resolves and connects for all planes, [`waiters`] queues
//! operations that lack a buffer, [`log_limit`] rate-limits remotely triggered log lines,
//! [`counts`] logs the counters.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime};

use tracing::info;

mod broken;
mod buffers;
mod busy_poll;
mod connector;
mod context;
mod counts;
mod datagram;
mod deadlines;
mod dialer;
mod dispatch;
mod forward;
mod ingress;
mod log_limit;
mod payload_queue;
mod proxy;
mod purpose;
mod relay;
mod signals;
#[cfg(test)]
mod sim;
mod stream;
mod table;
mod token;
mod tunnel;
mod turn;
mod waiters;

use crate::cli::plan::{LinkPlan, Plan};
use crate::io::congestion::CongestionPolicy;
use crate::io::driver::{Completion, Driver};
use crate::io::net;
use crate::io::resolver::Resolver;
use crate::limits::{FRAME_BYTES, LEAVE_MILLIS, POOL_BUFFERS, STREAMS_MAX, WINDOW_BYTES};
use crate::session::{Moment, SessionConfig};
use crate::wire::v03::{Offer, hello_text};
use buffers::Buffers;
use connector::Connector;
pub(crate) use connector::LinkSource;
use context::Cx;
use datagram::Datagrams;
pub(crate) use datagram::datagrams::DatagramPort;
use dialer::Dialer;
use forward::Forwards;
use ingress::Ingress;
pub(crate) use ingress::listeners::{Listener, Origin};
use proxy::Proxies;
pub(crate) use purpose::Purpose;
use relay::{Relay, Way};
use signals::Signals;
use stream::Conns;
use stream::exec::Execs;
use stream::exits;
use table::Key;
use tunnel::Tunnels;
use tunnel::loopback::Loopback;

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// A stop was requested and all streams have ended.
    Drained,
    /// A stop was requested and the drain deadline passed; this many streams were reset.
    DeadlinePassed(usize),
    /// A second stop was requested: no drain.
    AtOnce,
    /// The only link, which was passed in at start, has ended.
    LinkEnded {
        /// The tunnel was up, nothing was outstanding, and the peer closed the link.
        in_order: bool,
    },
}

/// Counters of the worker, beside those of driver and sessions.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    /// Turns of the event loop.
    turns: u64,
    /// Synchronous sends that bypass the driver: batches that end in a frame head, and data that
    /// precedes spliced payload.
    direct_sends: u64,
    /// Completions whose key no longer exists.
    stale: u64,
    /// Streams reset because the buffers for slow readers were exhausted.
    spill_exhausted: u64,
    /// Payload bytes spliced from and to local sockets, including those of a plain relay.
    spliced_from_local: u64,
    spliced_to_local: u64,
    /// Fallbacks from splicing to copying because a pipe with free bytes had no free slot.
    pipe_full: u64,
    /// Fallbacks from splicing to copying because the socket does not support it.
    splice_refused: u64,
    /// Datagrams received from and sent to sockets.
    datagrams_in: u64,
    datagrams_out: u64,
    /// Datagrams dropped: no tunnel, no room, or refused by the socket.
    datagrams_dropped: u64,
    /// Flows evicted to make room for newer ones.
    flows_evicted: u64,
    /// Payload bytes of closed tunnels, received from and sent to the peer.
    past_bytes_in: u64,
    past_bytes_out: u64,
    /// Bytes that a plain relay moved from clients to servers (up) and back (down).
    relayed_up: u64,
    relayed_down: u64,
    /// Connections to forwarded ports from a client other than the expected one.
    strangers: u64,
    /// Connections to the receptor's port that closed before their first byte.
    silent: u64,
}

impl Counters {
    /// Counts bytes moved by a plain relay.
    fn relayed(&mut self, way: Way, bytes: usize) {
        match way {
            Way::Up => self.relayed_up += bytes as u64,
            Way::Down => self.relayed_down += bytes as u64,
        }
    }
}

/// Progress of the shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    No,
    /// Draining since a stop; until this deadline if there is one.
    Until(Option<Moment>),
    /// All streams have ended and the last bytes are sent. Waits until the peers have read them,
    /// which they show by closing, or until this deadline. Exiting at once would close sockets with
    /// unsent data, and the kernel would answer anything the peer still sends with a reset.
    Leaving(Moment),
    AtOnce,
}

/// The event loop and the planes.
pub(crate) struct Worker<D> {
    cx: Cx<D>,
    ingress: Ingress,
    connector: Option<Connector>,
    tunnels: Tunnels,
    conns: Conns,
    execs: Execs,
    proxies: Proxies,
    forwards: Forwards,
    datagrams: Datagrams,
    relay: Relay,
    loopback: Loopback,
    drain: Drain,
    /// While draining: until this time peers may still report streams that they opened before they
    /// learnt of the drain.
    farewells_until: Moment,
    signals: Signals,
}

impl<D: Driver> Worker<D> {
    pub(crate) fn new(
        driver: D,
        plan: Plan,
        (listeners, ports): (Vec<Listener>, Vec<DatagramPort>),
        source: Option<LinkSource>,
        congestion: CongestionPolicy,
        (wake, resolver_wake): (UnixStream, UnixStream),
    ) -> io::Result<Worker<D>> {
        wake.set_nonblocking(true)?;
        let serves = !plan.exits.is_empty() || matches!(plan.link, LinkPlan::Relay { .. });
        let own = listeners.iter().map(|listener| listener.address).collect();
        let destinations = exits::destinations(&plan, own);
        Ok(Worker {
            ingress: Ingress::new(listeners, &plan),
            connector: source.map(Connector::new),
            tunnels: Tunnels::new(),
            conns: Conns::new(&plan),
            execs: Execs::new(),
            proxies: Proxies::new(&plan),
            forwards: Forwards::new(&plan),
            datagrams: Datagrams::new(ports, plan.soxconf.udp_flows)?,
            relay: Relay::new(),
            loopback: Loopback::default(),
            drain: Drain::No,
            farewells_until: Moment(0),
            signals: Signals::new(wake),
            cx: Cx::new(
                driver,
                plan,
                Buffers::new(POOL_BUFFERS)?,
                congestion,
                Resolver::new(resolver_wake),
                Dialer::new(serves),
                destinations,
            ),
        })
    }

    /// Runs until it is stopped.
    ///
    /// # Errors
    /// The driver failed and cannot continue. Scope: the process.
    pub(crate) fn run(mut self) -> io::Result<Stopped> {
        let mut completions: Vec<Completion> = Vec::with_capacity(256);
        self.begin();
        loop {
            if let Some(stopped) = self.turn(&mut completions)? {
                return Ok(stopped);
            }
        }
    }

    /// Starts the operations that wait for what comes from outside.
    fn begin(&mut self) {
        self.watch_wake();
        self.start_listening();
        self.datagrams.watch_ports(&mut self.cx);
        self.run_timers();
        self.begin_loopback();
    }

    /// Waits for completions, handles them, and flushes. `Some` when the run is over.
    /// `completions` is empty before and after; it keeps its memory.
    fn turn(&mut self, completions: &mut Vec<Completion>) -> io::Result<Option<Stopped>> {
        let timeout = self.time_left();
        if let Some(time) = self.cx.busy_poll.time(self.cx.now) {
            self.cx.driver.watch_for(timeout.map_or(time, |timeout| time.min(timeout)));
        }
        self.cx.driver.wait(timeout, completions)?;
        self.cx.counters.turns += 1;
        self.cx.tick();
        for completion in completions.drain(..) {
            self.dispatch(completion);
            self.apply_effects();
        }
        Ok(self.finish_turn())
    }

    fn stop(&mut self) {
        match self.drain {
            Drain::No => {
                let until = self.cx.plan.timeouts.drain.map(|drain| self.cx.now.after(drain));
                info!(streams = self.stream_count(), "draining");
                self.drain = Drain::Until(until);
                self.farewells_until = self.cx.now.after(Duration::from_millis(LEAVE_MILLIS));
                self.close_listeners();
                self.refuse_waiting_clients();
                self.refuse_new_streams();
                self.end_idle_proxy_sessions();
            }
            Drain::Until(_) | Drain::Leaving(_) => self.drain = Drain::AtOnce,
            Drain::AtOnce => {}
        }
    }

    /// Number of streams, relayed pairs and flows.
    fn stream_count(&self) -> usize {
        self.conns.len() + self.relay.len() + self.datagrams.len()
    }

    /// The configuration of a new session.
    fn session_config(&self) -> SessionConfig {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let micros = since_1970.map_or(0, |time| time.as_micros() as u64);
        SessionConfig {
            hello_text: hello_text(micros, &net::hostname()),
            packet_bytes: self.cx.plan.soxconf.packet_bytes,
            first_data: self.cx.plan.soxconf.first_data,
            frame_bytes_max: FRAME_BYTES,
            offer: Some(Offer {
                newest: self.cx.plan.soxconf.newest_protocol,
                half_close: true,
                datagrams: true,
                checked_line: false,
                ports: true,
                window_bytes: WINDOW_BYTES,
                streams_max: STREAMS_MAX,
            }),
            hello_timeout: self.cx.plan.timeouts.hello,
            awaits_peer: false,
            answer_suffices: false,
            keepalive: self.cx.plan.timeouts.keepalive,
            linger: self.cx.plan.timeouts.linger,
        }
    }
}
