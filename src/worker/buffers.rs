//! Buffers of the worker: the pool for frame heads and small payload, reusable gathers, and pipes
//! for splicing. All planes build their batches with these and spill into the pool what slow
//! readers leave behind. Callers must check for room first where a method says so.

use std::cell::Cell;
use std::io;

use crate::io::chunk::{Chunk, ChunkMut, Pool};
use crate::io::driver::Gather;
use crate::io::link::Link;
use crate::io::pipe::{Pipe, Pipes};
use crate::limits::{
    BULK_BUFFER_BYTES, COPY_BYTES, FRAME_BUFFERS, PACKED_TOGETHER_MAX, POOL_BUFFER_BYTES,
    POOL_LOW_PART, POOL_RESERVE_PART, POOL_SCARCE_PART,
};
use crate::worker::payload_queue::{PayloadQueue, Piece};

/// Reason while [`Buffers::are_low`].
pub(super) const ARE_LOW: &str =
    "slow readers hold most of the memory that there is for them: no further streams for now";

/// The buffer pool, with gathers and pipes that are reused.
pub(super) struct Buffers {
    pool: Pool,
    /// Pool buffers that slow readers may not use.
    reserve: usize,
    /// Heads and small payload are written here one after the other.
    arena: ChunkMut,
    /// Unused gathers, boxed because the driver takes boxes.
    #[allow(clippy::vec_box)]
    gathers: Vec<Box<Gather>>,
    /// Scratch space for the head that the session encodes.
    pub(super) head: Vec<u8>,
    /// Link data is read ahead into this one read after the other.
    ahead: ChunkMut,
    /// Pipes for splicing.
    pub(super) pipes: Pipes,
    /// Number of reads ahead from links.
    pub(super) ahead_reads: u64,
    /// Payload bytes copied within the process.
    copied_bytes: Cell<u64>,
}

impl Buffers {
    /// With a pool of this many buffers.
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

    /// Number of free buffers.
    pub(super) fn free_buffers(&self) -> usize {
        self.pool.free()
    }

    /// Whether so little is left that no further streams are to be let in.
    pub(super) fn are_low(&self) -> bool {
        self.pool.free() < self.pool.capacity() / POOL_LOW_PART
    }

    /// How many buffers too few are free, so that they are to be taken from those that hold most. 0: none.
    pub(super) fn scarcity(&self) -> usize {
        (self.pool.capacity() / POOL_SCARCE_PART).saturating_sub(self.pool.free())
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

    /// Payload bytes copied, including those copied out of pipes.
    pub(super) fn copied_bytes(&self) -> u64 {
        self.copied_bytes.get() + self.pipes.counts.copied_bytes.get()
    }

    #[inline]
    fn count_copied(&self, bytes: usize) {
        self.copied_bytes.set(self.copied_bytes.get() + bytes as u64);
    }

    /// Whether the head of a frame can be written now. Payload itself needs no buffers.
    pub(super) fn can_write_frame(&self) -> bool {
        self.pool.free() >= FRAME_BUFFERS
    }

    /// Whether a link can be read ahead while frames can still be written.
    pub(super) fn can_read_ahead(&self) -> bool {
        self.pool.free() > FRAME_BUFFERS
    }

    /// Copies bytes to the end of a batch: a head, or data that there is [room
    /// for](Self::has_room_for).
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

    /// Lets `write` put bytes at the end of a batch: it is given room for `least_bytes` or more, and
    /// returns how many it has written. `false`, without calling it: the pool is exhausted. A batch that
    /// is empty may take what is kept for frames.
    pub(super) fn write_by(
        &mut self,
        gather: &mut Gather,
        least_bytes: usize,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) -> bool {
        if self.arena.room() < least_bytes {
            let may_take = gather.is_empty() || self.pool.free() > FRAME_BUFFERS;
            let Some(next) = may_take.then(|| self.pool.take()).flatten() else { return false };
            self.arena = next;
        }
        let is_written = self.arena.fill(|room| Ok(write(room))).is_ok();
        gather.push(self.arena.take_written());
        is_written
    }

    /// Whether this many bytes can be stored while frames can still be written.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.pool.free() > self.reserve + bytes / POOL_BUFFER_BYTES as usize
    }

    /// Copies bytes to the end of a queue. The caller has checked [`Buffers::has_room_for`].
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

    /// As [`Buffers::write`], with the contents of `head`.
    pub(super) fn write_head(&mut self, gather: &mut Gather) {
        let head = std::mem::take(&mut self.head);
        self.write(gather, &head);
        self.head = head;
        self.head.clear();
    }

