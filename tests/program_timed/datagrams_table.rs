//! Thousands of clients against a table of a thousand: its costs, and its evictions.

use std::net::{Ipv4Addr, SocketAddr};

use crate::testkit::datagrams::{Client, DatagramServer, datagram};
use crate::testkit::protocol::Protocol;
use crate::testkit::tunnel::Tunnel;
use crate::testkit::{DEADLINE, eventually};

/// Flows at once.
const TABLE: usize = 1_024;

/// Every address once, so that each client is a new one.
const CLIENTS: usize = 8_000;

/// Most growth of either end's memory, from a full table on. Only the entries of flows count: sockets are
/// the kernel's memory.
const GROWTH_BYTES_MAX: u64 = 8 << 20;

/// The client of this number, from an address of its own.
fn client(number: usize, entrance: SocketAddr) -> Client {
    let [_, high, middle, low] = (number as u32).to_be_bytes();
    Client::from(&format!("{}:0", Ipv4Addr::new(127, 1 + high, middle, low)), entrance)
}

#[test]
fn eight_thousand_clients_and_a_table_of_a_thousand() {
    let server = DatagramServer::echo();
    let table = format!("SOXCONF=udpflows:{TABLE}");
    let mut tunnel = Tunnel::start(
        Protocol::V1,
        &[format!("DEST={}/udp", server.address()), table.clone()],
        &["PORT=127.0.0.1:0/udp".to_owned(), table],
    );
    let entrance = tunnel.entrance();
    let idle = [&tunnel.connector, &tunnel.receptor].map(|program| program.descriptors());
    let memory = || [&tunnel.connector, &tunnel.receptor].map(|program| program.rss_bytes());
    let kept: Vec<_> = (0..2).map(|number| client(number, entrance)).collect();
    let [oldest, lively] = [&kept[0], &kept[1]];
    oldest.check_echo(b"first of all");
    lively.check_echo(b"second of all");
    let mut full = None;
    for number in 2..CLIENTS {
        client(number, entrance).check_echo(&datagram(number as u64, 64));
        if number % (TABLE / 2) == 0 {
            // A client that is not silent for long is kept, with the same socket at the exit.
            lively.check_echo(&datagram(number as u64, 64));
        }
        if number == 2 * TABLE {
            full = Some(memory());
        }
        if number % TABLE == 0 {
            let descriptors = tunnel.receptor.descriptors();
            assert!(descriptors <= idle[1] + TABLE + 1, "{descriptors}");
        }
    }
    let (full, end) = (full.expect("more clients than that"), memory());
    println!("bytes at connector and receptor: {full:?} when the table was full, {end:?} now");
    for (full, end) in full.into_iter().zip(end) {
        assert!(end <= full + GROWTH_BYTES_MAX, "{full} bytes grew to {end}");
    }
    assert_eq!(tunnel.connector.descriptors(), idle[0]);
    let settled = || tunnel.receptor.descriptors() <= idle[1] + TABLE;
    assert!(eventually(DEADLINE, settled), "{} descriptors", tunnel.receptor.descriptors());

    // Its flow has ended; the next datagram begins another.
    oldest.check_echo(b"still there");
    tunnel.connector.terminate();
    tunnel.connector.wait_exit(DEADLINE);
    let stopped = tunnel.connector.wait_for("stopped");
    // Every client had one flow, the oldest a second; the lively one's was never evicted.
    assert_eq!(stopped["flows_evicted"], CLIENTS + 1 - TABLE, "{stopped}");
    assert_eq!(stopped["datagrams_dropped"], 0, "{stopped}");
}

/// The peer has a smaller table: it evicts, and logs that.
#[test]
fn the_peers_table_is_the_smaller_one() {
    const PEERS: usize = 64;
    const FEWER_CLIENTS: usize = 1_000;
    let server = DatagramServer::echo();
    let mut tunnel = Tunnel::start(
        Protocol::V1,
        &[format!("DEST={}/udp", server.address()), format!("SOXCONF=udpflows:{PEERS}")],
        &["PORT=127.0.0.1:0/udp"],
    );
    let entrance = tunnel.entrance();
    let idle = tunnel.receptor.descriptors();
    let oldest = client(0, entrance);
    oldest.check_echo(b"first of all");
    for number in 1..FEWER_CLIENTS {
        client(number, entrance).check_echo(&datagram(number as u64, 64));
        assert!(tunnel.receptor.descriptors() <= idle + PEERS + 1);
    }
    // The entrance has forgotten it as well.
    oldest.check_echo(b"still there");
    tunnel.receptor.terminate();
    tunnel.receptor.wait_exit(DEADLINE);
    let stopped = tunnel.receptor.wait_for("stopped");
    assert_eq!(stopped["flows_evicted"], FEWER_CLIENTS + 1 - PEERS, "{stopped}");
    tunnel.connector.terminate();
    tunnel.connector.wait_exit(DEADLINE);
    let stopped = tunnel.connector.wait_for("stopped");
    assert_eq!(stopped["flows_evicted"], 0, "{stopped}");
}
