//! Servers and clients of datagrams.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::DEADLINE;

/// Buffers of sockets: the bytes that a test sends at once.
const SOCKET_BYTES: usize = 8 << 20;

/// A server for datagrams on a thread of its own, until it is dropped.
pub struct DatagramServer {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    came: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl DatagramServer {
    /// Sends every datagram back to where it came from.
    pub fn echo() -> DatagramServer {
        DatagramServer::echo_on("127.0.0.1:0")
    }

    /// As [`DatagramServer::echo`], on this address.
    pub fn echo_on(bind: &str) -> DatagramServer {
        DatagramServer::start(bind, |socket, datagram, client| {
            let _ = socket.send_to(datagram, client);
        })
    }

    /// Answers every datagram with `name`.
    pub fn named(name: &'static str) -> DatagramServer {
        DatagramServer::start("127.0.0.1:0", move |socket, _, client| {
            let _ = socket.send_to(name.as_bytes(), client);
        })
    }

    /// Does this with every datagram that comes.
    pub fn start(
        bind: &str,
        serve: impl Fn(&UdpSocket, &[u8], SocketAddr) + Send + 'static,
    ) -> DatagramServer {
        let socket = UdpSocket::bind(bind).expect("a server's socket");
        roomy(&socket);
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout can be set");
        let address = socket.local_addr().expect("a bound socket has an address");
        let (stopping, came) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stop, count) = (Arc::clone(&stopping), Arc::clone(&came));
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while !stop.load(Ordering::SeqCst) {
                if let Ok((bytes, client)) = socket.recv_from(&mut buffer) {
                    count.fetch_add(1, Ordering::SeqCst);
                    serve(&socket, &buffer[..bytes], client);
                }
            }
        });
        DatagramServer { address, stopping, came, thread: Some(thread) }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many datagrams have come.
    pub fn came(&self) -> usize {
        self.came.load(Ordering::SeqCst)
    }
}

impl Drop for DatagramServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn roomy(socket: &UdpSocket) {
    let socket = SockRef::from(socket);
    // As far as the system lets us.
    let _ = socket.set_recv_buffer_size(SOCKET_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BYTES);
}

/// A client that talks with one address only.
pub struct Client(UdpSocket);

impl Client {
    /// A client of `entrance` from a port of its own.
    pub fn of(entrance: SocketAddr) -> Client {
        let any = if entrance.is_ipv6() { "[::1]:0" } else { "127.0.0.1:0" };
        Client::from(any, entrance)
    }

    /// A client of `entrance` from this address.
    pub fn from(own: &str, entrance: SocketAddr) -> Client {
        let socket = UdpSocket::bind(own).expect("a client's socket");
        roomy(&socket);
        socket.connect(entrance).expect("connecting sends nothing");
        socket.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
        Client(socket)
    }

    /// Sends one datagram.
    pub fn send(&self, datagram: &[u8]) {
        self.0.send(datagram).expect("a datagram can be sent");
    }

    /// The next datagram that comes.
    pub fn receive(&self) -> Vec<u8> {
        self.next().expect("a datagram comes")
    }

    /// The next datagram within the socket's timeout.
    fn next(&self) -> std::io::Result<Vec<u8>> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            match self.0.recv(&mut buffer) {
                // The test was stopped and goes on.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                got => {
                    buffer.truncate(got?);
                    return Ok(buffer);
                }
            }
        }
    }

    /// Whether a datagram comes within this time.
    pub fn hears_within(&self, time: Duration) -> Option<Vec<u8>> {
        self.0.set_read_timeout(Some(time)).expect("a timeout can be set");
        let got = self.next();
        self.0.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
        match got {
            Ok(datagram) => Some(datagram),
            Err(error) => {
                let kind = error.kind();
                assert!(matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
                None
            }
        }
    }

    /// Sends a datagram and checks that it comes back as it was.
    pub fn check_echo(&self, datagram: &[u8]) {
        self.send(datagram);
        let got = self.receive();
        assert!(got == datagram, "{} bytes came back as {}", datagram.len(), got.len());
    }

    /// Sends a datagram and returns the next one received.
    ///
    /// # Errors
    /// Those of the socket, which include a port without a listener; or half a second passed.
    pub fn try_echo(&self, datagram: &[u8]) -> std::io::Result<Vec<u8>> {
        self.0.send(datagram)?;
        self.0.set_read_timeout(Some(Duration::from_millis(500)))?;
        let got = self.next();
        self.0.set_read_timeout(Some(DEADLINE))?;
        got
    }

    /// Asks again and again, as programs that use datagrams do, until the answer is the question.
    pub fn echo_in_the_end(&self, datagram: &[u8]) {
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            self.send(datagram);
            if let Some(answer) = self.hears_within(Duration::from_millis(50)) {
                assert_eq!(answer, datagram);
                // Answers to earlier questions may still be on their way.
                while self.hears_within(Duration::from_millis(50)).is_some() {}
                return;
            }
        }
        panic!("no answer within {DEADLINE:?}");
    }

    /// The client's own address.
    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("a bound socket has an address")
    }
}

/// Bytes that distinguish datagrams: every one differs from its neighbours in content.
pub fn datagram(number: u64, bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number ^ (bytes as u64) << 32);
    let mut datagram = vec![0; bytes];
    random.fill(&mut datagram);
    datagram
}
