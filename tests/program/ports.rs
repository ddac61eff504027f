//! Remote forwards and callbacks at the end of the entrances. The peer, whose exit requests them, is
//! played by hand.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use socket2::SockRef;

use crate::testkit::datagrams::Client;
use crate::testkit::net::{
    Ended, bounded, connect, connect_from, free_port, read_to_end_of, refused,
};
use crate::testkit::peer_v1::{Frame, PeerV1, SENDERS, kind};
use crate::testkit::program::Program;
use crate::testkit::tunnel::start_receptor;
use crate::testkit::{DEADLINE, eventually};

/// A host that is not the client's.
const STRANGER: &str = "127.0.0.2";
/// Lets the client's host be called.
const PERMIT: &str = "PERMIT=*:127.0.0.1:*";
/// Transports.
const BYTES: u8 = 0;
const DATAGRAMS: u8 = 1;
/// Ports that one stream may have, as documented.
const PORTS_PER_STREAM: u32 = 4;
/// The number of this side's next stream.
const CALL: u32 = 2;

/// The program, with a client whose stream leads to this side.
struct Exit {
    program: Program,
    peer: PeerV1,
    client: Option<TcpStream>,
    control: u32,
}

/// A connection to a forwarded port.
struct RelatedStream {
    stream: u32,
    transport: u8,
    client: SocketAddr,
    entrance: SocketAddr,
    request: u32,
}

impl Exit {
    fn start() -> Exit {
        Exit::with(&["PORT=127.0.0.1:0"], connect)
    }

    fn with(words: &[&str], client: impl FnOnce(SocketAddr) -> TcpStream) -> Exit {
        let (program, mut peer) = join(words);
        let client = Some(client(program.address_of("entrance listening")));
        let control = peer.receive_kind(kind::OPEN).stream;
        Exit { program, peer, client, control }
    }

    /// Sends a frame about the control stream.
    fn about(&mut self, kind: u8, payload: &[u8]) {
        let (flags, stream) = (0, self.control);
        self.peer.send(&Frame { kind, flags, stream, payload: payload.to_vec() });
    }

    /// Asks for a port.
    fn ask(&mut self, request: u32, transport: u8) -> Result<SocketAddr, String> {
        self.about(kind::LISTEN, &[&request.to_be_bytes()[..], &[transport, 0, 0, 0]].concat());
        let Frame { flags, stream, payload, .. } = self.peer.receive_kind(kind::LISTENING);
        assert_eq!((flags, stream), (SENDERS, self.control));
        assert_eq!(payload[..4], request.to_be_bytes());
        match payload[4] {
            0 => Err(String::from_utf8(payload[24..].to_vec()).expect("a reason")),
            _ => Ok(address(&payload[4..24])),
        }
    }

    fn port(&mut self, request: u32, transport: u8) -> SocketAddr {
        self.ask(request, transport).expect("a port")
    }

    /// The next connection to a port.
    fn came(&mut self) -> RelatedStream {
        let Frame { flags, stream, payload, .. } = self.peer.receive_kind(kind::BESIDE);
        let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("4 bytes"));
        assert_eq!((flags, payload.len()), (SENDERS, 56));
        assert_eq!((payload[1], word(44), word(52)), (1, self.control, 0));
        RelatedStream {
            stream,
            transport: payload[0],
            client: address(&payload[4..24]),
            entrance: address(&payload[24..44]),
            request: word(48),
        }
    }

    /// Asks for a connection to the client's host.
    fn call(&mut self, port: u16) {
        let mut payload = vec![BYTES, 2];
        payload.extend(port.to_be_bytes());
        payload.extend([0; 40]);
        payload.extend(self.control.to_be_bytes());
        payload.extend([0; 8]);
        self.peer.send(&Frame::new(kind::BESIDE, CALL, &payload));
    }

    /// Why a call was refused.
    fn call_refused(&mut self, port: u16) -> String {
        self.call(port);
        let Frame { flags, stream, payload, .. } = self.peer.receive_kind(kind::RESET);
        assert_eq!((flags, stream, &payload[..2]), (0, CALL, &[0, 2][..]));
        String::from_utf8(payload[2..].to_vec()).expect("a reason")
    }

    /// Data of the client that came by a port, or to it.
    fn check_both_ways(&mut self, stream: u32, client: &mut TcpStream) {
        client.write_all(b"up").expect("the client can send");
        let data = self.peer.receive_kind(kind::DATA);
        assert_eq!((data.stream, &data.payload[..]), (stream, &b"up"[..]));
        let payload = b"down".to_vec();
        self.peer.send(&Frame { kind: kind::DATA, flags: data.flags ^ SENDERS, stream, payload });
        let mut got = [0; 4];
        client.read_exact(&mut got).expect("the client hears");
        assert_eq!(&got, b"down");
    }

    fn says_refused(&self, nth: usize, wanted: &str) {
        let event = self.program.wait_for_nth("stream refused", nth);
        let reason = event["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(wanted), "{event}");
    }
}

