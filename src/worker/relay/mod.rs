//! The plain relay, without a tunnel: each accepted client is joined with a server dialled for it.
//! The plane owns the table of pairs. Clients come from [`crate::worker::ingress`], joined streams
//! from the loopback of [`crate::worker::stream::tunnel`].
//!
//! [`half`] moves the bytes of each direction of a [`pair`], [`broken`] delivers what a broken side
//! had sent.

mod broken;
mod half;
mod pair;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tracing::debug;

use self::pair::{Input, Pair};
use crate::io::driver::{Driver, Fd, Outcome};
use crate::io::net;
use crate::policy::connection_limits::LimitGuard;
use crate::policy::routing;
use crate::worker::access_entry::{AccessEntry, Side};
use crate::worker::buffers;
use crate::worker::context::Cx;
use crate::worker::context::dialer::dial::{DialError, Owner, Permission, Request};
use crate::worker::log_ids::LogIds;
use crate::worker::table::{Key, Table};
use crate::worker::token::Kind;
use crate::worker::way::Way;

/// All pairs of client and server.
pub(in crate::worker) struct Relay {
    pairs: Table<Pair>,
}

const TOO_MANY: &str = "too many connections are open here";

impl Relay {
    /// For so many pairs at the most.
    pub(in crate::worker) fn new(max: usize) -> Relay {
        Relay { pairs: Table::new(max) }
    }

    /// Number of pairs.
    pub(in crate::worker) fn len(&self) -> usize {
        self.pairs.len()
    }

    /// How many more pairs there may be.
    pub(in crate::worker) fn room(&self) -> usize {
        self.pairs.room()
    }

    /// Makes the close of all sockets a reset, at the end of the run.
    pub(in crate::worker) fn reset_all(&mut self) {
        for (_, pair) in self.pairs.iter_mut() {
            pair.entry.drained();
            pair.reset_on_close();
        }
    }

