//! What entrances do while no tunnel is up (`SOXCONF=down:`).

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::inherited::{BOTH, passed, sockets};
use crate::takeover::{Lineage, ends_in_order, ports};
use crate::testkit::datagrams::{Client, DatagramServer};
use crate::testkit::keys::Keys;
use crate::testkit::link_proxy::Cut;
use crate::testkit::net::{check_echo, check_new_echo, connect, refused};
use crate::testkit::program::Program;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::Server;
use crate::testkit::tunnel::{BROKE, Tunnel, start_connector, start_receptor};
use crate::testkit::{DEADLINE, eventually};

const REFUSE: &str = "SOXCONF=down:refuse";
const CLOSE: &str = "SOXCONF=down:close";

/// Without a tunnel for so long an entrance is down.
const DOWN_AFTER: Duration = Duration::from_secs(2);

/// The log when entrances are closed, and when they are open again.
const CLOSED: &str = "no tunnel is up: entrances closed (SOXCONF=down:close)";
const OPEN: &str = "a tunnel is up: entrances open again";

/// Whether the kernel refuses clients there.
fn is_closed(address: SocketAddr) -> bool {
    let error = TcpStream::connect_timeout(&address, DEADLINE).err();
    error.is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Waits until clients can connect, and checks that one is served.
fn opens(entrance: SocketAddr) {
    assert!(eventually(DEADLINE, || !is_closed(entrance)), "{entrance} stays closed");
    check_new_echo(entrance, 1, 100_000);
}

fn closes(entrance: SocketAddr) {
    assert!(eventually(DEADLINE, || is_closed(entrance)), "{entrance} stays open");
}

/// A receptor with an entrance, and these words.
fn receptor(words: &[&str]) -> (Program, SocketAddr, SocketAddr) {
    let receptor = start_receptor("127.0.0.1:0", &[&["PORT=127.0.0.1:0"], words].concat());
    let link = receptor.address_of("receptor listening");
    let entrance = receptor.address_of("entrance listening");
    (receptor, link, entrance)
}

/// Waits until it has seen that the connection broke.
fn breaks(receptor: &Program, protocol: Protocol, nth: usize) {
    // An end that speaks 0.3 has no streams that could go on.
    let message = if protocol == Protocol::V1 { BROKE } else { "tunnel down" };
    receptor.wait_for_nth(message, nth);
}

fn exit_to(server: &Server) -> String {
    format!("DEST={}", server.address())
}

fn clients_are_reset_at_once_while_no_tunnel_is_up(protocol: Protocol) {
    let server = Server::echo();
    let (receptor, link, entrance) = receptor(&[REFUSE]);
    let began = Instant::now();
    refused("127.0.0.1", entrance);
    refused("127.0.0.1", entrance);
    // Far from TIMEOUT=hold.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let reason = receptor.wait_for_reason("stream refused");
    assert!(reason.contains("no tunnel is up (SOXCONF=down:)"), "{reason}");
    let mut connector = start_connector(protocol, link, &[exit_to(&server)]);
    receptor.wait_for("tunnel up");
    check_new_echo(entrance, 1, 100_000);
    connector.kill_9();
    breaks(&receptor, protocol, 1);
    // One that has come before it is taken for down waits for as long.
    refused("127.0.0.1", entrance);
    let began = Instant::now();
    refused("127.0.0.1", entrance);
    assert!(began.elapsed() < DOWN_AFTER, "{:?}", began.elapsed());
    let _connector = start_connector(protocol, link, &[exit_to(&server)]);
    receptor.wait_for_nth("tunnel up", 2);
    check_new_echo(entrance, 2, 100_000);
    receptor.check_idle();
}

fn ports_are_closed_while_no_tunnel_is_up(protocol: Protocol) {
    let server = Server::echo();
    let (receptor, link, entrance) = receptor(&[CLOSE]);
    closes(entrance);
    for round in 1..=3 {
        let mut connector = start_connector(protocol, link, &[exit_to(&server)]);
        receptor.wait_for_nth(OPEN, round);
        opens(entrance);
        connector.kill_9();
        receptor.wait_for_nth(CLOSED, round + 1);
        assert!(is_closed(entrance));
    }
    assert_eq!(receptor.count("stream refused"), 0);
    receptor.check_idle();
}

fn a_connection_that_is_back_at_once_is_no_outage(protocol: Protocol) {
    for down in [REFUSE, CLOSE] {
        let server = Server::echo();
        let exit = exit_to(&server);
        let (tunnel, proxy) =
            Tunnel::start_spoilable(protocol, &["PORT=127.0.0.1:0", down], &[exit]);
        let entrance = tunnel.receptor.address_of("entrance listening");
        for seed in 0..5 {
            proxy.reset();
            breaks(&tunnel.receptor, protocol, seed as usize + 1);
            check_new_echo(entrance, seed, 50_000);
        }
        assert_eq!(tunnel.receptor.count("stream refused"), 0);
        // The one of the start.
        assert!(tunnel.receptor.count(CLOSED) <= 1);
    }
}

in_both_protocols!(
    clients_are_reset_at_once_while_no_tunnel_is_up,
    ports_are_closed_while_no_tunnel_is_up,
    a_connection_that_is_back_at_once_is_no_outage,
);

#[test]
fn a_connectors_entrances_are_closed_until_it_has_its_tunnel() {
    let server = Server::echo();
    let [link] = ports();
    let connector = start_connector(Protocol::V1, link, &["PORT=127.0.0.1:0", CLOSE]);
    let entrance = connector.address_of("entrance listening");
    closes(entrance);
    let _receptor = start_receptor(&link.to_string(), &[exit_to(&server)]);
    opens(entrance);
}

#[test]
fn clients_wait_until_the_tunnel_is_taken_for_down() {
    let server = Server::echo();
    let exit = exit_to(&server);
    let entrance = ["PORT=127.0.0.1:0", CLOSE];
    let (tunnel, proxy) = Tunnel::start_spoilable(Protocol::V1, &entrance, &[exit]);
    let entrance = tunnel.receptor.address_of("entrance listening");
    opens(entrance);
    proxy.interrupt(Cut::Reset);
    breaks(&tunnel.receptor, Protocol::V1, 1);
    let client = connect(entrance);
    proxy.restore();
    check_echo(&client, 1, 100_000);
    // Those of the start.
    assert!(tunnel.receptor.count(CLOSED) <= 1);
    assert_eq!(tunnel.receptor.count("stream refused"), 0);
}

#[test]
fn a_port_that_another_process_has_taken_is_opened_when_it_is_free() {
    let server = Server::echo();
    let (receptor, link, entrance) = receptor(&[CLOSE]);
    closes(entrance);
    let thief = TcpListener::bind(entrance).expect("nobody listens there");
    let _connector = start_connector(Protocol::V1, link, &[exit_to(&server)]);
    let event = receptor.wait_for_event("that the port is taken", 1, |event| {
        event["message"].as_str().is_some_and(|text| text.starts_with("cannot open an entrance"))
    });
    assert_eq!(event["address"], entrance.to_string());
    assert_eq!(receptor.count(OPEN), 0);
    drop(thief);
    receptor.wait_for(OPEN);
    opens(entrance);
}

#[test]
fn each_entrance_follows_the_peer_that_it_leads_to() {
    let (server, keys) = (Server::echo(), Keys::new());
    let hub_key = keys.make("hub");
    let known = ["a", "b"].map(|name| format!("peer:{name}={}", keys.make(name))).join(",");
    let encryption = format!("TLSCONF=key:{},{known}", keys.path("hub").display());
    let entrances = "PORT=127.0.0.1:0?peer=a,127.0.0.1:0?peer=b,127.0.0.1:0";
    let hub = start_receptor("127.0.0.1:0", &[entrances, &encryption, CLOSE]);
    let link = hub.address_of("receptor listening");
    let [of_a, of_b, of_any] = [1, 2, 3].map(|nth| hub.nth_address_of("entrance listening", nth));
    let start = |name: &str| {
        start_connector(Protocol::V1, link, &[exit_to(&server), keys.words(name, &hub_key)])
    };
    [of_a, of_b, of_any].into_iter().for_each(closes);
    let mut a = start("a");
    [of_a, of_any].into_iter().for_each(opens);
    assert!(is_closed(of_b));
    let _b = start("b");
    opens(of_b);
    a.kill_9();
    closes(of_a);
    [of_b, of_any].into_iter().for_each(opens);
}

#[test]
fn a_unix_socket_resets_its_clients_where_ports_are_closed() {
    let server = Server::echo();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("socket");
    let is_reset = |path: &Path| {
        let mut client = UnixStream::connect(path).expect("it is there");
        client.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
        let got = client.read(&mut [0]);
        matches!(&got, Ok(0)) || got.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset)
    };
    let (receptor, link, entrance) = receptor(&[&format!("PORT=unix:{}", path.display()), CLOSE]);
    closes(entrance);
    assert!(is_reset(&path));
    let _connector = start_connector(Protocol::V1, link, &[exit_to(&server)]);
    receptor.wait_for(OPEN);
    let client = UnixStream::connect(&path).expect("it is there");
    crate::unix::check_echo_to_the_end(&client, 1, 100_000);
}

