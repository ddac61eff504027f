//! The streams of a session: their state, keys that stay unique after reuse, and ids.

use std::collections::VecDeque;
use std::net::SocketAddr;

use slab::Slab;

use crate::limits::{ID_REUSE_DISTANCE, ORIGINAL_STREAMS_MAX, STREAM_ID_FIRST, STREAMS_MAX};
use crate::narrow::to_u32;
use crate::session::Moment;
use crate::session::hold::Hold;
use crate::session::ports::PortRequests;
use crate::session::runs::Runs;
use crate::session::turns::Share;
use crate::session::window::ConsumeRate;
use crate::wire::StreamRef;
use crate::wire::v03::NO_ID;

/// Key of a stream: a slot and the generation of its content, so that the key of an ended stream
/// finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamKey {
    index: u32,
    generation: u32,
}

/// Life cycle of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamState {
    /// Opened here; the peer has not answered.
    Opening,
    /// Opened by the peer; our exit has not answered.
    Accepting,
    /// Established at both ends.
    Open,
    /// CLOSE was sent, CLOSED is awaited.
    Closing,
}

/// How the local side of a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LocalEnd {
    /// It has not ended.
    Not,
    /// End of data: it may still receive.
    Eof,
    /// Reset, or given up.
    Reset(&'static str),
}

/// Control frames that a stream has to send, in the order in which they are sent.
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

/// State of one stream.
#[derive(Debug)]
pub(super) struct Stream {
    generation: u32,
    /// The engine's number, once it is set.
    pub(super) user: Option<u64>,
    /// Our id on the wire.
    pub(super) id: u32,
    /// The peer's id on the wire, once it is known.
    pub(super) peer_id: Option<u32>,
    /// Opened here.
    pub(super) opener: bool,
    pub(super) state: StreamState,
    pub(super) todo: Todo,
    /// At the opener: client and entrance. At the other side: server and own address.
    pub(super) addresses: (SocketAddr, SocketAddr),

    /// State of port requests; few streams have any.
    pub(super) ports: Option<Box<PortRequests>>,
    /// Queued datagrams, if the stream carries datagrams.
    pub(super) datagrams: Option<Runs>,
    /// Bytes that the engine holds ready to be sent; not used for datagrams.
    pub(super) ready_bytes: u64,
    /// Bytes sent and not acknowledged; first data is not counted.
    pub(super) unacked_bytes: u64,
    pub(super) local_end: LocalEnd,
    /// The local side had ended its data before it was reset.
    pub(super) end_before_reset: bool,
    /// The end of our data was queued for the peer.
    pub(super) end_sent: bool,
    /// SockMux 1: bytes that may be sent before the peer grants more.
    pub(super) credit_bytes: u64,
    /// The stream may still move to another tunnel: neither the peer nor our exit has accepted it.
    /// Never so for related streams.
    pub(super) tentative: bool,
    /// SockMux 1: credit withheld until the peer accepts the stream.
    pub(super) held_bytes: u64,
    /// SockMux 1: END was sent.
    pub(super) end_gone: bool,
    /// The engine was told not to read, and waits for [`super::Event::ReadMore`].
    pub(super) read_paused: bool,
    /// Data was received since we last sent.
    pub(super) answered: bool,
    /// CLOSE is held.
    pub(super) hold: Option<Hold>,

    /// Bytes delivered to the engine and not consumed by the local socket.
    pub(super) backlog_bytes: u64,
    /// First data at the front of the backlog, which is not acknowledged.
    pub(super) uncounted_bytes: u64,
    /// Bytes consumed and not yet reported to the peer.
    pub(super) ack_bytes: u64,
    /// SockMux 1: bytes that the peer may send before we grant more.
    pub(super) allowance_bytes: u64,
    /// SockMux 1: the receive window.
    pub(super) window_bytes: u64,
    /// When it was opened, if it was opened here.
    pub(super) began: Moment,
    /// SockMux 1: when credit was last granted.
    pub(super) granted_at: Moment,
    /// SockMux 1: when the first byte after that grant was received.
    pub(super) filling_since: Option<Moment>,
    /// SockMux 1: rate at which the local socket consumes.
    pub(super) rate: ConsumeRate,
    /// The peer has ended its data.
    pub(super) peer_end: bool,
    /// SockMux 1: whether the last frame sent, and the last received, was small.
    pub(super) small_out: bool,
    pub(super) small_in: bool,
    /// The local side is gone: nothing can be delivered.
    pub(super) write_failed: bool,

    /// Payload received for it, and handed out to be sent.
    pub(super) payload_bytes_in: u64,
    pub(super) payload_bytes_out: u64,
    /// In the queue of streams with control frames.
    pub(super) in_control: bool,
    /// In one of the queues of streams with data.
    pub(super) in_data: bool,
    /// What the stream may send in its turn.
    pub(super) share: Share,
    /// In the list of acknowledgements that may be delayed.
    pub(super) in_lazy: bool,
}

