//! Encrypted tunnels: every byte arrives, nothing of it is readable on the way, and whoever is not to
//! come is turned away, with a reason at both ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::process::Child;

use crate::testkit::DEADLINE;
use crate::testkit::datagrams::{Client, DatagramServer};
use crate::testkit::fifos::Fifos;
use crate::testkit::keys::Keys;
use crate::testkit::net::{check_new_echo, connect, free_port};
use crate::testkit::openssl::s_client;
use crate::testkit::program::Program;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::{Exchange, Server};
use crate::testkit::skip::needs;
use crate::testkit::tap::Tap;
use crate::testkit::tunnel::{
    NO_RESUMPTION, Tunnel, check_nothing_is_left, start_connector, start_receptor,
};

const ENTRANCE: &str = "PORT=127.0.0.1:0";

fn exit(server: &Server) -> String {
    format!("DEST={}", server.address())
}

fn entrance(program: &Program) -> std::net::SocketAddr {
    program.address_of("entrance listening")
}

/// Both ends with an entrance and an exit, and the same secret.
fn both_ways(protocol: Protocol, server: &Server, more: &str) -> (Tunnel, Keys) {
    let keys = Keys::new();
    let secret = keys.secret("secret") + more;
    let words = [ENTRANCE, &exit(server), &secret];
    (Tunnel::start(protocol, &words, &words), keys)
}

/// Ends both without a word of trouble: each hears of the other's end.
fn stop(mut tunnel: Tunnel) {
    tunnel.connector.terminate();
    assert_eq!(tunnel.connector.wait_exit(DEADLINE).code(), Some(0));
    let down = tunnel.receptor.wait_for("tunnel down");
    assert_eq!(down["reason"], "the peer closed the connection", "{down}");
    tunnel.receptor.terminate();
    assert_eq!(tunnel.receptor.wait_exit(DEADLINE).code(), Some(0));
}

fn streams_of_all_kinds_go_both_ways(protocol: Protocol) {
    let server = Server::exchange();
    let (tunnel, _keys) = both_ways(protocol, &server, "");
    let entrances = [entrance(&tunnel.receptor), entrance(&tunnel.connector)];
    std::thread::scope(|scope| {
        for seed in 0..24 {
            let entrance = entrances[seed as usize % 2];
            let bytes = [1, 100, 20_000, 4 << 20][seed as usize % 4];
            scope
                .spawn(move || Exchange { seed, up_bytes: bytes, down_bytes: bytes }.run(entrance));
        }
    });
    stop(tunnel);
}

/// An answer to an upload comes after the end of its data.
fn an_end_of_data_passes_one_way(protocol: Protocol) {
    let server = Server::start("127.0.0.1:0", |mut stream| {
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        stream.write_all(text.to_uppercase().as_bytes())
    });
    let (tunnel, _keys) = both_ways(protocol, &server, "");
    let mut client = connect(tunnel.entrance());
    client.write_all(b"half-closed").expect("sent");
    client.shutdown(Shutdown::Write).expect("an end of data");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    assert_eq!(answer, "HALF-CLOSED");
    stop(tunnel);
}

fn a_stream_that_has_ended_leaves_nothing(protocol: Protocol) {
    let server = Server::ends_first();
    let (tunnel, _keys) = both_ways(protocol, &server, "");
    check_nothing_is_left([&tunnel.receptor, &tunnel.connector], tunnel.entrance());
}

in_both_protocols!(
    streams_of_all_kinds_go_both_ways,
    an_end_of_data_passes_one_way,
    a_stream_that_has_ended_leaves_nothing,
);

#[test]
fn bulk_arrives_whole_and_is_not_spliced() {
    const BYTES: u64 = 200 << 20;
    let server = Server::exchange();
    let (mut tunnel, _keys) = both_ways(Protocol::V1, &server, "");
    Exchange { seed: 1, up_bytes: BYTES, down_bytes: BYTES }.run(tunnel.entrance());
    for program in [&mut tunnel.connector, &mut tunnel.receptor] {
        program.terminate();
        program.wait_exit(DEADLINE);
        let event = program.wait_for("stopped");
        for spliced in ["spliced_from_local", "spliced_to_local", "splice_fallbacks"] {
            assert_eq!(event[spliced], 0, "{event}");
        }
        assert!(event["splice_encrypted"].as_u64() > Some(0), "{event}");
    }
}