#[test]
fn a_socket_of_systemd_resets_its_clients_where_ports_are_closed() {
    let server = Server::echo();
    let (sockets, [link, web]) = sockets();
    let words = [format!("-P{link}"), format!("PORT={web}"), CLOSE.to_owned()];
    let words = words.each_ref().map(String::as_str);
    let receptor = Program::start_with_sockets(&words, passed(&sockets), BOTH);
    receptor.wait_for("entrance listening");
    refused("127.0.0.1", web);
    let _connector = start_connector(Protocol::V1, link, &[exit_to(&server)]);
    receptor.wait_for("tunnel up");
    check_new_echo(web, 1, 100_000);
    assert_eq!(receptor.count(CLOSED), 0);
}

#[test]
fn an_upgrade_is_no_outage_and_one_while_down_opens_ports_of_its_own() {
    let server = Server::echo();
    let [link, entrance] = ports();
    let words = [format!("-P{link}"), format!("PORT={entrance}"), CLOSE.to_owned()];
    let lineage = Lineage::of(&words);
    let first = lineage.start();
    closes(entrance);
    let second = lineage.start();
    ends_in_order(first);
    closes(entrance);
    let connector = start_connector(Protocol::V1, link, &[exit_to(&server)]);
    opens(entrance);
    let third = lineage.upgrade(&second);
    for seed in 0..20 {
        check_new_echo(entrance, seed, 10_000);
    }
    ends_in_order(second);
    third.wait_for("tunnel up");
    assert_eq!(third.count(CLOSED), 0);
    drop(connector);
    closes(entrance);
}

#[test]
fn datagrams_are_dropped_and_served_again() {
    let server = DatagramServer::echo();
    let (receptor, link, entrance) = receptor(&["PORT=127.0.0.1:0/udp", CLOSE]);
    closes(entrance);
    let datagrams = receptor.nth_address_of("entrance listening", 2);
    let exit = format!("DEST={}/udp", server.address());
    let _connector = start_connector(Protocol::V1, link, &[exit]);
    receptor.wait_for("tunnel up");
    let client = Client::of(datagrams);
    client.check_echo(b"hello");
}
