//! What the worker builds batches with: buffers for heads and small payload, empty gathers, pipes.

use std::io;

use super::pieces::{Piece, Pieces};
use crate::engine::chunk::{Chunk, ChunkMut, Pool};
use crate::engine::driver::Gather;
use crate::engine::link::Link;
use crate::engine::pipe::Pipes;
use crate::limits::{COPY_BYTES, POOL_BUFFER_BYTES, POOL_BUFFERS};

/// Buffers kept back from slow readers, so that heads can always be written.
const POOL_RESERVE: usize = 1024;

/// Buffers and gathers, used again and again.
pub(super) struct Kit {
    pool: Pool,
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
}

impl Kit {
    pub(super) fn new() -> io::Result<Kit> {
        let pool = Pool::new(POOL_BUFFER_BYTES, POOL_BUFFERS)?;
        let take = || pool.take().ok_or_else(|| io::Error::other("the buffer pool is empty"));
        let (arena, ahead) = (take()?, take()?);
        let (gathers, head) = (Vec::new(), Vec::with_capacity(512));
        Ok(Kit { pool, arena, gathers, head, ahead, pipes: Pipes::default() })
    }

    /// Buffers that nobody holds.
    pub(super) fn free_buffers(&self) -> usize {
        self.pool.free()
    }

    pub(super) fn take_gather(&mut self) -> Box<Gather> {
        self.gathers.pop().unwrap_or_default()
    }

    pub(super) fn give_back(&mut self, mut gather: Box<Gather>) {
        gather.clear();
        self.gathers.push(gather);
    }

    /// Whether a frame can be written now: its head and as much of its payload as is copied.
    pub(super) fn can_write_frame(&self) -> bool {
        self.pool.free() >= 4
    }

    /// Copies bytes to the end of a batch.
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
        self.pool.free() > POOL_RESERVE + bytes / POOL_BUFFER_BYTES as usize
    }

    /// Copies bytes to the end of a queue.
    pub(super) fn store(&mut self, mut bytes: &[u8], queue: &mut Pieces) {
        while !bytes.is_empty() {
            if self.arena.room() == 0 {
                self.arena = self.pool.take().expect("has_room_for was asked");
            }
            let took = self.arena.put(bytes);
            bytes = &bytes[took..];
            queue.join_chunk(self.arena.take_written());
        }
    }

    /// As [`Kit::write`], with what the session has written to `head`.
    pub(super) fn write_head(&mut self, gather: &mut Gather) {
        let head = std::mem::take(&mut self.head);
        self.write(gather, &head);
        self.head = head;
        self.head.clear();
    }

    /// Moves `bytes` from the front of `input` to the end of a batch: small pieces are copied,
    /// large ones stay where they were received. Ends before what stands in the pipe, and says how
    /// many bytes are left then.
    pub(super) fn append(&mut self, gather: &mut Gather, input: &mut Pieces, bytes: u64) -> usize {
        let mut left = bytes as usize;
        while left > 0 {
            match input.front_mut().expect("the session was told of more than there is") {
                Piece::Piped(_) => break,
                Piece::Chunk(front) => {
                    let part = front.len().min(left);
                    left -= part;
                    if part <= COPY_BYTES {
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
            let Some(buffer) = self.pool.take() else {
                return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
            };
            self.ahead = buffer;
        }
        let got = link.receive(&mut self.ahead, most_bytes)?;
        Ok((got > 0).then(|| self.ahead.take_written()))
    }

    /// A chunk with a copy of the first of `bytes`, and how many they are. `None`: the pool is used
    /// up.
    pub(super) fn chunk_of(&mut self, bytes: &[u8]) -> Option<(Chunk, usize)> {
        if self.ahead.room() == 0 {
            self.ahead = self.pool.take()?;
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
        output: &mut Pieces,
    ) -> bool {
        let mut bytes: &[u8] = chunk;
        while !bytes.is_empty() {
            let buffer = match tail {
                Some(buffer) if buffer.room() > 0 => buffer,
                _ => {
                    if self.pool.free() <= POOL_RESERVE {
                        return false;
                    }
                    let Some(buffer) = self.pool.take() else { return false };
                    tail.insert(buffer)
                }
            };
            let took = buffer.put(bytes);
            bytes = &bytes[took..];
            output.join_chunk(buffer.take_written());
        }
        true
    }

    /// Copies what stands in the pipes of an output into buffers of the pool, as long as half of them
    /// are left for others.
    ///
    /// # Errors
    /// A pipe cannot be read.
    pub(super) fn empty_pipes(&mut self, output: &mut Pieces) -> io::Result<()> {
        let Kit { pool, pipes, .. } = self;
        output.leave_pipes(pipes, || {
            (pool.free() > pool.capacity() / 2).then(|| pool.take()).flatten()
        })
    }

    /// Copies all that is left of a gather into buffers of the pool, so that those it came in can
    /// go back. `false`: the pool is used up.
    pub(super) fn keep(&self, gather: &mut Gather) -> bool {
        let (mut tail, mut kept) = (None, Pieces::default());
        let enough = gather.drain().all(|chunk| self.spill(&chunk, &mut tail, &mut kept));
        while let Some(chunk) = kept.pop_chunk() {
            gather.push(chunk);
        }
        enough
    }
}
