//! Exits that ask the other end for ports, which is played by hand: what they ask for, and where
//! they lead what comes in.

mod support;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};

use support::DEADLINE;
use support::datagrams::DatagramServer;
use support::net::{Ended, bounded, connect, read_to_end_of, refused};
use support::peer::{Peer, hello, kind as old_kind};
use support::peer_v1::{Frame, OPEN_HEAD, PeerV1, SENDERS, kind};
use support::program::Program;
use support::servers::Server;
use support::tunnel::start_receptor;

const DATAGRAMS: u8 = 0x0C;
const LISTEN: u8 = 0x0D;
const LISTENING: u8 = 0x0E;
const UNLISTEN: u8 = 0x0F;
const BESIDE: u8 = 0x10;

/// Half-close, datagrams, ports.
const ALL_FLAGS: u8 = 1 | 2 | 8;

/// The stream of the client that talks with the proxy, and those beside it, as the connector's side
/// numbers them.
const CONTROL: u32 = 2;
const BESIDES: [u32; 3] = [4, 6, 8];

/// Where the peer says that its port is.
const PORT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 9, 8, 7), 6543);

const TCP: u8 = 0;
const UDP: u8 = 1;

/// The other end of a tunnel to an exit.
struct Entrance {
    exit: Program,
    peer: PeerV1,
    /// Datagrams of a run that were not asked for yet.
    came: VecDeque<Vec<u8>>,
}

impl Entrance {
    fn start(words: &[&str]) -> Entrance {
        Entrance::start_with(ALL_FLAGS, words)
    }

    fn start_with(flags: u8, words: &[&str]) -> Entrance {
        let exit = start_receptor("127.0.0.1:0", words);
        let mut peer = Peer { stream: connect(exit.address_of("receptor listening")) };
        let mut offering = hello(old_kind::HELLO);
        offering
            .payload
            .extend([&b"SMXU\x01"[..], &[flags], b"\0\0\x00\x10\0\0\0\0\x03\xe8"].concat());
        for frame in [offering, hello(old_kind::HELLO_OK), hello(old_kind::HELLO_OK)] {
            peer.send(&frame);
        }
        let mut answers = 0;
        while answers < 2 {
            let frame = peer.receive().expect("the receptor says hello");
            answers += u32::from(frame.kind == old_kind::HELLO_OK);
        }
        Entrance { exit, peer: PeerV1(peer), came: VecDeque::new() }
    }

    /// Opens the control stream, whose client says this at once.
    fn open(&mut self, first: &[u8]) {
        self.peer.send(&Frame::new(kind::OPEN, CONTROL, &[&OPEN_HEAD, first].concat()));
    }

    fn say(&mut self, data: &[u8]) {
        self.peer.send(&Frame::new(kind::DATA, CONTROL, data));
    }

    /// The request that the exit asks a port by, which is for `transport`.
    fn asked(&mut self, transport: u8) -> [u8; 4] {
        let frame = self.peer.receive_kind(LISTEN);
        assert_eq!((frame.stream, frame.flags), (CONTROL, 0));
        assert_eq!(frame.payload[4..], [transport, 0, 0, 0]);
        frame.payload[..4].try_into().expect("4 bytes")
    }

    fn give(&mut self, request: [u8; 4]) {
        let payload = [&request[..], &address(PORT)].concat();
        self.peer.send(&Frame::new(LISTENING, CONTROL, &payload));
    }

    /// Somebody has come in by the port.
    fn come(&mut self, stream: u32, request: [u8; 4], transport: u8) {
        let client = address(SocketAddrV4::new(Ipv4Addr::new(10, 1, 1, 1), 40_000));
        let control = CONTROL.to_be_bytes();
        let parts =
            [&[transport, 1, 0, 0][..], &client, &address(PORT), &control, &request, &[0; 4]];
        self.peer.send(&Frame::new(BESIDE, stream, &parts.concat()));
    }

