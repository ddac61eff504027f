//! The drivers against real sockets: every operation, its last completion, and the release of buffers
//! and descriptors. One suite for both; features of one driver are in files of their own.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use sockmux_uring::io::chunk::{Chunk, Pool};
use sockmux_uring::io::driver::{
    BufferClass, Completion, Driver, Fd, Gather, Outcome, RecvMode, SendWait, Token,
};
use sockmux_uring::io::epoll::{EpollConfig, EpollDriver};
use sockmux_uring::io::uring::{UringConfig, UringDriver};

/// Makes tests for both drivers of functions for any.
macro_rules! on_both_drivers {
    ($($name:ident),* $(,)?) => {
        mod uring {
            $(#[test] fn $name() { super::$name::<crate::UringDriver>(); })*
        }
        mod epoll {
            $(#[test] fn $name() { super::$name::<crate::EpollDriver>(); })*
        }
    };
}

#[path = "../testkit/mod.rs"]
mod testkit;

mod beside;
mod bounds;
mod epoll_only;
mod operations;
mod serial_device;
mod transfer;
mod uring_only;
mod zero_copy;

/// Longest wait for anything; reached only by failures.
const DEADLINE: Duration = Duration::from_secs(20);

/// Counts the allocations of each thread, for the test that there are none.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count_one() {
    // A thread that is ending has no counter any more, nor a reader of it.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: all requests go to the system's allocator unchanged; counting does not allocate (the
// counter is constant-initialised and has no destructor).
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_one();
        // SAFETY: as the caller has it.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        count_one();
        // SAFETY: as the caller has it.
        unsafe { System.realloc(old, layout, new_bytes) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as the caller has it.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A driver that can be tested.
trait Subject: Driver + Sized {
    /// With so many small buffers of so many bytes, else as the program has it.
    fn with_small_buffers(count: u16, bytes: u32) -> Self;

    /// As the program has it.
    fn usual() -> Self;
}

impl Subject for UringDriver {
    fn with_small_buffers(small_buffers: u16, small_buffer_bytes: u32) -> Self {
        let config = UringConfig { small_buffers, small_buffer_bytes, ..UringConfig::default() };
        Self::new(&config).expect("io_uring works here")
    }

    fn usual() -> Self {
        Self::new(&UringConfig::default()).expect("io_uring works here")
    }
}

impl Subject for EpollDriver {
    fn with_small_buffers(count: u16, small_buffer_bytes: u32) -> Self {
        let small_buffers = count.into();
        let config = EpollConfig { small_buffers, small_buffer_bytes, ..EpollConfig::default() };
        Self::new(&config).expect("epoll works everywhere")
    }

    fn usual() -> Self {
        Self::new(&EpollConfig::default()).expect("epoll works everywhere")
    }
}

/// A driver and its completions that the test has not taken yet.
struct Rig<D> {
    driver: D,
    batch: Vec<Completion>,
    done: VecDeque<Completion>,
}

impl<D: Subject> Rig<D> {
    fn new() -> Self {
        Self::with(D::usual())
    }

    fn with(driver: D) -> Self {
        Self { driver, batch: Vec::with_capacity(256), done: VecDeque::with_capacity(256) }
    }

    /// The next completion, waited for.
    #[track_caller]
    fn next(&mut self) -> Completion {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(completion) = self.done.pop_front() {
                return completion;
            }
            let time_left = deadline.saturating_duration_since(Instant::now());
            assert!(!time_left.is_zero(), "no completion in time");
            self.driver.wait(Some(time_left), &mut self.batch).expect("the driver goes on");
            self.done.extend(self.batch.drain(..));
        }
    }

    /// Submits the started operations and takes completions, without waiting.
    fn turn(&mut self) {
        self.driver.wait(Some(Duration::ZERO), &mut self.batch).expect("the driver goes on");
        self.done.extend(self.batch.drain(..));
    }

    #[track_caller]
    fn next_chunk(&mut self, token: Token) -> (Chunk, bool) {
        match self.next() {
            Completion { token: t, more, outcome: Outcome::Received(Ok(Some(chunk))) }
                if t == token =>
            {
                (chunk, more)
            }
            other => panic!("expected bytes for {token:?}, got {other:?}"),
        }
    }

    /// The next completion, which is the last of its operation and carries an error.
    #[track_caller]
    fn next_error(&mut self, token: Token) -> i32 {
        let completion = self.next();
        assert_eq!((completion.token, completion.more), (token, false), "{completion:?}");
        let error = match completion.outcome {
            Outcome::Accepted(result) => result.map(drop),
            Outcome::Received(result) => result.map(drop),
            Outcome::Sent { result, .. } => result.map(drop),
            Outcome::Connected(result) => result,
            Outcome::Polled(result) => result.map(drop),
        };
        error.expect_err("an error").raw_os_error().expect("the kernel's number")
    }
}

fn pair() -> (Fd, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_read_timeout(Some(DEADLINE)).unwrap();
    (Rc::new(ours.into()), theirs)
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    for stream in [&near, &far] {
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
    }
    (near, far)
}

fn fd(file: impl Into<OwnedFd>) -> Fd {
    Rc::new(file.into())
}

fn listener() -> (Fd, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (fd(listener), address)
}

fn chunk(pool: &Pool, bytes: &[u8]) -> Chunk {
    let mut writer = pool.take().expect("a free buffer");
    assert_eq!(writer.put(bytes), bytes.len());
    writer.take_written()
}

fn gather(chunks: impl IntoIterator<Item = Chunk>) -> Box<Gather> {
    let mut gather = Box::new(Gather::new());
    chunks.into_iter().for_each(|chunk| gather.push(chunk));
    gather
}

fn read_exactly(from: &mut impl Read, bytes: usize) -> Vec<u8> {
    let mut read = vec![0; bytes];
    from.read_exact(&mut read).unwrap();
    read
}

const POLLIN: u32 = libc::POLLIN as u32;
const POLLOUT: u32 = libc::POLLOUT as u32;
