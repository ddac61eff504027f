//! Request/response over many connections with one thread at each end, as an event-driven
//! client and server (Redis and its benchmark) do it, so that the relay is the limit.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use sockmux_uring::demo::client::Latencies;

/// Bytes of a request and of its answer.
pub(crate) const MESSAGE_BYTES: usize = 64;
const LISTENER: Token = Token(usize::MAX);
/// Longest silence before a measurement fails.
const STALL: Duration = Duration::from_secs(10);

/// Starts an echo server on a thread of its own, for the rest of the process.
pub(crate) fn start_echo_server() -> io::Result<SocketAddr> {
    let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let address = listener.local_addr()?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    thread::Builder::new().name("echo".into()).spawn(move || serve(&mut poll, &listener))?;
    Ok(address)
}

fn serve(poll: &mut Poll, listener: &TcpListener) -> io::Result<()> {
    let mut events = Events::with_capacity(256);
    let mut sockets: Slab<TcpStream> = Slab::new();
    let mut buffer = [0; 16 * MESSAGE_BYTES];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() != LISTENER {
                let key = event.token().0;
                if !echo(&mut sockets[key], &mut buffer) {
                    sockets.remove(key);
                }
                continue;
            }
            while let Ok((mut socket, _)) = listener.accept() {
                socket.set_nodelay(true)?;
                let entry = sockets.vacant_entry();
                let token = Token(entry.key());
                poll.registry().register(&mut socket, token, Interest::READABLE)?;
                entry.insert(socket);
            }
        }
    }
}

/// Echoes the available bytes; false once the connection has ended. A client has one request outstanding,
/// so an answer always finds room.
fn echo(socket: &mut TcpStream, buffer: &mut [u8]) -> bool {
    loop {
        match socket.read(buffer) {
            Ok(0) => return false,
            Ok(n) => {
                if socket.write_all(&buffer[..n]).is_err() {
                    return false;
                }
            }
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// A client's connection with one question outstanding.
struct Asker {
    socket: TcpStream,
    asked: Instant,
    /// Bytes of the answer that have arrived.
    arrived: usize,
}

/// Keeps one request outstanding on each of `connections` for `duration`; returns how long each
/// answer took, and all of them together.
pub(crate) fn requests(
    server: SocketAddr,
    connections: usize,
    duration: Duration,
) -> io::Result<(Latencies, Duration)> {
    let mut poll = Poll::new()?;
    let mut askers = Vec::new();
    for index in 0..connections {
        let socket = std::net::TcpStream::connect(server)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket);
        poll.registry().register(&mut socket, Token(index), Interest::READABLE)?;
        askers.push(Asker { socket, asked: Instant::now(), arrived: 0 });
    }
    let question = [0x5a; MESSAGE_BYTES];
    let mut events = Events::with_capacity(connections);
    let mut times = Vec::new();
    let begin = Instant::now();
    for asker in &mut askers {
        asker.ask(&question)?;
    }
    while begin.elapsed() < duration {
        poll.poll(&mut events, Some(STALL))?;
        if events.is_empty() {
            return Err(io::Error::new(ErrorKind::TimedOut, "no answer for 10 s"));
        }
        for event in &events {
            let asker = &mut askers[event.token().0];
            if asker.answered()? {
                times.push(asker.asked.elapsed());
                asker.ask(&question)?;
            }
        }
    }
    let elapsed = begin.elapsed();
    Ok((times.into_iter().collect(), elapsed))
}

impl Asker {
    fn ask(&mut self, question: &[u8]) -> io::Result<()> {
        self.asked = Instant::now();
        self.socket.write_all(question)
    }

    /// Reads arrived bytes; true when the answer is complete.
    fn answered(&mut self) -> io::Result<bool> {
        let mut answer = [0; MESSAGE_BYTES];
        while self.arrived < MESSAGE_BYTES {
            match self.socket.read(&mut answer[self.arrived..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.arrived += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.arrived = 0;
        Ok(true)
    }
}
