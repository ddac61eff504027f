//! Ceilings of memory: little address space (`ulimit -v`), and what peers and clients do to fill it. What is
//! there goes on, what is new is refused, and taken again when there is room.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;

use socket2::{Domain, Socket, Type};

use crate::testkit::net::{
    bounded, check_echo, check_new_echo, connect, connect_from, free_port, is_turned_away,
    read_to_end_of,
};
use crate::testkit::peer_v1::{Frame, OPEN_HEAD, PeerV1, kind};
use crate::testkit::program::{Program, command};
use crate::testkit::protocol::Protocol;
use crate::testkit::servers::Server;
use crate::testkit::tunnel::Tunnel;
use crate::testkit::{DEADLINE, eventually};

/// Address space in which the program says that it is too little, in MiB.
const TOO_LITTLE_MIB: u64 = 64;

/// What a program says that does not begin, with this address space.
fn said_within(limit_mib: u64) -> (String, Option<i32>) {
    let script =
        format!("ulimit -v {}; exec \"$0\" -P127.0.0.1:0 DEST=127.0.0.1:9", limit_mib << 10);
    let output = Command::new("sh").args(["-c", &script]).arg(command().get_program()).output();
    let output = output.expect("a shell");
    (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
}

/// The least address space that this build needs, in MiB.
fn least_mib() -> u64 {
    static LEAST: OnceLock<u64> = OnceLock::new();
    *LEAST.get_or_init(|| {
        let (said, _) = said_within(TOO_LITTLE_MIB);
        let (before, _) = said.split_once(" MiB are needed").expect("what is needed");
        before.rsplit(' ').next().expect("a number").parse().expect("a number")
    })
}

/// A program in next to no more address space than it needs: another plan may take somewhat more than the one
/// that was asked.
fn start_in_little(words: &[&str]) -> Program {
    Program::start_after(&format!("ulimit -v {}", (least_mib() + 2) << 10), words)
}

/// A field of the line about ceilings.
fn ceiling(program: &Program, what: &str) -> usize {
    let line = program.wait_for("memory is limited");
    line[what].as_u64().unwrap_or_else(|| panic!("{what} in {line}")) as usize
}

/// Panics if the connection has ended, or has said something.
fn is_open_and_silent(stream: &TcpStream) {
    stream.set_nonblocking(true).expect("a socket can be set so");
    let heard = { stream }.read(&mut [0]);
    assert_eq!(heard.expect_err("nothing to read").kind(), ErrorKind::WouldBlock);
}

/// An address where connections are neither taken nor refused, as long as what is returned with it lives.
fn nobody_answers() -> (SocketAddr, (TcpListener, TcpStream)) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
    // The kernel queues one connection more than this, and then drops what asks for further ones.
    socket.listen(0).expect("listening");
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().expect("an address");
    (address, (listener, connect(address)))
}

#[test]
fn too_little_address_space_is_said_with_what_is_needed() {
    let (said, code) = said_within(TOO_LITTLE_MIB);
    assert!(said.contains("64 MiB of address space (ulimit -v) are too little"), "{said}");
    assert_eq!(code, Some(3), "{said}");
    assert!(least_mib() < 128, "{said}");
}

/// Much less than the pool would be otherwise, and threads that look names up.
#[test]
fn it_relays_in_256_mib_of_address_space() {
    let server = Server::echo();
    let exit = format!("DEST=localhost:{}", server.address().port());
    let receptor = Program::start_after("ulimit -v 262144", &["-P127.0.0.1:0", &exit]);
    assert!(ceiling(&receptor, "pool_mib") > 16);
    let address = receptor.address_of("receptor listening");
    let connector = Program::start_after(
        "ulimit -v 262144",
        &[&format!("SERVER=sockmux://{address}"), "PORT=127.0.0.1:0"],
    );
    connector.wait_for("tunnel up");
    let entrance = connector.address_of("entrance listening");
    thread::scope(|scope| {
        for seed in 0..8 {
            scope.spawn(move || check_new_echo(entrance, seed, 4_000_000));
        }
    });
}

