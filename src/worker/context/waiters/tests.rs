//! Relays that run out of one resource at a time: they sleep, hear a stop, and go on when it is back.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

mod scarce;

use crate::cli::files::Disk;
use crate::cli::invocation::{self, Command};
use crate::io::driver::{BufferClass, Driver};
use crate::io::epoll::{EpollConfig, EpollDriver};
use crate::io::uring::{UringConfig, UringDriver};
use crate::limits::BULK_BUFFERS;
use crate::process::{Relay, StopHandle};
use crate::worker::Stopped;
use crate::worker::buffers::Buffers;
use scarce::{RESOURCES, Resource, Scarce, Shared};

/// Longest wait for anything; reached only by failures.
const DEADLINE: Duration = Duration::from_secs(20);

/// A relay that sleeps makes no more turns than a few while it is looked at so often, and is asleep
/// each time. One that does not is found to run, or to want to, however little of the machine it gets.
const LOOKS: u32 = 20;
const LOOK: Duration = Duration::from_millis(10);
const TURNS_ASLEEP: u64 = 5;

/// Streams, and what each of their sides sends at once: sockets hold it, no buffer of ours does.
const STREAMS: usize = 3;
const MESSAGE_BYTES: usize = 60_000;

/// A driver with few buffers.
trait Subject: Driver + Sized + 'static {
    fn few() -> Self;

    /// Chunks of bulk receive buffers that the kernel may still read for zero-copy sends.
    fn pinned_chunks(&self) -> usize {
        0
    }
}

impl Subject for UringDriver {
    fn few() -> Self {
        let config = UringConfig { small_buffers: 16, ..UringConfig::default() };
        Self::new(&config).expect("io_uring works here")
    }

    fn pinned_chunks(&self) -> usize {
        UringDriver::pinned_chunks(self)
    }
}

impl Subject for EpollDriver {
    fn few() -> Self {
        let config = EpollConfig { small_buffers: 16, ..EpollConfig::default() };
        Self::new(&config).expect("epoll works everywhere")
    }
}

/// A relay on a thread of its own.
struct End {
    /// Where clients, or peers, come in.
    address: SocketAddr,
    shared: Arc<Shared>,
    control: UnixStream,
    stop: StopHandle,
    stopped: Receiver<Stopped>,
}

impl End {
    fn start<D: Subject>(words: &[&str]) -> End {
        let words = ["sockmux-uring", "TIMEOUT=drain:1"].iter().chain(words).map(OsString::from);
        let mut no_names = |_: &str| Err(io::Error::from(io::ErrorKind::NotFound));
        let invocation = invocation::parse(words, &Disk, &mut no_names).unwrap();
        let Command::Run(plan) = invocation.command else { unreachable!("it is to run") };
        let (control, far_control) = UnixStream::pair().unwrap();
        let ((begins, begun), (ended, stopped)) = (channel(), channel());
        let shared = Arc::<Shared>::default();
        let far_shared = Arc::clone(&shared);
        // All but the words has to stay on its thread.
        thread::spawn(move || {
            let thread = rustix::thread::gettid().as_raw_nonzero().get();
            far_shared.thread.store(thread, Ordering::SeqCst);
            let relay = Relay::bind(plan).unwrap();
            let addresses = relay.entrance_addrs().into_iter().chain(relay.receptor_addrs());
            begins.send((addresses.last(), relay.stop_handle().unwrap())).unwrap();
            let driver = Scarce::new(D::few(), far_shared, far_control);
            let pool = Rc::clone(&driver.pool);
            let mut worker = relay.into_worker(driver).unwrap();
            worker.cx.buffers = Buffers::new(1024).unwrap();
            *pool.borrow_mut() = Some(worker.cx.buffers.pool());
            let _ = ended.send(worker.run().unwrap());
        });
        let (address, stop) = begun.recv_timeout(DEADLINE).expect("it begins");
        // The far end of two FIFOs listens nowhere.
        let address = address.unwrap_or_else(|| SocketAddr::from(([0; 4], 0)));
        End { address, shared, control, stop, stopped }
    }

    fn set(&self, resource: Resource) {
        let at = RESOURCES.iter().position(|&other| other == resource).unwrap();
        self.shared.wanted.store(at as u8, Ordering::SeqCst);
        (&self.control).write_all(b"!").unwrap();
    }

    /// Takes all there is of a resource, and what comes back.
    fn use_up(&self, resource: Resource) {
        self.set(resource);
        eventually("it is used up", || self.shared.is_used_up.load(Ordering::SeqCst));
    }

