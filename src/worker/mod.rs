//! The worker: one thread, one driver, one event loop.
//!
//! Each turn waits for completions, dispatches them (bytes enter sessions and queues, nothing is
//! sent), runs the timers, and then flushes: one write per connection with queued data and one
//! batch of frames per tunnel. Data that arrives in one turn therefore leaves in one batch.
//!
//! [`dispatch`] routes completions and effects to planes; [`turn`] runs timers and flushes. Planes
//! own their state: [`stream`] is the path of bytes, sessions over links and the sockets and commands
//! at the ends of streams; [`ingress`] accepts clients and peers, [`proxy`] runs proxy sessions of
//! exits, [`forward`] serves ports requested by peers, [`datagram`] holds UDP flows, [`relay`] is the
//! plain relay. What all of them need is in the [`context`].

use std::io;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

mod access_entry;
mod broken;
mod buffers;
mod busy_poll;
mod client;
mod connector;
mod context;
mod datagram;
mod deadlines;
mod dispatch;
mod exits;
mod forward;
mod ingress;
mod log_ids;
mod message;
mod payload_queue;
mod port_range;
mod proxy;
mod purpose;
mod relay;
mod signals;
#[cfg(test)]
mod sim;
mod stream;
mod supervisor;
mod table;
mod takeover;
mod token;
mod turn;
mod way;

use crate::cli::invocation::Ready;
use crate::cli::plan::{LinkPlan, Plan};
use crate::io::congestion::CongestionPolicy;
use crate::io::control;
use crate::io::driver::{Completion, Driver};
use crate::io::inherited::Reserved;
use crate::io::lookout::Lookout;
use crate::io::notify::Notifier;
use crate::io::pipe::Pipes;
use crate::io::resolver::Resolver;
use crate::io::takeover::desk::Desk;
use crate::io::takeover::successor::Succession;
use crate::limits::{LEAVE_MILLIS, TAKEOVER_TUNNEL_MILLIS};
use crate::observe::access::AccessLog;
use crate::policy::ceilings::Ceilings;
use crate::policy::destinations::Destinations;
use crate::session::Moment;
use crate::tls::settings::Settings;
use buffers::Buffers;
pub(crate) use connector::LinkSource;
pub use context::counts::Stopped;
use context::dialer::Dialer;
use context::{Cx, Drain};
use datagram::Datagrams;
pub(crate) use datagram::datagrams::DatagramPort;
use forward::Forwards;
use ingress::Ingress;
pub(crate) use ingress::listeners::{Listener, Origin};
use proxy::Proxies;
pub(crate) use purpose::Purpose;
use relay::Relay;
use signals::Signals;
use stream::Streams;
use supervisor::Supervisor;
use table::Key;
use takeover::{Offered, Takeover};

/// Who looks at the peers file, if there is one.
fn lookout(settings: &Settings, wake: &UnixStream) -> io::Result<Option<Lookout>> {
    let peers = Arc::clone(settings.peers());
    if !peers.has_file() {
        return Ok(None);
    }
    Ok(Some(Lookout::new(Arc::new(move || peers.look()), wake.try_clone()?)))
}

/// The event loop and the planes.
pub(crate) struct Worker<D> {
    cx: Cx<D>,
    streams: Streams,
    ingress: Ingress,
    proxies: Proxies,
    forwards: Forwards,
    datagrams: Datagrams,
    relay: Relay,
    /// While draining: until this time peers may still report streams that they opened before they
    /// learnt of the drain.
    farewells_until: Moment,
    signals: Signals,
    /// Who may take over, until this process ends.
    takeover: Option<Takeover>,
    /// Where operators ask.
    operators: Option<control::desk::Desk>,
    /// This process is to take over, and accepts nobody until it has.
    succession: Option<Succession>,
    /// When its tunnel has to be up for that.
    tunnel_by: Option<Moment>,
    /// It cannot take over.
    failed_to_take_over: bool,
    /// A successor waits until nothing is accepted here any more: the kernel tells one of those that wait
    /// at a socket of a connection, and it has to be the successor.
    leaving: Option<Desk>,
    /// The service manager, if it wants to be told how the process does.
    supervisor: Option<Supervisor>,
}

impl<D: Driver> Worker<D> {
    pub(crate) fn new(
        (driver, pipes): (D, Pipes),
        (plan, ceilings): (Plan, Ceilings),
        (listeners, ports): (Vec<Listener>, Vec<DatagramPort>),
        source: Option<LinkSource>,
        congestion: CongestionPolicy,
        encryption: Option<Rc<Settings>>,
        (wake, resolver_wake): (UnixStream, UnixStream),
    ) -> io::Result<Worker<D>> {
        wake.set_nonblocking(true)?;
        let serves = !plan.exits.is_empty() || matches!(plan.link, LinkPlan::Relay { .. });
        let of_ports = ports.iter().map(DatagramPort::address);
        let own = listeners.iter().map(Listener::address).chain(of_ports).collect();
        let receptors = listeners.iter().filter(|l| l.purpose() == Purpose::Receptor);
        let receptors = receptors.map(Listener::address).collect();
        let destinations = Destinations::new(plan.permits.clone(), own, receptors);
        let (streams, ingress) =
            (Streams::new(source, &ceilings), Ingress::new(listeners, &plan, &ceilings));
        let proxies = Proxies::new(ceilings.proxies_held_bytes);
        let datagrams = Datagrams::new(ports, plan.soxconf.udp_flows.min(ceilings.connections))?;
        let lookout = encryption.as_ref().map(|settings| lookout(settings, &resolver_wake));
        let (resolver, dialer) = (Resolver::new(resolver_wake), Dialer::new(serves));
        let mut buffers = Buffers::new(ceilings.pool_buffers)?;
        buffers.pipes = pipes;
        let mut cx = Cx::new(driver, plan, buffers, congestion, resolver, dialer, destinations);
        cx.encryption = encryption;
        cx.ceilings = ceilings;
        cx.lookout = lookout.transpose()?.flatten();
        Ok(Worker {
            streams,
            ingress,
            proxies,
            forwards: Forwards::new(),
            datagrams,
            relay: Relay::new(ceilings.connections),
            farewells_until: Moment(0),
            signals: Signals::new(wake),
            takeover: None,
            operators: None,
            succession: None,
            tunnel_by: None,
            failed_to_take_over: false,
            leaving: None,
            supervisor: None,
            cx,
        })
    }

