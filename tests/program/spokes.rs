//! Several connectors at one receptor whose clients need exits: each takes the newest tunnel that has
//! one for it, and room.

use std::net::SocketAddr;

use crate::testkit::datagrams::{Client, DatagramServer};
use crate::testkit::net::{answer_to, check_new_echo, connect, is_turned_away};
use crate::testkit::peer::{Peer, kind};
use crate::testkit::program::Program;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::Server;
use crate::testkit::tunnel::{NO_RESUMPTION, start_connector, start_receptor};

/// Streams that an original takes at once, as far as we let it come to.
const ORIGINALS_STREAMS: usize = 60;

/// A receptor with an entrance for each of two connectors, which are up, in their order.
struct Hub {
    receptor: Program,
    entrances: [SocketAddr; 2],
    _connectors: [Program; 2],
}

impl Hub {
    /// Each connector has this server, for the port of its entrance alone.
    fn start(protocol: Protocol, kind: &str, servers: [SocketAddr; 2]) -> Hub {
        let ports = format!("PORT=127.0.0.1:0{kind},127.0.0.1:0{kind}");
        let receptor = start_receptor("127.0.0.1:0", &[&*ports, NO_RESUMPTION]);
        let address = receptor.address_of("receptor listening");
        let entrances = [1, 2].map(|nth| receptor.nth_address_of("entrance listening", nth));
        let connectors = [0, 1].map(|at| {
            let exit = format!("DEST={}{kind}:-P{}", servers[at], entrances[at].port());
            let connector = start_connector(protocol, address, &[exit]);
            receptor.wait_for_nth("tunnel up", at + 1);
            connector
        });
        Hub { receptor, entrances, _connectors: connectors }
    }
}

fn each_client_gets_to_the_connector_that_has_an_exit_for_it(protocol: Protocol) {
    let servers = [Server::named("first"), Server::named("second")];
    let hub = Hub::start(protocol, "", servers.each_ref().map(Server::address));
    for _ in 0..3 {
        for (entrance, name) in hub.entrances.iter().zip(["first", "second"]) {
            assert_eq!(answer_to("who are you?", *entrance), format!("{name}\nwho are you?"));
        }
    }
    assert_eq!(servers.each_ref().map(Server::served), [3, 3]);
    assert_eq!(hub.receptor.count("stream refused"), 0);
}

/// More than is sent before the peer has taken a stream, both ways.
fn nothing_of_a_stream_is_lost_on_the_way_to_its_exit(protocol: Protocol) {
    let servers = [Server::echo(), Server::echo()];
    let hub = Hub::start(protocol, "", servers.each_ref().map(Server::address));
    std::thread::scope(|scope| {
        for seed in 0..20 {
            let entrance = hub.entrances[seed as usize % 2];
            scope.spawn(move || check_new_echo(entrance, seed, 100 + seed * 20_000));
        }
    });
    assert_eq!(hub.receptor.count("stream refused"), 0);
}

/// Each of them sends one datagram, and no second one that would reveal the loss of the first.
fn each_flow_gets_to_the_connector_that_has_an_exit_for_it(protocol: Protocol) {
    let servers = [DatagramServer::named("first"), DatagramServer::named("second")];
    let hub = Hub::start(protocol, "/udp", servers.each_ref().map(DatagramServer::address));
    for (entrance, name) in hub.entrances.iter().zip(["first", "second"]) {
        for _ in 0..3 {
            let client = Client::of(*entrance);
            client.send(b"who are you?");
            assert_eq!(String::from_utf8(client.receive()).expect("text"), name);
        }
    }
    assert_eq!(servers.each_ref().map(DatagramServer::came), [3, 3]);
    assert_eq!(hub.receptor.count("stream refused"), 0);
}

fn a_client_that_no_connector_has_an_exit_for_is_reset(protocol: Protocol) {
    let server = Server::named("nobody");
    let hub = Hub::start(protocol, "", [server.address(); 2]);
    let entrance = hub.receptor.nth_address_of("entrance listening", 1);
    drop(hub._connectors);
    hub.receptor.wait_for_nth("tunnel down", 2);
    let address = hub.receptor.address_of("receptor listening");
    let elsewhere = format!("DEST={}:-P1", server.address());
    let _connectors = [3, 4].map(|nth| {
        let connector = start_connector(protocol, address, &[&elsewhere]);
        hub.receptor.wait_for_nth("tunnel up", nth);
        connector
    });
    is_turned_away(entrance);
    let reason = hub.receptor.wait_for_reason("stream refused");
    assert!(reason.contains("no exit"), "{reason}");
    assert_eq!(server.served(), 0);
}

/// The first client after the newest tunnel is full goes through the one before it.
#[test]
fn a_full_original_leaves_clients_to_the_tunnel_before_it() {
    let server = Server::named("ours");
    let receptor = start_receptor("127.0.0.1:0", &["PORT=127.0.0.1:0"]);
    let address = receptor.address_of("receptor listening");
    let exit = format!("DEST={}", server.address());
    let _connector = start_connector(Protocol::V1, address, &[exit]);
    receptor.wait_for("tunnel up");
    let mut original = Peer::join(address);
    receptor.wait_for_nth("tunnel up", 2);
    let entrance = receptor.address_of("entrance listening");
    let _its_clients: Vec<_> = (0..ORIGINALS_STREAMS)
        .map(|_| {
            let client = connect(entrance);
            original.receive_kind(kind::CONNECT);
            client
        })
        .collect();
    for _ in 0..3 {
        assert_eq!(answer_to("hello", entrance), "ours\nhello");
    }
    assert_eq!(receptor.count("stream refused"), 0);
    original.check_alive(b"still here");
}

/// Any peer that can dial in receives the clients from then on.
fn a_second_tunnel_is_told_of(protocol: Protocol) {
    let servers = [Server::named("first"), Server::named("second")];
    let hub = Hub::start(protocol, "", servers.each_ref().map(Server::address));
    let first = hub.receptor.wait_for("tunnel up")["peer"].clone();
    let second = hub.receptor.wait_for_nth("tunnel up", 2)["peer"].clone();
    let told = hub.receptor.wait_for_event("of two tunnels", 1, |event| {
        event["message"].as_str().is_some_and(|text| text.starts_with("clients go through"))
    });
    assert_eq!(told["level"], "WARN");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("Linux");
    for (field, peer) in [("peer", second), ("before", first)] {
        let wanted = format!("{} ({})", peer.as_str().expect("an address"), host.trim());
        assert_eq!(told[field], wanted);
    }
}

in_both_protocols! {
    each_client_gets_to_the_connector_that_has_an_exit_for_it,
    nothing_of_a_stream_is_lost_on_the_way_to_its_exit,
    each_flow_gets_to_the_connector_that_has_an_exit_for_it,
    a_client_that_no_connector_has_an_exit_for_is_reset,
    a_second_tunnel_is_told_of,
}
