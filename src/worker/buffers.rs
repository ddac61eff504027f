//! What the worker builds batches with: buffers for heads and small payload, empty gathers, pipes.

use std::cell::Cell;
use std::io;

use crate::io::chunk::{Chunk, ChunkMut, Pool};
use crate::io::driver::Gather;
use crate::io::link::Link;
use crate::io::pipe::Pipes;
use crate::limits::{
    BULK_BUFFER_BYTES, COPY_BYTES, FRAME_BUFFERS, PACKED_TOGETHER_MAX, POOL_BUFFER_BYTES,
    POOL_RESERVE_PART,
};
use crate::worker::stream::payload_queue::{PayloadQueue, Piece};

/// Buffers and gathers, used again and again.
pub(super) struct Buffers {
    pool: Pool,
    /// Buffers kept back from slow readers.
    reserve: usize,
    /// Where heads and small payload are written, one behind the other.
    arena: ChunkMut,
    /// Gathers not in use, boxed as the driver takes them.
    #[allow(clippy::vec_box)]
    gathers: Vec<Box<Gather>>,
    /// Where the session writes a head.
    pub(super) head: Vec<u8>,
    /// Where a link is read ahead into, one read behind the other.
    ahead: ChunkMut,
    /// What is spliced passes through these.
    pub(super) pipes: Pipes,
    /// Times that a link was read ahead.
    pub(super) ahead_reads: u64,
    /// Bytes of payload that were copied within the process.
    copied_bytes: Cell<u64>,
}

impl Buffers {
    /// With a pool of so many buffers.
    pub(super) fn new(pool_buffers: u32) -> io::Result<Buffers> {
        let pool = Pool::new(POOL_BUFFER_BYTES, pool_buffers)?;
        let reserve = pool.capacity() / POOL_RESERVE_PART;
        let take = || pool.take().ok_or_else(|| io::Error::other("the buffer pool is empty"));
        let (arena, ahead) = (take()?, take()?);
        let (gathers, head) = (Vec::new(), Vec::with_capacity(512));
        let (pipes, copied_bytes) = (Pipes::default(), Cell::new(0));
        Ok(Buffers {
            pool,
            reserve,
            arena,
            gathers,
            head,
            ahead,
            pipes,
            ahead_reads: 0,
            copied_bytes,
        })
    }

    /// Buffers that nobody holds.
    pub(super) fn free_buffers(&self) -> usize {
        self.pool.free()
    }

    /// A handle to the pool.
    #[cfg(test)]
    pub(super) fn pool(&self) -> Pool {
        self.pool.clone()
    }

    pub(super) fn take_gather(&mut self) -> Box<Gather> {
        self.gathers.pop().unwrap_or_default()
    }

    pub(super) fn give_back(&mut self, mut gather: Box<Gather>) {
        gather.clear();
        self.gathers.push(gather);
    }

    /// Bytes of payload that were copied, those that stood in pipes among them.
    pub(super) fn copied_bytes(&self) -> u64 {
        self.copied_bytes.get() + self.pipes.counts.copied_bytes.get()
    }

    #[inline]
    fn count_copied(&self, bytes: usize) {
        self.copied_bytes.set(self.copied_bytes.get() + bytes as u64);
    }

    /// Whether a frame can be written now: its head; payload needs no buffers.
    pub(super) fn can_write_frame(&self) -> bool {
        self.pool.free() >= FRAME_BUFFERS
    }

    /// Whether a link can be read ahead, and frames be written beside.
    pub(super) fn can_read_ahead(&self) -> bool {
        self.pool.free() > FRAME_BUFFERS
    }

    /// Copies bytes to the end of a batch: a head, or what there is [room for](Self::has_room_for).
    pub(super) fn write(&mut self, gather: &mut Gather, mut bytes: &[u8]) {
        loop {
            let took = self.arena.put(bytes);
            bytes = &bytes[took..];
            gather.push(self.arena.take_written());
            if bytes.is_empty() {
                return;
            }
            self.arena = self.pool.take().expect("can_write_frame was asked");
        }
    }

