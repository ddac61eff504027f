//! Whether anything of a stream is in flight, for an engine that holds both ends of a tunnel.

use super::stream::{LocalEnd, StreamState, Todo};
use super::{Session, StreamKey};
use crate::wire::StreamRef;

/// One end's view of what a stream has in flight, in SockMux 1. Nothing is in flight when both ends
/// are still, and the credit of each equals the other's allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    /// Bytes that we may send.
    pub credit_bytes: u64,
    /// Bytes that the peer may send.
    pub allowance_bytes: u64,
    /// Nothing is queued here, to be sent or to be consumed.
    pub is_still: bool,
    /// One of its directions has ended, or is about to.
    pub has_end: bool,
}

impl Session {
    /// See [`Rest`].
    pub fn rest_of(&self, key: StreamKey) -> Option<Rest> {
        let stream = self.streams.get(key)?;
        let Todo { ack, urgent_taken, .. } = stream.todo;
        // Consumption may be reported at any time.
        let nothing_to_say = stream.todo == Todo { ack, urgent_taken, ..Todo::default() };
        Some(Rest {
            credit_bytes: stream.credit_bytes,
            allowance_bytes: stream.allowance_bytes,
            is_still: nothing_to_say && stream.ready_bytes == 0 && stream.backlog_bytes == 0,
            has_end: stream.local_end != LocalEnd::Not
                || stream.peer_end
                || stream.state != StreamState::Open,
        })
    }

    /// The number of a stream that the peer opened, as assigned by the peer.
    pub fn number_of(&self, key: StreamKey) -> Option<u32> {
        self.streams.get(key).filter(|stream| !stream.opener)?.peer_id
    }

    /// The stream that was opened here under that number.
    pub fn opened_as(&self, number: u32) -> Option<StreamKey> {
        self.streams.by_number(StreamRef::Ours(number))
    }
}
