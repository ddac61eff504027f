//! The driver over epoll, for where io_uring cannot be had.
//!
//! What can be done when an operation is started is done then, by the plain call, and its completion
//! is passed on by the next wait; what has to wait for its descriptor stands in a slot and is tried
//! again when epoll tells of a change. The kernel holds nothing of ours between calls, so that a
//! driver can be dropped at any time.

mod descriptors;
mod poller;
mod tries;

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use socket2::{SockAddr, SockRef};

use self::descriptors::Descriptors;
use self::poller::{BROKEN, HALF_CLOSED, IN, OUT, Poller, URGENT, ready_now};
use super::chunk::Pool;
use super::direct;
use super::driver::{
    BufferClass, Completion, Driver, DriverCounters, Fd, Gather, OpId, Outcome, RecvMode, SendWait,
    Token,
};
use super::slots::Slots;
use crate::limits::{
    BULK_BUFFER_BYTES, BULK_BUFFERS, EPOLL_EVENTS_MAX, EPOLL_UNSEEN_TURNS_MAX, OPERATIONS_START,
    SMALL_BUFFER_BYTES, SMALL_BUFFERS,
};

/// Sizes of a driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpollConfig {
    /// Size of each buffer of [`BufferClass::Small`].
    pub small_buffer_bytes: u32,
    /// Number of these.
    pub small_buffers: u32,
    /// Size of each buffer of [`BufferClass::Bulk`].
    pub bulk_buffer_bytes: u32,
    /// Number of these.
    pub bulk_buffers: u32,
}

impl Default for EpollConfig {
    /// What [`crate::limits`] says.
    fn default() -> Self {
        Self {
            small_buffer_bytes: SMALL_BUFFER_BYTES,
            small_buffers: SMALL_BUFFERS.into(),
            bulk_buffer_bytes: BULK_BUFFER_BYTES,
            bulk_buffers: BULK_BUFFERS.into(),
        }
    }
}

/// One operation that has not had its last completion.
struct Op {
    token: Token,
    what: What,
}

/// Whether an operation goes on when it has done what it waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeats {
    Yes,
    No,
}

/// What an operation waits to do, with the descriptor that it keeps open.
enum What {
    Accept(Fd, Repeats),
    /// Multishot; others never wait.
    Receive(Fd, BufferClass),
    Send(Fd, Box<Gather>),
    Connect(Fd),
    Poll {
        fd: Fd,
        events: u32,
        multishot: bool,
    },
    /// Nothing: its last completion is on its way to the worker.
    Over,
}

impl What {
    fn fd(&self) -> Option<&Fd> {
        match self {
            What::Accept(fd, _)
            | What::Receive(fd, _)
            | What::Send(fd, _)
            | What::Connect(fd)
            | What::Poll { fd, .. } => Some(fd),
            What::Over => None,
        }
    }

    /// Its end by an error.
    fn failed(self, error: io::Error) -> Option<Outcome> {
        Some(match self {
            What::Accept(..) => Outcome::Accepted(Err(error)),
            What::Receive(..) => Outcome::Received(Err(error)),
            What::Send(_, gather) => Outcome::Sent { result: Err(error), gather },
            What::Connect(_) => Outcome::Connected(Err(error)),
            What::Poll { .. } => Outcome::Polled(Err(error)),
            What::Over => return None,
        })
    }
}

/// [`Driver`] over epoll. Belongs to the thread that made it.
pub struct EpollDriver {
    poller: Poller,
    ops: Slots<Op>,
    descriptors: Descriptors,
    /// By [`BufferClass`].
    pools: [Pool; 2],
    /// Completions to be passed on, in order.
    done: VecDeque<(OpId, Completion)>,
    /// Numbers of descriptors that have not had all that is known to be there.
    unfinished: VecDeque<usize>,
    /// Turns since epoll was looked at.
    unseen_turns: u32,
    began: Instant,
    counters: DriverCounters,
}

impl EpollDriver {
    /// Makes the epoll descriptor and the buffers.
    ///
    /// # Errors
    /// When the process is out of descriptors or address space.
    pub fn new(config: &EpollConfig) -> io::Result<Self> {
        Ok(Self {
            poller: Poller::new()?,
            ops: Slots::with_capacity(OPERATIONS_START),
            descriptors: Descriptors::default(),
            pools: [
                Pool::new(config.small_buffer_bytes, config.small_buffers)?,
                Pool::new(config.bulk_buffer_bytes, config.bulk_buffers)?,
            ],
            done: VecDeque::with_capacity(EPOLL_EVENTS_MAX),
            unfinished: VecDeque::with_capacity(EPOLL_EVENTS_MAX),
            unseen_turns: 0,
            began: Instant::now(),
            counters: DriverCounters::default(),
        })
    }

