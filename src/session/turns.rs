//! Scheduling of data: sparse streams first, then the others by deficit round robin over bytes.
//!
//! A round gives every stream with data one share, the quantum. A sparse stream sends at once, on
//! account of its share; when that is used up, it queues like all others. So a stream cannot gain
//! by its bytes arriving piece by piece, each of them just after the last was sent.

use std::collections::VecDeque;

use super::stream::Stream;
use super::{Session, StreamKey};
use crate::limits::SMALL_FRAME_BYTES;
use crate::wire::Protocol;

/// Streams with data, each in at most one queue.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// With little data and part of their share left.
    sparse: VecDeque<StreamKey>,
    bulk: VecDeque<StreamKey>,
    round: u64,
    /// Streams at the front of `bulk` that have not had their share in this round.
    left: usize,
    /// Number of streams that had a share in this round, and in the previous one.
    sharing: (usize, usize),
}

/// A stream's share of a round.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Share {
    round: u64,
    /// Negative if its last frame exceeded the share.
    left_bytes: i64,
}

impl Share {
    /// The share in a later round: a deficit is carried over, a remainder is not.
    fn renewed(self, round: u64, quantum_bytes: u64) -> Share {
        // More than one quantum was sent only because no other stream had data: no debt beyond one.
        let quantum = quantum_bytes.cast_signed();
        Share { round, left_bytes: quantum + self.left_bytes.clamp(-quantum, 0) }
    }
}

impl Turns {
    /// Queues a stream that has data and is in no queue.
    #[inline]
    pub(super) fn enter(&mut self, key: StreamKey, stream: &mut Stream, quantum_bytes: u64) {
        stream.in_data = true;
        let has_begun = stream.share.round == self.round;
        if !has_begun {
            stream.share = stream.share.renewed(self.round, quantum_bytes);
        }
        match stream.share.left_bytes > 0 {
            true if stream.waiting_bytes() <= SMALL_FRAME_BYTES => self.sparse.push_back(key),
            // Its turn was interrupted, and continues.
            true if has_begun => self.bulk.push_front(key),
            _ => {
                self.sharing.0 += usize::from(!has_begun);
                self.bulk.push_back(key);
            }
        }
    }

    /// Queues a stream that has more data after a frame: its turn continues while a part of its
    /// share is left.
    #[inline]
    pub(super) fn enter_again(&mut self, key: StreamKey, stream: &mut Stream) {
        stream.in_data = true;
        if stream.share.round == self.round && stream.share.left_bytes > 0 {
            self.bulk.push_front(key);
        } else {
            self.bulk.push_back(key);
        }
    }

    /// A sparse stream has more data than fits, and bulk may not be sent now.
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

    /// Gives a stream from `bulk` its share, if it has none in this round. `false`: its deficit
    /// exceeds the share, so the next stream is served.
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

    /// No other stream has data, or had much in the previous round. A stream whose socket is just
    /// being read still counts as present.
    #[inline]
    pub(super) fn is_alone(&self) -> bool {
        let (now, before) = self.sharing;
        self.sparse.is_empty() && self.bulk.is_empty() && now.max(before) <= 1
    }
}

impl Session {
    /// Bytes that a stream may send in its turn.
    #[inline]
    pub(super) fn quantum_bytes(&self) -> u64 {
        match self.protocol {
            Protocol::V03 => self.payload_max(),
            Protocol::V1 => self.link_window.quantum_bytes(),
        }
    }
}

/// Charges a frame to a stream's share.
#[inline]
pub(super) fn charge(stream: &mut Stream, bytes: u64) {
    stream.share.left_bytes -= bytes.cast_signed();
}
