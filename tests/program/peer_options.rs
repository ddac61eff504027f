//! What options in the peers file let a peer do.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};

use crate::testkit::datagrams::{Client, DatagramServer};
use crate::testkit::keys::Keys;
use crate::testkit::net::{answer_to, bounded, connect, expect_line, free_port, is_turned_away};
use crate::testkit::program::Program;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::Server;
use crate::testkit::tunnel::{start_connector, start_receptor};
use crate::testkit::{DEADLINE, eventually};

/// A hub with a peers file, and the keys of all.
struct Hub {
    program: Program,
    keys: Keys,
    key: String,
}

impl Hub {
    /// Each peer as its name and options.
    fn start(peers: &[(&str, &str)], words: &[String]) -> Hub {
        let keys = Keys::new();
        let key = keys.make("hub");
        let line =
            |&(name, options): &(&str, &str)| format!("{name} {} {options}\n", keys.make(name));
        let lines: String = peers.iter().map(line).collect();
        fs::write(keys.path("peers"), lines).expect("a file");
        let [own, file] = ["hub", "peers"].map(|name| keys.path(name));
        let tls = format!("TLSCONF=key:{},peers:{}", own.display(), file.display());
        let program = start_receptor("127.0.0.1:0", &[words, &[tls]].concat());
        Hub { program, keys, key }
    }

    /// A peer with a key that was made, when its tunnel is up.
    fn join(&self, protocol: Protocol, key: &str, word: String) -> Program {
        let address = self.program.address_of("receptor listening");
        let before = self.program.count("tunnel up");
        let spoke = start_connector(protocol, address, &[word, self.keys.words(key, &self.key)]);
        spoke.wait_for("tunnel up");
        self.program.wait_for_nth("tunnel up", before + 1);
        spoke
    }

    /// As [`Hub::join`], with an entrance, whose address is given too.
    fn client(&self, protocol: Protocol, key: &str) -> (Program, SocketAddr) {
        let spoke = self.join(protocol, key, "PORT=127.0.0.1:0".to_owned());
        let entrance = spoke.address_of("entrance listening");
        (spoke, entrance)
    }

    /// The reason of the `nth` stream that it refused.
    fn refused(&self, nth: usize) -> String {
        let event = self.program.wait_for_nth("stream refused", nth);
        event["reason"].as_str().expect("a reason").to_owned()
    }
}

/// A stream that is there: its server has answered.
fn stream(entrance: SocketAddr, server: &str) -> TcpStream {
    let mut stream = connect(entrance);
    expect_line(&mut stream, server);
    stream
}

/// By any of its tunnels, and no other peer's are.
fn streams_of_a_peer_are_counted(protocol: Protocol) {
    let server = Server::named("server");
    let exit = format!("DEST={}", server.address());
    let hub = Hub::start(&[("a", "streams=2"), ("b", "")], &[exit]);
    let (_first, entrance) = hub.client(protocol, "a");
    let (_second, by_second) = hub.client(protocol, "a");
    let (_other, by_other) = hub.client(protocol, "b");
    let held = [entrance, by_second].map(|entrance| stream(entrance, "server"));
    for entrance in [entrance, by_second] {
        is_turned_away(entrance);
    }
    for nth in [1, 2] {
        let reason = hub.refused(nth);
        assert_eq!(reason, "peer a has 2 streams already (streams=2 in the peers file)");
    }
    let _others: Vec<TcpStream> = (0..3).map(|_| stream(by_other, "server")).collect();
    // One less is room for another one, which the hub may learn a moment later.
    drop(held);
    let comes_in = || {
        TcpStream::connect(entrance)
            .is_ok_and(|stream| bounded(stream).read_exact(&mut [0]).is_ok())
    };
    assert!(eventually(DEADLINE, comes_in), "two streams have ended");
}

