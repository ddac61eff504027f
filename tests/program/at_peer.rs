//! Entrances that a connector asks for at the receptor (`PORT=...?at=peer`): within what the peers file
//! permits, and only there.

use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use serde_json::Value;

use crate::testkit::datagrams::{Client, DatagramServer};
use crate::testkit::keys::Keys;
use crate::testkit::link_proxy::LinkProxy;
use crate::testkit::net::{answer_to, connect, expect_line, free_port, refused};
use crate::testkit::peer_v1::{DATAGRAMS, ENTRANCES, Frame, HALF_CLOSE, PORTS, PeerV1, kind};
use crate::testkit::program::Program;
use crate::testkit::protocol::Protocol;
use crate::testkit::servers::Server;
use crate::testkit::skip::needs;
use crate::testkit::tunnel::{NO_RESUMPTION, start_connector, start_receptor};
use crate::testkit::{DEADLINE, eventually};

/// A port of loopback that nobody has.
fn port() -> SocketAddr {
    free_port(Ipv4Addr::LOCALHOST)
}

/// A hub with the key `hub`, whose peers file has these lines.
struct Hub {
    keys: Keys,
    key: String,
    program: Program,
}

impl Hub {
    fn start(keys: Keys, peers: &str, words: &[&str]) -> Hub {
        let key = keys.make("hub");
        let mut all = vec![keys.listing("hub", peers), NO_RESUMPTION.to_owned()];
        all.extend(words.iter().map(|&word| word.to_owned()));
        let program = start_receptor("127.0.0.1:0", &all);
        Hub { keys, key, program }
    }

    /// Starts a connector with this key that asks for these entrances, at the address of the hub or of
    /// a proxy.
    fn spoke_by(&self, path: SocketAddr, own: &str, asked: &[SocketAddr], to: &Server) -> Program {
        let ports: Vec<String> = asked.iter().map(|at| format!("{at}?at=peer")).collect();
        let words = [
            format!("PORT={}", ports.join(",")),
            format!("DEST={}", to.address()),
            self.keys.words(own, &self.key),
        ];
        start_connector(Protocol::V1, path, &words)
    }

    fn spoke(&self, own: &str, asked: &[SocketAddr], to: &Server) -> Program {
        self.spoke_by(self.program.address_of("receptor listening"), own, asked, to)
    }
}

/// Waits for an event about this entrance, and returns it.
fn about(program: &Program, message: &str, entrance: SocketAddr) -> Value {
    program.wait_for_event(&format!("{message} {entrance}"), 1, |event| {
        event["message"] == message && event["entrance"] == entrance.to_string()
    })
}

fn reason(event: &Value) -> &str {
    event["reason"].as_str().expect("a reason")
}

