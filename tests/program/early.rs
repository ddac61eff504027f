//! Data that was sent before a reset arrives before it: early answers of servers that close with part of
//! a request unread, and data of clients that were reset. The relay is stopped meanwhile, so that it
//! always finds bytes, the reset behind them, and bytes for the broken side at once.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};
use sockmux_uring::limits::{BROKEN_QUIET_MILLIS, FIRST_WINDOW_BYTES};

use crate::testkit::net::{Ended, bounded, connect, free_port, read_to_end_of, reset};
use crate::testkit::pattern::Pattern;
use crate::testkit::peer_v1::{Frame, OPEN_HEAD, PeerV1, kind};
use crate::testkit::program::Program;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::tunnel::{Tunnel, start_receptor};
use crate::testkit::{DEADLINE, eventually};

/// Every way of moving bulk.
const WAYS: [&str; 3] = ["SOXCONF=bulk:auto", "SOXCONF=bulk:copy", "SOXCONF=bulk:splice"];
/// Answers: a line, and as much as a socket takes whose owner does not read.
const ANSWERS_BYTES: [u64; 2] = [19, 50_000];
/// A request of which the server reads four bytes.
const REQUEST: [u8; 1_000] = [b'q'; 1_000];
static UPLOAD: [u8; 50_000] = [b'u'; 50_000];

/// When the client sends the rest of its upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upload {
    Never,
    BeforeTheAnswer,
    AfterTheReset,
}

const UPLOADS: [Upload; 3] = [Upload::Never, Upload::BeforeTheAnswer, Upload::AfterTheReset];

/// A server's connection from the moment that it has been accepted.
trait Serving: Read + Write {}
impl<S: Read + Write> Serving for S {}

/// Sends a request through `relay`, which `server` answers early; checks the answer and the reset.
fn check_answer<S: Serving>(
    mut client: TcpStream,
    relay: &Program,
    mut server: S,
    bytes: u64,
    upload: Upload,
) {
    // The rest has arrived with the first four bytes, and makes the close a reset.
    server.read_exact(&mut [0; 4]).expect("a request");
    relay.pause();
    if upload == Upload::BeforeTheAnswer {
        client.write_all(&UPLOAD).expect("sent");
    }
    Pattern::new(1).send(&mut server, bytes).expect("the answer is sent");
    drop(server);
    if upload == Upload::AfterTheReset {
        client.write_all(&UPLOAD).expect("sent");
    }
    relay.go_on();
    let whole = Pattern::new(1).receive(&mut client, bytes);
    assert!(whole.is_ok(), "an answer of {bytes} bytes, upload: {upload:?}: {whole:?}");
    assert_eq!(read_to_end_of(&mut client, DEADLINE), Ended::Reset, "{bytes}, {upload:?}");
}

/// All of that with every answer and upload.
fn check_answers<S: Serving>(
    relay: &Program,
    connect: impl Fn() -> TcpStream,
    accept: impl Fn() -> S,
) {
    for bytes in ANSWERS_BYTES {
        for upload in UPLOADS {
            let mut client = connect();
            client.write_all(&REQUEST).expect("sent");
            check_answer(client, relay, accept(), bytes, upload);
        }
    }
}

/// A client sends, and closes with part of the server's data unread.
fn check_what_a_client_sent(relay: &Program, entrance: SocketAddr, listener: &TcpListener) {
    for bytes in ANSWERS_BYTES {
        let mut client = connect(entrance);
        client.write_all(&REQUEST).expect("sent");
        let mut server = accept(listener);
        server.read_exact(&mut [0; REQUEST.len()]).expect("a request");
        server.write_all(&REQUEST).expect("sent");
        client.read_exact(&mut [0; 4]).expect("the answer begins");
        relay.pause();
        server.write_all(&UPLOAD).expect("sent");
        Pattern::new(2).send(&mut client, bytes).expect("sent");
        drop(client);
        relay.go_on();
        let whole = Pattern::new(2).receive(&mut server, bytes);
        assert!(whole.is_ok(), "{bytes} bytes: {whole:?}");
        assert_eq!(read_to_end_of(&mut server, DEADLINE), Ended::Reset, "{bytes}");
    }
}

