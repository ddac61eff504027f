//! The dialer: establishes connections for all planes. It looks up the name, races the addresses as
//! [`dial`] decides, and returns the first connection by [`Effect::Dialled`]; the other attempts
//! are cancelled. A dial without a descriptor waits for one, see [`descriptors`].

mod descriptors;
pub(in crate::worker) mod dial;
mod silent;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tracing::{trace, warn};

use self::descriptors::{Descriptors, is_short};
use self::silent::SilentAddresses;
use crate::io::congestion::CongestionPolicy;
use crate::io::driver::{Driver, Fd, OpId};
use crate::io::net;
use crate::io::resolver;
use crate::limits::{ATTEMPTS_AT_ONCE, CONNECTIONS_MAX};
use crate::policy::connection_limits::LimitGuard;
use crate::session::Moment;
use crate::worker::context::dialer::dial::{Dial, Owner, Permission, Request, Step};
use crate::worker::context::log_limit::Class;
use crate::worker::context::{Cx, Effect, Lookup};
use crate::worker::deadlines::Deadlines;
use crate::worker::log_ids::LogIds;
use crate::worker::table::{Key, Table};
use crate::worker::token::Kind;

/// Maximum number of dials: one per connection, and the connector's.
const DIALS_MAX: usize = CONNECTIONS_MAX + 1;

/// All dials in progress.
#[derive(Debug)]
pub(in crate::worker) struct Dialer {
    dials: Table<Dial>,
    attempts: Table<Attempt>,
    /// Deadlines of dials.
    due: Deadlines,
    silent: SilentAddresses,
    descriptors: Descriptors,
}

/// An attempt in flight. One that was cancelled is kept until its socket is closed.
#[derive(Debug)]
struct Attempt {
    /// [`Key::NONE`] once it was cancelled.
    dial: Key,
    fd: Fd,
    op: OpId,
    /// Limits that its stream has taken, if that ended before.
    limit_guard: Option<LimitGuard>,
}

impl Dialer {
    /// `serves`: whether clients need connections to servers.
    pub(in crate::worker) fn new(serves: bool) -> Dialer {
        Dialer {
            dials: Table::new(DIALS_MAX),
            attempts: Table::new(DIALS_MAX * ATTEMPTS_AT_ONCE),
            due: Deadlines::default(),
            silent: SilentAddresses::default(),
            descriptors: Descriptors::new(serves),
        }
    }

    /// The next deadline of all dials.
    pub(in crate::worker) fn next_timeout(&self) -> Option<Moment> {
        self.due.first().into_iter().chain(self.descriptors.next_timeout()).min()
    }

    /// The time by which each dial is over, for the simulator.
    #[cfg(test)]
    pub(in crate::worker) fn deadlines(&self) -> impl Iterator<Item = Moment> {
        self.dials.iter().filter_map(|(_, dial)| dial.request.overall)
    }

    fn set_due(&mut self, key: Key, at: Option<Moment>) {
        if let Some(dial) = self.dials.get_mut(key) {
            self.due.replace(key, &mut dial.due, at);
        }
    }
}

impl<D: Driver> Cx<D> {
    /// Begins a dial, which ends with [`Effect::Dialled`]. `None`: too many dials.
    pub(in crate::worker) fn dial(&mut self, request: Request) -> Option<Key> {
        let address = request.address.or_else(|| resolver::literal(&request.target));
        let key = self.dialer.dials.insert(Dial::new(request))?;
        if let Some(address) = address {
            self.dial_resolved(key, Ok(vec![address]));
            return Some(key);
        }
        let target = self.dialer.dials.get(key).map(|dial| dial.request.target.clone())?;
        if let Err(error) = self.resolver.ask(Lookup::Dial(key), &target) {
            self.dial_resolved(key, Err(error));
        } else {
            self.advance_dial(key);
        }
        Some(key)
    }

