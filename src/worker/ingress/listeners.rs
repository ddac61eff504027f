//! Listening sockets: receptors accept peers, entrances accept clients.
//!
//! An entrance accepts while a tunnel is up and has room ([`crate::worker::ingress::entrances`]).
//! Otherwise clients wait in the kernel's queue, which is bounded and costs nothing. After
//! `TIMEOUT=hold`, waiting and new clients are accepted and reset, so that they learn of it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tracing::{debug, warn};

use crate::io::driver::{Driver, Fd, OpId};
use crate::io::net;
use crate::io::takeover::Handed;
use crate::io::unix::SocketFile;
use crate::limits::{ACCEPT_PAUSE_MILLIS, LISTEN_BACKLOG};
use crate::session::Moment;
use crate::worker::client::Client;
use crate::worker::context::log_limit::Class;
use crate::worker::context::{Cx, Drain};
use crate::worker::datagram::Datagrams;
use crate::worker::ingress::Ingress;
use crate::worker::ingress::outage::Gate;
use crate::worker::message::{AcceptedConn, LedTo};
use crate::worker::purpose::Purpose;
use crate::worker::stream::Streams;
use crate::worker::table::Key;
use crate::worker::token::Kind;

/// Which process opened a listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// This process.
    Own,
    /// Another process, which may continue to use it after this one.
    Inherited,
}

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(super) fd: Fd,
    address: SocketAddr,
    pub(super) purpose: Purpose,
    origin: Origin,
    /// Path of a Unix socket.
    path: Option<PathBuf>,
    /// Its socket file, if this process created it.
    file: Option<SocketFile>,
    /// Clients send a PROXY header first.
    proxy_header: bool,
    /// Of an entrance: the tunnels that its clients may take.
    led_to: LedTo,
    accepting: Option<OpId>,
    /// Accepts no more; kept until operations in flight have ended.
    closed: bool,
    /// The process drains: removed when its last connections have been accepted.
    closing: bool,
    /// Out of descriptors: accepting resumes then.
    paused_until: Option<Moment>,
    /// Of an entrance: whether it listens.
    pub(super) gate: Gate,
}

impl Listener {
    pub(crate) fn new(fd: OwnedFd, purpose: Purpose, origin: Origin) -> Listener {
        let address = net::local_address(&fd);
        let fd = Rc::new(fd);
        Listener {
            fd,
            address,
            purpose,
            origin,
            path: None,
            file: None,
            proxy_header: false,
            led_to: LedTo::Any,
            accepting: None,
            closed: false,
            closing: false,
            paused_until: None,
            gate: Gate::Open,
        }
    }

    /// An entrance at a Unix socket. `file`: set if this process created it.
    pub(crate) fn unix(fd: OwnedFd, path: PathBuf, file: Option<SocketFile>) -> Listener {
        let origin = if file.is_some() { Origin::Own } else { Origin::Inherited };
        let path = Some(path);
        Listener { path, file, ..Listener::new(fd, Purpose::Entrance, origin) }
    }

    /// Whether clients send a PROXY header first, and the peers that they go to.
    pub(crate) fn with_options(self, (proxy_header, peers): (bool, &[String])) -> Listener {
        Listener { proxy_header, led_to: LedTo::names(peers), ..self }
    }

    /// An entrance that the peer of this tunnel has asked for.
    pub(super) fn asked_by(fd: OwnedFd, tunnel: Key) -> Listener {
        let led_to = LedTo::Tunnel(tunnel);
        Listener { led_to, ..Listener::new(fd, Purpose::Entrance, Origin::Own) }
    }

    /// Whether a peer has asked for it.
    pub(super) fn is_asked(&self) -> bool {
        matches!(self.led_to, LedTo::Tunnel(_))
    }

    pub(crate) fn socket(&self) -> &Fd {
        &self.fd
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Stops accepting. `true`: no other process uses the socket, so the caller must shut it down.
    pub(super) fn close(&mut self) -> bool {
        self.closed = true;
        self.origin == Origin::Own
    }

    /// For a successor: a duplicate.
    pub(super) fn offer(&self) -> io::Result<Handed> {
        let fd = self.fd.try_clone()?;
        Ok(Handed { fd, is_ours: self.origin == Origin::Own, is_asked: self.is_asked() })
    }

    /// It is another process's from now on, with those in its queue.
    pub(super) fn leave(&mut self) {
        self.origin = Origin::Inherited;
        self.file.iter().for_each(SocketFile::leave);
    }

    /// Whether it is being closed.
    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether an accept is under way.
    pub(super) fn is_accepting(&self) -> bool {
        self.accepting.is_some() && !self.closed && !self.closing
    }

    /// Whether it waits for descriptors.
    pub(super) fn is_paused(&self) -> bool {
        self.paused_until.is_some()
    }

    /// Whether it is a Unix socket.
    pub(crate) fn is_unix(&self) -> bool {
        self.path.is_some()
    }

    /// Starts accepting, if it is idle.
    pub(super) fn start_accepting<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        one_by_one: bool,
    ) {
        let is_idle = self.accepting.is_none() && self.paused_until.is_none();
        if is_idle && self.gate.is_open() && !self.closed && !self.closing {
            let token = Kind::Accept.of(key);
            self.accepting = Some(match one_by_one {
                true => cx.driver.accept_one(&self.fd, token),
                false => cx.driver.accept(&self.fd, token),
            });
        }
    }

