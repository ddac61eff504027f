//! Entrances that this end asks the peer for (`PORT=...?at=peer`), when a tunnel comes up. Their clients
//! come as streams of the peer. One that cannot be opened now is asked for again.

use std::time::Duration;

use tracing::{debug, info, warn};

use crate::io::driver::Driver;
use crate::limits::{ENTRANCE_AGAIN_FIRST_MILLIS, ENTRANCE_AGAIN_MAX_MILLIS};
use crate::session::{EntranceAnswer, Moment};
use crate::worker::context::log_limit::Class;
use crate::worker::context::{Cx, Drain};
use crate::worker::ingress::Ingress;
use crate::worker::ingress::asked::shown;
use crate::worker::stream::Streams;
use crate::worker::table::Key;

/// What was asked of the newest tunnel's peer. A request has the number of its place in the plan.
#[derive(Debug)]
pub(super) struct WantedEntrances {
    pub(super) tunnel: Key,
    /// What has become of each, by its place in the plan: why it is not open.
    states: Vec<Result<(), String>>,
    /// Those that could not be opened, each with the reason.
    put_off: Vec<(u32, String)>,
    again_at: Option<Moment>,
    /// The next wait.
    wait: Duration,
}

impl Default for WantedEntrances {
    fn default() -> WantedEntrances {
        WantedEntrances {
            tunnel: Key::NONE,
            states: Vec::new(),
            put_off: Vec::new(),
            again_at: None,
            wait: Duration::from_millis(ENTRANCE_AGAIN_FIRST_MILLIS),
        }
    }
}

impl WantedEntrances {
    /// Of the tunnel whose peer is asked for so many.
    fn of(tunnel: Key, count: usize) -> WantedEntrances {
        let states = vec![Err("the peer has not answered".to_owned()); count];
        WantedEntrances { tunnel, states, ..WantedEntrances::default() }
    }

    /// Whether the peer has opened one.
    pub(super) fn is_open(&self, request: usize) -> bool {
        matches!(self.states.get(request), Some(Ok(())))
    }

    /// Why one is not open.
    pub(super) fn why_not(&self, request: usize) -> Option<String> {
        self.states.get(request)?.clone().err()
    }

    /// The peer has answered for one, or has closed it.
    fn note(&mut self, request: u32, answer: &EntranceAnswer) {
        let Some(state) = self.states.get_mut(request as usize) else { return };
        *state = match answer {
            EntranceAnswer::Open(_) => Ok(()),
            EntranceAnswer::NotNow(reason)
            | EntranceAnswer::Refused(reason)
            | EntranceAnswer::Closed(reason) => Err(reason.to_string()),
        };
    }

    /// One cannot be opened now. `false`: for the same reason as before.
    fn put_off(&mut self, request: u32, reason: &str, now: Moment) -> bool {
        if self.again_at.is_none() {
            self.again_at = Some(now.after(self.wait));
            self.wait = (2 * self.wait).min(Duration::from_millis(ENTRANCE_AGAIN_MAX_MILLIS));
        }
        match self.put_off.iter_mut().find(|(other, _)| *other == request) {
            Some((_, before)) if before == reason => false,
            Some((_, before)) => {
                reason.clone_into(before);
                true
            }
            None => {
                self.put_off.push((request, reason.to_owned()));
                true
            }
        }
    }
}

impl Ingress {
    /// A tunnel is up: asks its peer for all entrances of the plan.
    pub(in crate::worker) fn want_entrances<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        tunnel: Key,
    ) {
        if cx.plan.entrances_at_peer.is_empty() {
            return;
        }
        self.wanted = WantedEntrances::of(tunnel, cx.plan.entrances_at_peer.len());
        for request in 0..cx.plan.entrances_at_peer.len() as u32 {
            if !ask(cx, streams, tunnel, request) {
                return;
            }
        }
    }

    /// The peer has answered, or has closed an entrance.
    pub(in crate::worker) fn entrance_answered<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnel: Key,
        request: u32,
        answer: EntranceAnswer,
    ) {
        let Some(asked) = cx.plan.entrances_at_peer.get(request as usize) else { return };
        let (number, transport) = (tunnel.number(), asked.0);
        let asked = shown(asked.1, transport);
        let wanted = &mut self.wanted;
        if wanted.tunnel != tunnel {
            // The newest one has asked for it, too.
            debug!(tunnel = number, entrance = asked, "an answer in an older tunnel");
            return;
        }
        wanted.note(request, &answer);
        let may_log = cx.log_limit.allow(Class::Tunnel, cx.now);
        match answer {
            EntranceAnswer::Open(entrance) => {
                wanted.put_off.retain(|(other, _)| *other != request);
                if may_log {
                    let entrance = shown(entrance, transport);
                    info!(tunnel = number, entrance, "entrance at the peer open");
                }
            }
            EntranceAnswer::NotNow(reason) => {
                if wanted.put_off(request, &reason, cx.now) && may_log {
                    warn!(
                        tunnel = number,
                        entrance = asked,
                        reason,
                        "entrance at the peer not open; it is asked for again until it is"
                    );
                }
            }
            EntranceAnswer::Refused(reason) => {
                wanted.put_off.retain(|(other, _)| *other != request);
                if may_log {
                    warn!(
                        tunnel = number,
                        entrance = asked,
                        reason,
                        "entrance at the peer refused"
                    );
                }
            }
            EntranceAnswer::Closed(reason) => {
                if may_log {
                    warn!(tunnel = number, entrance = asked, reason, "entrance at the peer closed");
                }
            }
        }
    }

    /// When entrances that could not be opened are asked for again.
    pub(in crate::worker) fn next_wanted_timeout(&self) -> Option<Moment> {
        self.wanted.again_at
    }

    /// Asks again for what could not be opened.
    pub(in crate::worker) fn wanted_on_time<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
    ) {
        let wanted = &mut self.wanted;
        if wanted.again_at.take_if(|at| *at <= cx.now).is_none() {
            return;
        }
        // The next tunnel asks for all of them.
        if cx.drain != Drain::No || !streams.tunnels().up().contains(&wanted.tunnel) {
            return;
        }
        for (request, _) in &wanted.put_off {
            ask(cx, streams, wanted.tunnel, *request);
        }
    }
}

/// Asks for an entrance. `false`: the peer cannot be asked, which is logged.
fn ask<D: Driver>(cx: &mut Cx<D>, streams: &mut Streams, tunnel: Key, request: u32) -> bool {
    let Some(&(transport, at)) = cx.plan.entrances_at_peer.get(request as usize) else {
        return true;
    };
    match streams.tunnels_mut().ask_entrance(tunnel, request, (transport, at)) {
        Ok(()) => true,
        Err(error) => {
            if cx.may_log(Class::Tunnel) {
                let (tunnel, reason) = (tunnel.number(), error.to_string());
                let entrance = shown(at, transport);
                warn!(tunnel, entrance, reason, "entrance at the peer refused");
            }
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_opened_is_asked_for_ever_more_seldom() {
        let mut wanted = WantedEntrances::default();
        let mut now = Moment(0);
        let mut waits = Vec::new();
        for _ in 0..8 {
            let is_first = waits.is_empty();
            assert_eq!(wanted.put_off(1, "in use", now), is_first, "the same is no news");
            assert_eq!(wanted.put_off(2, "in use", now), is_first);
            let at = wanted.again_at.take().unwrap();
            waits.push((at.0 - now.0) / 1_000_000);
            now = at;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(wanted.put_off(1, "denied", now));
        assert_eq!(wanted.put_off.len(), 2);
    }
}