impl Stream {
    /// A stream at its beginning, under our id and the peer's.
    #[inline]
    fn new(
        generation: u32,
        (id, peer_id): (u32, Option<u32>),
        opener: bool,
        state: StreamState,
    ) -> Stream {
        Stream {
            generation,
            user: None,
            id,
            peer_id,
            opener,
            state,
            todo: Todo::default(),
            addresses: (super::NO_ADDRESS, super::NO_ADDRESS),
            ports: None,
            datagrams: None,
            ready_bytes: 0,
            payload_bytes_in: 0,
            payload_bytes_out: 0,
            unacked_bytes: 0,
            local_end: LocalEnd::Not,
            end_before_reset: false,
            end_sent: false,
            credit_bytes: 0,
            tentative: false,
            held_bytes: 0,
            end_gone: false,
            read_paused: false,
            answered: false,
            hold: None,
            backlog_bytes: 0,
            uncounted_bytes: 0,
            ack_bytes: 0,
            allowance_bytes: 0,
            window_bytes: 0,
            began: Moment::default(),
            granted_at: Moment::default(),
            filling_since: None,
            rate: ConsumeRate::default(),
            peer_end: false,
            small_out: true,
            small_in: true,
            write_failed: false,
            in_control: false,
            in_data: false,
            share: Share::default(),
            in_lazy: false,
        }
    }
}

/// All streams of a session, by key and by our id.
#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Slab<Stream>,
    next_generation: u32,
    /// 0.3: slot + 1 by our id, or 0. Ids are assigned consecutively.
    by_id: Vec<u32>,
    /// Ids that were released, oldest first.
    free_ids: VecDeque<u32>,
    /// Ids from here on were never used.
    fresh_id: u32,
    /// SockMux 1: number of streams that each of our slots has had.
    generations: Vec<u32>,
    /// SockMux 1, by the slot in the peer's number: that number, and our slot + 1.
    theirs: Vec<(u32, u32)>,
}

/// How a new stream is numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbering {
    /// 0.3: the receiver's own id, up to this one, whichever side opened the stream.
    UpTo(u32),
    /// SockMux 1: slot and generation, assigned by us as the opener.
    Ours,
    /// SockMux 1: this number, assigned by the peer as the opener.
    Theirs(u32),
}

/// Bits of a SockMux 1 number that hold its slot; the rest is a generation.
const SLOT_BITS: u32 = 20;

fn index_of(number: u32) -> u32 {
    number & ((1 << SLOT_BITS) - 1)
}

fn slot_of(number: u32) -> usize {
    index_of(number) as usize
}

const _: () = assert!(STREAMS_MAX < 1 << SLOT_BITS);

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.slots.iter().map(|(_, stream)| stream)
    }

    /// Inserts a stream in the state given. `None` when no number is free.
    pub(super) fn insert(
        &mut self,
        state: StreamState,
        opener: bool,
        numbering: Numbering,
    ) -> Option<StreamKey> {
        let peer_id = match numbering {
            Numbering::Theirs(number) => Some(number),
            _ => None,
        };
        if peer_id.is_some_and(|number| slot_of(number) >= STREAMS_MAX as usize) {
            return None;
        }
        let short = match numbering {
            Numbering::UpTo(id_max) => Some(self.take_id(id_max)?),
            _ => None,
        };
        self.next_generation = self.next_generation.wrapping_add(1);
        let generation = self.next_generation;
        let id = short.unwrap_or_default();
        let stream = Stream::new(generation, (id, peer_id), opener, state);
        let index = to_u32(self.slots.insert(stream));
        match (short, peer_id) {
            (Some(id), _) => put(&mut self.by_id, id as usize, index + 1),
            (None, Some(number)) => {
                put(&mut self.theirs, slot_of(number), (number, index + 1));
            }
            (None, None) => {
                // Generations are counted per slot, so that a number is reused as late as possible.
                let last = self.generations.get(index as usize).copied().unwrap_or_default();
                let next: u32 = last.wrapping_add(1);
                put(&mut self.generations, index as usize, next);
                self.slots[index as usize].id = next << SLOT_BITS | index;
            }
        }
        Some(StreamKey { index, generation })
    }

    pub(super) fn remove(&mut self, key: StreamKey) -> Option<Stream> {
        self.get(key)?;
        let stream = self.slots.remove(key.index as usize);
        if let Some(slot) = self.by_id.get_mut(stream.id as usize)
            && *slot == key.index + 1
        {
            *slot = 0;
            self.free_ids.push_back(stream.id);
        } else if let Some(number) = stream.peer_id.filter(|_| !stream.opener) {
            self.theirs[slot_of(number)] = (0, 0);
        }
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

    /// Finds the stream of a 0.3 frame.
    #[inline]
    pub(super) fn by_short(&self, name: StreamRef) -> Option<StreamKey> {
        let StreamRef::Ours(id) = name else { return None };
        let index = self.by_id.get(id as usize)?.checked_sub(1)?;
        Some(StreamKey { index, generation: self.slots[index as usize].generation })
    }

    /// Finds the stream that the peer opened under this id of its own, in 0.3. Linear search.
    pub(super) fn of_peer(&self, id: u32) -> Option<StreamKey> {
        let mut streams = self.slots.iter();
        let is_it = |stream: &Stream| !stream.opener && stream.peer_id == Some(id);
        let (index, stream) = streams.find(|(_, stream)| is_it(stream))?;
        Some(StreamKey { index: to_u32(index), generation: stream.generation })
    }

    /// Finds the stream of a SockMux 1 frame.
    #[inline]
    pub(super) fn by_number(&self, name: StreamRef) -> Option<StreamKey> {
        let (index, number) = match name {
            StreamRef::Ours(number) => (index_of(number), number),
            StreamRef::Theirs(number) => {
                let (found, slot) = *self.theirs.get(slot_of(number))?;
                (slot.checked_sub(1).filter(|_| found == number)?, number)
            }
            StreamRef::None => return None,
        };
        let stream = self.slots.get(index as usize)?;
        let is_it = match name {
            StreamRef::Ours(_) => stream.opener && stream.id == number,
            _ => true,
        };
        is_it.then_some(StreamKey { index, generation: stream.generation })
    }

    /// Whether the slot of the peer's number is in use.
    pub(super) fn is_taken(&self, number: u32) -> bool {
        self.theirs.get(slot_of(number)).is_some_and(|&(_, slot)| slot != 0)
    }

    /// Takes a fresh id, or else the oldest free one, so that ids are reused as late as possible.
    fn take_id(&mut self, id_max: u32) -> Option<u32> {
        if self.fresh_id < STREAM_ID_FIRST {
            self.fresh_id = STREAM_ID_FIRST;
        }
        if self.fresh_id == u32::from(NO_ID) {
            self.fresh_id += 1;
        }
        if self.fresh_id <= id_max {
            self.fresh_id += 1;
            return Some(self.fresh_id - 1);
        }
        self.free_ids.pop_front()
    }
}

