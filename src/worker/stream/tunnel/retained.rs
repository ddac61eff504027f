//! What a lane has sent and its peer has not read: it is sent again when the connection breaks.
//!
//! Nothing is copied for that. Chunks of a batch are referred to once more; spliced payload is doubled by
//! `tee(2)` into pipes of the lane before it leaves the stream's own. What the peer has read is dropped:
//! chunks at once, payload in pipes in steps, since each is a call.

use std::io;

use crate::io::chunk::{Chunk, ChunkMut};
use crate::io::driver::{BufferClass, Driver, Gather};
use crate::io::pipe::Pipe;
use crate::limits::{
    BULK_BUFFER_BYTES, RETAINED_BYTES_MAX, RETAINED_PIPES_MAX, RETAINED_STEP_BYTES,
    SMALL_BUFFER_BYTES,
};
use crate::worker::buffers::Buffers;
use crate::worker::context::Cx;
use crate::worker::payload_queue::{PayloadQueue, Piece};

/// Frames that were sent and are kept, oldest first.
#[derive(Debug, Default)]
pub(super) struct Retained {
    queue: PayloadQueue,
    /// The lane's position of the first byte that is kept.
    start: u64,
    /// Bytes that are kept, and how many of them are in pipes.
    bytes: usize,
    piped_bytes: usize,
    /// Bytes at the front of the pipes that the peer has read.
    read_bytes: usize,
    /// Where chunks are copied to that must not keep their receive buffers.
    tail: Option<ChunkMut>,
}

impl Retained {
    /// Whether more may be sent before the peer has read some.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.bytes < RETAINED_BYTES_MAX
    }

    /// Keeps a batch that is about to be sent, but for its first bytes, which do not belong to the lane.
    pub(super) fn keep<D: Driver>(&mut self, cx: &Cx<D>, batch: &Gather, mut unkept_bytes: usize) {
        for part in batch.iter() {
            let skipped = unkept_bytes.min(part.len());
            unkept_bytes -= skipped;
            if skipped < part.len() {
                let mut chunk = part.clone();
                chunk.advance(skipped);
                self.keep_chunk(cx, chunk);
            }
        }
    }

    fn keep_chunk<D: Driver>(&mut self, cx: &Cx<D>, chunk: Chunk) {
        self.bytes += chunk.len();
        let is_wanted = match chunk.buffer_bytes() {
            SMALL_BUFFER_BYTES => cx.is_scarce(BufferClass::Small),
            BULK_BUFFER_BYTES => cx.is_scarce(BufferClass::Bulk),
            _ => false,
        };
        let is_copied = is_wanted
            && cx.buffers.has_half_beside(chunk.len())
            && cx.buffers.spill(&chunk, &mut self.tail, &mut self.queue);
        if !is_copied {
            self.queue.join_chunk(chunk);
        }
    }

    /// Keeps the first bytes of a pipe, up to `most_bytes`. Returns how many: 0 when no pipe takes more.
    pub(super) fn double(
        &mut self,
        buffers: &mut Buffers,
        from: &Pipe,
        most_bytes: usize,
    ) -> usize {
        // The first pipe is as good as any of a stream's; further ones are for when there are many.
        self.queue.need_pipe(&mut buffers.pipes);
        let bytes = self.try_double(from, most_bytes);
        if bytes > 0 {
            return bytes;
        }
        // No slot is free: first what the peer has read makes room, then another pipe does.
        let has_swept = self.read_bytes > 0 && self.sweep(buffers).is_ok();
        let bytes = if has_swept { self.try_double(from, most_bytes) } else { 0 };
        let may_grow = self.queue.pipe_count() < RETAINED_PIPES_MAX;
        if bytes > 0 || !may_grow || !self.queue.add_pipe(&mut buffers.pipes) {
            return bytes;
        }
        self.try_double(from, most_bytes)
    }

    fn try_double(&mut self, from: &Pipe, most_bytes: usize) -> usize {
        let doubled = self.queue.back_pipe().map(|pipe| from.tee(pipe, most_bytes));
        let Some(Ok(bytes)) = doubled else { return 0 };
        if bytes > 0 {
            self.queue.push_piped(bytes);
            self.bytes += bytes;
            self.piped_bytes += bytes;
        }
        bytes
    }

    /// Whether the lane can go on from this position.
    pub(super) fn covers(&self, position: u64) -> bool {
        position >= self.start && position - self.start <= self.bytes as u64
    }

    /// The peer has read the lane up to this position, which is [covered](Self::covers).
    pub(super) fn drop_read(&mut self, buffers: &mut Buffers, position: u64) {
        let mut left_bytes = (position - self.start) as usize;
        self.start = position;
        self.bytes -= left_bytes;
        while left_bytes > 0 {
            match self.queue.front_mut() {
                Some(Piece::Chunk(chunk)) => {
                    let part = chunk.len().min(left_bytes);
                    left_bytes -= part;
                    chunk.advance(part);
                    if chunk.is_empty() {
                        self.queue.pop_front();
                    }
                }
                Some(Piece::Piped(_)) => {
                    let part = self.queue.take_piped(left_bytes);
                    left_bytes -= part;
                    self.read_bytes += part;
                    self.piped_bytes -= part;
                }
                None => unreachable!("what is covered is kept"),
            }
        }
        let leaves_pipes = self.piped_bytes == 0 && self.queue.pipe_count() > 0;
        if self.read_bytes >= RETAINED_STEP_BYTES || leaves_pipes {
            // One that fails fails again when the connection breaks.
            let _ = self.sweep(buffers);
        }
        if self.bytes == 0 {
            self.tail = None;
        }
    }

    /// Drops from the pipes what the peer has read.
    fn sweep(&mut self, buffers: &mut Buffers) -> io::Result<()> {
        while self.read_bytes > 0
            && let Some(pipe) = self.queue.pipe()
        {
            let part = self.read_bytes.min(pipe.held_bytes());
            buffers.pipes.discard(pipe, part)?;
            self.read_bytes -= part;
            if pipe.held_bytes() == 0 && (self.read_bytes > 0 || self.queue.pipe_count() > 1) {
                self.queue.drop_front_pipe(&mut buffers.pipes);
            }
        }
        if self.piped_bytes == 0 {
            self.queue.drop_pipes(&mut buffers.pipes);
        }
        Ok(())
    }

    /// The connection broke: all goes into buffers of the worker's own, so that neither pipes nor receive
    /// buffers are kept for as long as it takes. `false`: there are too few.
    pub(super) fn settle(&mut self, buffers: &mut Buffers) -> bool {
        if self.sweep(buffers).is_err() || buffers.empty_pipes(&mut self.queue).is_err() {
            return false;
        }
        self.piped_bytes = 0;
        buffers.copy_received(&mut self.tail, &mut self.queue) && !self.queue.uses_pipe()
    }

    /// What is to be sent again: all that is kept.
    pub(super) fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.queue.chunks()
    }

    /// Gives up receive buffers for others, while half of the worker's own are free.
    pub(super) fn free_received(&mut self, buffers: &Buffers) {
        buffers.copy_bulk(&mut self.tail, &mut self.queue);
    }

    /// Bytes that are kept.
    pub(super) fn len_bytes(&self) -> usize {
        self.bytes
    }

    /// The tunnel is over.
    pub(super) fn clear(&mut self, buffers: &mut Buffers) {
        // Pipes that are not empty are closed.
        self.queue.clear(&mut buffers.pipes);
        (self.bytes, self.piped_bytes, self.read_bytes, self.tail) = (0, 0, 0, None);
    }
}
