//! The dialer: connections to targets, for all who want one. It looks the name up, lets the addresses
//! race as [`crate::worker::dialer::dial`] says, and hands over the first that connects; the others are closed. A dial
//! that finds no descriptor waits for one: [`crate::worker::descriptors`].

pub(in crate::worker) mod dial;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tracing::{trace, warn};

use crate::cli::plan::Target;
use crate::io::driver::{Driver, Fd};
use crate::io::net;
use crate::io::resolver::Resolver;
use crate::limits::{ATTEMPTS_AT_ONCE, CONNECTIONS_MAX};
use crate::session::Moment;
use crate::worker::Worker;
use crate::worker::descriptors::{Descriptors, is_short};
use crate::worker::dialer::dial::{Dial, DialError, Owner, SilentAddresses, Step};
use crate::worker::log_limit::Class;
use crate::worker::proxy::talk::Server;
use crate::worker::stream::local::Stage;
use crate::worker::table::{Key, Table};
use crate::worker::token::Kind;

/// Dials at once: one for each connection that there may be, and the connector's.
const DIALS_MAX: usize = CONNECTIONS_MAX + 1;

/// All dials in progress.
#[derive(Debug)]
pub(in crate::worker) struct Dialer {
    dials: Table<Dial>,
    attempts: Table<Attempt>,
    /// When each dial that waits for time to pass is to be looked at.
    due: BTreeSet<(Moment, Key)>,
    silent: SilentAddresses,
    descriptors: Descriptors,
}

/// An attempt in flight.
#[derive(Debug)]
struct Attempt {
    dial: Key,
    fd: Fd,
}

impl Dialer {
    /// `serves`: others than the connector dial.
    pub(in crate::worker) fn new(serves: bool) -> Dialer {
        Dialer {
            dials: Table::new(DIALS_MAX),
            attempts: Table::new(DIALS_MAX * ATTEMPTS_AT_ONCE),
            due: BTreeSet::new(),
            silent: SilentAddresses::default(),
            descriptors: Descriptors::new(serves),
        }
    }

    /// When a dial is to be looked at next.
    pub(in crate::worker) fn next_timeout(&self) -> Option<Moment> {
        let due = self.due.first().map(|&(at, _)| at);
        due.into_iter().chain(self.descriptors.next_timeout()).min()
    }

    fn set_due(&mut self, key: Key, at: Option<Moment>) {
        let Some(dial) = self.dials.get_mut(key) else { return };
        let before = std::mem::replace(&mut dial.due, at);
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.due.remove(&(before, key));
        }
        if let Some(at) = at {
            self.due.insert((at, key));
        }
    }
}

impl<D: Driver> Worker<D> {
    /// A new dial, which begins with [`Worker::begin_dial`] or [`Worker::dial_address`] when its owner
    /// has noted its key. `None`: there is no room for it.
    pub(in crate::worker) fn new_dial(
        &mut self,
        owner: Owner,
        target: Target,
        overall: Option<Moment>,
    ) -> Option<Key> {
        self.dialer.dials.insert(Dial::new(owner, target, overall))
    }

    /// Looks the target's name up, and sets out for what is found.
    pub(in crate::worker) fn begin_dial(&mut self, key: Key) {
        let Some(dial) = self.dialer.dials.get(key) else { return };
        if let Some(address) = Resolver::literal(&dial.target) {
            self.dial_resolved(key, Ok(vec![address]));
        } else if let Err(error) = self.cx.resolver.ask(key.pack(), &dial.target) {
            self.dial_resolved(key, Err(error));
        } else {
            self.advance_dial(key);
        }
    }

    /// Sets out for one address, from `own` if that is given.
    pub(in crate::worker) fn dial_address(
        &mut self,
        key: Key,
        address: SocketAddr,
        own: Option<SocketAddr>,
    ) {
        if let Some(dial) = self.dialer.dials.get_mut(key) {
            dial.own = own;
        }
        self.dial_resolved(key, Ok(vec![address]));
    }