    /// The look-up of a dial's target has ended.
    pub(in crate::worker) fn dial_resolved(
        &mut self,
        key: Key,
        found: io::Result<Vec<SocketAddr>>,
    ) {
        let Some(dial) = self.dialer.dials.get_mut(key) else {
            self.counters.stale += 1;
            return;
        };
        match found {
            Err(error) => dial.not_resolved(&error),
            Ok(addresses) => {
                let Request { owner, target, permission, .. } = &dial.request;
                let host = &*target.host;
                let LogIds { stream, pair, .. } = owner.ids();
                let (port, count) = (target.port, addresses.len());
                trace!(stream, pair, host, port, addresses = count, "dialling");
                if *owner == Owner::Connector {
                    self.destinations.dials(&addresses);
                }
                let access = &self.destinations;
                let permitted = match permission {
                    Permission::Any => Ok(addresses),
                    Permission::NotOwn => access.but_own(addresses, net::is_ours),
                    Permission::Proxy(proxy, asker) => {
                        access.permitted(*proxy, addresses, host, asker, net::is_ours)
                    }
                };
                match permitted {
                    Ok(mut addresses) => {
                        self.dialer.silent.put_last(&mut addresses, self.now);
                        dial.resolved(addresses);
                    }
                    Err(why) => dial.not_permitted(why),
                }
            }
        }
        self.advance_dial(key);
    }

