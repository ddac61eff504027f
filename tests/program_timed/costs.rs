//! The costs of a fixed amount of work of two real programs, counted: calls by kind, operations, turns of
//! the loop, bytes copied. No clock is read. Sequential work costs nearly the same in each run; the
//! splitting of bulk depends on the scheduler, so its bounds are wide.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::Value;

use crate::testkit::DEADLINE;
use crate::testkit::engine::Leg;
use crate::testkit::net::{Ended, connect, read_to_end_of};
use crate::testkit::protocol::Protocol;
use crate::testkit::pure::costs::{Cost, all_within, bounded, check};
use crate::testkit::servers::Server;
use crate::testkit::tunnel::Tunnel;

// Of both programs together. "Measured" is the median of 20 runs on 2 cores that did little else. A bound
// is the most of some 50 runs, a third of them beside four busy loops on these cores and a fifth on one
// core alone, and a tenth more; of a GiB, whichever engine needed more, and half as much again.
// Bytes copied of large messages are those that came before the stream was open: a few may.
const URING: &[Cost] = &[
    bounded("message of 64 bytes, and answer: enters", 15.5, 17.8),
    bounded("message of 64 bytes, and answer: submissions", 4.10, 5.7),
    bounded("message of 64 bytes, and answer: receives", 0.036, 0.63),
    bounded("message of 64 bytes, and answer: sends", 4.02, 4.45),
    bounded("message of 64 bytes, and answer: polls", 0.036, 0.63),
    bounded("message of 64 bytes, and answer: completions", 8.08, 9.5),
    bounded("message of 64 bytes, and answer: turns", 7.78, 9.4),
    bounded("message of 64 bytes, and answer: copied_bytes", 128.064, 141.0),
    bounded("message of 2,048 bytes, and answer: sends", 4.13, 4.6),
    bounded("message of 2,048 bytes, and answer: copied_bytes", 2.048, 64.0),
    bounded("connection: enters", 18.3, 21.2),
    bounded("connection: submissions", 17.08, 18.9),
    bounded("connection: receives", 4.01, 4.4),
    bounded("connection: sends", 8.02, 9.0),
    bounded("connection: polls", 4.02, 4.4),
    bounded("connection: completions", 22.6, 26.4),
    bounded("connection: turns", 17.8, 20.5),
    bounded("connection: copied_bytes", 4.86, 5.5),
    bounded("GiB: submissions", 4_452.0, 10_100.0),
    bounded("GiB: turns", 3_960.0, 10_800.0),
    bounded("GiB: direct_sends", 3_040.0, 9_000.0),
    bounded("GiB: ahead_reads", 2_104.0, 16_100.0),
    bounded("GiB: splices", 9_640.0, 21_900.0),
    bounded("GiB: MiB not spliced", 16.0, 234.0),
];

/// Calls are not counted with messages: each poll is one, and the number of polls for the next message
/// depends on the clock.
const EPOLL: &[Cost] = &[
    bounded("message of 64 bytes, and answer: submissions", 4.10, 5.7),
    bounded("message of 64 bytes, and answer: receives", 0.036, 0.63),
    bounded("message of 64 bytes, and answer: sends", 4.02, 4.45),
    bounded("message of 64 bytes, and answer: polls", 0.036, 0.63),
    bounded("message of 64 bytes, and answer: completions", 8.08, 9.5),
    bounded("message of 64 bytes, and answer: turns", 8.07, 9.4),
    bounded("message of 64 bytes, and answer: copied_bytes", 128.064, 141.0),
    bounded("message of 2,048 bytes, and answer: sends", 4.13, 4.6),
    bounded("message of 2,048 bytes, and answer: copied_bytes", 2.048, 64.0),
    bounded("connection: enters", 33.7, 38.6),
    bounded("connection: submissions", 17.15, 18.9),
    bounded("connection: receives", 4.01, 4.4),
    bounded("connection: sends", 8.07, 9.0),
    bounded("connection: polls", 4.02, 4.4),
    bounded("connection: completions", 23.4, 26.4),
    bounded("connection: turns", 21.3, 25.0),
    bounded("connection: copied_bytes", 4.31, 5.5),
    bounded("GiB: submissions", 4_572.0, 10_100.0),
    bounded("GiB: turns", 4_232.0, 10_800.0),
    bounded("GiB: direct_sends", 3_116.0, 9_000.0),
    bounded("GiB: ahead_reads", 2_312.0, 16_100.0),
    bounded("GiB: splices", 9_616.0, 21_900.0),
    bounded("GiB: MiB not spliced", 20.0, 234.0),
];

const MESSAGES: u64 = 1_000;
const CONNECTIONS: u64 = 200;
const BULK_BYTES: u64 = 256 << 20;

/// The counters that the programs log at the end, by their messages.
const COUNTED: &[(&str, &[&str])] = &[
    ("counts", &["turns", "splices", "direct_sends", "ahead_reads", "copied_bytes"]),
    ("driver counts", &["enters", "receives", "sends", "polls", "submissions", "completions"]),
    ("stopped", &["spliced_from_local", "spliced_to_local"]),
];

