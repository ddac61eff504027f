//! The tunnel as its user sees it: plain clients and servers, no faults.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use socket2::SockRef;

use crate::testkit::net::{
    Ended, check_echo, check_new_echo, connect, free_port, is_turned_away, read_to_end_of,
};
use crate::testkit::pattern::Pattern;
use crate::testkit::program::Program;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::{Exchange, Server};
use crate::testkit::tunnel::{Tunnel, start_connector, start_receptor};
use crate::testkit::{DEADLINE, eventually};

/// Reads the first line of a [`Server::named`].
fn greeting(address: SocketAddr) -> String {
    let mut stream = connect(address);
    let mut line = Vec::new();
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte).expect("a greeting");
        line.push(byte[0]);
    }
    String::from_utf8(line).expect("text").trim_end().to_owned()
}

fn example_1_streams_begin_at_both_ends(protocol: Protocol) {
    let (at_x, at_y) = (Server::named("host X"), Server::named("host Y"));
    let tunnel = Tunnel::start(
        protocol,
        &[
            "SERVER=sockmux".to_owned(),
            "PORT=127.0.0.1:0".to_owned(),
            format!("SERVER=telnet://{},-in", at_x.address()),
        ],
        &["PORT=127.0.0.1:0".to_owned(), format!("SERVER=telnet://{},-in", at_y.address())],
    );
    let entrance_x = tunnel.receptor.address_of("entrance listening");
    let entrance_y = tunnel.connector.address_of("entrance listening");
    assert_eq!(greeting(entrance_x), "host Y");
    assert_eq!(greeting(entrance_y), "host X");
}

fn example_1_data_both_ways_in_both_directions_at_once(protocol: Protocol) {
    let server = Server::exchange();
    let exit = format!("SERVER=telnet://{},-in", server.address());
    let ends = ["PORT=127.0.0.1:0".to_owned(), exit];
    let tunnel = Tunnel::start(protocol, &ends, &ends);
    let entrances = [&tunnel.receptor, &tunnel.connector]
        .map(|program| program.address_of("entrance listening"));
    std::thread::scope(|scope| {
        for seed in 0..10 {
            scope.spawn(move || {
                Exchange { seed, up_bytes: 1 << 20, down_bytes: 1 << 20 }
                    .run(entrances[seed as usize % 2]);
            });
        }
    });
}

fn example_2_one_direction(protocol: Protocol) {
    let server = Server::echo();
    let tunnel = Tunnel::start(
        protocol,
        &["SERVER=sockmux".to_owned(), format!("SERVER=telnet://{},-in", server.address())],
        &["PORT=127.0.0.1:0"],
    );
    check_new_echo(tunnel.entrance(), 2, 100_000);
}

fn example_4_tcprelay(protocol: Protocol) {
    let server = Server::echo();
    let tunnel = Tunnel::start(
        protocol,
        &["SERVER=sockmux".to_owned(), format!("DEST={}", server.address())],
        &["PORT=127.0.0.1:0"],
    );
    check_new_echo(tunnel.entrance(), 4, 100_000);
}

fn example_9_exits_chosen_by_entrance_port(protocol: Protocol) {
    let (telnet, http) = (Server::named("telnet"), Server::named("http"));
    let receptor = start_receptor("127.0.0.1:0", &["PORT=127.0.0.1:0,127.0.0.1:0"]);
    let first = receptor.nth_address_of("entrance listening", 1);
    let second = receptor.nth_address_of("entrance listening", 2);
    let _connector = start_connector(
        protocol,
        receptor.address_of("receptor listening"),
        &[
            format!("SERVER=telnet://{},-in:-:-P{}", telnet.address(), first.port()),
            // With the host, which the original does not match.
            format!("SERVER=http://{},-in:-:-P{second}", http.address()),
        ],
    );
    receptor.wait_for("tunnel up");
    assert_eq!(greeting(first), "telnet");
    assert_eq!(greeting(second), "http");
}

