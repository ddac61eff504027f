//! The life of a tunnel: link established, hello done, peer going away, link ended. Links come from
//! the connector and from [`crate::worker::ingress`].

use std::io;
use std::net::IpAddr;

use tracing::{debug, info, warn};

use crate::cli::plan::{Bulk, PeerOptions};
use crate::io::driver::Driver;
use crate::io::link::Link;
use crate::io::net;
use crate::limits::{FRAME_BYTES, KEEPALIVE_INTERVALS, STREAMS_MAX};
use crate::session::{Session, SessionConfig, TunnelError};
use crate::wire::v03::{NO_HELLO_TEXT, Offer, hello_text};
use crate::wire::{Decoder, Protocol};
use crate::worker::context::counts;
use crate::worker::context::log_limit::Class;
use crate::worker::context::{Cx, Drain, Effect};
use crate::worker::stream::Streams;
use crate::worker::stream::tunnel::Tunnel;
use crate::worker::stream::tunnel::lane::{Lane, Transform};
use crate::worker::stream::tunnel::tls::Tls;
use crate::worker::table::Key;
use crate::worker::token::{Kind, StreamOwner};

/// What it may mean that a receptor closes a connection without a word.
const CLOSED_UNHEARD: &str = "before its hello: its RELIABLE= may not let in this host, which its \
                              log says with the words to add; or it has as many tunnels as it takes; \
                              or no receptor listens there";

/// Why a lane whose connection broke is over when the next one is up.
const LANE_UNKNOWN: &str = "the peer does not know the tunnel that broke any more: it was started anew, \
                            or has waited for as long as its TIMEOUT=resume says";

impl Streams {
    /// Runs the timers of sessions and transforms that are due.
    pub(in crate::worker) fn tunnels_on_time<D: Driver>(&mut self, cx: &mut Cx<D>) {
        self.tunnels.take_deadlines();
        let mut due = std::mem::take(&mut cx.scratch);
        let now = cx.now;
        due.extend(self.tunnels.deadlines.due(now));
        for key in due.drain(..) {
            let Some(tunnel) = self.tunnels.get_mut(key) else { continue };
            if tunnel.suspended.is_some() {
                self.end_if_not_back(cx, key);
                continue;
            }
            if let Err(error) = tunnel.lane.transform.on_time(now) {
                self.break_tunnel(cx, key, &error.to_string());
                continue;
            }
            match tunnel.session_mut().on_time(now) {
                Ok(()) => self.tunnels.mark(key),
                Err(error) => {
                    let reason = self.explain(&error);
                    self.break_tunnel(cx, key, &reason);
                }
            }
        }
        // Put back only now: dropping a tunnel uses the scratch list itself.
        cx.scratch = due;
    }