/// Runs `work` through a tunnel to a server, and sums up the counters of both programs.
fn counted(server: &Server, work: impl FnOnce(SocketAddr)) -> BTreeMap<&'static str, u64> {
    let exit = [format!("DEST={}", server.address()), String::from("-v")];
    let mut tunnel = Tunnel::start(Protocol::V1, &exit, &["PORT=127.0.0.1:0", "-v"]);
    work(tunnel.entrance());
    for program in [&mut tunnel.connector, &mut tunnel.receptor] {
        program.terminate();
        program.wait_exit(DEADLINE);
    }
    let mut sums = BTreeMap::new();
    for (message, names) in COUNTED {
        for program in [&tunnel.connector, &tunnel.receptor] {
            let event = program.wait_for(message);
            for &name in *names {
                *sums.entry(name).or_default() += count(&event, name);
            }
        }
    }
    sums
}

fn count(event: &Value, name: &str) -> u64 {
    event[name].as_u64().unwrap_or_else(|| panic!("no {name} in {event}"))
}

/// For each of so many units of work.
fn per(
    work: &str,
    units: f64,
    names: &[&str],
    counts: &BTreeMap<&'static str, u64>,
) -> Vec<(String, f64)> {
    names.iter().map(|&name| (format!("{work}: {name}"), counts[name] as f64 / units)).collect()
}

const SMALL: &[&str] =
    &["submissions", "receives", "sends", "polls", "completions", "turns", "copied_bytes"];

/// Messages in one stream, each of which is answered before the next.
fn messages(work: &str, bytes: usize, names: &[&str]) -> Vec<(String, f64)> {
    let counts = counted(&Server::echo(), |entrance| {
        let mut stream = connect(entrance);
        let mut message = vec![7; bytes];
        for _ in 0..MESSAGES {
            stream.write_all(&message).expect("sent");
            stream.read_exact(&mut message).expect("echoed");
        }
    });
    per(work, MESSAGES as f64, names, &counts)
}

/// Streams one after another: a question, its answer, the end, which the server begins.
fn connections(work: &str) -> Vec<(String, f64)> {
    let counts = counted(&Server::ends_first(), |entrance| {
        for _ in 0..CONNECTIONS {
            let mut stream = connect(entrance);
            stream.write_all(b"x").expect("sent");
            stream.read_exact(&mut [0; 3]).expect("the answer");
            assert_eq!(read_to_end_of(&mut stream, DEADLINE), Ended::Eof);
        }
    });
    per(work, CONNECTIONS as f64, &[&["enters"], SMALL].concat(), &counts)
}

/// One stream up.
fn bulk(work: &str) -> Vec<(String, f64)> {
    let server = Server::start("127.0.0.1:0", |mut stream| {
        let mut buffer = vec![0; 256 << 10];
        while stream.read(&mut buffer)? > 0 {}
        stream.write_all(b"k")
    });
    let mut counts = counted(&server, |entrance| {
        let mut stream: TcpStream = connect(entrance);
        let piece = vec![7; 256 << 10];
        for _ in 0..BULK_BYTES / piece.len() as u64 {
            stream.write_all(&piece).expect("sent");
        }
        stream.shutdown(Shutdown::Write).expect("half-closed");
        stream.read_exact(&mut [0]).expect("the verdict");
    });
    let spliced = counts["spliced_from_local"] + counts["spliced_to_local"];
    counts.insert("MiB not spliced", (2 * BULK_BYTES - spliced) >> 20);
    let names =
        ["submissions", "turns", "direct_sends", "ahead_reads", "splices", "MiB not spliced"];
    per(work, BULK_BYTES as f64 / f64::from(1 << 30), &names, &counts)
}

/// Each figure of one round.
fn round(is_uring: bool) -> Vec<(String, f64)> {
    let with_enters = [&["enters"], SMALL].concat();
    let small = if is_uring { &with_enters } else { SMALL };
    [
        messages("message of 64 bytes, and answer", 64, small),
        messages("message of 2,048 bytes, and answer", 2_048, &["sends", "copied_bytes"]),
        connections("connection"),
        bulk("GiB"),
    ]
    .concat()
}

/// A round that was affected by the scheduler is repeated: the minimum of each figure is the cost of the
/// work itself.
#[test]
fn no_work_costs_a_real_relay_more_than_it_may() {
    const ROUNDS: usize = 3;
    let is_uring = Leg::current() == Leg::Uring;
    let table = if is_uring { URING } else { EPOLL };
    let mut least = round(is_uring);
    for _ in 1..ROUNDS {
        if all_within(table, &least) {
            break;
        }
        for (figure, (_, again)) in least.iter_mut().zip(round(is_uring)) {
            figure.1 = figure.1.min(again);
        }
    }
    check(table, &least);
}
