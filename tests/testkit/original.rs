//! The original at the other end, played by hand and as strict as it is: it answers no CLOSE that meets
//! its own, gives ids out again at once, lets too many streams break its tunnel, leaves Nagle on, and
//! on a device sends HELLO once. A frame that it would not survive, or would take for another stream's,
//! is a fault that ends its tunnel.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use super::DEADLINE;
use super::peer::{Frame, NO_ID, hello, kind, read_frame};

/// One more breaks its tunnel, as a connector with one port.
const STREAMS_MAX: usize = 61;

/// HELLOs that it answers on a device before its process ends.
const HELLOS_MAX: usize = 100;

/// Payload of a packet to a peer that has not sent its packet size.
const UNSAID_BYTES: usize = 504;

const TEXT: &[u8] = b"98304 127.0.0.1:40000 127.0.0.1:9023\0";

/// Behaviour of its servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Echo.
    Echo,
    /// Answer each line.
    Pong,
    /// Read without answering.
    Sink,
}

/// How it behaves.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    pub service: Service,
    /// Its own CLOSE is always out when one comes: they cross.
    pub crosses: bool,
    /// It is on a device.
    pub on_device: bool,
}

impl Manners {
    pub fn of(service: Service) -> Manners {
        Manners { service, crosses: false, on_device: false }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    Open,
    Closing,
}

struct Stream {
    /// Our id, once it is known.
    ours: u16,
    /// The number of its own client, which has opened it.
    client: Option<u64>,
    stage: Stage,
}

struct State {
    out: Box<dyn Write + Send>,
    manners: Manners,
    streams: BTreeMap<u16, Stream>,
    clients: u64,
    /// The data received by them, kept after the ends of their streams.
    heard: BTreeMap<u64, Vec<u8>>,
    hellos: usize,
    answers: usize,
    payload_max: usize,
    lines: usize,
    /// Streams that have ended, and the most there were at once.
    ended: usize,
    most: usize,
    fault: Option<String>,
    over: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A connection with it.
pub struct Original {
    shared: Arc<Shared>,
    socket: Option<TcpStream>,
    /// Its device is to be closed.
    closed: Option<Arc<AtomicBool>>,
    reader: Option<JoinHandle<()>>,
}

impl Original {
    /// It connects to a receptor.
    pub fn connect(receptor: SocketAddr, manners: Manners) -> Original {
        let stream = TcpStream::connect_timeout(&receptor, DEADLINE).expect("a receptor");
        Original::on_socket(stream, manners)
    }

    /// A connector dials it.
    pub fn accept(listener: &TcpListener, manners: Manners) -> Original {
        let (stream, _) = listener.accept().expect("a connector dials");
        Original::on_socket(stream, manners)
    }

    fn on_socket(stream: TcpStream, manners: Manners) -> Original {
        let (input, output) = (stream.try_clone(), stream.try_clone());
        let (input, output) = (input.expect("a descriptor"), output.expect("a descriptor"));
        let mut original = Original::begin(input, output, manners);
        original.socket = Some(stream);
        original
    }

    /// It opens a device.
    pub fn on_device(path: &Path, manners: Manners) -> Original {
        let flags = (OFlags::NOCTTY | OFlags::NONBLOCK).bits() as i32;
        let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
        let device = Arc::new(opened.expect("a device"));
        let mut settings = tcgetattr(&device).expect("a terminal");
        settings.make_raw();
        tcsetattr(&device, OptionalActions::Now, &settings).expect("settings");
        let closed = Arc::new(AtomicBool::new(false));
        let end = Device { device, closed: Arc::clone(&closed) };
        let manners = Manners { on_device: true, ..manners };
        let mut original = Original::begin(end.clone(), end, manners);
        original.closed = Some(closed);
        original
    }

