//! A plain relay as many are: one thread, epoll, `read` into a buffer, `write` from it. One hop.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

/// A buffer for each direction: as large as the demo's readers take at once.
const BUFFER_BYTES: usize = 256 << 10;
/// Buffers that one direction may fill before another connection gets its turn.
const TURNS: usize = 4;
const LISTENER: Token = Token(usize::MAX);

/// A relay on an ephemeral port of 127.0.0.1.
pub(crate) struct EpollRelay {
    poll: Poll,
    listener: TcpListener,
    target: SocketAddr,
    pairs: Slab<Pair>,
    /// Connections that stopped for fairness, not for want of data or room: epoll is
    /// edge-triggered here and will not mention them again.
    unfinished: VecDeque<usize>,
}

/// A client and its connection to the target.
struct Pair {
    client: TcpStream,
    server: TcpStream,
    up: Half,
    down: Half,
}

/// One direction: bytes `start..end` of the buffer are read and not yet written.
struct Half {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// The source may have data. Saves reads that would find none.
    readable: bool,
    /// The source's end of data is there or near: a short read does not mean drained.
    closing: bool,
    writable: bool,
    finished: bool,
}

enum Progress {
    Waiting,
    More,
}

impl EpollRelay {
    pub(crate) fn bind(target: SocketAddr) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into())?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(EpollRelay { poll, listener, target, pairs: Slab::new(), unfinished: VecDeque::new() })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Relays for ever.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        loop {
            let timeout = (!self.unfinished.is_empty()).then_some(Duration::ZERO);
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    Token(token) => {
                        let Some(pair) = self.pairs.get_mut(token / 2) else { continue };
                        let (from, to) = match token % 2 {
                            0 => (&mut pair.up, &mut pair.down),
                            _ => (&mut pair.down, &mut pair.up),
                        };
                        let ended = event.is_read_closed() || event.is_error();
                        from.readable |= event.is_readable() || ended;
                        from.closing |= ended;
                        to.writable |= event.is_writable();
                        self.turn(token / 2);
                    }
                }
            }
            for _ in 0..self.unfinished.len() {
                if let Some(key) = self.unfinished.pop_front() {
                    self.turn(key);
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut client = match self.listener.accept() {
                Ok((client, _)) => client,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let mut server = TcpStream::connect(self.target)?;
            client.set_nodelay(true)?;
            server.set_nodelay(true)?;
            let entry = self.pairs.vacant_entry();
            let both = Interest::READABLE | Interest::WRITABLE;
            let (first, second) = (Token(entry.key() * 2), Token(entry.key() * 2 + 1));
            self.poll.registry().register(&mut client, first, both)?;
            self.poll.registry().register(&mut server, second, both)?;
            entry.insert(Pair { client, server, up: Half::new(), down: Half::new() });
        }
    }

    /// Moves as much as possible for one connection, both ways.
    fn turn(&mut self, key: usize) {
        // A pair may have ended since it was put off.
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let up = pair.up.pump(&mut pair.client, &mut pair.server);
        let down = pair.down.pump(&mut pair.server, &mut pair.client);
        let both_ended = pair.up.finished && pair.down.finished;
        match (up, down) {
            (Ok(_), Ok(_)) if both_ended => drop(self.pairs.remove(key)),
            (Ok(Progress::Waiting), Ok(Progress::Waiting)) => {}
            (Ok(_), Ok(_)) => {
                if !self.unfinished.contains(&key) {
                    self.unfinished.push_back(key);
                }
            }
            // A connection that broke: both sides learn of it by being closed.
            _ => drop(self.pairs.remove(key)),
        }
    }
}

impl Half {
    fn new() -> Self {
        Half {
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            readable: false,
            closing: false,
            writable: false,
            finished: false,
        }
    }

    fn pump(&mut self, from: &mut TcpStream, to: &mut TcpStream) -> io::Result<Progress> {
        for _ in 0..TURNS {
            while self.start < self.end {
                if !self.writable {
                    return Ok(Progress::Waiting);
                }
                match to.write(&self.buffer[self.start..self.end]) {
                    Ok(n) => self.start += n,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                    Err(error) => return Err(error),
                }
            }
            if self.finished || !self.readable {
                return Ok(Progress::Waiting);
            }
            match from.read(&mut self.buffer) {
                Ok(0) => {
                    self.finished = true;
                    to.shutdown(Shutdown::Write)?;
                }
                Ok(n) => {
                    (self.start, self.end) = (0, n);
                    self.readable = n == self.buffer.len() || self.closing;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) => return Err(error),
            }
        }
        Ok(Progress::More)
    }
}
