//! Datagrams that do not fit into a packet of the device they leave by: the kernel cuts no run
//! into those, so that each has to be sent by itself, and cuts each into fragments.

use crate::testkit::DEADLINE;
use crate::testkit::datagrams::{Client, DatagramServer, datagram};
use crate::testkit::network;
use crate::testkit::program::Program;
use crate::testkit::protocol::Protocol;
use crate::testkit::skip::needs;
use crate::testkit::tunnel::Tunnel;

/// That of Ethernet and of most paths.
const MTU_BYTES: u32 = 1500;

/// Bursts of equal size become runs: some that fit into a packet and some that do not, in turn, so that
/// the limit of one size must not affect others.
fn check_bursts(client: &Client) {
    const BURST: u64 = 12;
    for round in 0..5 {
        for bytes in [1_472, 9_000, 100, 2_000, 1_473, 65_507] {
            // Of the largest, fewer: they all have to find room in a socket.
            let count = if bytes > 9_000 { 2 } else { BURST };
            let made = |number| datagram(round << 32 | number, bytes);
            (0..count).for_each(|number| client.send(&made(number)));
            for number in 0..count {
                let got = client.receive();
                assert!(got == made(number), "{bytes} bytes, number {number}: {}", got.len());
            }
        }
    }
}

#[test]
fn runs_of_long_datagrams_through_the_tunnel() {
    needs!(Namespaces, "ip");
    network::enter_new(MTU_BYTES);
    for ip in ["127.0.0.1", "[::1]"] {
        let server = DatagramServer::echo_on(&format!("{ip}:0"));
        let mut tunnel = Tunnel::start(
            Protocol::V1,
            &[format!("DEST={}/udp", server.address())],
            &[format!("PORT={ip}:0/udp")],
        );
        check_bursts(&Client::of(tunnel.entrance()));
        for program in [&mut tunnel.connector, &mut tunnel.receptor] {
            program.terminate();
            program.wait_exit(DEADLINE);
            let stopped = program.wait_for("stopped");
            assert_eq!(stopped["datagrams_dropped"], 0, "{stopped}");
        }
    }
}

#[test]
fn runs_of_long_datagrams_through_a_plain_relay() {
    needs!(Namespaces, "ip");
    network::enter_new(MTU_BYTES);
    let server = DatagramServer::echo();
    let relay = Program::start(&[
        String::from("-P127.0.0.1:0/udp"),
        format!("SERVER=udprelay://{}", server.address()),
    ]);
    check_bursts(&Client::of(relay.address_of("entrance listening")));
}
