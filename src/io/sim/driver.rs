//! The simulated driver: operations complete when the simulated kernel lets them, each after a
//! delay of its own.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::SockAddr;

use super::{Kernel, ask, error};
use crate::io::chunk::{Chunk, ChunkMut, Pool};
use crate::io::driver::{
    BufferClass, Completion, Driver, DriverCounters, Fd, Gather, OpId, Outcome, RecvMode, SendWait,
    Token,
};
use crate::limits::{BULK_BUFFER_BYTES, SMALL_BUFFER_BYTES};

/// What an operation is to do.
#[derive(Debug)]
enum What {
    Accept { fd: Fd, again: bool },
    Receive { fd: Fd, mode: RecvMode, class: BufferClass },
    Send { fd: Fd, gather: Box<Gather>, wait: SendWait },
    Connect { fd: Fd, address: SocketAddr },
    Poll { fd: Fd, events: u32, multishot: bool, seen: Option<u64> },
}

impl What {
    fn fd(&self) -> &Fd {
        match self {
            What::Accept { fd, .. }
            | What::Receive { fd, .. }
            | What::Send { fd, .. }
            | What::Connect { fd, .. }
            | What::Poll { fd, .. } => fd,
        }
    }
}

/// An operation in flight.
#[derive(Debug)]
struct Op {
    token: Token,
    what: What,
    /// When it completes, once it can.
    at: Option<u64>,
    cancelled: bool,
}

/// [`Driver`] over the simulated kernel of this thread.
pub(crate) struct SimDriver {
    /// The worker that it belongs to.
    owner: usize,
    /// By their numbers, which is the order in which they were started.
    ops: BTreeMap<u32, Op>,
    next: u32,
    pools: [Pool; 2],
    counters: DriverCounters,
}

impl SimDriver {
    pub(crate) fn new(owner: usize, buffers: [u16; 2]) -> SimDriver {
        let pool = |bytes, count: u16| Pool::new(bytes, count.into()).expect("address space");
        SimDriver {
            owner,
            ops: BTreeMap::new(),
            next: 0,
            pools: [pool(SMALL_BUFFER_BYTES, buffers[0]), pool(BULK_BUFFER_BYTES, buffers[1])],
            counters: DriverCounters::default(),
        }
    }

    fn start(&mut self, token: Token, what: What) -> OpId {
        self.counters.submissions += 1;
        let index = self.next;
        self.next += 1;
        self.ops.insert(index, Op { token, what, at: None, cancelled: false });
        OpId { index, generation: 1 }
    }

    /// When an operation completes next, if one can.
    pub(crate) fn next_completion(&mut self, kernel: &mut Kernel) -> Option<u64> {
        let owner = self.owner;
        let due = self.ops.values_mut().filter_map(|op| {
            if op.at.is_none() && (op.cancelled || is_possible(&op.what, owner, kernel)) {
                op.at = Some(kernel.completes_at());
            }
            op.at
        });
        due.min()
    }

    /// Does what is due.
    fn complete(&mut self, kernel: &mut Kernel, out: &mut Vec<Completion>) {
        self.next_completion(kernel);
        let now = kernel.now_micros;
        let mut due: Vec<u32> = self
            .ops
            .iter()
            .filter(|(_, op)| op.at.is_some_and(|at| at <= now))
            .map(|(&i, _)| i)
            .collect();
        if kernel.happens(kernel.conditions.delay) {
            kernel.rng.shuffle(&mut due);
        }
        for index in due {
            let Some(mut op) = self.ops.remove(&index) else { continue };
            op.at = None;
            if !op.cancelled && !is_possible(&op.what, self.owner, kernel) {
                // What it waited for has gone by.
                self.ops.insert(index, op);
                continue;
            }
            let cancels = op.cancelled && kernel.rng.bool();
            let done = match cancels {
                true => Done::Last(cancelled(op.what)),
                false => self.step(op.what, op.cancelled, kernel),
            };
            match done {
                Done::Last(outcome) => {
                    out.push(Completion { token: op.token, more: false, outcome });
                }
                Done::More(outcome, what) => {
                    out.push(Completion { token: op.token, more: true, outcome });
                    self.ops.insert(index, Op { what, ..op });
                }
                Done::Nothing(what) => {
                    self.ops.insert(index, Op { what, ..op });
                }
            }
        }
        self.counters.completions += out.len() as u64;
    }

