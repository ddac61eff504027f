//! Pipes: payload that goes from socket to socket by `splice(2)` stands in one meanwhile, as
//! references to the kernel's own pages, and is never copied into the process.
//!
//! Calls are made at once, on descriptors that do not block, when a socket was found ready: in
//! io_uring a splice occupies a kernel thread for as long as it waits.

use std::cell::Cell;
use std::fs::File;
use std::io;
#[cfg(test)]
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::io::retry_on_intr;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with};

use super::chunk::ChunkMut;
use super::direct;
use crate::limits::{PIPE_BYTES, PIPE_BYTES_MIN, PIPES_MAX};

/// A pipe, and how much stands in it.
#[derive(Debug)]
pub(crate) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    held_bytes: Cell<usize>,
    counts: Rc<PipeCounts>,
}

/// What all pipes of a set count together.
#[derive(Debug, Default)]
pub(crate) struct PipeCounts {
    /// How many are open.
    open: Cell<usize>,
    /// Calls of `splice(2)`.
    pub(crate) splices: Cell<u64>,
    /// Bytes that were copied out.
    pub(crate) copied_bytes: Cell<u64>,
}

impl Pipe {
    fn new(counts: &Rc<PipeCounts>) -> io::Result<Pipe> {
        let (reader, writer) = open()?;
        counts.open.set(counts.open.get() + 1);
        Ok(Pipe { reader, writer, held_bytes: Cell::new(0), counts: Rc::clone(counts) })
    }

    /// Bytes in the pipe.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes.get()
    }

    /// Moves up to `most_bytes` from a socket into the pipe, as far as it has them: 0 is the end
    /// of its data.
    ///
    /// # Errors
    /// `EAGAIN`: the socket has nothing, or the pipe takes no more. `EINVAL`: this kind of
    /// descriptor cannot be spliced.
    pub(crate) fn fill(&self, from: &OwnedFd, most_bytes: usize) -> io::Result<usize> {
        self.count_splice();
        let moved = splice(from, &self.writer, most_bytes)?;
        self.held_bytes.set(self.held_bytes.get() + moved);
        Ok(moved)
    }

    /// Moves up to `most_bytes` from the pipe into a socket.
    ///
    /// # Errors
    /// `EAGAIN`: the socket takes nothing. Whatever else is wrong with it.
    ///
    /// # Panics
    /// With nothing in the pipe: the call would then wait for nothing, or say end of data.
    pub(crate) fn drain(&self, to: &OwnedFd, most_bytes: usize) -> io::Result<usize> {
        let held_bytes = self.held_bytes.get();
        assert!(most_bytes > 0 && most_bytes <= held_bytes, "more than the pipe holds");
        self.count_splice();
        let moved = splice(&self.reader, to, most_bytes)?;
        self.held_bytes.set(held_bytes - moved);
        Ok(moved)
    }

    /// Doubles the first bytes of the pipe, up to `most_bytes`, at the end of another one: both then refer
    /// to the same pages. Returns how many that are.
    ///
    /// # Errors
    /// `EAGAIN`: the other pipe takes no more.
    ///
    /// # Panics
    /// With nothing in the pipe, as [`Pipe::drain`].
    pub(crate) fn tee(&self, to: &Pipe, most_bytes: usize) -> io::Result<usize> {
        assert!(most_bytes > 0 && most_bytes <= self.held_bytes.get(), "more than the pipe holds");
        self.count_splice();
        let doubled = tee(&self.reader, &to.writer, most_bytes)?;
        to.held_bytes.set(to.held_bytes.get() + doubled);
        Ok(doubled)
    }

    /// Copies what comes next in the pipe, up to `most_bytes`, behind what `buffer` holds.
    ///
    /// # Errors
    /// Whatever is wrong with the pipe.
    ///
    /// # Panics
    /// With nothing in the pipe, as [`Pipe::drain`].
    pub(crate) fn copy_out(&self, buffer: &mut ChunkMut, most_bytes: usize) -> io::Result<usize> {
        let held_bytes = self.held_bytes.get();
        assert!(most_bytes > 0 && most_bytes <= held_bytes, "more than the pipe holds");
        let copied = direct::read(&self.reader, buffer, most_bytes)?;
        self.held_bytes.set(held_bytes - copied);
        let copied_bytes = &self.counts.copied_bytes;
        copied_bytes.set(copied_bytes.get() + copied as u64);
        Ok(copied)
    }

    #[inline]
    fn count_splice(&self) {
        self.counts.splices.set(self.counts.splices.get() + 1);
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.counts.open.set(self.counts.open.get() - 1);
    }
}

