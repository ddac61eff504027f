//! Connections to names with several addresses of which some do not answer, and to names whose address
//! changes. Everything has a network and names of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::testkit::datagrams::{Client, DatagramServer};
use crate::testkit::net::{check_echo, check_new_echo, connect, is_turned_away, reset};
use crate::testkit::network::{self, Hosts, SilentAddress, connecting};
use crate::testkit::program::Program;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::Server;
use crate::testkit::skip::needs;
use crate::testkit::tunnel::Tunnel;
use crate::testkit::{DEADLINE, eventually};

/// An address that does not answer. As one of this machine it is sorted before others of its name (RFC
/// 6724, rule 8).
const SILENT: &str = "127.0.0.66";
/// One that does.
const LIVE: &str = "192.0.2.7";
/// It leads to both.
const NAME: &str = "both.test";
/// A name of the silent address only.
const NOBODY: &str = "nobody.test";

/// Longer than any test waits, so that a dial which waits for the silent address first fails the test.
const PATIENCE: &str = "TIMEOUT=con:90";

/// In a network with those addresses and names.
fn enter() -> Hosts {
    network::enter_new(65_536);
    network::ip(&format!("addr add {LIVE}/32 dev lo"));
    Hosts::enter(&[(SILENT, NAME), (LIVE, NAME), (SILENT, NOBODY)])
}

/// A server at the live address, and none at the same port of the silent one.
fn live_server() -> (Server, SilentAddress, u16) {
    let server = Server::echo_on(&format!("{LIVE}:0"));
    let port = server.address().port();
    let silent = silent_at(port);
    (server, silent, port)
}

fn silent_at(port: u16) -> SilentAddress {
    let mut found = (NAME, port).to_socket_addrs().expect("the name is known");
    let first = found.next().expect("an address");
    assert_eq!(first, SocketAddr::new(SILENT.parse().expect("an address"), port));
    SilentAddress::at(first)
}

/// The first waits for the silent address for a moment; those that follow do not.
fn many_are_served(mut serve: impl FnMut(u64)) {
    const COUNT: u32 = 20;
    const EACH_WITHIN: Duration = Duration::from_millis(200);
    let began = Instant::now();
    (0..u64::from(COUNT)).for_each(&mut serve);
    let took = began.elapsed();
    assert!(took < EACH_WITHIN * COUNT, "{COUNT} connections took {took:?}");
}

#[test]
fn a_relay_goes_on_to_the_next_address() {
    needs!(Namespaces, "ip");
    let _names = enter();
    let (_server, _silent, port) = live_server();
    let words =
        ["-P127.0.0.1:0".to_owned(), format!("SERVER=tcprelay://{NAME}:{port}"), PATIENCE.into()];
    let relay = Program::start(&words);
    let entrance = relay.address_of("entrance listening");
    many_are_served(|seed| check_new_echo(entrance, seed, 1000));
    assert!(eventually(DEADLINE, || connecting() == 0), "attempts that have lost go on");
}

fn an_exit_goes_on_to_the_next_address(protocol: Protocol) {
    needs!(Namespaces, "ip");
    let _names = enter();
    let (_server, _silent, port) = live_server();
    let exit = [format!("DEST={NAME}:{port}"), PATIENCE.into()];
    let tunnel = Tunnel::start(protocol, &exit, &["PORT=127.0.0.1:0"]);
    many_are_served(|seed| check_new_echo(tunnel.entrance(), seed, 1000));
    assert!(eventually(DEADLINE, || connecting() == 0), "attempts that have lost go on");
}

#[test]
fn a_proxy_goes_on_to_the_next_address() {
    needs!(Namespaces, "ip");
    let _names = enter();
    let (_server, _silent, port) = live_server();
    let exit = ["SERVER=socks,-in", "PERMIT=socks:*,127.0.0.0/8:*", PATIENCE];
    let tunnel = Tunnel::start(Protocol::V1, &exit, &["PORT=127.0.0.1:0"]);
    many_are_served(|seed| check_echo(&ask_socks(&tunnel, port), seed, 1000));
    assert!(eventually(DEADLINE, || connecting() == 0), "attempts that have lost go on");
}

/// An address that a proxy may not reach is not tried, first or later: only the name's other address is.
#[test]
fn a_proxy_does_not_go_on_to_an_address_that_may_not_be_reached() {
    needs!(Namespaces, "ip");
    let _names = enter();
    let (server, _silent, port) = live_server();
    let exit =
        [format!("PERMIT=socks:{SILENT}:*"), "SERVER=socks,-in".into(), "TIMEOUT=con:1".into()];
    let tunnel = Tunnel::start(Protocol::V1, &exit, &["PORT=127.0.0.1:0"]);
    let mut client = connect(tunnel.entrance());
    client.write_all(&socks_request(port)).expect("sent");
    let mut said = [0; 4];
    client.read_exact(&mut said).expect("an answer");
    assert_eq!(said[..3], [5, 0, 5]);
    assert_ne!(said[3], 0, "granted");
    assert_eq!(server.served(), 0);
}