    /// Whether so many bytes can be kept, and frames be written beside.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.pool.free() > self.reserve + bytes / POOL_BUFFER_BYTES as usize
    }

    /// Copies bytes to the end of a queue.
    pub(super) fn store(&mut self, mut bytes: &[u8], queue: &mut PayloadQueue) {
        self.count_copied(bytes.len());
        while !bytes.is_empty() {
            if self.arena.room() == 0 {
                self.arena = self.pool.take().expect("has_room_for was asked");
            }
            let took = self.arena.put(bytes);
            bytes = &bytes[took..];
            queue.join_chunk(self.arena.take_written());
        }
    }

    /// As [`Buffers::write`], with what the session has written to `head`.
    pub(super) fn write_head(&mut self, gather: &mut Gather) {
        let head = std::mem::take(&mut self.head);
        self.write(gather, &head);
        self.head = head;
        self.head.clear();
    }

    /// Moves `bytes` from the front of `input` to the end of a batch: small pieces are copied, large
    /// ones stay where they were received, and so do all while the pool is nearly used up. Ends
    /// before what stands in the pipe, and says how many bytes are left then.
    pub(super) fn append(
        &mut self,
        gather: &mut Gather,
        input: &mut PayloadQueue,
        bytes: u64,
    ) -> usize {
        let mut left = bytes as usize;
        while left > 0 {
            match input.front_mut().expect("the session was told of more than there is") {
                Piece::Piped(_) => break,
                Piece::Chunk(front) => {
                    let part = front.len().min(left);
                    left -= part;
                    let has_room = self.arena.room() >= part || self.pool.free() > FRAME_BUFFERS;
                    if part <= COPY_BYTES && has_room {
                        self.count_copied(part);
                        self.write(gather, &front[..part]);
                        front.advance(part);
                    } else {
                        gather.push(front.split_to(part));
                    }
                    if front.is_empty() {
                        input.pop_front();
                    }
                }
            }
        }
        left
    }

    /// Receives up to `most_bytes` at once: `None` at the end of data.
    pub(super) fn read_ahead(
        &mut self,
        link: &Link,
        most_bytes: usize,
    ) -> io::Result<Option<Chunk>> {
        if self.ahead.room() < most_bytes {
            self.ahead = self.take_ahead().ok_or(io::Error::from_raw_os_error(libc::ENOBUFS))?;
        }
        self.ahead_reads += 1;
        let got = link.receive(&mut self.ahead, most_bytes)?;
        Ok((got > 0).then(|| self.ahead.take_written()))
    }

    fn take_ahead(&self) -> Option<ChunkMut> {
        self.can_read_ahead().then(|| self.pool.take()).flatten()
    }

    /// A chunk with a copy of the first of `bytes`, and how many they are. `None`: the pool is used
    /// up.
    pub(super) fn chunk_of(&mut self, bytes: &[u8]) -> Option<(Chunk, usize)> {
        if self.ahead.room() == 0 {
            self.ahead = self.take_ahead()?;
        }
        let took = self.ahead.put(bytes);
        Some((self.ahead.take_written(), took))
    }

    /// Copies a chunk to the end of `output` into buffers of the pool, so that the chunk's own can
    /// go back. `false`: the pool is used up.
    pub(super) fn spill(
        &self,
        chunk: &Chunk,
        tail: &mut Option<ChunkMut>,
        output: &mut PayloadQueue,
    ) -> bool {
        let mut bytes: &[u8] = chunk;
        while !bytes.is_empty() {
            let buffer = match tail {
                Some(buffer) if buffer.room() > 0 => buffer,
                _ => {
                    if self.pool.free() <= self.reserve {
                        return false;
                    }
                    let Some(buffer) = self.pool.take() else { return false };
                    tail.insert(buffer)
                }
            };
            let took = buffer.put(bytes);
            self.count_copied(took);
            bytes = &bytes[took..];
            output.join_chunk(buffer.take_written());
        }
        true
    }

    /// Copies a chunk that waits for the link to the end of `input`, so that its receive buffer can go
    /// back: a stream's first few behind those of others, into the first of `tails`, the others into
    /// the second, which is its own. `false`, and nothing is copied, when half of the pool is in use.
    pub(super) fn pack(
        &self,
        chunk: &Chunk,
        tails: (&mut Option<ChunkMut>, &mut Option<ChunkMut>),
        input: &mut PayloadQueue,
    ) -> bool {
        if !self.has_half_beside(chunk.len()) {
            return false;
        }
        let tail = if input.pieces() < PACKED_TOGETHER_MAX { tails.0 } else { tails.1 };
        self.spill(chunk, tail, input)
    }

    /// Whether so much of what waits can be copied, and half of the pool be left for others.
    pub(super) fn has_half_beside(&self, bytes: usize) -> bool {
        self.pool.free() > self.pool.capacity() / 2 + bytes / POOL_BUFFER_BYTES as usize
    }

    /// Copies what stands in bulk receive buffers into buffers of the pool, in its place, as long as
    /// half of them are left for others. `tail` is the queue's own.
    pub(super) fn copy_bulk(&self, tail: &mut Option<ChunkMut>, queue: &mut PayloadQueue) {
        if !queue.holds(is_bulk) {
            return;
        }
        for piece in queue.take_queue() {
            match piece {
                Piece::Chunk(chunk) if is_bulk(&chunk) && self.has_half_beside(chunk.len()) => {
                    let is_copied = self.spill(&chunk, tail, queue);
                    debug_assert!(is_copied, "half of the pool is more than its reserve");
                }
                Piece::Chunk(chunk) => queue.push_chunk(chunk),
                Piece::Piped(bytes) => queue.push_piped(bytes),
            }
        }
    }

    /// The same with a batch: all of it or, `false`, nothing.
    pub(super) fn copy_bulk_of_batch(&self, gather: &mut Gather) -> bool {
        if !self.has_half_beside(gather.len_bytes()) {
            return false;
        }
        let mut batch = PayloadQueue::default();
        gather.drain().for_each(|chunk| batch.push_chunk(chunk));
        self.copy_bulk(&mut None, &mut batch);
        while let Some(chunk) = batch.pop_chunk() {
            gather.push(chunk);
        }
        true
    }

    /// Copies what stands in the pipes of an output into buffers of the pool, as long as half of them
    /// are left for others.
    ///
    /// # Errors
    /// A pipe cannot be read.
    pub(super) fn empty_pipes(&mut self, output: &mut PayloadQueue) -> io::Result<()> {
        let Buffers { pool, pipes, .. } = self;
        output.leave_pipes(pipes, || {
            (pool.free() > pool.capacity() / 2).then(|| pool.take()).flatten()
        })
    }

    /// Copies all that is left of a gather into buffers of the pool, so that those it came in can
    /// go back. `false`: the pool is used up.
    pub(super) fn keep(&self, gather: &mut Gather) -> bool {
        let (mut tail, mut kept) = (None, PayloadQueue::default());
        let enough = gather.drain().all(|chunk| self.spill(&chunk, &mut tail, &mut kept));
        while let Some(chunk) = kept.pop_chunk() {
            gather.push(chunk);
        }
        enough
    }
}

