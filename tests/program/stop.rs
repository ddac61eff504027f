//! SIGTERM: open streams may finish, no new ones begin.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::testkit::datagrams::{Client, DatagramServer};
use crate::testkit::net::{check_echo, connect, expect_line, free_port, read_to_end_of};
use crate::testkit::program::Program;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::Server;
use crate::testkit::tunnel::{Tunnel, start_connector, start_receptor};
use crate::testkit::{DEADLINE, eventually};

/// Within this the program has ended when nothing is left to wait for.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// As [`ENDS_WITHIN`] where flows of datagrams have to be silent for a second first.
const SILENT_WITHIN: Duration = Duration::from_secs(4);

/// True when a new client of `entrance` is turned away: refused, reset, or given end of data.
fn turned_away(entrance: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&entrance, DEADLINE) else { return true };
    // A client in the queue of a listener that is being closed is reset at any of these.
    if stream.set_read_timeout(Some(DEADLINE)).is_err() || stream.write_all(b"anyone?").is_err() {
        return true;
    }
    !matches!(stream.read(&mut [0]), Ok(1))
}

fn sigterm_lets_the_open_stream_finish(protocol: Protocol) {
    for at_connector in [true, false] {
        let server = Server::echo();
        let mut tunnel = Tunnel::to(protocol, server.address());
        let entrance = tunnel.entrance();
        let stream = connect(entrance);
        check_echo(&stream, 1, 100_000);

        let stopping = match at_connector {
            true => &mut tunnel.connector,
            false => &mut tunnel.receptor,
        };
        stopping.terminate();
        stopping.wait_for("draining");
        // The connector knows that the receptor drains, and lets clients wait.
        if at_connector {
            // A client that connected before the socket was closed is still served.
            assert!(eventually(ENDS_WITHIN, || turned_away(entrance)));
        }
        check_echo(&stream, 2, 4 << 20);
        drop(stream);
        assert_eq!(stopping.wait_exit(DEADLINE).code(), Some(0));
        stopping.wait_for("stopped");
    }
}

fn sigterm_without_streams_ends_at_once(protocol: Protocol) {
    let mut tunnel = Tunnel::to(protocol, free_port([127, 0, 0, 2].into()));
    tunnel.connector.terminate();
    assert_eq!(tunnel.connector.wait_exit(ENDS_WITHIN).code(), Some(0));
    // It was announced, so it is no warning.
    assert_eq!(tunnel.receptor.wait_for("tunnel down")["level"], "INFO");
    tunnel.receptor.terminate();
    assert_eq!(tunnel.receptor.wait_exit(ENDS_WITHIN).code(), Some(0));
}

/// A stream is open when the time of the drain is over.
fn a_drain_that_cuts_a_stream_off_is_a_warning(protocol: Protocol) {
    let server = Server::echo();
    let mut tunnel = Tunnel::start(
        protocol,
        &[format!("DEST={}", server.address())],
        &["PORT=127.0.0.1:0", "TIMEOUT=drain:1"],
    );
    let stream = connect(tunnel.entrance());
    check_echo(&stream, 1, 1000);
    tunnel.connector.terminate();
    tunnel.connector.wait_exit(DEADLINE);
    assert_eq!(tunnel.receptor.wait_for("tunnel down")["level"], "WARN");
}

#[test]
fn a_peer_that_is_killed_is_a_warning() {
    let mut tunnel = Tunnel::without_resumption(Protocol::V1, free_port([127, 0, 0, 2].into()));
    tunnel.connector.kill_9();
    assert_eq!(tunnel.receptor.wait_for("tunnel down")["level"], "WARN");
}

/// A flow ends by silence only: an entrance has no socket of its own for it.
fn sigterm_waits_for_silence_where_a_flow_is_open(protocol: Protocol) {
    for at_connector in [true, false] {
        let server = DatagramServer::echo();
        let mut tunnel = Tunnel::start(
            protocol,
            &[format!("DEST={}/udp", server.address())],
            &["PORT=127.0.0.1:0/udp"],
        );
        let client = Client::of(tunnel.entrance());
        client.check_echo(b"hello");
        let stopping = match at_connector {
            true => &mut tunnel.connector,
            false => &mut tunnel.receptor,
        };
        stopping.terminate();
        stopping.wait_for("draining");
        client.check_echo(b"still open");
        assert_eq!(stopping.wait_exit(SILENT_WITHIN).code(), Some(0));
        assert_eq!(stopping.wait_for("stopped")["how"], "Drained");
    }
}

