//! A TCP proxy in the place of the network between connector and receptor: it can stop, slow
//! down and cut the connections that go through it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use socket2::SockRef;

use super::DEADLINE;

/// How often a pump looks whether its connection was cut, while nothing can be read or written.
const GLANCE: Duration = Duration::from_millis(20);

/// Bytes forwarded at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// How connections are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cut {
    /// By a reset, at both ends.
    #[default]
    Reset,
    /// By an end of data at both ends. What they still send is taken and goes nowhere.
    Fin,
}

#[derive(Default)]
struct State {
    target: Option<SocketAddr>,
    paused: bool,
    /// New connections are closed at once.
    down: bool,
    /// How many connections there have been, and how many of them, the first ones, carry nothing any more.
    connections: u64,
    frozen: u64,
    delay: Duration,
    /// Connections begun before the last cut belong to an older generation and end.
    generation: u64,
    /// How those of the last generation end.
    how: Cut,
    /// When the next cuts are due: bytes carried.
    due: VecDeque<(u64, Cut)>,
    cuts: usize,
    carried_bytes: u64,
    stopping: bool,
}

impl State {
    fn cut(&mut self, how: Cut) {
        self.generation += 1;
        self.cuts += 1;
        self.how = how;
    }

    /// How much may be carried before the next cut.
    fn room(&self) -> usize {
        self.due
            .front()
            .map_or(CHUNK_BYTES, |due| due.0.saturating_sub(self.carried_bytes).max(1) as usize)
    }

    /// Counts what was carried, and cuts where that is due.
    fn carried(&mut self, bytes: usize) {
        self.carried_bytes += bytes as u64;
        while self.due.front().is_some_and(|due| due.0 <= self.carried_bytes) {
            let how = self.due.pop_front().map_or(Cut::Reset, |due| due.1);
            self.cut(how);
        }
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The proxy; everything it holds is cut on drop.
pub struct LinkProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl LinkProxy {
    /// Listens on loopback and forwards to `target`.
    pub fn start(target: SocketAddr) -> LinkProxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared::default());
        shared.state.lock().unwrap().target = Some(target);
        let ours = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if ours.state.lock().unwrap().stopping {
                    break;
                }
                Shared::join(&ours, client);
            }
        });
        LinkProxy { address, shared }
    }

    /// Where the connector has to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops carrying anything; the connections stay, as with a cable pulled.
    pub fn pause(&self) {
        self.change(|state| state.paused = true);
    }

    /// Carries again.
    pub fn resume(&self) {
        self.change(|state| state.paused = false);
    }

    /// Holds every chunk this long before it is passed on.
    pub fn set_delay(&self, delay: Duration) {
        self.change(|state| state.delay = delay);
    }

    /// Resets every connection, at both ends. New ones are forwarded as before.
    pub fn reset(&self) {
        self.cut(Cut::Reset);
    }

    /// Ends every connection like this. New ones are forwarded as before.
    pub fn cut(&self, how: Cut) {
        self.change(|state| state.cut(how));
    }

    /// Does so each time that so many bytes were carried, both directions together, from now on.
    pub fn cut_at(&self, cuts: &[(u64, Cut)]) {
        self.change(|state| {
            let from = state.carried_bytes;
            state.due = cuts.iter().map(|&(bytes, how)| (from + bytes, how)).collect();
        });
    }

    /// How often connections were cut.
    pub fn cuts(&self) -> usize {
        self.shared.state.lock().unwrap().cuts
    }

    /// Ends every connection like this, and takes no new ones until [`LinkProxy::restore`].
    pub fn interrupt(&self, how: Cut) {
        self.change(|state| {
            state.down = true;
            state.cut(how);
        });
    }

    /// Takes new connections again.
    pub fn restore(&self) {
        self.change(|state| state.down = false);
    }

    /// Carries nothing any more of the connections that are there, as a NAT that has forgotten them. They
    /// stay; new ones are forwarded.
    pub fn freeze(&self) {
        self.change(|state| state.frozen = state.connections);
    }

    /// Bytes carried so far, both directions together.
    pub fn carried_bytes(&self) -> u64 {
        self.shared.state.lock().unwrap().carried_bytes
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state.lock().unwrap());
        self.shared.changed.notify_all();
    }
}

