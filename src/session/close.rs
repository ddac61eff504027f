//! Ends of streams as signalled by the peer: CLOSE and CLOSED.
//!
//! Each side sends CLOSE at most once, and the two may cross. Between two of ours each CLOSE is
//! answered by CLOSED all the same. An original that has sent CLOSE takes ours for the answer: it
//! frees the stream, sends nothing, and may reuse its id at once. So towards an original a CLOSE
//! that crosses ours ends the stream here, too, and is not answered: a CLOSED might hit the next
//! stream of that id.

use super::control::ControlFrame;
use super::stream::{LocalEnd, StreamState};
use super::{Ended, Session, StreamKey};
use crate::limits::{ORIGINAL_ID_MAX, REASON_BYTES};
use crate::wire::{CloseKind, Protocol, StreamRef};

/// Ids of an original's streams that were refused and not acknowledged, by CLOSED or by a CLOSE of
/// its own that crossed the refusal.
#[derive(Debug, Default)]
pub(super) struct Refusals([u64; (ORIGINAL_ID_MAX as usize + 64) / 64]);

impl Refusals {
    fn place(id: u32) -> (usize, u64) {
        (id as usize / 64, 1 << (id % 64))
    }

    /// Records a refusal of this id. Ids out of the original's range are not kept.
    pub(super) fn insert(&mut self, id: u32) {
        let (word, bit) = Refusals::place(id);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    /// The peer knows of the refusal, or reuses the id. Returns whether a refusal was recorded.
    pub(super) fn remove(&mut self, id: u32) -> bool {
        let (word, bit) = Refusals::place(id);
        let Some(word) = self.0.get_mut(word) else { return false };
        let was = *word & bit != 0;
        *word &= !bit;
        was
    }
}

impl Session {
    /// Refuses a stream that the peer opened under this number. `not_taken`: no server was tried,
    /// which a peer of ours is informed of.
    pub(super) fn push_refusal(&mut self, to: u32, reason: String, not_taken: bool) {
        if self.protocol == Protocol::V03 && !self.peer_is_ours() {
            self.refusals.insert(to);
        }
        let not_taken = not_taken && self.peer_is_ours();
        self.outbox.push(ControlFrame::Refuse { to, reason, not_taken });
    }

    pub(super) fn on_close(
        &mut self,
        from: Option<u32>,
        to: StreamRef,
        reason: &[u8],
        kind: CloseKind,
    ) {
        let key = match (to, from) {
            // Its client left before it received our id.
            (StreamRef::None, Some(from)) => self.unanswered(from),
            _ => self.find(to),
        };
        let stream = key.and_then(|key| self.streams.get(key));
        let ending = stream.filter(|stream| stream.state == StreamState::Closing);
        let crosses = ending.is_some();
        let own = ending.and_then(|stream| match stream.local_end {
            LocalEnd::Reset(reason) => Some(reason),
            _ => None,
        });
        let ours = self.peer_is_ours();
        if self.protocol == Protocol::V03 {
            let crosses_refusal = matches!(to, StreamRef::None)
                && from.is_some_and(|from| self.refusals.remove(from));
            if ours || !(crosses || crosses_refusal) {
                // Answered whether the stream is known or not.
                let to = match to {
                    StreamRef::Ours(id) => Some(id),
                    _ => None,
                };
                self.outbox.push(ControlFrame::Closed { from: to, to: from });
            }
        }
        let Some(key) = key else { return };
        if crosses && ours {
            // CLOSED to our own CLOSE is still to come, and the id must not be reused before.
            return;
        }
        let reason = String::from_utf8_lossy(&reason[..reason.len().min(REASON_BYTES)]);
        let how = match (own, kind) {
            (Some(own), _) => Ended::Reset(own.to_owned()),
            (None, CloseKind::Orderly) => Ended::Orderly,
            (None, CloseKind::Reset) => Ended::Reset(reason.into_owned()),
            (None, CloseKind::Refused) => Ended::Refused(reason.into_owned()),
            (None, CloseKind::NotTaken) => {
                let (reason, runs) = (reason.into_owned(), self.take_runs(key));
                Ended::NotTaken { reason, runs }
            }
        };
        self.finish(key, how);
    }

    pub(super) fn on_closed(&mut self, from: Option<u32>, to: StreamRef) {
        if let (StreamRef::None, Some(from)) = (to, from) {
            // Answers a refusal of ours.
            self.refusals.remove(from);
            return;
        }
        let Some(key) = self.streams.by_short(to) else { return };
        let Some(stream) = self.streams.get(key) else { return };
        if stream.state != StreamState::Closing {
            self.counters.unknown_ids += 1;
            return;
        }
        let how = match stream.local_end {
            LocalEnd::Reset(reason) => Ended::Reset(String::from(reason)),
            _ => Ended::Orderly,
        };
        self.finish(key, how);
    }

    /// Finds the stream of an original by the original's own id, while it may not know ours. A peer
    /// of ours never needs this: it waits for the answer to its open.
    fn unanswered(&self, from: u32) -> Option<StreamKey> {
        if self.peer_is_ours() {
            return None;
        }
        self.streams.of_peer(from)
    }
}
