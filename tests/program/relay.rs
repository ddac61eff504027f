//! The plain relay (`-Pport SERVER=tcprelay://host:port`): no tunnel, every way of moving bytes.

use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use crate::testkit::net::{
    Ended, bounded, check_echo, check_new_echo, connect, free_port, is_turned_away, read_to_end_of,
    refused, reset, send_until_blocked,
};
use crate::testkit::pattern::Pattern;
use crate::testkit::program::Program;
use crate::testkit::servers::{Exchange, Server};
use crate::testkit::{DEADLINE, eventually, wait_until_still};

/// Within this the program has ended when nothing is left to wait for.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// Every way of moving bulk.
const WAYS: [&str; 3] = ["bulk:auto", "bulk:copy", "bulk:splice"];

/// A plain relay to `server` with more words, and where its clients come in.
fn start(server: impl std::fmt::Display, words: &[&str]) -> (Program, SocketAddr) {
    let mut all = vec![String::from("-P127.0.0.1:0"), format!("SERVER=tcprelay://{server}")];
    all.extend(words.iter().map(|&word| word.to_owned()));
    let relay = Program::start(&all);
    let entrance = relay.address_of("entrance listening");
    (relay, entrance)
}

/// A plain relay that moves bulk in one way.
fn start_moving(server: SocketAddr, way: &str) -> (Program, SocketAddr) {
    start(server, &[&format!("SOXCONF={way}")])
}

#[test]
fn bulk_both_ways_at_once_in_every_way_of_moving_it() {
    const BYTES: u64 = 50 << 20;
    for way in WAYS {
        let server = Server::exchange();
        let (mut relay, entrance) = start_moving(server.address(), way);
        Exchange { seed: 1, up_bytes: BYTES, down_bytes: BYTES }.run(entrance);
        relay.terminate();
        relay.wait_exit(DEADLINE);
        let stopped = relay.wait_for("stopped");
        let spliced = ["spliced_from_local", "spliced_to_local"].map(|name| stopped[name].as_u64());
        match way {
            "bulk:copy" => assert_eq!(spliced, [Some(0); 2]),
            // How much depends on how the client sends, on a busy machine most of all.
            "bulk:auto" => assert_eq!(spliced[0], spliced[1]),
            _ => assert!(spliced.iter().all(|&bytes| bytes > Some(BYTES)), "{stopped}"),
        }
    }
}

/// `SERVER=tcprelay://host:-/`: the port that the client came in by is the server's.
#[test]
fn the_server_is_at_the_port_of_the_entrance() {
    let servers: Vec<_> = (0..2).map(|_| Server::echo()).collect();
    let ports: Vec<_> = servers.iter().map(|server| server.address().port()).collect();
    let listen = format!("-P127.0.0.9:{},127.0.0.9:{}", ports[0], ports[1]);
    let relay = Program::start(&[&listen, "SERVER=tcprelay://127.0.0.1:-/"]);
    relay.wait_for_nth("entrance listening", 2);
    for (nth, port) in ports.iter().enumerate() {
        check_echo(&connect(SocketAddr::new([127, 0, 0, 9].into(), *port)), 1, 300_000);
        let served: Vec<_> = servers.iter().map(Server::served).collect();
        assert_eq!(served, [[1, 0], [1, 1]][nth], "port {port}");
    }
    // So far above it, or below.
    let server = servers[0].address();
    for offset in [7, -7] {
        let port = (i32::from(server.port()) - offset) as u16;
        let listen = format!("-P127.0.0.9:{port}");
        let to = format!("SERVER=tcprelay://127.0.0.1:{offset:+}");
        let relay = Program::start(&[listen, to]);
        check_echo(&connect(relay.address_of("entrance listening")), 1, 10_000);
    }
}

/// Each connection would beget the next one, until nothing is left.
#[test]
fn a_relay_is_not_its_own_client() {
    let relay = Program::start(&["-P127.0.0.1:0", "SERVER=tcprelay://127.0.0.1:-"]);
    refused("127.0.0.1", relay.address_of("entrance listening"));
    let reason = relay.wait_for_reason("stream refused");
    assert!(reason.contains("a port of this very process"), "{reason}");
}

