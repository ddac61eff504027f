//! Entrances at the other end, asked for by either.

use sockmux_uring::limits::ASKED_ENTRANCES_MAX;
use sockmux_uring::session::{EntranceAnswer, Event, OpenError};
use sockmux_uring::wire::{EntranceState, Protocol, Transport, v1};

use super::super::choice::Choice;
use super::Engine;

/// Requests so far, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Entrances {
    /// Of ours: those that wait for an answer, and those that are open.
    asked: Vec<u32>,
    ours: Vec<u32>,
    /// The same of the peer's.
    to_answer: Vec<u32>,
    theirs: Vec<u32>,
    /// Number of operations that may have sent a frame.
    pub(super) said: usize,
    /// They are part of this run.
    pub(super) are_used: bool,
}

impl Entrances {
    /// Whether they are part of a run its first byte says, so that saved inputs keep their meaning.
    pub(super) fn of(data: &[u8]) -> Entrances {
        let are_used = data.first().is_some_and(|&first| first >= 0xc0);
        Entrances { are_used, ..Entrances::default() }
    }
}

/// The number of an entrance, mostly one that was used before.
fn number(choice: &mut impl Choice) -> u32 {
    let most = choice.pick(&[4, 100]);
    choice.below(most) as u32
}

fn take(of: &mut Vec<u32>, request: u32) -> bool {
    let at = of.iter().position(|&other| other == request);
    at.map(|at| of.swap_remove(at)).is_some()
}

impl Engine {
    /// A frame about an entrance, whether it suits or not.
    pub(super) fn feed_entrances(&mut self, choice: &mut impl Choice) {
        if self.fed_protocol == Protocol::V03 {
            return;
        }
        let mut out = Vec::new();
        let request = number(choice);
        let at = "[2001:db8::1]:8022".parse().expect("an address");
        let transport = choice.pick(&[Transport::Tcp, Transport::Udp]);
        match choice.below(8) {
            0..=3 => v1::entrance(&mut out, request, transport, at),
            4 => v1::entrance_state(&mut out, request, EntranceState::Open(at)),
            5 => v1::entrance_state(&mut out, request, EntranceState::Refused(b"")),
            6 => v1::entrance_state(&mut out, request, EntranceState::NotNow(b"in use")),
            _ => v1::entrance_state(&mut out, request, EntranceState::Closed(b"\xff\n")),
        }
        self.read(&out);
    }

    /// The engine asks for an entrance, answers, or closes one, whether there is one or not.
    pub(super) fn entrance_operation(&mut self, choice: &mut impl Choice) {
        let at = "0.0.0.0:80".parse().expect("an address");
        let request = number(choice);
        let before = self.session.control_backlog();
        let entrances = &mut self.entrances;
        let is_said = match choice.below(6) {
            0..=2 => {
                let known = entrances.asked.contains(&request) || entrances.ours.contains(&request);
                match self.session.ask_entrance(request, Transport::Tcp, at) {
                    Ok(()) if !known => {
                        entrances.asked.push(request);
                        true
                    }
                    Ok(()) | Err(OpenError::NoEntrances | OpenError::GoingAway) => false,
                    Err(OpenError::TooManyEntrances { limit }) => {
                        let count = entrances.asked.len() + entrances.ours.len();
                        assert_eq!((count, limit), (ASKED_ENTRANCES_MAX, ASKED_ENTRANCES_MAX));
                        false
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            3 => {
                self.session.answer_entrance(request, EntranceAnswer::Open(at));
                let is_said = take(&mut entrances.to_answer, request);
                entrances.theirs.extend(is_said.then_some(request));
                is_said
            }
            4 => {
                let answer = EntranceAnswer::NotNow("in\nuse".repeat(100));
                self.session.answer_entrance(request, answer);
                take(&mut entrances.to_answer, request)
            }
            _ => {
                let answer = EntranceAnswer::Closed(String::new());
                self.session.answer_entrance(request, answer);
                take(&mut entrances.theirs, request)
            }
        };
        entrances.said += usize::from(is_said);
        assert_eq!(self.session.control_backlog() - before, usize::from(is_said));
    }

    /// Whether what is told can be.
    pub(super) fn entrance_event(&mut self, event: &Event) {
        assert!(self.protocol == Protocol::V1 && self.session.peer_opens_entrances());
        let entrances = &mut self.entrances;
        match event {
            Event::EntranceAsked { request, .. } => {
                let known = [&entrances.to_answer, &entrances.theirs];
                assert!(!known.iter().any(|of| of.contains(request)), "{event:?} came twice");
                entrances.to_answer.push(*request);
                let count = entrances.to_answer.len() + entrances.theirs.len();
                assert!(count <= ASKED_ENTRANCES_MAX && self.session.was_asked_for_entrances());
            }
            Event::EntranceAnswered { request, answer: EntranceAnswer::Closed(_) } => {
                assert!(take(&mut entrances.ours, *request), "{event:?}");
            }
            Event::EntranceAnswered { request, answer } => {
                assert!(take(&mut entrances.asked, *request), "{event:?}");
                let is_open = matches!(answer, EntranceAnswer::Open(_));
                entrances.ours.extend(is_open.then_some(*request));
            }
            _ => unreachable!("{event:?} is about no entrance"),
        }
    }
}
