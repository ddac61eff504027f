//! Many streams in one persistent connection, and stalled ones.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use sockmux_uring::limits::WINDOW_BYTES;

use crate::testkit::net::{
    Ended, check_echo, check_new_echo, connect, read_to_end_of, reset, send_until_blocked,
};
use crate::testkit::pattern::Pattern;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::{Exchange, Server};
use crate::testkit::tunnel::{Tunnel, start_connector, start_receptor};
use crate::testkit::{DEADLINE, eventually, wait_until_still};

/// Most growth of a process while so many of its streams are stalled: the window of each, which its peer
/// had been allowed to send; the receive buffers (6 MB), touched for the first time; and room for
/// fragmentation of the windows' buffers. Without a bound it would grow by all data of the servers,
/// gigabytes.
fn rss_growth_bytes_max(streams: usize) -> u64 {
    streams as u64 * u64::from(WINDOW_BYTES) + (40 << 20)
}

fn two_hundred_streams_at_once(protocol: Protocol) {
    const STREAMS: usize = 200;
    let server = Server::exchange();
    let tunnel = Tunnel::to(protocol, server.address());
    let entrance = tunnel.entrance();
    let open = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for seed in 0..STREAMS as u64 {
            let open = &open;
            scope.spawn(move || {
                let asked = Exchange { seed, up_bytes: 300_000, down_bytes: 300_000 };
                let stream = connect(entrance);
                asked.ask(&stream);
                // The first byte down proves that this stream is open from end to end.
                assert_eq!(stream.peek(&mut [0]).expect("a first byte"), 1);
                open.fetch_add(1, Ordering::SeqCst);
                let all_open = || open.load(Ordering::SeqCst) == STREAMS;
                assert!(eventually(DEADLINE, all_open), "only {open:?} streams opened");
                asked.finish(&stream);
            });
        }
    });
    assert_eq!(server.served(), STREAMS);
}

fn a_slow_link_still_carries_every_byte(protocol: Protocol) {
    let server = Server::exchange();
    let (tunnel, proxy) = Tunnel::start_spoilable(
        protocol,
        &[format!("DEST={}", server.address())],
        &["PORT=127.0.0.1:0"],
    );
    proxy.set_delay(Duration::from_millis(5));
    let entrance = tunnel.entrance();
    std::thread::scope(|scope| {
        for seed in 0..20 {
            scope.spawn(move || {
                Exchange { seed, up_bytes: 200_000, down_bytes: 200_000 }.run(entrance);
            });
        }
    });
    assert!(eventually(DEADLINE, || proxy.carried_bytes() > 20 * 400_000), "all went that way");
}

/// Sends patterns as fast as they are read, and counts the bytes sent on all connections.
fn source(seed: u64, total_bytes: u64) -> (Server, Arc<AtomicU64>) {
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    let server = Server::start("127.0.0.1:0", move |mut stream| {
        let mut pattern = Pattern::new(seed);
        while pattern.offset() < total_bytes {
            let before = pattern.offset();
            pattern.send(&mut stream, (total_bytes - before).min(64 * 1024))?;
            counter.fetch_add(pattern.offset() - before, Ordering::SeqCst);
        }
        Ok(())
    });
    (server, sent)
}

