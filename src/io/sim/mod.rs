//! A kernel in memory: sockets, listeners, pipes, serial lines, a clock and a resolver that do what a
//! script and a seed decide. Test builds only.
//!
//! The seam has two halves. [`SimDriver`] is a third [`Driver`](super::driver::Driver), for what
//! completes later. What the worker calls at once, such as a splice or a shutdown, goes through
//! [`ask`]: on a thread with a simulated kernel, the functions of [`super::net`],
//! [`super::direct`] and [`super::pipe`] are answered by it, and nothing reaches the real kernel.
//! So everything above the system calls runs as it is.
//!
//! Descriptors are real, so that the worker owns and closes them as ever: each is a duplicate of
//! `/dev/null` with a number that stands for a simulated object. The kernel finds out what was
//! closed by asking for all of them in one poll(2) after each turn.

mod closing;
mod conn;
mod datagrams;
mod descriptors;
mod driver;
mod lines;
mod pipes;
mod sockets;
mod states;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;

use fastrand::Rng;

pub(crate) use self::conn::{Conn, Side};
pub(crate) use self::driver::SimDriver;

use self::datagrams::{DatagramSocket, OnTheWay};
use self::descriptors::Descriptors;
use self::pipes::PipeBuffer;

thread_local! {
    static KERNEL: RefCell<Option<Kernel>> = const { RefCell::new(None) };
}

/// Calls the simulated kernel of this thread; `None` where there is none.
#[inline]
pub(crate) fn ask<T>(call: impl FnOnce(&mut Kernel) -> T) -> Option<T> {
    KERNEL.with(|kernel| kernel.borrow_mut().as_mut().map(call))
}

/// How unfriendly the kernel is. Each chance is in 256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Conditions {
    /// A call moves only a part of what it could.
    pub(crate) partial: u8,
    /// A call says `EAGAIN` though it could do something.
    pub(crate) again: u8,
    /// A receive finds no buffer though there is one.
    pub(crate) no_buffer: u8,
    /// A completion is delayed, and others overtake it.
    pub(crate) delay: u8,
    /// A socket cannot be spliced at all.
    pub(crate) no_splice: u8,
    /// A serial line damages what is written to it at once.
    pub(crate) noise: u8,
    /// Slots of a pipe.
    pub(crate) pipe_slots: u16,
    /// Bytes that a socket holds in each direction.
    pub(crate) socket_bytes: u32,
    /// Longest time on the way between two sockets.
    pub(crate) latency_micros: u32,
    /// Small and bulk receive buffers.
    pub(crate) buffers: [u16; 2],
    /// Buffers of a worker's own pool. 0: as many as ever.
    pub(crate) pool_buffers: u16,
    /// Descriptors that a worker may have open. 0: enough.
    pub(crate) descriptors: u16,
    /// Frames that a tunnel may cause in a turn. 0: as many as ever.
    pub(crate) turn_frames: u16,
}

/// What a simulated descriptor stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Object {
    /// A socket that is not connected, and the address it is bound to.
    Socket,
    Listener(usize),
    /// One side of a connection.
    Conn(usize, Side),
    PipeReader(usize),
    PipeWriter(usize),
    /// A socket for datagrams.
    Datagrams(usize),
    Placeholder,
}

/// A listening socket. Without an owner it is an actor's.
#[derive(Debug)]
struct Listener {
    address: SocketAddr,
    /// Connections whose far side waits to be accepted.
    backlog: VecDeque<usize>,
    is_open: bool,
    /// Ended by a shutdown: accepts fail.
    is_shut: bool,
}