/// A reset drops what the other side's kernel has not taken yet: it waits for that.
fn check_slow_reader(entrance: SocketAddr, listener: &TcpListener) {
    let socket = Socket::new(Domain::for_address(entrance), Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(8 << 10).expect("a buffer size can be set");
    socket.set_tcp_mss(1448).expect("a segment size can be set");
    socket.connect_timeout(&entrance.into(), DEADLINE).expect("the relay listens");
    let mut client = bounded(socket.into());
    client.write_all(&REQUEST).expect("sent");
    let mut server = accept(listener);
    server.read_exact(&mut [0; REQUEST.len()]).expect("a request");
    Pattern::new(3).send(&mut server, 50_000).expect("the answer is sent");
    reset(server);
    Pattern::new(3).receive(&mut client, 50_000).expect("the answer, whole");
    assert_eq!(read_to_end_of(&mut client, DEADLINE), Ended::Reset);
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

fn accept(listener: &TcpListener) -> TcpStream {
    bounded(listener.accept().expect("the relay comes").0)
}

#[test]
fn through_a_plain_relay() {
    for way in WAYS {
        let (listener, address) = listen();
        let target = format!("SERVER=tcprelay://{address}");
        let relay = Program::start(&["-P127.0.0.1:0", &target, way]);
        let entrance = relay.address_of("entrance listening");
        check_answers(&relay, || connect(entrance), || accept(&listener));
        check_what_a_client_sent(&relay, entrance, &listener);
        check_slow_reader(entrance, &listener);
    }
}

fn through_a_tunnel(protocol: Protocol) {
    // SockMux 0.3 never splices.
    let ways = if protocol == Protocol::V1 { &WAYS[..] } else { &WAYS[..1] };
    for way in ways {
        let (listener, address) = listen();
        let exit = format!("DEST={address}");
        let tunnel = Tunnel::start(protocol, &[&exit[..], way], &["PORT=127.0.0.1:0", way]);
        let entrance = tunnel.entrance();
        check_answers(&tunnel.receptor, || connect(entrance), || accept(&listener));
        check_what_a_client_sent(&tunnel.connector, entrance, &listener);
        check_slow_reader(entrance, &listener);
    }
}

fn by_a_unix_socket(protocol: Protocol) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).expect("the socket can be made");
    let exit = format!("DEST=unix:{}", path.display());
    let tunnel = Tunnel::start(protocol, &[exit], &["PORT=127.0.0.1:0"]);
    let accept = || listener.accept().expect("the relay comes").0;
    check_answers(&tunnel.receptor, || connect(tunnel.entrance()), accept);
}

/// A server that accepts no more clients for now is retried. Meanwhile its client is reset.
#[test]
fn before_the_server_is_reached() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).expect("the socket can be made");
    let mut waiting = Vec::new();
    loop {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        socket.set_nonblocking(true).expect("it need not block");
        match socket.connect(&SockAddr::unix(&path).expect("a path")) {
            Ok(()) => waiting.push(socket),
            Err(error) => break assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    let exit = format!("DEST=unix:{}", path.display());
    let tunnel = Tunnel::start(Protocol::V1, &[&exit[..], "-v"], &["PORT=127.0.0.1:0"]);
    let mut client = connect(tunnel.entrance());
    client.write_all(&REQUEST).expect("sent");
    reset(client);
    tunnel.receptor.wait_for("stream reset by the peer");
    drop(waiting);
    let said = || {
        let (mut server, _) = listener.accept().expect("somebody comes");
        let mut said = Vec::new();
        server.read_to_end(&mut said).expect("an end");
        said
    };
    let first = std::iter::repeat_with(said).find(|said| !said.is_empty());
    assert_eq!(first.expect("the tunnel comes"), REQUEST);
}

in_both_protocols!(through_a_tunnel, by_a_unix_socket);

/// A command's socket, seen from the command: it reads by `request` and writes by `answer`, and ends when
/// that does.
struct Command {
    request: std::fs::File,
    answer: Option<std::fs::File>,
    relay: u32,
}

impl Read for Command {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.request.read(buffer)
    }
}

impl Write for Command {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.answer.as_mut().expect("it is open").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        self.answer = None;
        // The relay, which is stopped, has not waited for it yet.
        assert!(eventually(DEADLINE, || ended_children(self.relay) > 0), "it goes on");
    }
}

/// Processes that have ended and whose parent has not waited for them.
fn ended_children(parent: u32) -> usize {
    let processes = std::fs::read_dir("/proc").expect("a list of processes").flatten();
    processes
        .filter_map(|process| std::fs::read_to_string(process.path().join("stat")).ok())
        .filter(|stat| {
            let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
            let mut fields = fields.split_whitespace();
            fields.next() == Some("Z") && fields.next() == Some(&parent.to_string())
        })
        .count()
}

#[test]
fn by_a_command() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let [request, answer] = ["request", "answer"].map(|name| dir.path().join(name));
    for path in [&request, &answer] {
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mkfifoat(rustix::fs::CWD, path, mode).expect("a FIFO");
    }
    let (from, to) = (request.display(), answer.display());
    let exit = format!("SERVER=exec:dd bs=4 count=1 status=none >{from}; exec cat {to},-in");
    let tunnel = Tunnel::start(Protocol::V1, &[exit], &["PORT=127.0.0.1:0"]);
    let start = || {
        let request = std::fs::File::open(&request).expect("the command writes");
        let answer = std::fs::File::options().write(true).open(&answer).expect("it reads");
        Command { request, answer: Some(answer), relay: tunnel.receptor.pid() }
    };
    check_answers(&tunnel.receptor, || connect(tunnel.entrance()), start);
}

