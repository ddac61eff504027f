//! SOCKS besides CONNECT: datagrams, and connections from the other side.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::testkit::datagrams::{Client, DatagramServer};
use crate::testkit::net::{
    Ended, check_echo, connect, connect_from, read_to_end_of, refused, reset,
};
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::Server;
use crate::testkit::services::{dnsmasq, open_ports};
use crate::testkit::skip::needs;
use crate::testkit::tunnel::Tunnel;
use crate::testkit::{DEADLINE, eventually};

in_both_protocols!(bind_by_socks_5, bind_by_socks_4, bind_needs_a_host_that_may_be_reached);

/// Everything here runs on loopback, which has to be permitted.
const PERMIT: &str = "PERMIT=socks:127.0.0.0/8:*";

/// How long a test waits for data that must not arrive.
const NOTHING_WITHIN: Duration = Duration::from_millis(200);

fn start(protocol: Protocol, words: &[&str]) -> Tunnel {
    let exit = [&["SERVER=socks,-in"], words].concat();
    Tunnel::start(protocol, &exit, &["PORT=127.0.0.1:0"])
}

/// The answer to each version's request for a server: the code, or `None` if the connection is closed.
fn answers_of(tunnel: &Tunnel, server: SocketAddr) -> [Option<u8>; 2] {
    let mut four = connect(tunnel.entrance());
    let place = &address(server)[1..];
    four.write_all(&[&[4, 1], &place[4..], &place[..4], &[0]].concat()).expect("sent");
    let mut said = [0; 8];
    let four = four.read_exact(&mut said).ok().map(|()| said[1]);
    let mut five = connect(tunnel.entrance());
    five.write_all(&[5, 1, 0]).expect("sent");
    let mut method = [0; 2];
    five.read_exact(&mut method).expect("a method, or that there is none");
    if method == [5, 0xff] {
        return [four, None];
    }
    five.write_all(&[&[5, 1, 0], &address(server)[..]].concat()).expect("sent");
    [four, Some(answer(&mut five).0)]
}

/// `socks4` and `socks5` mean one version each, at exits and in `PERMIT=`, and `socks` both.
#[test]
fn each_word_is_its_own_version() {
    let server = Server::echo();
    let (granted, rejected) = (90, 91);
    for (exit, permit, wanted) in [
        ("socks", "socks", [Some(granted), Some(0)]),
        ("socks4", "*", [Some(granted), None]),
        ("socks4", "socks", [Some(granted), None]),
        ("socks5", "*", [Some(rejected), Some(0)]),
        ("socks", "socks4", [Some(granted), Some(2)]),
        ("socks", "socks5", [Some(rejected), Some(0)]),
        ("socks5", "socks4,http", [Some(rejected), Some(2)]),
    ] {
        let exit = format!("SERVER={exit},-in");
        let words = [exit, format!("PERMIT={permit}:127.0.0.0/8:*")];
        let tunnel = Tunnel::start(Protocol::V1, &words, &["PORT=127.0.0.1:0"]);
        assert_eq!(answers_of(&tunnel, server.address()), wanted, "{words:?}");
    }
    // Datagrams go by SOCKS 5.
    let words = ["SERVER=socks,-in", "PERMIT=socks5:127.0.0.1:*"];
    let tunnel = Tunnel::start(Protocol::V1, &words, &["PORT=127.0.0.1:0"]);
    let (_control, port) = associated(&tunnel);
    let (client, echo) = (Client::of(port), DatagramServer::echo());
    client.send(&with_header(&address(echo.address()), b"hello"));
    let answer = client.hears_within(DEADLINE).expect("an answer");
    assert_eq!(without_header(&answer), (echo.address(), &b"hello"[..]));
}

/// An IPv4 address and a port, as SOCKS 5 has them in requests, answers and before datagrams.
fn address(of: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(v4) = of else { panic!("an IPv4 address") };
    [&[1], &v4.ip().octets()[..], &v4.port().to_be_bytes()].concat()
}

/// A name and a port, as SOCKS 5 has them.
fn name(name: &str, port: u16) -> Vec<u8> {
    [&[3, name.len() as u8], name.as_bytes(), &port.to_be_bytes()].concat()
}

fn ipv4(octets: &[u8], port: &[u8]) -> SocketAddr {
    let octets: [u8; 4] = octets.try_into().expect("four octets");
    (Ipv4Addr::from(octets), u16::from_be_bytes(port.try_into().expect("two octets"))).into()
}