    /// Executes the next actions of a dial.
    fn advance_dial(&mut self, key: Key) {
        let now = self.now;
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
                    self.end_attempt(attempt, None);
                }
                Step::Wait(until) => return self.dialer.set_due(key, until),
                Step::Fail => {
                    if let Some(dial) = self.take_dial(key, None) {
                        let owner = dial.request.owner;
                        let result = Err(dial.into_failure());
                        self.effects.push_back(Effect::Dialled { owner, result });
                    }
                    return;
                }
            }
        }
    }

    fn begin_attempt(&mut self, key: Key, address: SocketAddr) -> io::Result<()> {
        let Some(dial) = self.dialer.dials.get(key) else { return Ok(()) };
        let LogIds { stream, pair, .. } = dial.request.owner.ids();
        let mut socket = net::stream_socket(address, dial.request.own);
        let is_short = socket.as_ref().is_err_and(is_short);
        if is_short && self.dialer.descriptors.give_up_one(self.now) {
            socket = net::stream_socket(address, dial.request.own);
            if self.dialer.descriptors.are_short() {
                self.effects.push_back(Effect::PauseClients);
            }
        }
        let socket = socket?;
        self.congestion.set_before(&socket);
        let fd: Fd = Rc::new(socket);
        let Dialer { dials, attempts, .. } = &mut self.dialer;
        let attempt = attempts.insert_with(|attempt| {
            let op = self.driver.connect(&fd, address.into(), Kind::Connect.of(attempt));
            Attempt { dial: key, fd, op, limit_guard: None }
        });
        let attempt = attempt.ok_or(io::ErrorKind::OutOfMemory)?;
        if let Some(dial) = dials.get_mut(key) {
            dial.begun(attempt, address);
        }
        trace!(stream, pair, %address, "connecting");
        Ok(())
    }

    /// An attempt could not begin: fails it, or queues it for a descriptor.
    fn not_begun(&mut self, key: Key, address: SocketAddr, error: &io::Error) {
        let Some(dial) = self.dialer.dials.get_mut(key) else { return };
        if !is_short(error) {
            return dial.attempt_failed(address, error);
        }
        let LogIds { stream, pair, .. } = dial.request.owner.ids();
        dial.put_back(address);
        dial.short_since = Some(self.now);
        let begins = !self.dialer.descriptors.any_waits();
        self.dialer.descriptors.wait(key, self.now);
        if begins {
            self.effects.push_back(Effect::PauseClients);
            if self.may_log(Class::Shortage) {
                warn!(
                    stream,
                    pair,
                    %address,
                    %error,
                    "cannot connect for now: raise the limit of open files (ulimit -n)"
                );
            }
        }
    }

    /// Retries dials that wait for descriptors; then clients may be accepted again.
    fn retry_short_dials(&mut self) {
        // Each of them once: one that is still short waits again, behind the others.
        for _ in 0..self.dialer.descriptors.waiting() {
            let Some(key) = self.dialer.descriptors.next_served() else { break };
            if let Some(dial) = self.dialer.dials.get_mut(key) {
                dial.short_since = None;
            }
            self.advance_dial(key);
        }
        if self.dialer.descriptors.look_again(self.now) {
            self.effects.push_back(Effect::ResumeClients);
        }
    }

    /// Whether clients must stay in the kernel's queue because dials wait for descriptors.
    pub(in crate::worker) fn dials_are_short(&self) -> bool {
        self.dialer.descriptors.are_short()
    }

    /// Cancels an attempt. Its socket is closed when the driver has released it; until then it counts
    /// against the limits of its stream.
    fn end_attempt(&mut self, attempt: Key, limit_guard: Option<LimitGuard>) {
        if let Some(attempt) = self.dialer.attempts.get_mut(attempt) {
            attempt.dial = Key::NONE;
            attempt.limit_guard = limit_guard;
            self.driver.cancel(attempt.op);
        }
    }

    /// An attempt has ended.
    pub(in crate::worker) fn attempt_ended(&mut self, attempt: Key, result: io::Result<()>) {
        let Some(Attempt { dial: key, fd, .. }) = self.dialer.attempts.remove(attempt) else {
            return;
        };
        // One that was cancelled belongs to no dial.
        let Some(dial) = self.dialer.dials.get_mut(key) else { return };
        let Some(address) = dial.ended(attempt) else { return };
        let owner = dial.request.owner;
        let LogIds { stream, pair, .. } = owner.ids();
        let greeted = result.and_then(|()| set_up(&dial.request, &fd, &self.congestion));
        match greeted {
            Ok(()) => {
                trace!(stream, pair, %address, "connected");
                self.dialer.silent.remove(address);
                drop(self.take_dial(key, None));
                self.effects.push_back(Effect::Dialled { owner, result: Ok(fd) });
            }
            Err(error) => {
                trace!(stream, pair, %address, %error, "not connected");
                if let Some(dial) = self.dialer.dials.get_mut(key) {
                    dial.attempt_failed(address, &error);
                }
                self.advance_dial(key);
            }
        }
    }

    /// Cancels a dial that its owner no longer needs. What its stream counts against is given back when
    /// its sockets are closed.
    pub(in crate::worker) fn forget_dial(&mut self, key: Key, limit_guard: Option<LimitGuard>) {
        drop(self.take_dial(key, limit_guard));
    }

    fn take_dial(&mut self, key: Key, mut limit_guard: Option<LimitGuard>) -> Option<Dial> {
        self.dialer.set_due(key, None);
        let dial = self.dialer.dials.remove(key)?;
        if let Some(since) = dial.short_since {
            self.dialer.descriptors.forget(key, since);
        }
        for attempt in dial.racing() {
            self.end_attempt(attempt, limit_guard.take());
        }
        Some(dial)
    }

    /// Runs the deadlines of dials.
    pub(in crate::worker) fn dials_on_time(&mut self) {
        loop {
            let Some(key) = self.dialer.due.due(self.now).next() else { break };
            self.dialer.set_due(key, None);
            self.advance_dial(key);
        }
        if self.dialer.descriptors.next_timeout().is_some_and(|at| at <= self.now) {
            self.retry_short_dials();
        }
    }
}

/// Configures a new connection and sends its first bytes.
fn set_up(request: &Request, fd: &Fd, congestion: &CongestionPolicy) -> io::Result<()> {
    if request.owner == Owner::Connector {
        return Ok(());
    }
    net::set_up_local(fd);
    congestion.set_after(fd);
    request.greeting.as_ref().map_or(Ok(()), |greeting| net::send_first(fd, greeting))
}
