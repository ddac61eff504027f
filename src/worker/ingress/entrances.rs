//! Backpressure at entrances: clients are accepted while a tunnel has room for another stream.
//!
//! An original allows 60 streams. Beyond that, and while no tunnel is up, clients wait in the
//! kernel's queue, which costs nothing. Clients accepted just before wait in
//! [`super::clients`] and go first. After `TIMEOUT=hold` without room, waiting and
//! new clients are reset.

use crate::io::driver::Driver;
use crate::worker::context::{Cx, Drain};
use crate::worker::ingress::Ingress;
use crate::worker::purpose::Purpose;
use crate::worker::stream::Streams;

impl Ingress {
    /// Whether the hold time of clients has passed.
    pub(super) fn hold_has_expired<D: Driver>(&self, cx: &Cx<D>) -> bool {
        self.clients_held && self.hold_deadline.is_some_and(|deadline| cx.now >= deadline)
    }

    /// Whether clients are accepted: to be served, or to be rejected.
    pub(super) fn may_take_clients<D: Driver>(&self, cx: &Cx<D>, streams: &Streams) -> bool {
        streams.has_room() || self.hold_has_expired(cx) || self.outage.refuses(cx.now)
    }

    /// Why a waiting client is reset.
    pub(in crate::worker) fn hold_reason(&self, streams: &Streams) -> String {
        match streams.newest_limit() {
            None => String::from("the tunnel is down (TIMEOUT=hold has passed)"),
            Some(limit) => format!(
                "the peer takes {limit} streams at once, and as many are open \
                 (TIMEOUT=hold has passed)"
            ),
        }
    }

    /// Stops or resumes accepting at entrances, according to room. `is_handing_over`: a successor may take the
    /// listeners.
    pub(in crate::worker) fn gate_entrances<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        is_handing_over: bool,
    ) {
        if cx.drain != Drain::No {
            return;
        }
        self.look_for_outage(cx, streams, is_handing_over);
        let (has_room, was_held) = (streams.has_room(), self.clients_held);
        match (has_room, was_held) {
            (false, false) => self.hold_clients(cx),
            (true, true) => self.clients_held = false,
            _ => {}
        }
        if was_held && self.may_take_clients(cx, streams) {
            self.serve_waiting_clients(cx, streams);
            self.start_accepting(cx, streams, Purpose::Entrance);
        }
    }
}