fn open() -> io::Result<(OwnedFd, OwnedFd)> {
    simulated!(kernel => kernel.pipe());
    let (reader, writer) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
    // Refused where the user has many pipes already (`fs.pipe-user-pages-soft`).
    if fcntl_setpipe_size(&writer, PIPE_BYTES)? < PIPE_BYTES_MIN {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    Ok((reader, writer))
}

fn splice(from: &OwnedFd, to: &OwnedFd, most_bytes: usize) -> io::Result<usize> {
    simulated!(kernel => kernel.splice(from.as_raw_fd(), to.as_raw_fd(), most_bytes));
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    Ok(retry_on_intr(|| rustix::pipe::splice(from, None, to, None, most_bytes, flags))?)
}

fn tee(from: &OwnedFd, to: &OwnedFd, most_bytes: usize) -> io::Result<usize> {
    simulated!(kernel => kernel.tee(from.as_raw_fd(), to.as_raw_fd(), most_bytes));
    Ok(retry_on_intr(|| rustix::pipe::tee(from, to, most_bytes, SpliceFlags::NONBLOCK))?)
}

/// As `splice` into the null device, which takes everything.
fn discard(from: &OwnedFd, null: &OwnedFd, most_bytes: usize) -> io::Result<usize> {
    simulated!(kernel => kernel.discard(from.as_raw_fd(), most_bytes));
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    Ok(retry_on_intr(|| rustix::pipe::splice(from, None, null, None, most_bytes, flags))?)
}

/// Pipes to be used again and again, a bounded number of them.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    free: Vec<Rc<Pipe>>,
    pub(crate) counts: Rc<PipeCounts>,
    /// Times that there was none to be had.
    pub(crate) refused: u64,
    /// The null device, into which payload is dropped; opened before the process is confined.
    null: Option<Rc<OwnedFd>>,
}

impl Pipes {
    /// No pipes yet.
    pub(crate) fn new() -> Pipes {
        let null = File::options().read(true).write(true).open("/dev/null").ok();
        Pipes { null: null.map(|file| Rc::new(OwnedFd::from(file))), ..Pipes::default() }
    }

    /// The null device. `None`: this system has none.
    pub(crate) fn null(&self) -> Option<&Rc<OwnedFd>> {
        self.null.as_ref()
    }

    /// Drops the first `bytes` of a pipe.
    ///
    /// # Errors
    /// There is no null device, or something is wrong with the pipe.
    ///
    /// # Panics
    /// If it holds fewer.
    pub(crate) fn discard(&self, pipe: &Pipe, mut bytes: usize) -> io::Result<()> {
        assert!(bytes <= pipe.held_bytes(), "more than the pipe holds");
        while bytes > 0 {
            let null = self.null.as_ref().ok_or(io::ErrorKind::NotFound)?;
            pipe.count_splice();
            let gone = discard(&pipe.reader, null, bytes)?;
            if gone == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            pipe.held_bytes.set(pipe.held_bytes() - gone);
            bytes -= gone;
        }
        Ok(())
    }

    /// An empty pipe; `None` when too many are in use, or the system gives no more.
    pub(crate) fn take(&mut self) -> Option<Rc<Pipe>> {
        if let Some(pipe) = self.free.pop() {
            return Some(pipe);
        }
        let made =
            (self.counts.open.get() < PIPES_MAX).then(|| Pipe::new(&self.counts).ok()).flatten();
        self.refused += u64::from(made.is_none());
        made.map(Rc::new)
    }

