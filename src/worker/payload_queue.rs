//! A queue of payload in transit: chunks in process buffers, and stretches that are in a pipe. Each
//! connection has one per direction.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use crate::io::chunk::{Chunk, ChunkMut};
use crate::io::pipe::{Pipe, Pipes};
use crate::limits::{PIPE_BYTES, SPLICE_BYTES_MIN, STREAM_PIPES_MAX};

/// A stretch of payload.
#[derive(Debug)]
pub(in crate::worker) enum Piece {
    Chunk(Chunk),
    /// The next bytes in the pipe.
    Piped(usize),
}

/// One direction of a stream between its socket and the link. An empty queue holds no memory.
#[derive(Debug, Default)]
pub(in crate::worker) struct PayloadQueue {
    queue: VecDeque<Piece>,
    /// Filled at the back, drained at the front. The front pipe may also hold bytes that have left
    /// the queue and wait for the link.
    pipes: VecDeque<Rc<Pipe>>,
}

impl PayloadQueue {
    pub(in crate::worker) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Number of stretches.
    pub(in crate::worker) fn pieces(&self) -> usize {
        self.queue.len()
    }

    pub(in crate::worker) fn front_mut(&mut self) -> Option<&mut Piece> {
        self.queue.front_mut()
    }

    /// Whether any chunk matches.
    pub(in crate::worker) fn holds(&self, such: impl Fn(&Chunk) -> bool) -> bool {
        self.queue.iter().any(|piece| matches!(piece, Piece::Chunk(chunk) if such(chunk)))
    }

    /// Number of bytes in the queue.
    pub(in crate::worker) fn len_bytes(&self) -> usize {
        let bytes = |piece: &Piece| match piece {
            Piece::Chunk(chunk) => chunk.len(),
            Piece::Piped(bytes) => *bytes,
        };
        self.queue.iter().map(bytes).sum()
    }

    /// Appends the first `bytes` to `to`. `false`: not all of them are in chunks.
    pub(in crate::worker) fn copy_front(&self, bytes: usize, to: &mut Vec<u8>) -> bool {
        let mut left = bytes;
        for piece in &self.queue {
            let (Piece::Chunk(chunk), true) = (piece, left > 0) else { break };
            let part = chunk.len().min(left);
            to.extend_from_slice(&chunk[..part]);
            left -= part;
        }
        left == 0
    }

    /// Whether the next bytes are in the pipe.
    pub(in crate::worker) fn begins_in_pipe(&self) -> bool {
        matches!(self.queue.front(), Some(Piece::Piped(_)))
    }

    pub(in crate::worker) fn push_chunk(&mut self, chunk: Chunk) {
        self.queue.push_back(Piece::Chunk(chunk));
    }

    /// As [`PayloadQueue::push_chunk`], but extends the last chunk if the new one is contiguous
    /// with it.
    pub(in crate::worker) fn join_chunk(&mut self, chunk: Chunk) {
        let chunk = match self.queue.back_mut() {
            Some(Piece::Chunk(last)) => match last.try_join(chunk) {
                Ok(()) => return,
                Err(chunk) => chunk,
            },
            _ => chunk,
        };
        self.push_chunk(chunk);
    }

    pub(in crate::worker) fn push_chunk_front(&mut self, chunk: Chunk) {
        self.queue.push_front(Piece::Chunk(chunk));
    }

    /// The next chunk, if the next bytes are in one.
    pub(in crate::worker) fn pop_chunk(&mut self) -> Option<Chunk> {
        if self.begins_in_pipe() {
            return None;
        }
        match self.queue.pop_front() {
            Some(Piece::Chunk(chunk)) => Some(chunk),
            _ => None,
        }
    }