fn a_client_that_stops_reading_holds_up_only_itself(protocol: Protocol) {
    const STALLED_BYTES: u64 = 64 << 20;
    const READ_FIRST_BYTES: u64 = 1 << 20;
    const OTHER_BYTES: u64 = 64 << 20;
    let (server, sent) = source(1, STALLED_BYTES);
    let other = Server::exchange();
    let receptor = start_receptor("127.0.0.1:0", &["PORT=127.0.0.1:0,127.0.0.1:0"]);
    let slow_entrance = receptor.nth_address_of("entrance listening", 1);
    let other_entrance = receptor.nth_address_of("entrance listening", 2);
    let connector = start_connector(
        protocol,
        receptor.address_of("receptor listening"),
        &[
            format!("DEST={}:-P{}", server.address(), slow_entrance.port()),
            format!("DEST={}:-P{}", other.address(), other_entrance.port()),
        ],
    );
    connector.wait_for("tunnel up");

    // Warm up, so that memory that is kept for ever is in the first figure.
    Exchange { seed: 7, up_bytes: 4 << 20, down_bytes: 4 << 20 }.run(other_entrance);
    let rss = || [receptor.rss_bytes(), connector.rss_bytes()];
    let rss_before = rss();

    let mut slow = connect(slow_entrance);
    let mut expected = Pattern::new(1);
    expected.receive(&mut slow, READ_FIRST_BYTES).expect("the first bytes");
    // No byte of the stalled stream is read or stored meanwhile. On a busy machine a relay that waits
    // for its processor looks as still as one that waits for its client: then once more.
    let beside_other = |seed| {
        let stalled_at = wait_until_still(|| sent.load(Ordering::SeqCst));
        assert!(stalled_at < STALLED_BYTES, "the server is not held up: it has sent everything");
        Exchange { seed, up_bytes: OTHER_BYTES, down_bytes: OTHER_BYTES }.run(other_entrance);
        sent.load(Ordering::SeqCst) - stalled_at
    };
    let read_bytes: Vec<_> = (8..11).map(beside_other).take_while(|&bytes| bytes > 0).collect();
    assert!(read_bytes.len() < 3, "{read_bytes:?} bytes were read meanwhile");
    for (before, after) in rss_before.into_iter().zip(rss()) {
        let grown = after.saturating_sub(before);
        assert!(grown <= rss_growth_bytes_max(1), "memory grew from {before} to {after} bytes");
    }
    expected.receive(&mut slow, STALLED_BYTES - READ_FIRST_BYTES).expect("all the rest");
}

fn a_server_that_stops_reading_holds_up_only_its_stream(protocol: Protocol) {
    // Reads nothing until the client has sent its fill, then takes and checks everything.
    let go = Arc::new(AtomicUsize::new(0));
    let gate = Arc::clone(&go);
    const BYTES: u64 = 64 << 20;
    let stubborn = Server::start("127.0.0.1:0", move |mut stream| {
        eventually(Duration::from_secs(120), || gate.load(Ordering::SeqCst) == 1);
        Pattern::new(3).receive(&mut stream, BYTES)?;
        std::io::Write::write_all(&mut stream, b"k")
    });
    let tunnel = Tunnel::to(protocol, stubborn.address());
    let stream = connect(tunnel.entrance());
    let sent = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            stream.set_write_timeout(None).expect("no timeout: it is meant to block");
            let mut pattern = Pattern::new(3);
            while pattern.offset() < BYTES {
                pattern.send(&mut &stream, 64 * 1024).expect("sent in the end");
                sent.store(pattern.offset(), Ordering::SeqCst);
            }
        });
        let before = [tunnel.receptor.rss_bytes(), tunnel.connector.rss_bytes()];
        let stalled_at = wait_until_still(|| sent.load(Ordering::SeqCst));
        assert!(stalled_at < BYTES, "the client is not held up: it has sent everything");
        for (program, before) in [&tunnel.receptor, &tunnel.connector].into_iter().zip(before) {
            let grown = program.rss_bytes().saturating_sub(before);
            assert!(grown <= rss_growth_bytes_max(1), "memory grew by {grown} bytes");
        }
        go.store(1, Ordering::SeqCst);
    });
    assert_eq!(std::io::Read::read(&mut { &stream }, &mut [0]).expect("the verdict"), 1);
}