#[test]
fn as_many_streams_as_there_is_memory_for_go_on_and_one_more_is_refused() {
    let server = Server::echo();
    let exit = format!("DEST={}", server.address());
    let receptor = start_in_little(&["-P127.0.0.1:0", &exit]);
    let most = ceiling(&receptor, "connections");
    let address = receptor.address_of("receptor listening");
    let words = ["PORT=127.0.0.1:0", "TIMEOUT=hold:1"];
    let tunnel = Tunnel::join(Protocol::V1, receptor, address, address, &words);
    check_new_echo(tunnel.entrance(), 0, 100_000);
    let before = tunnel.receptor.rss_bytes();
    let mut old: Vec<TcpStream> = (0..most).map(|_| connect(tunnel.entrance())).collect();
    let all_move =
        |old: &[TcpStream], seed| old.iter().for_each(|old| check_echo(old, seed, 10_000));
    // The limit has room for so much.
    assert!(eventually(DEADLINE, || server.served() > most));
    let each = (tunnel.receptor.rss_bytes() - before) / most as u64;
    assert!(each < 8 << 10, "{each} bytes for a stream");
    all_move(&old, 1);
    // This end knows how many the other one takes.
    is_turned_away(tunnel.entrance());
    let refused = tunnel.connector.wait_for("stream refused");
    let reason = refused["reason"].as_str().expect("a reason");
    assert!(reason.contains(&format!("takes {most} streams at once")), "{refused}");
    // A peer that does not ask is refused there.
    let mut other = PeerV1::join(address);
    let open = |number| Frame::new(kind::OPEN, number, &[&OPEN_HEAD[..], b"x"].concat());
    other.send(&open(1));
    let reset = other.receive_kind(kind::RESET);
    let reason = String::from_utf8_lossy(&reset.payload);
    assert!(reason.contains("too many connections are open"), "{reason}");
    tunnel.receptor.wait_for("stream refused");
    all_move(&old, 2);
    // And served when one has ended.
    drop(old.pop());
    let mut number = 1;
    assert!(eventually(DEADLINE, || {
        number += 1;
        other.send(&open(number));
        let frames = std::iter::from_fn(|| other.receive());
        let is_last = |frame: &Frame| matches!(frame.kind, kind::DATA | kind::RESET);
        let answer = frames.filter(|frame| frame.stream == number).find(is_last);
        answer.expect("the tunnel is up").kind == kind::DATA
    }));
    all_move(&old, 3);
}

/// Two ends, with an exit to an echo and one to where nobody answers; and the two entrances to these.
struct Slow {
    tunnel: Tunnel,
    echo: SocketAddr,
    nobody: SocketAddr,
}

/// Fills the pool of the receptor by streams of one peer that nobody reads.
fn fill(address: SocketAddr) -> PeerV1 {
    let mut peer = PeerV1::join(address);
    let mut taken = peer.0.stream.try_clone().expect("a second handle");
    thread::spawn(move || std::io::copy(&mut taken, &mut std::io::sink()));
    let open = |number| Frame::new(kind::OPEN, number, &OPEN_HEAD);
    (1..=150).for_each(|number| peer.send(&open(number)));
    (1..=150).for_each(|number| peer.send(&Frame::new(kind::DATA, number, &[7; 60_000])));
    (151..=300).for_each(|number| peer.send(&open(number)));
    peer
}

impl Slow {
    fn start(nobody: SocketAddr, echo: SocketAddr) -> Slow {
        let [to_echo, to_nobody] = [(); 2].map(|()| free_port([127, 0, 0, 1].into()));
        let echo = format!("SERVER=tcprelay://{echo},-in:-:-P{}", to_echo.port());
        // Whoever names no entrance is led to where nobody answers.
        let nobody = format!("DEST={nobody}");
        let receptor = start_in_little(&["-P127.0.0.1:0", &echo, &nobody, "TIMEOUT=con:120"]);
        let address = receptor.address_of("receptor listening");
        let ports = format!("PORT={to_echo},{to_nobody}");
        let tunnel = Tunnel::join(Protocol::V1, receptor, address, address, &[ports]);
        tunnel.connector.wait_for_nth("entrance listening", 2);
        Slow { tunnel, echo: to_echo, nobody: to_nobody }
    }
}