    /// Moves `bytes` from the front of `input` to the end of a batch. Small pieces are copied;
    /// large ones stay in their receive buffers, and so do all pieces while the pool is nearly
    /// exhausted. Stops at data that is in the pipe, and returns the number of bytes left.
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

    /// A chunk with a copy of as many of `bytes` as fit, and their number. `None`: the pool is
    /// exhausted.
    pub(super) fn chunk_of(&mut self, bytes: &[u8]) -> Option<(Chunk, usize)> {
        if self.ahead.room() == 0 {
            self.ahead = self.take_ahead()?;
        }
        let took = self.ahead.put(bytes);
        Some((self.ahead.take_written(), took))
    }

    /// Copies a chunk to the end of `output` into pool buffers, so that its receive buffer can be
    /// returned. `false`: the pool is exhausted.
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

    /// Copies a chunk that waits for the link to the end of `input`, so that its receive buffer can
    /// be returned. The first few chunks of a stream go to the first of `tails`, which streams
    /// share; later ones go to the second, which is the stream's own. `false`, without a copy, when
    /// half of the pool is in use.
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

    /// Whether this many waiting bytes can be copied and half of the pool is still free.
    pub(super) fn has_half_beside(&self, bytes: usize) -> bool {
        self.pool.free() > self.pool.capacity() / 2 + bytes / POOL_BUFFER_BYTES as usize
    }

    /// Copies data in bulk receive buffers into pool buffers, in place, while half of the pool is
    /// free. `tail` is the queue's own.
    pub(super) fn copy_bulk(&self, tail: &mut Option<ChunkMut>, queue: &mut PayloadQueue) {
        if !queue.holds(is_bulk) {
            return;
        }
        let may_copy = |chunk: &Chunk| is_bulk(chunk) && self.has_half_beside(chunk.len());
        let are_copied = self.copy_such(tail, queue, may_copy);
        debug_assert!(are_copied, "half of the pool is more than its reserve");
    }

    /// Copies data in receive buffers of every kind into pool buffers, in place. `false`: the pool is used
    /// up, and some of the data is lost.
    pub(super) fn copy_received(
        &self,
        tail: &mut Option<ChunkMut>,
        queue: &mut PayloadQueue,
    ) -> bool {
        self.copy_such(tail, queue, |chunk| chunk.buffer_bytes() != POOL_BUFFER_BYTES)
    }

    /// Copies such chunks into pool buffers, in place. `false`: there were too few.
    fn copy_such(
        &self,
        tail: &mut Option<ChunkMut>,
        queue: &mut PayloadQueue,
        such: impl Fn(&Chunk) -> bool,
    ) -> bool {
        let mut enough = true;
        for piece in queue.take_queue() {
            match piece {
                Piece::Chunk(chunk) if such(&chunk) => enough &= self.spill(&chunk, tail, queue),
                Piece::Chunk(chunk) => queue.push_chunk(chunk),
                Piece::Piped(bytes) => queue.push_piped(bytes),
            }
        }
        enough
    }

    /// As [`Buffers::copy_bulk`] for a batch: all of it or, `false`, nothing.
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

    /// Copies data in the pipes of an output into pool buffers, while half of the pool is free.
    ///
    /// # Errors
    /// A pipe cannot be read.
    pub(super) fn empty_pipes(&mut self, output: &mut PayloadQueue) -> io::Result<()> {
        let Buffers { pool, pipes, .. } = self;
        output.leave_pipes(pipes, || {
            (pool.free() > pool.capacity() / 2).then(|| pool.take()).flatten()
        })
    }

    /// Copies a buffer's worth of spliced payload out of its pipe, for a link that cannot be spliced
    /// to.
    ///
    /// # Errors
    /// The pool is exhausted, or the pipe cannot be read.
    pub(super) fn copy_out(&mut self, from: &Pipe, most_bytes: usize) -> io::Result<Box<Gather>> {
        let mut buffer =
            self.pool.take().ok_or_else(|| io::Error::other("no buffer to copy into"))?;
        let room_bytes = buffer.room();
        from.copy_out(&mut buffer, most_bytes.min(room_bytes))?;
        let mut batch = self.take_gather();
        batch.push(buffer.take_written());
        Ok(batch)
    }

