//! Lanes that outlive their connection: a tunnel whose connection broke keeps its session, and goes on when
//! the peer is there again.
//!
//! Both ends keep what they have sent and the other has not read ([`super::retained`]). Whoever connects
//! dials again, and says in its hello which lane it takes up and how far it has read that; the other end
//! answers alike. What the peer lacks is sent again, and the sessions go on as if nothing had been.

use tracing::{debug, info, warn};

use crate::io::driver::{Driver, Gather};
use crate::io::random;
use crate::limits::RESUME_AT_ONCE_MILLIS;
use crate::session::{Moment, TunnelError};
use crate::wire::v03::{LaneHello, LaneName, TakeUp};
use crate::worker::buffers::Buffers;
use crate::worker::context::log_limit::Class;
use crate::worker::context::{Cx, Drain};
use crate::worker::stream::tunnel::tls::Tls;
use crate::worker::stream::tunnel::{Tunnel, Tunnels};
use crate::worker::stream::{Flows, Streams};
use crate::worker::table::Key;

/// A tunnel without a connection.
#[derive(Debug)]
pub(super) struct Suspended {
    pub(super) since: Moment,
    /// It is over then.
    pub(super) until: Option<Moment>,
}

impl Tunnel {
    /// Whether another connection may come. One that leaves does not come back. A tunnel without streams
    /// waits as well: one may have been on its way here when the connection broke.
    fn may_resume<D: Driver>(&self, cx: &Cx<D>) -> bool {
        let session = &self.session;
        let leaves = session.is_leaving() || session.peer_is_leaving() || cx.drain != Drain::No;
        session.resumes() && !leaves
    }

    /// Drops what the peer has read of what is kept.
    pub(super) fn drop_read(&mut self, buffers: &mut Buffers) -> Result<(), TunnelError> {
        let position = self.session.acknowledged();
        if !self.lane.retained.covers(position) {
            let extra_bytes = position.abs_diff(self.session.sent());
            return Err(TunnelError::AckOverrun { extra_bytes });
        }
        self.lane.retained.drop_read(buffers, position);
        Ok(())
    }

    /// When its connection began, for the connector's patience: one that lasted for a moment is as good as
    /// one that lasted long.
    fn lasted_since(&self, now: Moment) -> Moment {
        let lasted = now.0.saturating_sub(self.link_began.0) >= RESUME_AT_ONCE_MILLIS * 1_000;
        if lasted { Moment(0) } else { self.link_began }
    }

    /// The peer's key, by its fingerprint, if its link is encrypted.
    fn key(&self) -> Option<&str> {
        let (peer, _) = self.lane.transform.tls().and_then(Tls::peer)?;
        Some(&peer.fingerprint)
    }
}

impl Tunnels {
    /// Takes a tunnel out whose link another tunnel gets.
    fn take_for(&mut self, heir: Key, key: Key) -> Option<Tunnel> {
        let mut tunnel = self.table.remove(key)?;
        self.deadlines.replace(key, &mut tunnel.due, None);
        self.lookers.remove(&key);
        *self.links.get_mut(tunnel.lane.id)? = heir;
        Some(tunnel)
    }

    /// Number of tunnels without a connection. It is counted.
    pub(in crate::worker) fn suspended_count(&self) -> usize {
        self.suspended().count()
    }

    /// Tunnels without a connection.
    fn suspended(&self) -> impl Iterator<Item = (Key, &Suspended)> {
        self.table.iter().filter_map(|(key, tunnel)| Some((key, tunnel.suspended.as_ref()?)))
    }
}

impl Streams {
    /// What the hello of a tunnel that begins says of lanes; `None`: its lane ends with its connection.
    pub(super) fn lane_hello<D: Driver>(&mut self, cx: &Cx<D>, key: Key) -> Option<LaneHello> {
        let can_come_back = self.connector.as_ref().is_none_or(|connector| connector.dials_again());
        let is_wanted = cx.plan.timeouts.resume.is_some() && !cx.is_loopback();
        if !is_wanted || !can_come_back || cx.buffers.pipes.null().is_none() {
            return None;
        }
        let own = LaneName { number: key.pack(), secret: random::secret()? };
        let broken = self.connector.as_ref().and_then(|connector| connector.to_take_up());
        let broken = broken.and_then(|broken| self.tunnels.get_mut(broken));
        let again = broken.filter(|tunnel| tunnel.may_resume(cx));
        Some(LaneHello { own, again: again.and_then(|tunnel| tunnel.session.claim()) })
    }