fn the_link_the_entrance_and_the_exit_on_ipv6(protocol: Protocol) {
    let server = Server::echo_on("[::1]:0");
    let receptor = start_receptor("[::1]:0", &[format!("DEST={}", server.address())]);
    let connector =
        start_connector(protocol, receptor.address_of("receptor listening"), &["PORT=[::1]:0"]);
    connector.wait_for("tunnel up");
    let entrance = connector.address_of("entrance listening");
    assert!(entrance.is_ipv6());
    check_new_echo(entrance, 6, 100_000);
}

/// At either end.
#[test]
fn either_end_can_keep_0_3() {
    let server = Server::echo();
    let exit = format!("DEST={}", server.address());
    let (old, new) = ("SOXCONF=protocol:0.3", "SOXCONF=protocol:1");
    for (at_receptor, at_connector, spoken) in
        [(old, new, "0.3"), (new, old, "0.3"), (old, old, "0.3"), (new, new, "1")]
    {
        let receptor = start_receptor("127.0.0.1:0", &[exit.as_str(), at_receptor]);
        let connector = start_connector(
            Protocol::V1,
            receptor.address_of("receptor listening"),
            &["PORT=127.0.0.1:0", at_connector],
        );
        for program in [&receptor, &connector] {
            let up = program.wait_for("tunnel up");
            assert_eq!(
                (&up["protocol"], &up["peer_kind"]),
                (&spoken.into(), &"sockmux-uring".into())
            );
        }
        check_new_echo(connector.address_of("entrance listening"), 3, 300_000);
    }
}

#[test]
fn names_are_looked_up() {
    let server = Server::echo();
    let receptor =
        start_receptor("localhost:0", &[format!("DEST=localhost:{}", server.address().port())]);
    let port = receptor.address_of("receptor listening").port();
    let connector =
        Program::start(&[&format!("SERVER=sockmux://localhost:{port}"), "PORT=localhost:0"]);
    connector.wait_for("tunnel up");
    check_new_echo(connector.address_of("entrance listening"), 7, 100_000);
}

fn a_receptor_serves_several_connectors(protocol: Protocol) {
    let server = Server::echo();
    let receptor = start_receptor("127.0.0.1:0", &[format!("DEST={}", server.address())]);
    let address = receptor.address_of("receptor listening");
    let connectors: Vec<Program> =
        (0..4).map(|_| start_connector(protocol, address, &["PORT=127.0.0.1:0"])).collect();
    std::thread::scope(|scope| {
        for (seed, connector) in connectors.iter().enumerate() {
            let entrance = connector.address_of("entrance listening");
            scope.spawn(move || check_new_echo(entrance, seed as u64, 500_000));
        }
    });
    assert_eq!(receptor.count("tunnel up"), 4);
}

fn a_client_not_in_the_list_is_refused_and_both_ends_say_why(protocol: Protocol) {
    let server = Server::echo();
    let tunnel = Tunnel::start(
        protocol,
        &[format!("DEST={}:10.0.0.0/8", server.address())],
        &["PORT=127.0.0.1:0"],
    );
    is_turned_away(tunnel.entrance());
    tunnel.receptor.wait_for_reason("stream refused");
    tunnel.connector.wait_for_reason("stream refused");
    assert_eq!(server.served(), 0);
}

fn the_first_exit_that_matches_is_taken(protocol: Protocol) {
    let (stranger, local, last) =
        (Server::named("stranger"), Server::named("local"), Server::named("last"));
    let tunnel = Tunnel::start(
        protocol,
        &[
            format!("DEST={}:!127.*", stranger.address()),
            format!("DEST={}:127.0.0.0/8", local.address()),
            format!("DEST={}", last.address()),
        ],
        &["PORT=127.0.0.1:0"],
    );
    assert_eq!(greeting(tunnel.entrance()), "local");
}

fn a_destination_that_refuses_ends_the_client_and_both_ends_say_why(protocol: Protocol) {
    let nobody = free_port([127, 0, 0, 2].into());
    let tunnel = Tunnel::to(protocol, nobody);
    is_turned_away(tunnel.entrance());
    let reason = tunnel.receptor.wait_for_reason("stream refused");
    assert!(reason.contains("refused"), "{reason}");
    tunnel.connector.wait_for_reason("stream refused");
}