fn socks_request(port: u16) -> Vec<u8> {
    let head = [5, 1, 0, 5, 1, 0, 3, NAME.len() as u8];
    [&head[..], NAME.as_bytes(), &port.to_be_bytes()].concat()
}

/// A connection to the name's port by SOCKS 5.
fn ask_socks(tunnel: &Tunnel, port: u16) -> std::net::TcpStream {
    let mut client = connect(tunnel.entrance());
    client.write_all(&socks_request(port)).expect("sent");
    let mut said = [0; 12];
    client.read_exact(&mut said).expect("an answer");
    assert_eq!(said[..6], [5, 0, 5, 0, 0, 1], "granted, at an IPv4 address");
    client
}

fn the_connector_goes_on_to_the_next_address(protocol: Protocol) {
    needs!(Namespaces, "ip");
    let _names = enter();
    let server = Server::echo();
    let bind = format!("-P{LIVE}:0");
    let receptor = Program::start(&[bind, format!("DEST={}", server.address())]);
    let port = receptor.address_of("receptor listening").port();
    let _silent = silent_at(port);
    let began = Instant::now();
    let mut words = vec![format!("SERVER=sockmux://{NAME}:{port}"), "PORT=127.0.0.1:0".into()];
    words.push(PATIENCE.into());
    words.extend(protocol.words());
    let connector = Program::start(&words);
    connector.wait_for("tunnel up");
    assert!(began.elapsed() < DEADLINE / 2, "{:?}", began.elapsed());
    check_new_echo(connector.address_of("entrance listening"), 1, 1000);
    assert!(eventually(DEADLINE, || connecting() == 0), "attempts that have lost go on");
}

#[test]
fn the_time_for_a_connection_is_that_for_all_addresses() {
    needs!(Namespaces, "ip");
    let _names = enter();
    let port = Server::echo_on(&format!("{LIVE}:0")).address().port();
    let _silent = silent_at(port);
    let words = [
        "-P127.0.0.1:0".to_owned(),
        format!("SERVER=tcprelay://{NOBODY}:{port}"),
        "TIMEOUT=con:1".into(),
    ];
    let relay = Program::start(&words);
    let began = Instant::now();
    is_turned_away(relay.address_of("entrance listening"));
    let reason = relay.wait_for_reason("stream refused");
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(
        reason.ends_with(&format!("no answer in time (TIMEOUT=con) ({SILENT}:{port})")),
        "{reason}"
    );
}

/// A name server that does not answer is no reason to wait for longer, either.
#[test]
fn the_time_for_a_connection_is_that_for_its_name_too() {
    needs!(Namespaces, "ip");
    let names = enter();
    let name_server = UdpSocket::bind((LIVE, 53)).expect("the port is free in a new network");
    names.ask(name_server.local_addr().expect("an address").ip());
    let words = ["-P127.0.0.1:0", "SERVER=tcprelay://other.test:1", "TIMEOUT=con:1"];
    let relay = Program::start(&words);
    let began = Instant::now();
    is_turned_away(relay.address_of("entrance listening"));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let reason = relay.wait_for_reason("stream refused");
    assert_eq!(reason, "other.test:1: name not found in time (TIMEOUT=con)");
}

/// A connection that is still being made is dropped when its client has ended. (In 0.3 the peer learns of
/// the client's end only when the server is reached.)
#[test]
fn an_exits_attempts_end_with_its_client() {
    needs!(Namespaces, "ip");
    let _names = enter();
    let (_server, _silent, port) = live_server();
    let exit = [format!("DEST={NOBODY}:{port}"), PATIENCE.into()];
    let tunnel = Tunnel::start(Protocol::V1, &exit, &["PORT=127.0.0.1:0"]);
    let client = connect(tunnel.entrance());
    assert!(eventually(DEADLINE, || connecting() == 1), "the exit sets out");
    reset(client);
    assert!(eventually(DEADLINE, || connecting() == 0), "its attempt goes on");
}

/// A name whose address changes, from that of [`OLD`] to that of [`NEW`].
const MOVING: &str = "moving.test";
const OLD: &str = "127.0.0.2";
const NEW: &str = "127.0.0.4";

/// In a network where the name leads to the old address, until it is set.
fn enter_before_the_move() -> Hosts {
    network::enter_new(65_536);
    Hosts::enter(&[(OLD, MOVING)])
}