    /// The addresses of a dial's target.
    pub(in crate::worker) fn dial_resolved(
        &mut self,
        key: Key,
        found: io::Result<Vec<SocketAddr>>,
    ) {
        let Some(dial) = self.dialer.dials.get_mut(key) else {
            self.cx.counters.stale += 1;
            return;
        };
        match found {
            Err(error) => dial.not_resolved(&error),
            Ok(addresses) => {
                let host = &*dial.target.host;
                trace!(host, port = dial.target.port, addresses = addresses.len(), "dialling");
                let permitted = match dial.owner {
                    Owner::Conversation(local) => {
                        match self.locals.get(local).map(|local| &local.stage) {
                            Some(Stage::Talking(talk)) if talk.is_judged => {
                                let (name, asker) = (&dial.target.host, &talk.asker);
                                let access = &self.cx.destinations;
                                access.permitted(
                                    talk.protocol(),
                                    addresses,
                                    name,
                                    asker,
                                    net::is_ours,
                                )
                            }
                            Some(Stage::Talking(_)) => Ok(addresses),
                            _ => Ok(Vec::new()),
                        }
                    }
                    Owner::Pair(_) => self.cx.destinations.but_own(addresses, net::is_ours),
                    Owner::Connector | Owner::Exit(_) => Ok(addresses),
                };
                match permitted {
                    Ok(mut addresses) => {
                        self.dialer.silent.put_last(&mut addresses, self.cx.now);
                        dial.resolved(addresses);
                    }
                    Err(why) => dial.not_permitted(why),
                }
            }
        }
        self.advance_dial(key);
    }

    /// Does what is to be done for a dial now.
    fn advance_dial(&mut self, key: Key) {
        let now = self.cx.now;
        loop {
            let Some(dial) = self.dialer.dials.get_mut(key) else { return };
            match dial.step(now, &mut self.dialer.silent) {
                Step::Connect(address) => {
                    if let Err(error) = self.begin_attempt(key, address) {
                        self.not_begun(key, address, &error);
                    }
                }
                Step::GiveUp(attempt) => {
                    dial.ended(attempt);
                    self.end_attempt(attempt);
                }
                Step::Wait(until) => return self.dialer.set_due(key, until),
                Step::Fail => {
                    if let Some(dial) = self.take_dial(key) {
                        self.dial_failed(dial.owner, dial.into_failure());
                    }
                    return;
                }
            }
        }
    }

    fn begin_attempt(&mut self, key: Key, address: SocketAddr) -> io::Result<()> {
        let Some(dial) = self.dialer.dials.get(key) else { return Ok(()) };
        let mut socket = net::stream_socket(address, dial.own);
        let is_short = socket.as_ref().is_err_and(is_short);
        if is_short && self.dialer.descriptors.give_up_one(self.cx.now) {
            socket = net::stream_socket(address, dial.own);
            if self.dialer.descriptors.are_short() {
                self.pause_clients();
            }
        }
        let socket = socket?;
        self.cx.congestion.set_before(&socket);
        let fd: Fd = Rc::new(socket);
        let attempt = Attempt { dial: key, fd: Rc::clone(&fd) };
        let attempt = self.dialer.attempts.insert(attempt).ok_or(io::ErrorKind::OutOfMemory)?;
        if let Some(dial) = self.dialer.dials.get_mut(key) {
            dial.begun(attempt, address);
        }
        trace!(%address, "connecting");
        self.cx.driver.connect(&fd, address.into(), Kind::Connect.of(attempt));
        Ok(())
    }

    /// An attempt could not be begun: for want of a descriptor it is, later.
    fn not_begun(&mut self, key: Key, address: SocketAddr, error: &io::Error) {
        let Some(dial) = self.dialer.dials.get_mut(key) else { return };
        if !is_short(error) {
            return dial.attempt_failed(address, error);
        }
        dial.put_back(address);
        dial.short_since = Some(self.cx.now);
        let begins = !self.dialer.descriptors.any_waits();
        self.dialer.descriptors.wait(key, self.cx.now);
        if begins {
            self.pause_clients();
            if self.cx.may_log(Class::Shortage) {
                warn!(%address, %error, "cannot connect for now: raise the limit of open files (ulimit -n)");
            }
        }
    }

    /// There may be descriptors again, for dials that wait and then for clients.
    fn feed_short_dials(&mut self) {
        while let Some(key) = self.dialer.descriptors.next_served() {
            if let Some(dial) = self.dialer.dials.get_mut(key) {
                dial.short_since = None;
            }
            self.advance_dial(key);
        }
        if self.dialer.descriptors.look_again(self.cx.now) {
            self.resume_clients();
        }
    }

