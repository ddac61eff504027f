//! When clients are taken from the kernel's queue: while a tunnel has room for another stream.
//!
//! An original takes 60 streams at once. Beyond that clients wait, as they do while no tunnel is up: in
//! the kernel's queue, which costs nothing. Those that were accepted before it showed that there is no
//! room wait in [`crate::worker::ingress::clients`], and go first. After `TIMEOUT=hold` without room for anybody whoever
//! waits, or comes, is reset.

use crate::io::driver::Driver;
use crate::limits::LISTEN_BACKLOG;
use crate::session::Session;
use crate::worker::ingress::listeners::Purpose;
use crate::worker::{Drain, Worker};

impl<D: Driver> Worker<D> {
    /// Some tunnel takes another client.
    pub(in crate::worker) fn has_room(&self) -> bool {
        self.tunnels.up_sessions().any(Session::has_room)
    }

    /// All tunnels together take more clients than may wait at an entrance: they need not be accepted
    /// one by one.
    pub(in crate::worker) fn has_room_for_many(&self) -> bool {
        let room: usize = self
            .tunnels
            .up_sessions()
            .map(|session| (session.streams_max() as usize).saturating_sub(session.stream_count()))
            .sum();
        room > LISTEN_BACKLOG as usize
    }

    /// Clients have waited long enough.
    pub(in crate::worker) fn hold_is_over(&self) -> bool {
        self.ingress.clients_held
            && self.ingress.hold_deadline.is_some_and(|deadline| self.cx.now >= deadline)
    }

    /// Clients are taken from the queue: to be served, or to be told that nobody serves.
    pub(in crate::worker) fn may_take_clients(&self) -> bool {
        self.has_room() || self.hold_is_over()
    }

    /// Why a client is reset that has waited.
    pub(in crate::worker) fn why_held(&self) -> String {
        let newest = self.tunnels.up().last().and_then(|&key| self.tunnels.get(key));
        match newest.map(|tunnel| tunnel.session().streams_max()) {
            None => String::from("the tunnel is down (TIMEOUT=hold has passed)"),
            Some(limit) => format!(
                "the peer takes {limit} streams at once, and as many are open \
                 (TIMEOUT=hold has passed)"
            ),
        }
    }

    /// Stops and goes on accepting at entrances, as there is room.
    pub(in crate::worker) fn gate_entrances(&mut self) {
        if self.drain != Drain::No {
            return;
        }
        let (has_room, was_held) = (self.has_room(), self.ingress.clients_held);
        match (has_room, was_held) {
            (false, false) => self.hold_clients(),
            (true, true) => self.ingress.clients_held = false,
            _ => {}
        }
        if was_held && self.may_take_clients() {
            self.serve_waiting_clients();
            self.start_accepting(Purpose::Entrance);
        }
    }
}