/// A program with these words, and a peer that its streams lead to.
fn join(words: &[&str]) -> (Program, PeerV1) {
    let program = start_receptor("127.0.0.1:0", words);
    let peer = PeerV1::join(program.address_of("receptor listening"));
    program.wait_for("tunnel up");
    (program, peer)
}

fn address(bytes: &[u8]) -> SocketAddr {
    let port = u16::from_be_bytes([bytes[2], bytes[3]]);
    let ip = match bytes[0] {
        4 => IpAddr::from(<[u8; 4]>::try_from(&bytes[4..8]).expect("4 bytes")),
        _ => IpAddr::from(<[u8; 16]>::try_from(&bytes[4..20]).expect("16 bytes")),
    };
    SocketAddr::new(ip, port)
}

/// Waits until the port is closed.
fn is_closed(port: SocketAddr) {
    // From a stranger's address: the client's own connection would use the port.
    let closed = || match connect_from(STRANGER, port) {
        Ok(_) => false,
        Err(error) => error.kind() == ErrorKind::ConnectionRefused,
    };
    assert!(eventually(DEADLINE, closed), "{port} still listens");
}

/// The same, for datagrams.
fn hears_nothing(port: SocketAddr) {
    let socket = UdpSocket::bind(format!("{STRANGER}:0")).expect("a socket");
    socket.connect(port).expect("connecting sends nothing");
    let closed = || socket.send(b"?").is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused);
    assert!(eventually(DEADLINE, closed), "{port} still hears");
}

#[test]
fn a_port_is_for_one_connection_of_the_client_and_for_nobody_else() {
    let mut exit = Exit::start();
    let port = exit.port(7, BYTES);
    assert_eq!(port.ip().to_string(), "127.0.0.1");
    refused(STRANGER, port);
    exit.says_refused(1, "opened for another client");
    let mut client = connect(port);
    let came = exit.came();
    assert_eq!((came.transport, came.request), (BYTES, 7));
    assert_eq!((came.client, came.entrance), (client.local_addr().expect("connected"), port));
    is_closed(port);
    exit.check_both_ways(came.stream, &mut client);
    // The number is free again, and closing it twice does nothing.
    exit.about(kind::UNLISTEN, &7u32.to_be_bytes());
    exit.port(7, BYTES);
}

/// Two consecutive free ports, below the kernel's ephemeral ones.
fn two_ports() -> (u16, u16) {
    let begin = 20_000 + (std::process::id() % 1_000) as u16 * 10;
    let is_free = |port: u16| {
        TcpListener::bind(("127.0.0.1", port)).is_ok()
            && UdpSocket::bind(("127.0.0.1", port)).is_ok()
    };
    let first = (begin..32_000).find(|&port| is_free(port) && is_free(port + 1)).expect("ports");
    (first, first + 1)
}

#[test]
fn ports_are_opened_where_the_firewall_lets_them_be() {
    let (first, last) = two_ports();
    let range = format!("SOXCONF=ports:{first}-{last}");
    let mut exit = Exit::with(&["PORT=127.0.0.1:0", &range], connect);
    assert_eq!([exit.port(1, BYTES).port(), exit.port(2, BYTES).port()], [first, last]);
    let why = exit.ask(3, BYTES).unwrap_err();
    let wanted = format!("127.0.0.1: all ports of {range} are in use");
    assert!(why.ends_with(&wanted), "{why}");
    // Datagrams have numbers of their own.
    assert_eq!([exit.port(3, DATAGRAMS).port(), exit.port(4, DATAGRAMS).port()], [first, last]);
    exit.about(kind::UNLISTEN, &2u32.to_be_bytes());
    assert_eq!(exit.port(5, BYTES).port(), last);
}

