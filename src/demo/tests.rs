//! Clients against the server with nothing, or a saboteur, between them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};

use super::*;

const SHORT: Duration = Duration::from_millis(50);
/// For traffic that its damage ends. On a busy machine few messages come and go in a short time, and
/// the damaged one may not be among them.
const UNTIL_DAMAGED: Duration = Duration::from_secs(60);

fn started() -> (Arc<Pattern>, PatternServer) {
    let pattern = Arc::new(Pattern::new());
    let server = PatternServer::start(Arc::clone(&pattern)).expect("a port of 127.0.0.1");
    (pattern, server)
}

/// Relays one connection to `server`, with byte `damaged` of the client's data changed.
fn saboteur(server: SocketAddr, damaged: usize) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("the client");
        let mut onward = TcpStream::connect(server).expect("the server");
        let mut back = onward.try_clone().expect("a descriptor");
        let mut to_client = client.try_clone().expect("a descriptor");
        thread::spawn(move || {
            let _ = io::copy(&mut back, &mut to_client);
            let _ = to_client.shutdown(Shutdown::Both);
        });
        let (mut buffer, mut passed) = (vec![0; 65_536], 0);
        while let Ok(n @ 1..) = client.read(&mut buffer) {
            if (passed..passed + n).contains(&damaged) {
                buffer[damaged - passed] ^= 1;
            }
            passed += n;
            if onward.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _ = onward.shutdown(Shutdown::Write);
    });
    address
}

#[test]
fn the_whole_demo_moves_data_both_ways_through_its_tunnel() {
    for engine in [Engine::Uring, Engine::Epoll] {
        let mut out = Vec::new();
        let lengths = Lengths { bulk: SHORT, round_trips: SHORT };
        run_for(lengths, engine, &mut out).expect("a tunnel over loopback");
        let out = String::from_utf8(out).expect("a table in UTF-8");
        let rows =
            ["direct, 1 stream", "tunnel, up, 8 streams", "tunnel, down, 8 streams", "CRC-32"];
        for row in rows {
            assert!(out.contains(row), "{row} is missing in:\n{out}");
        }
    }
}

#[test]
fn bulk_is_counted_alike_at_both_ends() {
    let (pattern, server) = started();
    for direction in [Direction::Up, Direction::Down] {
        for streams in [1, 8] {
            let moved = bulk(server.address(), &pattern, direction, streams, SHORT, true)
                .expect("a direct connection");
            assert!(moved.bytes >= u64::from(streams), "{direction:?} {streams}: {moved:?}");
            assert!(moved.elapsed >= SHORT);
        }
    }
    assert!(server.take_failure().is_none());
}

#[test]
fn messages_come_back() {
    let (_, server) = started();
    let plan = RoundTrips { message_bytes: 64, pause: Duration::ZERO, duration: SHORT };
    let times = round_trips(server.address(), plan).expect("a direct connection");
    assert!(times.count() > 0);
    assert!(times.percentile(50.0) <= times.percentile(99.0));
}

#[test]
fn a_damaged_byte_on_the_way_is_reported_with_its_place() {
    let (pattern, server) = started();
    // Behind the request (16) and the chunk's header (12).
    let between = saboteur(server.address(), 16 + 12 + 700_000);
    bulk(between, &pattern, Direction::Up, 1, UNTIL_DAMAGED, true).expect_err("the damage");
    match server.take_failure().expect("the server's finding") {
        DemoError::Differs { stream: 0, difference } => assert_eq!(difference.position, 700_000),
        other => panic!("{other}"),
    }
}

#[test]
fn a_damaged_answer_is_reported() {
    let (_, server) = started();
    let between = saboteur(server.address(), 16 + 3 * 64 + 40);
    let plan = RoundTrips { message_bytes: 64, pause: Duration::ZERO, duration: UNTIL_DAMAGED };
    match round_trips(between, plan).expect_err("the damage") {
        DemoError::Echo { number: 3 } => {}
        other => panic!("{other}"),
    }
}