fn sigterm_waits_no_longer_than_its_timeout(protocol: Protocol) {
    let server = Server::echo();
    let mut tunnel = Tunnel::start(
        protocol,
        &[format!("DEST={}", server.address())],
        &["PORT=127.0.0.1:0", "TIMEOUT=drain:1"],
    );
    let mut stream = connect(tunnel.entrance());
    check_echo(&stream, 1, 1000);
    tunnel.connector.terminate();
    tunnel.connector.wait_exit(Duration::from_secs(10));
    read_to_end_of(&mut stream, ENDS_WITHIN);
}

fn a_second_sigterm_ends_at_once(protocol: Protocol) {
    let server = Server::echo();
    let mut tunnel = Tunnel::to(protocol, server.address());
    let mut stream = connect(tunnel.entrance());
    check_echo(&stream, 1, 1000);
    tunnel.connector.terminate();
    tunnel.connector.wait_for("draining");
    tunnel.connector.terminate();
    let status = tunnel.connector.wait_exit(ENDS_WITHIN);
    assert_ne!(status.code(), Some(0), "{status}");
    read_to_end_of(&mut stream, ENDS_WITHIN);
}

/// Two receptors, one after the other, at one address, each with a server of its own: clients
/// that come while the first one drains wait at the connector's entrance and get to the second.
#[test]
fn clients_wait_while_the_other_end_drains_and_are_served_by_its_successor() {
    let (old, new) = (Server::named("old"), Server::named("new"));
    let mut leaving = start_receptor("127.0.0.2:0", &[format!("DEST={}", old.address())]);
    let address = leaving.address_of("receptor listening");
    let connector = start_connector(Protocol::V1, address, &["PORT=127.0.0.1:0"]);
    let entrance = connector.address_of("entrance listening");
    connector.wait_for("tunnel up");
    let mut open = connect(entrance);
    expect_line(&mut open, "old");

    leaving.terminate();
    connector.wait_for("the peer is going away");
    let mut waiting: Vec<TcpStream> = (0..10).map(|_| connect(entrance)).collect();

    // The stream that was open goes on, both ways, and the new ones do not come through.
    check_echo(&open, 1, 4 << 20);
    assert_eq!(old.served(), 1);
    assert_eq!(connector.count("tunnel down"), 0);
    drop(open);
    assert_eq!(leaving.wait_exit(DEADLINE).code(), Some(0));

    let _successor = start_receptor(&address.to_string(), &[format!("DEST={}", new.address())]);
    for stream in &mut waiting {
        expect_line(stream, "new");
    }
    assert_eq!((old.served(), new.served()), (1, waiting.len()));
    assert_eq!(connector.count("stream refused"), 0);
}

/// The entrance is the receptor's here, and another connector is up beside the one that leaves.
#[test]
fn new_clients_go_through_the_tunnel_that_stays() {
    let (staying, leaving) = (Server::named("staying"), Server::named("leaving"));
    let receptor = start_receptor("127.0.0.1:0", &["PORT=127.0.0.1:0"]);
    let address = receptor.address_of("receptor listening");
    let entrance = receptor.address_of("entrance listening");
    let _first = start_connector(Protocol::V1, address, &[format!("DEST={}", staying.address())]);
    receptor.wait_for("tunnel up");
    let mut second =
        start_connector(Protocol::V1, address, &[format!("DEST={}", leaving.address())]);
    receptor.wait_for_nth("tunnel up", 2);
    // The tunnel that came up last is the one taken.
    let mut open = connect(entrance);
    expect_line(&mut open, "leaving");

    second.terminate();
    receptor.wait_for("the peer is going away");
    expect_line(&mut connect(entrance), "staying");
    check_echo(&open, 1, 4 << 20);
    drop(open);
    assert_eq!(second.wait_exit(DEADLINE).code(), Some(0));
    assert_eq!(receptor.count("stream refused"), 0);
}