    /// Whether it may end listening while no tunnel is up. What another process has would not be closed by
    /// that, or for that process too; and a Unix socket can only be made anew, which takes rights to its
    /// directory that may have been given up.
    pub(super) fn may_be_closed(&self) -> bool {
        let is_ours = self.origin == Origin::Own && !self.is_unix();
        is_ours && self.purpose == Purpose::Entrance && !self.is_asked() && !self.closing
    }

    /// Ends listening, and keeps the port.
    pub(super) fn shut<D: Driver>(&mut self, cx: &mut Cx<D>) {
        if let Some(op) = self.accepting {
            cx.driver.cancel(op);
        }
        net::stop_listening(&self.fd, self.address);
    }

    /// Listens again.
    pub(super) fn open_again(&self) -> io::Result<()> {
        net::listen_again(&self.fd, self.address)
    }

    /// The tunnels that its clients may take, by its port and where it leads.
    pub(super) fn way(&self) -> (u16, &LedTo) {
        (self.address.port(), &self.led_to)
    }

    /// Describes an accepted connection, and whether a PROXY header comes first.
    fn came(&self, socket: OwnedFd) -> (AcceptedConn, bool) {
        let unix = self.is_unix();
        let client = Client::of(&socket, unix);
        let (purpose, at, socket) = (self.purpose, self.address, Rc::new(socket));
        let led_to = self.led_to.clone();
        (AcceptedConn { purpose, client, at, unix, socket, led_to }, self.proxy_header)
    }

    /// Where it listens, for the log.
    pub(crate) fn place(&self) -> String {
        match &self.path {
            Some(path) => format!("unix:{}", path.display()),
            None => self.address.to_string(),
        }
    }
}

