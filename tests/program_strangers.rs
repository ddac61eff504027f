//! Peers that are none: on the receptor's port, and where the connector connects.

mod support;

use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

use support::DEADLINE;
use support::net::{Ended, check_new_echo, connect, read_to_end_of};
use support::program::Program;
use support::protocol::Protocol;
use support::servers::Server;
use support::tunnel::{Tunnel, start_connector, start_receptor};

/// Waits until the program has said why it closed something.
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