in_both_protocols! {
    sigterm_lets_the_open_stream_finish,
    sigterm_without_streams_ends_at_once,
    a_drain_that_cuts_a_stream_off_is_a_warning,
    sigterm_waits_no_longer_than_its_timeout,
    sigterm_waits_for_silence_where_a_flow_is_open,
    a_second_sigterm_ends_at_once,
    sigusr1_logs_the_state,
    maxima_service_counts_the_clients_of_an_entrance,
    maxima_service_counts_the_peers_of_a_receptor_with_exits,
}

/// Sent by mistake, or by a timer.
#[test]
fn no_signal_but_those_that_stop_it_ends_the_program() {
    let server = Server::echo();
    let tunnel = Tunnel::to(Protocol::V1, server.address());
    let stream = connect(tunnel.entrance());
    let named = ["USR2", "ALRM", "VTALRM", "PROF", "IO", "PWR", "STKFLT"].map(String::from);
    let real_time = [34, 50, 64].map(|number| number.to_string());
    for end in [&tunnel.connector, &tunnel.receptor] {
        for (nth, signal) in named.iter().chain(&real_time).enumerate() {
            end.send_signal(signal);
            let event = end.wait_for_nth(
                "signal without a meaning; SIGTERM ends the process, SIGUSR1 logs its state",
                nth + 1,
            );
            if let Some(name) = named.get(nth) {
                assert_eq!(event["signal"], format!("SIG{name}"));
            }
        }
        // These are not logged.
        for signal in ["PIPE", "XFSZ", "CHLD", "WINCH", "URG", "CONT", "TTOU"] {
            end.send_signal(signal);
        }
        end.send_signal("HUP");
        end.wait_for_event("nothing to reload", 1, |event| {
            event["message"].as_str().is_some_and(|m| m.starts_with("SIGHUP: there is nothing to"))
        });
    }
    check_echo(&stream, 1, 100_000);
    for end in [&tunnel.connector, &tunnel.receptor] {
        assert_eq!(end.count("draining"), 0);
    }
}

#[test]
fn sigquit_drains_as_sigterm_does() {
    let server = Server::echo();
    let mut tunnel = Tunnel::to(Protocol::V1, server.address());
    let stream = connect(tunnel.entrance());
    check_echo(&stream, 1, 1000);
    tunnel.receptor.send_signal("QUIT");
    tunnel.receptor.wait_for("draining");
    check_echo(&stream, 2, 100_000);
    drop(stream);
    assert_eq!(tunnel.receptor.wait_exit(DEADLINE).code(), Some(0));
}

fn sigusr1_logs_the_state(protocol: Protocol) {
    const BYTES: u64 = 100_000;
    let server = Server::echo();
    let mut tunnel = Tunnel::without_resumption(protocol, server.address());
    let streams = [connect(tunnel.entrance()), connect(tunnel.entrance())];
    for (seed, stream) in streams.iter().enumerate() {
        check_echo(stream, seed as u64, BYTES);
    }
    for end in [&tunnel.connector, &tunnel.receptor] {
        end.send_signal("USR1");
        let one = end.wait_for("state of a tunnel");
        assert_eq!((&one["up"], &one["streams"]), (&true.into(), &2.into()), "{one}");
        let all = end.wait_for("state");
        assert_eq!(
            (&all["tunnels"], &all["up"], &all["streams"]),
            (&1.into(), &1.into(), &2.into())
        );
        for way in ["bytes_in", "bytes_out"] {
            assert_eq!(one[way], 2 * BYTES, "{one}");
            assert_eq!(all[way], 2 * BYTES, "{all}");
        }
    }
    // Ended tunnels count in the sum.
    tunnel.receptor.kill_9();
    tunnel.connector.wait_for("tunnel down");
    tunnel.connector.send_signal("USR1");
    let all = tunnel.connector.wait_for_nth("state", 2);
    assert_eq!((&all["tunnels"], &all["streams"]), (&0.into(), &0.into()), "{all}");
    assert_eq!(all["bytes_out"], 2 * BYTES, "{all}");
}

