//! Remote forwards, requested at either end.

use sockmux_uring::session::{Event, OpenError, Related};
use sockmux_uring::wire::{self, Protocol, Route, Transport, v1};

use super::super::choice::Choice;
use super::{Engine, LOCALS_MAX};

/// Requests so far.
#[derive(Debug, Default)]
pub(super) struct Ports {
    /// Unanswered requests of ours: the stream and the number.
    asked: Vec<(u64, u32)>,
    /// Requests of the peer.
    to_answer: Vec<(u64, u32)>,
    /// Number of operations that may have sent a frame.
    pub(super) said: usize,
}

fn take(of: &mut Vec<(u64, u32)>, port: (u64, u32)) -> bool {
    let at = of.iter().position(|&other| other == port);
    at.map(|at| of.swap_remove(at)).is_some()
}

impl Engine {
    /// Any frame about remote forwards, mostly of the direction that the protocol permits.
    pub(super) fn feed_ports(&mut self, choice: &mut impl Choice) {
        let mut out = Vec::new();
        let small = |choice: &mut dyn FnMut(u64) -> u64| 1 << 20 | choice(6) as u32;
        let theirs = small(&mut |bound| choice.below(bound));
        let ours = self.numbers.get(choice.below(8) as usize).copied().unwrap_or(theirs);
        let (by_us, by_peer) = match choice.below(32) {
            31 => (Route::ours(ours), Route::theirs(theirs)),
            _ => (Route::theirs(ours), Route::ours(theirs)),
        };
        let request = choice.below(4) as u32;
        let transport = choice.pick(&[Transport::Tcp, Transport::Udp]);
        let at = "192.0.2.1:1".parse().expect("an address");
        let new = Route::ours(small(&mut |bound| choice.below(bound)));
        match choice.below(7) {
            0 | 1 => v1::listen(&mut out, by_us, request, transport),
            2 => v1::unlisten(&mut out, by_us, request),
            3 => v1::listening(&mut out, by_peer, request, Ok(at)),
            4 => v1::listening(&mut out, by_peer, request, Err("no")),
            5 => {
                let what = wire::Relation::Port { control: theirs, request };
                v1::related(&mut out, new, transport, what, (at, at));
            }
            _ => {
                let what = wire::Relation::Call { control: ours, port: 2_000 };
                v1::related(&mut out, new, Transport::Tcp, what, (at, at));
            }
        }
        self.read(&out);
    }

    /// The engine requests, answers, or opens a related stream, whether permitted or not.
    pub(super) fn port_operation(&mut self, n: usize, choice: &mut impl Choice) {
        let local = &self.locals[n];
        let (key, is_over) = (local.key, local.ended || local.gone);
        let (user, request) = (n as u64, choice.below(4) as u32);
        let transport = choice.pick(&[Transport::Tcp, Transport::Udp]);
        let at = "10.0.0.1:80".parse().expect("an address");
        let before = self.session.control_backlog();
        let mut may_say = false;
        match choice.below(6) {
            // A number in use is not used again.
            0 | 1 if !self.ports.asked.contains(&(user, request)) => {
                match self.session.ask_port(key, request, transport) {
                    Ok(()) => {
                        self.ports.asked.push((user, request));
                        may_say = true;
                    }
                    Err(OpenError::NoPorts) => {}
                    Err(OpenError::TooManyPorts { .. }) => assert!(!is_over),
                    Err(error) => panic!("{error}"),
                }
            }
            2 => {
                self.session.close_port(key, request);
                take(&mut self.ports.asked, (user, request));
                may_say = true;
            }
            3 => {
                let result = if transport == Transport::Tcp { Ok(at) } else { Err("none") };
                self.session.answer_port(key, request, result);
                may_say = take(&mut self.ports.to_answer, (user, request));
            }
            what @ (4 | 5) if self.locals.len() < LOCALS_MAX => {
                let new = self.locals.len() as u64;
                let (opened, transport) = match what {
                    4 => (
                        self.session.open_related(new, (key, request), (at, at), transport),
                        transport,
                    ),
                    _ => (self.session.call(new, (key, 2_000), (at, at)), Transport::Tcp),
                };
                if let Ok(new) = opened {
                    assert!(!is_over && self.session.peer_opens_ports());
                    self.begin(new, true, transport == Transport::Udp);
                }
            }
            _ => {}
        }
        self.ports.said += usize::from(may_say);
        let said = self.session.control_backlog() - before;
        assert!(said <= usize::from(may_say && !is_over), "{said} frames of {n}");
    }

    /// Whether an answer is expected, and the stream that it belongs to is open.
    pub(super) fn port_event(&mut self, event: &Event) {
        assert_eq!(self.protocol, Protocol::V1);
        let (&Event::PortAsked { user, request, .. }
        | &Event::PortClosed { user, request }
        | &Event::PortGiven { user, request, .. }) = event
        else {
            unreachable!("{event:?} is about no port")
        };
        let local = &self.locals[user as usize];
        assert!(!local.gone && !local.ended, "{event:?} for {local:?}");
        let port = (user, request);
        match event {
            Event::PortAsked { .. } => {
                assert!(!self.ports.to_answer.contains(&port), "{event:?} came twice");
                self.ports.to_answer.push(port);
            }
            Event::PortGiven { .. } => assert!(take(&mut self.ports.asked, port), "{event:?}"),
            _ => {
                take(&mut self.ports.to_answer, port);
            }
        }
    }

    /// Whether the control stream of a related stream is open.
    pub(super) fn check_related(&self, related: Option<Related>) {
        if let Some(Related::Port { user, .. } | Related::Call { user, .. }) = related {
            let local = &self.locals[user as usize];
            assert!(!local.gone && !local.ended, "a stream beside {local:?}");
        }
    }
}