    /// It makes no turn beyond the next until it is to go on.
    fn pause(&self, pause: bool) {
        self.shared.is_paused.store(pause, Ordering::SeqCst);
        (&self.control).write_all(b"!").unwrap();
    }

    fn check_asleep(&self, what: &str) {
        eventually(what, || {
            let before = self.shared.turns.load(Ordering::SeqCst);
            let asleep = (0..LOOKS).all(|_| {
                thread::sleep(LOOK);
                self.is_asleep()
            });
            asleep && self.shared.turns.load(Ordering::SeqCst) - before <= TURNS_ASLEEP
        });
    }

    /// Whether its thread waits for something just now.
    fn is_asleep(&self) -> bool {
        let thread = self.shared.thread.load(Ordering::SeqCst);
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat"));
        let stat = stat.expect("it has not ended");
        stat.rsplit_once(')').is_some_and(|(_, fields)| fields.trim_start().starts_with('S'))
    }

    /// Stops it, and says how it ended.
    fn stop(&self) -> Stopped {
        self.stop.stop();
        self.stopped.recv_timeout(DEADLINE).expect("it hears the stop")
    }
}

#[track_caller]
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < until, "not in time: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Where exits lead to.
fn server() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Both sides of a few streams that are there.
fn streams(entrance: SocketAddr, server: &TcpListener) -> Vec<TcpStream> {
    few_streams(entrance, server, STREAMS)
}

fn few_streams(entrance: SocketAddr, server: &TcpListener, count: usize) -> Vec<TcpStream> {
    let connect = |_| {
        let client = TcpStream::connect(entrance).unwrap();
        let pair = [client, server.accept().unwrap().0];
        for side in &pair {
            side.set_read_timeout(Some(DEADLINE)).unwrap();
        }
        for (mut from, mut to) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
            from.write_all(b"?").unwrap();
            to.read_exact(&mut [0]).unwrap();
        }
        pair
    };
    (0..count).flat_map(connect).collect()
}

fn message(number: usize) -> Vec<u8> {
    (0..MESSAGE_BYTES).map(|at| (at / 7 + number) as u8).collect()
}

/// Each side sends.
fn send(streams: &mut [TcpStream]) {
    for (number, side) in streams.iter_mut().enumerate() {
        side.write_all(&message(number)).unwrap();
    }
}

/// Each side gets what the other has sent.
fn check_arrived(streams: &mut [TcpStream]) {
    for (number, side) in streams.iter_mut().enumerate() {
        let mut got = vec![0; MESSAGE_BYTES];
        side.read_exact(&mut got).expect("all arrives");
        assert!(got == message(number ^ 1), "side {number} got something else");
    }
}

/// Both ends of a tunnel over TCP, the one with the entrance first.
fn tunnel<D: Subject>(server: SocketAddr) -> [End; 2] {
    let far = End::start::<D>(&["-P127.0.0.1:0", &format!("DEST={server}")]);
    let near = End::start::<D>(&[&format!("SERVER=sockmux://{}", far.address), "PORT=127.0.0.1:0"]);
    [near, far]
}

/// The same over two FIFOs, whose links are read ahead into the pool.
fn tunnel_over_fifos<D: Subject>(server: SocketAddr, dir: &Path) -> [End; 2] {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let paths = ["there", "back"].map(|name| dir.join(name));
    for path in &paths {
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }
    let [there, back] = paths.map(|path| path.display().to_string());
    let words = |input: &str, output: &str| {
        [format!("SERVER=sockmux:commin@{input}"), format!("SERVER=sockmux:commout@{output}")]
    };
    let (one, other) = (words(&back, &there), words(&there, &back));
    let near = End::start::<D>(&[&one[0], &one[1], "PORT=127.0.0.1:0"]);
    let far = End::start::<D>(&[&other[0], &other[1], &format!("DEST={server}")]);
    [near, far]
}

fn plain_relay<D: Subject>(server: SocketAddr) -> End {
    End::start::<D>(&["-P127.0.0.1:0", &format!("SERVER=tcprelay://{server}")])
}

/// Uses up each resource at each end while both sides of streams send.
fn goes_on_when_it_is_back(ends: &[End], resources: &[Resource], server: &TcpListener) {
    let mut streams = streams(ends[0].address, server);
    for end in ends {
        for &resource in resources {
            end.use_up(resource);
            send(&mut streams);
            end.check_asleep(&format!("asleep without {resource:?}"));
            end.set(Resource::Nothing);
            check_arrived(&mut streams);
        }
    }
    for end in ends {
        end.check_asleep("asleep with nothing to do");
    }
}

