//! Peers that are none: on the receptor's port, and where the connector connects.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::testkit::DEADLINE;
use crate::testkit::net::{Ended, check_echo, check_new_echo, connect, read_to_end_of, reset};
use crate::testkit::peer::Peer;
use crate::testkit::program::Program;
use crate::testkit::protocol::Protocol;
use crate::testkit::servers::Server;
use crate::testkit::tunnel::{Tunnel, start_connector, start_receptor};

/// Waits until the program has logged why it closed a connection.
fn has_a_reason(program: &Program) {
    program.wait_for_event("a reason", 1, |event| {
        event["reason"].as_str().is_some_and(|reason| !reason.is_empty())
    });
}

/// Sends `bytes` to a receptor as its peer would, and waits until it has closed.
fn offend(bytes: &[u8]) {
    let server = Server::echo();
    let tunnel = Tunnel::to(Protocol::V1, server.address());
    let mut stranger = connect(tunnel.address);
    stranger.write_all(bytes).expect("the receptor takes it");
    read_to_end_of(&mut stranger, DEADLINE);
    has_a_reason(&tunnel.receptor);
    // The other tunnel of this receptor has not noticed.
    check_new_echo(tunnel.entrance(), 1, 100_000);
    assert_eq!(tunnel.connector.count("tunnel down"), 0);
}

#[test]
fn garbage_on_the_receptors_port() {
    offend(&[0xFF; 4096]);
}

#[test]
fn an_http_request_on_the_receptors_port() {
    offend(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n");
}

#[test]
fn a_tls_hello_on_the_receptors_port() {
    offend(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on and so on");
}

#[test]
fn a_stranger_who_says_nothing_is_dropped() {
    let receptor = start_receptor("127.0.0.1:0", &["PORT=127.0.0.1:0", "TIMEOUT=acc:1"]);
    let mut stranger = connect(receptor.address_of("receptor listening"));
    read_to_end_of(&mut stranger, Duration::from_secs(10));
    has_a_reason(&receptor);
}

#[test]
fn a_stranger_who_leaves_at_once_is_no_trouble() {
    let server = Server::echo();
    let tunnel = Tunnel::to(Protocol::V1, server.address());
    for _ in 0..100 {
        drop(connect(tunnel.address));
    }
    check_new_echo(tunnel.entrance(), 1, 100_000);
}

#[test]
fn a_receptor_that_is_not_one_is_left_and_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let address = listener.local_addr().expect("an address");
    let connector = start_connector(Protocol::V1, address, &["PORT=127.0.0.1:0"]);
    for _ in 0..3 {
        let (mut stream, _) = listener.accept().expect("the connector comes, again");
        stream.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n").expect("it takes the banner");
        assert!(matches!(read_to_end_of(&mut stream, DEADLINE), Ended::Eof | Ended::Reset));
    }
    has_a_reason(&connector);
}

/// More than there is room for, and than there are descriptors: they make room for each other.
#[test]
fn silent_strangers_lock_nobody_out() {
    const STRANGERS: usize = 100;
    let words = ["-P127.0.0.1:0", "PORT=127.0.0.1:0", "TIMEOUT=acc:0"];
    let idle = Program::start(&words);
    idle.wait_for("entrance listening");
    let limit = idle.descriptors() + STRANGERS / 2;
    let mut receptor = Program::start_after(&format!("ulimit -n {limit}"), &words);
    let address = receptor.address_of("receptor listening");
    let mut strangers: Vec<TcpStream> = (0..STRANGERS).map(|_| connect(address)).collect();
    Peer::join(address).check_alive(b"beside them");
    // The last ones are still there.
    read_to_end_of(&mut strangers[0], DEADLINE);
    strangers[STRANGERS - 1].set_nonblocking(true).expect("a socket can be set so");
    let last = strangers[STRANGERS - 1].read(&mut [0]);
    assert_eq!(last.expect_err("nothing to read").kind(), ErrorKind::WouldBlock);
    receptor.terminate();
    assert_eq!(receptor.wait_exit(DEADLINE).code(), Some(0));
    assert_eq!(
        receptor.count("cannot accept for now: raise the limit of open files (ulimit -n)"),
        0
    );
    let (lines, counted) = logged(&receptor, NOT_UP, MORE_NOT_UP);
    assert!(lines > 0 && lines as u64 + counted >= STRANGERS as u64 / 2, "{lines} and {counted}");
}

/// The hello has the name of the host.
#[test]
fn who_says_nothing_hears_nothing() {
    let receptor = start_receptor("127.0.0.1:0", &["PORT=127.0.0.1:0"]);
    let address = receptor.address_of("receptor listening");
    let stranger = connect(address);
    // One that comes later is up: all that the stranger was to be told has been sent.
    Peer::join(address).check_alive(b"behind it");
    stranger.set_nonblocking(true).expect("a socket can be set so");
    let heard = (&stranger).read(&mut [0]);
    assert_eq!(heard.expect_err("nothing to read").kind(), ErrorKind::WouldBlock);
}

/// Lines at the default level with this message, and the counted ones.
fn logged(program: &Program, message: &str, more: &str) -> (usize, u64) {
    let counted = program.log_events().into_iter().filter(|event| event["message"] == more);
    let counted = counted.map(|event| event["count"].as_u64().expect("a count")).sum();
    (program.count(message), counted)
}

/// Connects, sends, and waits until the connection is over.
fn strangers(address: SocketAddr, count: usize, bytes: &[u8]) {
    for _ in 0..count {
        // The end may come before `connect` has returned.
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        match stream.write_all(bytes) {
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset),
                "{error}"
            ),
            Ok(()) => drop(read_to_end_of(&mut stream, DEADLINE)),
        }
    }
}

