//! Breaks of the persistent connection and of either end, as users see them.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::testkit::net::{
    bounded, check_echo, check_new_echo, connect, free_port, is_turned_away, read_to_end_of,
};
use crate::testkit::pattern::Pattern;
use crate::testkit::peer::Peer;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::Server;
use crate::testkit::tunnel::{NO_RESUMPTION, Tunnel, start_connector, start_receptor};
use crate::testkit::{DEADLINE, eventually};

/// Within this every stream of a broken connection has ended at its client.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// Streams in mid-transfer when something breaks.
const STREAMS: usize = 20;

/// Keeps [`STREAMS`] echoes going through `entrance`, calls `break_it` when all of them move
/// data, and panics unless each client has seen its connection end [`ENDS_WITHIN`] of that.
fn all_end_when(entrance: SocketAddr, break_it: impl FnOnce()) {
    let moving = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..STREAMS as u64)
            .map(|seed| {
                let moving = &moving;
                scope.spawn(move || {
                    let stream = connect(entrance);
                    echo_until_it_ends(&stream, seed, || {
                        moving.fetch_add(1, Ordering::SeqCst);
                    });
                    Instant::now()
                })
            })
            .collect();
        let all = eventually(DEADLINE, || moving.load(Ordering::SeqCst) == STREAMS);
        // Even when that failed: only the break ends the clients.
        break_it();
        let broken_at = Instant::now();
        for client in clients {
            let ended_at = client.join().expect("what arrived before the end was right");
            let late = ended_at.saturating_duration_since(broken_at);
            assert!(late <= ENDS_WITHIN, "a client noticed only after {late:?}");
        }
        assert!(all, "only {moving:?} of {STREAMS} streams moved data");
    });
}

/// Echoes the pattern of `seed` both ways at once until the connection ends; calls `moves` when data
/// moves. Every received byte is checked.
fn echo_until_it_ends(stream: &TcpStream, seed: u64, moves: impl FnOnce()) {
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut pattern = Pattern::new(seed);
            let mut to = stream;
            while pattern.send(&mut to, 20_000).is_ok() {}
        });
        let mut from = stream;
        let mut pattern = Pattern::new(seed);
        pattern.receive(&mut from, 50_000).expect("data moves before the break");
        moves();
        let ended = loop {
            if let Err(e) = pattern.receive(&mut from, 10_000) {
                break e;
            }
        };
        let timed_out = [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&ended.kind());
        assert!(!timed_out, "the client hangs: {ended}");
        // Frees the sender when only our direction has ended.
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
}

fn kill_9_of_the_receptor(protocol: Protocol) {
    let server = Server::echo();
    let exit = [format!("DEST={}", server.address())];
    let mut receptor = start_receptor("127.0.0.2:0", &exit);
    let address = receptor.address_of("receptor listening");
    let connector = start_connector(protocol, address, &["PORT=127.0.0.1:0", NO_RESUMPTION]);
    let entrance = connector.address_of("entrance listening");
    connector.wait_for("tunnel up");

    all_end_when(entrance, || receptor.kill_9());
    connector.wait_for_reason("tunnel down");

    let _receptor = start_receptor(&address.to_string(), &exit);
    connector.wait_for_nth("tunnel up", 2);
    check_new_echo(entrance, 99, 1 << 20);
}

fn kill_9_of_the_connector(protocol: Protocol) {
    let server = Server::echo();
    let exit = format!("DEST={}", server.address());
    let receptor = start_receptor("127.0.0.1:0", &["PORT=127.0.0.1:0", NO_RESUMPTION]);
    let address = receptor.address_of("receptor listening");
    let entrance = receptor.address_of("entrance listening");
    let mut connector = start_connector(protocol, address, &[&exit]);
    receptor.wait_for("tunnel up");

    all_end_when(entrance, || connector.kill_9());
    receptor.wait_for_reason("tunnel down");

    let _connector = start_connector(protocol, address, &[&exit]);
    receptor.wait_for_nth("tunnel up", 2);
    check_new_echo(entrance, 99, 1 << 20);
}

fn kill_9_ends_the_servers_side_too(protocol: Protocol) {
    let ended = std::sync::Arc::new(AtomicUsize::new(0));
    let counter = std::sync::Arc::clone(&ended);
    let server = Server::start("127.0.0.1:0", move |stream| {
        let mut stream = bounded(stream);
        stream.write_all(b"hello")?;
        // An end of data and a reset are both an end; a timeout is not.
        match stream.read(&mut [0]) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        }
        Ok(())
    });
    let mut tunnel = Tunnel::without_resumption(protocol, server.address());
    let entrance = tunnel.entrance();
    let clients: Vec<_> = (0..STREAMS)
        .map(|_| {
            let mut client = connect(entrance);
            client.read_exact(&mut [0; 5]).expect("the server's greeting");
            client
        })
        .collect();
    tunnel.connector.kill_9();
    assert!(
        eventually(ENDS_WITHIN, || ended.load(Ordering::SeqCst) == STREAMS),
        "the server has seen only {ended:?} of {STREAMS} connections end"
    );
    drop(clients);
}

