//! All local ports are taken that the kernel may give (`net.ipv4.ip_local_port_range`). Everything has a
//! network of its own, with very few of them.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::testkit::datagrams::{Client, DatagramServer};
use crate::testkit::net::{Ended, bounded, check_echo, connect, read_to_end_of, reset};
use crate::testkit::network::{self, Hosts};
use crate::testkit::program::Program;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::Server;
use crate::testkit::skip::needs;
use crate::testkit::tunnel::Tunnel;
use crate::testkit::{DEADLINE, eventually};

/// Where servers are, below the ports that the kernel gives.
const SERVER: &str = "127.0.0.2:5001";
const ENTRANCE: &str = "127.0.0.1:5000";

/// Ports that the kernel gives.
const PORTS: usize = 4;

/// Leaves the kernel so many ports to give, from this one on.
fn leave_ports(first: u16, count: usize) {
    let last = usize::from(first) + count - 1;
    network::sysctl("net.ipv4.ip_local_port_range", &format!("{first} {last}"));
}

/// A client's address, with a port that the kernel does not give.
fn own(number: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 3], 10_000 + number as u16))
}

const LET_GO: &str = "the UDP flow that was silent for longest is let go for a new one";

/// The remedy in the log.
const REMEDY: &str = "net.ipv4.ip_local_port_range";

/// Twice as many clients as there are ports are served at once, and then those that had to make room.
fn datagram_clients_are_served(entrance: SocketAddr) {
    let clients: Vec<_> =
        (0..2 * PORTS).map(|number| Client::from(&own(number).to_string(), entrance)).collect();
    for round in 0..3 {
        for (number, client) in clients.iter().enumerate() {
            client.echo_in_the_end(format!("{number}, {round}").as_bytes());
        }
    }
}

fn lets_flows_go(program: &Program) {
    let event =
        program.wait_for("the UDP flow that was silent for longest is let go for a new one");
    let reason = event["reason"].as_str().expect("a reason");
    assert!(reason.contains(REMEDY), "{reason}");
}

#[test]
fn a_relay_lets_its_most_silent_flow_go() {
    needs!(Namespaces, "ip");
    network::enter_new(65_536);
    leave_ports(40_000, PORTS);
    let _server = DatagramServer::echo_on(SERVER);
    let words = [format!("-P{ENTRANCE}/udp"), format!("SERVER=udprelay://{SERVER}")];
    let relay = Program::start(&words);
    let entrance = relay.address_of("entrance listening");
    let clients: Vec<_> =
        (0..2 * PORTS).map(|number| Client::from(&own(number).to_string(), entrance)).collect();
    for client in clients.iter().chain(&clients) {
        // Nothing is lost: the port is free at once.
        client.check_echo(b"here");
    }
    lets_flows_go(&relay);
}

/// The same where it is descriptors that are used up.
#[test]
fn a_relay_without_descriptors_lets_its_most_silent_flow_go() {
    let server = DatagramServer::echo();
    let words = ["-P127.0.0.1:0/udp".to_owned(), format!("SERVER=udprelay://{}", server.address())];
    let relay = Program::start(&words);
    let entrance = relay.address_of("entrance listening");
    Client::of(entrance).check_echo(b"here");
    relay.limit_descriptors(relay.descriptors() as u64 + 2);
    let clients: Vec<_> = (0..2 * PORTS).map(|_| Client::of(entrance)).collect();
    for client in clients.iter().chain(&clients) {
        client.echo_in_the_end(b"here");
    }
    relay.wait_for(LET_GO);
}

fn an_exit_lets_its_most_silent_flow_go(protocol: Protocol) {
    needs!(Namespaces, "ip");
    network::enter_new(65_536);
    leave_ports(40_000, PORTS);
    let _server = DatagramServer::echo_on(SERVER);
    let tunnel =
        Tunnel::start(protocol, &[format!("DEST={SERVER}/udp")], &[format!("PORT={ENTRANCE}/udp")]);
    datagram_clients_are_served(tunnel.entrance());
    lets_flows_go(&tunnel.receptor);
}

