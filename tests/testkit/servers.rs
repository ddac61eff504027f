//! Plain servers for exits to lead to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::net::connect;
use super::pattern::Pattern;

/// A TCP server with a thread for each connection; stops listening on drop.
pub struct Server {
    address: SocketAddr,
    served: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
}

impl Server {
    /// Listens on `bind` and serves each connection by `serve`, whose error just ends that connection:
    /// the client notices.
    pub fn start(
        bind: &str,
        serve: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind(bind).unwrap_or_else(|e| panic!("{bind}: {e}"));
        let address = listener.local_addr().expect("a bound socket has an address");
        let served = Arc::new(AtomicUsize::new(0));
        let stopping = Arc::new(AtomicBool::new(false));
        let (counter, stop, serve) = (Arc::clone(&served), Arc::clone(&stopping), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                counter.fetch_add(1, Ordering::SeqCst);
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || serve(stream));
            }
        });
        Server { address, served, stopping }
    }

    /// Echoes until the end of data.
    pub fn echo() -> Server {
        Server::echo_on("127.0.0.1:0")
    }

    /// As [`Server::echo`], on another address.
    pub fn echo_on(bind: &str) -> Server {
        Server::start(bind, serve_echo)
    }

    /// Says `name` and a newline at once, then echoes: shows which exit was taken.
    pub fn named(name: &'static str) -> Server {
        Server::start("127.0.0.1:0", move |mut stream| {
            writeln!(stream, "{name}")?;
            serve_echo(stream)
        })
    }

    /// Answers each line `SEED COUNT` with that many bytes of that pattern, and closes at end of
    /// data.
    pub fn line_answer() -> Server {
        Server::start("127.0.0.1:0", |mut stream| {
            let mut lines = BufReader::new(stream.try_clone()?);
            let mut line = String::new();
            while lines.read_line(&mut line)? > 0 {
                let (seed, count) = line.trim().split_once(' ').expect("SEED COUNT");
                Pattern::new(seed.parse().expect("a seed"))
                    .send(&mut stream, count.parse().expect("a count"))?;
                line.clear();
            }
            Ok(())
        })
    }

    /// Answers the first byte with `bye`, ends its side, and waits for the client to end.
    pub fn ends_first() -> Server {
        Server::start("127.0.0.1:0", |mut stream| {
            stream.read_exact(&mut [0])?;
            stream.write_all(b"bye")?;
            stream.shutdown(Shutdown::Write)?;
            std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
        })
    }

    /// Receives and sends patterns at the same time, as an [`Exchange`] requests.
    pub fn exchange() -> Server {
        Server::start("127.0.0.1:0", serve_exchange)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has accepted.
    pub fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the accepting thread; if that fails, it has already ended.
        let _ = TcpStream::connect(self.address);
    }
}

/// Echoes until the end of data.
pub fn serve_echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let got = stream.read(&mut buffer)?;
        if got == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..got])?;
    }
}

/// One connection to [`Server::exchange`]: so many bytes up, so many down, both at once, each
/// direction with a pattern of its own.
#[derive(Debug, Clone, Copy)]
pub struct Exchange {
    /// Tells this connection's patterns from others'.
    pub seed: u64,
    /// Bytes from client to server.
    pub up_bytes: u64,
    /// Bytes from server to client.
    pub down_bytes: u64,
}

/// Sent by the server after all bytes of both directions were right.
const VERDICT: &[u8] = b"ok";

impl Exchange {
    fn up(&self) -> Pattern {
        Pattern::new(self.seed * 2)
    }

    fn down(&self) -> Pattern {
        Pattern::new(self.seed * 2 + 1)
    }

    /// Does it over a new connection to `address`. Panics on any byte that is wrong or missing.
    pub fn run(&self, address: SocketAddr) {
        let stream = connect(address);
        self.ask(&stream);
        self.finish(&stream);
    }

    /// Sends the request for it.
    pub fn ask(&self, mut stream: &TcpStream) {
        let mut request = [0; 24];
        request[..8].copy_from_slice(&self.seed.to_le_bytes());
        request[8..16].copy_from_slice(&self.up_bytes.to_le_bytes());
        request[16..].copy_from_slice(&self.down_bytes.to_le_bytes());
        stream.write_all(&request).expect("the request is sent");
    }

    /// Moves all the data, checks each byte, and takes the server's verdict.
    pub fn finish(&self, stream: &TcpStream) {
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut to = stream;
                self.up().send(&mut to, self.up_bytes).expect("everything is sent");
            });
            let mut from = stream;
            self.down().receive(&mut from, self.down_bytes).expect("everything arrives");
        });
        let mut verdict = [0; VERDICT.len()];
        let mut from = stream;
        from.read_exact(&mut verdict).expect("the server's verdict");
        assert_eq!(verdict, VERDICT);
    }
}

fn serve_exchange(stream: TcpStream) -> std::io::Result<()> {
    let (mut from, mut to) = (&stream, &stream);
    let mut request = [0; 24];
    from.read_exact(&mut request)?;
    let word = |at: usize| u64::from_le_bytes(request[at..at + 8].try_into().expect("8 bytes"));
    let asked = Exchange { seed: word(0), up_bytes: word(8), down_bytes: word(16) };
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| asked.down().send(&mut { &stream }, asked.down_bytes));
        let received = asked.up().receive(&mut from, asked.up_bytes);
        if received.is_err() {
            // Unblocks the other direction, whose client is of no use any more.
            let _ = stream.shutdown(Shutdown::Both);
        }
        received.and(sending.join().expect("sending does not panic"))
    })?;
    to.write_all(VERDICT)
}