fn reset_of_the_connection(protocol: Protocol) {
    let server = Server::echo();
    let (tunnel, proxy) = Tunnel::start_spoilable(
        protocol,
        &[format!("DEST={}", server.address())],
        &["PORT=127.0.0.1:0", NO_RESUMPTION],
    );

    for round in 1..=3 {
        all_end_when(tunnel.entrance(), || proxy.reset());
        tunnel.connector.wait_for_nth("tunnel down", round);
        tunnel.receptor.wait_for_nth("tunnel down", round);
        tunnel.connector.wait_for_nth("tunnel up", round + 1);
        check_new_echo(tunnel.entrance(), round as u64, 1 << 20);
    }
}

fn a_dead_peer_is_found_by_keep_alive(protocol: Protocol) {
    let server = Server::echo();
    let (tunnel, proxy) = Tunnel::start_spoilable(
        protocol,
        &[&format!("DEST={}", server.address()), "TIMEOUT=keepalive:1,resume:0"],
        &["PORT=127.0.0.1:0", "TIMEOUT=keepalive:1"],
    );
    let mut idle = connect(tunnel.entrance());
    check_echo(&idle, 1, 1000);

    proxy.pause();
    tunnel.connector.wait_for_reason("tunnel down");
    tunnel.receptor.wait_for_reason("tunnel down");
    read_to_end_of(&mut idle, ENDS_WITHIN);

    proxy.resume();
    check_new_echo(tunnel.entrance(), 2, 1 << 20);
}

fn an_idle_tunnel_is_kept_alive(protocol: Protocol) {
    let server = Server::echo();
    let (tunnel, proxy) = Tunnel::start_spoilable(
        protocol,
        &[&format!("DEST={}", server.address()), "TIMEOUT=keepalive:1"],
        &["PORT=127.0.0.1:0", "TIMEOUT=keepalive:1"],
    );
    // Four rounds of an echo of 8 bytes and its answer: past the three seconds of silence after
    // which a tunnel is given up.
    let start = Instant::now();
    let carried = proxy.carried_bytes();
    assert!(eventually(DEADLINE, || proxy.carried_bytes() >= carried + 4 * 16));
    assert!(eventually(DEADLINE, || start.elapsed() > Duration::from_secs(4)));
    assert_eq!(tunnel.connector.count("tunnel down"), 0);
    assert_eq!(tunnel.receptor.count("tunnel down"), 0);
    check_new_echo(tunnel.entrance(), 1, 1000);
}

fn clients_are_held_while_the_tunnel_is_down_and_served_after(protocol: Protocol) {
    let server = Server::echo();
    let exit = [format!("DEST={}", server.address())];
    let mut receptor = start_receptor("127.0.0.2:0", &exit);
    let address = receptor.address_of("receptor listening");
    let connector = start_connector(protocol, address, &["PORT=127.0.0.1:0", NO_RESUMPTION]);
    let entrance = connector.address_of("entrance listening");
    connector.wait_for("tunnel up");
    receptor.kill_9();
    connector.wait_for("tunnel down");

    let clients: Vec<TcpStream> = (0..STREAMS)
        .map(|seed| {
            let mut client = connect(entrance);
            Pattern::new(seed as u64).send(&mut client, 1000).expect("the kernel takes it");
            client
        })
        .collect();
    let _receptor = start_receptor(&address.to_string(), &exit);
    for (seed, mut client) in clients.into_iter().enumerate() {
        Pattern::new(seed as u64).receive(&mut client, 1000).expect("served after");
    }
}

fn clients_are_served_by_a_connector_started_before_its_receptor(protocol: Protocol) {
    let server = Server::echo();
    let address = free_port([127, 0, 0, 2].into());
    let connector = start_connector(protocol, address, &["PORT=127.0.0.1:0"]);
    let client = connect(connector.address_of("entrance listening"));
    let _receptor = start_receptor(&address.to_string(), &[format!("DEST={}", server.address())]);
    check_echo(&client, 1, 100_000);
}

#[test]
fn clients_are_reset_when_the_tunnel_stays_down() {
    let nobody = free_port([127, 0, 0, 2].into());
    let connector = start_connector(Protocol::V1, nobody, &["PORT=127.0.0.1:0", "TIMEOUT=hold:1"]);
    let mut client = connect(connector.address_of("entrance listening"));
    read_to_end_of(&mut client, DEADLINE);
    // And so is one that comes later: at once.
    is_turned_away(connector.address_of("entrance listening"));
}

/// A peer that is restarted again and again, as by an operator who tries command lines. Its own connector
/// dials ten milliseconds later.
#[test]
fn a_tunnel_that_was_up_for_a_moment_only_is_dialled_again_at_once() {
    const RESTARTS: usize = 6;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let connector = start_connector(Protocol::V1, address, &["PORT=127.0.0.1:0"]);
    let mut peer = Peer::accept(&listener);
    let mut waits = Vec::new();
    for nth in 1..=RESTARTS {
        connector.wait_for_nth("tunnel up", nth);
        drop(peer);
        let lost = Instant::now();
        peer = Peer::accept(&listener);
        waits.push(lost.elapsed());
    }
    let slow = waits.iter().filter(|wait| **wait > Duration::from_millis(500)).count();
    assert_eq!(slow, 0, "{waits:?}");
}

in_both_protocols! {
    kill_9_of_the_receptor,
    kill_9_of_the_connector,
    kill_9_ends_the_servers_side_too,
    reset_of_the_connection,
    a_dead_peer_is_found_by_keep_alive,
    an_idle_tunnel_is_kept_alive,
    clients_are_held_while_the_tunnel_is_down_and_served_after,
    clients_are_served_by_a_connector_started_before_its_receptor,
}
