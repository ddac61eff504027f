//! SIGTERM: what is open may finish, nothing new begins.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use support::DEADLINE;
use support::net::{check_echo, connect, free_port, read_to_end_of};
use support::servers::Server;
use support::tunnel::Tunnel;

/// Within this the program has ended when nothing is left to wait for.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// True when a new client of `entrance` is turned away: refused, reset, or given end of data.
fn turned_away(entrance: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&entrance, DEADLINE) else { return true };
    // A client in the queue of a listener that is being closed is reset at any of these.
    if stream.set_read_timeout(Some(DEADLINE)).is_err() || stream.write_all(b"anyone?").is_err() {
        return true;
    }
    !matches!(stream.read(&mut [0]), Ok(1))
}

#[test]
fn sigterm_lets_the_open_stream_finish() {
    for at_connector in [true, false] {
        let server = Server::echo();
        let mut tunnel = Tunnel::to(server.address());
        let entrance = tunnel.entrance();
        let stream = connect(entrance);
        check_echo(&stream, 1, 100_000);

        let stopping = match at_connector {
            true => &mut tunnel.connector,
            false => &mut tunnel.receptor,
        };
        stopping.terminate();
        stopping.wait_for("draining");
        assert!(turned_away(entrance));
        check_echo(&stream, 2, 4 << 20);
        drop(stream);
        assert_eq!(stopping.wait_exit(DEADLINE).code(), Some(0));
        stopping.wait_for("stopped");
    }
}

#[test]
fn sigterm_without_streams_ends_at_once() {
    let mut tunnel = Tunnel::to(free_port([127, 0, 0, 2].into()));
    tunnel.connector.terminate();
    assert_eq!(tunnel.connector.wait_exit(ENDS_WITHIN).code(), Some(0));
    tunnel.receptor.wait_for("tunnel down");
    tunnel.receptor.terminate();
    assert_eq!(tunnel.receptor.wait_exit(ENDS_WITHIN).code(), Some(0));
}

#[test]
fn sigterm_waits_no_longer_than_its_timeout() {
    let server = Server::echo();
    let mut tunnel = Tunnel::start(
        &[format!("DEST={}", server.address())],
        &["PORT=127.0.0.1:0", "TIMEOUT=drain:1"],
    );
    let mut stream = connect(tunnel.entrance());
    check_echo(&stream, 1, 1000);
    tunnel.connector.terminate();
    tunnel.connector.wait_exit(Duration::from_secs(10));
    read_to_end_of(&mut stream, ENDS_WITHIN);
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let server = Server::echo();
    let mut tunnel = Tunnel::to(server.address());
    let mut stream = connect(tunnel.entrance());
    check_echo(&stream, 1, 1000);
    tunnel.connector.terminate();
    tunnel.connector.wait_for("draining");
    tunnel.connector.terminate();
    let status = tunnel.connector.wait_exit(ENDS_WITHIN);
    assert_ne!(status.code(), Some(0), "{status}");
    read_to_end_of(&mut stream, ENDS_WITHIN);
}