    /// A pipe for a stream that has some already: only while half of all are left for others.
    pub(crate) fn take_spare(&mut self) -> Option<Rc<Pipe>> {
        let used = self.counts.open.get() - self.free.len();
        if used < PIPES_MAX / 2 { self.take() } else { None }
    }

    /// Takes a pipe back. One that still holds something, or that somebody else holds, is not
    /// used again, and closed when the last holder goes.
    pub(crate) fn give_back(&mut self, pipe: Rc<Pipe>) {
        if Rc::strong_count(&pipe) == 1 && pipe.held_bytes() == 0 {
            self.free.push(pipe);
        }
    }

    /// Pipes that are in use.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.counts.open.get() - self.free.len()
    }

    /// Pipes that are open, in use or not.
    #[cfg(test)]
    fn open(&self) -> usize {
        self.counts.open.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    /// A socket, its peer, and a pair beyond.
    fn sockets() -> (UnixStream, OwnedFd, OwnedFd, UnixStream) {
        let (client, near) = UnixStream::pair().unwrap();
        let (far, server) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        (client, near.into(), far.into(), server)
    }

    #[test]
    fn bytes_pass_whole_and_are_counted() {
        let (mut client, near, far, mut server) = sockets();
        let mut pipes = Pipes::new();
        let pipe = pipes.take().unwrap();
        assert_eq!(pipe.fill(&near, 100).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        client.write_all(b"hello, world").unwrap();
        assert_eq!(pipe.fill(&near, 100).unwrap(), 12);
        assert_eq!(pipe.held_bytes(), 12);
        assert_eq!(pipe.drain(&far, 5).unwrap(), 5);
        assert_eq!(pipe.drain(&far, 7).unwrap(), 7);
        let mut got = [0; 12];
        server.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello, world");
        drop(client);
        assert_eq!(pipe.fill(&near, 100).unwrap(), 0);
    }

    #[test]
    fn pipes_are_bounded_and_only_empty_ones_are_used_again() {
        let (mut client, near, ..) = sockets();
        let mut pipes = Pipes::new();
        let mut taken: Vec<_> = (0..PIPES_MAX).map(|_| pipes.take().unwrap()).collect();
        assert!(pipes.take().is_none());
        assert_eq!((pipes.refused, pipes.open()), (1, PIPES_MAX));
        client.write_all(b"x").unwrap();
        let full = taken.pop().unwrap();
        full.fill(&near, 1).unwrap();
        pipes.give_back(full);
        assert_eq!(pipes.open(), PIPES_MAX - 1);
        let shared = taken.pop().unwrap();
        let other = Rc::clone(&shared);
        pipes.give_back(shared);
        drop(other);
        assert_eq!(pipes.open(), PIPES_MAX - 2);
        pipes.give_back(taken.pop().unwrap());
        assert_eq!(pipes.open(), PIPES_MAX - 2);
        assert!(pipes.take().is_some_and(|pipe| pipe.held_bytes() == 0));
    }

    #[test]
    fn what_is_doubled_stands_in_both_pipes_and_is_dropped_from_one() {
        let (mut client, near, far, mut server) = sockets();
        let mut pipes = Pipes::new();
        let (one, other) = (pipes.take().unwrap(), pipes.take().unwrap());
        client.write_all(b"hello, world").unwrap();
        one.fill(&near, 100).unwrap();
        assert_eq!(one.tee(&other, 5).unwrap(), 5);
        assert_eq!((one.held_bytes(), other.held_bytes()), (12, 5));
        assert_eq!(one.drain(&far, 12).unwrap(), 12);
        pipes.discard(&other, 3).unwrap();
        assert_eq!(other.drain(&far, 2).unwrap(), 2);
        let mut got = [0; 14];
        server.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello, worldlo");
        pipes.give_back(other);
        assert_eq!(pipes.used(), 1);
    }

    #[test]
    #[should_panic(expected = "more than the pipe holds")]
    fn an_empty_pipe_is_not_drained() {
        let (_client, _near, far, _server) = sockets();
        let _ = Pipes::new().take().unwrap().drain(&far, 1);
    }
}