fn a_refused_destination_does_not_disturb_other_streams(protocol: Protocol) {
    let server = Server::echo();
    let nobody = free_port([127, 0, 0, 2].into());
    let receptor = start_receptor("127.0.0.1:0", &["PORT=127.0.0.1:0,127.0.0.1:0"]);
    let good = receptor.nth_address_of("entrance listening", 1);
    let bad = receptor.nth_address_of("entrance listening", 2);
    let _connector = start_connector(
        protocol,
        receptor.address_of("receptor listening"),
        &[
            format!("DEST={}:-P{}", server.address(), good.port()),
            format!("DEST={nobody}:-P{}", bad.port()),
        ],
    );
    receptor.wait_for("tunnel up");
    std::thread::scope(|scope| {
        scope.spawn(|| check_new_echo(good, 1, 8 << 20));
        for _ in 0..50 {
            is_turned_away(bad);
        }
    });
    assert_eq!(receptor.count("tunnel down"), 0);
}

fn many_small_requests_over_one_stream(protocol: Protocol) {
    let server = Server::echo();
    let tunnel = Tunnel::to(protocol, server.address());
    let mut stream = connect(tunnel.entrance());
    let (mut sent, mut expected) = (Pattern::new(1), Pattern::new(1));
    for size in (1..=64).cycle().take(3000) {
        sent.send(&mut stream, size).expect("a request is sent");
        expected.receive(&mut stream, size).expect("its answer");
    }
}

fn the_server_may_speak_first(protocol: Protocol) {
    let server = Server::named("220 ready");
    let tunnel = Tunnel::to(protocol, server.address());
    assert_eq!(greeting(tunnel.entrance()), "220 ready");
}

fn an_answer_arrives_whole_after_the_client_has_shut_down_its_sending_side(protocol: Protocol) {
    const ANSWER_BYTES: u64 = 4 << 20;
    let server = Server::line_answer();
    // The time after which the end reaches this server, which has no more to send.
    let tunnel = Tunnel::start(
        protocol,
        &[&format!("DEST={}", server.address()), "TIMEOUT=lin:3"],
        &["PORT=127.0.0.1:0", "TIMEOUT=lin:3"],
    );
    let mut stream = connect(tunnel.entrance());
    writeln!(stream, "5 {ANSWER_BYTES}").expect("the request is sent");
    stream.shutdown(Shutdown::Write).expect("half-close");
    Pattern::new(5).receive(&mut stream, ANSWER_BYTES).expect("the whole answer");
    assert_eq!(read_to_end_of(&mut stream, DEADLINE), Ended::Eof);
}

fn the_last_bytes_before_a_close_arrive(protocol: Protocol) {
    const LAST_BYTES: u64 = 3 << 20;
    let server =
        Server::start("127.0.0.1:0", |mut stream| Pattern::new(9).send(&mut stream, LAST_BYTES));
    let tunnel = Tunnel::to(protocol, server.address());
    for _ in 0..10 {
        let mut stream = connect(tunnel.entrance());
        Pattern::new(9).receive(&mut stream, LAST_BYTES).expect("everything before the close");
        assert_eq!(read_to_end_of(&mut stream, DEADLINE), Ended::Eof);
    }
}

fn a_big_transfer_up_and_down(protocol: Protocol) {
    const BYTES: u64 = 64 << 20;
    let server = Server::exchange();
    let tunnel = Tunnel::to(protocol, server.address());
    Exchange { seed: 1, up_bytes: BYTES, down_bytes: 0 }.run(tunnel.entrance());
    Exchange { seed: 2, up_bytes: 0, down_bytes: BYTES }.run(tunnel.entrance());
}

