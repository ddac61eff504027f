//! Proxies without a tunnel (`-P8080 SERVER=http`): the process is its own peer.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use crate::testkit::datagrams::{Client, DatagramServer};
use crate::testkit::net::{
    Ended, bounded, check_echo, connect, connect_from, free_port, read_to_end_of, refused, reset,
    send_until_blocked,
};
use crate::testkit::program::Program;
use crate::testkit::servers::{Exchange, Server};
use crate::testkit::services::vsftpd::{Ftpd, USER};
use crate::testkit::services::{self, new_dir, pattern_file, program, sha256};
use crate::testkit::skip::needs;
use crate::testkit::{DEADLINE, eventually};

/// Everything here runs on loopback, which has to be permitted.
const PERMIT: &str = "PERMIT=*:127.0.0.0/8:*";

/// The process, and where its clients come in.
fn start(words: &[&str]) -> (Program, SocketAddr) {
    let relay = Program::start(&[&["-P127.0.0.1:0", "-vv"], words].concat());
    let entrance = relay.address_of("entrance listening");
    (relay, entrance)
}

fn ipv4(address: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(v4) = address else { panic!("an IPv4 address") };
    [&v4.ip().octets()[..], &v4.port().to_be_bytes()].concat()
}

/// Asks SOCKS 5 for this by this command: the connection, and the code of the answer with the
/// address in it.
fn ask(client: TcpStream, command: u8, address: SocketAddr) -> (TcpStream, u8, SocketAddr) {
    let mut client = client;
    let said = [&[5, 1, 0, 5, command, 0, 1], &ipv4(address)[..]].concat();
    client.write_all(&said).expect("sent");
    let mut answer = [0; 12];
    client.read_exact(&mut answer).expect("an answer");
    assert_eq!((&answer[..3], answer[5]), (&[5, 0, 5][..], 1), "{answer:?}");
    let ip: [u8; 4] = answer[6..10].try_into().expect("four octets");
    (client, answer[3], (ip, u16::from_be_bytes([answer[10], answer[11]])).into())
}

/// A connection to `server` by SOCKS 5.
fn by_socks(entrance: SocketAddr, server: SocketAddr) -> TcpStream {
    let (client, code, _) = ask(connect(entrance), 1, server);
    assert_eq!(code, 0);
    client
}

/// A connection to `server` by CONNECT of HTTP.
fn by_http(entrance: SocketAddr, server: SocketAddr) -> TcpStream {
    let mut client = connect(entrance);
    write!(client, "CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n\r\n").expect("sent");
    let answer = b"HTTP/1.1 200 Connection established\r\n\r\n";
    let mut said = vec![0; answer.len()];
    client.read_exact(&mut said).expect("an answer");
    assert_eq!(said, answer);
    client
}

/// A connection to `server` by the prompt of telnet.
fn by_telnet(entrance: SocketAddr, server: SocketAddr) -> TcpStream {
    let mut client = connect(entrance);
    write!(client, "{} {}\r\n", server.ip(), server.port()).expect("sent");
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains("onnected to") || said.last() != Some(&b'\n') {
        let mut byte = [0];
        client.read_exact(&mut byte).expect("the proxy says how far it is");
        said.push(byte[0]);
    }
    client
}

type By = fn(SocketAddr, SocketAddr) -> TcpStream;

const EVERY: [(&str, By); 4] = [
    ("SERVER=socks", by_socks),
    ("SERVER=socks5", by_socks),
    ("SERVER=http", by_http),
    ("SERVER=telnet", by_telnet),
];

#[test]
fn each_proxy_leads_to_where_it_is_asked_to() {
    let server = Server::echo();
    for (proxy, by) in EVERY {
        let (relay, entrance) = start(&[proxy, PERMIT]);
        let stream = by(entrance, server.address());
        check_echo(&stream, 1, 300_000);
        // Its client and its server are a pair by now, as those of a plain relay.
        relay.wait_for("client and server are joined");
        check_echo(&stream, 2, 3_000_000);
        stream.shutdown(Shutdown::Write).expect("half-closed");
        let mut stream = stream;
        assert_eq!(read_to_end_of(&mut stream, DEADLINE), Ended::Eof, "{proxy}");
    }
}