    /// Clients are left in the kernel's queue: who was accepted before them waits for descriptors.
    pub(in crate::worker) fn dials_are_short(&self) -> bool {
        self.dialer.descriptors.are_short()
    }

    /// Gives up an attempt. Its socket is closed when the driver has let go of it.
    fn end_attempt(&mut self, attempt: Key) {
        if let Some(attempt) = self.dialer.attempts.remove(attempt) {
            self.cx.driver.cancel_all(&attempt.fd);
        }
    }

    /// What became of an attempt.
    pub(in crate::worker) fn attempt_ended(&mut self, attempt: Key, result: io::Result<()>) {
        // One that has lost is no more in the table, and was asked to end.
        let Some(Attempt { dial: key, fd }) = self.dialer.attempts.remove(attempt) else { return };
        let Some(dial) = self.dialer.dials.get_mut(key) else { return };
        let Some(address) = dial.ended(attempt) else { return };
        let owner = dial.owner;
        let greeted = result.and_then(|()| self.greet(owner, &fd));
        match greeted {
            Ok(()) => {
                trace!(%address, "connected");
                self.dialer.silent.remove(address);
                drop(self.take_dial(key));
                self.dial_succeeded(owner, fd);
            }
            Err(error) => {
                trace!(%address, %error, "not connected");
                if let Some(dial) = self.dialer.dials.get_mut(key) {
                    dial.attempt_failed(address, &error);
                }
                self.advance_dial(key);
            }
        }
    }

    /// Sets a new connection up, and sends what it begins with.
    fn greet(&self, owner: Owner, fd: &Fd) -> io::Result<()> {
        if owner == Owner::Connector {
            return Ok(());
        }
        net::set_up_local(fd);
        self.cx.congestion.set_after(fd);
        let header = match owner {
            Owner::Exit(key) => self.locals.get(key).and_then(|local| local.header.as_ref()),
            _ => None,
        };
        header.map_or(Ok(()), |header| net::send_first(fd, header))
    }

    fn dial_succeeded(&mut self, owner: Owner, fd: Fd) {
        match owner {
            Owner::Connector => self.link_connected(fd),
            Owner::Exit(key) => self.exit_connected(key, fd),
            Owner::Conversation(key) => self.server_connected(key, fd),
            Owner::Pair(key) => self.pair_connected(key, fd),
        }
    }

    fn dial_failed(&mut self, owner: Owner, error: DialError) {
        match owner {
            Owner::Connector => self.link_not_connected(&error),
            Owner::Exit(key) => self.exit_unreachable(key, &error.to_string()),
            Owner::Conversation(key) => self.not_reached(key, error.unreached),
            Owner::Pair(key) => self.pair_not_connected(key, &error),
        }
    }

    /// Ends a dial that its owner wants no more.
    pub(in crate::worker) fn forget_dial(&mut self, key: Key) {
        drop(self.take_dial(key));
    }

    /// Ends the dial of a local connection, if that is being dialled.
    pub(in crate::worker) fn forget_dial_of(&mut self, stage: &Stage) {
        let dial = match stage {
            Stage::Dialing(dial) => *dial,
            Stage::Talking(talk) => match talk.server {
                Server::Dialing(dial) => Some(dial),
                _ => None,
            },
            _ => None,
        };
        if let Some(dial) = dial {
            self.forget_dial(dial);
        }
    }

    fn take_dial(&mut self, key: Key) -> Option<Dial> {
        self.dialer.set_due(key, None);
        let dial = self.dialer.dials.remove(key)?;
        if let Some(since) = dial.short_since {
            self.dialer.descriptors.forget(key, since);
        }
        for attempt in dial.racing() {
            self.end_attempt(attempt);
        }
        Some(dial)
    }

    /// Looks at the dials whose time has come.
    pub(in crate::worker) fn dials_on_time(&mut self) {
        while let Some(&(at, key)) = self.dialer.due.first()
            && at <= self.cx.now
        {
            self.dialer.set_due(key, None);
            self.advance_dial(key);
        }
        if self.dialer.descriptors.next_timeout().is_some_and(|at| at <= self.cx.now) {
            self.feed_short_dials();
        }
    }
}
