//! Clients and servers whose host has vanished, as after a power cut, while nothing is sent: the kernel's
//! keep-alive probes fail, and their streams end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::testkit::net::{Ended, bounded, connect, connect_from, read_to_end_of};
use crate::testkit::program::Program;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::skip::needs;
use crate::testkit::tunnel::Tunnel;
use crate::testkit::{DEADLINE, network};

/// The host that goes.
const HOST: &str = "192.0.2.7";
const HERE: &str = "127.0.0.1";

/// A network with that host, and keep-alive probes after seconds instead of hours.
fn enter_network() {
    network::enter_new(65_536);
    network::ip(&format!("addr add {HOST}/32 dev lo"));
    for (name, value) in [("time", "1"), ("intvl", "1"), ("probes", "2")] {
        network::sysctl(&format!("net.ipv4.tcp_keepalive_{name}"), value);
    }
}

/// One of two that are connected loses its host: the other one is reset.
fn whoever_is_left_is_told(gone: &mut TcpStream, left: &mut TcpStream) {
    gone.write_all(b"x").expect("sent");
    left.read_exact(&mut [0]).expect("it arrives");
    left.write_all(b"y").expect("sent");
    gone.read_exact(&mut [0]).expect("it arrives");
    network::ip(&format!("addr del {HOST}/32 dev lo"));
    assert_eq!(read_to_end_of(left, DEADLINE), Ended::Reset);
}

fn listen(ip: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((ip, 0)).expect("the address is there");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

fn the_client_is_gone(protocol: Protocol) {
    needs!(Namespaces, "ip");
    enter_network();
    let (listener, address) = listen(HERE);
    let tunnel = Tunnel::to(protocol, address);
    let mut client = connect_from(HOST, tunnel.entrance()).expect("connected");
    let (server, _) = listener.accept().expect("the tunnel comes");
    whoever_is_left_is_told(&mut client, &mut bounded(server));
}

fn the_server_is_gone(protocol: Protocol) {
    needs!(Namespaces, "ip");
    enter_network();
    let (listener, address) = listen(HOST);
    let tunnel = Tunnel::to(protocol, address);
    let mut client = connect(tunnel.entrance());
    let (server, _) = listener.accept().expect("the tunnel comes");
    whoever_is_left_is_told(&mut bounded(server), &mut client);
}

in_both_protocols!(the_client_is_gone, the_server_is_gone);

#[test]
fn a_plain_relays_client_is_gone() {
    needs!(Namespaces, "ip");
    enter_network();
    let (listener, address) = listen(HERE);
    let relay =
        Program::start(&[String::from("-P127.0.0.1:0"), format!("SERVER=tcprelay://{address}")]);
    let mut client = connect_from(HOST, relay.address_of("entrance listening")).expect("connected");
    let (server, _) = listener.accept().expect("the relay comes");
    whoever_is_left_is_told(&mut client, &mut bounded(server));
}
