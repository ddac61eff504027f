//! The exit of a flow, the source of its answers, and the end of a flow without an exit.

use std::net::SocketAddr;
use std::time::Duration;

use crate::testkit::DEADLINE;
use crate::testkit::datagrams::{Client, DatagramServer, datagram};
use crate::testkit::net::{check_new_echo, free_port, is_turned_away};
use crate::testkit::program::Program;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::Server;
use crate::testkit::tunnel::{NO_RESUMPTION, Tunnel, start_connector, start_receptor};

in_both_protocols!(
    exits_chosen_by_entrance_port,
    exits_chosen_by_client,
    exits_of_both_kinds_each_for_its_own_entrance,
    no_exit_for_a_flow_is_said_at_both_ends,
    an_entrance_on_every_address_answers_from_where_the_question_went,
    an_entrance_on_ipv6,
    udprelay_as_a_server_for_the_peer,
    entrances_at_both_ends_at_once,
    two_connectors_with_entrances_at_one_receptor,
    two_connectors_with_exits_at_one_receptor,
);

/// Sends a request and returns the answer: the name of a server that sends it.
fn answer_at(entrance: SocketAddr) -> String {
    let client = Client::of(entrance);
    client.send(b"who are you?");
    String::from_utf8(client.receive()).expect("text")
}

/// The entrance for datagrams, where there is one for connections besides.
fn datagram_entrance(program: &Program) -> SocketAddr {
    let event = program.wait_for_event("an entrance for datagrams", 1, |event| {
        event["message"] == "entrance listening"
            && event["address"].as_str().is_some_and(|address| address.ends_with("/udp"))
    });
    let address = event["address"].as_str().expect("found by it").trim_end_matches("/udp");
    address.parse().expect("an address")
}

fn exits_chosen_by_entrance_port(protocol: Protocol) {
    let (first_server, second_server) =
        (DatagramServer::named("first"), DatagramServer::named("second"));
    // The entrances are at the receptor, so that its connector's words can name their ports.
    let receptor = start_receptor("127.0.0.1:0", &["PORT=127.0.0.1:0/udp,127.0.0.1:0/udp"]);
    let [first, second] = [1, 2].map(|nth| receptor.nth_address_of("entrance listening", nth));
    let _connector = start_connector(
        protocol,
        receptor.address_of("receptor listening"),
        &[
            format!("SERVER=udprelay://{},-in:-:-P{}", first_server.address(), first.port()),
            format!("DEST={}/udp:-P{}", second_server.address(), second.port()),
        ],
    );
    receptor.wait_for("tunnel up");
    for _ in 0..3 {
        assert_eq!(answer_at(first), "first");
        assert_eq!(answer_at(second), "second");
    }
}

fn exits_chosen_by_client(protocol: Protocol) {
    let (near, far) = (DatagramServer::named("near"), DatagramServer::named("far"));
    let tunnel = Tunnel::start(
        protocol,
        &[
            format!("SERVER=udprelay://{},-in:-:127.0.0.2", near.address()),
            format!("DEST={}/udp:127.0.0.0/8,!127.0.0.4", far.address()),
        ],
        &["PORT=0.0.0.0:0/udp"],
    );
    let port = tunnel.entrance().port();
    let entrance = SocketAddr::from(([127, 0, 0, 1], port));
    for (client, server) in [("127.0.0.2:0", "near"), ("127.0.0.3:0", "far")] {
        let client = Client::from(client, entrance);
        client.send(b"who are you?");
        assert_eq!(client.receive(), server.as_bytes());
    }
    Client::from("127.0.0.4:0", entrance).send(b"and for me?");
    for program in [&tunnel.receptor, &tunnel.connector] {
        let reason = program.wait_for_reason("stream refused");
        assert!(reason.contains("no exit for client 127.0.0.4"), "{reason}");
    }
    assert_eq!((near.came(), far.came()), (1, 1));
}