/// Waits until nobody listens there.
fn is_closed(entrance: SocketAddr) {
    let closed = || {
        let connected = TcpStream::connect_timeout(&entrance, DEADLINE);
        connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    assert!(eventually(DEADLINE, closed), "{entrance} still listens");
}

#[test]
fn a_connector_has_the_entrances_that_the_peers_file_permits_and_no_others() {
    let keys = Keys::new();
    let a = keys.make("a");
    let [first, second, other] = [port(), port(), port()];
    let peers = format!("a {a} listen={},{}-{}", first.port(), second.port(), second.port());
    let hub = Hub::start(keys, &peers, &[]);
    let server = Server::named("of a");
    let spoke = hub.spoke("a", &[first, other, second], &server);
    for entrance in [first, second] {
        about(&spoke, "entrance at the peer open", entrance);
        let opened = about(&hub.program, "entrance opened for a peer", entrance);
        assert_eq!(opened["name"], "a");
        assert_eq!(answer_to("hello", entrance), "of a\nhello");
    }
    let refused = about(&hub.program, "entrance refused to a peer", other);
    assert_eq!(refused["to_permit"], format!("listen={}", other.port()));
    assert_eq!(refused["name"], "a");
    let told = about(&spoke, "entrance at the peer refused", other);
    assert!(reason(&told).contains(&format!("no listen={}", other.port())), "{told}");
    is_closed(other);
}

/// As with `PORT=` of the receptor itself.
#[test]
fn an_entrance_without_an_address_is_at_all_of_the_receptors_host() {
    let keys = Keys::new();
    let a = keys.make("a");
    let entrance = port();
    let hub = Hub::start(keys, &format!("a {a} listen={}", entrance.port()), &[]);
    let server = Server::named("of a");
    let words = [
        format!("PORT={}?at=peer", entrance.port()),
        format!("DEST={}", server.address()),
        hub.keys.words("a", &hub.key),
    ];
    let path = hub.program.address_of("receptor listening");
    let spoke = start_connector(Protocol::V1, path, &words);
    spoke.wait_for("entrance at the peer open");
    for host in ["127.0.0.1", "127.0.0.2"] {
        let at = SocketAddr::new(host.parse().expect("an address"), entrance.port());
        assert_eq!(answer_to("hello", at), "of a\nhello");
    }
}

/// By a key that the command line lets in, and in clear.
#[test]
fn nothing_is_permitted_but_by_the_peers_file() {
    let keys = Keys::new();
    let [hub_key, a] = ["hub", "a"].map(|name| keys.make(name));
    let program = start_receptor("127.0.0.1:0", &[keys.words("hub", &format!("a={a}")), exit()]);
    let hub = Hub { keys, key: hub_key, program };
    let (entrance, server) = (port(), Server::echo());
    let spoke = hub.spoke("a", &[entrance], &server);
    about(&spoke, "entrance at the peer refused", entrance);
    about(&hub.program, "entrance refused to a peer", entrance);
    is_closed(entrance);

    let clear = start_receptor("127.0.0.1:0", &[exit()]);
    let mut peer = asker(&clear, ENTRANCES);
    peer.send(&asks(1, entrance));
    let answer = peer.receive_kind(kind::ENTRANCE_STATE).payload;
    assert_eq!(answer[..5], [0, 0, 0, 1, 1], "{answer:?}");
    about(&clear, "entrance refused to a peer", entrance);
    is_closed(entrance);
}

fn exit() -> String {
    String::from("DEST=127.0.0.1:9")
}

/// A peer of a receptor in clear, by hand, that offers this besides what all of ours do.
fn asker(receptor: &Program, offer: u8) -> PeerV1 {
    let flags = HALF_CLOSE | DATAGRAMS | PORTS | offer;
    PeerV1::join_offering(flags, receptor.address_of("receptor listening"))
}

/// A frame that asks for an entrance.
fn asks(request: u32, at: SocketAddr) -> Frame {
    let mut payload = request.to_be_bytes().to_vec();
    payload.extend([0, 0, 0, 0, 4, 0]);
    payload.extend(at.port().to_be_bytes());
    payload.extend([127, 0, 0, 1]);
    payload.resize(28, 0);
    Frame::new(kind::ENTRANCE, 0, &payload)
}

#[test]
fn an_end_that_cannot_is_never_asked_and_one_that_did_not_offer_it_may_not_ask() {
    let clear = start_receptor("127.0.0.1:0", &[exit()]);
    let mut peer = asker(&clear, 0);
    peer.send(&asks(1, port()));
    let why = clear.wait_for_reason("tunnel down");
    assert!(why.contains("where that was not agreed"), "{why}");

    let keys = Keys::new();
    let a = keys.make("a");
    let (entrance, server) = (port(), Server::echo());
    let peers = format!("a {a} listen={}", entrance.port());
    let hub = Hub::start(keys, &peers, &["SOXCONF=protocol:0.3"]);
    let spoke = hub.spoke("a", &[entrance], &server);
    let told = about(&spoke, "entrance at the peer refused", entrance);
    assert!(reason(&told).contains("the peer opens no entrances on request"), "{told}");
    is_closed(entrance);
}

/// What is refused again and again is answered each time, and told once.
#[test]
fn a_storm_of_requests_costs_its_sender_alone() {
    const REQUESTS: usize = 20_000;
    let clear = start_receptor("127.0.0.1:0", &[exit()]);
    let mut storm = asker(&clear, ENTRANCES);
    let bytes = asks(1, port()).bytes().repeat(REQUESTS);
    let mut sender = storm.0.stream.try_clone().expect("a second handle");
    thread::scope(|scope| {
        let sent = scope.spawn(|| sender.write_all(&bytes));
        let mut bystander = asker(&clear, ENTRANCES);
        (0..20_u8).for_each(|ping| bystander.check_alive(&[ping; 9]));
        (0..REQUESTS).for_each(|_| drop(storm.receive_kind(kind::ENTRANCE_STATE)));
        sent.join().expect("no panic").expect("all is sent");
    });
    assert_eq!(clear.count("entrance refused to a peer"), 1);
}

/// Each of two has its own, whatever exits the other has.
#[test]
fn clients_go_to_the_connector_that_has_asked_for_the_entrance() {
    let keys = Keys::new();
    let [a, b] = ["a", "b"].map(|name| keys.make(name));
    let [of_a, of_b] = [port(), port()];
    // Which entrances of the hub's own lead to a peer does not matter here.
    let peers =
        format!("a {a} listen={}\nb {b} listen={} entrances=none\n", of_a.port(), of_b.port());
    let hub = Hub::start(keys, &peers, &["PORT=127.0.0.1:0"]);
    let servers = ["a", "b"].map(Server::named);
    let first = hub.spoke("a", &[of_a], &servers[0]);
    about(&first, "entrance at the peer open", of_a);
    let mut second = hub.spoke("b", &[of_b, of_a], &servers[1]);
    about(&second, "entrance at the peer open", of_b);
    about(&second, "entrance at the peer refused", of_a);
    for (entrance, name) in [(of_a, "a"), (of_b, "b"), (of_a, "a")] {
        assert_eq!(answer_to("hello", entrance), format!("{name}\nhello"));
    }
    // They end with their tunnel, by a drain too.
    second.terminate();
    is_closed(of_b);
    let closed = about(&hub.program, "entrance of a peer closed", of_b);
    assert!(reason(&closed).contains("going away"), "{closed}");
    second.wait_exit(DEADLINE);
    assert_eq!(answer_to("hello", of_a), "a\nhello");
    drop(first);
    is_closed(of_a);
}

/// The old tunnel stands still, and nobody knows yet that it is gone.
#[test]
fn a_connector_that_comes_back_takes_its_entrances_over() {
    let keys = Keys::new();
    let a = keys.make("a");
    let entrance = port();
    let hub = Hub::start(keys, &format!("a {a} listen={}", entrance.port()), &[]);
    let proxy = LinkProxy::start(hub.program.address_of("receptor listening"));
    let [before, after] = ["before", "after"].map(Server::named);
    let frozen = hub.spoke_by(proxy.address(), "a", &[entrance], &before);
    about(&frozen, "entrance at the peer open", entrance);
    assert_eq!(answer_to("hello", entrance), "before\nhello");
    proxy.pause();
    let next = hub.spoke("a", &[entrance], &after);
    about(&next, "entrance at the peer open", entrance);
    assert_eq!(answer_to("hello", entrance), "after\nhello");
    assert_eq!(hub.program.count("tunnel down"), 0);
    // The old one is told when it can be.
    proxy.resume();
    let closed = about(&frozen, "entrance at the peer closed", entrance);
    assert!(reason(&closed).contains("a newer connection of the same key"), "{closed}");
    drop(frozen);
    hub.program.wait_for("tunnel down");
    assert_eq!(answer_to("hello", entrance), "after\nhello");
}

/// Its process is killed, and another one takes its place.
#[test]
fn a_receptor_that_is_started_again_is_asked_again() {
    let keys = Keys::new();
    let [hub, a] = ["hub", "a"].map(|name| keys.make(name));
    let (path, entrance) = (port(), port());
    let peers = keys.listing("hub", &format!("a {a} listen={}", entrance.port()));
    let start = || start_receptor(&path.to_string(), &[&*peers, NO_RESUMPTION]);
    let program = start();
    program.wait_for("receptor listening");
    let mut hub = Hub { keys, key: hub, program };
    let server = Server::named("of a");
    let spoke = hub.spoke("a", &[entrance], &server);
    about(&spoke, "entrance at the peer open", entrance);
    hub.program.kill_9();
    spoke.wait_for("tunnel down");
    hub.program = start();
    spoke.wait_for_nth("entrance at the peer open", 2);
    assert_eq!(answer_to("hello", entrance), "of a\nhello");
}

#[test]
fn a_port_in_use_is_asked_for_until_it_is_free() {
    let keys = Keys::new();
    let a = keys.make("a");
    let entrance = port();
    let taken = TcpListener::bind(entrance).expect("it is free");
    let hub = Hub::start(keys, &format!("a {a} listen={}", entrance.port()), &[]);
    let server = Server::named("of a");
    let spoke = hub.spoke("a", &[entrance], &server);
    let message = "entrance at the peer not open; it is asked for again until it is";
    let told = about(&spoke, message, entrance);
    assert!(reason(&told).contains("another program has the port there"), "{told}");
    drop(taken);
    about(&spoke, "entrance at the peer open", entrance);
    assert_eq!(answer_to("hello", entrance), "of a\nhello");
}

#[test]
fn clients_are_judged_as_at_any_entrance() {
    let keys = Keys::new();
    let a = keys.make("a");
    let entrance = port();
    let peers = format!("a {a} listen={}", entrance.port());
    let hub = Hub::start(keys, &peers, &["RELIABLE=127.0.0.1", "MAXIMA=conpch:1"]);
    let server = Server::named("of a");
    let spoke = hub.spoke("a", &[entrance], &server);
    about(&spoke, "entrance at the peer open", entrance);
    refused("127.0.0.2", entrance);
    let rejected = hub.program.wait_for("stream refused");
    assert_eq!(rejected["to_let_in"], "RELIABLE=127.0.0.2");
    let mut only = connect(entrance);
    expect_line(&mut only, "of a");
    refused("127.0.0.1", entrance);
}

/// Behind the sandbox, and as another user.
#[test]
fn entrances_are_opened_when_privileges_are_given_up() {
    needs!(Namespaces);
    let keys = Keys::new();
    keys.let_others_in();
    let a = keys.make("a");
    let entrance = port();
    let peers = format!("a {a} listen={}", entrance.port());
    let words = ["--user", "nobody", "--sandbox", "on"];
    let hub = Hub::start(keys, &peers, &words);
    let server = Server::named("of a");
    let spoke = hub.spoke("a", &[entrance], &server);
    about(&spoke, "entrance at the peer open", entrance);
    assert_eq!(answer_to("hello", entrance), "of a\nhello");
}

#[test]
fn flows_go_to_the_connector_that_has_asked_for_the_entrance() {
    let keys = Keys::new();
    let [a, b] = ["a", "b"].map(|name| keys.make(name));
    let entrances = [port(), port()];
    let [of_a, of_b] = entrances.map(|entrance| entrance.port());
    let hub = Hub::start(keys, &format!("a {a} listen={of_a}\nb {b} listen={of_b}\n"), &[]);
    let servers = ["of a", "of b", "of a, again"].map(DatagramServer::named);
    let path = hub.program.address_of("receptor listening");
    let spoke = |own: &str, at: usize, server: usize| {
        let words = [
            format!("PORT={}/udp?at=peer", entrances[at]),
            format!("DEST={}/udp", servers[server].address()),
            hub.keys.words(own, &hub.key),
        ];
        let spoke = start_connector(Protocol::V1, path, &words);
        spoke.wait_for("entrance at the peer open");
        spoke
    };
    let answers = |entrance: SocketAddr, name: &str| {
        let client = Client::of(entrance);
        client.send(b"who are you?");
        assert_eq!(String::from_utf8(client.receive()).expect("text"), name);
    };
    let [first, _second] = [spoke("a", 0, 0), spoke("b", 1, 1)];
    answers(entrances[0], "of a");
    answers(entrances[1], "of b");
    // The newer of one key has it, when the socket is closed.
    let next = spoke("a", 0, 2);
    answers(entrances[0], "of a, again");
    first.wait_for("entrance at the peer closed");
    drop(next);
    hub.program.wait_for_nth("entrance of a peer closed", 2);
    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    client.connect(entrances[0]).expect("connecting sends nothing");
    let is_closed = || client.send(b"?").is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused);
    assert!(eventually(DEADLINE, is_closed), "{} still hears", entrances[0]);
}
