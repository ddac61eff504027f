//! A plain relay: each client that comes in is joined with a server that is dialled for it.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tracing::debug;

use super::connector::PAIR_BIT;
use super::dial::Dial;
use super::pair::{Pair, Way};
use super::token::Kind;
use super::{Key, Worker};
use crate::engine::driver::{Driver, Fd, Outcome};
use crate::engine::net;
use crate::engine::resolver::Resolver;
use crate::params::plan::LinkPlan;

impl<D: Driver> Worker<D> {
    /// A completion that concerns a pair.
    #[inline]
    pub(super) fn take_in_pair(&mut self, kind: Kind, key: Key, outcome: Outcome) {
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
            (Kind::PairConnect, Outcome::Connected(result)) => self.pair_connected(key, result),
            (kind, outcome) => {
                debug_assert!(false, "{kind:?} completed with {outcome:?}");
                self.counters.stale += 1;
            }
        }
    }

    /// A client has come in: sets out for its server.
    pub(super) fn begin_pair(&mut self, client: Fd) {
        let LinkPlan::Relay { target, .. } = &self.plan.link else { return };
        let target = target.clone();
        let peer = net::peer_address(&client);
        let seat = match self.seats.take(Some(peer.ip())) {
            Ok(seat) => seat,
            Err(reason) => return self.turn_away(&client, peer, &reason),
        };
        net::set_up_local(&client);
        self.congestion.set_after(&client);
        let overall = self.plan.timeouts.connect.map(|connect| self.now.after(connect));
        let dial = Dial::new(target.clone(), overall);
        let Some(key) = self.pairs.insert(Pair::new(peer, Rc::clone(&client), dial, self.now))
        else {
            net::reset_on_close(&client);
            self.log_refused(peer, "too many connections are open here");
            return;
        };
        if let Some(pair) = self.pairs.get_mut(key) {
            pair.seat = seat;
        }
        debug!(client = %peer, "client");
        if let Some(address) = Resolver::literal(&target) {
            self.pair_resolved(key, Ok(vec![address]));
        } else if let Err(error) = self.resolver.ask(PAIR_BIT | key.pack(), &target) {
            self.pair_resolved(key, Err(error));
        }
    }

    /// The addresses of a pair's server.
    pub(super) fn pair_resolved(&mut self, key: Key, found: io::Result<Vec<SocketAddr>>) {
        let Some(pair) = self.pairs.get_mut(key) else {
            self.counters.stale += 1;
            return;
        };
        if let Some(dial) = &mut pair.dial {
            dial.resolved(found);
        }
        self.dial_pair(key);
    }

    /// Tries the server's next address.
    fn dial_pair(&mut self, key: Key) {
        let now = self.now;
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let Some(dial) = &mut pair.dial else { return };
        match dial.start(&mut self.driver, &self.congestion, Kind::PairConnect.of(key)) {
            Some(fd) => {
                pair.server = Some(fd);
                pair.deadline = dial.deadline(now);
                self.timed += usize::from(pair.deadline.is_some());
            }
            None => {
                let (peer, reason) = (pair.peer, dial.reason());
                self.reset_pair(key);
                self.log_refused(peer, &reason);
            }
        }
    }

    fn pair_connected(&mut self, key: Key, result: io::Result<()>) {
        let Some(pair) = self.pairs.get_mut(key) else {
            self.counters.stale += 1;
            return;
        };
        let (Some(dial), Some(server)) = (&mut pair.dial, &pair.server) else { return };
        match result {
            Ok(()) => {
                net::set_up_local(server);
                self.congestion.set_after(server);
                pair.dial = None;
                pair.deadline = None;
                pair.last_data = self.now;
                self.advance_half(key, Way::Up);
                self.advance_half(key, Way::Down);
            }
            // Patience with this address had ended, and another is being tried.
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => {}
            Err(error) => {
                dial.failed(error);
                pair.server = None;
                self.dial_pair(key);
            }
        }
    }

    /// Ends pairs whose patience is over.
    pub(super) fn sweep_pairs(&mut self) {
        let now = self.now;
        let idle = self.plan.timeouts.io;
        let mut due = Vec::new();
        for (key, pair) in self.pairs.iter() {
            match pair.deadline {
                Some(deadline) if deadline <= now => due.push(key),
                Some(_) => self.timed += 1,
                None if idle.is_some_and(|idle| pair.last_data.after(idle) <= now) => {
                    due.push(key);
                }
                None => {}
            }
        }
        for key in due {
            self.pair_patience_over(key);
        }
    }

    fn pair_patience_over(&mut self, key: Key) {
        let now = self.now;
        let Some(pair) = self.pairs.get_mut(key) else { return };
        match (&mut pair.dial, pair.deadline.take()) {
            (Some(dial), Some(_)) => {
                dial.timed_out(now);
                if let Some(fd) = pair.server.take() {
                    self.driver.cancel_all(&fd);
                }
                self.dial_pair(key);
            }
            _ => self.pair_failed(key, &io::Error::from(io::ErrorKind::TimedOut)),
        }
    }

    /// One side is broken: so is the other.
    pub(super) fn pair_failed(&mut self, key: Key, error: &io::Error) {
        if let Some(pair) = self.pairs.get(key) {
            debug!(client = %pair.peer, %error, "connection failed");
            self.reset_pair(key);
        }
    }

    fn reset_pair(&mut self, key: Key) {
        let Some(pair) = self.pairs.remove(key) else { return };
        pair.reset_on_close();
        // Closed when what is under way on them has ended.
        self.driver.cancel_all(&pair.client);
        if let Some(server) = &pair.server {
            self.driver.cancel_all(server);
        }
    }

    /// Both directions have ended in good order.
    pub(super) fn end_pair(&mut self, key: Key) {
        let Some(pair) = self.pairs.remove(key) else { return };
        debug!(client = %pair.peer, "connection ended");
        for (half, fd) in [(&pair.up, Some(&pair.client)), (&pair.down, pair.server.as_ref())] {
            if let (true, Some(fd)) = (half.guarded, fd) {
                self.driver.cancel_all(fd);
            }
        }
    }
}