/// The next answer of SOCKS 5: its code, and the address in it.
fn answer(stream: &mut TcpStream) -> (u8, SocketAddr) {
    let mut said = [0; 10];
    stream.read_exact(&mut said).expect("an answer");
    assert_eq!((said[0], said[2], said[3]), (5, 0, 1), "{said:?}");
    (said[1], ipv4(&said[4..8], &said[8..]))
}

/// Sends the request `command` with its address, and returns the first answer.
fn ask(entrance: SocketAddr, command: u8, address: &[u8]) -> (TcpStream, (u8, SocketAddr)) {
    let mut stream = connect(entrance);
    let said = [&[5, 1, 0, 5, command, 0], address].concat();
    stream.write_all(&said).expect("sent");
    let mut method = [0; 2];
    stream.read_exact(&mut method).expect("a method");
    assert_eq!(method, [5, 0]);
    let first = answer(&mut stream);
    (stream, first)
}

/// The client does not name its source address.
fn associate(tunnel: &Tunnel) -> (TcpStream, (u8, SocketAddr)) {
    ask(tunnel.entrance(), 3, &address(SocketAddr::from(([0; 4], 0))))
}

/// A connection for as long as there is need for the port, which is open now.
fn associated(tunnel: &Tunnel) -> (TcpStream, SocketAddr) {
    let (control, (code, port)) = associate(tunnel);
    assert_eq!(code, 0);
    assert_eq!(port.ip(), tunnel.entrance().ip(), "where the client came in");
    (control, port)
}

/// A datagram for `address`.
fn with_header(address: &[u8], payload: &[u8]) -> Vec<u8> {
    [&[0, 0, 0], address, payload].concat()
}

/// Source and payload of a datagram.
fn without_header(datagram: &[u8]) -> (SocketAddr, &[u8]) {
    assert_eq!(datagram[..4], [0, 0, 0, 1], "{datagram:?}");
    (ipv4(&datagram[4..8], &datagram[8..10]), &datagram[10..])
}