/// Messages of every size, so that a direction changes its way of moving bytes again and again.
#[test]
fn bulk_and_small_messages_in_turn() {
    for way in WAYS {
        let server = Server::echo();
        let (_relay, entrance) = start_moving(server.address(), way);
        let stream = connect(entrance);
        for round in 0..20 {
            check_echo(&stream, round, 2 << 20);
            for small in 0..20 {
                check_echo(&stream, small, 1 + small * 37);
            }
        }
    }
}

#[test]
fn two_hundred_connections_at_once() {
    const CONNECTIONS: u64 = 200;
    for way in WAYS {
        let server = Server::exchange();
        let (_relay, entrance) = start_moving(server.address(), way);
        // All are open before the first one sends its data.
        let streams: Vec<_> = (0..CONNECTIONS)
            .map(|seed| {
                let asked = Exchange { seed, up_bytes: 300_000, down_bytes: 300_000 };
                let stream = connect(entrance);
                asked.ask(&stream);
                (asked, stream)
            })
            .collect();
        assert!(eventually(DEADLINE, || server.served() == CONNECTIONS as usize));
        std::thread::scope(|scope| {
            for (asked, stream) in &streams {
                scope.spawn(|| asked.finish(stream));
            }
        });
    }
}

#[test]
fn connections_that_come_and_go_leak_no_descriptor() {
    let server = Server::echo();
    let (relay, entrance) = start(server.address(), &[]);
    let before = relay.descriptors();
    for seed in 0..500 {
        check_new_echo(entrance, seed, 100);
    }
    assert!(eventually(DEADLINE, || relay.descriptors() <= before), "{}", relay.descriptors());
}

#[test]
fn the_client_ends_first_and_still_gets_its_answer() {
    for way in WAYS {
        for bytes in [10, 5 << 20] {
            // Answers only when the client has ended.
            let server = Server::start("127.0.0.1:0", move |mut stream| {
                Pattern::new(1).receive(&mut stream, bytes)?;
                assert_eq!(stream.read(&mut [0])?, 0, "end of data");
                Pattern::new(2).send(&mut stream, bytes)
            });
            let (_relay, entrance) = start_moving(server.address(), way);
            let mut stream = connect(entrance);
            Pattern::new(1).send(&mut stream, bytes).expect("the question is sent");
            stream.shutdown(Shutdown::Write).expect("an end of data");
            Pattern::new(2).receive(&mut stream, bytes).expect("the answer");
            assert_eq!(read_to_end_of(&mut stream, DEADLINE), Ended::Eof);
        }
    }
}

#[test]
fn the_server_ends_first_and_still_gets_what_the_client_says() {
    for way in WAYS {
        for bytes in [10, 5 << 20] {
            let heard = Arc::new(AtomicBool::new(false));
            let told = Arc::clone(&heard);
            let server = Server::start("127.0.0.1:0", move |mut stream| {
                Pattern::new(1).send(&mut stream, bytes)?;
                stream.shutdown(Shutdown::Write)?;
                Pattern::new(2).receive(&mut stream, bytes)?;
                told.store(stream.read(&mut [0])? == 0, Ordering::SeqCst);
                Ok(())
            });
            let (_relay, entrance) = start_moving(server.address(), way);
            let mut stream = connect(entrance);
            Pattern::new(1).receive(&mut stream, bytes).expect("what the server says");
            assert_eq!(stream.read(&mut [0]).expect("an end of data"), 0);
            Pattern::new(2).send(&mut stream, bytes).expect("the answer is sent");
            drop(stream);
            assert!(eventually(DEADLINE, || heard.load(Ordering::SeqCst)), "{way}, {bytes}");
        }
    }
}

#[test]
fn a_server_that_refuses_ends_the_client() {
    let nobody = free_port([127, 0, 0, 2].into());
    let (relay, entrance) = start(nobody, &[]);
    is_turned_away(entrance);
    let reason = relay.wait_for_reason("stream refused");
    assert!(reason.contains(&nobody.to_string()) && reason.contains("refused"), "{reason}");
}

