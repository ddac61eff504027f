//! The PROXY header: written by exits, into a real server's log, and taken at entrances.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use socket2::SockRef;
use sockmux_uring::limits::LOG_REFUSALS_BURST;

use crate::testkit::net::{Ended, bounded, check_echo, connect, read_to_end_of, refused};
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::Server;
use crate::testkit::services::nginx;
use crate::testkit::skip::needs;
use crate::testkit::tunnel::Tunnel;
use crate::testkit::{DEADLINE, eventually};

/// Version 2, command PROXY, for TCP over IPv4.
fn binary(source: [u8; 4], port: u16, destination: [u8; 4], destination_port: u16) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(source);
    header.extend(destination);
    header.extend(port.to_be_bytes());
    header.extend(destination_port.to_be_bytes());
    header
}

/// A server that first sends the header of version 1 that it received, as a line, and then echoes.
fn says_header() -> Server {
    Server::start("127.0.0.1:0", |mut stream| {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut header = String::new();
        reader.read_line(&mut header)?;
        stream.write_all(header.as_bytes())?;
        let mut rest = [0; 1000];
        loop {
            match reader.read(&mut rest)? {
                0 => return Ok(()),
                got => stream.write_all(&rest[..got])?,
            }
        }
    })
}

/// Reads a line, byte by byte, so that nothing behind it is taken.
fn line(stream: &mut impl Read) -> String {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while byte != *b"\n" {
        stream.read_exact(&mut byte).expect("a line");
        line.push(byte[0]);
    }
    String::from_utf8(line).expect("text").trim_end().to_owned()
}

/// An entrance that accepts headers, an exit that writes them by the words `exit`, before [`says_header`].
fn passing_on(protocol: Protocol, exit: &str) -> (Tunnel, Server) {
    let server = says_header();
    let exit = format!("DEST={}{exit}", server.address());
    let tunnel =
        Tunnel::start(protocol, &[exit], &["PORT=127.0.0.1:0?proxy=accept", "RELIABLE=*", "-v"]);
    (tunnel, server)
}

fn a_real_server_logs_the_client(protocol: Protocol) {
    needs!("nginx");
    let server = nginx::start_behind_headers();
    let log = server.dir().join("access.log");
    for (nth, version) in ["v1", "v2"].iter().enumerate() {
        let exits = [
            format!("DEST={}?proxy={version}", server.address()),
            format!("SERVER=http://{}?proxy={version},-in", server.address()),
        ];
        let tunnel = Tunnel::start(protocol, &[&exits[nth]], &["PORT=127.0.0.1:0"]);
        let mut stream = connect(tunnel.entrance());
        let own = stream.local_addr().expect("bound");
        stream.write_all(b"GET /nothing HTTP/1.0\r\n\r\n").expect("sent");
        assert_eq!(line(&mut stream), "HTTP/1.1 404 Not Found");
        let wanted = format!("127.0.0.1 {} 127.0.0.1 {}", own.port(), tunnel.entrance().port());
        let logged = || std::fs::read_to_string(&log).unwrap_or_default();
        assert!(
            eventually(DEADLINE, || logged().lines().any(|line| line == wanted)),
            "no `{wanted}` in\n{}",
            logged()
        );
    }
}