#[test]
fn a_port_that_is_not_needed_is_closed() {
    let mut exit = Exit::start();
    let [bytes, datagrams] = [exit.port(1, BYTES), exit.port(2, DATAGRAMS)];
    exit.about(kind::UNLISTEN, &1u32.to_be_bytes());
    exit.about(kind::UNLISTEN, &2u32.to_be_bytes());
    is_closed(bytes);
    hears_nothing(datagrams);
    exit.peer.check_alive(b"still here");
}

#[test]
fn ports_end_with_the_stream_and_what_came_by_them_does_not() {
    // The peer resets the stream, the client does, the tunnel breaks.
    for how in 0..3 {
        let mut exit = Exit::start();
        let [used, bytes, datagrams] =
            [exit.port(1, BYTES), exit.port(2, BYTES), exit.port(3, DATAGRAMS)];
        let mut client = connect(used);
        let came = exit.came();
        match how {
            0 => exit.about(kind::RESET, b"\0\x01over"),
            1 => {
                let client = exit.client.take().expect("it is there");
                let at_once = Some(Duration::ZERO);
                SockRef::from(&client).set_linger(at_once).expect("linger can be set");
            }
            _ => exit.peer.0.stream.shutdown(Shutdown::Both).expect("the link can end"),
        }
        is_closed(bytes);
        hears_nothing(datagrams);
        match how {
            2 => assert_eq!(read_to_end_of(&mut client, DEADLINE), Ended::Reset),
            _ => exit.check_both_ways(came.stream, &mut client),
        }
    }
}

#[test]
fn a_port_of_datagrams_has_flows_of_the_client() {
    let mut exit = Exit::start();
    let port = exit.port(5, DATAGRAMS);
    Client::from(&format!("{STRANGER}:0"), port).send(b"let me in");
    exit.says_refused(1, "opened for another client");
    let mut streams = Vec::new();
    for said in [b"first", b"other"] {
        let client = Client::of(port);
        client.send(said);
        let came = exit.came();
        assert_eq!((came.transport, came.request, came.entrance), (DATAGRAMS, 5, port));
        let run = exit.peer.receive_kind(kind::DATAGRAMS);
        assert_eq!(run.stream, came.stream);
        assert_eq!((&run.payload[..2], &run.payload[2..]), (&[0, 5][..], &said[..]));
        let payload = b"\0\x06answer".to_vec();
        let (kind, flags, stream) = (kind::DATAGRAMS, 0, came.stream);
        exit.peer.send(&Frame { kind, flags, stream, payload });
        assert_eq!(client.receive(), b"answer");
        streams.push(stream);
    }
    exit.about(kind::UNLISTEN, &5u32.to_be_bytes());
    let mut ended = [(); 2].map(|()| exit.peer.receive_kind(kind::RESET).stream);
    ended.sort_unstable();
    streams.sort_unstable();
    assert_eq!(ended[..], streams);
    hears_nothing(port);
}

#[test]
fn a_stream_has_so_many_ports_and_no_more() {
    let mut exit = Exit::start();
    let ports: Vec<_> = (0..PORTS_PER_STREAM).map(|n| exit.port(n, (n % 2) as u8)).collect();
    let reason = exit.ask(9, BYTES).expect_err("one too many");
    assert!(reason.contains("4 ports"), "{reason}");
    let _client = connect(ports[0]);
    assert_eq!(exit.came().request, 0);
    let reason = exit.ask(1, BYTES).expect_err("a number in use");
    assert!(reason.contains("number 1 already"), "{reason}");
    exit.port(9, BYTES);
    let _other = connect(ports[2]);
    assert_eq!(exit.came().request, 2);
}

#[test]
fn connections_by_a_port_take_seats() {
    let words = ["PORT=127.0.0.1:0", "MAXIMA=conpch:1", PERMIT];
    let mut exit = Exit::with(&words, connect);
    refused("127.0.0.1", exit.port(1, BYTES));
    exit.says_refused(1, "MAXIMA=conpch:1");
    assert!(exit.call_refused(2_000).contains("MAXIMA=conpch:1"));
}