/// By their places, whatever their words; and no exit is none.
fn a_peer_uses_the_exits_of_its_options(protocol: Protocol) {
    let servers = ["first", "second"].map(Server::named);
    let [first, second] = servers.each_ref().map(Server::address);
    let all = [format!("SERVER=telnet://{first},-in:-:peer=a,peer=b"), format!("DEST={second}")];
    let to_second = format!("exits=socks,{second}");
    let peers = [("a", ""), ("b", &*to_second), ("c", "exits=none")];
    let hub = Hub::start(&peers, &all);
    let spokes = ["a", "b", "c"].map(|key| hub.client(protocol, key));
    let [a, b, c] = spokes.each_ref().map(|(_, entrance)| *entrance);
    for (entrance, name) in [(b, "second"), (a, "first"), (b, "second")] {
        assert_eq!(answer_to("hello", entrance), format!("{name}\nhello"));
    }
    is_turned_away(c);
    let reason = hub.refused(1);
    assert!(
        reason.contains("this end has none for it among those that the peer may use"),
        "{reason}"
    );
    let reason = spokes[2].0.wait_for_reason("stream refused");
    assert!(reason.contains("the other end has none for it among those"), "{reason}");
    assert_eq!(servers.each_ref().map(Server::served), [1, 2]);
}

/// The newest tunnel would take them all, and its options say which it gets.
fn clients_of_the_entrances_of_its_options_go_to_a_peer(protocol: Protocol) {
    let [x, y, udp] = [1, 2, 3].map(|_| free_port([127, 0, 0, 1].into()));
    let ports = format!("PORT={x},{y},{udp}/udp");
    let only_y = format!("entrances={},{}", y.port(), udp.port());
    let hub = Hub::start(&[("a", &only_y), ("b", ""), ("c", "entrances=none")], &[ports]);
    let servers = ["of a", "of b", "of c"].map(Server::named);
    let flows = ["of a", "of b", "of c"].map(DatagramServer::named);
    let join = |key: &str, nth: usize| {
        let exits = format!("DEST={}", servers[nth].address());
        // 0.3 does not say what a stream carries.
        let udp = format!("DEST={}/udp:-P{}", flows[nth].address(), udp.port());
        let address = hub.program.address_of("receptor listening");
        let before = hub.program.count("tunnel up");
        let words = [udp, exits, hub.keys.words(key, &hub.key)];
        let spoke = start_connector(protocol, address, &words);
        hub.program.wait_for_nth("tunnel up", before + 1);
        spoke
    };
    // While nobody else is here clients of the other one are refused.
    let _c = join("c", 2);
    is_turned_away(x);
    let port = x.port();
    let wanted = format!("no peer that is here has clients of entrance port {port} (entrances=)");
    assert_eq!(hub.refused(1), wanted);
    let _b = join("b", 1);
    let _a = join("a", 0);
    for (entrance, name) in [(x, "of b"), (y, "of a"), (x, "of b")] {
        assert_eq!(answer_to("hello", entrance), format!("{name}\nhello"));
    }
    let client = Client::of(udp);
    client.send(b"who are you?");
    assert_eq!(String::from_utf8(client.receive()).expect("text"), "of a");
    assert_eq!(servers.each_ref().map(Server::served), [1, 2, 0]);
}

/// A tunnel keeps what held when its peer came; the next one has what the file says then.
fn options_hold_from_the_handshake_on(protocol: Protocol) {
    let server = Server::named("server");
    let hub = Hub::start(&[("a", "exits=none")], &[format!("DEST={}", server.address())]);
    let (_before, entrance) = hub.client(protocol, "a");
    is_turned_away(entrance);
    let path = hub.keys.path("peers");
    let text = fs::read_to_string(&path).expect("the file");
    fs::write(&path, text.replace("exits=none", "streams=1")).expect("the file");
    is_turned_away(entrance);
    let (_after, by_new) = hub.client(protocol, "a");
    assert_eq!(answer_to("hello", by_new), "server\nhello");
    is_turned_away(entrance);
}

in_both_protocols! {
    streams_of_a_peer_are_counted,
    a_peer_uses_the_exits_of_its_options,
    clients_of_the_entrances_of_its_options_go_to_a_peer,
    options_hold_from_the_handshake_on,
}
