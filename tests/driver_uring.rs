//! The io_uring driver against real sockets: every operation, its last completion, and what
//! becomes of buffers and descriptors.
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
use sockmux_uring::engine::chunk::{Chunk, Pool};
use sockmux_uring::engine::driver::{
    BufferClass, Completion, Driver, Fd, Gather, Outcome, RecvMode, SendWait, Token,
};
use sockmux_uring::engine::uring::{UringConfig, UringDriver};

/// Longest wait for anything; reached only by failures.
const DEADLINE: Duration = Duration::from_secs(20);

/// Counts the allocations of each thread, for the test that there are none.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count_one() {
    // A thread that is ending has no counter any more, and nobody who reads it.
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

/// A driver and what it has completed and no test has looked at yet.
struct Rig {
    driver: UringDriver,
    batch: Vec<Completion>,
    done: VecDeque<Completion>,
}

impl Rig {
    fn new() -> Self {
        Self::with(&UringConfig::default())
    }

    fn with(config: &UringConfig) -> Self {
        let driver = UringDriver::new(config).expect("io_uring works here");
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

    /// Gives the kernel what was started and takes what there is, without waiting.
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

#[test]
fn one_accept_takes_many_connections_until_cancelled() {
    let mut rig = Rig::new();
    let (listener, address) = listener();
    let op = rig.driver.accept(&listener, Token(7));
    let clients: Vec<_> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut accepted = Vec::new();
    while accepted.len() < clients.len() {
        match rig.next() {
            Completion { token: Token(7), more: true, outcome: Outcome::Accepted(Ok(fd)) } => {
                accepted.push(fd);
            }
            other => panic!("{other:?}"),
        }
    }
    for fd in &accepted {
        // SAFETY: reads the flags of a descriptor that we own.
        let (status, flags) = unsafe {
            (libc::fcntl(fd.as_raw_fd(), libc::F_GETFL), libc::fcntl(fd.as_raw_fd(), libc::F_GETFD))
        };
        assert_ne!(status & libc::O_NONBLOCK, 0);
        assert_ne!(flags & libc::FD_CLOEXEC, 0);
    }
    assert_eq!(rig.driver.in_flight(), 1);
    rig.driver.cancel(op);
    assert_eq!(rig.next_error(Token(7)), libc::ECANCELED);
    assert_eq!(rig.driver.in_flight(), 0);
}

#[test]
fn a_connection_accepted_for_nobody_is_closed_with_its_completion() {
    let mut rig = Rig::new();
    let (listener, address) = listener();
    rig.driver.accept(&listener, Token(1));
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    drop(rig.next());
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn multishot_receive_goes_on_to_the_end_of_data() {
    let mut rig = Rig::new();
    for class in [BufferClass::Small, BufferClass::Bulk] {
        let (ours, mut theirs) = pair();
        rig.driver.recv(&ours, RecvMode::Multishot, class, Token(1));
        for message in [&b"first"[..], b"second", b"third"] {
            theirs.write_all(message).unwrap();
            let (chunk, more) = rig.next_chunk(Token(1));
            assert_eq!((&chunk[..], more), (message, true));
        }
        drop(theirs);
        match rig.next() {
            Completion { more: false, outcome: Outcome::Received(Ok(None)), .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(rig.driver.in_flight(), 0);
    assert_eq!(rig.driver.counters().completions, 8);
}

#[test]
fn a_receive_out_of_buffers_ends_and_can_be_started_again() {
    let config =
        UringConfig { small_buffers: 2, small_buffer_bytes: 4096, ..UringConfig::default() };
    let mut rig = Rig::with(&config);
    let (ours, mut theirs) = pair();
    let sent: Vec<u8> = (0..5 * 4096u32).map(|n| (n / 7) as u8).collect();
    theirs.write_all(&sent).unwrap();
    let mut received = Vec::new();
    assert_eq!(rig.driver.free_buffers(BufferClass::Small), 2);
    let mut rounds = 0;
    while received.len() < sent.len() {
        rounds += 1;
        rig.driver.recv(&ours, RecvMode::Multishot, BufferClass::Small, Token(3));
        let held: Vec<Chunk> = (0..2.min((sent.len() - received.len()) / 4096))
            .map(|_| rig.next_chunk(Token(3)).0)
            .collect();
        held.iter().for_each(|chunk| received.extend_from_slice(chunk));
        if held.len() == 2 {
            assert_eq!(rig.driver.free_buffers(BufferClass::Small), 0);
            assert_eq!(rig.next_error(Token(3)), libc::ENOBUFS);
        }
        drop(held);
        assert_eq!(rig.driver.free_buffers(BufferClass::Small), 2);
    }
    assert_eq!(received, sent);
    assert_eq!((rounds, rig.driver.counters().no_buffers), (3, 2));
}

#[test]
fn a_single_receive_completes_once() {
    let mut rig = Rig::new();
    let (ours, mut theirs) = pair();
    rig.driver.recv(&ours, RecvMode::Once, BufferClass::Bulk, Token(1));
    rig.turn();
    theirs.write_all(b"one").unwrap();
    let (chunk, more) = rig.next_chunk(Token(1));
    assert_eq!((&chunk[..], more), (&b"one"[..], false));
    theirs.write_all(b"two").unwrap();
    assert_eq!(rig.driver.in_flight(), 0);
    rig.driver.recv(&ours, RecvMode::Once, BufferClass::Small, Token(2));
    assert_eq!(&rig.next_chunk(Token(2)).0[..], b"two");
    drop(theirs);
    rig.driver.recv(&ours, RecvMode::Once, BufferClass::Small, Token(3));
    assert!(matches!(rig.next().outcome, Outcome::Received(Ok(None))));
    let free = rig.driver.free_buffers(BufferClass::Bulk);
    drop(chunk);
    assert_eq!(rig.driver.free_buffers(BufferClass::Bulk), free + 1);
}

#[test]
fn a_gather_arrives_in_order_and_comes_back_as_it_was() {
    let mut rig = Rig::new();
    let (ours, mut theirs) = pair();
    let pool = Pool::new(64, 8).unwrap();
    let mut joined = chunk(&pool, b"cutinto pieces that touch");
    let head = joined.split_to(3);
    let parts = [head, joined, chunk(&pool, b", "), chunk(&pool, b"and others")];
    let gather = gather(parts);
    assert_eq!(gather.parts(), 3);
    let bytes = gather.len_bytes();
    rig.driver.send(&ours, gather, SendWait::Yes, Token(9));
    match rig.next() {
        Completion {
            token: Token(9),
            more: false,
            outcome: Outcome::Sent { result, mut gather },
        } => {
            assert_eq!(result.unwrap(), bytes);
            assert_eq!((gather.parts(), gather.len_bytes()), (3, bytes));
            gather.advance(bytes);
            assert!(gather.is_empty());
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(read_exactly(&mut theirs, bytes), b"cutinto pieces that touch, and others");
    assert_eq!(pool.free(), pool.capacity());
}

#[test]
fn a_gather_of_more_parts_than_one_call_takes_goes_in_several() {
    let mut rig = Rig::new();
    let (near, mut far) = tcp_pair();
    far.set_nonblocking(false).unwrap();
    let near = fd(near);
    let pool = Pool::new(2, 3000).unwrap();
    let sent: Vec<u8> = (0..3000u32).map(|n| n as u8).collect();
    let mut rest = gather(sent.iter().map(|byte| chunk(&pool, &[*byte])));
    assert_eq!(rest.parts(), 3000);
    while !rest.is_empty() {
        rig.driver.send(&near, rest, SendWait::Yes, Token(1));
        let Outcome::Sent { result, mut gather } = rig.next().outcome else { panic!() };
        gather.advance(result.unwrap());
        rest = gather;
    }
    assert_eq!(read_exactly(&mut far, 3000), sent);
}

#[test]
fn a_full_socket_refuses_or_makes_wait() {
    let mut rig = Rig::new();
    let (ours, mut theirs) = pair();
    let pool = Pool::new(64 << 10, 2).unwrap();
    let bytes = vec![5; 64 << 10];
    let (one, two) = (chunk(&pool, &bytes), chunk(&pool, &bytes));
    let mut queued = 0;
    let refused = loop {
        let gather = gather([one.clone(), two.clone()]);
        rig.driver.send(&ours, gather, SendWait::No, Token(1));
        let Outcome::Sent { result, gather } = rig.next().outcome else { panic!() };
        assert_eq!(gather.len_bytes(), 128 << 10);
        match result {
            Ok(taken) => queued += taken,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.raw_os_error(), Some(libc::EAGAIN));
    rig.driver.send(&ours, gather([one, two]), SendWait::Yes, Token(2));
    rig.turn();
    assert_eq!((rig.done.len(), rig.driver.in_flight()), (0, 1));
    read_exactly(&mut theirs, queued);
    let Outcome::Sent { result, .. } = rig.next().outcome else { panic!() };
    let taken = result.unwrap();
    assert!(taken > 0);
    assert!(read_exactly(&mut theirs, taken).iter().all(|&byte| byte == 5));
}

#[test]
fn a_send_to_nobody_is_an_error_and_no_signal() {
    let mut rig = Rig::new();
    let (ours, theirs) = pair();
    drop(theirs);
    let pool = Pool::new(16, 2).unwrap();
    for parts in 1..=2 {
        let gather = gather((0..parts).map(|_| chunk(&pool, b"x")));
        rig.driver.send(&ours, gather, SendWait::Yes, Token(4));
        assert_eq!(rig.next_error(Token(4)), libc::EPIPE);
    }
}

/// The byte at `position` of the stream that the next test sends: no period that a lost or
/// doubled buffer could hide behind.
fn stream_byte(position: u64) -> u8 {
    (position.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

#[test]
fn fifty_megabytes_arrive_unchanged() {
    const TOTAL: u64 = 50 << 20;
    let mut rig = Rig::new();
    let (near, far) = tcp_pair();
    let (near, far) = (fd(near), fd(far));
    let pool = Pool::new(48 << 10, 8).unwrap();
    let (mut put, mut taken, mut arrived) = (0u64, 0u64, 0u64);
    let mut scratch = Vec::new();
    let mut idle = Some(Box::new(Gather::new()));
    rig.driver.recv(&far, RecvMode::Multishot, BufferClass::Bulk, Token(1));
    while arrived < TOTAL {
        if let Some(mut gather) = idle.take() {
            while put < TOTAL
                && let Some(mut writer) = pool.take()
            {
                // Cut unevenly, so that parts begin and end anywhere.
                let bytes = (TOTAL - put).min(1 + u64::from(stream_byte(put)) * 180);
                scratch.clear();
                scratch.extend((put..put + bytes).map(stream_byte));
                put += writer.put(&scratch) as u64;
                gather.push(writer.take_written());
            }
            if gather.is_empty() {
                idle = Some(gather);
            } else {
                rig.driver.send(&near, gather, SendWait::Yes, Token(2));
            }
        }
        let completion = rig.next();
        match completion.outcome {
            Outcome::Sent { result, mut gather } => {
                let bytes = result.unwrap();
                taken += bytes as u64;
                gather.advance(bytes);
                idle = Some(gather);
            }
            Outcome::Received(Ok(Some(chunk))) => {
                for (position, &byte) in (arrived..).zip(chunk.iter()) {
                    assert!(byte == stream_byte(position), "a wrong byte at {position}");
                }
                arrived += chunk.len() as u64;
            }
            Outcome::Received(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            other => panic!("{other:?}"),
        }
        if completion.token == Token(1) && !completion.more {
            rig.driver.recv(&far, RecvMode::Multishot, BufferClass::Bulk, Token(1));
        }
    }
    assert_eq!((put, taken, arrived), (TOTAL, TOTAL, TOTAL));
}

fn tcp_socket() -> Fd {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_nonblocking(true).unwrap();
    fd(socket)
}

#[test]
fn a_connect_is_made_or_refused() {
    let mut rig = Rig::new();
    let (listening, address) = listener();
    let socket = tcp_socket();
    rig.driver.connect(&socket, SockAddr::from(address), Token(1));
    match rig.next() {
        Completion { token: Token(1), more: false, outcome: Outcome::Connected(Ok(())) } => {}
        other => panic!("{other:?}"),
    }
    drop(listening);
    let socket = tcp_socket();
    rig.driver.connect(&socket, SockAddr::from(address), Token(2));
    assert_eq!(rig.next_error(Token(2)), libc::ECONNREFUSED);
}

#[test]
fn a_poll_fires_once_or_each_time() {
    let mut rig = Rig::new();
    let (ours, mut theirs) = pair();
    rig.driver.poll(&ours, POLLIN, false, Token(1));
    rig.driver.poll(&ours, POLLOUT, false, Token(2));
    match rig.next() {
        Completion { token: Token(2), more: false, outcome: Outcome::Polled(Ok(events)) } => {
            assert_ne!(events & POLLOUT, 0);
        }
        other => panic!("{other:?}"),
    }
    theirs.write_all(b"x").unwrap();
    match rig.next() {
        Completion { token: Token(1), more: false, outcome: Outcome::Polled(Ok(events)) } => {
            assert_ne!(events & POLLIN, 0);
        }
        other => panic!("{other:?}"),
    }
    let op = rig.driver.poll(&ours, POLLIN, true, Token(3));
    for _ in 0..3 {
        match rig.next() {
            Completion { token: Token(3), more: true, outcome: Outcome::Polled(Ok(events)) } => {
                assert_ne!(events & POLLIN, 0);
            }
            other => panic!("{other:?}"),
        }
        theirs.write_all(b"x").unwrap();
    }
    rig.next();
    rig.driver.cancel(op);
    assert_eq!(rig.next_error(Token(3)), libc::ECANCELED);
}

#[test]
fn a_cancelled_operation_ends_once_and_a_stale_name_does_nothing() {
    let mut rig = Rig::new();
    let (ours, mut theirs) = pair();
    let op = rig.driver.recv(&ours, RecvMode::Multishot, BufferClass::Small, Token(1));
    // Before it was submitted, and twice.
    rig.driver.cancel(op);
    rig.driver.cancel(op);
    assert_eq!(rig.next_error(Token(1)), libc::ECANCELED);
    assert_eq!(rig.driver.counters().stale, 0);
    rig.driver.cancel(op);
    assert_eq!(rig.driver.counters().stale, 1);
    let again = rig.driver.recv(&ours, RecvMode::Multishot, BufferClass::Small, Token(2));
    assert_ne!(op, again);
    rig.driver.cancel(op);
    assert_eq!(rig.driver.counters().stale, 2);
    theirs.write_all(b"still there").unwrap();
    assert_eq!(&rig.next_chunk(Token(2)).0[..], b"still there");
    rig.driver.cancel(again);
    assert_eq!(rig.next_error(Token(2)), libc::ECANCELED);
    rig.turn();
    assert_eq!((rig.done.len(), rig.driver.in_flight()), (0, 0));
}

#[test]
fn cancelling_all_lets_a_descriptor_close() {
    let mut rig = Rig::new();
    let (ours, mut theirs) = pair();
    let (other, mut other_end) = pair();
    rig.driver.recv(&other, RecvMode::Multishot, BufferClass::Small, Token(100));
    rig.driver.recv(&ours, RecvMode::Multishot, BufferClass::Small, Token(1));
    rig.driver.poll(&ours, libc::POLLPRI as u32, true, Token(2));
    rig.driver.poll(&ours, libc::POLLPRI as u32, false, Token(3));
    rig.turn();
    assert_eq!(rig.driver.in_flight(), 4);
    rig.driver.cancel_all(&ours);
    drop(ours);
    let mut ended = Vec::new();
    while ended.len() < 3 {
        let completion = rig.next();
        assert!(!completion.more);
        ended.push(completion.token.0);
    }
    ended.sort_unstable();
    assert_eq!((ended, rig.driver.in_flight()), (vec![1, 2, 3], 1));
    rig.turn();
    assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
    other_end.write_all(b"unharmed").unwrap();
    assert_eq!(&rig.next_chunk(Token(100)).0[..], b"unharmed");
}

#[test]
fn cancelling_all_of_an_idle_descriptor_does_nothing() {
    let mut rig = Rig::new();
    let (ours, mut theirs) = pair();
    rig.driver.cancel_all(&ours);
    drop(ours);
    rig.turn();
    rig.turn();
    assert_eq!((rig.done.len(), rig.driver.in_flight()), (0, 0));
    assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_wait_ends_in_time() {
    let mut rig = Rig::new();
    let (ours, _theirs) = pair();
    rig.driver.recv(&ours, RecvMode::Once, BufferClass::Small, Token(1));
    let timeout = Duration::from_millis(50);
    for _ in 0..3 {
        // The first of these returns early at times: it submits, too.
        let begin = Instant::now();
        let mut turns = 0;
        while begin.elapsed() < timeout {
            turns += 1;
            let time_left = timeout.saturating_sub(begin.elapsed());
            rig.driver.wait(Some(time_left), &mut rig.batch).unwrap();
        }
        assert!(turns <= 4, "{turns} turns: it does not wait");
        assert!(begin.elapsed() < DEADLINE);
        assert!(rig.batch.is_empty());
    }
    let begin = Instant::now();
    rig.driver.wait(Some(Duration::ZERO), &mut rig.batch).unwrap();
    assert!(begin.elapsed() < timeout);
}

#[test]
fn a_wait_is_not_ended_by_the_drivers_own_completions() {
    let mut rig = Rig::new();
    let (ours, _theirs) = pair();
    rig.turn();
    rig.driver.cancel_all(&ours);
    let begin = Instant::now();
    let timeout = Duration::from_millis(30);
    rig.driver.wait(Some(timeout), &mut rig.batch).unwrap();
    assert!(rig.batch.is_empty());
    assert!(begin.elapsed() >= timeout);
}

#[test]
fn spinning_without_waiting_sees_what_comes() {
    let mut rig = Rig::new();
    let (ours, mut theirs) = pair();
    rig.driver.recv(&ours, RecvMode::Multishot, BufferClass::Small, Token(1));
    rig.turn();
    let enters = rig.driver.counters().enters;
    rig.turn();
    assert_eq!(rig.driver.counters().enters, enters, "nothing to do, nothing to enter for");
    for _ in 0..100 {
        theirs.write_all(b"ping").unwrap();
        let deadline = Instant::now() + DEADLINE;
        while rig.done.is_empty() {
            assert!(Instant::now() < deadline, "what was deferred is never run");
            rig.turn();
        }
        assert_eq!(&rig.next_chunk(Token(1)).0[..], b"ping");
    }
}

#[test]
fn more_operations_than_the_queues_hold_all_complete_once() {
    const OPERATIONS: u64 = 500;
    let config =
        UringConfig { submission_entries: 8, completion_entries: 16, ..UringConfig::default() };
    let mut rig = Rig::with(&config);
    let (ours, _theirs) = pair();
    for round in 0..3 {
        for token in 0..OPERATIONS {
            rig.driver.poll(&ours, POLLOUT, false, Token(round * OPERATIONS + token));
        }
        let mut seen: Vec<u64> = (0..OPERATIONS)
            .map(|_| match rig.next() {
                Completion { token, more: false, outcome: Outcome::Polled(Ok(_)) } => token.0,
                other => panic!("{other:?}"),
            })
            .collect();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(round * OPERATIONS..(round + 1) * OPERATIONS));
        assert_eq!(rig.driver.in_flight(), 0);
    }
    let counters = rig.driver.counters();
    assert!(counters.queue_full > 0 && counters.overflows > 0, "{counters:?}");
    assert_eq!(counters.submissions, 3 * OPERATIONS);
}

#[test]
fn a_driver_dropped_in_mid_work_gives_everything_back() {
    let mut rig = Rig::new();
    let (ours, mut theirs) = pair();
    let pool = Pool::new(64 << 10, 4).unwrap();
    let bytes = vec![1; 64 << 10];
    theirs.write_all(b"kept").unwrap();
    rig.driver.recv(&ours, RecvMode::Multishot, BufferClass::Small, Token(1));
    let (kept, _) = rig.next_chunk(Token(1));
    let mut blocked = false;
    while !blocked {
        rig.driver.send(&ours, gather([chunk(&pool, &bytes)]), SendWait::Yes, Token(2));
        rig.turn();
        blocked = rig.done.pop_front().is_none();
    }
    rig.driver.poll(&ours, POLLIN, true, Token(3));
    rig.driver.recv(&ours, RecvMode::Once, BufferClass::Bulk, Token(4));
    assert_eq!(rig.driver.in_flight(), 4, "two of them not submitted yet");
    drop(rig);
    assert_eq!(pool.free(), pool.capacity());
    assert_eq!(Rc::strong_count(&ours), 1);
    assert_eq!(&kept[..], b"kept");
    drop(ours);
    let mut rest = Vec::new();
    theirs.read_to_end(&mut rest).unwrap();
    assert!(rest.iter().all(|&byte| byte == 1));
}

/// One end of a ping-pong: receives, and answers with what it received.
struct Player {
    fd: Fd,
    token: Token,
    gather: Option<Box<Gather>>,
}

impl Player {
    fn answer(&mut self, driver: &mut UringDriver, chunk: Chunk) {
        let mut gather = self.gather.take().expect("the last send is over");
        gather.push(chunk);
        driver.send(&self.fd, gather, SendWait::Yes, Token(self.token.0 + 10));
    }
}

fn play(rig: &mut Rig, players: &mut [Player; 2], messages: u32) -> u64 {
    let before = ALLOCATIONS.get();
    let mut received = 0;
    while received < messages {
        rig.driver.wait(Some(DEADLINE), &mut rig.batch).unwrap();
        rig.done.extend(rig.batch.drain(..));
        while let Some(completion) = rig.done.pop_front() {
            let player = &mut players[(completion.token.0 % 10) as usize];
            match completion.outcome {
                Outcome::Received(Ok(Some(chunk))) => {
                    assert!(completion.more && chunk[..] == *b"a message of some length");
                    received += 1;
                    player.answer(&mut rig.driver, chunk);
                }
                Outcome::Sent { result, mut gather } => {
                    gather.advance(result.unwrap());
                    assert!(gather.is_empty());
                    player.gather = Some(gather);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    ALLOCATIONS.get() - before
}

#[test]
fn the_steady_state_does_not_allocate() {
    let mut rig = Rig::new();
    let (near, far) = tcp_pair();
    let mut players = [(fd(near), 0), (fd(far), 1)].map(|(fd, token)| Player {
        fd,
        token: Token(token),
        gather: Some(Box::new(Gather::new())),
    });
    for player in &players {
        rig.driver.recv(&player.fd, RecvMode::Multishot, BufferClass::Small, player.token);
    }
    let pool = Pool::new(64, 1).unwrap();
    players[0].answer(&mut rig.driver, chunk(&pool, b"a message of some length"));
    play(&mut rig, &mut players, 1_000);
    let begin = Instant::now();
    assert_eq!(play(&mut rig, &mut players, 10_000), 0, "allocations");
    println!("10,000 messages in {:?}, {:?}", begin.elapsed(), rig.driver.counters());
}

#[test]
fn errors_carry_the_kernels_number() {
    let mut rig = Rig::new();
    let file = fd(std::fs::File::open("/dev/null").unwrap());
    rig.driver.recv(&file, RecvMode::Multishot, BufferClass::Small, Token(1));
    assert_eq!(rig.next_error(Token(1)), libc::ENOTSOCK);
    let (ours, theirs) = tcp_pair();
    // A reset: data unread at the far end when it closes.
    let ours = fd(ours);
    let pool = Pool::new(16, 1).unwrap();
    rig.driver.send(&ours, gather([chunk(&pool, b"unread")]), SendWait::Yes, Token(2));
    assert!(matches!(rig.next().outcome, Outcome::Sent { result: Ok(6), .. }));
    drop(theirs);
    rig.driver.recv(&ours, RecvMode::Multishot, BufferClass::Small, Token(3));
    assert_eq!(rig.next_error(Token(3)), libc::ECONNRESET);
    let error = io::Error::from_raw_os_error(libc::ECONNRESET);
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}