    /// Begins a tunnel over an established link. `None`: too many tunnels.
    pub(in crate::worker) fn begin_tunnel<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        link: Link,
    ) -> Option<Key> {
        if self.tunnels.are_too_many() && !self.drop_oldest_suspended(cx) {
            if cx.may_log(Class::Stranger) {
                warn!("persistent connection refused: too many are open");
            }
            return None;
        }
        set_up(cx, &link);
        let tunnel = new_tunnel(cx, link, session_config(cx));
        let key = self.tunnels.insert(tunnel)?;
        self.start_tunnel(cx, key);
        Some(key)
    }

    /// Begins a tunnel with a peer that has connected here: a stranger until its hello is complete.
    pub(in crate::worker) fn admit_stranger<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        link: Link,
        address: Option<IpAddr>,
    ) {
        let has_begun =
            |key| self.tunnels.get(key).is_some_and(|tunnel| tunnel.session.is_greeted());
        if let Some(key) = self.tunnels.strangers.in_the_way(address, has_begun) {
            self.drop_tunnel(cx, key, "others came, and its hello was not complete");
        }
        let config = SessionConfig { answers_hello: true, ..session_config(cx) };
        let tunnel = new_tunnel(cx, link, config);
        let key = self.tunnels.insert(tunnel).expect("strangers have room of their own");
        self.tunnels.strangers.insert(key, address);
        self.start_tunnel(cx, key);
    }

    fn start_tunnel<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let lane_hello = self.lane_hello(cx, key);
        if let Some(tunnel) = self.tunnels.get_mut(key) {
            if let Some(hello) = lane_hello {
                tunnel.session.offer_lane(hello);
            }
            let (link, id) = (&tunnel.lane.link, tunnel.lane.id);
            debug!(tunnel = key.number(), peer = %link, "persistent connection");
            if let Some(output) = link.lone_output() {
                cx.driver.poll(output, 0, false, Kind::LinkBroken.of(id));
            }
        }
        self.read_link(cx, key);
        self.tunnels.mark(key);
    }

    /// The peer no longer reads the link.
    pub(in crate::worker) fn link_broken<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        link: Key,
        events: io::Result<u32>,
    ) {
        let Some((key, tunnel)) = self.tunnels.of_link_mut(link) else { return };
        let link = &tunnel.lane.link;
        // If the peer is gone in both directions, the input reports it after the remaining data.
        if events.is_ok() && link.output().is_some() && !net::is_hung_up(link.input()) {
            self.break_tunnel(cx, key, "the peer reads no more");
        }
    }

    /// The peer has closed its side of the link.
    pub(in crate::worker::stream) fn link_ended<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let tls = tunnel.lane.transform.tls();
        let cut_off = tls.and_then(Tls::cut_off);
        let has_said_so = tls.is_some() && cut_off.is_none();
        let is_done = tunnel.session.is_up() && tunnel.session.stream_count() == 0;
        let in_order = is_done && cut_off.is_none();
        tunnel.ended_in_order = in_order;
        if let Some(connector) = &mut self.connector {
            connector.tunnel_ended(in_order);
        }
        let reason = cut_off.unwrap_or("the peer closed the connection");
        match has_said_so {
            true => self.drop_tunnel(cx, key, reason),
            false => self.break_tunnel(cx, key, reason),
        }
    }

    /// Ends a tunnel and resets its streams.
    pub(in crate::worker) fn drop_tunnel<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        reason: &str,
    ) {
        let Some(mut tunnel) = self.tunnels.remove(key) else { return };
        self.tunnels.strangers.remove(key);
        let was_up = tunnel.session.is_up();
        self.log_end(cx, (key, &tunnel), reason);
        let counters = tunnel.session.counters();
        counts::log_tunnel_counts(counters);
        if let Some(counters) = tunnel.lane.transform.tls().and_then(Tls::counters) {
            counts::log_key_counts(counters);
        }
        cx.counters.past_streams += counters.opened + counters.accepted;
        cx.counters.past_bytes_in += counters.payload_bytes_in;
        cx.counters.past_bytes_out += counters.payload_bytes_out;
        tunnel.lane.say_end(&mut cx.buffers);
        tunnel.lane.end(&mut cx.driver);
        tunnel.lane.retained.clear(&mut cx.buffers);
        self.withdraw(cx, key);
        end_entrances(cx, key, &tunnel.session);
        self.reset_streams_of(cx, (key, &tunnel.session), reason);
        if cx.drain == Drain::No
            && let Some(connector) = self.connector.as_mut().filter(|connector| connector.has(key))
        {
            connector.replace(cx, was_up.then_some(tunnel.began));
        }
        if self.connector.as_mut().is_some_and(|connector| connector.forget(key)) {
            self.beside_ended(cx);
        }
        self.begin_loopback(cx);
    }

    /// Resets what the streams of a tunnel that is gone lead to. What that costs does not depend on the
    /// streams of others.
    fn reset_streams_of<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        (tunnel, session): (Key, &Session),
        reason: &str,
    ) {
        let mut any_flow = false;
        for owner in session.users().map(StreamOwner::of) {
            let StreamOwner::Conn(key) = owner else {
                any_flow = true;
                continue;
            };
            let conn = self.conns.get_mut(key);
            let conn = conn.filter(|conn| conn.tunnel == tunnel && conn.stream.is_some());
            if let Some(conn) = conn {
                conn.entry.tunnel_lost(Some(reason));
                self.reset_conn(cx, key);
            }
        }
        if any_flow {
            cx.effects.push_back(Effect::TunnelGone(tunnel));
        }
    }

    /// Begins the tunnel of the connector's new link.
    pub(in crate::worker) fn begin_connector_tunnel<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        link: Link,
    ) {
        if !self.wants_link() {
            if let Some(connector) = &mut self.connector {
                connector.keep_old();
            }
            return;
        }
        let tunnel = self.begin_tunnel(cx, link);
        if let Some(connector) = &mut self.connector {
            connector.tunnel_begun(cx, tunnel);
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
    pub(super) fn withdraw<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        if self.tunnels.remove_up(key) {
            cx.effects.push_back(Effect::HoldClients);
        }
    }

    /// Logs the end of a tunnel, within the rate limit and only if it is news.
    fn log_end<D: Driver>(&mut self, cx: &mut Cx<D>, (key, ended): (Key, &Tunnel), reason: &str) {
        let (peer, session) = (&ended.lane.link, &ended.session);
        let (tunnel, streams) = (key.number(), session.stream_count());
        if matches!(cx.drain, Drain::Leaving(_)) {
            debug!(tunnel, %peer, reason, "tunnel closed");
        } else if session.is_up() {
            // An original cannot announce that it leaves: it closes when it is done.
            let announced = session.peer_is_leaving() || session.protocol() == Protocol::V03;
            if !cx.may_log(Class::Tunnel) {
                debug!(tunnel, %peer, reason, streams, "tunnel down");
            } else if (announced && ended.ended_in_order)
                || (ended.suspended.is_some() && streams == 0)
            {
                info!(tunnel, %peer, reason, streams, "tunnel down");
            } else {
                warn!(tunnel, %peer, reason, streams, "tunnel down");
            }
        } else if let Some(connector) = &mut self.connector {
            let unheard = !ended.heard && connector.dials() && net::peer_has_ended(peer.input());
            let explained = unheard.then(|| format!("{reason}, {CLOSED_UNHEARD}"));
            let reason = explained.as_deref().unwrap_or(reason);
            if connector.fails_as_before(reason) || !cx.may_log(Class::Tunnel) {
                debug!(tunnel, %peer, reason, "tunnel did not come up");
            } else {
                warn!(tunnel, %peer, reason, "tunnel did not come up");
            }
        } else if !ended.heard && net::peer_has_ended(ended.lane.link.input()) {
            // Health checks do this.
            cx.count_silent();
            debug!(tunnel, %peer, reason, "tunnel did not come up");
        } else if cx.may_log(Class::Stranger) {
            warn!(tunnel, %peer, reason, "tunnel did not come up");
        } else {
            debug!(tunnel, %peer, reason, "tunnel did not come up");
        }
    }

    /// The hello is done: streams may begin. Returns whether clients can use it. `has_entrances`:
    /// whether there are any whose clients would.
    pub(in crate::worker) fn tunnel_up<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        (ours, protocol): (bool, Protocol),
        has_entrances: bool,
    ) -> bool {
        if let Some(source) = self.tunnels.strangers.remove(key) {
            if self.tunnels.are_more_than_room() {
                self.drop_oldest_suspended(cx);
            }
            if let Some(reason) = self.tunnels.excess(source) {
                self.drop_tunnel(cx, key, reason);
                return false;
            }
            if let Some(tunnel) = self.tunnels.get_mut(key) {
                tunnel.source = Some(source);
                set_up(cx, &tunnel.lane.link);
            }
        }
        let loopback = cx.is_loopback();
        let Some(tunnel) = self.tunnels.get_mut(key) else { return false };
        let peer_kind = if ours { "sockmux-uring" } else { "original" };
        let protocol = match protocol {
            Protocol::V03 => "0.3",
            Protocol::V1 => "1",
        };
        let (number, peer) = (key.number(), &tunnel.lane.link);
        let of_tls = tunnel.lane.transform.tls().and_then(Tls::peer);
        let name = of_tls.and_then(|(peer, _)| peer.name.as_deref());
        let peer_key = of_tls.map(|(peer, _)| &*peer.fingerprint);
        let cipher = of_tls.and_then(|(_, suite)| suite.as_str());
        if !loopback && cx.log_limit.allow(Class::Tunnel, cx.now) {
            info!(tunnel = number, %peer, name, peer_key, cipher, protocol, peer_kind, "tunnel up");
        } else {
            debug!(tunnel = number, %peer, name, peer_key, cipher, protocol, peer_kind, "tunnel up");
        }
        // If this one was begun beside it.
        self.disclaim();
        let lost = self.connector.as_mut().and_then(|connector| connector.tunnel_up(key));
        if let Some(lost) = lost {
            self.drop_tunnel(cx, lost, LANE_UNKNOWN);
        }
        let Some(tunnel) = self.tunnels.get_mut(key) else { return false };
        let gets_clients = tunnel.stream_peer().options.is_none_or(PeerOptions::has_entrances);
        if cx.drain != Drain::No {
            tunnel.session.refuse_new("going away");
        }
        if loopback && !self.tunnels.up.is_empty() {
            // Both ends of the loopback come up here; clients need one of them, and there is no
            // other peer to try.
            return false;
        }
        if has_entrances && gets_clients {
            self.warn_takeover(cx, key);
        }
        self.tunnels.add_up(key);
        true
    }

    /// Warns that clients now use a newer tunnel: anyone who can connect here can take over the
    /// clients, so the owner must know.
    fn warn_takeover<D: Driver>(&mut self, cx: &mut Cx<D>, newest: Key) {
        let Some(&before) = self.tunnels.up.last() else { return };
        if !cx.may_log(Class::Tunnel) {
            return;
        }
        let name = |key| {
            let tunnel: &Tunnel = self.tunnels.get(key)?;
            Some(format!("{} ({})", tunnel.lane.link, tunnel.lane.decoder.peer_name()))
        };
        let (Some(peer), Some(before)) = (name(newest), name(before)) else { return };
        warn!(
            tunnel = newest.number(),
            peer,
            before,
            "clients go through this newer tunnel from now on, and through the one before \
             only where its peer has no exit or no room for them"
        );
    }

    /// The peer takes no new streams. Clients use another tunnel or wait for one; this tunnel stays
    /// until its streams end.
    pub(in crate::worker::stream) fn tunnel_leaves<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let loopback = cx.is_loopback();
        let Some(tunnel) = self.tunnels.get(key) else { return };
        let streams = tunnel.session.stream_count();
        if !loopback && cx.log_limit.allow(Class::Tunnel, cx.now) {
            info!(tunnel = key.number(), peer = %tunnel.lane.link, streams, "the peer is going away");
        }
        let began = tunnel.began;
        end_entrances(cx, key, &tunnel.session);
        self.withdraw(cx, key);
        if cx.drain == Drain::No
            && let Some(connector) = &mut self.connector
        {
            connector.dial_next(cx, key, began);
        }
    }

    pub(in crate::worker) fn refuse_new_streams<D: Driver>(&mut self, cx: &mut Cx<D>) {
        self.drop_suspended(cx);
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

/// The peer of a tunnel gets no more clients: entrances that it has asked for end.
fn end_entrances<D: Driver>(cx: &mut Cx<D>, key: Key, session: &Session) {
    if session.was_asked_for_entrances() {
        cx.effects.push_back(Effect::EntrancesOver(key));
    }
}

/// Sets what there is to set on the link of a tunnel.
pub(super) fn set_up<D: Driver>(cx: &Cx<D>, link: &Link) {
    let dead_after = cx.plan.timeouts.keepalive.map(|every| every * KEEPALIVE_INTERVALS);
    link.set_up(&cx.congestion, dead_after);
}

/// A tunnel at its beginning. What the link requires is added to the configuration of its session.
fn new_tunnel<D: Driver>(cx: &Cx<D>, link: Link, config: SessionConfig) -> Tunnel {
    let transform = Transform::of(&link, cx.encryption.as_deref(), cx.now);
    let mut config = SessionConfig {
        awaits_peer: link.may_await_peer(),
        answer_suffices: link.has_no_end(),
        ..config
    };
    if let Some(frame_bytes_max) = transform.frame_bytes_max() {
        config.frame_bytes_max = frame_bytes_max;
    }
    if let Some((_, checked)) = link.line() {
        // A line may echo, so the peer's HELLO must not be the same as ours.
        config.hello_text = hello_text(0, &format!("{:08x}", fastrand::u32(..)));
        if let Some(offer) = &mut config.offer {
            offer.checked_line = checked;
        }
    }
    let newest = config.offer.map_or(0, |offer| offer.newest);
    let copy_only = cx.plan.soxconf.bulk == Bulk::Copy;
    Tunnel {
        lane: Lane::new(link, transform, Decoder::new(newest), copy_only, cx.now),
        session: Session::new(config, cx.now),
        packed: None,
        dirty: false,
        touched: true,
        due: None,
        began: cx.now,
        link_began: cx.now,
        source: None,
        heard: false,
        deferred: None,
        ended_in_order: false,
        suspended: None,
        resumptions: 0,
    }
}

/// The configuration of a new session.
fn session_config<D: Driver>(cx: &Cx<D>) -> SessionConfig {
    let (plan, ceilings) = (&cx.plan, &cx.ceilings);
    let connections = u32::try_from(ceilings.connections).unwrap_or(u32::MAX);
    SessionConfig {
        hello_text: NO_HELLO_TEXT.to_owned(),
        answer_text: hello_text(net::wall_clock_micros(), &net::hostname()),
        packet_bytes: plan.soxconf.packet_bytes,
        first_data: plan.soxconf.first_data,
        frame_bytes_max: FRAME_BYTES,
        offer: Some(Offer {
            newest: plan.soxconf.newest_protocol,
            half_close: true,
            datagrams: true,
            checked_line: false,
            ports: true,
            entrances: true,
            window_bytes: ceilings.window_bytes(),
            streams_max: STREAMS_MAX.min(connections),
        }),
        lane: None,
        hello_timeout: plan.timeouts.hello,
        awaits_peer: false,
        answer_suffices: false,
        answers_hello: false,
        window_budget_bytes: ceilings.window_budget_bytes(),
        datagram_queue_bytes: ceilings.datagram_queue_bytes(),
        keepalive: plan.timeouts.keepalive,
        linger: plan.timeouts.linger,
    }
}
