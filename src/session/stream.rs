//! The streams of a session: state, keys that cannot be confused after reuse, and ids.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use slab::Slab;

use crate::limits::{ID_REUSE_DISTANCE, ORIGINAL_STREAMS_MAX, STREAM_ID_FIRST};
use crate::session::Moment;
use crate::wire::v03::NO_ID;

/// Names a stream: a slot and the generation of what is in it, so that the key of an ended
/// stream finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamKey {
    index: u32,
    generation: u32,
}

/// Where a stream is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Began here; the peer has not answered.
    Opening,
    /// Began at the peer; our exit has not answered.
    Accepting,
    /// Both ends stand.
    Open,
    /// We have sent CLOSE and wait for CLOSED.
    Closing,
}

/// How the local side of a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LocalEnd {
    /// It has not.
    Not,
    /// End of data: it may still take.
    Eof,
    /// Reset, or given up.
    Reset(&'static str),
}

/// Control frames that a stream has to send, in the order in which they go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Todo {
    pub(super) open: bool,
    pub(super) opened: bool,
    pub(super) urgent: Option<u8>,
    pub(super) urgent_taken: u32,
    pub(super) ack: bool,
    pub(super) end: bool,
    pub(super) close: bool,
}

impl Todo {
    pub(super) fn any(&self) -> bool {
        *self != Todo::default()
    }
}

/// CLOSE is held back until nothing has come for the local side for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hold {
    /// How long that is.
    pub(super) quiet: Duration,
    pub(super) until: Moment,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    generation: u32,
    /// The engine's number, once it has given one.
    pub(super) user: Option<u64>,
    /// Our id on the wire.
    pub(super) id: u16,
    /// The peer's id on the wire, once it is known.
    pub(super) peer_id: Option<u16>,
    /// It began here.
    pub(super) opener: bool,
    pub(super) state: State,
    pub(super) todo: Todo,
    /// Client and entrance at the opener, server and own address at the other.
    pub(super) addresses: (SocketAddr, SocketAddr),

    /// Bytes that the engine holds for us to send.
    pub(super) ready_bytes: u64,
    /// Bytes sent that the peer has not acknowledged; first data is not counted.
    pub(super) unacked_bytes: u64,
    pub(super) local_end: LocalEnd,
    /// The peer has been told of the end of our data.
    pub(super) end_sent: bool,
    /// The engine was told not to read, and waits for word.
    pub(super) read_paused: bool,
    /// The peer has answered since we last sent.
    pub(super) answered: bool,
    /// CLOSE is held back.
    pub(super) hold: Option<Hold>,

    /// Bytes delivered to the engine that the local socket has not taken.
    pub(super) backlog_bytes: u64,
    /// Of the backlog, at its front: first data, which is not acknowledged.
    pub(super) uncounted_bytes: u64,
    /// Bytes taken that the peer has not been told of.
    pub(super) ack_bytes: u64,
    /// The peer has told the end of its data.
    pub(super) peer_end: bool,
    /// The local side is gone: nothing can be delivered.
    pub(super) deaf: bool,

    /// In the queue of streams with control frames.
    pub(super) in_control: bool,
    /// In one of the queues of streams with data.
    pub(super) in_data: bool,
    /// In the list of acknowledgements that may wait.
    pub(super) in_lazy: bool,
}

