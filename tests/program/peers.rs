//! Peers by their names: whose key lets them in, and which exits they may use; and the peers file.

use std::fs;

use crate::testkit::datagrams::{Client, DatagramServer};
use crate::testkit::fifos::Fifos;
use crate::testkit::keys::Keys;
use crate::testkit::lease::Lease;
use crate::testkit::net::{answer_to, check_echo, check_new_echo, connect, is_turned_away};
use crate::testkit::program::Program;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::Server;
use crate::testkit::skip::needs;
use crate::testkit::tunnel::{NO_RESUMPTION, start_connector, start_receptor};

/// A connector with this key and an entrance, whose tunnel is up.
fn spoke(protocol: Protocol, hub: &Program, keys: &Keys, own: &str, hub_key: &str) -> Program {
    let address = hub.address_of("receptor listening");
    let words = ["PORT=127.0.0.1:0".to_owned(), keys.words(own, hub_key)];
    let connector = start_connector(protocol, address, &words);
    connector.wait_for("tunnel up");
    connector
}

/// Each comes with the same words but its key, in whatever order.
fn a_peer_uses_the_exits_that_are_for_it(protocol: Protocol) {
    let keys = Keys::new();
    let hub_key = keys.make("hub");
    let servers = ["first", "second"].map(Server::named);
    let [first, second] = servers.each_ref().map(Server::address);
    let [a, b, c] = ["a", "b", "c"].map(|name| keys.make(name));
    let hub = start_receptor(
        "127.0.0.1:0",
        &[
            format!("DEST={first}:peer=a"),
            format!("DEST={second}:127.0.0.0/8,peer=b"),
            keys.words("hub", &format!("a={a},peer:b={b},peer:c={c}")),
        ],
    );
    let [c, b, a] = ["c", "b", "a"].map(|own| spoke(protocol, &hub, &keys, own, &hub_key));
    for (spoke, name) in [(&a, "first"), (&b, "second"), (&a, "first")] {
        let entrance = spoke.address_of("entrance listening");
        assert_eq!(answer_to("who are you?", entrance), format!("{name}\nwho are you?"));
    }
    is_turned_away(c.address_of("entrance listening"));
    let reason = c.wait_for_reason("stream refused");
    assert!(reason.contains("no exit"), "{reason}");
    assert_eq!(servers.each_ref().map(Server::served), [2, 1]);
}

/// A hub with an entrance for each of two spokes. A newcomer that is let in, too, and says it has an
/// exit for everybody, gets no client of theirs.
fn clients_go_to_the_peer_that_the_entrance_is_for(protocol: Protocol) {
    let keys = Keys::new();
    let hub_key = keys.make("hub");
    let [a, b, c] = ["a", "b", "c"].map(|name| keys.make(name));
    let hub = start_receptor(
        "127.0.0.1:0",
        &[
            "PORT=127.0.0.1:0?peer=a,127.0.0.1:0?peer=b,127.0.0.1:0".to_owned(),
            keys.words("hub", &format!("a={a},peer:b={b},peer:c={c}")),
            NO_RESUMPTION.to_owned(),
        ],
    );
    let entrances = [1, 2, 3].map(|nth| hub.nth_address_of("entrance listening", nth));
    let servers = ["of a", "of b", "of c"].map(Server::named);
    let address = hub.address_of("receptor listening");
    let start = |own: &str, server: &Server, nth| {
        let words = [format!("DEST={}", server.address()), keys.words(own, &hub_key)];
        let spoke = start_connector(protocol, address, &words);
        hub.wait_for_nth("tunnel up", nth);
        spoke
    };
    let mut first = start("a", &servers[0], 1);
    // Its peer is not here, and another one is.
    is_turned_away(entrances[1]);
    assert_eq!(hub.wait_for_reason("stream refused"), "no peer b is here");
    let _others = [start("b", &servers[1], 2), start("c", &servers[2], 3)];
    for (entrance, name) in entrances.iter().zip(["of a", "of b", "of c"]) {
        assert_eq!(answer_to("hello", *entrance), format!("{name}\nhello"));
    }
    first.kill_9();
    hub.wait_for("tunnel down");
    is_turned_away(entrances[0]);
    assert_eq!(answer_to("hello", entrances[1]), "of b\nhello");
    assert_eq!(servers.each_ref().map(Server::served), [1, 2, 1]);
}

