//! `--takeover` of a receptor at which peers have asked for entrances (`?at=peer`).

use std::net::{SocketAddr, TcpStream};

use crate::takeover::{Lineage, ends_in_order, ports};
use crate::testkit::datagrams::{Client, DatagramServer};
use crate::testkit::keys::Keys;
use crate::testkit::net::{Ended, check_new_echo, connect, read_to_end_of};
use crate::testkit::program::Program;
use crate::testkit::protocol::Protocol;
use crate::testkit::servers::Server;
use crate::testkit::traffic::Traffic;
use crate::testkit::tunnel::start_connector;
use crate::testkit::{DEADLINE, eventually};

/// A receptor, and how its connector is started, with a key each.
struct Hub {
    lineage: Lineage,
    keys: Keys,
    key: String,
    link: SocketAddr,
}

impl Hub {
    /// The connector may ask for entrances at these ports.
    fn new(permitted: &[SocketAddr], words: &[&str]) -> Hub {
        let keys = Keys::new();
        let [key, spoke] = ["hub", "spoke"].map(|name| keys.make(name));
        let permitted: Vec<String> = permitted.iter().map(|at| at.port().to_string()).collect();
        let peers = format!("spoke {spoke} listen={}", permitted.join(","));
        let [link] = ports();
        let mut all = vec![format!("-P{link}"), keys.listing("hub", &peers)];
        all.extend(words.iter().map(|&word| word.to_owned()));
        Hub { lineage: Lineage::of(&all), keys, key, link }
    }

    fn start(&self) -> Program {
        let program = self.lineage.start_with(&[]);
        program.wait_for("receptor listening");
        program
    }

    fn spoke(&self, words: &[String]) -> Program {
        let own = [self.keys.words("spoke", &self.key)];
        start_connector(Protocol::V1, self.link, &[words, &own].concat())
    }
}

#[test]
fn entrances_that_peers_have_asked_for_are_taken_over_below_traffic() {
    let (server, datagrams) = (Server::echo(), DatagramServer::echo());
    let [entrance, by_udp] = ports();
    let hub = Hub::new(&[entrance, by_udp], &["TIMEOUT=drain:60"]);
    let first = hub.start();
    let spoke = hub.spoke(&[
        format!("PORT={entrance}?at=peer,{by_udp}/udp?at=peer"),
        format!("DEST={}", server.address()),
        format!("DEST={}/udp", datagrams.address()),
    ]);
    spoke.wait_for_nth("entrance at the peer open", 2);
    let client = Client::of(by_udp);
    client.check_echo(b"to the first");
    let mut traffic = Traffic::start(entrance);
    let second = hub.start();
    assert_eq!(second.wait_for("taking over from the old process")["sockets"], 3);
    assert_eq!(first.wait_for("a new process has taken over")["sockets"], 3);
    traffic.goes_on();
    second.wait_for_nth("entrance opened for a peer", 2);
    client.check_echo(b"to the second");
    traffic.end_streams();
    ends_in_order(first);
    let third = hub.start();
    traffic.goes_on();
    traffic.end();
    third.wait_for_nth("entrance opened for a peer", 2);
    client.check_echo(b"to the third");
    ends_in_order(second);
    check_new_echo(entrance, 1, 100_000);
    assert_eq!(third.count("entrance closed: no peer has asked for it"), 0);
}

/// Its clients wait no longer than for a tunnel.
#[test]
fn an_entrance_that_no_peer_asks_for_again_is_closed() {
    let server = Server::echo();
    let [entrance] = ports();
    let hub = Hub::new(&[entrance], &["TIMEOUT=hold:1"]);
    let first = hub.start();
    let spoke =
        hub.spoke(&[format!("PORT={entrance}?at=peer"), format!("DEST={}", server.address())]);
    spoke.wait_for("entrance at the peer open");
    spoke.pause();
    let second = hub.start();
    // It is taken over once more before anybody has asked for it.
    let third = hub.start();
    assert_eq!(second.wait_for("a new process has taken over")["sockets"], 2);
    let mut client = connect(entrance);
    assert_eq!(read_to_end_of(&mut client, DEADLINE), Ended::Reset);
    let closed = third.wait_for("entrance closed: no peer has asked for it");
    assert_eq!(closed["entrance"], entrance.to_string());
    assert!(eventually(DEADLINE, || TcpStream::connect(entrance).is_err()));
    // When it comes after all, it gets one.
    spoke.go_on();
    third.wait_for("entrance opened for a peer");
    check_new_echo(entrance, 1, 1000);
    drop(first);
}