    /// Books an operation that was done when it was started.
    fn did(&mut self, token: Token, outcome: Outcome) -> OpId {
        let id = self.ops.insert(Op { token, what: What::Over });
        self.done.push_back((id, Completion { token, more: false, outcome }));
        id
    }

    /// Books an operation that waits until one of `events` is told of.
    fn wait_for(&mut self, number: usize, events: u32, token: Token, what: What) -> OpId {
        let id = self.ops.insert(Op { token, what });
        match self.descriptors.watch(number, events, &self.poller) {
            Ok(()) => self.descriptors.get(number).waiting.push(id),
            Err(error) => self.unwatchable(id, number, error),
        }
        id
    }

    /// The kind of the descriptor, or the system, does not let it be watched: what it says at once
    /// is all that there is.
    #[cold]
    fn unwatchable(&mut self, id: OpId, number: usize, error: io::Error) {
        let Some(op) = self.ops.get(id) else { return };
        let events = match &op.what {
            What::Poll { events, .. } => *events,
            _ => IN | OUT,
        };
        let ready = op.what.fd().map_or(Ok(0), |fd| ready_now(fd, events));
        self.descriptors.get(number).learn(ready.unwrap_or(0));
        if self.step(id, number, true) {
            self.end_by(id, error);
        }
    }

    /// Takes a descriptor up again in the next wait, if something may be there.
    fn resume_soon(&mut self, number: usize) {
        let entry = self.descriptors.get(number);
        if entry.is_readable() && !std::mem::replace(&mut entry.listed, true) {
            self.unfinished.push_back(number);
        }
    }

    fn resume(&mut self) {
        for _ in 0..self.unfinished.len() {
            let Some(number) = self.unfinished.pop_front() else { return };
            self.descriptors.get(number).listed = false;
            self.advance(number, false);
        }
    }

    /// Ends an operation that waits.
    fn end_by(&mut self, id: OpId, error: io::Error) {
        let Some(op) = self.ops.get_mut(id) else { return };
        let token = op.token;
        if let Some(outcome) = std::mem::replace(&mut op.what, What::Over).failed(error) {
            self.done.push_back((id, Completion { token, more: false, outcome }));
        }
    }

    /// Looks at epoll, for `timeout` at most, and does what waited for what it tells of.
    fn look(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.counters.enters += 1;
        self.unseen_turns = 0;
        for at in 0..self.poller.wait(timeout)? {
            let (data, ready) = self.poller.event(at);
            if let Some(number) = self.descriptors.find(data) {
                self.descriptors.get(number).learn(ready);
                self.advance(number, true);
            }
        }
        Ok(())
    }

    fn pass_on(&mut self, out: &mut Vec<Completion>) {
        self.counters.completions += self.done.len() as u64;
        for (id, completion) in self.done.drain(..) {
            if !completion.more {
                self.ops.remove(id);
            }
            out.push(completion);
        }
    }
}