/// Several proxies, each at its port; and one whole address after the other by HTTP, which never
/// ends its conversation.
#[test]
fn several_proxies_and_requests_for_whole_addresses() {
    needs!("curl", "nginx");
    let server = services::nginx::start();
    let file = server.dir().join("www/file");
    pattern_file(&file, 7, 10_000_000);
    let (http, socks) = (free_port([127, 0, 0, 8].into()), free_port([127, 0, 0, 8].into()));
    let listen = format!("-P{http},{socks}");
    let named = [(http, "http"), (socks, "socks")]
        .map(|(at, proxy)| format!("SERVER={proxy}:-:-P{}", at.port()));
    let mut relay = Program::start(&[&listen, &named[0], &named[1], PERMIT]);
    relay.wait_for_nth("entrance listening", 2);
    let got = new_dir();
    let url = format!("http://{}/file", server.address());
    for (proxy, times) in [(format!("http://{http}"), 3), (format!("socks5://{socks}"), 1)] {
        let mut curl = Command::new(program("curl"));
        curl.args(["-q", "-sS", "--fail", "--noproxy", "", "-x", &proxy]);
        for nth in 0..times {
            curl.arg("-o").arg(got.path().join(nth.to_string())).arg(&url);
        }
        services::run(&mut curl);
        for nth in 0..times {
            assert_eq!(sha256(&got.path().join(nth.to_string())), sha256(&file), "{proxy} {nth}");
        }
    }
    // The log does not mention the tunnel inside.
    relay.terminate();
    assert_eq!(relay.wait_exit(DEADLINE).code(), Some(0));
    let told = relay.messages();
    let wanted =
        ["engine ready", "entrance listening", "entrance listening", "draining", "stopped"];
    let since = told.iter().position(|message| message == "engine ready").expect("it started");
    assert_eq!(told[since..], wanted);
}

#[test]
fn many_at_once_and_bulk_both_ways() {
    let server = Server::exchange();
    let (mut relay, entrance) = start(&["SERVER=socks", PERMIT]);
    std::thread::scope(|scope| {
        for seed in 0..100 {
            let at = server.address();
            scope.spawn(move || {
                let asked = Exchange { seed, up_bytes: 400_000, down_bytes: 400_000 };
                let stream = by_socks(entrance, at);
                asked.ask(&stream);
                asked.finish(&stream);
            });
        }
    });
    relay.terminate();
    assert_eq!(relay.wait_exit(DEADLINE).code(), Some(0));
    assert_eq!(relay.wait_for("stopped")["how"], "Drained");
}

#[test]
fn what_comes_beside_a_stream() {
    let (_relay, entrance) = start(&["SERVER=socks", PERMIT]);
    // UDP ASSOCIATE.
    let echo = DatagramServer::echo();
    let anywhere = SocketAddr::from(([0; 4], 0));
    let (mut control, code, port) = ask(connect(entrance), 3, anywhere);
    assert_eq!((code, port.ip()), (0, entrance.ip()));
    let client = Client::of(port);
    let sent = [&[0, 0, 0, 1], &ipv4(echo.address())[..], b"hello"].concat();
    client.send(&sent);
    assert_eq!(client.hears_within(DEADLINE), Some(sent));
    control.shutdown(Shutdown::Write).expect("half-closed");
    assert_eq!(read_to_end_of(&mut control, DEADLINE), Ended::Eof);
    // BIND.
    let host = SocketAddr::from(([127, 0, 0, 1], 21));
    let (mut client, code, port) = ask(connect(entrance), 2, host);
    assert_eq!(code, 0);
    let mut server = connect_from("127.0.0.1", port).expect("it may");
    let mut second = [0; 10];
    client.read_exact(&mut second).expect("the second answer");
    server.write_all(b"hello").expect("sent");
    let mut heard = [0; 5];
    client.read_exact(&mut heard).expect("what the server says");
    assert_eq!(&heard, b"hello");
}

#[test]
fn ftp_with_its_data_connections() {
    needs!("curl", "vsftpd");
    let server = Ftpd::start();
    let path = server.files().join("file");
    pattern_file(&path, 3, 5_000_000);
    let named = format!("SERVER=ftp://{}", server.address());
    let asked = format!("{USER}@{}", server.address());
    for (words, user) in
        [([&named[..], "PERMIT=ftp:127.0.0.0/8:*"], USER), (["SERVER=ftp", PERMIT], &asked)]
    {
        let (_relay, entrance) = start(&words);
        for way in [&[][..], &["-P", "-"]] {
            let user = user.replace('@', "%40").replace(':', "%3A");
            let url = format!("ftp://{user}:{}@{entrance}/file", server.password());
            let got = new_dir();
            let mut curl = Command::new(program("curl"));
            curl.args(["-q", "-sS", "--noproxy", "*", &url]).args(way);
            curl.arg("-o").arg(got.path().join("file"));
            services::run(&mut curl);
            assert_eq!(sha256(&got.path().join("file")), sha256(&path), "{words:?} {way:?}");
        }
    }
}

#[test]
fn resets_and_servers_that_are_not_there() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let at = listener.local_addr().expect("bound");
    let (relay, entrance) = start(&["SERVER=socks", PERMIT]);
    let client = by_socks(entrance, at);
    let (server, _) = listener.accept().expect("the proxy comes");
    relay.wait_for("client and server are joined");
    reset(server);
    let mut client = client;
    assert!(matches!(read_to_end_of(&mut client, DEADLINE), Ended::Reset), "the server's reset");
    let client = by_socks(entrance, at);
    let mut server = bounded(listener.accept().expect("the proxy comes").0);
    relay.wait_for_nth("client and server are joined", 2);
    reset(client);
    assert!(matches!(read_to_end_of(&mut server, DEADLINE), Ended::Reset), "the client's reset");
    // Not the listener's own port: a child that is just being started holds it a moment longer.
    let nobody = free_port(Ipv4Addr::LOCALHOST);
    let (mut client, code, _) = ask(connect(entrance), 1, nobody);
    assert_eq!(code, 5, "connection refused");
    assert_eq!(read_to_end_of(&mut client, DEADLINE), Ended::Eof);
}