/// SockMux 1 announces the transport of a stream; in 0.3 the port of its entrance decides.
fn exits_of_both_kinds_each_for_its_own_entrance(protocol: Protocol) {
    let (bytes, datagrams) = (Server::echo(), DatagramServer::echo());
    // One port number for both transports, or in 0.3 one for each.
    let number = free_port([127, 0, 0, 2].into());
    let other = free_port([127, 0, 0, 4].into());
    let (tcp, udp) = match protocol {
        Protocol::V1 => (number, number),
        Protocol::V03 => (number, other),
    };
    let hosts = |entrance: SocketAddr| match protocol {
        Protocol::V1 => String::new(),
        Protocol::V03 => format!(":-P{}", entrance.port()),
    };
    let tunnel = Tunnel::start(
        protocol,
        &[
            format!("DEST={}/udp{}", datagrams.address(), hosts(udp)),
            format!("DEST={}{}", bytes.address(), hosts(tcp)),
        ],
        &[format!("PORT={tcp},{udp}/udp")],
    );
    let client = Client::of(datagram_entrance(&tunnel.connector));
    for round in 0..3 {
        client.check_echo(&datagram(round, 1_000));
        check_new_echo(tcp, round, 100_000);
    }
    assert_eq!((bytes.served(), datagrams.came()), (3, 3));
}

fn no_exit_for_a_flow_is_said_at_both_ends(protocol: Protocol) {
    let server = Server::echo();
    // In 0.3 an exit for connections alone would take the flow for one: it is shut to it.
    let tcp = free_port([127, 0, 0, 2].into());
    let mut tunnel = Tunnel::start(
        protocol,
        &[format!("DEST={}:-P{}", server.address(), tcp.port())],
        &[format!("PORT={tcp},127.0.0.1:0/udp")],
    );
    let client = Client::of(datagram_entrance(&tunnel.connector));
    for nth in 1..=3 {
        client.send(b"anybody?");
        for program in [&tunnel.receptor, &tunnel.connector] {
            let said = program.wait_for_nth("stream refused", nth);
            let reason = said["reason"].as_str().expect("a reason");
            assert!(reason.contains("no exit for client 127.0.0.1"), "{reason}");
        }
        check_new_echo(tcp, nth as u64, 100_000);
    }
    assert_eq!(client.hears_within(Duration::from_millis(50)), None);
    assert_eq!(tunnel.connector.count("tunnel down"), 0);
    assert_eq!(server.served(), 3);
    tunnel.connector.terminate();
    assert_eq!(tunnel.connector.wait_exit(DEADLINE).code(), Some(0));
}

/// SockMux 1 only: the transport of a stream is part of the choice.
#[test]
fn an_exit_for_one_kind_is_none_for_the_other() {
    let (bytes, datagrams) = (Server::echo(), DatagramServer::echo());
    let ports = ["PORT=127.0.0.1:0", "PORT=127.0.0.1:0/udp"];
    let tunnel = Tunnel::start(Protocol::V1, &[format!("DEST={}", bytes.address())], &ports);
    Client::of(datagram_entrance(&tunnel.connector)).send(b"anybody?");
    for program in [&tunnel.receptor, &tunnel.connector] {
        assert!(program.wait_for_reason("stream refused").contains("no exit for client"));
    }
    check_new_echo(tunnel.entrance(), 1, 10_000);
    drop(tunnel);

    let exit = [format!("DEST={}/udp", datagrams.address())];
    let tunnel = Tunnel::start(Protocol::V1, &exit, &ports);
    is_turned_away(tunnel.connector.address_of("entrance listening"));
    for program in [&tunnel.receptor, &tunnel.connector] {
        assert!(program.wait_for_reason("stream refused").contains("no exit for client"));
    }
    Client::of(datagram_entrance(&tunnel.connector)).check_echo(b"still there");
}

fn an_entrance_on_every_address_answers_from_where_the_question_went(protocol: Protocol) {
    let server = DatagramServer::echo();
    let exit = [format!("DEST={}/udp", server.address())];
    for (entrance, addresses) in [
        ("PORT=0.0.0.0:0/udp", &["127.0.0.1", "127.0.0.2"][..]),
        ("PORT=0/udp", &["127.0.0.1", "127.0.0.2", "[::1]"]),
    ] {
        let tunnel = Tunnel::start(protocol, &exit, &[entrance]);
        let port = tunnel.entrance().port();
        for round in 0..2 {
            for address in addresses {
                let to = format!("{address}:{port}").parse().expect("an address");
                // It receives from its destination only.
                let client = Client::of(to);
                (0..10).for_each(|number| client.send(&datagram(round << 32 | number, 600)));
                for number in 0..10 {
                    let got = client.receive();
                    assert_eq!(got, datagram(round << 32 | number, 600), "{entrance} {address}");
                }
            }
        }
    }
}