impl Driver for EpollDriver {
    fn name(&self) -> &'static str {
        "epoll"
    }

    #[inline]
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn accept(&mut self, fd: &Fd, token: Token) -> OpId {
        self.counters.submissions += 1;
        let number = self.descriptors.number_of(fd);
        self.resume_soon(number);
        self.wait_for(number, IN, token, What::Accept(Fd::clone(fd), Repeats::Yes))
    }

    fn accept_one(&mut self, fd: &Fd, token: Token) -> OpId {
        self.counters.submissions += 1;
        let number = self.descriptors.number_of(fd);
        self.resume_soon(number);
        self.wait_for(number, IN, token, What::Accept(Fd::clone(fd), Repeats::No))
    }

    fn recv(&mut self, fd: &Fd, mode: RecvMode, class: BufferClass, token: Token) -> OpId {
        self.counters.submissions += 1;
        self.counters.receives += 1;
        let number = self.descriptors.number_of(fd);
        match mode {
            RecvMode::Now => {
                let outcome = Outcome::Received(self.receive(number, fd, class));
                self.did(token, outcome)
            }
            RecvMode::Multishot => {
                self.resume_soon(number);
                self.wait_for(number, IN, token, What::Receive(Fd::clone(fd), class))
            }
        }
    }

    fn send(&mut self, fd: &Fd, mut gather: Box<Gather>, wait: SendWait, token: Token) -> OpId {
        self.counters.submissions += 1;
        self.counters.sends += 1;
        let number = self.descriptors.number_of(fd);
        let entry = self.descriptors.get(number);
        let full = entry.is_watched_for(OUT) && !entry.is_writable();
        if !full || wait == SendWait::No {
            self.counters.enters += 1;
            match direct::send(fd, &mut gather, false) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.descriptors.get(number).forget(OUT);
                    if wait == SendWait::No {
                        return self.did(token, Outcome::Sent { result: Err(error), gather });
                    }
                }
                result => return self.did(token, Outcome::Sent { result, gather }),
            }
        }
        self.wait_for(number, OUT, token, What::Send(Fd::clone(fd), gather))
    }

    fn connect(&mut self, fd: &Fd, addr: SockAddr, token: Token) -> OpId {
        self.counters.submissions += 1;
        self.counters.enters += 1;
        match SockRef::from(fd).connect(&addr) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
                let number = self.descriptors.number_of(fd);
                self.descriptors.get(number).forget(u32::MAX);
                self.wait_for(number, OUT, token, What::Connect(Fd::clone(fd)))
            }
            result => self.did(token, Outcome::Connected(result)),
        }
    }

    fn poll(&mut self, fd: &Fd, events: u32, multishot: bool, token: Token) -> OpId {
        self.counters.submissions += 1;
        self.counters.polls += 1;
        let number = self.descriptors.number_of(fd);
        let entry = self.descriptors.get(number);
        // It was so when it was last heard of, and others may have read or written since.
        let maybe = entry.ready & (events | BROKEN) != 0;
        if maybe {
            self.counters.enters += 1;
            let ready = ready_now(fd, IN | OUT | URGENT | HALF_CLOSED).unwrap_or(BROKEN);
            entry.learn(ready);
        }
        let what = What::Poll { fd: Fd::clone(fd), events, multishot };
        let id = self.wait_for(number, events, token, what);
        if maybe && !self.step(id, number, true) {
            self.descriptors.get(number).waiting.retain(|&waiting| waiting != id);
        }
        id
    }

    fn cancel(&mut self, op: OpId) {
        let Some(started) = self.ops.get(op) else {
            self.counters.stale += 1;
            return;
        };
        self.counters.submissions += 1;
        // One that is over has its last completion on its way.
        if let Some(fd) = started.what.fd() {
            let number = self.descriptors.number_of(&Fd::clone(fd));
            self.descriptors.get(number).waiting.retain(|&id| id != op);
            self.end_by(op, io::Error::from_raw_os_error(libc::ECANCELED));
        }
    }

    fn cancel_all(&mut self, fd: &Fd) {
        self.counters.submissions += 1;
        let number = self.descriptors.number_of(fd);
        let mut waiting = std::mem::take(&mut self.descriptors.get(number).waiting);
        for id in waiting.drain(..) {
            self.end_by(id, io::Error::from_raw_os_error(libc::ECANCELED));
        }
        self.descriptors.get(number).waiting = waiting;
    }

    fn leave(&mut self, fd: &Fd) {
        self.cancel_all(fd);
        self.descriptors.forget(fd, &self.poller);
    }

    fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> io::Result<()> {
        // A time too far off to be reckoned with is none.
        let deadline = timeout
            .filter(|timeout| !timeout.is_zero())
            .and_then(|timeout| Instant::now().checked_add(timeout));
        let mut time_left = timeout;
        self.resume();
        loop {
            if self.done.is_empty() {
                match self.look(time_left) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
                    looked => looked?,
                }
            } else if self.unseen_turns < EPOLL_UNSEEN_TURNS_MAX {
                self.unseen_turns += 1;
            } else {
                match self.look(Some(Duration::ZERO)) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    looked => looked?,
                }
            }
            if !self.done.is_empty() {
                self.pass_on(out);
                return Ok(());
            }
            // Nobody waited for what was told of.
            if let Some(deadline) = deadline {
                time_left = Some(deadline.saturating_duration_since(Instant::now()));
            }
            if time_left == Some(Duration::ZERO) {
                return Ok(());
            }
        }
    }

    fn watch_for(&mut self, time: Duration) {
        self.resume();
        let until = Instant::now() + time;
        // An error lasts until the next wait, where it is dealt with.
        while self.done.is_empty() && self.look(Some(Duration::ZERO)).is_ok() {
            if !self.done.is_empty() || Instant::now() >= until {
                return;
            }
            std::thread::yield_now();
        }
    }

    #[inline]
    fn free_buffers(&self, class: BufferClass) -> usize {
        self.pools[class as usize].free()
    }

    #[inline]
    fn in_flight(&self) -> usize {
        self.ops.len()
    }

    fn counters(&self) -> &DriverCounters {
        &self.counters
    }
}