fn memory_is_bounded_with_a_hundred_clients_that_do_not_read(protocol: Protocol) {
    let (server, sent) = source(2, 1 << 30);
    let tunnel = Tunnel::to(protocol, server.address());
    let echo_before = [tunnel.receptor.rss_bytes(), tunnel.connector.rss_bytes()];
    let stalled: Vec<TcpStream> = (0..100).map(|_| connect(tunnel.entrance())).collect();
    assert!(eventually(DEADLINE, || server.served() == stalled.len()));
    wait_until_still(|| sent.load(Ordering::SeqCst));
    for (program, before) in [&tunnel.receptor, &tunnel.connector].into_iter().zip(echo_before) {
        let grown = program.rss_bytes().saturating_sub(before);
        assert!(grown <= rss_growth_bytes_max(stalled.len()), "memory grew by {grown} bytes");
    }
    // They go away without having read: everything is given back, and others are served.
    drop(stalled);
    let mut next = connect(tunnel.entrance());
    Pattern::new(2).receive(&mut next, 1 << 20).expect("a new stream is served");
}

fn a_client_that_is_reset_behind_a_server_that_does_not_read(protocol: Protocol) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let tunnel = Tunnel::to(protocol, listener.local_addr().expect("an address"));
    let before = tunnel.connector.sockets();
    let client = connect(tunnel.entrance());
    let (mut server, _) = listener.accept().expect("the tunnel comes");
    send_until_blocked(&client);
    reset(client);
    assert!(eventually(DEADLINE, || tunnel.connector.sockets() <= before), "nobody noticed");
    // Data that was delivered before is still in the server's socket.
    assert_eq!(read_to_end_of(&mut server, DEADLINE), Ended::Reset);
}

fn a_client_that_is_reset_while_the_link_stands_still(protocol: Protocol) {
    let server = Server::start("127.0.0.1:0", |mut stream| {
        std::io::copy(&mut stream, &mut std::io::sink()).map(|_| ())
    });
    let tunnel = Tunnel::to(protocol, server.address());
    let before = [&tunnel.connector, &tunnel.receptor].map(|program| program.sockets());
    let mut client = connect(tunnel.entrance());
    Pattern::new(1).send(&mut client, 32 << 20).expect("data is sent");
    tunnel.receptor.pause();
    send_until_blocked(&client);
    reset(client);
    tunnel.connector.check_idle();
    assert!(eventually(DEADLINE, || tunnel.connector.sockets() <= before[0]), "nobody noticed");
    tunnel.receptor.go_on();
    assert!(eventually(DEADLINE, || tunnel.receptor.sockets() <= before[1]), "nobody was told");
}

fn streams_that_come_and_go_do_not_disturb_a_long_one(protocol: Protocol) {
    let server = Server::echo();
    let tunnel = Tunnel::to(protocol, server.address());
    let entrance = tunnel.entrance();
    std::thread::scope(|scope| {
        scope.spawn(move || check_new_echo(entrance, 1000, 32 << 20));
        for worker in 0..4 {
            scope.spawn(move || {
                for round in 0..50 {
                    check_new_echo(entrance, worker * 50 + round, 20_000);
                }
            });
        }
    });
}

/// Once, a bulk stream that fell silent kept its claim on a receive buffer, and a few dozen of
/// them stopped all others for ever.
fn bulk_streams_that_fell_silent_leave_the_buffers_to_others(protocol: Protocol) {
    const SILENT: u64 = 80;
    let server = Server::echo();
    let tunnel = Tunnel::to(protocol, server.address());
    let silent: Vec<_> = (0..SILENT)
        .map(|seed| {
            let stream = connect(tunnel.entrance());
            check_echo(&stream, seed, 300_000);
            stream
        })
        .collect();
    check_new_echo(tunnel.entrance(), SILENT, 8 << 20);
    drop(silent);
}

in_both_protocols! {
    two_hundred_streams_at_once,
    a_slow_link_still_carries_every_byte,
    a_client_that_stops_reading_holds_up_only_itself,
    a_server_that_stops_reading_holds_up_only_its_stream,
    memory_is_bounded_with_a_hundred_clients_that_do_not_read,
    a_client_that_is_reset_behind_a_server_that_does_not_read,
    a_client_that_is_reset_while_the_link_stands_still,
    streams_that_come_and_go_do_not_disturb_a_long_one,
    bulk_streams_that_fell_silent_leave_the_buffers_to_others,
}