const NOT_UP: &str = "tunnel did not come up";
const MORE_NOT_UP: &str = "more tunnels did not come up, not logged one by one";

#[test]
fn a_flood_of_strangers_is_counted_and_disturbs_nobody() {
    const STRANGERS: usize = 2_000;
    let server = Server::echo();
    let mut tunnel = Tunnel::to(Protocol::V1, server.address());
    let bystander = connect(tunnel.entrance());
    check_echo(&bystander, 1, 1000);
    strangers(tunnel.address, STRANGERS / 2, b"GET / HTTP/1.0\r\n\r\n");
    // Their number is logged while the relay runs, and for the rest at its end.
    tunnel.receptor.wait_for(MORE_NOT_UP);
    strangers(tunnel.address, STRANGERS / 2, &[0xFF; 100]);
    check_echo(&bystander, 2, 100_000);
    assert_eq!(tunnel.connector.count("tunnel down"), 0);
    drop(bystander);
    tunnel.receptor.terminate();
    assert_eq!(tunnel.receptor.wait_exit(DEADLINE).code(), Some(0));
    let (lines, counted) = logged(&tunnel.receptor, NOT_UP, MORE_NOT_UP);
    assert!(lines < 40, "{lines} lines");
    assert_eq!(lines as u64 + counted, STRANGERS as u64);
}

#[test]
fn peers_whom_reliable_shuts_out_are_counted() {
    const STRANGERS: usize = 500;
    let mut receptor =
        start_receptor("127.0.0.1:0", &["PORT=127.0.0.1:0", "RELIABLE=192.0.2.0/24"]);
    strangers(receptor.address_of("receptor listening"), STRANGERS, b"x");
    receptor.terminate();
    assert_eq!(receptor.wait_exit(DEADLINE).code(), Some(0));
    let (lines, counted) = logged(&receptor, NOT_UP, MORE_NOT_UP);
    assert!(lines < 40, "{lines} lines");
    assert_eq!(lines as u64 + counted, STRANGERS as u64);
}