/// As above, for the sockets of SOCKS' datagrams.
#[test]
fn a_proxy_lets_its_most_silent_flow_go() {
    needs!(Namespaces, "ip");
    const CLIENTS: usize = 4;
    network::enter_new(65_536);
    let _server = DatagramServer::echo_on(SERVER);
    let tunnel = Tunnel::start(
        Protocol::V1,
        &["SERVER=socks,-in", "PERMIT=socks:127.0.0.0/8:*"],
        &["PORT=127.0.0.1:0", "SOXCONF=ports:5100-5199"],
    );
    let associate = |number| {
        let mut control = connect(tunnel.entrance());
        control.write_all(&[5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0]).expect("sent");
        let mut said = [0; 12];
        control.read_exact(&mut said).expect("an answer");
        assert_eq!(said[..6], [5, 0, 5, 0, 0, 1]);
        let port = u16::from_be_bytes([said[10], said[11]]);
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        let own = SocketAddr::from(([127, 0, 0, 1], 10_000 + number as u16));
        (control, Client::from(&own.to_string(), at))
    };
    let clients: Vec<_> = (0..CLIENTS).map(associate).collect();
    leave_ports(60_000, CLIENTS / 2);
    let to: SocketAddr = SERVER.parse().expect("an address");
    let IpAddr::V4(ip) = to.ip() else { panic!("an IPv4 address") };
    let head = [&[0, 0, 0, 1][..], &ip.octets(), &to.port().to_be_bytes()].concat();
    for round in 0..3u8 {
        for (number, (_, client)) in clients.iter().enumerate() {
            client.echo_in_the_end(&[&head[..], &[number as u8, round]].concat());
        }
    }
    lets_flows_go(&tunnel.receptor);
}

/// A client from an address and port of its own.
fn connect_from(own: SocketAddr, to: SocketAddr) -> TcpStream {
    try_from(own, to).expect("the entrance takes it")
}

/// As [`connect_from`], for a client that may be refused. `None`: the reset came before it had seen
/// that it was connected.
fn try_from(own: SocketAddr, to: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&own.into()).unwrap_or_else(|e| panic!("{own}: {e}"));
    match socket.connect_timeout(&to.into(), DEADLINE) {
        Ok(()) => Some(bounded(socket.into())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
        Err(error) => panic!("{own} to {to}: {error}"),
    }
}

/// Connections keep their ports until they end: newer ones are refused with the remedy, and served when
/// there is room.
fn connections_wait_for_a_port(entrance: SocketAddr, refuses: &Program) {
    let inside: Vec<_> = (0..PORTS).map(|number| connect_from(own(number), entrance)).collect();
    inside.iter().for_each(|client| check_echo(client, 1, 100));
    if let Some(mut refused) = try_from(own(PORTS), entrance) {
        assert_eq!(read_to_end_of(&mut refused, DEADLINE), Ended::Reset);
    }
    let reason = refuses.wait_for_reason("stream refused");
    assert!(reason.contains(SERVER) && reason.contains(REMEDY), "{reason}");
    refuses.check_idle();
    inside.iter().for_each(|client| check_echo(client, 2, 100));
    inside.into_iter().for_each(reset);
    let mut next = PORTS + 1;
    let served = || {
        next += 1;
        try_from(own(next), entrance).is_some_and(|mut client| {
            client.write_all(b"x").is_ok() && client.read_exact(&mut [0]).is_ok()
        })
    };
    assert!(eventually(DEADLINE, served), "nobody is served any more");
}

#[test]
fn a_relays_connections_wait_for_a_port() {
    needs!(Namespaces, "ip");
    network::enter_new(65_536);
    leave_ports(40_000, PORTS);
    let _server = Server::echo_on(SERVER);
    let words = [format!("-P{ENTRANCE}"), format!("SERVER=tcprelay://{SERVER}")];
    let relay = Program::start(&words);
    connections_wait_for_a_port(relay.address_of("entrance listening"), &relay);
}

fn an_exits_connections_wait_for_a_port(protocol: Protocol) {
    needs!(Namespaces, "ip");
    network::enter_new(65_536);
    let _server = Server::echo_on(SERVER);
    let exit = [format!("DEST={SERVER}")];
    let tunnel = Tunnel::start(protocol, &exit, &[format!("PORT={ENTRANCE}")]);
    // Other ones than the tunnel has.
    leave_ports(61_000, PORTS);
    connections_wait_for_a_port(tunnel.entrance(), &tunnel.receptor);
}

/// A port that is taken towards one address is free towards another.
#[test]
fn the_next_address_has_ports_of_its_own() {
    needs!(Namespaces, "ip");
    network::enter_new(65_536);
    leave_ports(40_000, PORTS);
    const OTHER: &str = "127.0.0.4:5001";
    let _hosts = Hosts::enter(&[("127.0.0.2", "both.test"), ("127.0.0.4", "both.test")]);
    let servers = [SERVER, OTHER].map(Server::echo_on);
    let words = [format!("-P{ENTRANCE}"), "SERVER=tcprelay://both.test:5001".to_owned()];
    let relay = Program::start(&words);
    let entrance = relay.address_of("entrance listening");
    let inside: Vec<_> = (0..2 * PORTS).map(|number| connect_from(own(number), entrance)).collect();
    inside.iter().for_each(|client| check_echo(client, 1, 100));
    assert_eq!(servers.each_ref().map(Server::served), [PORTS, PORTS]);
}

in_both_protocols!(an_exit_lets_its_most_silent_flow_go, an_exits_connections_wait_for_a_port);