impl Ingress {
    /// Starts accepting wherever no tunnel is needed.
    pub(in crate::worker) fn start_listening<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
    ) {
        self.start_accepting(cx, streams, Purpose::Receptor);
        self.start_accepting(cx, streams, Purpose::Relay);
    }

    /// Starts accepting at all idle listeners of a purpose.
    pub(in crate::worker) fn start_accepting<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        purpose: Purpose,
    ) {
        let clients_wait = purpose != Purpose::Receptor && cx.dials_are_short();
        if cx.drain != Drain::No || clients_wait || self.opens_later {
            return;
        }
        // With little room, one at a time: the others stay in the kernel's queue. So do peers, of whom
        // whoever likes may come by the thousand: a turn takes one of them, whatever else it does.
        let one_by_one = match purpose {
            Purpose::Receptor => true,
            Purpose::Entrance => !streams.has_room_for_many(),
            Purpose::Relay => false,
        };
        for (key, listener) in self.listeners.iter_mut() {
            if listener.purpose == purpose {
                listener.start_accepting(cx, key, one_by_one);
            }
        }
    }

    /// Stops accepting clients, because no tunnel has room.
    pub(in crate::worker) fn hold_clients<D: Driver>(&mut self, cx: &mut Cx<D>) {
        self.clients_held = true;
        self.hold_deadline = cx.plan.timeouts.hold.map(|hold| cx.now.after(hold));
        for listener in self.open_listeners().filter(|l| l.purpose == Purpose::Entrance) {
            if let Some(op) = listener.accepting {
                cx.driver.cancel(op);
            }
        }
    }

    /// Stops accepting clients while dials wait for descriptors.
    pub(in crate::worker) fn pause_clients<D: Driver>(&mut self, cx: &mut Cx<D>) {
        for listener in self.open_listeners().filter(|l| l.purpose != Purpose::Receptor) {
            if let Some(op) = listener.accepting {
                cx.driver.cancel(op);
            }
        }
    }

    /// Resumes accepting clients where they can be served.
    pub(in crate::worker) fn resume_clients<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
    ) {
        self.start_accepting(cx, streams, Purpose::Relay);
        if self.may_take_clients(cx, streams) {
            self.start_accepting(cx, streams, Purpose::Entrance);
        }
    }

    /// Closes all listening sockets. The kernel refuses later connections; on an inherited socket
    /// they wait for the next process.
    pub(in crate::worker) fn close_listeners<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
    ) {
        let all = self.listeners.iter().map(|(key, _)| key).collect::<Vec<_>>();
        for key in all {
            let Some(listener) = self.listeners.get_mut(key) else { continue };
            listener.closing = true;
            match listener.accepting {
                // Connections it has taken from the queue complete before its cancellation.
                Some(op) => cx.driver.cancel(op),
                None => self.close_listener(cx, streams, datagrams, key),
            }
        }
        self.reserve.end();
        self.outage.end();
        self.shorten_header_deadlines(cx);
    }

    /// Closes a listening socket. Closing resets connections in its queue, so those that can be
    /// served are accepted first.
    fn close_listener<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        key: Key,
    ) {
        let Some(listener) = self.listeners.remove(key) else { return };
        if listener.origin == Origin::Own {
            let serves = match listener.purpose {
                Purpose::Receptor => false,
                Purpose::Entrance => !streams.tunnels().up().is_empty(),
                Purpose::Relay => true,
            };
            for _ in 0..if serves { LISTEN_BACKLOG } else { 0 } {
                let Ok(socket) = net::accept_now(&listener.fd) else { break };
                self.on_accepted(cx, streams, datagrams, listener.came(socket));
            }
            net::shut_down(&listener.fd);
        }
        cx.driver.leave(&listener.fd);
        // The file of a Unix socket is removed with its listener, so that the next process can
        // create its own.
    }

    /// A listener being closed has accepted a connection, or its accept has ended.
    fn accepted_late<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        key: Key,
        more: bool,
        got: io::Result<OwnedFd>,
    ) {
        let Some(listener) = self.listeners.get(key) else { return };
        match got {
            // A peer dials again and reaches the next process.
            Ok(socket) if listener.purpose == Purpose::Receptor => drop(socket),
            Ok(socket) => {
                let came = listener.came(socket);
                self.on_accepted(cx, streams, datagrams, came);
            }
            Err(_) => {}
        }
        if !more {
            self.close_listener(cx, streams, datagrams, key);
        }
    }

    /// Handles an accepted connection, after its PROXY header if one comes first.
    fn on_accepted<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        (came, proxy_header): (AcceptedConn, bool),
    ) {
        match proxy_header {
            true => self.on_header_sender(cx, streams, datagrams, came),
            false => self.on_connection(cx, streams, datagrams, came),
        }
    }

    pub(in crate::worker) fn accepted<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        key: Key,
        more: bool,
        got: io::Result<OwnedFd>,
    ) {
        let Some(listener) = self.listeners.get_mut(key) else {
            cx.counters.stale += 1;
            if let Ok(socket) = got {
                net::reset_on_close(&socket);
            }
            return;
        };
        if listener.closing {
            return self.accepted_late(cx, streams, datagrams, key, more, got);
        }
        if !more {
            listener.accepting = None;
        }
        let purpose = listener.purpose;
        match got {
            // Accepted just after the last connection that is served.
            Ok(socket) if listener.closed => net::reset_on_close(&socket),
            Ok(socket) => {
                let came = listener.came(socket);
                self.on_accepted(cx, streams, datagrams, came);
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::ECANCELED) => {}
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                    if cx.log_limit.allow(Class::Shortage, cx.now) {
                        warn!(address = listener.place(), %error, "cannot accept for now: raise the limit of open files (ulimit -n)");
                    }
                    let pause = Duration::from_millis(ACCEPT_PAUSE_MILLIS);
                    listener.paused_until = Some(cx.now.after(pause));
                    self.listeners_paused = true;
                }
                // The client was gone before it was accepted.
                _ => debug!(address = listener.place(), %error, "accept failed"),
            },
        }
        if more {
            return;
        }
        if purpose == Purpose::Receptor {
            // This one alone: there may be thousands of others.
            if let Some(listener) = self.listeners.get_mut(key).filter(|_| cx.drain == Drain::No) {
                listener.start_accepting(cx, key, true);
            }
        } else if purpose != Purpose::Entrance || self.may_take_clients(cx, streams) {
            self.start_accepting(cx, streams, purpose);
        } else if !self.clients_held {
            self.hold_clients(cx);
        }
    }

    /// Resumes accepting after a pause, and rejects clients whose hold time has passed.
    pub(in crate::worker) fn listeners_on_time<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
    ) {
        let mut over = false;
        self.reserve.on_time(cx.now);
        if self.listeners_paused {
            self.listeners_paused = false;
            for (_, listener) in self.listeners.iter_mut() {
                match listener.paused_until {
                    Some(until) if until <= cx.now => {
                        listener.paused_until = None;
                        over = true;
                    }
                    Some(_) => self.listeners_paused = true,
                    None => {}
                }
            }
        }
        if over {
            self.start_listening(cx, streams);
            if self.may_take_clients(cx, streams) {
                self.start_accepting(cx, streams, Purpose::Entrance);
            }
        }
    }
}

impl Ingress {
    /// When a listener accepts again, or clients that wait are reset.
    pub(in crate::worker) fn next_listener_timeout(&self, now: Moment) -> Option<Moment> {
        let held = self.hold_deadline.filter(|&deadline| self.clients_held && deadline > now);
        let others = held.into_iter().chain(self.reserve.until()).chain(self.outage.look_at());
        if !self.listeners_paused {
            return others.min();
        }
        let paused = self.listeners.iter().filter_map(|(_, listener)| listener.paused_until);
        paused.chain(others).min()
    }
}