#[test]
fn keys_change_on_the_way_without_a_byte_lost() {
    const STREAMS: u64 = 4;
    const BYTES: u64 = 16 << 20;
    const KEY_BYTES: u64 = 64 << 10;
    let (server, keys) = (Server::exchange(), Keys::new());
    let secret = keys.secret("secret") + ",rekey:64K";
    let words = [ENTRANCE, &exit(&server), &secret, "-vv"];
    let mut tunnel = Tunnel::start(Protocol::V1, &words, &words);
    let entrance = tunnel.entrance();
    std::thread::scope(|scope| {
        for seed in 0..STREAMS {
            scope
                .spawn(move || Exchange { seed, up_bytes: BYTES, down_bytes: BYTES }.run(entrance));
        }
    });
    tunnel.connector.terminate();
    assert_eq!(tunnel.connector.wait_exit(DEADLINE).code(), Some(0));
    let [receptor, connector] =
        [&tunnel.receptor, &tunnel.connector].map(|end| end.wait_for("key counts"));
    for (sender, receiver) in [(&receptor, &connector), (&connector, &receptor)] {
        let updates = sender["key_updates_out"].as_u64().expect("a count");
        assert!(updates >= STREAMS * BYTES / KEY_BYTES, "{updates}");
        assert_eq!(receiver["key_updates_in"], updates);
    }
}

#[test]
fn datagrams_pass_encrypted() {
    let (server, keys) = (DatagramServer::echo(), Keys::new());
    let secret = keys.secret("secret");
    let exit = format!("DEST={}/udp", server.address());
    let tunnel = Tunnel::start(Protocol::V1, &[&exit, &secret], &["PORT=127.0.0.1:0/udp", &secret]);
    let client = Client::of(tunnel.entrance());
    for size in [1, 100, 1_400, 9_000] {
        let datagram = vec![7; size];
        client.send(&datagram);
        assert_eq!(client.receive(), datagram);
    }
}

/// Whoever is on the way sees records of TLS and none of the payload.
#[test]
fn what_passes_is_not_readable_and_both_ends_know_each_other() {
    let (server, keys) = (Server::echo(), Keys::new());
    let (hub, spoke) = (keys.make("hub"), keys.make("spoke"));
    let receptor = start_receptor(
        "127.0.0.1:0",
        &[exit(&server), keys.words("hub", &format!("spoke={spoke}"))],
    );
    let address = receptor.address_of("receptor listening");
    let tap = Tap::start(address);
    let words = [ENTRANCE.to_owned(), keys.words("spoke", &hub)];
    let tunnel = Tunnel::join(Protocol::V1, receptor, address, tap.address(), &words);
    let up = tunnel.receptor.wait_for("tunnel up");
    assert_eq!((&up["name"], &up["peer_key"]), (&"spoke".into(), &(&*spoke).into()), "{up}");
    let cipher = up["cipher"].as_str().expect("a cipher");
    assert!(cipher.starts_with("TLS13_"), "{up}");
    let up = tunnel.connector.wait_for("tunnel up");
    assert_eq!((&up["name"], &up["peer_key"]), (&().into(), &(&*hub).into()), "{up}");

    let mut client = connect(tunnel.entrance());
    const MARK: &[u8] = b"not to be read by anybody on the way";
    client.write_all(MARK).expect("sent");
    let mut back = vec![0; MARK.len()];
    client.read_exact(&mut back).expect("echoed");
    assert_eq!(back, MARK);
    for bytes in [true, false].map(|is_up| tap.bytes(is_up)) {
        assert_eq!(bytes[..2], [22, 3], "a handshake first");
        assert!(bytes.len() > MARK.len());
        let is_readable = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
        assert!(!is_readable(MARK) && !is_readable(b"sockmux-uring"), "it is encrypted");
    }
}