/// A server that sends first, to a client that does not read, is stopped, and no other one is.
#[test]
fn a_client_that_does_not_read_stops_its_server() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let at = listener.local_addr().expect("bound");
    let (_relay, entrance) = start(&["SERVER=socks", PERMIT]);
    let mut client = by_socks(entrance, at);
    let (server, _) = listener.accept().expect("the proxy comes");
    send_until_blocked(&server);
    let echo = Server::echo();
    check_echo(&by_socks(entrance, echo.address()), 1, 300_000);
    server.shutdown(Shutdown::Write).expect("half-closed");
    assert_eq!(read_to_end_of(&mut client, DEADLINE), Ended::Eof);
}

/// Data that a client has sent ahead of the answer: a server that reads late receives all of it, and so
/// does one whose client has ended by then.
#[test]
fn what_is_sent_ahead_stays_whole() {
    const BYTES: usize = 200_000;
    let ahead: Vec<u8> = (0..BYTES).map(|at| (at / 7) as u8).collect();
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let at = listener.local_addr().expect("bound");
    let (relay, entrance) = start(&["SERVER=http", PERMIT]);
    for ends in [false, true] {
        let mut client = connect(entrance);
        write!(client, "CONNECT {at} HTTP/1.1\r\nHost: h\r\n\r\n").expect("sent");
        client.write_all(&ahead).expect("all of it is taken");
        if ends {
            client.shutdown(Shutdown::Write).expect("half-closed");
        }
        let mut server = bounded(listener.accept().expect("the proxy comes").0);
        // The end may have been read before there was a server, or not.
        let become_of = ["client and server are joined", "a stream stays in the tunnel"];
        let known = || become_of.iter().map(|message| relay.count(message)).sum::<usize>();
        assert!(eventually(DEADLINE, || known() == 1 + usize::from(ends)));
        let mut got = vec![0; BYTES];
        server.read_exact(&mut got).expect("all of it");
        assert!(got == ahead, "every byte in its place");
        if ends {
            assert_eq!(read_to_end_of(&mut server, DEADLINE), Ended::Eof);
        }
        server.write_all(b"answer").expect("sent");
        server.shutdown(Shutdown::Write).expect("half-closed");
        let mut said = String::new();
        client.read_to_string(&mut said).expect("the answer");
        assert!(said.ends_with("\r\n\r\nanswer"), "{said}");
    }
}

#[test]
fn who_may_and_how_many() {
    let server = Server::echo();
    // A stream counts once, though it is in two tunnels.
    let (relay, entrance) = start(&["SERVER=socks", PERMIT, "MAXIMA=conpch:1"]);
    let held = by_socks(entrance, server.address());
    check_echo(&held, 1, 1000);
    relay.wait_for("client and server are joined");
    refused("127.0.0.1", entrance);
    drop(held);
    let again = || {
        let Ok(mut client) = connect_from("127.0.0.1", entrance) else { return false };
        client.write_all(&[5, 1, 0]).is_ok() && client.read_exact(&mut [0; 2]).is_ok()
    };
    assert!(eventually(DEADLINE, again), "the limit is released");
    let (_relay, entrance) = start(&["SERVER=http", PERMIT, "RELIABLE=127.0.0.9"]);
    refused("127.0.0.1", entrance);
    // By PERMIT=, and by a user.
    let (_relay, entrance) = start(&["SERVER=socks", "PERMIT=*:*:*"]);
    assert_eq!(ask(connect(entrance), 1, server.address()).1, 2, "loopback is not named");
    let (_relay, entrance) = start(&["SERVER=socks", PERMIT, "AUTHORIZER=-list{me:secret}"]);
    let mut client = connect(entrance);
    client.write_all(&[5, 1, 0]).expect("sent");
    let mut method = [0; 2];
    client.read_exact(&mut method).expect("an answer");
    assert_eq!(method, [5, 0xff]);
    // Not to itself.
    let permit = format!("PERMIT=*:*,-P{}:*", entrance.port());
    let (_relay, entrance) = start(&["SERVER=socks", &permit]);
    assert_eq!(ask(connect(entrance), 1, entrance).1, 2, "its own port");
}

#[test]
fn a_stop_waits_for_those_that_are_served() {
    let server = Server::echo();
    let (mut relay, entrance) = start(&["SERVER=http", PERMIT]);
    let joined = by_http(entrance, server.address());
    check_echo(&joined, 1, 1000);
    relay.wait_for("client and server are joined");
    // It has sent no request.
    let mut idle = connect(entrance);
    idle.write_all(b"GET ").expect("sent");
    relay.wait_for_nth("exit", 2);
    relay.terminate();
    relay.wait_for("draining");
    read_to_end_of(&mut idle, DEADLINE);
    check_echo(&joined, 2, 1000);
    drop(joined);
    assert_eq!(relay.wait_exit(DEADLINE).code(), Some(0));
}