/// All streams of a session, found by key or by our id.
#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Slab<Stream>,
    next_generation: u32,
    /// Slot + 1 by our id; 0 is none.
    by_id: Vec<u32>,
    /// Ids given back, oldest first.
    free_ids: VecDeque<u16>,
    /// Ids from here on were never used.
    fresh_id: u16,
}

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.slots.iter().map(|(_, stream)| stream)
    }

    /// A new stream, in the state given. `None` when ids up to `id_max` are used up.
    pub(super) fn insert(&mut self, state: State, opener: bool, id_max: u16) -> Option<StreamKey> {
        let id = self.take_id(id_max)?;
        self.next_generation = self.next_generation.wrapping_add(1);
        let generation = self.next_generation;
        let index = self.slots.insert(Stream {
            generation,
            user: None,
            id,
            peer_id: None,
            opener,
            state,
            todo: Todo::default(),
            addresses: (super::NO_ADDRESS, super::NO_ADDRESS),
            ready_bytes: 0,
            unacked_bytes: 0,
            local_end: LocalEnd::Not,
            end_sent: false,
            read_paused: false,
            answered: false,
            hold: None,
            backlog_bytes: 0,
            uncounted_bytes: 0,
            ack_bytes: 0,
            peer_end: false,
            deaf: false,
            in_control: false,
            in_data: false,
            in_lazy: false,
        }) as u32;
        if self.by_id.len() <= usize::from(id) {
            self.by_id.resize(usize::from(id) + 1, 0);
        }
        self.by_id[usize::from(id)] = index + 1;
        Some(StreamKey { index, generation })
    }

    pub(super) fn remove(&mut self, key: StreamKey) -> Option<Stream> {
        self.get(key)?;
        let stream = self.slots.remove(key.index as usize);
        self.by_id[usize::from(stream.id)] = 0;
        self.free_ids.push_back(stream.id);
        Some(stream)
    }

    #[inline]
    pub(super) fn get(&self, key: StreamKey) -> Option<&Stream> {
        self.slots.get(key.index as usize).filter(|stream| stream.generation == key.generation)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: StreamKey) -> Option<&mut Stream> {
        self.slots.get_mut(key.index as usize).filter(|stream| stream.generation == key.generation)
    }

    /// The stream that has this id of ours.
    #[inline]
    pub(super) fn by_id(&self, id: u16) -> Option<StreamKey> {
        let index = self.by_id.get(usize::from(id))?.checked_sub(1)?;
        Some(StreamKey { index, generation: self.slots[index as usize].generation })
    }

    /// Oldest free id, so that one is used again as late as can be; fresh ones first.
    fn take_id(&mut self, id_max: u16) -> Option<u16> {
        if self.fresh_id < STREAM_ID_FIRST {
            self.fresh_id = STREAM_ID_FIRST;
        }
        if self.fresh_id == NO_ID {
            self.fresh_id += 1;
        }
        if self.fresh_id <= id_max {
            self.fresh_id += 1;
            return Some(self.fresh_id - 1);
        }
        self.free_ids.pop_front()
    }
}

const _: () = assert!(ORIGINAL_STREAMS_MAX * ID_REUSE_DISTANCE < 255);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_skip_none_and_are_reused_as_late_as_can_be() {
        let mut streams = Streams::default();
        let mut keys = Vec::new();
        for _ in 0..300 {
            keys.push(streams.insert(State::Open, true, 1000).unwrap());
        }
        assert!(streams.iter().all(|stream| stream.id != NO_ID && stream.id >= STREAM_ID_FIRST));
        let mut small = Streams::default();
        let first = small.insert(State::Open, true, 4).unwrap();
        let second = small.insert(State::Open, true, 4).unwrap();
        let ids = (small.get(first).unwrap().id, small.get(second).unwrap().id);
        small.remove(first);
        small.remove(second);
        let third = small.insert(State::Open, true, 4).unwrap();
        assert_eq!(small.get(third).unwrap().id, 4);
        let fourth = small.insert(State::Open, true, 4).unwrap();
        assert_eq!(small.get(fourth).unwrap().id, ids.0);
        small.insert(State::Open, true, 4).unwrap();
        assert!(small.insert(State::Open, true, 4).is_none());
    }

    #[test]
    fn keys_of_ended_streams_find_nothing() {
        let mut streams = Streams::default();
        let old = streams.insert(State::Open, true, 254).unwrap();
        streams.remove(old);
        let new = streams.insert(State::Open, true, 254).unwrap();
        assert!(streams.get(old).is_none());
        assert!(streams.remove(old).is_none());
        assert!(streams.get(new).is_some());
        assert_eq!(streams.by_id(streams.get(new).unwrap().id), Some(new));
        assert_eq!(streams.by_id(9999), None);
    }
}