fn flows_go_to_the_peer_that_the_entrance_is_for(protocol: Protocol) {
    let keys = Keys::new();
    let hub_key = keys.make("hub");
    let [a, b] = ["a", "b"].map(|name| keys.make(name));
    let hub = start_receptor(
        "127.0.0.1:0",
        &[
            "PORT=127.0.0.1:0/udp?peer=a,127.0.0.1:0/udp?peer=b".to_owned(),
            keys.words("hub", &format!("a={a},peer:b={b}")),
        ],
    );
    let entrances = [1, 2].map(|nth| hub.nth_address_of("entrance listening", nth));
    let servers = ["of a", "of b"].map(DatagramServer::named);
    let address = hub.address_of("receptor listening");
    let _spokes = [("a", 0), ("b", 1)].map(|(own, at): (&str, usize)| {
        let exit = format!("DEST={}/udp", servers[at].address());
        let spoke = start_connector(protocol, address, &[exit, keys.words(own, &hub_key)]);
        hub.wait_for_nth("tunnel up", at + 1);
        spoke
    });
    for (entrance, name) in entrances.iter().zip(["of a", "of b"]) {
        let client = Client::of(*entrance);
        client.send(b"who are you?");
        assert_eq!(String::from_utf8(client.receive()).expect("text"), name);
    }
}

in_both_protocols! {
    a_peer_uses_the_exits_that_are_for_it,
    clients_go_to_the_peer_that_the_entrance_is_for,
    flows_go_to_the_peer_that_the_entrance_is_for,
}

/// From two ends that know nobody to a tunnel, by the lines of their logs.
#[test]
fn the_lines_of_the_log_let_the_peers_in() {
    let keys = Keys::new();
    let [x, y] = ["x", "y"].map(|name| keys.make(name));
    let server = Server::named("server");
    let peers = ["of-x", "of-y"].map(|name| keys.path(name));
    for file in &peers {
        fs::write(file, "# nobody yet\n").expect("a file");
    }
    let words = |own: &str, file: usize| {
        format!("TLSCONF=key:{},peers:{}", keys.path(own).display(), peers[file].display())
    };
    let exit = format!("DEST={}", server.address());
    let receptor = start_receptor("127.0.0.1:0", &[exit, words("x", 0)]);
    let address = receptor.address_of("receptor listening");
    let entrance = "PORT=127.0.0.1:0".to_owned();
    let connector = start_connector(Protocol::V1, address, &[entrance, words("y", 1)]);
    // Of the connector, which sees the other one's key first; then of the receptor.
    let let_in = |program: &Program, file: usize, name: &str, key: &str| {
        let line = format!("add this line to {}: NAME {key}", peers[file].display());
        program.wait_for_event(&line, 1, |event| {
            event["message"] == "tunnel did not come up"
                && event["reason"].as_str().is_some_and(|r| r.contains(&line))
        });
        fs::write(&peers[file], format!("{name} {key}\n")).expect("the file");
    };
    let_in(&connector, 1, "hub", &x);
    let_in(&receptor, 0, "spoke", &y);
    assert_eq!(receptor.wait_for("tunnel up")["peer_key"], *y);
    connector.wait_for("tunnel up");
    let entrance = connector.address_of("entrance listening");
    assert_eq!(answer_to("hello", entrance), "server\nhello");
}

