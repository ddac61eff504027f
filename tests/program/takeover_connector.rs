//! `--takeover` of a connector: the new one has a tunnel of its own before the old one stops accepting.

use std::net::SocketAddr;

use crate::takeover::{Lineage, ends_in_order, ports};
use crate::testkit::DEADLINE;
use crate::testkit::datagrams::{Client, DatagramServer};
use crate::testkit::net::{check_echo, check_new_echo, connect};
use crate::testkit::program::Program;
use crate::testkit::servers::Server;
use crate::testkit::traffic::Traffic;
use crate::testkit::tunnel::start_receptor;

/// Exit code when the command line is valid and the set-up fails.
const SET_UP_FAILED: i32 = 3;

/// An entrance of connectors, wherever they dial.
fn entrance() -> (Lineage, SocketAddr) {
    let [entrance] = ports();
    (Lineage::of(&[format!("PORT={entrance}"), "TIMEOUT=drain:60".into()]), entrance)
}

fn start(lineage: &Lineage, link: SocketAddr) -> Program {
    let program = lineage.start_with(&[&format!("SERVER=sockmux://{link}")]);
    program.wait_for("entrance listening");
    program
}

#[test]
fn one_that_has_no_tunnel_leaves_the_old_one_at_work() {
    let server = Server::echo();
    let receptor = start_receptor("127.0.0.1:0", &[format!("DEST={}", server.address())]);
    let link = receptor.address_of("receptor listening");
    let (lineage, entrance) = entrance();
    let first = start(&lineage, link);
    first.wait_for("tunnel up");
    let [nowhere] = ports();
    let mut second = start(&lineage, nowhere);
    for round in 0..10 {
        check_new_echo(entrance, round, 1000);
    }
    assert_eq!(second.wait_exit(DEADLINE).code(), Some(SET_UP_FAILED));
    let reason = second.wait_for_reason("cannot take over");
    assert!(reason.contains("the old process has a tunnel"), "{reason}");
    first.wait_for("the new process has failed: going on");
    // One that is stopped meanwhile takes nothing with it.
    let mut third = start(&lineage, nowhere);
    third.terminate();
    assert_eq!(third.wait_exit(DEADLINE).code(), Some(0));
    first.wait_for_nth("the new process has failed: going on", 2);
    check_new_echo(entrance, 1, 1000);
    assert!(lineage.path().exists());
    assert_eq!(first.count("draining"), 0);
    // The next one comes while another one is on its way, and waits for its failure.
    let traffic = Traffic::start(entrance);
    let mut fourth = start(&lineage, nowhere);
    let fifth = lineage.start_with(&[&format!("SERVER=sockmux://{link}")]);
    fourth.kill_9();
    first.wait_for("a new process has taken over");
    traffic.goes_on();
    traffic.end();
    ends_in_order(first);
    drop(fifth);
}

/// No datagram finds a process that reads it and cannot send it on.
#[test]
fn datagrams_are_answered_all_the_time() {
    let server = DatagramServer::echo();
    let receptor = start_receptor("127.0.0.1:0", &[format!("DEST={}/udp", server.address())]);
    let link = receptor.address_of("receptor listening");
    let [entrance] = ports();
    let lineage =
        Lineage::of(&[format!("SERVER=sockmux://{link}"), format!("PORT={entrance}/udp")]);
    let mut old = lineage.start();
    old.wait_for("tunnel up");
    let client = Client::of(entrance);
    client.check_echo(b"one");
    for _ in 0..5 {
        let new = lineage.start_with(&[]);
        while new.count("taken over: the old process serves what it has, and ends") == 0 {
            client.check_echo(b"another");
        }
        client.check_echo(b"the next one's");
        ends_in_order(std::mem::replace(&mut old, new));
    }
}

/// Its own peer may be why it is upgraded.
#[test]
fn one_without_a_tunnel_is_taken_over_from_at_once() {
    let [nowhere] = ports();
    let (lineage, entrance) = entrance();
    let first = start(&lineage, nowhere);
    let waiting = connect(entrance);
    let second = start(&lineage, nowhere);
    second.wait_for("taken over: the old process serves what it has, and ends");
    ends_in_order(first);
    let server = Server::echo();
    let receptor = start_receptor("127.0.0.1:0", &[format!("DEST={}", server.address())]);
    let third = start(&lineage, receptor.address_of("receptor listening"));
    ends_in_order(second);
    check_echo(&waiting, 1, 1000);
    drop(third);
}