/// Asks again and again, without a pause as long as `TIMEOUT=udp`, until this server answers.
fn ask_until_answered_by(client: &Client, server: &str) {
    let answered = || {
        client.send(b"?");
        client.hears_within(Duration::from_millis(100)).is_some_and(|got| got == server.as_bytes())
    };
    assert!(eventually(DEADLINE, answered), "{server} is not asked");
}

/// A client that sends without a pause does not stay with an address that has stopped answering, and is
/// not moved from one that answers.
fn silent_datagram_servers_are_looked_up_again(start: impl FnOnce(u16) -> SocketAddr) {
    let names = enter_before_the_move();
    let is_silent = Arc::new(AtomicBool::new(false));
    let silent = Arc::clone(&is_silent);
    let old = DatagramServer::start(&format!("{OLD}:0"), move |socket, _, client| {
        if !silent.load(Ordering::SeqCst) {
            let _ = socket.send_to(OLD.as_bytes(), client);
        }
    });
    let port = old.address().port();
    let new = DatagramServer::start(&format!("{NEW}:{port}"), |socket, _, client| {
        let _ = socket.send_to(NEW.as_bytes(), client);
    });
    let client = Client::of(start(port));
    ask_until_answered_by(&client, OLD);
    names.set(&[(NEW, MOVING)]);
    let until = Instant::now() + 3 * UDP_SILENCE;
    while Instant::now() < until {
        client.send(b"?");
        assert_eq!(client.receive(), OLD.as_bytes());
    }
    assert_eq!(new.came(), 0);
    is_silent.store(true, Ordering::SeqCst);
    ask_until_answered_by(&client, NEW);
    // Nothing is sent to both.
    let came = old.came();
    ask_until_answered_by(&client, NEW);
    assert_eq!(old.came(), came);
}

const UDP_SILENCE: Duration = Duration::from_secs(1);
const UDP_SILENCE_WORD: &str = "TIMEOUT=udp:1";

#[test]
fn a_relays_silent_datagram_server_is_looked_up_again() {
    needs!(Namespaces, "ip");
    let mut started = None;
    silent_datagram_servers_are_looked_up_again(|port| {
        let words = [
            "-P127.0.0.1:0/udp".to_owned(),
            format!("SERVER=udprelay://{MOVING}:{port}"),
            UDP_SILENCE_WORD.into(),
        ];
        let relay = started.insert(Program::start(&words));
        relay.address_of("entrance listening")
    });
}

fn an_exits_silent_datagram_server_is_looked_up_again(protocol: Protocol) {
    needs!(Namespaces, "ip");
    let mut started = None;
    silent_datagram_servers_are_looked_up_again(|port| {
        let exit = [format!("DEST={MOVING}:{port}/udp"), UDP_SILENCE_WORD.into()];
        let entrance = ["PORT=127.0.0.1:0/udp", UDP_SILENCE_WORD];
        started.insert(Tunnel::start(protocol, &exit, &entrance)).entrance()
    });
}

#[test]
fn a_relays_next_connection_goes_where_the_name_leads() {
    needs!(Namespaces, "ip");
    let names = enter_before_the_move();
    let old = Server::echo_on(&format!("{OLD}:0"));
    let port = old.address().port();
    let new = Server::echo_on(&format!("{NEW}:{port}"));
    let words = ["-P127.0.0.1:0".to_owned(), format!("SERVER=tcprelay://{MOVING}:{port}")];
    let relay = Program::start(&words);
    let entrance = relay.address_of("entrance listening");
    check_new_echo(entrance, 1, 100);
    names.set(&[(NEW, MOVING)]);
    check_new_echo(entrance, 2, 100);
    assert_eq!([old.served(), new.served()], [1, 1]);
}

#[test]
fn the_connector_goes_where_the_name_leads() {
    needs!(Namespaces, "ip");
    let names = enter_before_the_move();
    let server = Server::echo();
    let start_receptor = |at: String| {
        let words = [format!("-P{at}"), format!("DEST={}", server.address())];
        Program::start(&words)
    };
    let mut old = start_receptor(format!("{OLD}:0"));
    let port = old.address_of("receptor listening").port();
    let words = [format!("SERVER=sockmux://{MOVING}:{port}"), "PORT=127.0.0.1:0".to_owned()];
    let connector = Program::start(&words);
    connector.wait_for("tunnel up");
    let new = start_receptor(format!("{NEW}:{port}"));
    new.wait_for("receptor listening");
    names.set(&[(NEW, MOVING)]);
    old.kill_9();
    connector.wait_for_nth("tunnel up", 2);
    check_new_echo(connector.address_of("entrance listening"), 1, 1000);
}

in_both_protocols!(
    an_exits_silent_datagram_server_is_looked_up_again,
    an_exit_goes_on_to_the_next_address,
    the_connector_goes_on_to_the_next_address,
);