/// Sets a value in a table, which grows to hold it.
fn put<T: Clone + Default>(table: &mut Vec<T>, at: usize, value: T) {
    if table.len() <= at {
        table.resize(at + 1, T::default());
    }
    table[at] = value;
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
            keys.push(streams.insert(StreamState::Open, true, Numbering::UpTo(1000)).unwrap());
        }
        assert!(
            streams
                .iter()
                .all(|stream| stream.id != u32::from(NO_ID) && stream.id >= STREAM_ID_FIRST)
        );
        let mut small = Streams::default();
        let first = small.insert(StreamState::Open, true, Numbering::UpTo(4)).unwrap();
        let second = small.insert(StreamState::Open, true, Numbering::UpTo(4)).unwrap();
        let ids = (small.get(first).unwrap().id, small.get(second).unwrap().id);
        small.remove(first);
        small.remove(second);
        let third = small.insert(StreamState::Open, true, Numbering::UpTo(4)).unwrap();
        assert_eq!(small.get(third).unwrap().id, 4);
        let fourth = small.insert(StreamState::Open, true, Numbering::UpTo(4)).unwrap();
        assert_eq!(small.get(fourth).unwrap().id, ids.0);
        small.insert(StreamState::Open, true, Numbering::UpTo(4)).unwrap();
        assert!(small.insert(StreamState::Open, true, Numbering::UpTo(4)).is_none());
    }

    #[test]
    fn a_number_comes_back_after_all_generations_of_its_slot() {
        let mut streams = Streams::default();
        let mut insert = |keep: bool| {
            let key = streams.insert(StreamState::Open, true, Numbering::Ours).unwrap();
            let number = streams.get(key).unwrap().id;
            assert_eq!(streams.by_number(StreamRef::Ours(number)), Some(key));
            assert_eq!(streams.by_number(StreamRef::Theirs(number)), None);
            if !keep {
                streams.remove(key);
            }
            number
        };
        let first = insert(false);
        let rest: Vec<u32> = (1..1 << (32 - SLOT_BITS)).map(|_| insert(false)).collect();
        assert!(rest.iter().all(|&number| number != first && slot_of(number) == slot_of(first)));
        assert_eq!(insert(true), first);
        assert_ne!(slot_of(insert(true)), slot_of(first));
    }

    #[test]
    fn keys_of_ended_streams_find_nothing() {
        let mut streams = Streams::default();
        let old = streams.insert(StreamState::Open, true, Numbering::UpTo(254)).unwrap();
        streams.remove(old);
        let new = streams.insert(StreamState::Open, true, Numbering::UpTo(254)).unwrap();
        assert!(streams.get(old).is_none());
        assert!(streams.remove(old).is_none());
        assert!(streams.get(new).is_some());
        assert_eq!(streams.by_short(StreamRef::Ours(streams.get(new).unwrap().id)), Some(new));
        assert_eq!(streams.by_short(StreamRef::Ours(9999)), None);
    }
}