    /// The connection of a tunnel broke: the tunnel waits for another one if that can come, else it ends.
    pub(in crate::worker) fn break_tunnel<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        reason: &str,
    ) {
        let Some(tunnel) = self.tunnels.get(key) else { return };
        if tunnel.suspended.is_some() {
            return;
        }
        if !tunnel.may_resume(cx) || !self.suspend(cx, key, reason) {
            return self.drop_tunnel(cx, key, reason);
        }
        let Some(tunnel) = self.tunnels.get(key) else { return };
        let since = tunnel.lasted_since(cx.now);
        if let Some(connector) = self.connector.as_mut().filter(|connector| connector.has(key)) {
            connector.suspend(cx, key, since);
        }
    }

    /// Nothing comes from the peer of a tunnel, for which something waits.
    pub(in crate::worker::stream) fn link_doubted<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let may_resume = self.tunnels.get(key).is_some_and(|tunnel| tunnel.may_resume(cx));
        if let Some(connector) = self.connector.as_mut().filter(|connector| connector.has(key))
            && may_resume
        {
            connector.dial_beside(cx);
        }
    }

    /// Whether a new link of the connector is wanted: not beside that of a tunnel which is good again.
    pub(super) fn wants_link(&self) -> bool {
        let beside = self.connector.as_ref().and_then(|connector| connector.newest());
        let tunnel = beside.and_then(|key| self.tunnels.get(key));
        tunnel.is_none_or(|tunnel| tunnel.session.is_doubted())
    }

    /// A tunnel that was begun beside the newest one is over. If that one is doubted still, another is dialled.
    pub(super) fn beside_ended<D: Driver>(&mut self, cx: &mut Cx<D>) {
        self.disclaim();
        let is_wanted = self.wants_link();
        if let Some(connector) = &mut self.connector {
            match is_wanted {
                true => connector.dial_beside_again(cx.now),
                false => connector.keep_old(),
            }
        }
    }

    /// The newest tunnel stays on its connection.
    pub(super) fn disclaim(&mut self) {
        let newest = self.connector.as_ref().and_then(|connector| connector.newest());
        if let Some(tunnel) = newest.and_then(|key| self.tunnels.get_mut(key)) {
            tunnel.session.disclaim();
        }
    }

    /// Takes a tunnel off its connection. `false`: what was sent cannot be kept.
    fn suspend<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, reason: &str) -> bool {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return false };
        let Some(null) = cx.buffers.pipes.null().cloned() else { return false };
        tunnel.session.suspend();
        let lane = &mut tunnel.lane;
        lane.leave_link(&mut cx.driver, &mut cx.buffers, null);
        if let Some(outgoing) = &mut lane.outgoing {
            // It is kept, and will be sent from there.
            if cx.buffers.pipes.discard(&outgoing.pipe, outgoing.kept_bytes).is_err() {
                return false;
            }
            outgoing.sent(outgoing.kept_bytes);
        }
        if !lane.retained.settle(&mut cx.buffers) {
            return false;
        }
        let resume = cx.plan.timeouts.resume;
        let until = resume.map(|resume| cx.now.after(resume));
        tunnel.suspended = Some(Suspended { since: cx.now, until });
        let (link, streams) = (lane.id, tunnel.session.stream_count());
        let kept_bytes = lane.retained.len_bytes();
        if cx.may_log(Class::Tunnel) {
            let peer = &tunnel.lane.link;
            info!(
                tunnel = key.number(), %peer, reason, streams, kept_bytes,
                "the connection broke: its streams wait for another one"
            );
        } else {
            debug!(tunnel = key.number(), reason, streams, "the connection broke");
        }
        self.tunnels.links.remove(link);
        self.withdraw(cx, key);
        self.finish_outgoing(cx, key);
        // What its session has said meanwhile is dealt with.
        self.tunnels.mark(key);
        true
    }

    /// The connection of a tunnel has not come back in time.
    pub(super) fn end_if_not_back<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(Tunnel { suspended: Some(suspended), .. }) = self.tunnels.get(key) else { return };
        if suspended.until.is_some_and(|until| until <= cx.now) {
            let secs = cx.plan.timeouts.resume.map_or(0, |resume| resume.as_secs());
            let reason = format!("no other connection has come for {secs} s (TIMEOUT=resume)");
            self.drop_tunnel(cx, key, &reason);
            self.tunnels.note_change();
        }
    }

    /// This process leaves: nobody can come back to tunnels without a connection.
    pub(super) fn drop_suspended<D: Driver>(&mut self, cx: &mut Cx<D>) {
        let suspended: Vec<Key> = self.tunnels.suspended().map(|(key, _)| key).collect();
        for key in suspended {
            self.drop_tunnel(cx, key, "this process leaves, and its connection has not come back");
        }
    }

    /// Room for another tunnel: the one that has waited longest for its connection has to go. `false`: none
    /// waits.
    pub(super) fn drop_oldest_suspended<D: Driver>(&mut self, cx: &mut Cx<D>) -> bool {
        let oldest = self.tunnels.suspended().min_by_key(|(_, suspended)| suspended.since);
        let Some((key, _)) = oldest else { return false };
        self.drop_tunnel(
            cx,
            key,
            "too many tunnels are open, and its connection has not come back",
        );
        true
    }

    /// The hello of a tunnel takes up a lane. `true`: that is one of ours, the peer is the one it was with, and
    /// it goes on over this link. Else the tunnel begins as any other.
    pub(in crate::worker) fn on_take_up<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        new: Key,
        again: TakeUp,
    ) -> bool {
        let goes_on = self.take_up(cx, flows, new, again);
        if let Some(fresh) = self.tunnels.get_mut(new).filter(|_| !goes_on) {
            fresh.session.begin_anew();
            self.tunnels.mark(new);
        }
        goes_on
    }

    fn take_up<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        new: Key,
        again: TakeUp,
    ) -> bool {
        let key = Key::unpack(again.lane.number);
        let (Some(fresh), Some(tunnel)) = (self.tunnels.get(new), self.tunnels.get(key)) else {
            return false;
        };
        let refused = if !tunnel.session.is_lane(&again.lane) {
            Some("the secret is another one")
        } else if fresh.key() != tunnel.key() {
            Some("the peer has another key")
        } else if !tunnel.lane.retained.covers(again.position) {
            // So does one that was made before another one, and comes behind it.
            Some("it names a position that was never sent, or that the peer has passed")
        } else {
            (key == new || !tunnel.may_resume(cx)).then_some("that tunnel ends with its connection")
        };
        if let Some(reason) = refused {
            let peer = fresh.lane.link.to_string();
            if cx.may_log(Class::Stranger) {
                warn!(
                    tunnel = key.number(),
                    peer, reason, "a connection may not take up the tunnel"
                );
            }
            return false;
        }
        // The peer knows better whether the connection that it had is of any use.
        if tunnel.suspended.is_none() && !self.suspend(cx, key, "the peer has made another one") {
            self.drop_tunnel(cx, key, "what was sent to the peer cannot be kept");
            return false;
        }
        let Some(tunnel) = self.tunnels.get_mut(key) else { return false };
        let Some(answer) = tunnel.session.take_up() else { return false };
        self.move_lane(cx, (new, key), answer, again.position);
        self.go_on(cx, flows, key);
        self.tunnels.mark(key);
        true
    }

    /// The link of the first tunnel becomes that of the second, which is suspended.
    fn move_lane<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        (new, key): (Key, Key),
        answer: TakeUp,
        position: u64,
    ) {
        let source = self.tunnels.strangers.remove(new);
        let Some(mut fresh) = self.tunnels.take_for(key, new) else { return };
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let said = fresh.session.answer_take_up(answer);
        let skip_bytes = answer.position.saturating_sub(said);
        fresh.session.finish_hello();
        let mut first = Gather::new();
        while fresh.session.poll_transmit(&mut cx.buffers.head, true).is_some() {
            cx.buffers.write_head(&mut first);
        }
        let resumed = tunnel.session.resume(position, cx.now);
        assert!(resumed, "it is suspended, and covers the position");
        tunnel.lane.retained.drop_read(&mut cx.buffers, position);
        let resent_bytes = tunnel.lane.retained.len_bytes();
        tunnel.lane.go_on_over(first, fresh.lane, skip_bytes);
        tunnel.heard = true;
        tunnel.source = source.or(tunnel.source);
        tunnel.link_began = cx.now;
        tunnel.resumptions += 1;
        let since = tunnel.suspended.take().map_or(cx.now, |suspended| suspended.since);
        let paused_millis = (cx.now.0 - since.0) / 1_000;
        let (peer, streams) = (&tunnel.lane.link, tunnel.session.stream_count());
        if cx.log_limit.allow(Class::Tunnel, cx.now) {
            info!(
                tunnel = key.number(), %peer, streams, paused_millis, resent_bytes,
                "the tunnel goes on over another connection"
            );
        } else {
            debug!(tunnel = key.number(), streams, "the tunnel goes on over another connection");
        }
        if source.is_some() {
            super::lifecycle::set_up(cx, &tunnel.lane.link);
        }
        cx.counters.resumed += 1;
        self.tunnels.add_up(key);
        if let Some(connector) = &mut self.connector {
            connector.resumed(key);
        }
    }
}