/// Until it is open, or has taken too long. Nobody else waits for it, and a key of the command line
/// does not need it.
#[test]
fn a_peers_file_that_hangs_holds_up_those_alone_whose_keys_may_be_in_it() {
    needs!("perl");
    let keys = Keys::new();
    let [hub_key, a, b, c] = ["hub", "a", "b", "c"].map(|name| keys.make(name));
    let (server, file) = (Server::echo(), keys.path("peers"));
    fs::write(&file, format!("a {a}\n")).expect("a file");
    let words = keys.words("hub", &format!("c={c},peers:{}", file.display()));
    let hub = start_receptor("127.0.0.1:0", &[format!("DEST={}", server.address()), words]);
    let up = |name: &str| {
        hub.wait_for_event(&format!("tunnel up of {name}"), 1, |event| {
            event["message"] == "tunnel up" && event["name"] == name
        })
    };
    let first = spoke(Protocol::V1, &hub, &keys, "a", &hub_key);
    let entrance = first.address_of("entrance listening");
    let stream = connect(entrance);
    check_echo(&stream, 1, 100_000);

    // It is opened, since it has changed.
    fs::write(&file, format!("a {a}\nb {b}\n")).expect("the file");
    let mut lease = Lease::on(&file);
    let address = hub.address_of("receptor listening");
    let start = |own| {
        let words = ["PORT=127.0.0.1:0".to_owned(), keys.words(own, &hub_key)];
        start_connector(Protocol::V1, address, &words)
    };
    let _others = ["b", "c"].map(start);
    lease.wait_for_victim();
    check_echo(&stream, 2, 1_000_000);
    check_new_echo(entrance, 3, 100_000);
    let wanted = format!("{} cannot be read: it took more than 3 s", file.display());
    hub.wait_for_event(&wanted, 1, |event| {
        event["message"] == "tunnel did not come up"
            && event["reason"].as_str().is_some_and(|reason| reason.ends_with(&wanted))
    });
    up("c");
    check_echo(&stream, 4, 1_000_000);
    drop(lease);
    up("b");
    check_echo(&stream, 5, 100_000);
}

#[test]
fn a_key_that_is_taken_out_of_the_file_is_refused_at_the_next_dial() {
    let keys = Keys::new();
    let [hub_key, a] = ["hub", "a"].map(|name| keys.make(name));
    let (server, file) = (Server::named("server"), keys.path("peers"));
    fs::write(&file, format!("a {a}\n")).expect("a file");
    let words = format!("TLSCONF=key:{},peers:{}", keys.path("hub").display(), file.display());
    let hub = start_receptor("127.0.0.1:0", &[format!("DEST={}", server.address()), words]);
    let mut connector = spoke(Protocol::V1, &hub, &keys, "a", &hub_key);
    let entrance = connector.address_of("entrance listening");
    fs::write(&file, "").expect("the file");
    // The tunnel that is up stays.
    assert_eq!(answer_to("hello", entrance), "server\nhello");
    connector.kill_9();
    let words = ["PORT=127.0.0.1:0".to_owned(), keys.words("a", &hub_key)];
    let again = start_connector(Protocol::V1, hub.address_of("receptor listening"), &words);
    let reason = hub.wait_for_reason("tunnel did not come up");
    assert!(reason.contains(&format!("the peer's key {a} is not known here")), "{reason}");
    again.wait_for("tunnel did not come up");
}

#[test]
fn a_peers_file_is_looked_at_for_links_that_are_no_sockets() {
    let (server, keys, fifos) = (Server::echo(), Keys::new(), Fifos::new());
    let [x, y] = ["x", "y"].map(|name| keys.make(name));
    let (of_x, of_y) =
        (keys.listing("x", &format!("y {y}\n")), keys.listing("y", &format!("x {x}\n")));
    let exit = format!("DEST={}", server.address());
    let ends = fifos.join(
        Protocol::V1,
        &["PORT=127.0.0.1:0", &of_x, "STLS=fsv"],
        &[&*exit, &of_y, "STLS=fcl"],
    );
    for (end, name) in ends.iter().zip(["y", "x"]) {
        assert_eq!(end.wait_for("tunnel up")["name"], name);
    }
    check_new_echo(ends[0].address_of("entrance listening"), 1, 100_000);
}
