//! Entrances at the other end: a side may ask the peer to open some, whose clients come back to it.
//! Whether one is opened is decided by the peer's engine; here it is counted and answered.
//!
//! Each request is answered once. One that was opened may end later, which is told, too; all of them
//! end with the tunnel.

use std::net::SocketAddr;

use super::control::ControlFrame;
use super::local::{reason_of, sayable};
use super::{Event, OpenError, Session, TunnelError};
use crate::limits::ASKED_ENTRANCES_MAX;
use crate::wire::{EntranceState, Protocol, Transport, v1};

/// What has become of an entrance that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntranceAnswer {
    /// It is open, at this address.
    Open(SocketAddr),
    /// It is not opened, however often it is asked for in this tunnel.
    Refused(String),
    /// It cannot be opened now.
    NotNow(String),
    /// It was open, and is closed.
    Closed(String),
}

/// The entrances of a tunnel, by their numbers. Either list is bounded by [`ASKED_ENTRANCES_MAX`].
#[derive(Debug, Default)]
pub(super) struct Entrances {
    /// Those asked of the peer that wait for an answer, or are open, which is said beside each.
    asked: Vec<(u32, bool)>,
    /// The same of those that the peer has asked for.
    given: Vec<(u32, bool)>,
    /// The peer has asked for one.
    was_asked: bool,
}

/// A frame about an entrance.
#[derive(Debug)]
pub(super) enum EntranceFrame {
    Ask { request: u32, transport: Transport, at: SocketAddr },
    Answer { request: u32, answer: EntranceAnswer },
}

impl EntranceFrame {
    pub(super) fn encode(&self, head: &mut Vec<u8>) {
        match self {
            EntranceFrame::Ask { request, transport, at } => {
                v1::entrance(head, *request, *transport, *at);
            }
            EntranceFrame::Answer { request, answer } => {
                let state = match answer {
                    EntranceAnswer::Open(at) => EntranceState::Open(*at),
                    EntranceAnswer::Refused(reason) => EntranceState::Refused(reason.as_bytes()),
                    EntranceAnswer::NotNow(reason) => EntranceState::NotNow(reason.as_bytes()),
                    EntranceAnswer::Closed(reason) => EntranceState::Closed(reason.as_bytes()),
                };
                v1::entrance_state(head, *request, state);
            }
        }
    }
}

impl Session {
    /// The peer may be asked for entrances.
    pub fn peer_opens_entrances(&self) -> bool {
        let ours = self.config.offer.is_some_and(|offer| offer.entrances);
        self.protocol == Protocol::V1 && ours && self.peer.entrances()
    }

    /// The peer has asked for an entrance here, whatever has become of it.
    pub fn was_asked_for_entrances(&self) -> bool {
        self.entrances.was_asked
    }

    /// Asks the peer for an entrance, unless that of this number is open or waits for its answer.
    /// Answered by [`Event::EntranceAnswered`].
    ///
    /// # Errors
    /// [`OpenError::NoEntrances`] when the peer cannot be asked, [`OpenError::GoingAway`] when it
    /// accepts nothing new, [`OpenError::TooManyEntrances`].
    pub fn ask_entrance(
        &mut self,
        request: u32,
        transport: Transport,
        at: SocketAddr,
    ) -> Result<(), OpenError> {
        if !self.peer_opens_entrances() {
            return Err(OpenError::NoEntrances);
        }
        if self.peer_leaves {
            return Err(OpenError::GoingAway);
        }
        let asked = &mut self.entrances.asked;
        if asked.iter().any(|&(other, _)| other == request) {
            return Ok(());
        }
        if asked.len() >= ASKED_ENTRANCES_MAX {
            return Err(OpenError::TooManyEntrances { limit: ASKED_ENTRANCES_MAX });
        }
        asked.push((request, false));
        self.outbox.push(ControlFrame::Entrance(EntranceFrame::Ask { request, transport, at }));
        Ok(())
    }

    /// Answers [`Event::EntranceAsked`], or tells that an entrance is closed. Ignored where there is
    /// nothing to answer, or nothing open.
    pub fn answer_entrance(&mut self, request: u32, answer: EntranceAnswer) {
        let given = &mut self.entrances.given;
        if !apply(given, request, &answer) {
            return;
        }
        let answer = match answer {
            EntranceAnswer::Open(_) => answer,
            EntranceAnswer::Refused(reason) => EntranceAnswer::Refused(sayable(&reason)),
            EntranceAnswer::NotNow(reason) => EntranceAnswer::NotNow(sayable(&reason)),
            EntranceAnswer::Closed(reason) => EntranceAnswer::Closed(sayable(&reason)),
        };
        self.outbox.push(ControlFrame::Entrance(EntranceFrame::Answer { request, answer }));
    }

    pub(super) fn on_entrance(
        &mut self,
        request: u32,
        transport: Transport,
        at: SocketAddr,
    ) -> Result<(), TunnelError> {
        if !self.peer_opens_entrances() {
            return Err(TunnelError::EntrancesNotAgreed);
        }
        self.entrances.was_asked = true;
        let given = &mut self.entrances.given;
        if given.iter().any(|&(other, _)| other == request) {
            return Err(TunnelError::EntranceAgain { request });
        }
        if given.len() >= ASKED_ENTRANCES_MAX {
            return Err(TunnelError::TooManyEntrances { limit: ASKED_ENTRANCES_MAX });
        }
        given.push((request, false));
        self.events.push_back(Event::EntranceAsked { request, transport, at });
        Ok(())
    }

    pub(super) fn on_entrance_state(
        &mut self,
        request: u32,
        state: EntranceState<'_>,
    ) -> Result<(), TunnelError> {
        if !self.peer_opens_entrances() {
            return Err(TunnelError::EntrancesNotAgreed);
        }
        let answer = match state {
            EntranceState::Open(at) => EntranceAnswer::Open(at),
            EntranceState::Refused(reason) => EntranceAnswer::Refused(reason_of(reason)),
            EntranceState::NotNow(reason) => EntranceAnswer::NotNow(reason_of(reason)),
            EntranceState::Closed(reason) => EntranceAnswer::Closed(reason_of(reason)),
        };
        match apply(&mut self.entrances.asked, request, &answer) {
            true => self.events.push_back(Event::EntranceAnswered { request, answer }),
            false => self.counters.unsuited_frames += 1,
        }
        Ok(())
    }
}

/// Applies an answer to a list. `false`: that cannot be of this entrance now.
fn apply(list: &mut Vec<(u32, bool)>, request: u32, answer: &EntranceAnswer) -> bool {
    let Some(at) = list.iter().position(|&(other, _)| other == request) else { return false };
    // Only one that is open is closed, and only one that waits is answered.
    if list[at].1 != matches!(answer, EntranceAnswer::Closed(_)) {
        return false;
    }
    match answer {
        EntranceAnswer::Open(_) => list[at].1 = true,
        _ => drop(list.swap_remove(at)),
    }
    true
}