#[test]
fn a_name_that_is_not_known_ends_the_client() {
    let (relay, entrance) = start("nowhere.invalid:1", &[]);
    is_turned_away(entrance);
    let reason = relay.wait_for_reason("stream refused");
    assert!(reason.contains("nowhere.invalid:1: name not found"), "{reason}");
}

#[test]
fn a_reset_of_the_client_is_one_for_the_server() {
    for way in WAYS {
        for bytes in [100, 4 << 20] {
            let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
            let (_relay, entrance) = start_moving(listener.local_addr().expect("an address"), way);
            let mut client = connect(entrance);
            let (mut server, _) = listener.accept().expect("the relay comes");
            Pattern::new(1).send(&mut client, bytes).expect("data is sent");
            Pattern::new(1).receive(&mut server, bytes).expect("data arrives");
            reset(client);
            assert_eq!(read_to_end_of(&mut server, DEADLINE), Ended::Reset, "{way}, {bytes}");
        }
    }
}

#[test]
fn a_reset_of_the_server_is_one_for_the_client() {
    for way in WAYS {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let (_relay, entrance) = start_moving(listener.local_addr().expect("an address"), way);
        let mut client = connect(entrance);
        let (mut server, _) = listener.accept().expect("the relay comes");
        Pattern::new(1).send(&mut server, 4 << 20).expect("data is sent");
        Pattern::new(1).receive(&mut client, 4 << 20).expect("data arrives");
        reset(server);
        assert_eq!(read_to_end_of(&mut client, DEADLINE), Ended::Reset, "{way}");
    }
}

/// Sends a pattern until it is stopped by the other side, and counts.
fn send_counting(mut stream: &TcpStream, seed: u64, total_bytes: u64, sent: &AtomicU64) {
    stream.set_write_timeout(None).expect("no timeout: it is meant to block");
    let mut pattern = Pattern::new(seed);
    while pattern.offset() < total_bytes {
        let bytes = (total_bytes - pattern.offset()).min(64 * 1024);
        if pattern.send(&mut stream, bytes).is_err() {
            return;
        }
        sent.store(pattern.offset(), Ordering::SeqCst);
    }
}

/// A client that is blocked because its server does not read is not read itself: its reset is
/// noticed all the same.
#[test]
fn a_reset_behind_a_server_that_does_not_read() {
    for way in WAYS {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let (_relay, entrance) = start_moving(listener.local_addr().expect("an address"), way);
        let client = connect(entrance);
        let (mut server, _) = listener.accept().expect("the relay comes");
        send_until_blocked(&client);
        reset(client);
        assert_eq!(read_to_end_of(&mut server, DEADLINE), Ended::Reset, "{way}");
    }
}

/// The same where the relay finds the reset and the data before it at once.
#[test]
fn a_reset_that_is_found_before_what_it_stands_behind() {
    const BULK_BYTES: u64 = 64 << 20;
    for way in WAYS {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        SockRef::from(&listener).set_recv_buffer_size(64 << 10).expect("a buffer size can be set");
        let (relay, entrance) = start_moving(listener.local_addr().expect("an address"), way);
        let mut client = connect(entrance);
        let (mut server, _) = listener.accept().expect("the relay comes");
        // The relay's buffer for the client grows with its data.
        std::thread::scope(|scope| {
            scope.spawn(|| Pattern::new(1).receive(&mut server, BULK_BYTES).expect("data arrives"));
            Pattern::new(1).send(&mut client, BULK_BYTES).expect("data is sent");
        });
        let served = relay.descriptors();
        relay.pause();
        send_until_blocked(&client);
        reset(client);
        relay.go_on();
        assert!(eventually(DEADLINE, || relay.descriptors() < served), "{way}");
        assert_eq!(read_to_end_of(&mut server, DEADLINE), Ended::Reset, "{way}");
    }
}