#[test]
fn a_port_goes_on_while_the_process_drains() {
    let mut exit = Exit::start();
    let [bytes, datagrams] = [exit.port(1, BYTES), exit.port(2, DATAGRAMS)];
    exit.program.terminate();
    exit.program.wait_for("draining");
    let mut client = connect(bytes);
    let stream = exit.came().stream;
    exit.check_both_ways(stream, &mut client);
    Client::of(datagrams).send(b"hello");
    assert_eq!(exit.came().request, 2);
}

#[test]
fn behind_a_proxy_header_the_port_is_for_whom_it_names() {
    let says = |header: &'static [u8]| {
        Exit::with(&["PORT=127.0.0.1:0?proxy=accept", "RELIABLE=*"], move |entrance| {
            let mut client = connect(entrance);
            client.write_all(header).expect("the header is sent");
            client
        })
    };
    let mut exit = says(b"PROXY TCP4 127.0.0.9 127.0.0.1 4000 21\r\n");
    let port = exit.port(1, BYTES);
    refused("127.0.0.1", port);
    let _client = connect_from("127.0.0.9", port).expect("the client may come in");
    assert_eq!(exit.came().client.ip().to_string(), "127.0.0.9");
    let mut exit = says(b"PROXY UNKNOWN\r\n");
    let reason = exit.ask(1, BYTES).expect_err("nobody knows for whom");
    assert!(reason.contains("not known"), "{reason}");
    let mut exit = says(b"PROXY TCP6 2001:db8::9 2001:db8::1 4000 21\r\n");
    let reason = exit.ask(1, BYTES).expect_err("it cannot come here");
    assert!(reason.contains("family"), "{reason}");
}

#[test]
fn clients_of_a_unix_socket_get_no_ports_and_no_calls() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("entrance");
    let (program, mut peer) = join(&[&format!("PORT=unix:{}", path.display())]);
    let _process = UnixStream::connect(&path).expect("the entrance is there");
    let control = peer.receive_kind(kind::OPEN).stream;
    let mut exit = Exit { program, peer, client: None, control };
    let why = "the client came in by a Unix socket";
    assert_eq!(exit.ask(1, BYTES), Err(String::from(why)));
    assert_eq!(exit.call_refused(2_000), why);
}

#[test]
fn a_call_leads_to_the_client_s_host_from_where_it_has_come() {
    // Any client, and only one of this name, which is looked up.
    for permit in [PERMIT, "PERMIT=*:127.0.0.1:local*"] {
        check_call(Exit::with(&["PORT=127.0.0.5:0", permit], connect));
    }
}

fn check_call(mut exit: Exit) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    exit.call(listener.local_addr().expect("a bound socket has an address").port());
    let (client, from) = listener.accept().expect("the client is called");
    assert_eq!(from.ip().to_string(), "127.0.0.5");
    assert_eq!(exit.peer.receive_kind(kind::OPENED).stream, CALL);
    exit.check_both_ways(CALL, &mut bounded(client));
}

#[test]
fn calls_that_are_refused() {
    let mut exit = Exit::start();
    let reason = exit.call_refused(2_000);
    assert!(reason.contains("is loopback, and no PERMIT= names it"), "{reason}");
    let mut exit = Exit::with(&["PORT=127.0.0.1:0", PERMIT], connect);
    for port in [0, 20, 80, 1023] {
        let reason = exit.call_refused(port);
        assert!(reason.contains("not called below port 1024"), "{reason}");
    }
    // The stream is no more.
    exit.about(kind::RESET, b"\0\x01over");
    assert!(exit.call_refused(2_000).contains("over"));
    exit.peer.check_alive(b"still here");
    // Without a listener.
    let words = ["PORT=127.0.0.1:0", "PERMIT=*:127.0.0.9:*"];
    let from = |entrance| connect_from("127.0.0.9", entrance).expect("a connection");
    let mut exit = Exit::with(&words, from);
    let reason = exit.call_refused(free_port([127, 0, 0, 9].into()).port());
    assert!(reason.contains("refused"), "{reason}");
}
