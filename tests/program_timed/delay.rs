//! A tunnel over a long path: how much of it one stream fills, and how long a new one takes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use crate::testkit::delay_line::{DelayLine, Path};
use crate::testkit::net::{Ended, connect, read_to_end_of};
use crate::testkit::pattern::Pattern;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::Server;
use crate::testkit::tunnel::{Tunnel, start_receptor};
use crate::testkit::{DEADLINE, eventually};

/// A path across an ocean. The rate is one that a debug build keeps up with on a busy machine.
const PATH: Path = Path { delay: Duration::from_millis(50), bytes_per_sec: 50e6 };

/// One that has megabytes wait in the sender's socket.
const SLOW_PATH: Path = Path { delay: Duration::from_millis(50), bytes_per_sec: 4e6 };

/// There and back.
const ROUND_TRIP: Duration = Duration::from_millis(100);

/// Most that a busy machine and a debug build may add to one round trip; two are 60 ms longer.
const LATE: Duration = Duration::from_millis(40);

/// How long a transfer is measured.
const TRANSFER: Duration = Duration::from_secs(4);

/// A tunnel over `path` from the connector's entrance to `destination`.
fn long_tunnel(protocol: Protocol, path: Path, destination: SocketAddr) -> (Tunnel, DelayLine) {
    let receptor = start_receptor("127.0.0.1:0", &[format!("DEST={destination}")]);
    let address = receptor.address_of("receptor listening");
    let line = DelayLine::start(path, address);
    let words = ["PORT=127.0.0.1:0"];
    (Tunnel::join(protocol, receptor, address, line.address(), &words), line)
}

/// Sends as much as the connection takes, without end.
fn flood() -> Server {
    Server::start("127.0.0.1:0", |mut stream| {
        let block = vec![7; 256 * 1024];
        loop {
            stream.write_all(&block)?;
        }
    })
}

/// Bytes per second that a new connection to `address` brings, from its first moment.
fn bytes_per_sec(address: SocketAddr) -> f64 {
    let mut buffer = vec![0; 256 * 1024];
    let mut stream = connect(address);
    let start = Instant::now();
    let mut received = 0;
    while start.elapsed() < TRANSFER {
        let got = stream.read(&mut buffer).expect("data");
        assert_ne!(got, 0, "end of data");
        received += got;
    }
    received as f64 / start.elapsed().as_secs_f64()
}

/// Nine tenths of the throughput of one connection. `perf/delay` has the figure of a release build; here a
/// busy machine may spoil a try or two.
#[test]
fn one_stream_fills_a_long_path_as_one_connection_does() {
    const TRIES: usize = 3;
    let server = flood();
    let plain_line = DelayLine::start(PATH, server.address());
    let (tunnel, _line) = long_tunnel(Protocol::V1, PATH, server.address());
    let mut ratios = Vec::new();
    while ratios.len() < TRIES && ratios.iter().all(|&ratio| ratio < 0.9) {
        let plain = bytes_per_sec(plain_line.address());
        let ours = bytes_per_sec(tunnel.entrance());
        println!("{:.1} MB/s plain, {:.1} in a stream", plain / 1e6, ours / 1e6);
        ratios.push(ours / plain);
    }
    assert!(ratios.iter().any(|&ratio| ratio >= 0.9), "only {ratios:.2?} of one connection");
}

/// The time from a client's connect to the first byte of an answer to `request_bytes`.
fn time_to_answer(entrance: SocketAddr, request_bytes: usize) -> Duration {
    let request = vec![1; request_bytes];
    let start = Instant::now();
    let mut stream = connect(entrance);
    stream.write_all(&request).expect("the request is sent");
    stream.read_exact(&mut [0]).expect("an answer");
    start.elapsed()
}

/// First data rides in the frame that opens the stream, and more follows it unasked.
#[test]
fn the_answer_on_a_new_stream_comes_after_one_round_trip() {
    for request_bytes in [1, 200_000] {
        let server = Server::start("127.0.0.1:0", move |mut stream| {
            stream.read_exact(&mut vec![0; request_bytes])?;
            stream.write_all(b"!")
        });
        let (tunnel, _line) = long_tunnel(Protocol::V1, PATH, server.address());
        let mut best = Duration::MAX;
        let in_time = eventually(DEADLINE / 6, || {
            best = best.min(time_to_answer(tunnel.entrance(), request_bytes));
            best <= ROUND_TRIP + LATE
        });
        println!("the answer to {request_bytes} bytes came after {best:?}");
        assert!(best >= ROUND_TRIP, "the line did not delay anything");
        assert!(in_time, "the answer to {request_bytes} bytes took {best:?} at best");
    }
}

/// The sending end has ended long before the last bytes arrive.
fn an_answer_arrives_whole_from_an_end_that_drains(protocol: Protocol) {
    const ANSWER_BYTES: u64 = 8 << 20;
    let server = Server::start("127.0.0.1:0", |mut stream| {
        stream.read_exact(&mut [0])?;
        Pattern::new(4).send(&mut stream, ANSWER_BYTES)
    });
    let (mut tunnel, _line) = long_tunnel(protocol, SLOW_PATH, server.address());
    let mut stream = connect(tunnel.entrance());
    stream.write_all(b"?").expect("the request is sent");
    stream.shutdown(Shutdown::Write).expect("half-close");
    let mut pattern = Pattern::new(4);
    pattern.receive(&mut stream, 1000).expect("the answer begins");
    tunnel.receptor.terminate();
    pattern.receive(&mut stream, ANSWER_BYTES - 1000).expect("the whole answer");
    assert_eq!(read_to_end_of(&mut stream, DEADLINE), Ended::Eof);
    assert_eq!(tunnel.receptor.wait_exit(DEADLINE).code(), Some(0));
}

/// Clients that came at the connector before it knew that the receptor drains are served.
#[test]
fn streams_that_cross_the_news_of_a_drain_are_served() {
    let server = Server::named("served");
    let (mut tunnel, _line) = long_tunnel(Protocol::V1, PATH, server.address());
    let mut clients: Vec<_> = (0..5).map(|_| connect(tunnel.entrance())).collect();
    tunnel.receptor.terminate();
    for client in &mut clients {
        let mut line = [0; 7];
        client.read_exact(&mut line).expect("the server's name");
        assert_eq!(line, *b"served\n");
    }
    drop(clients);
    assert_eq!(tunnel.receptor.wait_exit(DEADLINE).code(), Some(0));
}

in_both_protocols! {
    an_answer_arrives_whole_from_an_end_that_drains,
}