/// A query for an address (RFC 1035), as a resolver sends it.
fn question(id: u16, name: &str) -> Vec<u8> {
    let mut question = id.to_be_bytes().to_vec();
    question.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        question.push(label.len() as u8);
        question.extend(label.as_bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    question
}

/// Number of the query, and the address in the answer.
fn found(answer: &[u8]) -> (u16, Ipv4Addr) {
    let number = |at: usize| u16::from_be_bytes([answer[at], answer[at + 1]]);
    assert_eq!((number(2) & 0x800f, number(6)), (0x8000, 1), "one answer, no error: {answer:?}");
    let address: [u8; 4] = *answer.last_chunk().expect("an address at its end");
    (number(0), address.into())
}

#[test]
fn each_question_is_answered_to_who_asked_it() {
    needs!("dnsmasq");
    const SOCKETS: u16 = 10;
    const QUESTIONS_EACH: u16 = 10;
    let told = |id: u16| (format!("q{id}.test"), Ipv4Addr::from(0x0a14_0000 + u32::from(id)));
    let server = dnsmasq::start((0..SOCKETS * QUESTIONS_EACH).map(told));
    let tunnel = start(Protocol::V1, &[PERMIT]);
    let (_control, port) = associated(&tunnel);
    let by_name = SocketAddr::from(([127, 0, 0, 1], server.address().port()));
    std::thread::scope(|scope| {
        for nth in 0..SOCKETS {
            let server = server.address();
            scope.spawn(move || {
                let client = Client::of(port);
                let mut open: HashMap<u16, (Vec<u8>, SocketAddr)> = (0..QUESTIONS_EACH)
                    .map(|question| question * SOCKETS + nth)
                    .map(|id| match id % 3 {
                        0 => (id, (name("localhost", server.port()), by_name)),
                        _ => (id, (address(server), server)),
                    })
                    .collect();
                let end = Instant::now() + DEADLINE;
                while !open.is_empty() {
                    assert!(Instant::now() < end, "not answered: {:?}", open.keys());
                    for (id, (address, _)) in &open {
                        client.send(&with_header(address, &question(*id, &told(*id).0)));
                    }
                    // Resolvers retry; both queries may be answered.
                    while let Some(datagram) = client.hears_within(Duration::from_millis(500)) {
                        let (from, said) = without_header(&datagram);
                        let (id, address) = found(said);
                        assert_eq!(id % SOCKETS, nth, "another's answer");
                        assert_eq!(address, told(id).1);
                        if let Some((_, server)) = open.remove(&id) {
                            assert_eq!(from, server);
                        }
                        if open.is_empty() {
                            break;
                        }
                    }
                }
            });
        }
    });
}

#[test]
fn pieces_and_strangers_datagrams_are_dropped() {
    let server = DatagramServer::echo();
    let tunnel = start(Protocol::V1, &[PERMIT]);
    let (_control, port) = associated(&tunnel);
    let header = address(server.address());
    let (client, stranger) = (Client::of(port), Client::from("127.0.0.2:0", port));
    for nth in 0..5 {
        stranger.send(&with_header(&header, b"a stranger's"));
        // Fragmentation is optional (RFC 1928, section 7), and not done here.
        let mut piece = with_header(&header, b"a piece");
        piece[2] = [1, 2, 0x7f, 0x80, 0xff][nth];
        client.send(&piece);
        client.send(&with_header(&[], b""));
        client.send(&[0; 3]);
        client.send(&with_header(&[3, 200, b'x'], b""));
    }
    for payload in [&b"whole"[..], b"", &[7; 1_300]] {
        client.send(&with_header(&header, payload));
        let got = client.receive();
        assert_eq!(without_header(&got), (server.address(), payload));
    }
    assert_eq!(stranger.hears_within(NOTHING_WITHIN), None);
    assert_eq!(server.came(), 3);
}

#[test]
fn only_who_was_asked_may_answer() {
    let (tell, asker) = mpsc::channel();
    let server = DatagramServer::start("127.0.0.1:0", move |socket, datagram, client| {
        let _ = tell.send(client);
        let _ = socket.send_to(datagram, client);
    });
    let other = DatagramServer::named("the other");
    let tunnel = start(Protocol::V1, &[PERMIT]);
    let (_control, port) = associated(&tunnel);
    let client = Client::of(port);
    client.send(&with_header(&address(server.address()), b"first"));
    assert_eq!(without_header(&client.receive()), (server.address(), &b"first"[..]));
    // The server saw the tunnel's socket there, to which no datagram was sent from here.
    let at = asker.recv_timeout(DEADLINE).expect("it was asked");
    Client::from("127.0.0.1:0", at).send(b"not asked for");
    assert_eq!(client.hears_within(NOTHING_WITHIN), None);
    // One socket sends to several.
    client.send(&with_header(&address(other.address()), b"second"));
    assert_eq!(without_header(&client.receive()), (other.address(), &b"the other"[..]));
}

#[test]
fn the_port_goes_with_its_connection() {
    needs!("ss");
    let server = DatagramServer::echo();
    let tunnel = start(Protocol::V1, &[PERMIT]);
    let ports = || [&tunnel.connector, &tunnel.receptor].map(|end| open_ports(end.pid(), "-u"));
    assert_eq!(ports(), [0, 0]);
    let (mut control, port) = associated(&tunnel);
    let (other_control, other_port) = associated(&tunnel);
    let datagram = with_header(&address(server.address()), b"here");
    for port in [port, other_port] {
        let client = Client::of(port);
        client.send(&datagram);
        without_header(&client.receive());
    }
    // Data on it has no meaning.
    control.write_all(b"hello").expect("sent");
    control.shutdown(std::net::Shutdown::Write).expect("half-closed");
    assert_eq!(read_to_end_of(&mut control, DEADLINE), Ended::Eof);
    assert!(eventually(DEADLINE, || ports()[0] == 1), "{:?}", ports());
    let client = Client::of(other_port);
    client.send(&datagram);
    without_header(&client.receive());
    drop(other_control);
    assert!(eventually(DEADLINE, || ports() == [0, 0]), "{:?}", ports());
}

#[test]
fn what_no_permit_names_is_not_sent_to() {
    let server = DatagramServer::echo();
    let tunnel = start(Protocol::V1, &["PERMIT=socks:127.0.0.9:*"]);
    let (_control, port) = associated(&tunnel);
    let client = Client::of(port);
    for header in [address(server.address()), name("localhost", server.address().port())] {
        client.send(&with_header(&header, b"anybody?"));
        assert_eq!(client.hears_within(NOTHING_WITHIN), None);
    }
    tunnel.receptor.wait_for_event("a datagram that was not permitted", 1, |event| {
        event["reason"].as_str().is_some_and(|reason| reason.contains("is loopback"))
    });
    assert_eq!(server.came(), 0);
}

#[test]
fn a_peer_that_opens_no_ports_is_no_association() {
    let tunnel = start(Protocol::V03, &[PERMIT]);
    let (mut control, (code, _)) = associate(&tunnel);
    assert!(matches!(code, 1 | 7), "a failure, or not supported: {code}");
    assert_eq!(read_to_end_of(&mut control, DEADLINE), Ended::Eof);
}

/// A server that knows the port connects to it, and the client echoes.
fn check_bound(
    mut client: TcpStream,
    port: SocketAddr,
    second: impl Fn(&mut TcpStream) -> SocketAddr,
) {
    refused("127.0.0.2", port);
    let mut server = connect_from("127.0.0.1", port).expect("it may");
    assert_eq!(second(&mut client), server.local_addr().expect("connected"));
    let mut early = [0; 5];
    server.read_exact(&mut early).expect("what the client said before");
    assert_eq!(&early, b"early");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut back = &client;
            let copied = std::io::copy(&mut &client, &mut back).expect("echoed");
            assert_eq!(copied, 1_000_000);
            client.shutdown(std::net::Shutdown::Write).expect("half-closed");
        });
        check_echo(&server, 120, 1_000_000);
        server.shutdown(std::net::Shutdown::Write).expect("half-closed");
        assert_eq!(read_to_end_of(&mut server, DEADLINE), Ended::Eof);
    });
    // It was for one connection.
    let again = TcpStream::connect(port).expect_err("it is closed");
    assert_eq!(again.kind(), std::io::ErrorKind::ConnectionRefused);
}