impl Drop for LinkProxy {
    fn drop(&mut self) {
        self.change(|state| {
            state.stopping = true;
            state.cut(Cut::Reset);
        });
        // Wakes the accepting thread; if that fails, it has already ended.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    /// Connects a new client on and pumps both ways. A target that refuses: the client is closed.
    fn join(shared: &Arc<Shared>, client: TcpStream) {
        let (target, generation, number) = {
            let mut state = shared.state.lock().unwrap();
            if state.down {
                return;
            }
            state.connections += 1;
            (state.target.expect("set at start"), state.generation, state.connections)
        };
        let Ok(server) = TcpStream::connect(target) else { return };
        for stream in [&client, &server] {
            stream.set_nodelay(true).expect("Nagle can be turned off");
            stream.set_read_timeout(Some(GLANCE)).expect("a timeout can be set");
            stream.set_write_timeout(Some(GLANCE)).expect("a timeout can be set");
        }
        let joined =
            Arc::new(Joined { client, server, generation, number, broken: AtomicBool::new(false) });
        for upwards in [true, false] {
            let (shared, joined) = (Arc::clone(shared), Arc::clone(&joined));
            std::thread::spawn(move || {
                let (from, to) = match upwards {
                    true => (&joined.client, &joined.server),
                    false => (&joined.server, &joined.client),
                };
                if shared.pump(&joined, from, to).is_err() {
                    match shared.how(&joined) {
                        Cut::Reset => joined.reset(),
                        Cut::Fin => joined.finish(from, to),
                    }
                }
            });
        }
    }

    /// Forwards one direction to its end of data. An error: the connection broke or was cut.
    fn pump(&self, joined: &Joined, mut from: &TcpStream, to: &TcpStream) -> std::io::Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            self.may_carry(joined)?;
            match from.read(&mut buffer) {
                Ok(0) => return to.shutdown(Shutdown::Write),
                Ok(got) => self.carry(joined, &buffer[..got], to)?,
                Err(e) if is_glance(&e) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Passes `bytes` on, after the delay.
    fn carry(&self, joined: &Joined, bytes: &[u8], mut to: &TcpStream) -> std::io::Result<()> {
        let delay = self.state.lock().unwrap().delay;
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        let mut left = bytes;
        while !left.is_empty() {
            self.may_carry(joined)?;
            let room = self.state.lock().unwrap().room();
            match to.write(&left[..room.min(left.len())]) {
                Ok(written) => {
                    left = &left[written..];
                    self.state.lock().unwrap().carried(written);
                }
                Err(e) if is_glance(&e) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Waits while paused. An error after a cut.
    fn may_carry(&self, joined: &Joined) -> std::io::Result<()> {
        let state = self.state.lock().unwrap();
        let paused = |state: &mut State| {
            let frozen = joined.number <= state.frozen;
            (state.paused || frozen) && state.generation == joined.generation
        };
        let state = self.changed.wait_while(state, paused).unwrap();
        if state.generation != joined.generation || joined.broken.load(Ordering::SeqCst) {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    /// How a connection ends: as it was cut, or by a reset where one of its ends broke.
    fn how(&self, joined: &Joined) -> Cut {
        let state = self.state.lock().unwrap();
        if state.generation == joined.generation { Cut::Reset } else { state.how }
    }
}

/// The two sockets of one connection through the proxy.
struct Joined {
    client: TcpStream,
    server: TcpStream,
    generation: u64,
    /// From 1.
    number: u64,
    /// One direction has failed: the other one must end too.
    broken: AtomicBool,
}

impl Joined {
    /// Makes the kernel send a reset when both pumps, the owners, have dropped the sockets, which
    /// they do after at most one [`GLANCE`].
    fn reset(&self) {
        for stream in [&self.client, &self.server] {
            // A socket that is closed already needs no reset.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
        self.broken.store(true, Ordering::SeqCst);
    }

    /// Ends one direction, and takes what still comes, since to close a socket that has unread bytes
    /// resets it.
    fn finish(&self, mut from: &TcpStream, to: &TcpStream) {
        self.broken.store(true, Ordering::SeqCst);
        // One that is broken already has ended.
        let _ = to.shutdown(Shutdown::Write);
        let _ = from.set_read_timeout(Some(DEADLINE));
        let mut buffer = vec![0; CHUNK_BYTES];
        while from.read(&mut buffer).is_ok_and(|got| got > 0) {}
    }
}

fn is_glance(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
