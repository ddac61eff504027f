//! What operators are told of tunnels, by the log and by the control socket, and what they end.

use tracing::info;

use crate::control::page::Next;
use crate::control::status::TunnelRow;
use crate::io::driver::Driver;
use crate::limits::{CONTROL_PAGE_ROWS, STATE_TUNNELS_MAX};
use crate::narrow;
use crate::session::Moment;
use crate::wire::Protocol;
use crate::worker::context::Cx;
use crate::worker::stream::Streams;
use crate::worker::stream::tunnel::tls::Tls;
use crate::worker::stream::tunnel::{Tunnel, Tunnels};
use crate::worker::table::Key;

impl Tunnels {
    /// Logs each tunnel, up to a maximum; returns the total payload in and out.
    pub(in crate::worker) fn log_state(&self, now: Moment) -> (u64, u64) {
        let (mut bytes_in, mut bytes_out) = (0, 0);
        for (logged, (key, tunnel)) in self.table.iter().enumerate() {
            let counters = tunnel.session.counters();
            bytes_in += counters.payload_bytes_in;
            bytes_out += counters.payload_bytes_out;
            if logged < STATE_TUNNELS_MAX {
                info!(
                    tunnel = key.number(),
                    peer = %tunnel.lane.link,
                    up = tunnel.session.is_up(),
                    streams = tunnel.session.stream_count(),
                    bytes_in = counters.payload_bytes_in,
                    bytes_out = counters.payload_bytes_out,
                    link_bytes_in = tunnel.lane.read_bytes,
                    link_bytes_out = tunnel.lane.framed_bytes,
                    secs = (now.0 - tunnel.began.0) / 1_000_000,
                    "state of a tunnel"
                );
            }
        }
        (bytes_in, bytes_out)
    }

    /// Some tunnels, from this slot on.
    pub(in crate::worker) fn rows(&self, now: Moment, from: usize) -> (Vec<TunnelRow>, Next) {
        let (tunnels, next) = self.table.page(from, CONTROL_PAGE_ROWS);
        (tunnels.map(|(key, tunnel)| tunnel.row(key, now)).collect(), next)
    }

    /// Streams and flows in all tunnels that there are, since their beginning.
    pub(in crate::worker) fn streams_ever(&self) -> u64 {
        let counters =
            self.up.iter().filter_map(|&key| Some(self.table.get(key)?.session.counters()));
        counters.map(|counters| counters.opened + counters.accepted).sum()
    }
}

impl Tunnel {
    fn row(&self, key: Key, now: Moment) -> TunnelRow {
        let (session, lane) = (&self.session, &self.lane);
        let of_tls = lane.transform.tls().and_then(Tls::peer);
        let protocol = match session.protocol() {
            Protocol::V03 => "0.3",
            Protocol::V1 => "1",
        };
        TunnelRow {
            tunnel: key.number(),
            up: session.is_up(),
            peer: lane.link.to_string(),
            name: of_tls.and_then(|(peer, _)| peer.name.clone()),
            peer_key: of_tls.map(|(peer, _)| peer.fingerprint.clone()),
            cipher: of_tls.and_then(|(_, suite)| suite.as_str()).map(str::to_owned),
            protocol: session.is_up().then(|| protocol.to_owned()),
            age_secs: secs(self.began, now),
            rtt_micros: session.round_trip().map(narrow::micros),
            bytes_in: session.counters().payload_bytes_in,
            bytes_out: session.counters().payload_bytes_out,
            streams: session.stream_count() as u64,
            resumptions: self.resumptions,
            retained_bytes: lane.retained.len_bytes() as u64,
            suspended_secs: self.suspended.as_ref().map(|suspended| secs(suspended.since, now)),
        }
    }

    /// Whether it is of this peer: by name, or by key.
    fn is_of(&self, peer: &str) -> bool {
        let of_tls = self.lane.transform.tls().and_then(Tls::peer);
        of_tls.is_some_and(|(who, _)| who.name.as_deref() == Some(peer) || who.fingerprint == peer)
    }
}

impl Streams {
    /// The operator ends a tunnel, by its number. Returns how many there were.
    pub(in crate::worker) fn kill_tunnel<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        number: u32,
    ) -> usize {
        self.kill_tunnels(cx, |key, _| key.number() == number)
    }

    /// The operator ends the tunnels of a peer.
    pub(in crate::worker) fn kill_peer<D: Driver>(&mut self, cx: &mut Cx<D>, peer: &str) -> usize {
        self.kill_tunnels(cx, |_, tunnel| tunnel.is_of(peer))
    }

    fn kill_tunnels<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        is_meant: impl Fn(Key, &Tunnel) -> bool,
    ) -> usize {
        let meant = self.tunnels.table.iter().filter(|(key, tunnel)| is_meant(*key, tunnel));
        let keys: Vec<Key> = meant.map(|(key, _)| key).collect();
        for &key in &keys {
            self.drop_tunnel(cx, key, "ended by the operator");
        }
        keys.len()
    }
}

fn secs(since: Moment, now: Moment) -> u64 {
    now.0.saturating_sub(since.0) / 1_000_000
}