    /// Does what one operation is to do.
    fn step(&mut self, what: What, is_cancelled: bool, kernel: &mut Kernel) -> Done {
        match what {
            _ if is_cancelled && !is_possible(&what, self.owner, kernel) => {
                Done::Last(cancelled(what))
            }
            What::Accept { fd, again } => {
                let got = kernel.accept_fd(fd.as_raw_fd());
                match got {
                    Ok(_) if again => {
                        Done::More(Outcome::Accepted(got), What::Accept { fd, again })
                    }
                    got => Done::Last(Outcome::Accepted(got)),
                }
            }
            What::Receive { fd, mode, class } => {
                let got = self.receive(&fd, class, kernel);
                match (mode, got) {
                    (RecvMode::Multishot, Err(e)) if e.kind() == io::ErrorKind::WouldBlock => {
                        Done::Nothing(What::Receive { fd, mode, class })
                    }
                    (RecvMode::Multishot, Ok(Some(chunk))) => Done::More(
                        Outcome::Received(Ok(Some(chunk))),
                        What::Receive { fd, mode, class },
                    ),
                    (_, got) => Done::Last(Outcome::Received(got)),
                }
            }
            What::Send { fd, gather, wait } => {
                let result = kernel.write(fd.as_raw_fd(), gather.iter().map(|chunk| &chunk[..]));
                match (wait, result) {
                    (SendWait::Yes, Err(e)) if e.kind() == io::ErrorKind::WouldBlock => {
                        Done::Nothing(What::Send { fd, gather, wait })
                    }
                    (_, result) => Done::Last(Outcome::Sent { result, gather }),
                }
            }
            What::Connect { fd, address } => {
                let result = kernel.connect(address).map(|conn| {
                    kernel.become_conn(fd.as_raw_fd(), conn);
                });
                Done::Last(Outcome::Connected(result))
            }
            What::Poll { fd, events, multishot, .. } => {
                let found = happened(&fd, events, self.owner, kernel);
                let outcome = Outcome::Polled(Ok(found));
                if multishot {
                    let seen = Some(kernel.edge(fd.as_raw_fd()));
                    Done::More(outcome, What::Poll { fd, events, multishot, seen })
                } else {
                    if kernel.object(fd.as_raw_fd()).is_none() {
                        let now = kernel.now_micros;
                        kernel.lookups.retain(|&(owner, at)| owner != self.owner || at > now);
                    }
                    Done::Last(outcome)
                }
            }
        }
    }

    fn receive(
        &mut self,
        fd: &Fd,
        class: BufferClass,
        kernel: &mut Kernel,
    ) -> io::Result<Option<Chunk>> {
        let buffer = self.pools[class as usize].take();
        let missing = kernel.happens(kernel.conditions.no_buffer);
        let Some(mut buffer) = buffer.filter(|_| !missing) else {
            self.counters.no_buffers += 1;
            return error(libc::ENOBUFS);
        };
        let room_bytes = ChunkMut::room(&buffer);
        let bytes = kernel.read(fd.as_raw_fd(), room_bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        buffer.put(&bytes);
        Ok(Some(buffer.take_written()))
    }
}

/// What came of an operation.
enum Done {
    Last(Outcome),
    /// It goes on.
    More(Outcome, What),
    /// Not now.
    Nothing(What),
}

/// The operation ended because that was asked for.
fn cancelled(what: What) -> Outcome {
    let ended = io::Error::from_raw_os_error(libc::ECANCELED);
    match what {
        What::Accept { .. } => Outcome::Accepted(Err(ended)),
        What::Receive { .. } => Outcome::Received(Err(ended)),
        What::Send { gather, .. } => Outcome::Sent { result: Err(ended), gather },
        What::Connect { .. } => Outcome::Connected(Err(ended)),
        What::Poll { .. } => Outcome::Polled(Err(ended)),
    }
}

/// Events of a descriptor that a poll for `events` tells of. The wake channel is no simulated
/// object: it is readable when a name was answered.
fn happened(fd: &Fd, events: u32, owner: usize, kernel: &Kernel) -> u32 {
    let unasked = (libc::POLLERR | libc::POLLHUP) as u32;
    if kernel.object(fd.as_raw_fd()).is_none() {
        let now = kernel.now_micros;
        let is_answered = kernel.lookups.iter().any(|&(of, at)| of == owner && at <= now);
        return if is_answered { libc::POLLIN as u32 } else { 0 };
    }
    kernel.events(fd.as_raw_fd()) & (events | unasked)
}

/// Whether an operation can do something.
fn is_possible(what: &What, owner: usize, kernel: &Kernel) -> bool {
    let number = what.fd().as_raw_fd();
    let has = |events: libc::c_short| {
        let events = (events | libc::POLLERR | libc::POLLHUP).cast_unsigned();
        kernel.events(number) & u32::from(events) != 0
    };
    match what {
        What::Accept { .. } => has(libc::POLLIN),
        What::Receive { mode: RecvMode::Now, .. } | What::Send { wait: SendWait::No, .. } => true,
        What::Receive { .. } => has(libc::POLLIN),
        What::Send { .. } => has(libc::POLLOUT),
        What::Connect { address, .. } => !kernel.is_silent(*address),
        What::Poll { fd, events, seen, .. } => {
            let is_new = seen.is_none_or(|seen| seen != kernel.edge(number));
            is_new && happened(fd, *events, owner, kernel) != 0
        }
    }
}

impl Kernel {
    /// When an operation completes that can.
    fn completes_at(&mut self) -> u64 {
        let later = if self.happens(self.conditions.delay) { self.rng.u64(1..=500) } else { 0 };
        self.now_micros + later
    }
}

impl Driver for SimDriver {
    fn name(&self) -> &'static str {
        "simulation"
    }