    /// A SOCKS client's association: its port's request.
    fn associate(&mut self) -> [u8; 4] {
        self.open(&[5, 1, 0]);
        assert_eq!(self.peer.receive_data(CONTROL, 2), [5, 0]);
        self.say(&socks_request(3, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)));
        let request = self.asked(UDP);
        self.give(request);
        let granted = [&[5, 0, 0, 1, 10, 9, 8, 7][..], &PORT.port().to_be_bytes()].concat();
        assert_eq!(self.peer.receive_data(CONTROL, 10), granted);
        request
    }

    fn send(&mut self, stream: u32, datagrams: &[Vec<u8>]) {
        let size = (datagrams[0].len() as u16).to_be_bytes();
        self.peer.send(&Frame::new(DATAGRAMS, stream, &[&size[..], &datagrams.concat()].concat()));
    }

    /// The next datagram.
    fn receive(&mut self, stream: u32) -> Vec<u8> {
        while self.came.is_empty() {
            let frame = self.peer.receive_kind(DATAGRAMS);
            assert_eq!((frame.stream, frame.flags), (stream, 0));
            let (size, run) = frame.payload.split_at(2);
            let size = u16::from_be_bytes([size[0], size[1]]);
            self.came.extend(run.chunks(size.into()).map(<[u8]>::to_vec));
        }
        self.came.pop_front().expect("it was waited for")
    }

    /// The reason for which a stream is ended, and the code of that.
    fn reset_of(&mut self, stream: u32) -> (u8, String) {
        let frame = self.peer.receive_kind(kind::RESET);
        assert_eq!((frame.stream, frame.flags), (stream, 0));
        (frame.payload[1], String::from_utf8_lossy(&frame.payload[2..]).into_owned())
    }
}

/// An address as frames have it.
fn address(address: SocketAddrV4) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[0] = 4;
    bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
    bytes[4..8].copy_from_slice(&address.ip().octets());
    bytes
}

fn v4(address: SocketAddr) -> SocketAddrV4 {
    let SocketAddr::V4(v4) = address else { panic!("an IPv4 address") };
    v4
}

fn socks_request(command: u8, to: SocketAddrV4) -> Vec<u8> {
    [&[5, command, 0, 1][..], &to.ip().octets(), &to.port().to_be_bytes()].concat()
}

/// A datagram of SOCKS to or from this address.
fn with_header(at: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let at = v4(at);
    [&[0, 0, 0, 1][..], &at.ip().octets(), &at.port().to_be_bytes(), payload].concat()
}

#[test]
fn datagrams_go_where_each_says_and_answers_say_where_they_are_from() {
    let servers = [DatagramServer::echo(), DatagramServer::echo()];
    let [one, other] = [&servers[0], &servers[1]].map(DatagramServer::address);
    let mut entrance = Entrance::start(&["SERVER=socks,-in", "PERMIT=socks:127.0.0.1:*"]);
    let request = entrance.associate();
    let [flow, second, _] = BESIDES;
    entrance.come(flow, request, UDP);
    let run = [with_header(one, b"1"), with_header(other, b"2"), with_header(one, b"3")];
    entrance.send(flow, &run);
    let mut got = [(); 3].map(|()| entrance.receive(flow));
    got.sort();
    let mut wanted = run;
    wanted.sort();
    assert_eq!(got, wanted);
    // Another port of the client's, one after the other.
    entrance.come(second, request, UDP);
    for payload in [&b""[..], &[7; 1400], &[8; 65_000]] {
        entrance.send(second, &[with_header(one, payload)]);
        assert!(entrance.receive(second) == with_header(one, payload), "{} bytes", payload.len());
    }
    // By name: several wait for it at once.
    let port = other.port().to_be_bytes();
    let named = |payload: &[u8]| [b"\0\0\0\x03\x09localhost", &port[..], payload].concat();
    entrance.send(flow, &[named(b"4"), named(b"5")]);
    for payload in [b"4", b"5"] {
        assert_eq!(entrance.receive(flow), with_header(other, payload));
    }
}