#[test]
fn a_peer_that_fills_the_pool_pays_itself_and_new_streams_wait_for_its_end() {
    let (server, (address, _held)) = (Server::echo(), nobody_answers());
    let Slow { tunnel, echo, nobody } = Slow::start(address, server.address());
    let old = connect(echo);
    check_echo(&old, 1, 100_000);
    let sockets = tunnel.receptor.sockets();
    let waits = connect(nobody);
    // Its stream has begun before there is no room.
    assert!(eventually(DEADLINE, || tunnel.receptor.sockets() > sockets));
    let peer = fill(tunnel.address);
    tunnel.receptor.wait_for("slow readers use up the buffers: stream reset");
    let refused = tunnel.receptor.wait_for("stream refused");
    let reason = refused["reason"].as_str().expect("a reason");
    assert!(reason.contains("slow readers hold most of the memory"), "{refused}");
    // What is there goes on, and finds buffers: it is not the one that has most of them.
    check_echo(&old, 2, 1_000_000);
    (&waits).write_all(&[1; 60_000]).expect("sent");
    check_echo(&old, 3, 100_000);
    is_open_and_silent(&waits);
    // What is new is refused.
    is_turned_away(echo);
    let refused = tunnel.connector.wait_for("stream refused");
    let reason = refused["reason"].as_str().expect("a reason");
    assert!(reason.contains("by the peer: slow readers hold most"), "{refused}");
    check_echo(&old, 4, 100_000);
    // The log is bounded, whatever the number of streams.
    assert!(tunnel.receptor.count("stream refused") < 50, "{}", tunnel.receptor.log_text());
    // With the end of the peer there is room.
    peer.0.stream.shutdown(Shutdown::Both).expect("a connection can be shut down");
    assert!(eventually(DEADLINE, || {
        // It may be reset before `connect` has returned.
        let Ok(mut client) = TcpStream::connect_timeout(&echo, DEADLINE).map(bounded) else {
            return false;
        };
        client.write_all(b"x").is_ok() && client.read_exact(&mut [0]).is_ok()
    }));
    is_open_and_silent(&waits);
    assert_eq!(tunnel.connector.count("tunnel down"), 0);
}

#[test]
fn an_address_has_half_of_the_tunnels() {
    let receptor = start_in_little(&["-P127.0.0.1:0", "PORT=127.0.0.1:0"]);
    let (address, most) =
        (receptor.address_of("receptor listening"), ceiling(&receptor, "tunnels"));
    let mut peers: Vec<PeerV1> = (0..most / 2).map(|_| PeerV1::join(address)).collect();
    peers[0].check_alive(b"the first");
    assert!(PeerV1::join_on(connect(address)).is_none());
    let down = receptor.wait_for("tunnel down");
    assert_eq!(down["reason"], "too many tunnels of its address are open", "{down}");
    let elsewhere = |own: &str| PeerV1::join_on(connect_from(own, address).expect("there"));
    let others = (most / 2..most).map(|nth| elsewhere(&format!("127.0.0.{}", 2 + nth % 2)));
    let mut others: Vec<PeerV1> = others.map(|peer| peer.expect("there is room")).collect();
    others.iter_mut().chain(&mut peers).for_each(|peer| peer.check_alive(b"still there"));
    assert!(elsewhere("127.0.0.4").is_none());
    let down = receptor.wait_for_nth("tunnel down", 2);
    assert_eq!(down["reason"], "too many tunnels are open", "{down}");
    // The share of an address is free again when its tunnels end.
    peers.pop();
    receptor.wait_for_nth("tunnel down", 3);
    PeerV1::join(address).check_alive(b"in its place");
}

/// An address has half of their room: a stranger is turned away by the fourth one after it where there is room for
/// eight.
#[test]
fn strangers_are_few_in_little_memory_and_lock_nobody_out() {
    let receptor = start_in_little(&["-P127.0.0.1:0", "PORT=127.0.0.1:0", "TIMEOUT=acc:0"]);
    let (address, most) =
        (receptor.address_of("receptor listening"), ceiling(&receptor, "strangers"));
    let mut strangers: Vec<TcpStream> = (0..=most / 2).map(|_| connect(address)).collect();
    read_to_end_of(&mut strangers[0], DEADLINE);
    PeerV1::join(address).check_alive(b"beside them");
    is_open_and_silent(&strangers[most / 2]);
}

#[test]
fn requests_that_are_not_whole_do_not_keep_others_out() {
    let server = Server::start("127.0.0.1:0", |mut stream| {
        let mut request = [0; 4096];
        let _ = stream.read(&mut request)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    });
    let words = ["-P127.0.0.1:0", "SERVER=http", "PERMIT=*:127.0.0.0/8:*"];
    let proxy = start_in_little(&words);
    let entrance = proxy.address_of("entrance listening");
    let get = || {
        let mut client = connect(entrance);
        let request = format!("GET http://{0}/ HTTP/1.1\r\nHost: {0}\r\n", server.address());
        write!(client, "{request}Connection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an answer");
        assert!(answer.ends_with("ok"), "{answer}");
    };
    get();
    let hogs: Vec<TcpStream> = (0..40).map(|_| connect(entrance)).collect();
    for mut hog in &hogs {
        let head =
            format!("GET http://{}/ HTTP/1.1\r\nX: {}", server.address(), "x".repeat(60_000));
        // Those that came first may be gone.
        let _ = hog.write_all(head.as_bytes());
    }
    let event = proxy.wait_for("not served by the proxy");
    let reason = event["reason"].as_str().expect("a reason");
    assert!(reason.contains("hold too much memory by requests that are not whole"), "{event}");
    get();
}