/// Everything here runs on loopback, which has to be permitted.
const PERMIT: &str = "PERMIT=*:127.0.0.0/8:*";

fn proxy(word: &str) -> (Tunnel, SocketAddr) {
    let entrance = free_port(Ipv4Addr::new(127, 0, 0, 6));
    let exit = format!("SERVER={word},-in");
    let tunnel = Tunnel::start(Protocol::V1, &[&exit[..], PERMIT], &[format!("PORT={entrance}")]);
    (tunnel, entrance)
}

#[test]
fn through_socks() {
    let (tunnel, entrance) = proxy("socks");
    let (listener, address) = listen();
    let ask = || {
        let mut stream = connect(entrance);
        let mut said = vec![5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1];
        said.extend(address.port().to_be_bytes());
        stream.write_all(&said).expect("sent");
        stream.read_exact(&mut [0; 12]).expect("an answer");
        stream
    };
    check_answers(&tunnel.receptor, ask, || accept(&listener));
}

/// A request for a whole address, answered while its body is uploaded. `head` is the answer's; how the
/// client's connection ends.
fn http_answer(head: &str, upload: Upload) -> Ended {
    const BODY: &[u8] = b"too large";
    let (tunnel, entrance) = proxy("http");
    let (listener, address) = listen();
    let mut client = connect(entrance);
    write!(client, "PUT http://{address}/ HTTP/1.1\r\nHost: {address}\r\n").expect("sent");
    write!(client, "Content-Length: 3000000\r\n\r\n").expect("sent");
    client.write_all(&REQUEST).expect("sent");
    let mut server = accept(&listener);
    server.read_exact(&mut [0; 4]).expect("a request");
    tunnel.receptor.pause();
    if upload == Upload::BeforeTheAnswer {
        client.write_all(&UPLOAD).expect("sent");
    }
    write!(server, "HTTP/1.1 413 Too Large\r\n{head}\r\n").expect("sent");
    server.write_all(BODY).expect("sent");
    drop(server);
    if upload == Upload::AfterTheReset {
        client.write_all(&UPLOAD).expect("sent");
    }
    tunnel.receptor.go_on();
    let mut answer = Vec::new();
    while !answer.ends_with(BODY) {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap_or_else(|e| panic!("{upload:?}: {answer:?}, {e}"));
        answer.extend(byte);
    }
    assert!(answer.starts_with(b"HTTP/1.1 413 "), "{upload:?}: {answer:?}");
    read_to_end_of(&mut client, DEADLINE)
}

#[test]
fn through_an_http_proxy() {
    for upload in UPLOADS {
        let whole = "Content-Length: 9\r\nConnection: close\r\n";
        assert_eq!(http_answer(whole, upload), Ended::Eof, "{upload:?}");
        // Where the end of data is the end of the answer, a reset is none.
        assert_eq!(http_answer("Connection: close\r\n", upload), Ended::Reset, "{upload:?}");
    }
}

/// The number of a stream as the connector's side gives it.
const STREAM: u32 = 2;

/// The remaining data of a broken connection at an exit is more than its peer's window. Returns the
/// program and the peer.
fn more_than_the_window() -> (Program, PeerV1) {
    const LEFT_BYTES: u64 = 20_000;
    let (listener, address) = listen();
    let receptor = start_receptor("127.0.0.1:0", &[format!("DEST={address}")]);
    let mut peer = PeerV1::join(receptor.address_of("receptor listening"));
    peer.send(&Frame::new(kind::OPEN, STREAM, &OPEN_HEAD));
    let mut server = accept(&listener);
    let mut pattern = Pattern::new(4);
    pattern.send(&mut server, u64::from(FIRST_WINDOW_BYTES)).expect("sent");
    let window = peer.receive_data(STREAM, FIRST_WINDOW_BYTES as usize);
    Pattern::new(4).check(&window);
    pattern.send(&mut server, LEFT_BYTES).expect("sent");
    reset(server);
    (receptor, peer)
}

#[test]
fn beyond_the_window_a_broken_connection_waits_for_its_peer() {
    let (_receptor, mut peer) = more_than_the_window();
    peer.send(&Frame::new(kind::CREDIT, STREAM, &20_000_u32.to_be_bytes()));
    let mut expected = Pattern::new(4);
    expected.take(FIRST_WINDOW_BYTES as usize);
    expected.check(&peer.receive_data(STREAM, 20_000));
    assert_eq!(peer.receive_kind(kind::RESET).stream, STREAM);
}

#[test]
fn a_peer_that_takes_nothing_is_told_of_the_reset_in_time() {
    let began = Instant::now();
    let (receptor, mut peer) = more_than_the_window();
    // Until then there is no polling.
    receptor.check_idle();
    assert_eq!(peer.receive_kind(kind::RESET).stream, STREAM);
    let most = Duration::from_millis(BROKEN_QUIET_MILLIS) + Duration::from_secs(10);
    assert!(began.elapsed() < most, "{:?}", began.elapsed());
}