#[test]
fn only_those_who_were_sent_to_are_heard() {
    let server = DatagramServer::start("127.0.0.1:0", |socket, _, client| {
        let _ = socket.send_to(client.to_string().as_bytes(), client);
    });
    let mut entrance = Entrance::start(&["SERVER=socks,-in", "PERMIT=socks:127.0.0.1:*"]);
    let request = entrance.associate();
    let flow = BESIDES[0];
    entrance.come(flow, request, UDP);
    entrance.send(flow, &[with_header(server.address(), b"where am I?")]);
    let answer = entrance.receive(flow);
    let at = std::str::from_utf8(&answer[10..]).expect("an address");
    let at: SocketAddr = at.parse().expect("an address");
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    stranger.send_to(b"unasked for", at).expect("sent");
    entrance.send(flow, &[with_header(server.address(), b"and now?")]);
    assert_eq!(entrance.receive(flow), answer);
}

#[test]
fn what_is_not_permitted_or_not_there_ends_nothing() {
    let (echo, forbidden) = (DatagramServer::echo(), DatagramServer::echo_on("127.0.0.2:0"));
    let nobody = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let nobody = nobody.expect("an address");
    let mut entrance = Entrance::start(&["SERVER=socks,-in", "PERMIT=socks:127.0.0.1:*"]);
    let request = entrance.associate();
    let flow = BESIDES[0];
    entrance.come(flow, request, UDP);
    let mut fragment = with_header(echo.address(), b"x");
    fragment[2] = 1;
    let unknown = b"\0\0\0\x03\x0cnone.invalid\0\x35hello".to_vec();
    for bad in [
        with_header(forbidden.address(), b"x"),
        with_header(forbidden.address(), b"y"),
        with_header(nobody, b"x"),
        fragment,
        unknown,
        b"\0\0\0".to_vec(),
    ] {
        entrance.send(flow, &[bad]);
        entrance.send(flow, &[with_header(echo.address(), b"still here")]);
        assert_eq!(entrance.receive(flow), with_header(echo.address(), b"still here"));
    }
    assert_eq!(forbidden.came(), 0);
    let reason = entrance.exit.wait_for_reason("datagrams not passed on by the proxy");
    assert!(reason.contains("loopback"), "{reason}");
    // Once for the two that were not permitted, and perhaps for the name.
    assert!(entrance.exit.count("datagrams not passed on by the proxy") <= 2);
}

#[test]
fn flows_end_with_the_stream_that_asked_for_their_port() {
    for end in [Frame::new(kind::END, CONTROL, b""), Frame::new(kind::RESET, CONTROL, b"\0\x01")] {
        let mut entrance = Entrance::start(&["SERVER=socks,-in", "PERMIT=socks:127.0.0.1:*"]);
        let request = entrance.associate();
        entrance.come(BESIDES[0], request, UDP);
        entrance.peer.send(&end);
        let (_, reason) = entrance.reset_of(BESIDES[0]);
        assert!(reason.contains("has ended"), "{reason}");
        entrance.come(BESIDES[1], request, UDP);
        assert_eq!(entrance.reset_of(BESIDES[1]).0, 2);
        entrance.peer.check_alive(b"after it");
    }
}

#[test]
fn who_comes_by_no_port_or_one_of_the_other_kind_is_refused() {
    let mut entrance = Entrance::start(&["SERVER=socks,-in", "PERMIT=socks:127.0.0.1:*"]);
    let request = entrance.associate();
    let wrong = (u32::from_be_bytes(request) ^ 1).to_be_bytes();
    let [first, second, third] = BESIDES;
    entrance.come(first, wrong, UDP);
    let (code, reason) = entrance.reset_of(first);
    assert!(code == 2 && reason.contains("closed"), "{code} {reason}");
    entrance.come(second, request, TCP);
    let (code, reason) = entrance.reset_of(second);
    assert!(code == 2 && reason.contains("other kind"), "{code} {reason}");
    let echo = DatagramServer::echo();
    entrance.come(third, request, UDP);
    entrance.send(third, &[with_header(echo.address(), b"x")]);
    assert_eq!(entrance.receive(third), with_header(echo.address(), b"x"));
}