/// From where the server will connect.
const SERVERS_HOST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 21);

fn bind_by_socks_5(protocol: Protocol) {
    needs!("ss");
    let tunnel = start(protocol, &[PERMIT]);
    for host in [address(SERVERS_HOST), name("localhost", 21)] {
        let (mut client, (code, port)) = ask(tunnel.entrance(), 2, &host);
        assert_eq!(code, 0);
        client.write_all(b"early").expect("sent");
        check_bound(client, port, |client| {
            let (code, from) = answer(client);
            assert_eq!(code, 0);
            from
        });
    }
    assert_eq!(open_ports(tunnel.receptor.pid(), "-t"), 1);
}

/// The next answer of SOCKS 4: its code, and the address in it.
fn answer_4(stream: &mut TcpStream) -> (u8, SocketAddr) {
    let mut said = [0; 8];
    stream.read_exact(&mut said).expect("an answer");
    assert_eq!(said[0], 0, "{said:?}");
    (said[1], ipv4(&said[4..], &said[2..4]))
}

fn bind_by_socks_4(protocol: Protocol) {
    needs!("ss");
    const GRANTED: u8 = 0x5a;
    let tunnel = start(protocol, &[PERMIT]);
    let mut client = connect(tunnel.entrance());
    client.write_all(b"\x04\x02\x00\x15\x7f\x00\x00\x01me\0early").expect("sent");
    let (code, port) = answer_4(&mut client);
    assert_eq!(code, GRANTED);
    check_bound(client, port, |client| {
        let (code, from) = answer_4(client);
        assert_eq!(code, GRANTED);
        from
    });
    // A client that breaks off takes its port with it.
    let mut client = connect(tunnel.entrance());
    client.write_all(b"\x04\x02\x00\x15\x7f\x00\x00\x01\0").expect("sent");
    assert_eq!(answer_4(&mut client).0, GRANTED);
    let ports = || open_ports(tunnel.receptor.pid(), "-t");
    assert_eq!(ports(), 2);
    reset(client);
    assert!(eventually(DEADLINE, || ports() == 1), "{} ports", ports());
}

fn bind_needs_a_host_that_may_be_reached(protocol: Protocol) {
    needs!("ss");
    const NOT_ALLOWED: u8 = 2;
    const UNREACHABLE: u8 = 4;
    let tunnel = start(protocol, &["PERMIT=socks:127.0.0.9:*"]);
    for (host, wanted) in [
        (address(SocketAddr::from(([0; 4], 0))), NOT_ALLOWED),
        (address(SERVERS_HOST), NOT_ALLOWED),
        (name("no-such-host.invalid", 21), UNREACHABLE),
    ] {
        let (mut client, (code, _)) = ask(tunnel.entrance(), 2, &host);
        assert_eq!(code, wanted, "{host:?}");
        assert_eq!(read_to_end_of(&mut client, DEADLINE), Ended::Eof);
    }
    assert_eq!(open_ports(tunnel.receptor.pid(), "-t"), 1);
}
