//! The life of a tunnel: link established, hello done, peer going away, link ended. Links come from
//! the connector and from [`crate::worker::ingress`].

use std::io;

use tracing::{debug, info, warn};

use crate::cli::plan::Bulk;
use crate::io::driver::Driver;
use crate::io::link::Link;
use crate::io::net;
use crate::limits::KEEPALIVE_INTERVALS;
use crate::session::{Session, SessionConfig, TunnelError};
use crate::wire::{Decoder, Protocol};
use crate::worker::log_limit::Class;
use crate::worker::purpose::Purpose;
use crate::worker::token::Kind;
use crate::worker::tunnel::Tunnel;
use crate::worker::tunnel::lane::{Lane, Transform};
use crate::worker::{Drain, Key, Worker, counts};

impl<D: Driver> Worker<D> {
    /// Runs the timers of sessions and transforms that are due.
    pub(in crate::worker) fn tunnels_on_time(&mut self) {
        let mut due = std::mem::take(&mut self.cx.scratch);
        let now = self.cx.now;
        due.extend(
            self.tunnels
                .iter()
                .filter(|(_, tunnel)| tunnel.next_timeout().is_some_and(|at| at <= now))
                .map(|(key, _)| key),
        );
        for key in due.drain(..) {
            let Some(tunnel) = self.tunnels.get_mut(key) else { continue };
            if let Err(error) = tunnel.lane.transform.on_time(now) {
                self.drop_tunnel(key, &error.to_string());
                continue;
            }
            match tunnel.session_mut().on_time(now) {
                Ok(()) => self.tunnels.mark(key),
                Err(error) => {
                    let reason = self.explain(&error);
                    self.drop_tunnel(key, &reason);
                }
            }
        }
        // Put back only now: dropping a tunnel uses the scratch list itself.
        self.cx.scratch = due;
    }

    /// Begins a tunnel over an established link. `None`: too many tunnels.
    pub(in crate::worker) fn begin_tunnel(&mut self, link: Link) -> Option<Key> {
        let dead_after = self.cx.plan.timeouts.keepalive.map(|every| every * KEEPALIVE_INTERVALS);
        link.set_up(&self.cx.congestion, dead_after);
        let transform = Transform::of(&link, self.cx.now);
        let mut config = SessionConfig {
            awaits_peer: link.may_await_peer(),
            answer_suffices: link.has_no_end(),
            ..self.session_config()
        };
        if let Some(frame_bytes_max) = transform.frame_bytes_max() {
            config.frame_bytes_max = frame_bytes_max;
            if let Some(offer) = &mut config.offer {
                offer.checked_line = link.line().is_some_and(|(_, checked)| checked);
            }
        }
        let newest = config.offer.map_or(0, |offer| offer.newest);
        let session = Session::new(config, self.cx.now);
        let copy_only = self.cx.plan.soxconf.bulk == Bulk::Copy;
        let decoder = Decoder::new(newest);
        let tunnel = Tunnel {
            lane: Lane::new(link, transform, decoder, copy_only, self.cx.now),
            session,
            packed: None,
            dirty: false,
            began: self.cx.now,
            heard: false,
            ended_in_order: false,
        };
        let Some(key) = self.tunnels.table.insert(tunnel) else {
            if self.cx.may_log(Class::Stranger) {
                warn!("persistent connection refused: too many are open");
            }
            return None;
        };
        if let Some(Tunnel { lane: Lane { link, .. }, .. }) = self.tunnels.get(key) {
            debug!(peer = %link, "persistent connection");
            if let Some(output) = link.lone_output() {
                self.cx.driver.poll(output, 0, false, Kind::LinkBroken.of(key));
            }
        }
        self.read_link(key);
        self.tunnels.mark(key);
        Some(key)
    }

    /// The peer no longer reads the link.
    pub(in crate::worker) fn link_broken(&mut self, key: Key, events: io::Result<u32>) {
        let Some(Tunnel { lane: Lane { link, .. }, .. }) = self.tunnels.get(key) else { return };
        // If the peer is gone in both directions, the input reports it after the remaining data.
        if events.is_ok() && link.output().is_some() && !net::is_hung_up(link.input()) {
            self.drop_tunnel(key, "the peer reads no more");
        }
    }

