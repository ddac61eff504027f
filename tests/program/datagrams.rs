//! UDP through the tunnel: the real binary, real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use crate::testkit::datagrams::{Client, DatagramServer, datagram};
use crate::testkit::net::check_new_echo;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::Server;
use crate::testkit::tunnel::{NO_RESUMPTION, Tunnel, start_connector, start_receptor};
use crate::testkit::{DEADLINE, eventually};

in_both_protocols!(
    datagrams_of_every_size_keep_their_boundaries,
    a_burst_of_mixed_sizes_keeps_order_and_boundaries,
    every_client_gets_its_own_answers,
    the_newest_of_many_clients_is_always_answered,
    a_silent_flow_ends_and_begins_anew,
    the_newest_finds_a_descriptor,
    a_server_that_is_not_there_ends_the_flow,
    flows_begin_anew_after_the_tunnel_was_down,
    datagrams_wait_for_the_name_of_their_server,
    an_idle_flow_does_not_hold_up_the_end,
    byte_streams_and_datagrams_in_one_tunnel,
);

/// Longer than a flow takes to be begun anew, and its datagram to be answered.
const SOON: Duration = Duration::from_secs(5);

/// One entrance for datagrams at the connector, one exit at the receptor.
fn tunnel_to(protocol: Protocol, server: SocketAddr, more: &[&str]) -> Tunnel {
    let both = |word: String| {
        let more = more.iter().map(|&word| word.to_owned());
        std::iter::once(word).chain(more).collect::<Vec<_>>()
    };
    let receptor = both(format!("DEST={server}/udp"));
    Tunnel::start(protocol, &receptor, &both(String::from("PORT=127.0.0.1:0/udp")))
}

fn datagrams_of_every_size_keep_their_boundaries(protocol: Protocol) {
    let server = DatagramServer::echo();
    let mut tunnel = tunnel_to(protocol, server.address(), &[]);
    let client = Client::of(tunnel.entrance());
    let sizes: &[usize] = match protocol {
        Protocol::V1 => &[1, 0, 1472, 9000, 65_507, 0, 7, 1],
        // 0.3 cannot express an empty one, and this is the most in a packet.
        Protocol::V03 => &[1, 1472, 9000, 16_376, 7, 1],
    };
    for (number, &bytes) in sizes.iter().enumerate() {
        client.check_echo(&datagram(number as u64, bytes));
    }
    if protocol == Protocol::V03 {
        for bytes in [16_377, 0, 65_507] {
            client.send(&datagram(0, bytes));
            client.check_echo(b"still there");
        }
        let wait = "a datagram is longer than this tunnel carries";
        tunnel.connector.wait_for_event(wait, 1, |event| {
            event["message"].as_str().is_some_and(|said| said.starts_with(wait))
        });
        tunnel.connector.terminate();
        tunnel.connector.wait_exit(DEADLINE);
        let stopped = tunnel.connector.wait_for("stopped");
        assert_eq!(stopped["datagrams_dropped"], 3, "{stopped}");
    }
}

fn a_burst_of_mixed_sizes_keeps_order_and_boundaries(protocol: Protocol) {
    const COUNT: u64 = 300;
    let server = DatagramServer::echo();
    let tunnel = tunnel_to(protocol, server.address(), &[]);
    let client = Client::of(tunnel.entrance());
    // Runs of equal sizes, with shorter, longer and (where they are possible) empty ones between.
    let least = usize::from(protocol == Protocol::V03);
    let bytes = |number: u64| match number {
        0..100 => 64,
        100..200 if number.is_multiple_of(7) => 20 + number as usize % 90,
        100..200 => 64,
        _ => least + (number as usize * 37) % 1_500,
    };
    for round in 0..5 {
        // As many at once as are sure to find room, towards an original's window, too.
        for first in (0..COUNT).step_by(20) {
            let numbers = first..first + 20;
            numbers.clone().for_each(|n| client.send(&datagram(round << 32 | n, bytes(n))));
            for n in numbers {
                assert_eq!(client.receive(), datagram(round << 32 | n, bytes(n)), "number {n}");
            }
        }
    }
}

fn every_client_gets_its_own_answers(protocol: Protocol) {
    // As many as an original would take.
    const CLIENTS: u64 = 50;
    let server = DatagramServer::echo();
    let tunnel = tunnel_to(protocol, server.address(), &[]);
    let clients: Vec<_> = (0..CLIENTS).map(|_| Client::of(tunnel.entrance())).collect();
    for round in 0..5 {
        for (number, client) in clients.iter().enumerate() {
            client.send(&datagram(round << 32 | number as u64, 40));
        }
        for (number, client) in clients.iter().enumerate() {
            assert_eq!(client.receive(), datagram(round << 32 | number as u64, 40));
        }
    }
}

fn the_newest_of_many_clients_is_always_answered(protocol: Protocol) {
    const TABLE: usize = 8;
    let server = DatagramServer::echo();
    let tunnel = tunnel_to(protocol, server.address(), &[&format!("SOXCONF=udpflows:{TABLE}")]);
    let idle = tunnel.receptor.descriptors();
    let oldest = Client::of(tunnel.entrance());
    oldest.check_echo(b"first of all");
    for number in 0..10 * TABLE as u64 {
        let client = Client::of(tunnel.entrance());
        client.check_echo(&datagram(number, 100));
        assert!(tunnel.receptor.descriptors() <= idle + TABLE + 1);
    }
    // Its flow has ended; the next datagram begins another.
    oldest.check_echo(b"still there");
    let settled = || tunnel.receptor.descriptors() <= idle + TABLE;
    assert!(eventually(DEADLINE, settled), "{} descriptors", tunnel.receptor.descriptors());
}