    fn now(&self) -> Duration {
        Duration::from_micros(ask(|kernel| kernel.now_micros).unwrap_or(0))
    }

    fn accept(&mut self, fd: &Fd, token: Token) -> OpId {
        self.start(token, What::Accept { fd: Fd::clone(fd), again: true })
    }

    fn accept_one(&mut self, fd: &Fd, token: Token) -> OpId {
        self.start(token, What::Accept { fd: Fd::clone(fd), again: false })
    }

    fn recv(&mut self, fd: &Fd, mode: RecvMode, class: BufferClass, token: Token) -> OpId {
        self.counters.receives += 1;
        self.start(token, What::Receive { fd: Fd::clone(fd), mode, class })
    }

    fn send(&mut self, fd: &Fd, gather: Box<Gather>, wait: SendWait, token: Token) -> OpId {
        self.counters.sends += 1;
        assert!(!gather.is_empty(), "nothing to send");
        let is_other =
            |op: &Op| matches!(&op.what, What::Send { fd: other, .. } if Fd::ptr_eq(fd, other));
        assert!(!self.ops.values().any(is_other), "two sends in flight on one descriptor");
        self.start(token, What::Send { fd: Fd::clone(fd), gather, wait })
    }

    fn connect(&mut self, fd: &Fd, addr: SockAddr, token: Token) -> OpId {
        let address = addr.as_socket().expect("an address of the network");
        self.start(token, What::Connect { fd: Fd::clone(fd), address })
    }

    fn poll(&mut self, fd: &Fd, events: u32, multishot: bool, token: Token) -> OpId {
        self.counters.polls += 1;
        self.start(token, What::Poll { fd: Fd::clone(fd), events, multishot, seen: None })
    }

    fn cancel(&mut self, op: OpId) {
        match self.ops.get_mut(&op.index) {
            Some(op) => op.cancelled = true,
            None => self.counters.stale += 1,
        }
    }

    fn cancel_all(&mut self, fd: &Fd) {
        for op in self.ops.values_mut().filter(|op| Fd::ptr_eq(op.what.fd(), fd)) {
            op.cancelled = true;
        }
    }

    fn wait(&mut self, _timeout: Option<Duration>, out: &mut Vec<Completion>) -> io::Result<()> {
        // The clock is the script's: it lets a worker run when something is due.
        ask(|kernel| self.complete(kernel, out));
        Ok(())
    }

    fn watch_for(&mut self, _time: Duration) {}

    fn free_buffers(&self, class: BufferClass) -> usize {
        self.pools[class as usize].free()
    }

    fn in_flight(&self) -> usize {
        self.ops.len()
    }

    fn counters(&self) -> &DriverCounters {
        &self.counters
    }
}