/// Connects with a receive buffer of this size, and segments as on a real network, by which the kernel
/// sizes the buffers of the relay's socket.
fn connect_receiving(address: SocketAddr, bytes: usize) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(bytes).expect("a buffer size can be set");
    socket.set_tcp_mss(1448).expect("a segment size can be set");
    socket.connect_timeout(&address.into(), DEADLINE).expect("the relay listens");
    bounded(socket.into())
}

#[test]
fn readers_that_stand_still_are_bounded_and_others_go_on() {
    /// More than there are pipes, and than there are large buffers.
    const STALLED: usize = 80;
    /// Data for the first one: more than fits anywhere.
    const FIRST_BYTES: u64 = 64 << 20;
    /// Data for the others: more than fits between the relay and a client, and together less than the
    /// machine's memory for TCP, which would stop all other programs.
    const OTHER_BYTES: u64 = 4 << 20;
    /// Buffers of their sockets.
    const SOCKET_BYTES: usize = 128 << 10;
    let total_bytes = |number: u8| if number == 0 { FIRST_BYTES } else { OTHER_BYTES };
    for way in WAYS {
        let sent: Arc<Vec<AtomicU64>> = Arc::new((0..STALLED).map(|_| AtomicU64::new(0)).collect());
        let counters = Arc::clone(&sent);
        // The client sends its number, and receives its pattern; number 255 is echoed.
        let server = Server::start("127.0.0.1:0", move |mut stream| {
            let mut number = [0];
            stream.read_exact(&mut number)?;
            match counters.get(usize::from(number[0])) {
                Some(sent) => {
                    SockRef::from(&stream).set_send_buffer_size(SOCKET_BYTES)?;
                    send_counting(&stream, number[0].into(), total_bytes(number[0]), sent);
                }
                None => drop(std::io::copy(&mut &stream, &mut &stream)?),
            }
            Ok(())
        });
        let (relay, entrance) = start_moving(server.address(), way);
        let begin = |number: u8| {
            let mut stream = match number {
                255 => connect(entrance),
                _ => connect_receiving(entrance, SOCKET_BYTES),
            };
            stream.write_all(&[number]).expect("the number is sent");
            stream
        };
        check_echo(&begin(255), 1, 8 << 20);
        let before = relay.rss_bytes();
        let mut stalled: Vec<_> = (0..STALLED as u8).map(begin).collect();
        let all_begun = || sent.iter().all(|sent| sent.load(Ordering::SeqCst) > 0);
        assert!(eventually(DEADLINE, all_begun), "{way}");
        let sum = || sent.iter().map(|sent| sent.load(Ordering::SeqCst)).sum::<u64>();
        wait_until_still(sum);
        assert!(sent[0].load(Ordering::SeqCst) < FIRST_BYTES, "{way}: its server is held up");
        check_echo(&begin(255), 2, 32 << 20);
        // A bulk buffer's worth each, the shared buffers, and room for fragmentation.
        let grown = relay.rss_bytes().saturating_sub(before);
        assert!(grown <= (STALLED as u64 * (256 << 10)) + (32 << 20), "{way}: grew by {grown}");
        for (number, stream) in (0..).zip(&mut stalled).take(4) {
            Pattern::new(number.into())
                .receive(stream, total_bytes(number))
                .expect("all in the end");
        }
    }
}

#[test]
fn urgent_data_arrives_as_urgent_data() {
    let server = Server::start("127.0.0.1:0", |mut stream| {
        stream.read_exact(&mut [0; 6])?;
        stream.write_all(b"1")?;
        let mut urgent = [MaybeUninit::new(0)];
        if eventually(DEADLINE, || {
            matches!(SockRef::from(&stream).recv_out_of_band(&mut urgent), Ok(1))
        }) {
            stream.write_all(b"2")?;
        }
        stream.read_exact(&mut [0; 5])?;
        stream.write_all(b"3")
    });
    let (_relay, entrance) = start(server.address(), &[]);
    let mut stream = connect(entrance);
    let mut step = [0];
    for (say, heard) in [(&b"before"[..], *b"1"), (b"!", *b"2"), (b"after", *b"3")] {
        if heard == *b"2" {
            SockRef::from(&stream).send_out_of_band(say).expect("urgent data is sent");
        } else {
            stream.write_all(say).expect("data is sent");
        }
        stream.read_exact(&mut step).expect("it has arrived");
        assert_eq!(step, heard);
    }
}

