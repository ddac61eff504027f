//! Admission of clients and peers: `RELIABLE=`, names of clients, and limits of streams (`MAXIMA=`).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::testkit::datagrams::{Client, DatagramServer};
use crate::testkit::net::{check_echo, connect_from, free_port, refused};
use crate::testkit::network;
use crate::testkit::program::Program;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::Server;
use crate::testkit::skip::needs;
use crate::testkit::tunnel::{Tunnel, start_connector, start_receptor};
use crate::testkit::{DEADLINE, eventually};

in_both_protocols!(
    reliable_clients_at_an_entrance,
    reliable_clients_at_an_exit,
    reliable_clients_of_ipv6,
    reliable_clients_of_datagrams,
    reliable_peers,
    streams_of_a_client_at_an_entrance,
    streams_of_a_client_at_an_exit,
    streams_of_all_clients,
    flows_of_a_client,
    names_at_an_entrance,
    permitted_clients_at_an_exit,
    names_at_an_exit,
    names_at_an_exit_for_datagrams,
);

/// Two clients. The first has a name, `localhost`, which leads back to it; the second has none.
const FIRST: &str = "127.0.0.1";
const SECOND: &str = "127.0.0.77";

/// A connection from `own` that is echoed to.
fn served(own: &str, entrance: SocketAddr) -> TcpStream {
    let stream = connect_from(own, entrance).expect("a connection");
    check_echo(&stream, 1, 100_000);
    stream
}

