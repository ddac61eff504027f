//! Whose data goes next: streams with little to say, then the others in turn, each with as many
//! bytes (deficit round robin).
//!
//! A round gives every stream with data one share, the quantum. Who has little to say goes at once,
//! on account of its share; when that is used up, it waits for its turn like all others. So a
//! stream cannot get more by having its bytes come piece by piece, each of them just after the last
//! has gone.

use std::collections::VecDeque;

use super::stream::Stream;
use super::{Session, StreamKey};
use crate::limits::SMALL_FRAME_BYTES;
use crate::wire::Protocol;

/// Streams with data, each in a queue at most once.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// With little, and with something left of their share.
    sparse: VecDeque<StreamKey>,
    bulk: VecDeque<StreamKey>,
    round: u64,
    /// Streams in front of `bulk` that have still to get their share in this round.
    left: usize,
    /// Streams that have got one in this round, and in the one before.
    sharing: (usize, usize),
}

/// What a stream has of the present round.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Share {
    round: u64,
    /// Less than nothing: its last frame was longer than what it had.
    left_bytes: i64,
}

impl Share {
    /// The same in a later round. What was too much is taken off, what was left is gone.
    fn renewed(self, round: u64, quantum_bytes: u64) -> Share {
        // More than a quantum was sent while nobody else had anything: no debt.
        let quantum = quantum_bytes as i64;
        Share { round, left_bytes: quantum + self.left_bytes.clamp(-quantum, 0) }
    }
}

impl Turns {
    /// A stream has data, and is in no queue.
    #[inline]
    pub(super) fn enter(&mut self, key: StreamKey, stream: &mut Stream, quantum_bytes: u64) {
        stream.in_data = true;
        let has_begun = stream.share.round == self.round;
        if !has_begun {
            stream.share = stream.share.renewed(self.round, quantum_bytes);
        }
        match stream.share.left_bytes > 0 {
            true if stream.waiting_bytes() <= SMALL_FRAME_BYTES => self.sparse.push_back(key),
            // Its turn was cut short, and goes on.
            true if has_begun => self.bulk.push_front(key),
            _ => {
                self.sharing.0 += usize::from(!has_begun);
                self.bulk.push_back(key);
            }
        }
    }

    /// A stream whose frame has gone has more: it goes on while something is left of its share.
    #[inline]
    pub(super) fn enter_again(&mut self, key: StreamKey, stream: &mut Stream) {
        stream.in_data = true;
        if stream.share.round == self.round && stream.share.left_bytes > 0 {
            self.bulk.push_front(key);
        } else {
            self.bulk.push_back(key);
        }
    }

    /// A stream with little to say has got more than that, and bulk may not go now.
    pub(super) fn put_off(&mut self, key: StreamKey) {
        self.bulk.push_back(key);
    }

    #[inline]
    pub(super) fn next_sparse(&mut self) -> Option<StreamKey> {
        self.sparse.pop_front()
    }

    #[inline]
    pub(super) fn next_bulk(&mut self) -> Option<StreamKey> {
        self.bulk.pop_front()
    }

    /// A stream from `bulk` is to send: gives it its share, if it has none. `false`: it has sent
    /// that much more than its share before that this is another's turn.
    #[inline]
    pub(super) fn begin(&mut self, key: StreamKey, stream: &mut Stream, quantum: u64) -> bool {
        if stream.share.round == self.round && stream.share.left_bytes > 0 {
            return true;
        }
        // Some that were counted may have ended.
        self.left = self.left.min(self.bulk.len() + 1);
        if self.left == 0 {
            self.round += 1;
            self.left = self.bulk.len() + 1;
            self.sharing = (0, self.sharing.0);
        }
        self.left -= 1;
        self.sharing.0 += 1;
        stream.share = stream.share.renewed(self.round, quantum);
        if stream.share.left_bytes <= 0 && !self.bulk.is_empty() {
            self.bulk.push_back(key);
            return false;
        }
        true
    }

    /// Nobody else has data, nor had much a moment ago: whose socket is just being read is still
    /// to be shared with.
    #[inline]
    pub(super) fn is_alone(&self) -> bool {
        let (now, before) = self.sharing;
        self.sparse.is_empty() && self.bulk.is_empty() && now.max(before) <= 1
    }
}

impl Session {
    /// What a stream may send in its turn, in bytes.
    #[inline]
    pub(super) fn quantum_bytes(&self) -> u64 {
        match self.protocol {
            Protocol::V03 => self.payload_max(),
            Protocol::V1 => self.link_window.quantum_bytes(),
        }
    }
}

/// Takes a frame off a stream's share.
#[inline]
pub(super) fn charge(stream: &mut Stream, bytes: u64) {
    stream.share.left_bytes -= bytes as i64;
}
