//! What operators are told of listeners by the control socket.

use crate::control::page::Next;
use crate::control::status::EntranceRow;
use crate::io::driver::Driver;
use crate::limits::CONTROL_PAGE_ROWS;
use crate::worker::context::{Cx, Drain};
use crate::worker::ingress::Ingress;
use crate::worker::ingress::asked::shown;
use crate::worker::ingress::listeners::Listener;
use crate::worker::purpose::Purpose;
use crate::worker::stream::Streams;

impl Ingress {
    /// Some listeners, from this slot on.
    pub(in crate::worker) fn rows<D: Driver>(
        &self,
        cx: &Cx<D>,
        streams: &Streams,
        from: usize,
    ) -> (Vec<EntranceRow>, Next) {
        let (listeners, next) = self.listeners.page(from, CONTROL_PAGE_ROWS);
        let rows = listeners.map(|(_, listener)| self.row(cx, streams, listener));
        (rows.collect(), next)
    }

    fn row<D: Driver>(&self, cx: &Cx<D>, streams: &Streams, listener: &Listener) -> EntranceRow {
        let kind = match listener.purpose() {
            Purpose::Receptor => "receptor",
            Purpose::Entrance => "entrance",
            Purpose::Relay => "relay",
        };
        // Without room clients may be accepted as well, and are reset.
        let is_entrance = listener.purpose() == Purpose::Entrance;
        let open = listener.is_accepting() && (!is_entrance || streams.has_room());
        let why = if open { None } else { self.why_closed(cx, streams, listener) };
        EntranceRow { address: listener.place(), kind: kind.to_owned(), open, why }
    }

    fn why_closed<D: Driver>(
        &self,
        cx: &Cx<D>,
        streams: &Streams,
        listener: &Listener,
    ) -> Option<String> {
        let why = match () {
            () if cx.drain != Drain::No || listener.is_closing() => "the process drains",
            () if self.opens_later => "the old process accepts there until it is taken over from",
            () if listener.is_paused() || cx.dials_are_short() => "descriptors are short",
            () if listener.purpose() == Purpose::Entrance && streams.newest_limit().is_none() => {
                "no tunnel is up"
            }
            () if listener.purpose() == Purpose::Entrance && !streams.has_room() => {
                "no tunnel has room for a stream"
            }
            () => return None,
        };
        Some(why.to_owned())
    }

    /// Those that the peer is asked for.
    pub(in crate::worker) fn rows_at_peer<D: Driver>(
        &self,
        cx: &Cx<D>,
        streams: &Streams,
    ) -> Vec<EntranceRow> {
        let is_up = streams.tunnels().up().contains(&self.wanted.tunnel);
        let asked = (0..).zip(&cx.plan.entrances_at_peer);
        let rows = asked.map(|(request, &(transport, at))| EntranceRow {
            address: shown(at, transport),
            kind: "entrance at peer".to_owned(),
            open: is_up && self.wanted.is_open(request),
            why: match is_up {
                true => self.wanted.why_not(request),
                false => Some("no tunnel is up".to_owned()),
            },
        });
        rows.collect()
    }
}