    /// A successor may take over there. `reserved`: what the old process has opened for peers, which will
    /// ask for it again. `succession`: it is to be taken over from when a tunnel is up.
    pub(crate) fn open_desk(
        &mut self,
        desk: Desk,
        reserved: Vec<Reserved>,
        succession: Option<Succession>,
    ) {
        let until = self.cx.now.after(Duration::from_millis(TAKEOVER_TUNNEL_MILLIS));
        self.tunnel_by = succession.as_ref().map(|_| until);
        self.succession = succession;
        self.ingress.open_later(self.succession.is_some());
        self.takeover = Some(Takeover::new(desk));
        self.ingress.keep_for_peers(&self.cx, reserved);
    }

    /// The service manager is told from now on. `has_taken_over`: it knows the old process.
    pub(crate) fn report_to(&mut self, notifier: Notifier, ready: Ready, has_taken_over: bool) {
        self.supervisor = Some(Supervisor::new(notifier, ready, has_taken_over));
    }

    /// Each stream has a line there at its end.
    pub(crate) fn log_access(&mut self, log: Option<AccessLog>) {
        self.cx.access_log = log;
    }

    /// Operators ask there.
    pub(crate) fn open_control(&mut self, desk: control::desk::Desk) {
        self.operators = Some(desk);
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
        self.signals.watch_wake(&mut self.cx);
        self.ingress.start_listening(&mut self.cx, &mut self.streams);
        if self.succession.is_none() {
            self.datagrams.watch_ports(&mut self.cx);
        }
        self.run_timers();
        self.streams.begin_loopback(&mut self.cx);
        self.report();
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
        self.go_on();
        for completion in completions.drain(..) {
            self.dispatch(completion);
            self.apply_effects();
        }
        Ok(self.finish_turn())
    }

    fn stop(&mut self) {
        match self.cx.drain {
            Drain::No => {
                let until = self.cx.plan.timeouts.drain.map(|drain| self.cx.now.after(drain));
                info!(streams = self.stream_count(), "draining");
                self.cx.drain = Drain::Until(until);
                self.farewells_until = self.cx.now.after(Duration::from_millis(LEAVE_MILLIS));
                self.close_desk();
                self.ingress.close_listeners(&mut self.cx, &mut self.streams, &mut self.datagrams);
                self.ingress.refuse_waiting_clients(&mut self.cx, &mut self.streams);
                self.streams.refuse_new_streams(&mut self.cx);
                self.proxies.end_idle_proxy_sessions(&mut self.cx, &mut self.streams);
            }
            Drain::Until(_) | Drain::Leaving(_) => self.cx.drain = Drain::AtOnce,
            Drain::AtOnce => {}
        }
    }

    /// The old process accepts no more.
    fn has_taken_over(&mut self) {
        self.succession = None;
        self.ingress.open_later(false);
        self.datagrams.watch_ports(&mut self.cx);
        self.ingress.resume_clients(&mut self.cx, &mut self.streams);
    }

    /// The old process goes on, and this one ends.
    fn is_not_taken_over(&mut self, reason: &str) {
        warn!(reason, "cannot take over");
        self.failed_to_take_over = true;
    }

    /// The process is ending. A successor that has sockets already has them from now on.
    fn close_desk(&mut self) {
        let Some(mut takeover) = self.takeover.take() else { return };
        match takeover.take_all() {
            Some(offered) => self.leave_sockets(takeover.desk, &offered),
            // All of it is still the old process's.
            None if self.succession.take().is_some() => {
                takeover.desk.leave();
                self.ingress.leave_all();
            }
            None => takeover.desk.close(),
        }
    }

    /// These listening sockets are a successor's from now on.
    fn leave_sockets(&mut self, desk: Desk, sockets: &[Offered]) {
        desk.leave();
        self.leaving = Some(desk);
        for &socket in sockets {
            match socket {
                Offered::Listener(key) => self.ingress.leave_listener(key),
                Offered::Datagrams(name) => self.datagrams.leave_port(&mut self.cx, name),
                Offered::Reserved => self.ingress.leave_reserve(),
            }
        }
    }

    /// Number of streams, relayed pairs and flows.
    fn stream_count(&self) -> usize {
        self.streams.conn_count() + self.relay.len() + self.datagrams.len()
    }
}