/// By a process that may open no other file any more.
#[test]
fn a_line_that_is_added_to_the_peers_file_lets_a_peer_in_at_once() {
    let (server, keys) = (Server::echo(), Keys::new());
    let (hub, spoke) = (keys.make("hub"), keys.make("spoke"));
    let peers = keys.path("peers");
    std::fs::write(&peers, "# nobody yet\n").expect("a file");
    let conf = format!("TLSCONF=key:{},peers:{}", keys.path("hub").display(), peers.display());
    let receptor = start_receptor("127.0.0.1:0", &[exit(&server), conf]);
    let address = receptor.address_of("receptor listening");
    let words = [ENTRANCE.to_owned(), keys.words("spoke", &hub)];
    let connector = start_connector(Protocol::V1, address, &words);
    let reason = receptor.wait_for_reason("tunnel did not come up");
    let (_, line) = reason.rsplit_once(": ").expect("the line that lets it in");
    assert_eq!(line, format!("NAME {spoke}"), "{reason}");
    std::fs::write(&peers, line.replace("NAME", "spoke")).expect("a file");
    assert_eq!(receptor.wait_for("tunnel up")["name"], "spoke");
    check_new_echo(entrance(&connector), 1, 1_000);
}

#[test]
fn a_link_that_breaks_is_dialled_and_encrypted_again() {
    let (server, keys) = (Server::echo(), Keys::new());
    let secret = keys.secret("secret");
    let (tunnel, proxy) = Tunnel::start_spoilable(
        Protocol::V1,
        &[exit(&server), secret.clone()],
        &[ENTRANCE.to_owned(), secret, NO_RESUMPTION.to_owned()],
    );
    check_new_echo(tunnel.entrance(), 1, 100_000);
    proxy.reset();
    tunnel.connector.wait_for_nth("tunnel up", 2);
    check_new_echo(tunnel.entrance(), 2, 100_000);
}

#[test]
fn an_end_of_the_connection_without_one_of_tls_is_a_break() {
    let (server, keys) = (Server::echo(), Keys::new());
    let secret = keys.secret("secret");
    let receptor =
        start_receptor("127.0.0.1:0", &[exit(&server), secret.clone(), NO_RESUMPTION.to_owned()]);
    let address = receptor.address_of("receptor listening");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let path = listener.local_addr().expect("an address");
    let between = std::thread::spawn(move || {
        let (client, _) = listener.accept().expect("the connector");
        let server = std::net::TcpStream::connect(address).expect("the receptor");
        let ways = [
            (client.try_clone().expect("a socket"), server.try_clone().expect("a socket")),
            (server.try_clone().expect("a socket"), client.try_clone().expect("a socket")),
        ];
        for (mut from, mut to) in ways {
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        }
        (client, server)
    });
    let words = [ENTRANCE.to_owned(), secret];
    let tunnel = Tunnel::join(Protocol::V1, receptor, address, path, &words);
    check_new_echo(tunnel.entrance(), 1, 1_000);
    let (client, server) = between.join().expect("no panic");
    // Both are cut off before one can tell the other.
    let ends = [&tunnel.receptor, &tunnel.connector];
    ends.iter().for_each(|end| end.pause());
    server.shutdown(Shutdown::Write).expect("an end of data");
    client.shutdown(Shutdown::Write).expect("an end of data");
    ends.iter().for_each(|end| end.go_on());
    for end in ends {
        let down = end.wait_for("tunnel down");
        let reason = down["reason"].as_str().expect("a reason");
        assert!(reason.contains("cut off"), "{down}");
        assert_eq!(down["level"], "WARN", "{down}");
    }
}

#[test]
fn fifos_and_commands_are_encrypted_too() {
    let (server, keys, fifos) = (Server::exchange(), Keys::new(), Fifos::new());
    let secret = keys.secret("secret");
    let exit = exit(&server);
    let ends = fifos.join(
        Protocol::V1,
        &[ENTRANCE, &exit, &secret, "STLS=fsv"],
        &[ENTRANCE, &exit, &secret, "STLS=fcl"],
    );
    for (seed, end) in ends.iter().enumerate() {
        Exchange { seed: seed as u64, up_bytes: 8 << 20, down_bytes: 8 << 20 }.run(entrance(end));
    }

    let program = env!("CARGO_BIN_EXE_sockmux-uring");
    let far = format!("SERVER=sockmux:proc@{program} -Fsockmux {exit} {secret}");
    let near = Program::start(&[ENTRANCE, &far, &secret]);
    assert!(near.wait_for("tunnel up")["cipher"].as_str().is_some());
    Exchange { seed: 3, up_bytes: 8 << 20, down_bytes: 8 << 20 }.run(entrance(&near));
}