/// What the simulated kernel knows.
#[derive(Debug)]
pub(crate) struct Kernel {
    now_micros: u64,
    rng: Rng,
    conditions: Conditions,
    descriptors: Descriptors,
    objects: BTreeMap<RawFd, (usize, Object)>,
    conns: Vec<Conn>,
    listeners: Vec<Listener>,
    pipes: Vec<PipeBuffer>,
    datagrams: Vec<DatagramSocket>,
    on_the_way: Vec<OnTheWay>,
    /// Where connections are neither accepted nor refused.
    silent: Vec<SocketAddr>,
    /// The worker that runs, which owns what is made.
    owner: usize,
    /// Changes of any state. A turn without one was for nothing.
    changes: u64,
    /// Writes that a line has damaged.
    damages: u64,
    /// Everything that happens is printed.
    pub(crate) traces: bool,
    /// Names that are looked up by each worker, and when they are answered.
    lookups: Vec<(usize, u64)>,
}

impl Kernel {
    /// Everything that it does by chance follows from the seed.
    pub(crate) fn begin(seed: u64, conditions: Conditions) {
        let kernel = Kernel {
            now_micros: 0,
            rng: Rng::with_seed(seed),
            conditions,
            descriptors: Descriptors::new(),
            objects: BTreeMap::new(),
            conns: Vec::new(),
            listeners: Vec::new(),
            pipes: Vec::new(),
            datagrams: Vec::new(),
            on_the_way: Vec::new(),
            silent: Vec::new(),
            owner: 0,
            changes: 0,
            damages: 0,
            traces: false,
            lookups: Vec::new(),
        };
        KERNEL.with(|cell| *cell.borrow_mut() = Some(kernel));
    }

    /// The thread's calls go to the real kernel again.
    pub(crate) fn end() {
        KERNEL.with(|cell| *cell.borrow_mut() = None);
    }

    pub(crate) fn now_micros(&self) -> u64 {
        self.now_micros
    }

    /// Moves the clock, and what arrives until then.
    pub(crate) fn set_time(&mut self, micros: u64) {
        debug_assert!(micros >= self.now_micros, "time goes forward");
        self.now_micros = micros;
        self.deliver();
    }

    /// The worker whose turn it is.
    pub(crate) fn set_owner(&mut self, owner: usize) {
        self.owner = owner;
    }

    pub(crate) fn owner(&self) -> usize {
        self.owner
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Prints what happens, if that was asked for.
    fn trace(&self, what: impl FnOnce() -> String) {
        if self.traces {
            println!("{:>10} end {}: {}", self.now_micros, self.owner, what());
        }
    }

    fn changed(&mut self) {
        self.changes += 1;
    }

    /// Whether something happens that has this chance.
    fn happens(&mut self, chance: u8) -> bool {
        chance > 0 && self.rng.u8(..) < chance
    }

    /// As much of `most` as a call moves.
    fn part_of(&mut self, most: usize) -> usize {
        if most > 1 && self.happens(self.conditions.partial) {
            self.rng.usize(1..most)
        } else {
            most
        }
    }

    fn latency(&mut self) -> u64 {
        u64::from(self.rng.u32(1..=self.conditions.latency_micros.max(1)))
    }

    fn object(&self, fd: RawFd) -> Option<Object> {
        self.objects.get(&fd).map(|&(_, object)| object)
    }

    /// Descriptors that a worker has open.
    pub(crate) fn open_descriptors(&self, owner: usize) -> usize {
        self.objects.values().filter(|&&(of, _)| of == owner).count()
    }

    /// The answer to a question for a name comes at once, later, or never.
    pub(crate) fn look_up(&mut self, host: &str) -> Option<Vec<std::net::IpAddr>> {
        self.changed();
        let later = self.latency() * 20;
        self.lookups.push((self.owner, self.now_micros + later));
        host.strip_prefix("at-").map(|ip| ip.replace('-', ".").parse().into_iter().collect())
    }
}

/// Events as poll(2) has them, without a sign.
fn mask(events: libc::c_short) -> u32 {
    u32::from(events.unsigned_abs())
}

/// `EAGAIN`.
fn again<T>() -> io::Result<T> {
    Err(io::Error::from_raw_os_error(libc::EAGAIN))
}

fn error<T>(number: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(number))
}