    /// Takes over a client and a server that are connected.
    pub(in crate::worker) fn join<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        peer: SocketAddr,
        (client, server): (Fd, Fd),
        (limit_guard, entry): (Option<LimitGuard>, AccessEntry),
    ) {
        let mut pair = Pair::new(peer, client, cx.now);
        pair.server = Some(server);
        pair.entry = entry;
        pair.limit_guard = limit_guard;
        if let Some(key) = self.pairs.insert(pair) {
            debug!(pair = key.number(), client = %peer, "client and server are joined");
            self.advance_half(cx, key, Way::Up);
            self.advance_half(cx, key, Way::Down);
        }
    }

    /// Whether a direction still waits for a buffer.
    pub(in crate::worker) fn is_waiting(&mut self, key: Key, way: Way) -> bool {
        let half = self.pairs.get_mut(key).and_then(|pair| pair.half(way));
        half.is_some_and(|(half, ..)| half.input == Input::Starved)
    }

    /// Handles a completion of a pair.
    #[inline]
    pub(in crate::worker) fn on_completion<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        kind: Kind,
        key: Key,
        outcome: Outcome,
    ) {
        match (kind, outcome) {
            (Kind::UpReady, Outcome::Polled(events)) => self.half_ready(cx, key, Way::Up, events),
            (Kind::DownReady, Outcome::Polled(events)) => {
                self.half_ready(cx, key, Way::Down, events)
            }
            (Kind::UpReceive, Outcome::Received(got)) => self.half_received(cx, key, Way::Up, got),
            (Kind::DownReceive, Outcome::Received(got)) => {
                self.half_received(cx, key, Way::Down, got);
            }
            (Kind::UpSend, Outcome::Sent { result, gather }) => {
                self.half_sent(cx, key, Way::Up, result, gather);
            }
            (Kind::DownSend, Outcome::Sent { result, gather }) => {
                self.half_sent(cx, key, Way::Down, result, gather);
            }
            (Kind::UpRoom, Outcome::Polled(_)) => self.half_has_room(cx, key, Way::Up),
            (Kind::DownRoom, Outcome::Polled(_)) => self.half_has_room(cx, key, Way::Down),
            (Kind::UpBroken, Outcome::Polled(events)) => self.half_broken(cx, key, Way::Up, events),
            (Kind::DownBroken, Outcome::Polled(events)) => {
                self.half_broken(cx, key, Way::Down, events);
            }
            (kind, outcome) => {
                debug_assert!(false, "{kind:?} completed with {outcome:?}");
                cx.counters.stale += 1;
            }
        }
    }

    /// A client was accepted at this address: dials its server.
    pub(in crate::worker) fn on_client<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        client: Fd,
        at: SocketAddr,
    ) {
        let peer = net::peer_address(&client);
        if cx.buffers.are_low() {
            return cx.reject(&client, peer, buffers::ARE_LOW);
        }
        let target = match routing::relay_target(&cx.plan, at) {
            Ok(target) => target,
            Err(reason) => return cx.reject(&client, peer, &reason),
        };
        let limit_guard = match cx.connection_limits.acquire(Some(peer.ip())) {
            Ok(limit_guard) => limit_guard,
            Err(reason) => return cx.reject(&client, peer, &reason),
        };
        net::set_up_local(&client);
        cx.congestion.set_after(&client);
        let Some(key) = self.pairs.insert(Pair::new(peer, Rc::clone(&client), cx.now)) else {
            net::reset_on_close(&client);
            cx.note_refused(None, "pair", Side::Entrance, &peer, TOO_MANY);
            cx.log_refused(peer, TOO_MANY);
            return;
        };
        debug!(pair = key.number(), client = %peer, "client");
        if let Some(pair) = self.pairs.get_mut(key) {
            pair.entry = cx.entry_of_client("pair", key, peer, || at.to_string());
            pair.entry.server_is(&target);
        }
        let overall = cx.plan.timeouts.connect.map(|connect| cx.now.after(connect));
        let mut request = Request::new(Owner::Pair(key), target, overall);
        request.permission = Permission::NotOwn;
        let dial = cx.dial(request);
        if let Some(pair) = self.pairs.get_mut(key) {
            pair.limit_guard = limit_guard;
            pair.dial = dial;
        }
        if dial.is_none() {
            self.refused(key, TOO_MANY);
            self.reset_pair(cx, key);
            cx.log_refused_of(LogIds::pair(key), peer, TOO_MANY);
        }
    }

    /// The dial for a client's server has ended.
    pub(in crate::worker) fn on_dialled<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        result: Result<Fd, DialError>,
    ) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        pair.dial = None;
        match result {
            Ok(server) => {
                pair.entry.server_at(net::peer_address(&server));
                pair.server = Some(server);
                pair.last_data = cx.now;
                self.advance_half(cx, key, Way::Up);
                self.advance_half(cx, key, Way::Down);
            }
            Err(error) => {
                let (peer, reason) = (pair.peer, error.to_string());
                self.refused(key, &reason);
                self.reset_pair(cx, key);
                cx.log_refused_of(LogIds::pair(key), peer, &reason);
            }
        }
    }

    /// Ends pairs that were idle for too long, and broken pairs that are done. Dials enforce
    /// `TIMEOUT=con`.
    pub(in crate::worker) fn sweep<D: Driver>(&mut self, cx: &mut Cx<D>) {
        let (now, idle) = (cx.now, cx.plan.timeouts.io);
        let is_silent = |pair: &Pair| {
            let over = idle.is_some_and(|idle| pair.last_data.after(idle) <= now);
            over && pair.dial.is_none()
        };
        let is_due = |pair: &Pair| pair.broken.is_some() || is_silent(pair);
        let due = self.pairs.iter().filter(|(_, pair)| is_due(pair)).map(|(key, _)| key);
        for key in due.collect::<Vec<_>>() {
            if !self.look_at_pair(cx, key) {
                self.pair_failed(cx, key, &io::Error::from(io::ErrorKind::TimedOut));
            }
        }
    }

    fn refused(&mut self, key: Key, reason: &str) {
        if let Some(pair) = self.pairs.get_mut(key) {
            pair.entry.refused_here(reason);
        }
    }

    /// Fails a pair: resets both sides at once.
    fn pair_failed<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, error: &io::Error) {
        if let Some(pair) = self.pairs.get_mut(key) {
            debug!(pair = key.number(), client = %pair.peer, %error, "connection failed");
            match error.kind() {
                io::ErrorKind::TimedOut => pair.entry.timed_out(None),
                _ => pair.entry.reset_here("out of buffers"),
            }
            self.reset_pair(cx, key);
        }
    }

    fn reset_pair<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(mut pair) = self.pairs.remove(key) else { return };
        if let Some(dial) = pair.dial {
            cx.forget_dial(dial, pair.limit_guard.take());
        }
        pair.reset_on_close();
        // The descriptors are closed when operations in flight on them have ended.
        cx.driver.cancel_all(&pair.client);
        if let Some(server) = &pair.server {
            cx.driver.cancel_all(server);
        }
    }

    /// Both directions have ended in order.
    fn end_pair<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(mut pair) = self.pairs.remove(key) else { return };
        pair.entry.closed();
        debug!(pair = key.number(), client = %pair.peer, "connection ended");
        for (half, fd) in [(&pair.up, Some(&pair.client)), (&pair.down, pair.server.as_ref())] {
            if let (true, Some(fd)) = (half.guarded, fd) {
                cx.driver.cancel_all(fd);
            }
        }
    }
}