/// A splice stops where urgent data stood, whether it was taken or not.
#[test]
fn urgent_data_amid_bulk_stops_nothing() {
    const BYTES: u64 = 5 << 20;
    for way in WAYS {
        let server = Server::start("127.0.0.1:0", |mut stream| {
            Pattern::new(1).receive(&mut stream, 2 * BYTES)?;
            stream.write_all(b"k")
        });
        let (_relay, entrance) = start_moving(server.address(), way);
        for _ in 0..5 {
            let mut stream = connect(entrance);
            let mut pattern = Pattern::new(1);
            pattern.send(&mut stream, BYTES).expect("data is sent");
            // One only: with a second one before the first was read, TCP makes that plain data.
            SockRef::from(&stream).send_out_of_band(b"!").expect("urgent data is sent");
            pattern.send(&mut stream, BYTES).expect("data is sent");
            assert_eq!(stream.read(&mut [0]).expect("the verdict"), 1, "{way}");
        }
    }
}

#[test]
fn sigterm_lets_open_connections_finish() {
    let server = Server::echo();
    let (mut relay, entrance) = start(server.address(), &[]);
    let stream = connect(entrance);
    check_echo(&stream, 1, 100_000);
    relay.terminate();
    relay.wait_for("draining");
    // A client that connects before the socket is closed is still served.
    let is_closed = || TcpStream::connect_timeout(&entrance, DEADLINE).is_err();
    assert!(eventually(ENDS_WITHIN, is_closed), "clients still come in");
    check_echo(&stream, 2, 4 << 20);
    drop(stream);
    assert_eq!(relay.wait_exit(DEADLINE).code(), Some(0));
    relay.wait_for("stopped");
}

#[test]
fn sigterm_waits_no_longer_than_its_timeout_and_not_at_all_for_nothing() {
    let server = Server::echo();
    let (mut relay, _) = start(server.address(), &[]);
    relay.terminate();
    assert_eq!(relay.wait_exit(ENDS_WITHIN).code(), Some(0));

    let (mut relay, entrance) = start(server.address(), &["TIMEOUT=drain:1"]);
    let mut stream = connect(entrance);
    check_echo(&stream, 1, 1000);
    relay.terminate();
    assert_eq!(relay.wait_exit(Duration::from_secs(10)).code(), Some(0));
    assert_eq!(read_to_end_of(&mut stream, ENDS_WITHIN), Ended::Reset);
}

#[test]
fn a_silent_connection_is_reset_when_its_time_is_over() {
    let server = Server::echo();
    let (_relay, entrance) = start(server.address(), &["TIMEOUT=io:1"]);
    let mut stream = connect(entrance);
    check_echo(&stream, 1, 1000);
    assert_eq!(read_to_end_of(&mut stream, DEADLINE), Ended::Reset);
}

#[test]
fn ipv6_and_names() {
    let server = Server::echo_on("[::1]:0");
    let relay = Program::start(&[
        String::from("-P[::1]:0"),
        format!("SERVER=tcprelay://[::1]:{}", server.address().port()),
    ]);
    check_new_echo(relay.address_of("entrance listening"), 1, 100_000);

    // The name has addresses of both families, and the server listens on one: all are tried.
    let server = Server::echo();
    let (_relay, entrance) = start(format_args!("localhost:{}", server.address().port()), &[]);
    check_new_echo(entrance, 2, 100_000);
}

#[test]
fn several_entrances() {
    let server = Server::echo();
    let relay = Program::start(&[
        String::from("-P127.0.0.1:0,[::1]:0"),
        format!("SERVER=tcprelay://{}", server.address()),
    ]);
    for nth in 1..=2 {
        check_new_echo(relay.nth_address_of("entrance listening", nth), 1, 10_000);
    }
}