    /// The peer has closed its side of the link.
    pub(in crate::worker) fn link_ended(&mut self, key: Key) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let in_order = tunnel.session.is_up() && tunnel.session.stream_count() == 0;
        tunnel.ended_in_order = in_order;
        if let Some(connector) = &mut self.connector {
            connector.tunnel_ended(in_order);
        }
        self.drop_tunnel(key, "the peer closed the connection");
    }

    /// Ends a tunnel and resets its streams.
    pub(in crate::worker) fn drop_tunnel(&mut self, key: Key, reason: &str) {
        let Some(tunnel) = self.tunnels.table.remove(key) else { return };
        let was_up = tunnel.session.is_up();
        self.log_end(&tunnel, reason);
        let counters = tunnel.session.counters();
        counts::log_tunnel_counts(counters);
        self.cx.counters.past_bytes_in += counters.payload_bytes_in;
        self.cx.counters.past_bytes_out += counters.payload_bytes_out;
        tunnel.lane.link.shut_down();
        self.cx.driver.cancel_all(tunnel.lane.link.input());
        if let Some(output) = tunnel.lane.link.lone_output() {
            self.cx.driver.cancel_all(output);
        }
        self.withdraw(key);
        let mut orphans = std::mem::take(&mut self.cx.scratch);
        orphans.extend(
            self.conns
                .iter()
                .filter(|(_, conn)| conn.tunnel == key && conn.stream.is_some())
                .map(|(key, _)| key),
        );
        for conn in orphans.drain(..) {
            self.reset_conn(conn);
        }
        self.cx.scratch = orphans;
        self.datagrams.forget_flows_of(&mut self.cx, key);
        if self.drain == Drain::No
            && let Some(connector) = self.connector.as_mut().filter(|connector| connector.has(key))
        {
            connector.redial(&mut self.cx, was_up.then_some(tunnel.began));
        }
        self.begin_loopback();
    }

    /// Begins the tunnel of the connector's new link.
    pub(in crate::worker) fn begin_connector_tunnel(&mut self, link: Link) {
        let tunnel = self.begin_tunnel(link);
        if let Some(connector) = &mut self.connector {
            connector.tunnel_begun(&mut self.cx, tunnel);
        }
    }

    /// The reason shown to the user for the end of a tunnel.
    fn explain(&self, error: &TunnelError) -> String {
        let by_command = self.connector.as_ref().is_some_and(|c| c.process().is_some());
        match error {
            TunnelError::HelloTimeout { seconds } if by_command => format!(
                "the command has not answered with a hello in {seconds} s (TIMEOUT=acc): is \
                 sockmux-uring -Fsockmux at its other end?"
            ),
            _ => error.to_string(),
        }
    }

    /// Withdraws a tunnel from new clients. If it was the last one, clients wait from now on.
    fn withdraw(&mut self, key: Key) {
        let before = self.tunnels.up.len();
        self.tunnels.up.retain(|&up| up != key);
        if self.tunnels.up.is_empty() && before > 0 {
            self.hold_clients();
        }
    }

    /// Logs the end of a tunnel, within the rate limit and only if it is news.
    fn log_end(&mut self, tunnel: &Tunnel, reason: &str) {
        let (peer, session) = (&tunnel.lane.link, &tunnel.session);
        let streams = session.stream_count();
        if matches!(self.drain, Drain::Leaving(_)) {
            debug!(%peer, reason, "tunnel closed");
        } else if session.is_up() {
            // An original cannot announce that it leaves: it closes when it is done.
            let announced = session.peer_is_leaving() || session.protocol() == Protocol::V03;
            if !self.cx.may_log(Class::Tunnel) {
                debug!(%peer, reason, streams, "tunnel down");
            } else if announced && tunnel.ended_in_order {
                info!(%peer, reason, streams, "tunnel down");
            } else {
                warn!(%peer, reason, streams, "tunnel down");
            }
        } else if let Some(connector) = &mut self.connector {
            if connector.fails_as_before(reason) || !self.cx.may_log(Class::Tunnel) {
                debug!(%peer, reason, "tunnel did not come up");
            } else {
                warn!(%peer, reason, "tunnel did not come up");
            }
        } else if !tunnel.heard && net::peer_has_ended(tunnel.lane.link.input()) {
            // Health checks do this.
            self.cx.count_silent();
            debug!(%peer, reason, "tunnel did not come up");
        } else if self.cx.may_log(Class::Stranger) {
            warn!(%peer, reason, "tunnel did not come up");
        } else {
            debug!(%peer, reason, "tunnel did not come up");
        }
    }

    /// The hello is done: streams may begin.
    pub(in crate::worker) fn tunnel_up(&mut self, key: Key, ours: bool, protocol: Protocol) {
        if let Err(reason) = self.count_service(Purpose::Receptor) {
            return self.drop_tunnel(key, &reason);
        }
        let loopback = self.is_loopback();
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let peer_kind = if ours { "sockmux-uring" } else { "original" };
        let protocol = match protocol {
            Protocol::V03 => "0.3",
            Protocol::V1 => "1",
        };
        if !loopback && self.cx.log_limit.allow(Class::Tunnel, self.cx.now) {
            info!(peer = %tunnel.lane.link, protocol, peer_kind, "tunnel up");
        } else {
            debug!(peer = %tunnel.lane.link, protocol, peer_kind, "tunnel up");
        }
        if let Some(connector) = &mut self.connector {
            connector.tunnel_up();
        }
        if self.drain != Drain::No {
            tunnel.session.refuse_new("going away");
        }
        if loopback && !self.tunnels.up.is_empty() {
            // Both ends of the loopback come up here; clients need one of them, and there is no
            // other peer to try.
            return;
        }
        self.warn_takeover(key);
        self.tunnels.up.push(key);
        self.start_accepting(Purpose::Entrance);
        self.serve_waiting_clients();
    }

    /// Warns that clients now use a newer tunnel: anyone who can connect here can take over the
    /// clients, so the owner must know.
    fn warn_takeover(&mut self, newest: Key) {
        let Some(&before) = self.tunnels.up.last() else { return };
        if !self.has_entrances() || !self.cx.may_log(Class::Tunnel) {
            return;
        }
        let name = |key| {
            let tunnel: &Tunnel = self.tunnels.get(key)?;
            Some(format!("{} ({})", tunnel.lane.link, tunnel.lane.decoder.peer_name()))
        };
        let (Some(newest), Some(before)) = (name(newest), name(before)) else { return };
        warn!(
            peer = newest,
            before,
            "clients go through this newer tunnel from now on, and through the one before \
             only where its peer has no exit or no room for them"
        );
    }

    /// Whether there are entrances whose streams use a tunnel.
    fn has_entrances(&self) -> bool {
        self.ingress.has_entrances() || self.datagrams.has_entrances()
    }

    /// The peer takes no new streams. Clients use another tunnel or wait for one; this tunnel stays
    /// until its streams end.
    pub(in crate::worker) fn tunnel_leaves(&mut self, key: Key) {
        let loopback = self.is_loopback();
        let Some(tunnel) = self.tunnels.get(key) else { return };
        let streams = tunnel.session.stream_count();
        if !loopback && self.cx.log_limit.allow(Class::Tunnel, self.cx.now) {
            info!(peer = %tunnel.lane.link, streams, "the peer is going away");
        }
        let began = tunnel.began;
        self.withdraw(key);
        if self.drain == Drain::No
            && let Some(connector) = &mut self.connector
        {
            connector.dial_next(&mut self.cx, key, began);
        }
    }

    pub(in crate::worker) fn refuse_new_streams(&mut self) {
        // All tunnels, including those whose peers are going away.
        let is_up = |&(_, tunnel): &(Key, &Tunnel)| tunnel.session.is_up();
        let up: Vec<Key> = self.tunnels.iter().filter(is_up).map(|(key, _)| key).collect();
        for key in up {
            if let Some(tunnel) = self.tunnels.get_mut(key) {
                tunnel.session.refuse_new("going away");
                // Marked so that the peer learns of it now and not with the next frame.
                self.tunnels.mark(key);
            }
        }
    }
}
