//! Backpressure at entrances: clients are accepted while a tunnel has room for another stream.
//!
//! An original allows 60 streams. Beyond that, and while no tunnel is up, clients wait in the
//! kernel's queue, which costs nothing. Clients accepted just before wait in
//! [`crate::worker::ingress::clients`] and go first. After `TIMEOUT=hold` without room, waiting and
//! new clients are reset.

use crate::io::driver::Driver;
use crate::limits::LISTEN_BACKLOG;
use crate::session::Session;
use crate::worker::purpose::Purpose;
use crate::worker::{Drain, Worker};

impl<D: Driver> Worker<D> {
    /// Whether any tunnel has room for another client.
    pub(in crate::worker) fn has_room(&self) -> bool {
        self.tunnels.up_sessions().any(Session::has_room)
    }

    /// Whether all tunnels together have room for more clients than fit into the queue of an
    /// entrance, so that accepting one at a time is not needed.
    pub(in crate::worker) fn has_room_for_many(&self) -> bool {
        let room: usize = self
            .tunnels
            .up_sessions()
            .map(|session| (session.streams_max() as usize).saturating_sub(session.stream_count()))
            .sum();
        room > LISTEN_BACKLOG as usize
    }

    /// Whether the hold time of clients has passed.
    pub(in crate::worker) fn hold_has_expired(&self) -> bool {
        self.ingress.clients_held
            && self.ingress.hold_deadline.is_some_and(|deadline| self.cx.now >= deadline)
    }

    /// Whether clients are accepted: to be served, or to be rejected.
    pub(in crate::worker) fn may_take_clients(&self) -> bool {
        self.has_room() || self.hold_has_expired()
    }

    /// Why a waiting client is reset.
    pub(in crate::worker) fn hold_reason(&self) -> String {
        let newest = self.tunnels.up().last().and_then(|&key| self.tunnels.get(key));
        match newest.map(|tunnel| tunnel.session().streams_max()) {
            None => String::from("the tunnel is down (TIMEOUT=hold has passed)"),
            Some(limit) => format!(
                "the peer takes {limit} streams at once, and as many are open \
                 (TIMEOUT=hold has passed)"
            ),
        }
    }

    /// Stops or resumes accepting at entrances, according to room.
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
