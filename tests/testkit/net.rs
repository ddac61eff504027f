//! Client sockets that never wait for ever, and addresses.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::pattern::Pattern;
use super::{DEADLINE, STILL};

/// Connects to `address`; every later read and write fails after [`DEADLINE`] instead of hanging.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, DEADLINE)
        .unwrap_or_else(|e| panic!("cannot connect to {address}: {e}"));
    bounded(stream)
}

/// As [`connect`], from an address of this machine. Such a connection may be refused with a reset
/// before it is there.
pub fn connect_from(own: &str, address: SocketAddr) -> std::io::Result<TcpStream> {
    let own: IpAddr = own.parse().expect("an address");
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(own, 0).into())?;
    socket.connect_timeout(&address.into(), DEADLINE)?;
    Ok(bounded(socket.into()))
}

/// A connection from `own` that is reset before it has received a byte.
pub fn refused(own: &str, address: SocketAddr) {
    match connect_from(own, address) {
        Ok(mut stream) => assert_eq!(read_to_end_of(&mut stream, DEADLINE), Ended::Reset),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

/// Panics unless the next line is this one, as of a [`super::servers::Server::named`].
pub fn expect_line(stream: &mut TcpStream, wanted: &str) {
    let mut line = vec![0; wanted.len() + 1];
    stream.read_exact(&mut line).expect("a line");
    assert_eq!(String::from_utf8_lossy(&line), format!("{wanted}\n"));
}

/// Bounds every read and write of `stream` by [`DEADLINE`].
pub fn bounded(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
    stream.set_write_timeout(Some(DEADLINE)).expect("a timeout can be set");
    stream.set_nodelay(true).expect("Nagle can be turned off");
    stream
}

/// How a connection ended from the reader's side.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// End of data.
    Eof,
    /// A reset.
    Reset,
}

/// Reads and drops everything until the connection ends. Panics when it does not end within
/// `deadline` of silence.
pub fn read_to_end_of(stream: &mut TcpStream, deadline: Duration) -> Ended {
    stream.set_read_timeout(Some(deadline)).expect("a timeout can be set");
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ended::Eof,
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return Ended::Reset,
            Err(e) => panic!("the connection did not end within {deadline:?}: {e}"),
        }
    }
}

/// Resets a connection: unread data, and data in flight, is lost.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a linger time can be set");
}

/// Sends until for a while nothing more is taken.
pub fn send_until_blocked(mut stream: &TcpStream) {
    stream.set_write_timeout(Some(STILL)).expect("a timeout can be set");
    while stream.write(&[1; 64 * 1024]).is_ok() {}
}

/// Connects to `address` and panics unless the connection ends without anyone's doing anything.
pub fn is_turned_away(address: SocketAddr) {
    // The refusal may come before `connect` has returned: then that reports the reset.
    match TcpStream::connect_timeout(&address, DEADLINE) {
        Ok(stream) => drop(read_to_end_of(&mut bounded(stream), DEADLINE)),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

/// Sends `count` bytes of the pattern of `seed` to an echo server and checks the echo, sending and
/// receiving at the same time.
pub fn check_echo(stream: &TcpStream, seed: u64, count: u64) {
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut to = stream;
            Pattern::new(seed).send(&mut to, count).expect("everything is sent");
        });
        let mut from = stream;
        Pattern::new(seed).receive(&mut from, count).expect("everything comes back");
    });
}

/// Opens a new connection to `address` and checks an echo of `count` bytes over it.
pub fn check_new_echo(address: SocketAddr, seed: u64, count: u64) {
    check_echo(&connect(address), seed, count);
}

/// A port on `ip` without a listener now, and below the kernel's ephemeral ones. Each is given out once;
/// test processes that run at the same time start at different ports.
pub fn free_port(ip: Ipv4Addr) -> SocketAddr {
    const PORTS: std::ops::Range<u32> = 10_000..20_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(331);
    for _ in PORTS {
        let nth = begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = (PORTS.start + nth % PORTS.len() as u32) as u16;
        // On any address, since services listen on several.
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return SocketAddr::from((ip, port));
        }
    }
    panic!("all ports from {} to {} are in use", PORTS.start, PORTS.end);
}

/// The answer to a client that sends this and its end of data at once.
pub fn answer_to(said: &str, entrance: SocketAddr) -> String {
    let mut stream = connect(entrance);
    stream.write_all(said.as_bytes()).expect("a client may speak at once");
    stream.shutdown(Shutdown::Write).expect("and end");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer, and its end");
    answer
}
