//! A driver whose buffers a test can use up.

use std::cell::RefCell;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use socket2::SockAddr;

use super::Subject;
use crate::io::chunk::{Chunk, ChunkMut, Pool};
use crate::io::driver::{
    BufferClass, Completion, Driver, DriverCounters, Fd, Gather, OpId, Outcome, RecvMode, SendWait,
    Token,
};

/// Tokens of the driver's own operations, which the worker never sees.
const OWN: Token = Token(u64::MAX);
const CONTROL: Token = Token(u64::MAX - 1);

/// What a relay runs out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    Nothing,
    Receive(BufferClass),
    Pool,
}

pub(super) const RESOURCES: [Resource; 4] = [
    Resource::Nothing,
    Resource::Receive(BufferClass::Small),
    Resource::Receive(BufferClass::Bulk),
    Resource::Pool,
];

/// What test and driver share.
#[derive(Default)]
pub(super) struct Shared {
    /// The relay's thread.
    pub(super) thread: AtomicI32,
    pub(super) turns: AtomicU64,
    /// What is to be used up: a place in [`RESOURCES`].
    pub(super) wanted: AtomicU8,
    pub(super) is_used_up: AtomicBool,
    /// Receive buffers that are taken for that.
    pub(super) held: AtomicUsize,
    /// Chunks of bulk receive buffers that the kernel may still read for zero-copy sends.
    pub(super) pinned_chunks: AtomicUsize,
    /// The relay stands still.
    pub(super) is_paused: AtomicBool,
}

/// A driver that counts turns, and takes all there is of a resource when it is asked to.
pub(super) struct Scarce<D> {
    inner: D,
    shared: Arc<Shared>,
    control: Fd,
    /// What takes receive buffers: a byte fills one.
    ours: Fd,
    theirs: UnixStream,
    is_receiving: bool,
    holds: Resource,
    chunks: Vec<Chunk>,
    /// The worker's.
    pub(super) pool: Rc<RefCell<Option<Pool>>>,
    buffers: Vec<ChunkMut>,
}

impl<D: Subject> Scarce<D> {
    pub(super) fn new(mut inner: D, shared: Arc<Shared>, control: UnixStream) -> Scarce<D> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        for socket in [&control, &ours] {
            socket.set_nonblocking(true).unwrap();
        }
        let control: Fd = Rc::new(OwnedFd::from(control));
        inner.poll(&control, libc::POLLIN as u32, false, CONTROL);
        Scarce {
            inner,
            shared,
            control,
            ours: Rc::new(OwnedFd::from(ours)),
            theirs,
            is_receiving: false,
            holds: Resource::Nothing,
            chunks: Vec::new(),
            pool: Rc::default(),
            buffers: Vec::new(),
        }
    }

    fn free(&self) -> usize {
        match self.holds {
            Resource::Nothing => usize::MAX,
            Resource::Receive(class) => self.inner.free_buffers(class),
            Resource::Pool => self.pool.borrow().as_ref().map_or(0, Pool::free),
        }
    }

    /// Takes what has come back since.
    fn take(&mut self) {
        match self.holds {
            Resource::Receive(class) if self.free() > 0 && !self.is_receiving => {
                self.theirs.write_all(b"x").unwrap();
                self.inner.recv(&self.ours, RecvMode::Now, class, OWN);
                self.is_receiving = true;
            }
            Resource::Pool => {
                while let Some(buffer) = self.pool.borrow().as_ref().and_then(Pool::take) {
                    self.buffers.push(buffer);
                }
            }
            _ => {}
        }
    }

    fn complete(&mut self, completion: Completion) {
        match completion.outcome {
            Outcome::Received(got) => {
                self.is_receiving = false;
                self.chunks.extend(got.ok().flatten());
            }
            _ => {
                // At its end the test is over, and this thread is to cost the others nothing.
                if rustix::io::read(&self.control, &mut [0; 64]) != Ok(0) {
                    self.inner.poll(&self.control, libc::POLLIN as u32, false, CONTROL);
                }
            }
        }
    }
}

impl<D: Subject> Driver for Scarce<D> {
    fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> io::Result<()> {
        while self.shared.is_paused.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        self.shared.turns.fetch_add(1, Ordering::SeqCst);
        let wanted = RESOURCES[usize::from(self.shared.wanted.load(Ordering::SeqCst))];
        let mut timeout = timeout;
        if wanted != self.holds {
            self.holds = wanted;
            self.chunks.clear();
            self.buffers.clear();
            // A wait may end when only buffers have come back.
            timeout = Some(Duration::ZERO);
        }
        self.take();
        self.shared.is_used_up.store(self.free() == 0, Ordering::SeqCst);
        self.shared.held.store(self.chunks.len(), Ordering::SeqCst);
        self.shared.pinned_chunks.store(self.inner.pinned_chunks(), Ordering::SeqCst);
        let mut came = Vec::new();
        self.inner.wait(timeout, &mut came)?;
        for completion in came {
            match completion.token {
                OWN | CONTROL => self.complete(completion),
                _ => out.push(completion),
            }
        }
        Ok(())
    }

    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn now(&self) -> Duration {
        self.inner.now()
    }

    fn accept(&mut self, fd: &Fd, token: Token) -> OpId {
        self.inner.accept(fd, token)
    }

    fn accept_one(&mut self, fd: &Fd, token: Token) -> OpId {
        self.inner.accept_one(fd, token)
    }

    fn recv(&mut self, fd: &Fd, mode: RecvMode, class: BufferClass, token: Token) -> OpId {
        self.inner.recv(fd, mode, class, token)
    }

    fn send(&mut self, fd: &Fd, gather: Box<Gather>, wait: SendWait, token: Token) -> OpId {
        self.inner.send(fd, gather, wait, token)
    }

    fn connect(&mut self, fd: &Fd, addr: SockAddr, token: Token) -> OpId {
        self.inner.connect(fd, addr, token)
    }

    fn poll(&mut self, fd: &Fd, events: u32, multishot: bool, token: Token) -> OpId {
        self.inner.poll(fd, events, multishot, token)
    }

    fn cancel(&mut self, op: OpId) {
        self.inner.cancel(op);
    }

    fn cancel_all(&mut self, fd: &Fd) {
        self.inner.cancel_all(fd);
    }

    fn watch_for(&mut self, time: Duration) {
        self.inner.watch_for(time);
    }

    fn free_buffers(&self, class: BufferClass) -> usize {
        self.inner.free_buffers(class)
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn counters(&self) -> &DriverCounters {
        self.inner.counters()
    }
}