#[test]
fn a_client_of_a_peer_without_ports_hears_no() {
    let mut entrance = Entrance::start_with(3, &["SERVER=socks,-in"]);
    entrance.open(&[&[5, 1, 0][..], &socks_request(3, v4("0.0.0.0:0".parse().unwrap()))].concat());
    let answer = entrance.peer.receive_data(CONTROL, 12);
    assert!(answer[..3] == [5, 0, 5] && answer[3] != 0, "{answer:?}");
    entrance.peer.check_alive(b"after it");
}

#[test]
fn a_socks_client_waits_for_a_connection_of_one_host_and_no_other() {
    let mut entrance = Entrance::start(&["SERVER=socks,-in", "PERMIT=socks:127.0.0.1:*"]);
    let from = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 20);
    entrance.open(&[&[5, 1, 0][..], &socks_request(2, from)].concat());
    let answer = entrance.peer.receive_data(CONTROL, 12);
    assert_eq!(answer[..10], [5, 0, 5, 0, 0, 1, 127, 0, 0, 1], "{answer:?}");
    let port = u16::from_be_bytes([answer[10], answer[11]]);
    let port = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    refused("127.0.0.2", port);
    let mut server = connect(port);
    let own = v4(server.local_addr().expect("an address"));
    let came = [&[5, 0, 0, 1, 127, 0, 0, 1][..], &own.port().to_be_bytes()].concat();
    assert_eq!(entrance.peer.receive_data(CONTROL, 10), came);
    // Nobody listens any more, and bytes pass.
    assert!(TcpStream::connect_timeout(&port, DEADLINE).is_err());
    server.write_all(b"from the server").expect("sent");
    assert_eq!(entrance.peer.receive_data(CONTROL, 15), b"from the server");
    entrance.say(b"from the client");
    entrance.peer.send(&Frame::new(kind::END, CONTROL, b""));
    let mut said = Vec::new();
    server.read_to_end(&mut said).expect("the client's end");
    assert_eq!(said, b"from the client");
}

/// A server of FTP that is ready, and then says what it is told to and tells what it hears.
struct Ftp {
    listener: TcpListener,
}

impl Ftp {
    fn start() -> Ftp {
        Ftp { listener: TcpListener::bind("127.0.0.1:0").expect("a listener") }
    }

    fn url(&self) -> String {
        format!("SERVER=ftp://{},-in", self.listener.local_addr().expect("an address"))
    }

    /// Its next client's connection, which has been greeted.
    fn accept(&self) -> TcpStream {
        let (stream, _) = self.listener.accept().expect("a client");
        let mut stream = bounded(stream);
        stream.write_all(b"220 ready\r\n").expect("sent");
        stream
    }
}

/// The next line.
fn line(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a line");
        line.extend(byte);
    }
    String::from_utf8(line).expect("text")
}

/// A port as FTP writes it.
fn commas(at: SocketAddrV4) -> String {
    let [a, b, c, d] = at.ip().octets();
    let [high, low] = at.port().to_be_bytes();
    format!("{a},{b},{c},{d},{high},{low}")
}