fn tunnels_go_on_when_it_is_back<D: Subject>() {
    let (server, address) = server();
    goes_on_when_it_is_back(&tunnel::<D>(address), &RESOURCES[1..], &server);
}

fn tunnels_over_fifos_go_on_when_it_is_back<D: Subject>() {
    let (server, address) = server();
    let dir = tempfile::tempdir().unwrap();
    let ends = tunnel_over_fifos::<D>(address, dir.path());
    goes_on_when_it_is_back(&ends, &RESOURCES[1..], &server);
}

fn plain_relays_go_on_when_it_is_back<D: Subject>() {
    let (server, address) = server();
    // What is not taken at once is kept in the pool, or the connection is reset.
    goes_on_when_it_is_back(&[plain_relay::<D>(address)], &RESOURCES[1..3], &server);
}

fn a_stop_is_heard_whatever_is_used_up<D: Subject>() {
    let (server, address) = server();
    let check = |end: &End, resource: Resource| {
        let mut streams = streams(end.address, &server);
        end.use_up(resource);
        send(&mut streams);
        assert_eq!(end.stop(), Stopped::DeadlinePassed(STREAMS), "{resource:?}");
    };
    for &resource in &RESOURCES[1..] {
        let [near, _far] = tunnel::<D>(address);
        check(&near, resource);
    }
    for &resource in &RESOURCES[1..3] {
        check(&plain_relay::<D>(address), resource);
    }
}

fn bytes_from(at: usize, count: usize) -> Vec<u8> {
    (at..at + count).map(|at| (at / 7) as u8).collect()
}

/// Sends until for a while nothing more is taken: how much was.
fn send_until_blocked(mut client: &TcpStream) -> usize {
    SockRef::from(client).set_send_buffer_size(4 << 10).unwrap();
    client.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut sent = 0;
    loop {
        match client.write(&bytes_from(sent, 64 << 10)) {
            Ok(more) => sent += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    sent
}

fn all_buffers_of_a_link_that_stands_still_come_back<D: Subject>() {
    /// More whole windows than the sockets of a link hold, which in 0.3 nothing else bounds.
    const SENDERS: usize = 16;
    let (server, address) = server();
    let far = End::start::<D>(&["-P127.0.0.1:0", &format!("DEST={address}")]);
    let link = format!("SERVER=sockmux://{}", far.address);
    let near = End::start::<D>(&[&link, "PORT=127.0.0.1:0", "SOXCONF=bulk:copy,protocol:0.3"]);
    let mut sides = few_streams(near.address, &server, SENDERS + 1);
    far.pause(true);
    let (senders, late) = sides.split_at_mut(2 * SENDERS);
    let mut sent: Vec<usize> = senders.chunks(2).map(|pair| send_until_blocked(&pair[0])).collect();
    near.use_up(Resource::Receive(BufferClass::Bulk));
    // Somebody lacks one.
    sent.push(send_until_blocked(&late[0]));
    let all = usize::from(BULK_BUFFERS);
    // The kernel keeps what a zero-copy send has put behind the standing peer's window: chunks, of
    // which some may share a buffer.
    let is_back = || {
        let pinned_max = near.shared.pinned_chunks.load(Ordering::SeqCst);
        near.shared.held.load(Ordering::SeqCst) >= all - pinned_max
    };
    eventually("all are back", is_back);
    near.set(Resource::Nothing);
    far.pause(false);
    for (pair, bytes) in sides.chunks_mut(2).zip(sent) {
        let mut got = vec![0; bytes];
        pair[1].read_exact(&mut got).expect("all arrives");
        assert!(got == bytes_from(0, bytes));
    }
}

/// Makes tests for both drivers of functions for any.
macro_rules! on_both_drivers {
    ($($name:ident),* $(,)?) => {
        mod uring {
            $(#[test] fn $name() { super::$name::<super::UringDriver>(); })*
        }
        mod epoll {
            $(#[test] fn $name() { super::$name::<super::EpollDriver>(); })*
        }
    };
}

on_both_drivers!(
    tunnels_go_on_when_it_is_back,
    tunnels_over_fifos_go_on_when_it_is_back,
    plain_relays_go_on_when_it_is_back,
    a_stop_is_heard_whatever_is_used_up,
    all_buffers_of_a_link_that_stands_still_come_back,
);
