//! Questions of operators: what each plane tells of itself is put together here. One turn answers one
//! question, and a question looks at a bounded number of entries.

use crate::control::page::{Ask, Part};
use crate::control::status::{ProcessStatus, Refusals, Status, Totals};
use crate::io::driver::Driver;
use crate::worker::context::{Cx, Drain};
use crate::worker::datagram::Datagrams;
use crate::worker::ingress::Ingress;
use crate::worker::relay::Relay;
use crate::worker::stream::Streams;

/// Answers a question. `None`: it is to drain.
pub(super) fn answer<D: Driver>(
    ask: Ask,
    cx: &mut Cx<D>,
    streams: &mut Streams,
    (ingress, datagrams, relay): (&Ingress, &Datagrams, &Relay),
) -> Option<Part> {
    Some(match ask {
        Ask::Status => Part::Status(Box::new(status(cx, streams, datagrams, relay))),
        Ask::Tunnels(from) => {
            let (rows, next) = streams.tunnels().rows(cx.now, from);
            Part::Tunnels(rows, next)
        }
        Ask::Entrances(from) => {
            let (mut rows, next) = ingress.rows(cx, streams, from);
            if next.is_none() {
                let (is_up, drains) = (!streams.tunnels().up().is_empty(), cx.drain != Drain::No);
                rows.extend(datagrams.rows(is_up, drains));
                rows.extend(ingress.rows_at_peer(cx, streams));
            }
            Part::Entrances(rows, next)
        }
        Ask::Streams(from) => {
            let (rows, next) = streams.rows(cx.now, from);
            Part::Streams(rows, next)
        }
        Ask::KillTunnel(number) => Part::Killed(streams.kill_tunnel(cx, number), None),
        Ask::KillPeer(peer) => Part::Killed(streams.kill_peer(cx, &peer), None),
        Ask::KillStream(number, from) => {
            let (found, next) = streams.kill_stream(cx, number, from);
            Part::Killed(usize::from(found), next)
        }
        Ask::Drain => return None,
    })
}

/// All that is no list. The payload of tunnels that there are is in their rows.
fn status<D: Driver>(
    cx: &Cx<D>,
    streams: &Streams,
    datagrams: &Datagrams,
    relay: &Relay,
) -> Status {
    let counters = &cx.counters;
    let process = ProcessStatus {
        uptime_secs: cx.now.0 / 1_000_000,
        engine: cx.driver.name().to_owned(),
        draining: cx.drain != Drain::No,
        ..ProcessStatus::default()
    };
    let refusals = Refusals {
        silent_peers: counters.silent,
        unexpected_clients: counters.strangers,
        buffers_used_up: counters.spill_exhausted,
        flows_evicted: counters.flows_evicted,
    };
    let given_up = counters.pipe_full + counters.splice_refused + cx.buffers.pipes.refused;
    let totals = Totals {
        streams: streams.conn_count() as u64,
        flows: datagrams.len() as u64,
        pairs: relay.len() as u64,
        streams_ever: counters.past_streams + streams.tunnels().streams_ever(),
        bytes_in: counters.past_bytes_in,
        bytes_out: counters.past_bytes_out,
        relayed_up_bytes: counters.relayed_up,
        relayed_down_bytes: counters.relayed_down,
        spliced_from_sockets_bytes: counters.spliced_from_local,
        spliced_to_sockets_bytes: counters.spliced_to_local,
        copied_bytes: cx.buffers.copied_bytes(),
        splice_fallbacks: given_up,
        resumptions: counters.resumed,
        datagrams_in: counters.datagrams_in,
        datagrams_out: counters.datagrams_out,
        datagrams_dropped: counters.datagrams_dropped,
        refusals,
    };
    let connector = streams.connector().map(|connector| connector.status(cx.now));
    Status { process, connector, totals, ..Status::default() }
}