/// A receptor that knows the key of a client of openssl, and that client, which has begun with it.
fn with_openssl(keys: &Keys, words: &[&str]) -> (Program, Child) {
    let server = Server::echo();
    let (_, spoke) = (keys.make("hub"), keys.make("spoke"));
    let receptor = start_receptor("127.0.0.1:0", &[exit(&server), keys.words("hub", &spoke)]);
    let mut client = s_client(keys, "spoke", receptor.address_of("receptor listening"), words);
    (receptor, client.spawn().expect("openssl starts"))
}

#[test]
fn openssl_completes_the_handshake_and_changes_keys() {
    needs!("openssl");
    let keys = Keys::new();
    let (receptor, mut client) = with_openssl(&keys, &["-alpn", "sockmux"]);
    let mut input = client.stdin.take().expect("a pipe");
    let mut told = BufReader::new(client.stderr.take().expect("a pipe")).lines();
    // Two changes of keys, the second of which asks for one of ours; then what is no hello.
    for command in ["k\n", "K\n"] {
        input.write_all(command.as_bytes()).expect("s_client reads");
        let is_done = told.by_ref().any(|line| line.is_ok_and(|line| line.contains("KEYUPDATE")));
        assert!(is_done, "{command}");
    }
    input.write_all(b"this is no hello\n").expect("s_client reads");
    let reason = receptor.wait_for_reason("tunnel did not come up");
    assert!(reason.contains("not speaking SockMux"), "{reason}");
    drop(input);
    let output = client.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("New, TLSv1.3, Cipher is TLS_"), "{text}");
    assert!(text.contains("ALPN protocol: sockmux"), "{text}");
}

/// Its key is known, and it may be for something else.
#[test]
fn openssl_without_our_protocol_is_refused_and_told() {
    needs!("openssl");
    for words in [&[][..], &["-alpn", "http/1.1"]] {
        let keys = Keys::new();
        let (receptor, mut client) = with_openssl(&keys, words);
        let reason = receptor.wait_for_reason("tunnel did not come up");
        assert!(reason.contains("not agreed to the protocol sockmux"), "{reason}");
        // It reads on, for as long as its input is open.
        let mut told = String::new();
        client.stderr.take().expect("a pipe").read_to_string(&mut told).expect("text");
        assert!(told.contains("alert number 120"), "no_application_protocol: {told}");
        client.wait().expect("it ends");
        assert_eq!(receptor.count("tunnel up"), 0);
    }
}

/// A peer that says nothing, or half of something, does not stay.
#[test]
fn a_handshake_that_does_not_go_on_is_ended() {
    let (server, keys) = (Server::echo(), Keys::new());
    let secret = keys.secret("secret");
    let receptor = start_receptor("127.0.0.1:0", &[exit(&server), secret.clone()]);
    let address = receptor.address_of("receptor listening");
    let mut half = connect(address);
    half.write_all(&[22, 3, 1, 2, 0, 1]).expect("sent");
    let mut rest = Vec::new();
    half.read_to_end(&mut rest).expect("an end");
    let reason = receptor.wait_for_reason("tunnel did not come up");
    assert!(reason.contains("no hello within 5 s"), "{reason}");
    // It has cost nobody anything.
    let words = [ENTRANCE.to_owned(), secret];
    let tunnel = Tunnel::join(Protocol::V1, receptor, address, address, &words);
    check_new_echo(tunnel.entrance(), 1, 1_000);
}

/// With the connector's end at nothing that speaks TLS.
#[test]
fn a_port_where_nobody_answers_in_tls_is_said() {
    let keys = Keys::new();
    let secret = keys.secret("secret");
    let listener = TcpListener::bind(free_port([127, 0, 0, 2].into())).expect("a port");
    let address = listener.local_addr().expect("an address");
    let connector = start_connector(Protocol::V1, address, &[ENTRANCE.to_owned(), secret]);
    let (mut stream, _) = listener.accept().expect("the connector");
    let mut first = [0; 2];
    stream.read_exact(&mut first).expect("a handshake");
    assert_eq!(first, [22, 3]);
    stream.write_all(b"220 mail.example.org ready\r\n").expect("sent");
    let reason = connector.wait_for_reason("tunnel did not come up");
    assert!(reason.contains("the peer speaks plaintext"), "{reason}");
}