    /// Copies the rest of a gather into pool buffers, so that its receive buffers can be returned.
    /// `false`: the pool is exhausted.
    pub(super) fn keep(&self, gather: &mut Gather) -> bool {
        let (mut tail, mut kept) = (None, PayloadQueue::default());
        let enough = gather.drain().all(|chunk| self.spill(&chunk, &mut tail, &mut kept));
        while let Some(chunk) = kept.pop_chunk() {
            gather.push(chunk);
        }
        enough
    }
}

/// The chunk occupies a bulk receive buffer, of which there are few.
fn is_bulk(chunk: &Chunk) -> bool {
    chunk.buffer_bytes() == BULK_BUFFER_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_room_is_for_old_streams_and_less_is_taken_from_those_that_hold_most() {
        let buffers = Buffers::new(64).expect("memory");
        let mut taken = take_all_but(&buffers, 16);
        assert!(!buffers.are_low());
        taken.extend(buffers.pool.take());
        assert!(buffers.are_low());
        taken.extend(take_all_but(&buffers, 8));
        assert_eq!(buffers.scarcity(), 0);
        taken.extend(take_all_but(&buffers, 5));
        assert_eq!(buffers.scarcity(), 3);
        taken.clear();
        assert!(!buffers.are_low());
    }

    fn take_all_but(buffers: &Buffers, left: usize) -> Vec<ChunkMut> {
        let mut taken = Vec::new();
        while buffers.free_buffers() > left {
            taken.extend(buffers.pool.take());
        }
        taken
    }

    /// Messages in a buffer each.
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
        let mut buffers = Buffers::new(64).unwrap();
        let _taken = take_all_but(&buffers, FRAME_BUFFERS);
        let bytes: Vec<u8> = (0..256 * COPY_BYTES).map(|n| (n / 7) as u8).collect();
        let mut pieces = messages(&bytes, COPY_BYTES);
        let mut gather = buffers.take_gather();
        assert!(buffers.can_write_frame());
        buffers.head.extend(b"head");
        buffers.write_head(&mut gather);
        assert_eq!(buffers.append(&mut gather, &mut pieces, bytes.len() as u64), 0);
        let sent: Vec<u8> = gather.iter().flat_map(|part| part.to_vec()).collect();
        assert!(sent[..4] == *b"head" && sent[4..] == bytes);
        assert!(pieces.is_empty());
    }

    #[test]
    fn bulk_buffers_come_back_until_half_of_the_pool_is_used() {
        let buffers = Buffers::new(64).unwrap();
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
        // Half of the pool is in use elsewhere.
        let taken = take_all_but(&buffers, buffers.pool.capacity() / 2);
        assert!(!buffers.copy_bulk_of_batch(&mut batch));
        buffers.copy_bulk(&mut tail, &mut rest);
        assert_eq!(bulk.free(), 3);
        drop(taken);
        assert!(buffers.copy_bulk_of_batch(&mut batch));
        rest.push_piped(5);
        buffers.copy_bulk(&mut tail, &mut rest);
        assert_eq!(bulk.free(), 4);
        let sent: Vec<u8> = batch.iter().flat_map(|part| part.to_vec()).collect();
        let mut kept = Vec::new();
        assert!(rest.copy_front(100_000, &mut kept));
        assert!(sent == bytes[..100_000] && kept == sent);
        assert_eq!(rest.len_bytes(), 100_005);
    }

    #[test]
    fn what_waits_is_packed_until_half_of_the_pool_is_used() {
        let buffers = Buffers::new(64).unwrap();
        let (mut shared, mut input) = (None, [PayloadQueue::default(), PayloadQueue::default()]);
        let mut own = [None, None];
        let message = messages(&[7; 100], 100).pop_chunk().unwrap();
        let before = buffers.free_buffers();
        for _ in 0..PACKED_TOGETHER_MAX {
            for (input, own) in input.iter_mut().zip(&mut own) {
                assert!(buffers.pack(&message, (&mut shared, own), input));
            }
        }
        assert_eq!(buffers.free_buffers(), before - 1, "the first few of all stand together");
        for _ in 0..10 * POOL_BUFFER_BYTES as usize / message.len() {
            buffers.pack(&message, (&mut shared, &mut own[0]), &mut input[0]);
        }
        assert!(input[0].pieces() < PACKED_TOGETHER_MAX + 20, "the others are put together");
        assert!(buffers.free_buffers() >= before - 13, "in buffers that are filled");
        let _taken = take_all_but(&buffers, buffers.pool.capacity() / 2);
        assert!(!buffers.pack(&message, (&mut shared, &mut own[1]), &mut input[1]));
    }
}