fn two_thousand_connections_leak_no_descriptor(protocol: Protocol) {
    let server = Server::echo();
    let tunnel = Tunnel::to(protocol, server.address());
    // The first one may open descriptors that are kept for ever.
    check_new_echo(tunnel.entrance(), 0, 1000);
    let before = || (tunnel.receptor.descriptors(), tunnel.connector.descriptors());
    // Connections that are still closing end in a moment: the smallest count is the stable one.
    let (mut at_receptor, mut at_connector) = before();
    eventually(Duration::from_millis(500), || {
        let now = before();
        (at_receptor, at_connector) = (at_receptor.min(now.0), at_connector.min(now.1));
        false
    });
    for seed in 0..2000 {
        check_new_echo(tunnel.entrance(), seed, 10);
    }
    let back = eventually(DEADLINE, || {
        tunnel.receptor.descriptors() <= at_receptor
            && tunnel.connector.descriptors() <= at_connector
    });
    assert!(
        back,
        "descriptors: receptor {at_receptor} before, {} after; connector {at_connector}, {}",
        tunnel.receptor.descriptors(),
        tunnel.connector.descriptors()
    );
    assert_eq!(server.served(), 2001);
}

fn urgent_data_arrives_as_urgent_data(protocol: Protocol) {
    // Reports each step: TCP forgets an urgent byte when the data behind it is
    // read first, so that is sent only then.
    let server = Server::start("127.0.0.1:0", |mut stream| {
        stream.read_exact(&mut [0; 6])?;
        stream.write_all(b"1")?;
        let mut urgent = [std::mem::MaybeUninit::new(0)];
        if eventually(DEADLINE, || {
            matches!(SockRef::from(&stream).recv_out_of_band(&mut urgent), Ok(1))
        }) {
            stream.write_all(b"2")?;
        }
        stream.read_exact(&mut [0; 5])?;
        stream.write_all(b"3")
    });
    let tunnel = Tunnel::to(protocol, server.address());
    let mut stream = connect(tunnel.entrance());
    let mut step = [0];
    stream.write_all(b"before").expect("data is sent");
    stream.read_exact(&mut step).expect("the data has arrived");
    SockRef::from(&stream).send_out_of_band(b"!").expect("urgent data is sent");
    stream.read_exact(&mut step).expect("the urgent data has arrived");
    assert_eq!(step, *b"2");
    stream.write_all(b"after").expect("data is sent");
    stream.read_exact(&mut step).expect("the data has arrived");
    assert_eq!(step, *b"3");
}

in_both_protocols! {
    example_1_streams_begin_at_both_ends,
    example_1_data_both_ways_in_both_directions_at_once,
    example_2_one_direction,
    example_4_tcprelay,
    example_9_exits_chosen_by_entrance_port,
    the_link_the_entrance_and_the_exit_on_ipv6,
    a_receptor_serves_several_connectors,
    a_client_not_in_the_list_is_refused_and_both_ends_say_why,
    the_first_exit_that_matches_is_taken,
    a_destination_that_refuses_ends_the_client_and_both_ends_say_why,
    a_refused_destination_does_not_disturb_other_streams,
    many_small_requests_over_one_stream,
    the_server_may_speak_first,
    an_answer_arrives_whole_after_the_client_has_shut_down_its_sending_side,
    the_last_bytes_before_a_close_arrive,
    a_big_transfer_up_and_down,
    two_thousand_connections_leak_no_descriptor,
    urgent_data_arrives_as_urgent_data,
}

/// One socket for every address of each family, in either order and over TCP and UDP.
#[test]
fn every_address_of_both_families_can_be_listened_on_one_by_one() {
    let server = Server::echo();
    let exit = format!("SERVER=tcprelay://{}", server.address());
    for order in [["0.0.0.0", "[::]"], ["[::]", "0.0.0.0"], ["127.0.0.1", "[::]"]] {
        let port = free_port([0, 0, 0, 0].into()).port();
        let ports = order.map(|host| format!("{host}:{port}")).join(",");
        let relay = Program::start(&[&format!("-P{ports}"), &exit]);
        relay.wait_for_nth("entrance listening", 2);
        for host in ["127.0.0.1", "[::1]"] {
            let address = format!("{host}:{port}").parse().expect("an address");
            check_echo(&connect(address), 1, 10_000);
        }
    }
    let port = free_port([0, 0, 0, 0].into()).port();
    let ports = format!("-P0.0.0.0:{port}/udp,[::]:{port}/udp");
    let relay = Program::start(&[&ports, "SERVER=udprelay://127.0.0.1:9"]);
    relay.wait_for_nth("entrance listening", 2);
}