fn what_a_client_says_is_what_the_server_is_told(protocol: Protocol) {
    let (tunnel, _server) = passing_on(protocol, "?proxy=v1");
    let entrance = tunnel.entrance();
    let port = entrance.port();
    let passed = format!("PROXY TCP4 192.0.2.7 127.0.0.1 4711 {port}");
    let line_header = "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
    for header in [line_header.as_bytes().to_vec(), binary([192, 0, 2, 7], 4711, [9; 4], 443)] {
        // With the first data behind it, in one piece.
        let mut stream = connect(entrance);
        stream.write_all(&[&header[..], b"hello\n"].concat()).expect("sent");
        assert_eq!((line(&mut stream), line(&mut stream)), (passed.clone(), "hello".to_owned()));
        check_echo(&stream, 1, 200_000);
        stream.shutdown(Shutdown::Write).expect("sending can end");
        assert_eq!(read_to_end_of(&mut stream, DEADLINE), Ended::Eof);
        // Byte by byte.
        let mut stream = connect(entrance);
        for byte in header {
            stream.write_all(&[byte]).expect("sent");
        }
        assert_eq!(line(&mut stream), passed);
        check_echo(&stream, 2, 10_000);
    }
    // IPv6 for both, as soon as one is.
    let mut stream = connect(entrance);
    stream.write_all(b"PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n").expect("sent");
    assert_eq!(line(&mut stream), format!("PROXY TCP6 2001:db8::7 ::ffff:127.0.0.1 1 {port}"));
    // The sender's own connection, and one of an unknown client.
    let mut stream = connect(entrance);
    let own = stream.local_addr().expect("bound").port();
    stream.write_all(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0").expect("sent");
    assert_eq!(line(&mut stream), format!("PROXY TCP4 127.0.0.1 127.0.0.1 {own} {port}"));
    let mut stream = connect(entrance);
    stream.write_all(b"PROXY UNKNOWN\r\n").expect("sent");
    assert_eq!(line(&mut stream), "PROXY UNKNOWN");
}

fn host_lists_see_the_address_of_the_header(protocol: Protocol) {
    let (tunnel, _server) = passing_on(protocol, "?proxy=v1:192.0.2.0/24");
    let ask = |source: &str| {
        let mut stream = connect(tunnel.entrance());
        write!(stream, "PROXY {source}\r\n").expect("sent");
        stream
    };
    line(&mut ask("TCP4 192.0.2.7 198.51.100.1 1 2"));
    for (source, client) in
        [("TCP4 192.0.3.7 198.51.100.1 1 2", "192.0.3.7"), ("UNKNOWN", "0.0.0.0")]
    {
        assert_eq!(read_to_end_of(&mut ask(source), DEADLINE), Ended::Reset);
        tunnel.receptor.wait_for_event("a refusal", 1, |event| {
            let reason = event["reason"].as_str().unwrap_or("");
            reason.starts_with(&format!("no exit for client {client} "))
        });
    }
}

fn who_may_connect_is_asked_of_the_address_in_the_header(protocol: Protocol) {
    let server = Server::echo();
    // The address that this test connects from is not admitted by itself.
    let tunnel = Tunnel::start(
        protocol,
        &[format!("DEST={}", server.address())],
        &["PORT=127.0.0.1:0?proxy=accept", "RELIABLE=192.0.2.0/24", "MAXIMA=conpch:1"],
    );
    let said = |header: &[u8]| {
        let mut stream = connect(tunnel.entrance());
        stream.write_all(header).expect("sent");
        stream
    };
    let refused_nth = |nth: usize, header: &[u8], wanted: &str| {
        assert_eq!(read_to_end_of(&mut said(header), DEADLINE), Ended::Reset);
        let event = tunnel.connector.wait_for_nth("stream refused", nth);
        assert!(event["reason"].as_str().unwrap_or("").contains(wanted), "{event}");
    };
    // `LOCAL`: the sender's own connection.
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    let first = said(b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n");
    check_echo(&first, 1, 1000);
    refused_nth(1, b"PROXY TCP4 192.0.2.7 198.51.100.1 3 2\r\n", "MAXIMA=conpch");
    check_echo(&said(b"PROXY TCP4 192.0.2.8 198.51.100.1 1 2\r\n"), 2, 1000);
    refused_nth(2, b"PROXY TCP4 203.0.113.7 198.51.100.1 1 2\r\n", "RELIABLE=");
    refused_nth(3, b"PROXY UNKNOWN\r\n", "RELIABLE=");
    refused_nth(4, local, "RELIABLE=");
    assert_eq!(server.served(), 2);
}

in_both_protocols!(
    a_real_server_logs_the_client,
    what_a_client_says_is_what_the_server_is_told,
    host_lists_see_the_address_of_the_header,
    who_may_connect_is_asked_of_the_address_in_the_header,
);

#[test]
fn whoever_sends_no_header_is_reset() {
    let (mut tunnel, server) = passing_on(Protocol::V1, "?proxy=v1");
    let entrance = tunnel.entrance();
    let wrong: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0b12345678901",
    ];
    for bytes in wrong {
        let mut stream = connect(entrance);
        stream.write_all(bytes).expect("sent");
        assert_eq!(read_to_end_of(&mut stream, DEADLINE), Ended::Reset, "{bytes:x?}");
    }
    let own = tunnel.connector.wait_for_nth("stream refused", wrong.len());
    assert!(own["reason"].as_str().unwrap_or("").starts_with("no PROXY header: "), "{own}");
    // A check whether the port is open is not worth a line.
    drop(connect(entrance));
    tunnel.connector.wait_for("client gone before its PROXY header");
    assert_eq!(tunnel.connector.count("stream refused"), wrong.len());
    // A flood of them does not fill the log: those that were kept back are counted.
    let more = 3 * LOG_REFUSALS_BURST as usize;
    for _ in 0..more {
        let mut stream = connect(entrance);
        stream.write_all(b"nonsense").expect("sent");
        assert_eq!(read_to_end_of(&mut stream, DEADLINE), Ended::Reset);
    }
    assert_eq!(server.served(), 0);
    tunnel.connector.terminate();
    assert_eq!(tunnel.connector.wait_exit(DEADLINE).code(), Some(0));
    let counted = tunnel.connector.wait_for("more streams refused, not logged one by one");
    let logged = tunnel.connector.count("stream refused");
    assert!(logged < more, "{logged}");
    let counted = counted["count"].as_u64().expect("a count") as usize;
    assert_eq!(logged + counted, wrong.len() + more);
}

#[test]
fn a_hundred_half_said_headers_do_not_hold_up_others() {
    let (mut tunnel, server) = passing_on(Protocol::V1, "?proxy=v1");
    let entrance = tunnel.entrance();
    let before = tunnel.connector.sockets();
    let mut half: Vec<TcpStream> = (0..100).map(|_| connect(entrance)).collect();
    for stream in half.iter_mut().skip(50) {
        stream.write_all(b"PROXY TCP4 192.0.2.7 ").expect("sent");
    }
    let mut stream = connect(entrance);
    stream.write_all(b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n").expect("sent");
    line(&mut stream);
    check_echo(&stream, 3, 1_000_000);
    assert_eq!(server.served(), 1);
    // They may still go on.
    let mut last = half.pop().expect("a hundred");
    last.write_all(b"198.51.100.1 1 2\r\n").expect("sent");
    line(&mut last);
    drop((half, last, stream));
    assert!(eventually(DEADLINE, || tunnel.connector.sockets() == before));
    // And the drain does not wait for them.
    let mut waiting = connect(entrance);
    waiting.write_all(b"PROXY").expect("sent");
    assert!(eventually(DEADLINE, || tunnel.connector.sockets() > before));
    tunnel.connector.terminate();
    assert_eq!(read_to_end_of(&mut waiting, DEADLINE), Ended::Reset);
    assert!(tunnel.connector.wait_exit(DEADLINE).success());
}

#[test]
fn who_is_too_slow_with_its_header_is_reset() {
    let server = says_header();
    let exit = format!("DEST={}?proxy=v1", server.address());
    let entrance = ["PORT=127.0.0.1:0?proxy=accept", "TIMEOUT=ask:2"];
    let tunnel = Tunnel::start(Protocol::V1, &[exit], &entrance);
    let mut stream = connect(tunnel.entrance());
    stream.write_all(b"PROXY TCP4 ").expect("sent");
    let began = Instant::now();
    let patience = Duration::from_secs(2);
    assert_eq!(read_to_end_of(&mut stream, patience + DEADLINE), Ended::Reset);
    assert!(began.elapsed() > patience / 2);
    let reason = tunnel.connector.wait_for_reason("stream refused");
    assert_eq!(reason, "no PROXY header within 2 s (TIMEOUT=ask)");
    assert_eq!(server.served(), 0);
}

#[test]
fn unix_sockets_take_and_give_them_too() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| dir.path().join(name);
    let listener = std::os::unix::net::UnixListener::bind(path("exit")).expect("a socket");
    let tunnel = Tunnel::start(
        Protocol::V1,
        &[format!("DEST=unix:{}?proxy=v1", path("exit").display())],
        &[
            format!("PORT=unix:{}?proxy=accept", path("said").display()),
            format!("PORT=unix:{}", path("plain").display()),
            "PORT=127.0.0.1:0?proxy=accept".to_owned(),
            "RELIABLE=*".to_owned(),
        ],
    );
    let told = |said: &[u8], mut client: Box<dyn ReadWrite>| {
        client.write_all(said).expect("sent");
        let (mut server, _) = listener.accept().expect("a stream");
        server.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
        let told = line(&mut server);
        server.write_all(b"through\n").expect("sent");
        assert_eq!(line(&mut client), "through");
        told
    };
    let unix = |name: &str| Box::new(UnixStream::connect(path(name)).expect("connected"));
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
    // Whose port the entrance has is not known where it has none.
    assert_eq!(told(header, unix("said")), "PROXY UNKNOWN");
    assert_eq!(told(b"", unix("plain")), "PROXY UNKNOWN");
    let entrance = tcp_entrance(&tunnel);
    let tcp = Box::new(connect(entrance));
    let wanted = format!("PROXY TCP4 192.0.2.7 127.0.0.1 4711 {}", entrance.port());
    assert_eq!(told(header, tcp), wanted);
}

/// The entrance that has an address.
fn tcp_entrance(tunnel: &Tunnel) -> SocketAddr {
    tunnel.connector.nth_address_of("entrance listening", 1)
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

#[test]
fn the_header_comes_before_everything_else() {
    // Much data was sent before the server was reached.
    let server = says_header();
    let tunnel = Tunnel::start(
        Protocol::V1,
        &[format!("DEST={}?proxy=v1", server.address())],
        &["PORT=127.0.0.1:0"],
    );
    let mut stream = bounded(TcpStream::connect(tunnel.entrance()).expect("connected"));
    let own = stream.local_addr().expect("bound").port();
    stream.write_all(&[b'x'; 100]).expect("sent");
    SockRef::from(&stream).send_out_of_band(b"!").expect("sent");
    stream.write_all(b"\n").expect("sent");
    let header = line(&mut stream);
    assert_eq!(
        header,
        format!("PROXY TCP4 127.0.0.1 127.0.0.1 {own} {}", tunnel.entrance().port())
    );
    assert!(line(&mut stream).starts_with(&"x".repeat(100)));
}

#[test]
fn exits_at_the_port_of_the_entrance() {
    // The server has the entrance's number on another address, and one so far away.
    let servers = [Server::named("same"), Server::named("higher")];
    let [same, higher] = servers.each_ref().map(|server| server.address().port());
    let offset = i32::from(higher) - i32::from(same);
    for (port, wanted) in [(String::from("-"), "same"), (format!("{offset:+}"), "higher")] {
        let tunnel = Tunnel::start(
            Protocol::V1,
            &[format!("DEST=127.0.0.1:{port}")],
            &[format!("PORT=127.0.0.2:{same}")],
        );
        assert_eq!(line(&mut connect(tunnel.entrance())), wanted);
    }
    let tunnel = Tunnel::start(Protocol::V1, &["DEST=127.0.0.1:+65535"], &["PORT=127.0.0.1:0"]);
    refused("127.0.0.1", tunnel.entrance());
    let reason = tunnel.receptor.wait_for_reason("stream refused");
    assert!(reason.contains("and +65535 is none"), "{reason}");
}
