//! Exits that request ports of the other end, which is played by hand, or listen themselves: the
//! destinations of the connections to them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::testkit::DEADLINE;
use crate::testkit::entrance::{BESIDES, CONTROL, Entrance, PORT, TCP, address, socks_request, v4};
use crate::testkit::net::{Ended, bounded, connect, read_to_end_of, refused};
use crate::testkit::peer_v1::{Frame, OPEN_HEAD, SENDERS, kind};
use crate::testkit::servers::Server;

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
    // The port is closed, and bytes pass.
    assert!(TcpStream::connect_timeout(&port, DEADLINE).is_err());
    server.write_all(b"from the server").expect("sent");
    assert_eq!(entrance.peer.receive_data(CONTROL, 15), b"from the server");
    entrance.say(b"from the client");
    entrance.peer.send(&Frame::new(kind::END, CONTROL, b""));
    let mut said = Vec::new();
    server.read_to_end(&mut said).expect("the client's end");
    assert_eq!(said, b"from the client");
}

/// An FTP server that is scripted by the test.
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

/// The control connection of a long transfer is silent meanwhile.
#[test]
fn a_control_connection_is_not_silent_while_its_data_comes() {
    let (ftp, data) = (Ftp::start(), Server::echo());
    let mut entrance = Entrance::start(&[&ftp.url(), "TIMEOUT=io:1"]);
    entrance.open(b"");
    let mut server = ftp.accept();
    assert_eq!(entrance.peer.receive_data(CONTROL, 11), b"220 ready\r\n");
    entrance.say(b"PASV\r\n");
    assert_eq!(line(&mut server), "PASV\r\n");
    write!(server, "227 Here ({}).\r\n", commas(v4(data.address()))).expect("sent");
    let request = entrance.asked(TCP);
    entrance.give(request);
    assert_eq!(entrance.peer.receive_kind(kind::DATA).stream, CONTROL);
    entrance.come(BESIDES[0], request, TCP);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        entrance.peer.send(&Frame::new(kind::DATA, BESIDES[0], b"data"));
        assert_eq!(entrance.peer.receive_data(BESIDES[0], 4), b"data");
        // A slow transfer, and no more than the peer's credit.
        std::thread::sleep(Duration::from_millis(50));
    }
    entrance.say(b"NOOP\r\n");
    assert_eq!(line(&mut server), "NOOP\r\n");
    // Then both are, and end.
    let mut ended = [0; 2].map(|_| entrance.peer.receive_kind(kind::RESET).stream);
    ended.sort_unstable();
    assert_eq!(ended, [CONTROL, BESIDES[0]]);
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
    assert_eq!(entrance.peer.receive_kind(kind::UNLISTEN).payload, requests[5]);
}

#[test]
fn a_server_that_connects_here_is_led_to_the_client_and_a_stranger_is_not() {
    let ftp = Ftp::start();
    let mut entrance = Entrance::start(&[&ftp.url()]);
    let mut head = OPEN_HEAD;
    head[4..24].copy_from_slice(&address(SocketAddrV4::new(Ipv4Addr::new(10, 1, 1, 1), 40_000)));
    entrance.peer.send(&Frame::new(kind::OPEN, CONTROL, &head));
    let mut server = ftp.accept();
    assert_eq!(entrance.peer.receive_data(CONTROL, 11), b"220 ready\r\n");
    entrance.say(b"PORT 10,1,1,1,200,1\r\n");
    let port = line(&mut server);
    let fields: Vec<u8> = port["PORT ".len()..].trim().split(',').flat_map(str::parse).collect();
    assert_eq!(fields[..4], [127, 0, 0, 1], "{port}");
    let port = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::from_be_bytes([fields[4], fields[5]])));
    server.write_all(b"200 PORT is well\r\n").expect("sent");
    assert_eq!(entrance.peer.receive_data(CONTROL, 18), b"200 PORT is well\r\n");
    refused("127.0.0.2", port);
    let mut data = connect(port);
    let frame = entrance.peer.receive_kind(kind::BESIDE);
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

/// A host named by a client must not lead it to services that are only this machine's.
#[test]
fn a_server_that_a_client_has_named_does_not_lead_to_this_relays_ports() {
    let ftp = Ftp::start();
    let mut entrance = Entrance::start(&["SERVER=ftp,-in", "PERMIT=ftp:127.0.0.1:*"]);
    entrance.open(b"");
    entrance.peer.receive_kind(kind::DATA);
    let at = ftp.listener.local_addr().expect("an address");
    entrance.say(format!("USER me@{at}\r\n").as_bytes());
    let mut server = ftp.accept();
    assert_eq!(line(&mut server), "USER me\r\n");
    server.write_all(b"230 in\r\n").expect("sent");
    entrance.peer.receive_kind(kind::DATA);
    let (data, receptor) = (Server::echo(), entrance.exit.address_of("receptor listening"));
    for (at, code) in [(receptor, "425"), (data.address(), "227")] {
        entrance.say(b"PASV\r\n");
        assert_eq!(line(&mut server), "PASV\r\n");
        write!(server, "227 Here ({}).\r\n", commas(v4(at))).expect("sent");
        if code == "227" {
            let request = entrance.asked(TCP);
            entrance.give(request);
        }
        let reply = entrance.peer.receive_kind(kind::DATA).payload;
        assert!(reply.starts_with(code.as_bytes()), "{}", String::from_utf8_lossy(&reply));
    }
}