    /// It reads and writes these, and sends HELLO at once.
    fn begin(
        mut input: impl Read + Send + 'static,
        output: impl Write + Send + 'static,
        manners: Manners,
    ) -> Original {
        let state = State {
            out: Box::new(output),
            manners,
            streams: BTreeMap::new(),
            clients: 0,
            heard: BTreeMap::new(),
            hellos: 0,
            answers: 0,
            payload_max: UNSAID_BYTES,
            lines: 0,
            ended: 0,
            most: 0,
            fault: None,
            over: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        shared.lock().send(&hello(kind::HELLO));
        let of_reader = Arc::clone(&shared);
        let reader = std::thread::spawn(move || {
            while let Some(frame) = read_frame(&mut input) {
                let mut state = of_reader.lock();
                if let Err(fault) = state.take(&frame) {
                    state.fault = Some(fault);
                }
                let ends = state.fault.is_some() || state.over;
                drop(state);
                of_reader.changed.notify_all();
                if ends {
                    break;
                }
            }
            of_reader.lock().over = true;
            of_reader.changed.notify_all();
        });
        Original { shared, socket: None, closed: None, reader: Some(reader) }
    }

    /// Waits until it is so. Panics when its tunnel has ended, or that takes too long.
    fn wait<T>(&self, what: &str, mut is: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut state = self.shared.lock();
        loop {
            if let Some(found) = is(&mut state) {
                return found;
            }
            assert!(!state.over, "its tunnel ended before {what}: {:?}", state.fault);
            let (next, timeout) =
                self.shared.changed.wait_timeout(state, DEADLINE).expect("nobody else panics");
            state = next;
            assert!(!timeout.timed_out(), "waiting for {what}");
        }
    }

    /// Waits until its hello is done.
    pub fn wait_up(&self) {
        self.wait("its hello is done", |state| (state.answers > 0).then_some(()));
    }

    /// A client of its own connects and sends this; returns the client's number.
    pub fn open(&self, first: &[u8]) -> u64 {
        let mut state = self.shared.lock();
        state.clients += 1;
        let client = state.clients;
        let id = state.insert(NO_ID, Some(client)).expect("its own bound is kept");
        state.send(&Frame::new(kind::CONNECT, id, NO_ID, &[TEXT, first].concat()));
        client
    }

    /// Waits until its client has heard so much, and takes it.
    pub fn heard(&self, client: u64, bytes: usize) -> Vec<u8> {
        self.wait("its client has heard enough", |state| {
            let heard = state.heard.get_mut(&client).filter(|heard| heard.len() >= bytes)?;
            Some(heard.drain(..bytes).collect())
        })
    }

    /// Waits until so many streams have ended.
    pub fn wait_ended(&self, count: usize) {
        self.wait("enough streams have ended", |state| (state.ended >= count).then_some(()));
    }

    /// Waits until its servers have got so many lines.
    pub fn wait_lines(&self, count: usize) {
        self.wait("its servers have all lines", |state| (state.lines >= count).then_some(()));
    }

    /// Most streams that it has had at once.
    pub fn most_streams(&self) -> usize {
        self.shared.lock().most
    }

    /// Panics if there was a fault, or its tunnel is over.
    pub fn check(&self) {
        let state = self.shared.lock();
        assert!(state.fault.is_none() && !state.over, "{:?}", state.fault);
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        if let Some(socket) = &self.socket {
            let _ = socket.shutdown(Shutdown::Both);
        }
        if let Some(closed) = &self.closed {
            closed.store(true, Ordering::SeqCst);
        }
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// A device that is read and written with patience, until it is to be closed.
#[derive(Clone)]
struct Device {
    device: Arc<File>,
    closed: Arc<AtomicBool>,
}

impl Device {
    /// Does it when the device is ready, or ends.
    fn when<T>(
        &self,
        ready: PollFlags,
        mut what: impl FnMut(&File) -> std::io::Result<T>,
    ) -> std::io::Result<T> {
        loop {
            match what(&self.device) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => return other,
            }
            if self.closed.load(Ordering::SeqCst) {
                return Err(ErrorKind::BrokenPipe.into());
            }
            let glance = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
            poll(&mut [PollFd::new(&*self.device, ready)], Some(&glance))?;
        }
    }
}

impl Read for Device {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.when(PollFlags::IN, |mut device| device.read(buffer))
    }
}

impl Write for Device {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.when(PollFlags::OUT, |mut device| device.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Shared {
    /// Also after a panic of a thread that held it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Each packet by a write of its own, as the original does.
    fn send(&mut self, frame: &Frame) {
        if self.out.write_all(&frame.bytes()).and_then(|()| self.out.flush()).is_err() {
            self.over = true;
        }
    }

    fn insert(&mut self, ours: u16, client: Option<u64>) -> Result<u16, String> {
        if self.streams.len() == STREAMS_MAX {
            return Err(String::from("too many streams: its tunnel breaks"));
        }
        let id = (2..).find(|id| !self.streams.contains_key(id)).expect("a free id");
        let stage = if client.is_some() { Stage::Connecting } else { Stage::Open };
        self.streams.insert(id, Stream { ours, client, stage });
        self.most = self.most.max(self.streams.len());
        Ok(id)
    }

    fn remove(&mut self, id: u16) {
        self.streams.remove(&id);
        self.ended += 1;
    }

    fn take(&mut self, frame: &Frame) -> Result<(), String> {
        let (from, id) = (frame.sender, frame.receiver);
        match frame.kind {
            kind::HELLO => {
                self.hellos += 1;
                if self.hellos > 1 && !self.manners.on_device {
                    return Err(String::from("a second HELLO"));
                }
                if self.hellos == HELLOS_MAX {
                    return Err(String::from("a hundred HELLOs: its process ends"));
                }
                self.send(&Frame { kind: kind::HELLO_OK, ..hello(kind::HELLO) });
            }
            kind::HELLO_OK => {
                self.answers += 1;
                if self.answers == 1 {
                    self.send(&hello(kind::HELLO_OK));
                    self.send(&Frame::new(kind::SET_OPTION, NO_ID, NO_ID, &[3, 0x40, 0]));
                    self.send(&Frame::new(kind::SET_OPTION, NO_ID, NO_ID, &[2, 1, 0]));
                }
            }
            // Earlier packets are read and discarded.
            _ if self.answers == 0 => {}
            kind::SET_OPTION => {
                if let [3, high, low] = *frame.payload {
                    self.payload_max = usize::from(u16::from_be_bytes([high, low])) - 8;
                }
            }
            kind::ECHO => self.send(&Frame { kind: kind::ECHO_OK, ..frame.clone() }),
            kind::CONNECT => {
                if from > 254 {
                    return Err(format!("id {from} is cut"));
                }
                if self.streams.values().any(|stream| stream.ours == from) {
                    return Err(format!("our id {from} is in use with it"));
                }
                let id = self.insert(from, None)?;
                self.send(&Frame::new(kind::CONNECTED, id, from, TEXT));
                let text = frame.payload.iter().position(|&byte| byte == 0);
                let first = &frame.payload[text.expect("a NUL") + 1..];
                self.serve(id, first);
            }
            kind::CONNECTED => {
                if let Some(stream) = self.streams.get_mut(&id)
                    && stream.stage == Stage::Connecting
                {
                    (stream.ours, stream.stage) = (from, Stage::Open);
                    let text = frame.payload.iter().position(|&byte| byte == 0);
                    self.serve(id, &frame.payload[text.expect("a NUL") + 1..]);
                }
            }
            kind::SEND => {
                let Some(Stream { ours, stage: Stage::Open, .. }) = self.streams.get(&id) else {
                    return Ok(());
                };
                let count = format!("{}\0", frame.payload.len());
                self.send(&Frame::new(kind::SENT, id, *ours, count.as_bytes()));
                self.serve(id, &frame.payload);
            }
            kind::CLOSE => self.closed_by_us(id, from),
            kind::CLOSED => match self.streams.get(&id).map(|stream| stream.stage) {
                Some(Stage::Closing) => self.remove(id),
                Some(_) => return Err(format!("CLOSED for {id}, which is another stream's now")),
                None => {}
            },
            _ => {}
        }
        Ok(())
    }

    fn closed_by_us(&mut self, id: u16, from: u16) {
        let answer = Frame::new(kind::CLOSED, id, from, b"OK closed\0");
        match self.streams.get_mut(&id) {
            Some(stream) if stream.stage == Stage::Closing => self.remove(id),
            Some(stream) if self.manners.crosses => {
                let close = Frame::new(kind::CLOSE, id, stream.ours, b"DO close\0");
                self.send(&close);
                self.remove(id);
            }
            known => {
                let is_known = known.is_some();
                self.send(&answer);
                if is_known {
                    self.remove(id);
                }
            }
        }
    }

    /// Its server, or its client, hears this.
    fn serve(&mut self, id: u16, bytes: &[u8]) {
        let Some(&Stream { ours, client, .. }) = self.streams.get(&id) else { return };
        if let Some(client) = client {
            return self.heard.entry(client).or_default().extend(bytes);
        }
        let lines = bytes.iter().filter(|&&byte| byte == b'\n').count();
        self.lines += lines;
        let answer = match self.manners.service {
            Service::Echo => bytes.to_vec(),
            Service::Pong => b"+PONG\r\n".repeat(lines),
            Service::Sink => Vec::new(),
        };
        for piece in answer.chunks(self.payload_max) {
            self.send(&Frame::new(kind::SEND, id, ours, piece));
        }
    }
}
