//! The life of a flow: it begins with a datagram from a new client, here or at the peer, and ends
//! when it is idle, evicted, refused or ended by the peer. Ending a flow loses no state: the next
//! datagram begins a new one.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tracing::debug;

use super::Datagrams;
use crate::cli::plan::Target;
use crate::io::driver::Driver;
use crate::limits::DRAIN_FLOW_MILLIS;
use crate::policy::connection_limits::LimitGuard;
use crate::session::{Ended, Moment, OpenError, Session, StreamKey};
use crate::worker::context::Cx;
use crate::worker::datagram::flow::{Flow, FlowServer, Waiting};
use crate::worker::exits::ExitState;
use crate::worker::log_ids::LogIds;
use crate::worker::stream::tunnel::Tunnels;
use crate::worker::table::Key;
use crate::worker::token::StreamOwner;

impl Datagrams {
    /// Adds a flow and begins its stream on this tunnel.
    pub(in crate::worker) fn open_flow<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        tunnel_key: Key,
        flow: Flow,
        entrance: SocketAddr,
        open: impl FnOnce(&mut Session, u64) -> Result<StreamKey, OpenError>,
    ) -> Option<Key> {
        let client = flow.client;
        let key = self.insert_flow(cx, tunnels, flow)?;
        let opened = match tunnels.get_mut(tunnel_key) {
            Some(tunnel) => open(tunnel.session_mut(), StreamOwner::Flow(key).user()),
            None => Err(OpenError::NotUp),
        };
        match opened {
            Ok(stream) => {
                let (number, tunnel) = (key.number(), tunnel_key.number());
                debug!(flow = number, tunnel, %client, %entrance, "flow");
                if let Some(flow) = self.flows.get_mut(key) {
                    flow.stream = Some((tunnel_key, stream));
                    flow.entry = cx.entry_of_client("flow", key, client, || entrance.to_string());
                    flow.entry.in_tunnel(tunnel, tunnels.peer_of(tunnel_key).name);
                }
                Some(key)
            }
            Err(error) => {
                self.flow_not_begun(cx, tunnels, key, error);
                None
            }
        }
    }

    /// Adds a flow and begins its stream on the newest tunnel that accepts it.
    pub(in crate::worker) fn begin_flow<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        flow: Flow,
        entrance: SocketAddr,
    ) -> Option<Key> {
        let key = self.insert_flow(cx, tunnels, flow)?;
        if let Some(flow) = self.flows.get_mut(key) {
            let at = || entrance.to_string();
            flow.entry = cx.entry_of_client("flow", key, flow.client, at);
        }
        match self.begin_flow_on_newest(tunnels, key, Box::new((entrance, Vec::new()))) {
            Ok(()) => Some(key),
            Err(error) => {
                self.flow_not_begun(cx, tunnels, key, error);
                None
            }
        }
    }

    /// No tunnel accepts a flow: removes it.
    fn flow_not_begun<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        key: Key,
        error: OpenError,
    ) {
        let Some(mut flow) = self.flows.remove(key) else { return };
        flow.entry.refused_here(&error.to_string());
        // The peer's limit is below this end's; the next datagram finds room.
        if matches!(error, OpenError::TooMany { .. }) {
            let oldest = self.flows.oldest_of(flow.opener);
            self.evict_flow(cx, tunnels, oldest);
        }
        cx.log_refused_of(LogIds::flow(key), flow.client, &error.to_string());
    }

    /// Begins a flow's stream on the newest tunnel that accepts it and has not refused it before.
    fn begin_flow_on_newest(
        &mut self,
        tunnels: &mut Tunnels,
        key: Key,
        tentative: Box<(SocketAddr, Vec<Key>)>,
    ) -> Result<(), OpenError> {
        let (entrance, refused_by) = &*tentative;
        let mut why = OpenError::NotUp;
        let origin = self.flows.get_mut(key).and_then(|flow| flow.origin.as_ref());
        let port = origin.map(|origin| origin.port).and_then(|port| self.port(port));
        let led_to = port.map(|port| port.led_to.clone()).unwrap_or_default();
        for at in (0..tunnels.up().len()).rev() {
            let tunnel_key = tunnels.up()[at];
            let is_out = |key: &Key| {
                refused_by.contains(key) || !tunnels.may_take(*key, entrance.port(), &led_to)
            };
            if is_out(&tunnel_key) {
                continue;
            }
            let is_last = tunnels.up()[..at].iter().all(is_out);
            let Some(flow) = self.flows.get_mut(key) else { return Ok(()) };
            let Some(tunnel) = tunnels.get_mut(tunnel_key) else { continue };
            let (session, user) = (tunnel.session_mut(), StreamOwner::Flow(key).user());
            let opened = match is_last {
                true => session.open_datagrams(user, flow.client, *entrance),
                false => session.open_datagrams_tentatively(user, flow.client, *entrance),
            };
            match opened {
                Ok(stream) => {
                    let (number, tunnel) = (key.number(), tunnel_key.number());
                    debug!(flow = number, tunnel, client = %flow.client, %entrance, "flow");
                    flow.stream = Some((tunnel_key, stream));
                    let peer = tunnels.peer_of(tunnel_key).name;
                    flow.entry.in_tunnel(tunnel, peer);
                    flow.tentative = (!is_last).then_some(tentative);
                    return Ok(());
                }
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// The peer has accepted a flow: it is no longer tentative.
    pub(super) fn flow_opened(&mut self, key: Key) {
        if let Some(flow) = self.flows.get_mut(key) {
            flow.tentative = None;
        }
    }

    /// The peer has refused a flow without having tried a server: begins it again on the next
    /// tunnel, with the queued datagrams. `false`: there is none.
    fn begin_flow_on_next_tunnel<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        key: Key,
        runs: &[(u32, u32)],
    ) -> bool {
        let Some(flow) = self.flows.get_mut(key) else { return false };
        let Some(mut tentative) = flow.tentative.take() else { return false };
        tentative.1.extend(flow.stream.take().map(|(tunnel, _)| tunnel));
        let waited = std::mem::take(&mut flow.queue);
        if self.begin_flow_on_newest(tunnels, key, tentative).is_err() {
            return false;
        }
        let mut waiting = Vec::new();
        waited.copy_front(waited.len_bytes(), &mut waiting);
        let mut left = &waiting[..];
        for &(size_bytes, bytes) in runs {
            let (run, rest) = left.split_at((bytes as usize).min(left.len()));
            self.queue_run(cx, tunnels, key, size_bytes, run, None);
            left = rest;
        }
        if let Some((tunnel, _)) = self.flows.get_mut(key).and_then(|flow| flow.stream) {
            tunnels.mark(tunnel);
        }
        true
    }

    /// Adds a flow, evicting another if the table is full.
    pub(in crate::worker) fn insert_flow<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        flow: Flow,
    ) -> Option<Key> {
        if self.flows.is_full() {
            let evicted = self.flows.to_evict_for(flow.opener);
            self.evict_flow(cx, tunnels, evicted);
        }
        self.flows.insert(flow)
    }

    /// Begins the entry of a flow of a plain relay in the access log.
    pub(in crate::worker) fn enter_relayed<D: Driver>(
        &mut self,
        cx: &Cx<D>,
        key: Key,
        (at, target): (SocketAddr, &Target),
    ) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        flow.entry = cx.entry_of_client("flow", key, flow.client, || at.to_string());
        flow.entry.server_is(target);
    }

    /// Adds a flow that waits for its client's name.
    pub(in crate::worker) fn hold_flow<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        flow: Flow,
    ) -> Option<Key> {
        let stream = flow.stream;
        let key = self.insert_flow(cx, tunnels, flow)?;
        if let Some((tunnel, stream)) = stream
            && let Some(tunnel) = tunnels.get_mut(tunnel)
        {
            tunnel.session_mut().attach_datagrams(stream, StreamOwner::Flow(key).user());
        }
        Some(key)
    }

    /// Ends a flow, to make room for another one.
    fn evict_flow<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        evicted: Option<Key>,
    ) {
        if let Some(key) = evicted {
            cx.counters.flows_evicted += 1;
            if let Some(flow) = self.flows.get_mut(key) {
                flow.entry.evicted("SOXCONF=udpflows");
            }
            self.end_flow(cx, tunnels, key, "evicted by a newer flow (SOXCONF=udpflows)");
        }
    }

    /// The peer began a flow: begins the look-up of its target.
    pub(in crate::worker) fn open_exit_flow<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        (tunnel_key, stream): (Key, StreamKey),
        client: SocketAddr,
        limit_guard: Option<LimitGuard>,
        (target, exit): (&Target, Option<&Rc<ExitState>>),
    ) {
        let server = FlowServer::Unknown(Waiting::new(target.clone()));
        let mut flow = Flow::of_peer(client, server, (tunnel_key, stream), cx.now);
        flow.limit_guard = limit_guard;
        let Some(key) = self.insert_flow(cx, tunnels, flow) else {
            let reason = String::from("too many flows are open");
            cx.refuse_stream((tunnel_key, stream), client, reason, false);
            return;
        };
        if let Some(tunnel) = tunnels.get_mut(tunnel_key) {
            tunnel.session_mut().attach_datagrams(stream, StreamOwner::Flow(key).user());
        }
        let (number, tunnel) = (key.number(), tunnel_key.number());
        let Target { host, port } = target;
        debug!(flow = number, tunnel, %client, %host, port, "flow's exit");
        if let Some(flow) = self.flows.get_mut(key) {
            flow.entry = cx.entry_of_exit("flow", key, client, exit);
            flow.entry.in_tunnel(tunnel, tunnels.peer_of(tunnel_key).name);
            flow.entry.server_is(target);
        }
        self.find_server(cx, tunnels, key, target);
    }

    /// Ends a flow and its stream.
    pub(super) fn end_flow<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        key: Key,
        reason: &'static str,
    ) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let stream = flow.stream;
        debug!(flow = key.number(), client = %flow.client, reason, "flow ended");
        flow.entry.reset_here(reason);
        self.forget_flow(cx, key);
        if let Some((tunnel_key, stream)) = stream {
            if let Some(tunnel) = tunnels.get_mut(tunnel_key) {
                tunnel.session_mut().local_reset(stream, reason);
            }
            tunnels.mark(tunnel_key);
        }
    }

    /// The session has ended a flow's stream.
    pub(super) fn flow_ended<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        key: Key,
        how: &Ended,
    ) {
        if let Ended::NotTaken { runs, .. } = how
            && self.begin_flow_on_next_tunnel(cx, tunnels, key, runs)
        {
            return;
        }
        let Some(flow) = self.flows.get_mut(key) else { return };
        let (client, stream) = (flow.client, flow.stream);
        match how {
            Ended::Refused(reason) | Ended::NotTaken { reason, .. } => {
                flow.entry.refused_by_peer(reason);
            }
            Ended::Reset(reason) => flow.entry.ended_by_peer(Some(reason)),
            Ended::Orderly => flow.entry.ended_by_peer(None),
        }
        self.forget_flow(cx, key);
        let flow = key.number();
        match how {
            Ended::Refused(reason) | Ended::NotTaken { reason, .. } => {
                let owner = StreamOwner::Flow(key);
                let ids = stream.map(|(tunnel, _)| LogIds::of(tunnel, Some(owner)));
                cx.log_refused_of(
                    ids.unwrap_or_default(),
                    client,
                    &format!("by the peer: {reason}"),
                )
            }
            Ended::Reset(reason) => debug!(flow, %client, reason, "flow ended by the peer"),
            Ended::Orderly => debug!(flow, %client, "flow ended by the peer"),
        }
    }

    /// Removes a flow. Its session is not notified.
    pub(in crate::worker) fn forget_flow<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(mut flow) = self.flows.remove(key) else { return };
        flow.queue.clear(&mut cx.buffers.pipes);
        match flow.server {
            FlowServer::Reached(socket) => cx.driver.cancel_all(&socket),
            FlowServer::UdpAssociation(association) => cx.driver.cancel_all(&association.socket),
            FlowServer::Unknown(mut waiting) => {
                waiting.take().into_iter().for_each(|(run, _)| cx.buffers.give_back(run));
            }
            FlowServer::Peer => {}
        }
    }

    /// Removes all flows of a tunnel that is gone.
    pub(in crate::worker) fn forget_flows_of<D: Driver>(&mut self, cx: &mut Cx<D>, tunnel: Key) {
        let mut gone = std::mem::take(&mut cx.scratch);
        let of_it = |flow: &Flow| flow.stream.is_some_and(|(of, _)| of == tunnel);
        gone.extend(self.flows.iter().filter(|(_, flow)| of_it(flow)).map(|(key, _)| key));
        for key in gone.drain(..) {
            if let Some(flow) = self.flows.get_mut(key) {
                flow.entry.tunnel_lost(None);
            }
            self.forget_flow(cx, key);
        }
        cx.scratch = gone;
    }

    /// The run is over.
    pub(in crate::worker) fn end_all(&mut self) {
        self.flows.iter_mut().for_each(|(_, flow)| flow.entry.drained());
    }

    /// Ends flows that were idle for too long.
    pub(in crate::worker) fn flows_on_time<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        drains: bool,
    ) {
        while self.next_flow_timeout(cx, drains).is_some_and(|until| until <= cx.now)
            && let Some((key, _)) = self.flows.oldest()
        {
            if let Some(flow) = self.flows.get_mut(key) {
                match drains {
                    true => flow.entry.drained(),
                    false => flow.entry.timed_out(Some("TIMEOUT=udp")),
                }
            }
            self.end_flow(cx, tunnels, key, "silent for too long (TIMEOUT=udp)");
        }
    }

    /// The idle deadline of the least recently used flow.
    pub(in crate::worker) fn next_flow_timeout<D>(
        &self,
        cx: &Cx<D>,
        drains: bool,
    ) -> Option<Moment> {
        let timeout = idle_timeout(cx, drains)?;
        self.flows.oldest().map(|(_, last_used)| last_used.after(timeout))
    }

    /// The idle deadline of each flow, for the simulator.
    #[cfg(test)]
    pub(in crate::worker) fn flow_deadlines<D>(
        &self,
        cx: &Cx<D>,
        drains: bool,
    ) -> impl Iterator<Item = Moment> {
        let timeout = idle_timeout(cx, drains);
        self.flows.iter().filter_map(move |(_, flow)| Some(flow.last_used.after(timeout?)))
    }
}

/// How long a flow may be idle.
fn idle_timeout<D>(cx: &Cx<D>, drains: bool) -> Option<Duration> {
    match drains {
        false => cx.plan.timeouts.udp,
        true => Some(Duration::from_millis(DRAIN_FLOW_MILLIS)),
    }
}