fn an_entrance_on_ipv6(protocol: Protocol) {
    let server = DatagramServer::echo_on("[::1]:0");
    let tunnel =
        Tunnel::start(protocol, &[format!("DEST={}/udp", server.address())], &["PORT=[::1]:0/udp"]);
    let entrance = tunnel.entrance();
    assert!(entrance.is_ipv6());
    let client = Client::of(entrance);
    for (number, bytes) in [10, 1_452, 9_000].into_iter().enumerate() {
        client.check_echo(&datagram(number as u64, bytes));
    }
}

fn udprelay_as_a_server_for_the_peer(protocol: Protocol) {
    let server = DatagramServer::echo();
    let exit = format!("SERVER=udprelay://{},-in", server.address());
    let tunnel = Tunnel::start(protocol, &["SERVER=sockmux", &exit], &["PORT=127.0.0.1:0/udp"]);
    Client::of(tunnel.entrance()).check_echo(b"through udprelay");
}

fn entrances_at_both_ends_at_once(protocol: Protocol) {
    const ROUNDS: u64 = 200;
    let server = DatagramServer::echo();
    let named = DatagramServer::named("at the connector");
    let tunnel = Tunnel::start(
        protocol,
        &[format!("DEST={}/udp", server.address()), "PORT=127.0.0.1:0/udp".to_owned()],
        &[format!("DEST={}/udp", named.address()), "PORT=127.0.0.1:0/udp".to_owned()],
    );
    let [at_receptor, at_connector] = [&tunnel.receptor, &tunnel.connector].map(datagram_entrance);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let client = Client::of(at_connector);
            (0..ROUNDS).for_each(|number| client.check_echo(&datagram(number, 300)));
        });
        let client = Client::of(at_receptor);
        for number in 0..ROUNDS {
            client.send(&datagram(number, 300));
            assert_eq!(client.receive(), b"at the connector");
        }
    });
    assert_eq!((server.came() as u64, named.came() as u64), (ROUNDS, ROUNDS));
}

fn two_connectors_with_entrances_at_one_receptor(protocol: Protocol) {
    let server = DatagramServer::echo();
    let exit = [format!("DEST={}/udp", server.address())];
    let first = Tunnel::start(protocol, &exit, &["PORT=127.0.0.1:0/udp"]);
    let second = start_connector(protocol, first.address, &["PORT=127.0.0.1:0/udp"]);
    second.wait_for("tunnel up");
    let clients = [&first.connector, &second].map(|end| Client::of(datagram_entrance(end)));
    for number in 0..100 {
        // Both are on their way at once.
        for (client, seed) in clients.iter().zip([1, 2]) {
            client.send(&datagram(seed << 32 | number, 200));
        }
        for (client, seed) in clients.iter().zip([1, 2]) {
            assert_eq!(client.receive(), datagram(seed << 32 | number, 200));
        }
    }
}

/// New flows take the tunnel that came up last; those of one that goes take the other.
fn two_connectors_with_exits_at_one_receptor(protocol: Protocol) {
    let (older, newer) = (DatagramServer::named("older"), DatagramServer::named("newer"));
    let exit = |server: &DatagramServer| [format!("DEST={}/udp", server.address())];
    let receptor = start_receptor("127.0.0.1:0", &["PORT=127.0.0.1:0/udp", NO_RESUMPTION]);
    let address = receptor.address_of("receptor listening");
    let _first = start_connector(protocol, address, &exit(&older));
    receptor.wait_for("tunnel up");
    let entrance = receptor.address_of("entrance listening");
    let client = Client::of(entrance);
    let ask = |client: &Client| {
        client.send(b"who are you?");
        client.receive()
    };
    assert_eq!(ask(&client), b"older");

    let mut second = start_connector(protocol, address, &exit(&newer));
    receptor.wait_for_nth("tunnel up", 2);
    let later = Client::of(entrance);
    for _ in 0..3 {
        assert_eq!(ask(&later), b"newer");
        assert_eq!(ask(&client), b"older", "a flow stays with its tunnel");
    }
    second.kill_9();
    receptor.wait_for("tunnel down");
    assert_eq!(ask(&later), b"older");
    assert_eq!(ask(&client), b"older");
}