/// Tunnels that come up and go down again at once.
#[test]
fn a_peer_that_comes_and_goes_is_counted() {
    const TIMES: usize = 200;
    let mut receptor = start_receptor("127.0.0.1:0", &["PORT=127.0.0.1:0"]);
    let address = receptor.address_of("receptor listening");
    for _ in 0..TIMES {
        let mut peer = Peer::join(address).stream;
        peer.shutdown(Shutdown::Write).expect("sending can end");
        read_to_end_of(&mut peer, DEADLINE);
    }
    receptor.terminate();
    assert_eq!(receptor.wait_exit(DEADLINE).code(), Some(0));
    let (up, counted) =
        logged(&receptor, "tunnel up", "more tunnels came up or went down, not logged one by one");
    let lines = up + receptor.count("tunnel down");
    assert!(lines < 60, "{lines} lines");
    assert_eq!(lines as u64 + counted, 2 * TIMES as u64);
}

/// As health checks do it, every other second for ever.
#[test]
fn a_peer_that_leaves_before_its_first_byte_is_no_warning() {
    const CHECKS: usize = 50;
    let mut receptor = start_receptor("127.0.0.1:0", &["PORT=127.0.0.1:0"]);
    let address = receptor.address_of("receptor listening");
    for _ in 0..CHECKS {
        drop(connect(address));
        reset(connect(address));
    }
    // A connection that sends something other than a hello still is one.
    strangers(address, 1, &[0xFF; 100]);
    receptor.wait_for(NOT_UP);
    Peer::join(address).check_alive(b"behind them");
    receptor.terminate();
    assert_eq!(receptor.wait_exit(DEADLINE).code(), Some(0));
    assert_eq!(receptor.count(NOT_UP), 1);
    assert_eq!(receptor.wait_for("stopped")["silent_strangers"], 2 * CHECKS as u64);
}

/// Many more are logged.
#[test]
fn a_flood_of_peers_that_leave_at_once_is_told() {
    let many = 10 * sockmux_uring::limits::LOG_SILENT_MIN;
    let mut receptor = start_receptor("127.0.0.1:0", &["PORT=127.0.0.1:0"]);
    let address = receptor.address_of("receptor listening");
    for _ in 0..many {
        reset(connect(address));
    }
    // The next peer is served behind them.
    Peer::join(address).check_alive(b"behind them");
    receptor.terminate();
    assert_eq!(receptor.wait_exit(DEADLINE).code(), Some(0));
    receptor.wait_for("connections at the receptor's port ended before their first byte");
    assert_eq!(receptor.wait_for("stopped")["silent_strangers"], many);
    assert_eq!(receptor.count(NOT_UP), 0);
}

/// Tunnels hold all descriptors, so the receptor cannot accept, and tries again for as long as they do.
#[test]
fn peers_who_use_up_the_descriptors_are_counted() {
    let words = ["-P127.0.0.1:0", "PORT=127.0.0.1:0", "TIMEOUT=acc:0"];
    let idle = Program::start(&words);
    idle.wait_for("entrance listening");
    // Before it starts: an accept of io_uring keeps to the limit that held when it was armed.
    let few = format!("ulimit -n {}", idle.descriptors() + 6);
    let mut receptor = Program::start_after(&few, &words);
    let address = receptor.address_of("receptor listening");
    let tunnels: Vec<Peer> = (0..5).map(|_| Peer::join(address)).collect();
    let waiting: Vec<TcpStream> = (0..9).map(|_| connect(address)).collect();
    let counted = receptor
        .wait_for("more shortages of descriptors, ports or buffers, not logged one by one")["count"]
        .as_u64();
    assert!(counted > Some(0));
    let lines = receptor.count("cannot accept for now: raise the limit of open files (ulimit -n)");
    assert!((1..20).contains(&lines), "{lines} lines");
    drop((tunnels, waiting));
    Peer::join(address).check_alive(b"served when they have gone");
    receptor.terminate();
    assert_eq!(receptor.wait_exit(DEADLINE).code(), Some(0));
}