fn a_silent_flow_ends_and_begins_anew(protocol: Protocol) {
    let server = DatagramServer::echo();
    let tunnel = tunnel_to(protocol, server.address(), &["TIMEOUT=udp:1"]);
    let idle = tunnel.receptor.descriptors();
    let client = Client::of(tunnel.entrance());
    for round in 0..2 {
        client.check_echo(&datagram(round, 10));
        assert_eq!(tunnel.receptor.descriptors(), idle + 1);
        assert!(eventually(DEADLINE, || tunnel.receptor.descriptors() == idle));
    }
}

fn the_newest_finds_a_descriptor(protocol: Protocol) {
    const FLOWS: u64 = 4;
    let server = DatagramServer::echo();
    let tunnel = tunnel_to(protocol, server.address(), &[]);
    let few = tunnel.receptor.descriptors() as u64 + FLOWS;
    tunnel.receptor.limit_descriptors(few);
    for number in 0..5 * FLOWS {
        Client::of(tunnel.entrance()).echo_in_the_end(&datagram(number, 100));
    }
    assert!(tunnel.receptor.log_text().contains("Too many open files"));
}

fn a_server_that_is_not_there_ends_the_flow(protocol: Protocol) {
    let address = DatagramServer::echo().address();
    let tunnel = tunnel_to(protocol, address, &[]);
    let idle = tunnel.receptor.descriptors();
    let client = Client::of(tunnel.entrance());
    client.send(b"anybody?");
    let reason = tunnel.receptor.wait_for_reason("stream refused");
    assert!(reason.contains("nobody listens") && reason.contains("/udp"), "{reason}");
    assert!(eventually(DEADLINE, || tunnel.receptor.descriptors() == idle));
    assert_eq!(tunnel.receptor.count("stream refused"), 1);
    let _server = DatagramServer::echo_on(&address.to_string());
    client.echo_in_the_end(b"now?");
}

fn flows_begin_anew_after_the_tunnel_was_down(protocol: Protocol) {
    let server = DatagramServer::echo();
    let receptor = start_receptor("127.0.0.1:0", &[format!("DEST={}/udp", server.address())]);
    let address = receptor.address_of("receptor listening");
    let connector = start_connector(protocol, address, &["PORT=127.0.0.1:0/udp", NO_RESUMPTION]);
    connector.wait_for("tunnel up");
    let client = Client::of(connector.address_of("entrance listening"));
    client.check_echo(b"before");
    let mut receptor = receptor;
    receptor.kill_9();
    connector.wait_for("tunnel down");
    client.send(b"lost");
    assert_eq!(client.hears_within(Duration::from_millis(100)), None);
    let words = [format!("DEST={}/udp", server.address())];
    let _again = start_receptor(&address.to_string(), &words);
    connector.wait_for_nth("tunnel up", 2);
    client.send(b"after");
    // Datagrams that were sent while the tunnel was down do not arrive late.
    assert_eq!(client.receive(), b"after");
}

fn datagrams_wait_for_the_name_of_their_server(protocol: Protocol) {
    let server = DatagramServer::echo();
    let port = server.address().port();
    let tunnel =
        Tunnel::start(protocol, &[format!("DEST=localhost:{port}/udp")], &["PORT=127.0.0.1:0/udp"]);
    let client = Client::of(tunnel.entrance());
    for number in 0..3 {
        client.send(&datagram(number, 30));
    }
    for number in 0..3 {
        assert_eq!(client.receive(), datagram(number, 30));
    }
}

fn an_idle_flow_does_not_hold_up_the_end(protocol: Protocol) {
    let server = DatagramServer::echo();
    let mut tunnel = tunnel_to(protocol, server.address(), &[]);
    let client = Client::of(tunnel.entrance());
    client.check_echo(b"hello");
    tunnel.receptor.terminate();
    assert!(tunnel.receptor.wait_exit(SOON).success());
    assert_eq!(tunnel.receptor.wait_for("stopped")["how"], "Drained");
}

fn byte_streams_and_datagrams_in_one_tunnel(protocol: Protocol) {
    let (server, datagrams) = (Server::echo(), DatagramServer::echo());
    let tunnel = Tunnel::start(
        protocol,
        &[format!("DEST={}", server.address()), format!("DEST={}/udp", datagrams.address())]
            // 0.3 does not announce the transport of a stream: the first exit would take it.
            [usize::from(protocol == Protocol::V03)..],
        &["PORT=127.0.0.1:0/udp", "PORT=127.0.0.1:0"],
    );
    let log = tunnel.connector.wait_for_event("the entrance for datagrams", 1, |event| {
        event["address"].as_str().is_some_and(|address| address.ends_with("/udp"))
    });
    let address = log["address"].as_str().unwrap().trim_end_matches("/udp").parse().unwrap();
    let client = Client::of(address);
    client.check_echo(b"datagram");
    if protocol == Protocol::V1 {
        check_new_echo(tunnel.entrance(), 1, 100_000);
        client.check_echo(b"another");
    }
}
