//! Whether anything of a stream is in flight: for an engine that holds both ends of a tunnel.

use super::stream::{LocalEnd, State, Todo};
use super::{Session, StreamKey};
use crate::wire::StreamRef;

/// What one end of a stream knows of what is in flight, in SockMux 1. Nothing is when both ends are
/// still, and the credit of each is the other's allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    /// What we may send.
    pub credit_bytes: u64,
    /// What the peer may send.
    pub allowance_bytes: u64,
    /// Nothing waits here, to be sent or to be taken.
    pub is_still: bool,
    /// One of its directions has ended, or is about to.
    pub has_end: bool,
}

impl Session {
    /// See [`Rest`].
    pub fn rest_of(&self, key: StreamKey) -> Option<Rest> {
        let stream = self.streams.get(key)?;
        let Todo { ack, urgent_taken, .. } = stream.todo;
        // What was taken may be told at any time.
        let nothing_to_say = stream.todo == Todo { ack, urgent_taken, ..Todo::default() };
        Some(Rest {
            credit_bytes: stream.credit_bytes,
            allowance_bytes: stream.allowance_bytes,
            is_still: nothing_to_say && stream.ready_bytes == 0 && stream.backlog_bytes == 0,
            has_end: stream.local_end != LocalEnd::Not
                || stream.peer_end
                || stream.state != State::Open,
        })
    }

    /// The number of a stream that the peer began, which is the peer's own.
    pub fn number_of(&self, key: StreamKey) -> Option<u32> {
        self.streams.get(key).filter(|stream| !stream.opener)?.peer_id
    }

    /// The stream that began here under that number.
    pub fn opened_as(&self, number: u32) -> Option<StreamKey> {
        self.streams.by_number(StreamRef::Ours(number))
    }
}