#[test]
fn a_connection_that_comes_by_a_port_is_led_to_the_server_and_outlives_the_stream() {
    let (ftp, data) = (Ftp::start(), Server::echo());
    let mut entrance = Entrance::start(&[&ftp.url()]);
    entrance.open(b"");
    let mut server = ftp.accept();
    assert_eq!(entrance.peer.receive_data(CONTROL, 11), b"220 ready\r\n");
    entrance.say(b"PASV\r\n");
    assert_eq!(line(&mut server), "PASV\r\n");
    write!(server, "227 Here ({}).\r\n", commas(v4(data.address()))).expect("sent");
    let request = entrance.asked(TCP);
    entrance.give(request);
    let frame = entrance.peer.receive_kind(kind::DATA);
    let reply = String::from_utf8_lossy(&frame.payload).into_owned();
    assert!(reply.starts_with("227 ") && reply.contains(&commas(PORT)), "{reply}");
    let [first, second, _] = BESIDES;
    entrance.come(first, request, TCP);
    entrance.peer.send(&Frame::new(kind::DATA, first, b"data"));
    assert_eq!(entrance.peer.receive_data(first, 4), b"data");
    // One connection, no more.
    entrance.come(second, request, TCP);
    assert_eq!(entrance.reset_of(second).0, 2);
    entrance.peer.send(&Frame::new(kind::RESET, CONTROL, b"\0\x01"));
    read_to_end_of(&mut server, DEADLINE);
    entrance.peer.send(&Frame::new(kind::DATA, first, b"more"));
    assert_eq!(entrance.peer.receive_data(first, 4), b"more");
    entrance.peer.send(&Frame::new(kind::END, first, b""));
    assert_eq!(entrance.peer.receive_kind(kind::END).stream, first);
}

#[test]
fn a_port_that_is_not_used_is_closed_with_the_next_and_with_the_stream() {
    let ftp = Ftp::start();
    let mut entrance = Entrance::start(&[&ftp.url()]);
    entrance.open(b"");
    let mut server = ftp.accept();
    let mut requests = Vec::new();
    for _ in 0..6 {
        entrance.say(b"EPSV\r\n");
        assert_eq!(line(&mut server), "EPSV\r\n");
        server.write_all(b"229 Here (|||2000|)\r\n").expect("sent");
        requests.push(entrance.asked(TCP));
        entrance.give(requests[requests.len() - 1]);
    }
    entrance.say(b"QUIT\r\n");
    assert_eq!(line(&mut server), "QUIT\r\n");
    drop(server);
    assert_eq!(entrance.peer.receive_kind(UNLISTEN).payload, requests[5]);
}

#[test]
fn a_server_that_connects_here_is_led_to_the_client_and_a_stranger_is_not() {
    let ftp = Ftp::start();
    let mut entrance = Entrance::start(&[&ftp.url()]);
    let mut head = OPEN_HEAD;
    head[4..24].copy_from_slice(&address(SocketAddrV4::new(Ipv4Addr::new(10, 1, 1, 1), 40_000)));
    entrance.peer.send(&Frame::new(kind::OPEN, CONTROL, &head));
    let mut server = ftp.accept();
    entrance.say(b"PORT 10,1,1,1,200,1\r\n");
    let port = line(&mut server);
    let fields: Vec<u8> = port["PORT ".len()..].trim().split(',').flat_map(str::parse).collect();
    assert_eq!(fields[..4], [127, 0, 0, 1], "{port}");
    let port = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::from_be_bytes([fields[4], fields[5]])));
    server.write_all(b"200 PORT is well\r\n").expect("sent");
    refused("127.0.0.2", port);
    let mut data = connect(port);
    let frame = entrance.peer.receive_kind(BESIDE);
    assert_eq!(frame.flags, SENDERS);
    assert_eq!(frame.payload[..4], [0, 2, 200, 1], "TCP, a call, the port");
    let own = v4(data.local_addr().expect("an address"));
    assert_eq!(frame.payload[4..24], address(own));
    assert_eq!(frame.payload[44..], [CONTROL.to_be_bytes(), [0; 4], [0; 4]].concat());
    let call = frame.stream;
    data.write_all(b"a file").expect("sent");
    let frame = entrance.peer.receive_kind(kind::DATA);
    assert_eq!((frame.stream, frame.flags, &frame.payload[..]), (call, SENDERS, &b"a file"[..]));
    assert!(TcpStream::connect_timeout(&port, DEADLINE).is_err());
    // The client is not there.
    let reset = Frame { flags: 0, ..Frame::new(kind::RESET, call, b"\0\x02nobody listens") };
    entrance.peer.send(&reset);
    assert_eq!(read_to_end_of(&mut data, DEADLINE), Ended::Reset);
}
