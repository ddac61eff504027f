//! The worker: one thread, one driver, one loop.
//!
//! A turn of the loop: wait for completions; take each one in (bytes go into sessions and queues,
//! nothing is sent); look at the clock; then write, per connection what was delivered to it
//! and per tunnel one batch of frames. So whatever arrived together leaves together.
//!
//! [`dispatch`] hands each completion to the room it is for; [`turn`] looks at the clock and writes.
//! The rooms: [`ingress`] takes clients and peers in, [`tunnel`] has the persistent connections,
//! [`stream`] what their streams begin and end at, [`proxy`] the exits that ask clients where to go,
//! [`forward`] the ports that peers ask for, [`datagram`] flows of UDP, [`relay`] the plain relay.
//! [`dialer`] connects for all of them; [`waiters`] have found no buffer; [`log_limit`] keeps what
//! others can cause from filling the log, [`counts`] logs what was counted.

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
mod dialer;
mod dispatch;
mod forward;
mod ingress;
mod log_limit;
mod proxy;
mod relay;
mod signals;
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
use crate::session::{Config, Moment};
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
pub(crate) use ingress::listeners::{Listener, Origin, Purpose};
use proxy::Proxies;
use relay::{Relay, Way};
use signals::Signals;
use stream::Conns;
use stream::exec::Execs;
use stream::exits;
use table::Key;
use tunnel::Tunnels;
use tunnel::loopback::Loopback;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It was asked to, and all streams had ended.
    Drained,
    /// It was asked to, and the time for open streams was over: so many were reset.
    DeadlinePassed(usize),
    /// It was asked twice: at once.
    AtOnce,
    /// Its only link, which was given to it, has ended.
    LinkEnded {
        /// The tunnel was up, nothing was left to do, and it was the peer that ended it.
        in_order: bool,
    },
}

/// What the worker counts beside driver and sessions.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    /// Turns of the loop.
    turns: u64,
    /// Sends made at once, without the driver: batches that end in a frame's head, and what stands
    /// before spliced payload.
    direct_sends: u64,
    /// Completions for something that is gone.
    stale: u64,
    /// Streams reset because buffers for slow readers were used up.
    spill_exhausted: u64,
    /// Payload bytes that were spliced from local sockets (those of a plain relay among them), and
    /// to them.
    spliced_from_local: u64,
    spliced_to_local: u64,
    /// Fallbacks from splicing to copying: a pipe with room took no more pieces.
    pipe_full: u64,
    /// The same: the socket cannot be spliced.
    splice_refused: u64,
    /// Datagrams that came from sockets, and that were given to some.
    datagrams_in: u64,
    datagrams_out: u64,
    /// Datagrams that went no further: no tunnel, no room, or not taken by a socket.
    datagrams_dropped: u64,
    /// Flows that made room for newer ones.
    flows_evicted: u64,
    /// Payload bytes of tunnels that are over: what they took from the peer, and gave to it.
    past_bytes_in: u64,
    past_bytes_out: u64,
    /// Bytes of a plain relay's clients, and of its servers.
    relayed_up: u64,
    relayed_down: u64,
    /// Connections at ports on request from others than the client that they are for.
    strangers: u64,
    /// Connections at the receptor's port that ended before their first byte.
    silent: u64,
}

impl Counters {
    /// A plain relay has moved so many bytes.
    fn relayed(&mut self, way: Way, bytes: usize) {
        match way {
            Way::Up => self.relayed_up += bytes as u64,
            Way::Down => self.relayed_down += bytes as u64,
        }
    }
}

/// How far the end of the run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    No,
    /// Since a stop; until this time at most.
    Until(Option<Moment>),
    /// All streams have ended, and we have said our last; until the peers have read it, which
    /// they show by closing, or until this time at most. A process that exited at once would lose
    /// what its sockets still hold: whatever the peer sends then is answered with a reset.
    Leaving(Moment),
    AtOnce,
}

/// The loop and all it holds.
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
    /// While draining: until then peers may still tell of streams that they opened before they
    /// knew.
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
    /// When the driver can go on no more. Scope: the process.
    pub(crate) fn run(mut self) -> io::Result<Stopped> {
        let mut completions: Vec<Completion> = Vec::with_capacity(256);
        self.watch_wake();
        self.start_listening();
        self.datagrams.watch_ports(&mut self.cx);
        self.connect_if_due();
        self.begin_loopback();
        loop {
            let timeout = self.time_to_next();
            if let Some(time) = self.cx.busy_poll.time(self.cx.now) {
                self.cx.driver.watch_for(timeout.map_or(time, |timeout| time.min(timeout)));
            }
            self.cx.driver.wait(timeout, &mut completions)?;
            self.cx.counters.turns += 1;
            self.cx.tick();
            for completion in completions.drain(..) {
                self.dispatch(completion);
                self.apply_effects();
            }
            if let Some(stopped) = self.finish_turn() {
                return Ok(stopped);
            }
        }
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
                self.end_idle_conversations();
            }
            Drain::Until(_) | Drain::Leaving(_) => self.drain = Drain::AtOnce,
            Drain::AtOnce => {}
        }
    }

    /// Streams, pairs and flows that there are.
    fn stream_count(&self) -> usize {
        self.conns.len() + self.relay.len() + self.datagrams.len()
    }

    /// What a session is told at its beginning.
    fn session_config(&self) -> Config {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let micros = since_1970.map_or(0, |time| time.as_micros() as u64);
        Config {
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
