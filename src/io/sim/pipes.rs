//! Pipes: bytes in slots. A pipe whose slots are used takes no more, however few bytes they hold.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

use super::{Kernel, Object, again, error, mask};

/// What stands in a pipe.
#[derive(Debug, Default)]
pub(super) struct PipeBuffer {
    pub(super) slots: VecDeque<Vec<u8>>,
    pub(super) reader_closed: bool,
    pub(super) writer_closed: bool,
    pub(super) edge: u64,
}

/// As Linux's slots do.
pub(super) const SLOT_BYTES: usize = 4096;

impl PipeBuffer {
    pub(super) fn len_bytes(&self) -> usize {
        self.slots.iter().map(Vec::len).sum()
    }

    fn push(&mut self, bytes: &[u8]) {
        self.slots.push_back(bytes.to_vec());
        self.edge += 1;
    }

    fn take(&mut self, most_bytes: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while out.len() < most_bytes
            && let Some(first) = self.slots.front_mut()
        {
            let part = first.len().min(most_bytes - out.len());
            out.extend_from_slice(&first[..part]);
            first.drain(..part);
            if first.is_empty() {
                self.slots.pop_front();
            }
        }
        self.edge += 1;
        out
    }

    pub(super) fn events(&self, is_reader: bool, most_slots: usize) -> u32 {
        let mut events = 0;
        if is_reader {
            events |= if self.slots.is_empty() { 0 } else { libc::POLLIN };
            events |= if self.writer_closed { libc::POLLHUP } else { 0 };
        } else {
            events |= if self.slots.len() < most_slots { libc::POLLOUT } else { 0 };
            events |= if self.reader_closed { libc::POLLERR } else { 0 };
        }
        mask(events)
    }
}

impl Kernel {
    /// A pipe: its reader and its writer.
    pub(crate) fn pipe(&mut self) -> io::Result<(OwnedFd, OwnedFd)> {
        let index = self.pipes.len();
        self.pipes.push(PipeBuffer::default());
        let reader = self.open(Object::PipeReader(index))?;
        let writer = self.open(Object::PipeWriter(index))?;
        Ok((reader, writer))
    }

    pub(super) fn pipe_slots(&self) -> usize {
        usize::from(self.conditions.pipe_slots.max(1))
    }

    /// Moves bytes between a pipe and a socket or another pipe.
    pub(crate) fn splice(
        &mut self,
        from: RawFd,
        to: RawFd,
        most_bytes: usize,
    ) -> io::Result<usize> {
        for fd in [from, to] {
            if let Some(Object::Conn(conn, side)) = self.object(fd)
                && self.conns[conn].socket(side).no_splice
            {
                return error(libc::EINVAL);
            }
        }
        if self.happens(self.conditions.again) {
            return again();
        }
        let room_bytes = self.check_writable(to)?;
        let most_bytes = self.part_of(most_bytes.min(room_bytes));
        let bytes = self.take(from, most_bytes)?;
        let moved = bytes.len();
        if moved > 0 {
            self.put(to, bytes);
        }
        Ok(moved)
    }

    /// Doubles the first bytes of a pipe at the end of another, slot by slot, as far as that has slots.
    pub(crate) fn tee(&mut self, from: RawFd, to: RawFd, most_bytes: usize) -> io::Result<usize> {
        let (Some(Object::PipeReader(from)), Some(Object::PipeWriter(to))) =
            (self.object(from), self.object(to))
        else {
            return error(libc::EINVAL);
        };
        if self.happens(self.conditions.again) {
            return again();
        }
        let room = self.pipe_slots().saturating_sub(self.pipes[to].slots.len());
        let most_bytes = self.part_of(most_bytes);
        let (mut doubled, mut left_bytes) = (Vec::new(), most_bytes);
        for slot in self.pipes[from].slots.iter().take(room) {
            let part = slot.len().min(left_bytes);
            if part > 0 {
                doubled.push(slot[..part].to_vec());
            }
            left_bytes -= part;
        }
        if doubled.is_empty() {
            return again();
        }
        self.changed();
        let bytes = doubled.iter().map(Vec::len).sum();
        doubled.iter().for_each(|slot| self.pipes[to].push(slot));
        Ok(bytes)
    }

    /// Drops the first bytes of a pipe.
    pub(crate) fn discard(&mut self, from: RawFd, most_bytes: usize) -> io::Result<usize> {
        let Some(Object::PipeReader(pipe)) = self.object(from) else { return error(libc::EINVAL) };
        self.changed();
        let most_bytes = self.part_of(most_bytes);
        Ok(self.take_from_pipe(pipe, most_bytes)?.len())
    }

    /// Reads from a pipe.
    pub(super) fn take_from_pipe(&mut self, pipe: usize, most_bytes: usize) -> io::Result<Vec<u8>> {
        let pipe = &mut self.pipes[pipe];
        match (pipe.slots.is_empty(), pipe.writer_closed) {
            (true, true) => Ok(Vec::new()),
            (true, false) => again(),
            _ => Ok(pipe.take(most_bytes)),
        }
    }

    /// Puts bytes into a pipe that has room for some: each slot's worth is a slot of its own.
    pub(super) fn put_into_pipe(&mut self, pipe: usize, bytes: Vec<u8>) {
        for slot in bytes.chunks(SLOT_BYTES) {
            self.pipes[pipe].push(slot);
        }
    }
}