    /// Drops the first `bytes`, all of which must be in chunks.
    pub(in crate::worker) fn drop_chunks(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let Some(Piece::Chunk(first)) = self.queue.front_mut() else {
                unreachable!("fewer bytes in chunks than were to be dropped")
            };
            let part = first.len().min(bytes);
            bytes -= part;
            first.advance(part);
            if first.is_empty() {
                self.queue.pop_front();
            }
        }
    }

    /// Notes that this many bytes were put into the pipe.
    pub(in crate::worker) fn push_piped(&mut self, bytes: usize) {
        match self.queue.back_mut() {
            Some(Piece::Piped(before)) => *before += bytes,
            _ => self.queue.push_back(Piece::Piped(bytes)),
        }
    }

    /// Dequeues up to `most_bytes` that are next in the pipe; they stay in the pipe.
    pub(in crate::worker) fn take_piped(&mut self, most_bytes: usize) -> usize {
        let Some(Piece::Piped(bytes)) = self.queue.front_mut() else { return 0 };
        let taken = most_bytes.min(*bytes);
        *bytes -= taken;
        if *bytes == 0 {
            self.queue.pop_front();
        }
        taken
    }

    /// Number of next bytes that are in the front pipe.
    pub(in crate::worker) fn piped_bytes(&self) -> usize {
        match (self.queue.front(), self.pipes.front()) {
            (Some(Piece::Piped(bytes)), Some(pipe)) => (*bytes).min(pipe.held_bytes()),
            _ => 0,
        }
    }

    pub(in crate::worker) fn pop_front(&mut self) {
        self.queue.pop_front();
    }

    /// The pipe that holds the next bytes.
    pub(in crate::worker) fn pipe(&self) -> Option<&Rc<Pipe>> {
        self.pipes.front()
    }

    /// The pipe that is filled.
    pub(in crate::worker) fn back_pipe(&self) -> Option<&Rc<Pipe>> {
        self.pipes.back()
    }

    /// All chunks, in order.
    pub(in crate::worker) fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.queue.iter().filter_map(|piece| match piece {
            Piece::Chunk(chunk) => Some(chunk),
            Piece::Piped(_) => None,
        })
    }

    /// The pipe; takes a new one if there is none and one is free.
    pub(in crate::worker) fn need_pipe(&mut self, pipes: &mut Pipes) -> Option<&Rc<Pipe>> {
        if self.pipes.is_empty() {
            self.pipes.extend(pipes.take());
        }
        self.pipes.front()
    }

    /// A pipe with room at the back; takes another one if needed and within the stream's share.
    pub(in crate::worker) fn need_room(&mut self, pipes: &mut Pipes) -> Option<&Rc<Pipe>> {
        let roomy = |pipe: &Rc<Pipe>| pipe.held_bytes() <= PIPE_BYTES - SPLICE_BYTES_MIN;
        match self.pipes.back() {
            None => self.pipes.extend(pipes.take()),
            Some(last) if !roomy(last) => {
                self.add_pipe(pipes);
            }
            Some(_) => {}
        }
        self.pipes.back().filter(|pipe| roomy(pipe))
    }

    /// Adds a pipe because the last one is full. `false`: none is free for this stream.
    pub(in crate::worker) fn add_pipe(&mut self, pipes: &mut Pipes) -> bool {
        let more = (self.pipes.len() < STREAM_PIPES_MAX).then(|| pipes.take_spare()).flatten();
        let any = more.is_some();
        self.pipes.extend(more);
        any
    }

    /// Returns empty pipes at the front; all pipes if no payload is in any.
    pub(in crate::worker) fn drop_empty(&mut self, pipes: &mut Pipes) {
        let unused = !self.uses_pipe();
        while let Some(first) = self.pipes.front()
            && (unused || (first.held_bytes() == 0 && self.pipes.len() > 1))
            && let Some(first) = self.pipes.pop_front()
        {
            pipes.give_back(first);
        }
    }

    /// Returns the front pipe, which is empty.
    pub(in crate::worker) fn drop_front_pipe(&mut self, pipes: &mut Pipes) {
        self.pipes.pop_front().into_iter().for_each(|pipe| pipes.give_back(pipe));
    }

    /// Returns all pipes.
    pub(in crate::worker) fn drop_pipes(&mut self, pipes: &mut Pipes) {
        debug_assert!(!self.uses_pipe());
        self.pipes.drain(..).for_each(|pipe| pipes.give_back(pipe));
    }

    /// Number of pipes.
    pub(in crate::worker) fn pipe_count(&self) -> usize {
        self.pipes.len()
    }

    /// Copies payload from pipes into buffers from `take`, as far as it provides any, and returns
    /// the pipes that become empty. Everything in the pipes must be in the queue.
    ///
    /// # Errors
    /// A pipe cannot be read.
    pub(in crate::worker) fn leave_pipes(
        &mut self,
        pipes: &mut Pipes,
        mut take: impl FnMut() -> Option<ChunkMut>,
    ) -> io::Result<()> {
        let queue = self.take_queue();
        let mut failed = Ok(());
        for piece in queue {
            let Piece::Piped(mut left_bytes) = piece else {
                self.queue.push_back(piece);
                continue;
            };
            while left_bytes > 0
                && failed.is_ok()
                && let Some(pipe) = self.pipes.front()
            {
                if pipe.held_bytes() == 0 {
                    self.pipes.pop_front().into_iter().for_each(|empty| pipes.give_back(empty));
                    continue;
                }
                let Some(mut buffer) = take() else { break };
                let most_bytes = left_bytes.min(pipe.held_bytes());
                match pipe.copy_out(&mut buffer, most_bytes) {
                    Ok(bytes) => {
                        left_bytes -= bytes;
                        self.push_chunk(buffer.take_written());
                    }
                    Err(error) => failed = Err(error),
                }
            }
            if left_bytes > 0 {
                self.push_piped(left_bytes);
            }
        }
        self.drop_empty(pipes);
        failed
    }

    /// Whether any of the queue is in a pipe.
    pub(in crate::worker) fn uses_pipe(&self) -> bool {
        self.queue.iter().any(|piece| matches!(piece, Piece::Piped(_)))
    }

    /// Drops all payload and returns the pipes.
    pub(in crate::worker) fn clear(&mut self, pipes: &mut Pipes) {
        self.queue.clear();
        self.drop_pipes(pipes);
    }

    /// Takes the queue out, to be refilled by the caller; the pipes stay.
    pub(in crate::worker) fn take_queue(&mut self) -> VecDeque<Piece> {
        std::mem::take(&mut self.queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::chunk::Pool;
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    fn chunk(pool: &Pool, bytes: &[u8]) -> Chunk {
        let mut buffer = pool.take().unwrap();
        assert_eq!(buffer.put(bytes), bytes.len());
        buffer.take_written()
    }

    fn text(pieces: &PayloadQueue) -> String {
        let of_piece = |piece: &Piece| match piece {
            Piece::Chunk(chunk) => String::from_utf8(chunk.to_vec()).unwrap(),
            Piece::Piped(bytes) => format!("({bytes})"),
        };
        pieces.queue.iter().map(of_piece).collect()
    }

    #[test]
    fn what_stands_in_pipes_is_copied_in_its_place() {
        let pool = Pool::new(4096, 16).unwrap();
        let (mut client, near) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let near = OwnedFd::from(near);
        let (mut pipes, mut pieces) = (Pipes::default(), PayloadQueue::default());
        client.write_all(&[[b'x'; 5000].as_slice(), b"hello"].concat()).unwrap();
        pieces.push_chunk(chunk(&pool, b"<"));
        assert_eq!(pieces.need_pipe(&mut pipes).unwrap().fill(&near, 5000).unwrap(), 5000);
        pieces.push_piped(5000);
        pieces.push_chunk(chunk(&pool, b"|"));
        assert!(pieces.add_pipe(&mut pipes));
        assert_eq!(pieces.pipes.back().unwrap().fill(&near, 5).unwrap(), 5);
        pieces.push_piped(5);
        pieces.push_chunk(chunk(&pool, b">"));
        // Too few buffers: what is not copied stays in place.
        let mut left = 1;
        let few = |left: &mut u32| {
            *left = left.checked_sub(1)?;
            pool.take()
        };
        pieces.leave_pipes(&mut pipes, || few(&mut left)).unwrap();
        assert_eq!(text(&pieces), format!("<{}(904)|(5)>", "x".repeat(4096)));
        assert_eq!((pieces.pipe_count(), pieces.piped_bytes()), (2, 0));
        pieces.leave_pipes(&mut pipes, || pool.take()).unwrap();
        assert_eq!(text(&pieces), format!("<{}|hello>", "x".repeat(5000)));
        assert_eq!(pieces.pipe_count(), 0);
    }
}