/// It keeps a bulk receive buffer, of which there are few.
fn is_bulk(chunk: &Chunk) -> bool {
    chunk.buffer_bytes() == BULK_BUFFER_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all_but(kit: &Buffers, left: usize) -> Vec<ChunkMut> {
        let mut taken = Vec::new();
        while kit.free_buffers() > left {
            taken.extend(kit.pool.take());
        }
        taken
    }

    /// Messages that each stand in a buffer of its own.
    fn messages(bytes: &[u8], message_bytes: usize) -> PayloadQueue {
        let pool = Pool::new(message_bytes as u32, (bytes.len() / message_bytes) as u32).unwrap();
        let mut pieces = PayloadQueue::default();
        for message in bytes.chunks(message_bytes) {
            let mut buffer = pool.take().unwrap();
            buffer.put(message);
            pieces.push_chunk(buffer.take_written());
        }
        pieces
    }

    #[test]
    fn a_frame_of_many_small_pieces_is_written_from_the_last_buffers() {
        let mut kit = Buffers::new(64).unwrap();
        let _taken = take_all_but(&kit, FRAME_BUFFERS);
        let bytes: Vec<u8> = (0..256 * COPY_BYTES).map(|n| (n / 7) as u8).collect();
        let mut pieces = messages(&bytes, COPY_BYTES);
        let mut gather = kit.take_gather();
        assert!(kit.can_write_frame());
        kit.head.extend(b"head");
        kit.write_head(&mut gather);
        assert_eq!(kit.append(&mut gather, &mut pieces, bytes.len() as u64), 0);
        let sent: Vec<u8> = gather.iter().flat_map(|part| part.to_vec()).collect();
        assert!(sent[..4] == *b"head" && sent[4..] == bytes);
        assert!(pieces.is_empty());
    }

    #[test]
    fn bulk_buffers_come_back_until_half_of_the_pool_is_used() {
        let kit = Buffers::new(64).unwrap();
        let bulk = Pool::new(BULK_BUFFER_BYTES, 4).unwrap();
        let mut buffer = bulk.take().unwrap();
        let bytes: Vec<u8> = (0..BULK_BUFFER_BYTES).map(|n| (n / 7) as u8).collect();
        buffer.put(&bytes);
        let (first, mut rest) = (buffer.take_written().split_to(100_000), PayloadQueue::default());
        drop(buffer);
        let (mut batch, mut tail) = (Gather::default(), None);
        batch.push(first.clone());
        rest.push_chunk(first);
        assert_eq!(bulk.free(), 3);
        // Others have half of it.
        let taken = take_all_but(&kit, kit.pool.capacity() / 2);
        assert!(!kit.copy_bulk_of_batch(&mut batch));
        kit.copy_bulk(&mut tail, &mut rest);
        assert_eq!(bulk.free(), 3);
        drop(taken);
        assert!(kit.copy_bulk_of_batch(&mut batch));
        rest.push_piped(5);
        kit.copy_bulk(&mut tail, &mut rest);
        assert_eq!(bulk.free(), 4);
        let sent: Vec<u8> = batch.iter().flat_map(|part| part.to_vec()).collect();
        let mut kept = Vec::new();
        assert!(rest.copy_front(100_000, &mut kept));
        assert!(sent == bytes[..100_000] && kept == sent);
        assert_eq!(rest.len_bytes(), 100_005);
    }

    #[test]
    fn what_waits_is_packed_until_half_of_the_pool_is_used() {
        let kit = Buffers::new(64).unwrap();
        let (mut shared, mut input) = (None, [PayloadQueue::default(), PayloadQueue::default()]);
        let mut own = [None, None];
        let message = messages(&[7; 100], 100).pop_chunk().unwrap();
        let before = kit.free_buffers();
        for _ in 0..PACKED_TOGETHER_MAX {
            for (input, own) in input.iter_mut().zip(&mut own) {
                assert!(kit.pack(&message, (&mut shared, own), input));
            }
        }
        assert_eq!(kit.free_buffers(), before - 1, "the first few of all stand together");
        for _ in 0..10 * POOL_BUFFER_BYTES as usize / message.len() {
            kit.pack(&message, (&mut shared, &mut own[0]), &mut input[0]);
        }
        assert!(input[0].pieces() < PACKED_TOGETHER_MAX + 20, "the others are put together");
        assert!(kit.free_buffers() >= before - 13, "in buffers that are filled");
        let _taken = take_all_but(&kit, kit.pool.capacity() / 2);
        assert!(!kit.pack(&message, (&mut shared, &mut own[1]), &mut input[1]));
    }
}
