//! A plain relay: each client that comes in is joined with a server that is dialled for it.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tracing::debug;

use crate::cli::plan::{self, Caller, LinkPlan, Target};
use crate::io::driver::{Driver, Fd, Outcome};
use crate::io::net;
use crate::policy::routing;
use crate::worker::dialer::dial::{DialError, Owner};
use crate::worker::relay::pair::{Pair, Way};
use crate::worker::token::Kind;
use crate::worker::{Key, Worker};

const TOO_MANY: &str = "too many connections are open here";

impl<D: Driver> Worker<D> {
    /// A completion that concerns a pair.
    #[inline]
    pub(in crate::worker) fn take_in_pair(&mut self, kind: Kind, key: Key, outcome: Outcome) {
        match (kind, outcome) {
            (Kind::UpReady, Outcome::Polled(events)) => self.half_ready(key, Way::Up, events),
            (Kind::DownReady, Outcome::Polled(events)) => self.half_ready(key, Way::Down, events),
            (Kind::UpReceive, Outcome::Received(got)) => self.half_received(key, Way::Up, got),
            (Kind::DownReceive, Outcome::Received(got)) => {
                self.half_received(key, Way::Down, got);
            }
            (Kind::UpSend, Outcome::Sent { result, gather }) => {
                self.half_sent(key, Way::Up, result, gather);
            }
            (Kind::DownSend, Outcome::Sent { result, gather }) => {
                self.half_sent(key, Way::Down, result, gather);
            }
            (Kind::UpRoom, Outcome::Polled(_)) => self.half_has_room(key, Way::Up),
            (Kind::DownRoom, Outcome::Polled(_)) => self.half_has_room(key, Way::Down),
            (Kind::UpBroken, Outcome::Polled(events)) => self.half_broken(key, Way::Up, events),
            (Kind::DownBroken, Outcome::Polled(events)) => {
                self.half_broken(key, Way::Down, events);
            }
            (kind, outcome) => {
                debug_assert!(false, "{kind:?} completed with {outcome:?}");
                self.cx.counters.stale += 1;
            }
        }
    }

    /// Where the plain relay leads who came in at that address.
    ///
    /// # Errors
    /// Why there is no such port.
    pub(in crate::worker) fn relay_target(&self, at: SocketAddr) -> Result<Target, String> {
        match &self.cx.plan.link {
            LinkPlan::Relay { server: plan::Way::Server { target, .. }, .. } => Ok(target.clone()),
            LinkPlan::Relay { server: plan::Way::SamePort { host, offset, .. }, .. } => {
                let caller = Caller { client: None, entrance_port: Some(at.port()) };
                routing::at_port_of(host, *offset, &caller)
            }
            _ => Err("there is no plain relay".to_owned()),
        }
    }

    /// A client has come in, at that address: sets out for its server.
    pub(in crate::worker) fn begin_pair(&mut self, client: Fd, at: SocketAddr) {
        let peer = net::peer_address(&client);
        let target = match self.relay_target(at) {
            Ok(target) => target,
            Err(reason) => return self.turn_away(&client, peer, &reason),
        };
        let seat = match self.cx.seats.take(Some(peer.ip())) {
            Ok(seat) => seat,
            Err(reason) => return self.turn_away(&client, peer, &reason),
        };
        net::set_up_local(&client);
        self.cx.congestion.set_after(&client);
        let Some(key) = self.pairs.insert(Pair::new(peer, Rc::clone(&client), self.cx.now)) else {
            net::reset_on_close(&client);
            self.cx.log_refused(peer, TOO_MANY);
            return;
        };
        let overall = self.cx.plan.timeouts.connect.map(|connect| self.cx.now.after(connect));
        let dial = self.new_dial(Owner::Pair(key), target, overall);
        if let Some(pair) = self.pairs.get_mut(key) {
            pair.seat = seat;
            pair.dial = dial;
        }
        debug!(client = %peer, "client");
        match dial {
            Some(dial) => self.begin_dial(dial),
            None => {
                self.reset_pair(key);
                self.cx.log_refused(peer, TOO_MANY);
            }
        }
    }

    /// The server of a pair is reached.
    pub(in crate::worker) fn pair_connected(&mut self, key: Key, server: Fd) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        pair.server = Some(server);
        pair.dial = None;
        pair.last_data = self.cx.now;
        self.advance_half(key, Way::Up);
        self.advance_half(key, Way::Down);
    }

    /// The server of a pair cannot be reached.
    pub(in crate::worker) fn pair_not_connected(&mut self, key: Key, error: &DialError) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        pair.dial = None;
        let peer = pair.peer;
        self.reset_pair(key);
        self.cx.log_refused(peer, &error.to_string());
    }

    /// Ends pairs that have been silent for too long, and those of which a broken side has left nothing. One that is being dialled has `TIMEOUT=con`.
    pub(in crate::worker) fn sweep_pairs(&mut self) {
        let (now, idle) = (self.cx.now, self.cx.plan.timeouts.io);
        let is_silent = |pair: &Pair| {
            let over = idle.is_some_and(|idle| pair.last_data.after(idle) <= now);
            over && pair.dial.is_none()
        };
        let is_due = |pair: &Pair| pair.broken.is_some() || is_silent(pair);
        let due = self.pairs.iter().filter(|(_, pair)| is_due(pair)).map(|(key, _)| key);
        for key in due.collect::<Vec<_>>() {
            if !self.look_at_pair(key) {
                self.pair_failed(key, &io::Error::from(io::ErrorKind::TimedOut));
            }
        }
    }

    /// It cannot go on: both sides are reset, at once.
    pub(in crate::worker) fn pair_failed(&mut self, key: Key, error: &io::Error) {
        if let Some(pair) = self.pairs.get(key) {
            debug!(client = %pair.peer, %error, "connection failed");
            self.reset_pair(key);
        }
    }

    pub(in crate::worker) fn reset_pair(&mut self, key: Key) {
        let Some(pair) = self.pairs.remove(key) else { return };
        if let Some(dial) = pair.dial {
            self.forget_dial(dial);
        }
        pair.reset_on_close();
        // Closed when what is under way on them has ended.
        self.cx.driver.cancel_all(&pair.client);
        if let Some(server) = &pair.server {
            self.cx.driver.cancel_all(server);
        }
    }

    /// Both directions have ended in good order.
    pub(in crate::worker) fn end_pair(&mut self, key: Key) {
        let Some(pair) = self.pairs.remove(key) else { return };
        debug!(client = %pair.peer, "connection ended");
        for (half, fd) in [(&pair.up, Some(&pair.client)), (&pair.down, pair.server.as_ref())] {
            if let (true, Some(fd)) = (half.guarded, fd) {
                self.cx.driver.cancel_all(fd);
            }
        }
    }
}