/// Waits until the program has refused `nth` streams, the last for a reason with these words.
fn says(program: &Program, nth: usize, wanted: &str) {
    let event = program.wait_for_nth("stream refused", nth);
    let reason = event["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(wanted), "{event}");
}

/// A datagram of this client is answered, in the end.
fn answered(client: &Client) {
    client.echo_in_the_end(b"hello");
}

/// A datagram of this client is not answered.
fn unanswered(client: &Client) {
    client.send(b"hello");
    assert_eq!(client.hears_within(Duration::from_millis(100)), None);
}

/// Where an entrance on every address is at this host.
fn at(host: &str, entrance: SocketAddr) -> SocketAddr {
    SocketAddr::new(host.parse().expect("an address"), entrance.port())
}

fn reliable_clients_at_an_entrance(protocol: Protocol) {
    let server = Server::echo();
    let tunnel = Tunnel::start(
        protocol,
        &[format!("DEST={}", server.address())],
        &["PORT=127.0.0.1:0", "RELIABLE=127.0.0.0/8", "RELIABLE=!127.0.0.77"],
    );
    served(FIRST, tunnel.entrance());
    refused(SECOND, tunnel.entrance());
    says(&tunnel.connector, 1, "RELIABLE=");
    served("127.0.0.2", tunnel.entrance());
    assert_eq!((server.served(), tunnel.receptor.count("stream refused")), (2, 0));
}

fn reliable_clients_at_an_exit(protocol: Protocol) {
    let server = Server::echo();
    let receptor = start_receptor("127.0.0.1:0", &["PORT=127.0.0.1:0"]);
    let connector = start_connector(
        protocol,
        receptor.address_of("receptor listening"),
        &[format!("DEST={}", server.address()), format!("RELIABLE={FIRST}")],
    );
    let entrance = receptor.address_of("entrance listening");
    receptor.wait_for("tunnel up");
    served(FIRST, entrance);
    refused(SECOND, entrance);
    for program in [&receptor, &connector] {
        says(program, 1, "RELIABLE= does not let in client 127.0.0.77");
    }
    served(FIRST, entrance);
    assert_eq!(server.served(), 2);
}

/// Every kind of exit that is no proxy, with its clients limited by `PERMIT=`.
fn permitted_clients_at_an_exit(protocol: Protocol) {
    let (server, datagrams) = (Server::echo(), DatagramServer::echo());
    let dest = format!("DEST={}", server.address());
    let exec = "SERVER=exec:exec cat,-in";
    for (exit, word) in [(&dest[..], "tcprelay"), (exec, "exec"), (&dest, "*")] {
        let words = [exit, &format!("PERMIT={word}:*:{FIRST}")];
        let tunnel = Tunnel::start(protocol, &words, &["PORT=127.0.0.1:0"]);
        served(FIRST, tunnel.entrance());
        refused(SECOND, tunnel.entrance());
        for program in [&tunnel.receptor, &tunnel.connector] {
            says(program, 1, "PERMIT= does not let in client 127.0.0.77");
        }
    }
    let exit = [&format!("DEST={}/udp", datagrams.address()), "PERMIT=udprelay:*:local*"];
    let tunnel = Tunnel::start(protocol, &exit, &["PORT=127.0.0.1:0/udp"]);
    unanswered(&Client::from(&format!("{SECOND}:0"), tunnel.entrance()));
    says(&tunnel.receptor, 1, "PERMIT= does not let in client 127.0.0.77");
    answered(&Client::of(tunnel.entrance()));
    // The server of an FTP exit is never reached for a client that is shut out.
    let ftp = format!("SERVER=ftp://{},-in", server.address());
    let words = [&ftp[..], "SERVER=socks,-in:-:-P1", "PERMIT=*:*:192.0.2.0/24"];
    let tunnel = Tunnel::start(protocol, &words, &["PORT=127.0.0.1:0"]);
    refused(FIRST, tunnel.entrance());
    says(&tunnel.receptor, 1, "PERMIT= does not let in client 127.0.0.1");
}

#[test]
fn permitted_clients_of_a_plain_relay() {
    let (server, datagrams) = (Server::echo(), DatagramServer::echo());
    for list in [FIRST, "local*", "127.0.0.0/8,!127.0.0.77"] {
        let relay = Program::start(&[
            "-P127.0.0.1:0",
            &format!("SERVER=tcprelay://{}", server.address()),
            &format!("PERMIT=*:*:{list}"),
        ]);
        let entrance = relay.address_of("entrance listening");
        refused(SECOND, entrance);
        says(&relay, 1, "rejected by PERMIT=");
        served(FIRST, entrance);
    }
    let relay = Program::start(&[
        "-P127.0.0.1:0/udp",
        &format!("SERVER=udprelay://{}", datagrams.address()),
        &format!("PERMIT=udprelay:*:{FIRST}"),
    ]);
    let entrance = relay.address_of("entrance listening");
    unanswered(&Client::from(&format!("{SECOND}:0"), entrance));
    says(&relay, 1, "rejected by PERMIT=");
    answered(&Client::of(entrance));
}

fn reliable_clients_of_ipv6(protocol: Protocol) {
    let server = Server::echo();
    for (list, let_in) in [("::1", true), ("127.0.0.0/8,!::/0", false)] {
        let tunnel = Tunnel::start(
            protocol,
            &[format!("DEST={}", server.address())],
            &["PORT=[::1]:0", &format!("RELIABLE={list}")],
        );
        match let_in {
            true => drop(served("::1", tunnel.entrance())),
            false => {
                refused("::1", tunnel.entrance());
                says(&tunnel.connector, 1, "RELIABLE=");
            }
        }
    }
}

fn reliable_clients_of_datagrams(protocol: Protocol) {
    let server = DatagramServer::echo();
    let dest = format!("DEST={}/udp", server.address());
    // At the entrance.
    let words = ["PORT=127.0.0.1:0/udp", &format!("RELIABLE={FIRST}")];
    let tunnel = Tunnel::start(protocol, &[&dest], &words);
    unanswered(&Client::from(&format!("{SECOND}:0"), tunnel.entrance()));
    says(&tunnel.connector, 1, "RELIABLE=");
    answered(&Client::of(tunnel.entrance()));
    // At the exit.
    let receptor = start_receptor("127.0.0.1:0", &["PORT=127.0.0.1:0/udp"]);
    let address = receptor.address_of("receptor listening");
    let connector = start_connector(protocol, address, &[dest, format!("RELIABLE={FIRST}")]);
    let entrance = receptor.address_of("entrance listening");
    receptor.wait_for("tunnel up");
    unanswered(&Client::from(&format!("{SECOND}:0"), entrance));
    for program in [&receptor, &connector] {
        says(program, 1, "RELIABLE= does not let in client 127.0.0.77");
    }
    answered(&Client::of(entrance));
}

fn reliable_peers(protocol: Protocol) {
    let server = Server::echo();
    let dest = format!("DEST={}", server.address());
    let shut = start_receptor("127.0.0.1:0", &[&dest, "RELIABLE=127.0.0.77"]);
    let address = shut.address_of("receptor listening");
    let connector = start_connector(protocol, address, &["PORT=127.0.0.1:0"]);
    let event = shut.wait_for("tunnel did not come up");
    assert_eq!(event["reason"], "rejected by RELIABLE=");
    assert_eq!(event["to_let_in"], "RELIABLE=127.0.0.1");
    assert_eq!(connector.count("tunnel up"), 0);
    // The remedy, behind the list.
    let words = [&dest, "RELIABLE=127.0.0.77", "RELIABLE=127.0.0.1"];
    Tunnel::start(protocol, &words, &["PORT=127.0.0.1:0"]);
    // Peers are admitted by the port that they connect to, clients still by address.
    let address = free_port([127, 0, 0, 5].into());
    let reliable = format!("RELIABLE=127.0.0.77,-P{}", address.port());
    let open = start_receptor(&address.to_string(), &[dest, reliable]);
    let tunnel = Tunnel::join(protocol, open, address, address, &["PORT=127.0.0.1:0"]);
    served(SECOND, tunnel.entrance());
    refused(FIRST, tunnel.entrance());
}

/// Two streams of a client are served, a third is not until one of them has ended.
fn two_at_once(entrance: SocketAddr, limiting: &Program) {
    let _first = served(FIRST, entrance);
    let second = served(FIRST, entrance);
    refused(FIRST, entrance);
    says(limiting, 1, "client 127.0.0.1 has 2 streams already (MAXIMA=conpch:2)");
    served(SECOND, entrance);
    drop(second);
    let again = || match connect_from(FIRST, entrance) {
        Ok(mut stream) => stream.write_all(b"x").and_then(|()| stream.read_exact(&mut [0])).is_ok(),
        Err(_) => false,
    };
    assert!(eventually(DEADLINE, again), "the limit is released");
}

fn streams_of_a_client_at_an_entrance(protocol: Protocol) {
    let server = Server::echo();
    let tunnel = Tunnel::start(
        protocol,
        &[format!("DEST={}", server.address())],
        &["PORT=127.0.0.1:0", "MAXIMA=conpch:2"],
    );
    two_at_once(tunnel.entrance(), &tunnel.connector);
}

fn streams_of_a_client_at_an_exit(protocol: Protocol) {
    let server = Server::echo();
    let tunnel = Tunnel::start(
        protocol,
        &[&format!("DEST={}", server.address()), "MAXIMA=conpch:2"],
        &["PORT=127.0.0.1:0"],
    );
    two_at_once(tunnel.entrance(), &tunnel.receptor);
    says(&tunnel.connector, 1, "by the peer: client 127.0.0.1 has 2 streams already");
}

fn streams_of_all_clients(protocol: Protocol) {
    let server = Server::echo();
    let tunnel = Tunnel::start(
        protocol,
        &[format!("DEST={}", server.address())],
        &["PORT=127.0.0.1:0", "MAXIMA=delegated:2"],
    );
    let _held = [FIRST, SECOND].map(|client| served(client, tunnel.entrance()));
    refused("127.0.0.2", tunnel.entrance());
    says(&tunnel.connector, 1, "2 streams are open already (MAXIMA=delegated:2)");
}

fn flows_of_a_client(protocol: Protocol) {
    let server = DatagramServer::echo();
    let dest = format!("DEST={}/udp", server.address());
    let words = ["PORT=127.0.0.1:0/udp", "MAXIMA=conpch:1", "TIMEOUT=udp:1"];
    let tunnel = Tunnel::start(protocol, &[dest], &words);
    let (first, second) = (Client::of(tunnel.entrance()), Client::of(tunnel.entrance()));
    answered(&first);
    unanswered(&second);
    says(&tunnel.connector, 1, "client 127.0.0.1 has 1 streams already (MAXIMA=conpch:1)");
    answered(&Client::from(&format!("{SECOND}:0"), tunnel.entrance()));
    // The first is silent now, and forgotten.
    answered(&second);
}

fn names_at_an_entrance(protocol: Protocol) {
    let server = Server::echo();
    let tunnel = Tunnel::start(
        protocol,
        &[format!("DEST={}", server.address())],
        &["PORT=127.0.0.1:0", "RELIABLE=local*"],
    );
    for _ in 0..2 {
        served(FIRST, tunnel.entrance());
        refused(SECOND, tunnel.entrance());
    }
    says(&tunnel.connector, 2, "RELIABLE=");
}

fn names_at_an_exit(protocol: Protocol) {
    let (by_name, others) = (Server::named("by name"), Server::named("others"));
    let tunnel = Tunnel::start(
        protocol,
        &[format!("DEST={}:*host", by_name.address()), format!("DEST={}", others.address())],
        &["PORT=127.0.0.1:0"],
    );
    for (client, name) in [(FIRST, "by name\n"), (SECOND, "others\n"), (FIRST, "by name\n")] {
        let mut stream = connect_from(client, tunnel.entrance()).expect("a connection");
        let mut said = vec![0; name.len()];
        // First data waits until the name is known.
        stream.write_all(b"hello").expect("sent");
        stream.read_exact(&mut said).expect("the server's name");
        assert_eq!(String::from_utf8_lossy(&said), name);
        let mut said = [0; 5];
        stream.read_exact(&mut said).expect("an echo");
        assert_eq!(&said, b"hello");
        check_echo(&stream, 2, 300_000);
    }
}

fn names_at_an_exit_for_datagrams(protocol: Protocol) {
    let (by_name, others) = (DatagramServer::named("by name"), DatagramServer::named("others"));
    let tunnel = Tunnel::start(
        protocol,
        &[
            format!("DEST={}/udp:*host", by_name.address()),
            format!("DEST={}/udp", others.address()),
        ],
        &["PORT=127.0.0.1:0/udp"],
    );
    for (own, name) in [(FIRST, "by name"), (SECOND, "others")] {
        let client = Client::from(&format!("{own}:0"), tunnel.entrance());
        let answer = || {
            client.send(b"who are you?");
            client.hears_within(Duration::from_millis(200)).as_deref() == Some(name.as_bytes())
        };
        assert!(eventually(DEADLINE, answer), "{own} is answered by {name}");
    }
}

#[test]
fn clients_of_a_plain_relay() {
    let server = Server::echo();
    let relay = Program::start(&[
        "-P0.0.0.0:0",
        &format!("SERVER=tcprelay://{}", server.address()),
        "RELIABLE=127.0.0.0/8,!127.0.0.3",
        "MAXIMA=conpch:2",
    ]);
    let entrance = at(FIRST, relay.address_of("entrance listening"));
    two_at_once(entrance, &relay);
    refused("127.0.0.3", entrance);
    relay.wait_for_event("the list's refusal", 1, |event| {
        event["reason"].as_str().is_some_and(|reason| reason.contains("RELIABLE="))
    });
}

#[test]
fn clients_of_a_plain_relay_of_datagrams() {
    let server = DatagramServer::echo();
    let relay = Program::start(&[
        "-P127.0.0.1:0/udp",
        &format!("SERVER=udprelay://{}", server.address()),
        "RELIABLE=local*",
        "MAXIMA=conpch:1",
    ]);
    let entrance = relay.address_of("entrance listening");
    answered(&Client::of(entrance));
    unanswered(&Client::of(entrance));
    says(&relay, 1, "MAXIMA=conpch:1");
    let client = Client::from(&format!("{SECOND}:0"), entrance);
    let is_refused = || {
        unanswered(&client);
        relay.log_text().contains("RELIABLE=")
    };
    assert!(eventually(DEADLINE, is_refused), "a client without the name");
}

/// `.localnet` is the networks of the interfaces when a client connects.
#[test]
fn localnet_is_this_machine_and_the_networks_that_it_is_in_now() {
    needs!(Namespaces, "ip");
    network::enter_new(65_536);
    // Addresses to connect from that no interface is in the network of.
    for words in [
        "route add local 198.51.100.0/24 dev lo",
        "-6 route add local 2001:db8:77::/64 dev lo",
        "address add 10.77.0.1/24 dev lo",
        "route add local 203.0.113.0/24 dev lo",
        "link add idle0 type veth peer name idle1",
        "address add 203.0.113.1/24 dev idle0",
    ] {
        network::ip(words);
    }
    std::fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1").expect("a network of our own");
    let server = Server::echo();
    let exit = format!("SERVER=tcprelay://{}", server.address());
    let relay = Program::start(&["-P:0", &exit, "RELIABLE=.localnet"]);
    let port = relay.address_of("entrance listening").port();
    let [v4, v6] =
        ["127.0.0.1", "::1"].map(|ip| SocketAddr::new(ip.parse().expect("an address"), port));
    served("127.0.0.1", v4);
    served("127.9.9.9", v4);
    served("10.77.0.9", v4);
    served("::1", v6);
    for (own, at, change) in [
        ("198.51.100.9", v4, "address add 198.51.100.1/24 dev lo"),
        ("2001:db8:77::9", v6, "address add 2001:db8:77::1/64 dev lo"),
        // An interface that is down has no neighbours.
        ("203.0.113.9", v4, "link set idle0 up"),
    ] {
        refused(own, at);
        network::ip(change);
        let is_served = || {
            let stream = connect_from(own, at);
            stream.is_ok_and(|mut stream| {
                stream.write_all(b"x").is_ok() && stream.read(&mut [0]).is_ok_and(|got| got == 1)
            })
        };
        assert!(eventually(DEADLINE, is_served), "{own}");
    }
}

/// Both ends log it, and name the end that lacks the exit.
#[test]
fn a_stream_without_an_exit_names_the_end_that_lacks_it() {
    for (exits, words) in [
        (&["PORT=127.0.0.1:0"][..], "no exit"),
        (&["DEST=127.0.0.1:1:10.9.9.9"], "no exit for client 127.0.0.1 at entrance port"),
    ] {
        let tunnel = Tunnel::start(Protocol::V1, exits, &["PORT=127.0.0.1:0"]);
        refused("127.0.0.1", tunnel.entrance());
        for (end, whose) in [(&tunnel.receptor, "this end"), (&tunnel.connector, "the other end")] {
            let reason = end.wait_for_reason("stream refused");
            assert!(reason.contains(words), "{reason}");
            assert!(reason.contains(&format!(": {whose} has n")), "{reason}");
        }
    }
}