/// Both ends count the bytes of frames alike, heads among them, spliced ones and copied ones.
#[test]
fn what_one_end_has_framed_the_other_has_read() {
    const LINK_BYTES: [&str; 2] = ["link_bytes_out", "link_bytes_in"];
    for bulk in ["auto", "copy"] {
        let server = Server::echo();
        let bulk = format!("SOXCONF=bulk:{bulk}");
        let exit = [format!("DEST={}", server.address()), bulk.clone()];
        let tunnel = Tunnel::start(Protocol::V1, &exit, &["PORT=127.0.0.1:0", &bulk]);
        check_echo(&connect(tunnel.entrance()), 1, 20 << 20);
        let mut asked = 0;
        let counted = |end: &Program, nth: usize, field: &str| {
            end.wait_for_nth("state of a tunnel", nth)[field].as_u64().expect("a count")
        };
        let are_alike = eventually(DEADLINE, || {
            asked += 1;
            tunnel.connector.send_signal("USR1");
            tunnel.receptor.send_signal("USR1");
            let of = |end, field| counted(end, asked, field);
            (0..2).all(|at| {
                let out = of(&tunnel.connector, LINK_BYTES[at]);
                out > 20 << 20 && out == of(&tunnel.receptor, LINK_BYTES[1 - at])
            })
        });
        assert!(are_alike, "the ends count differently with {bulk}");
    }
}

#[test]
fn sigusr1_logs_what_a_plain_relay_has_moved() {
    let server = Server::echo();
    let words = ["-P127.0.0.1:0".to_owned(), format!("SERVER=tcprelay://{}", server.address())];
    let relay = Program::start(&words);
    let stream = connect(relay.address_of("entrance listening"));
    check_echo(&stream, 1, 4 << 20);
    relay.send_signal("USR1");
    let state = relay.wait_for("state");
    assert_eq!(state["relayed"], 1, "{state}");
    assert_eq!(
        (&state["relayed_up"], &state["relayed_down"]),
        (&(4 << 20).into(), &(4 << 20).into())
    );
}

#[test]
fn maxima_service_ends_a_plain_relay_with_its_last_client() {
    let server = Server::echo();
    let exit = format!("SERVER=tcprelay://{}", server.address());
    let mut relay = Program::start(&["-P127.0.0.1:0", &exit, "MAXIMA=service:2"]);
    let entrance = relay.address_of("entrance listening");
    let streams = [connect(entrance), connect(entrance)];
    for stream in &streams {
        check_echo(stream, 1, 1000);
    }
    assert!(turned_away(entrance));
    // The others are not disturbed.
    let [first, second] = streams;
    drop(first);
    check_echo(&second, 2, 1 << 20);
    assert_eq!(relay.count("draining"), 0);
    drop(second);
    assert_eq!(relay.wait_exit(DEADLINE).code(), Some(0));
}

fn maxima_service_counts_the_clients_of_an_entrance(protocol: Protocol) {
    let server = Server::echo();
    let words = ["PORT=127.0.0.1:0", "MAXIMA=service:1"];
    let mut tunnel = Tunnel::start(protocol, &[format!("DEST={}", server.address())], &words);
    let stream = connect(tunnel.entrance());
    check_echo(&stream, 1, 1000);
    assert!(turned_away(tunnel.entrance()));
    check_echo(&stream, 2, 1 << 20);
    drop(stream);
    assert_eq!(tunnel.connector.wait_exit(DEADLINE).code(), Some(0));
    assert_eq!(tunnel.receptor.count("draining"), 0);
}

/// No client comes in at such an end.
fn maxima_service_counts_the_peers_of_a_receptor_with_exits(protocol: Protocol) {
    let server = Server::echo();
    let words = [format!("DEST={}", server.address()), "MAXIMA=service:1".to_owned()];
    let mut tunnel = Tunnel::start(protocol, &words, &["PORT=127.0.0.1:0"]);
    for seed in 0..3 {
        check_echo(&connect(tunnel.entrance()), seed, 1000);
    }
    assert!(turned_away(tunnel.address));
    assert_eq!(tunnel.receptor.count("draining"), 0);
    tunnel.connector.terminate();
    tunnel.connector.wait_exit(DEADLINE);
    assert_eq!(tunnel.receptor.wait_exit(DEADLINE).code(), Some(0));
}
