//! The plain relay for UDP (`-Pport/udp SERVER=udprelay://host:port`): no tunnel.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::testkit::datagrams::{Client, DatagramServer, datagram};
use crate::testkit::net::free_port;
use crate::testkit::program::Program;
use crate::testkit::{DEADLINE, eventually};

/// Within this the program has ended when all that is left is a flow that is silent by now.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// A plain relay to `server` with more words, and where its clients come in.
fn start(server: impl std::fmt::Display, words: &[&str]) -> (Program, SocketAddr) {
    start_on("127.0.0.1:0", server, words)
}

/// As [`start`], with its entrance there.
fn start_on(
    entrance: &str,
    server: impl std::fmt::Display,
    words: &[&str],
) -> (Program, SocketAddr) {
    let mut all = vec![format!("-P{entrance}/udp"), format!("SERVER=udprelay://{server}")];
    all.extend(words.iter().map(|&word| word.to_owned()));
    let relay = Program::start(&all);
    let entrance = relay.address_of("entrance listening");
    (relay, entrance)
}

/// Ends the relay and gives its last line of the log.
fn stop(mut relay: Program) -> serde_json::Value {
    relay.terminate();
    assert_eq!(relay.wait_exit(DEADLINE).code(), Some(0));
    relay.wait_for("stopped")
}

#[test]
fn datagrams_of_every_size_keep_their_boundaries() {
    let server = DatagramServer::echo();
    let (relay, entrance) = start(server.address(), &[]);
    let client = Client::of(entrance);
    let sizes = [1, 0, 1472, 9000, 65_507, 0, 0, 7, 65_507, 1];
    for (number, &bytes) in sizes.iter().enumerate() {
        client.check_echo(&datagram(number as u64, bytes));
    }
    let stopped = stop(relay);
    let both_ways = 2 * sizes.len();
    assert_eq!(stopped["datagrams_in"], both_ways, "{stopped}");
    assert_eq!(stopped["datagrams_out"], both_ways, "{stopped}");
    assert_eq!(stopped["datagrams_dropped"], 0, "{stopped}");
}

#[test]
fn the_server_is_at_the_port_of_the_entrance() {
    let server = DatagramServer::echo();
    let entrance = format!("127.0.0.9:{}", server.address().port());
    let (_relay, entrance) = start_on(&entrance, "127.0.0.1:-", &[]);
    Client::of(entrance).check_echo(b"hello");
}

#[test]
fn bursts_keep_order_and_boundaries() {
    /// As many at once as find room in sockets of any system.
    const BURST: u64 = 100;
    let server = DatagramServer::echo();
    let (_relay, entrance) = start(server.address(), &[]);
    let client = Client::of(entrance);
    // Runs of equal size, a size that changes each time, and empty ones between others.
    let sizes: [fn(u64) -> usize; 3] = [
        |_| 64,
        |number| (number as usize * 37) % 600,
        |number| [200, 0, 200][number as usize % 3],
    ];
    for (kind, size) in sizes.iter().enumerate() {
        for round in 0..5 {
            let made = |number| datagram(round << 32 | number, size(number));
            (0..BURST).for_each(|number| client.send(&made(number)));
            for number in 0..BURST {
                assert_eq!(client.receive(), made(number), "{kind}, number {number}");
            }
        }
    }
}

#[test]
fn every_client_gets_its_own_answers() {
    const CLIENTS: u64 = 200;
    let server = DatagramServer::echo();
    let (relay, entrance) = start(server.address(), &[]);
    let idle = relay.descriptors();
    let clients: Vec<_> = (0..CLIENTS).map(|_| Client::of(entrance)).collect();
    for round in 0..5 {
        let made = |number: usize| datagram(round << 32 | number as u64, 40 + number);
        for (number, client) in clients.iter().enumerate() {
            client.send(&made(number));
        }
        for (number, client) in clients.iter().enumerate() {
            assert_eq!(client.receive(), made(number));
        }
    }
    // Each has a socket of its own towards the server, and nothing else.
    assert_eq!(relay.descriptors(), idle + CLIENTS as usize);
}

#[test]
fn a_server_that_is_not_there_ends_the_flow() {
    let address = DatagramServer::echo().address();
    let (relay, entrance) = start(address, &[]);
    let idle = relay.descriptors();
    let client = Client::of(entrance);
    client.send(b"anybody?");
    let reason = relay.wait_for_reason("stream refused");
    assert!(reason.contains("nobody listens") && reason.contains(&address.to_string()), "{reason}");
    assert!(eventually(DEADLINE, || relay.descriptors() == idle));
    assert_eq!(relay.count("stream refused"), 1);
    let _server = DatagramServer::echo_on(&address.to_string());
    client.echo_in_the_end(b"now?");
    assert_eq!(relay.count("stream refused"), 1);
}

#[test]
fn a_server_that_goes_and_comes_back_is_found_again() {
    // No other test takes it in between.
    let address = free_port(Ipv4Addr::LOCALHOST);
    let server = DatagramServer::echo_on(&address.to_string());
    let (relay, entrance) = start(address, &[]);
    let client = Client::of(entrance);
    client.check_echo(b"before");
    drop(server);
    client.send(b"lost");
    relay.wait_for("stream refused");
    let _server = DatagramServer::echo_on(&address.to_string());
    client.echo_in_the_end(b"after");
}

#[test]
fn a_silent_flow_ends_and_begins_anew() {
    let server = DatagramServer::echo();
    let (relay, entrance) = start(server.address(), &["TIMEOUT=udp:1"]);
    let idle = relay.descriptors();
    let client = Client::of(entrance);
    for round in 0..2 {
        client.check_echo(&datagram(round, 10));
        assert_eq!(relay.descriptors(), idle + 1);
        assert!(eventually(DEADLINE, || relay.descriptors() == idle));
    }
}

#[test]
fn answers_alone_keep_a_flow() {
    /// Twice as long as a flow may be silent.
    const LASTS: Duration = Duration::from_secs(2);
    // Answers one question for as long as it is let: each answer is a question to itself.
    let server = DatagramServer::start("127.0.0.1:0", |socket, _, client| {
        let end = Instant::now() + LASTS;
        while Instant::now() < end {
            let _ = socket.send_to(b"news", client);
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = socket.send_to(b"the end", client);
    });
    let (_relay, entrance) = start(server.address(), &["TIMEOUT=udp:1"]);
    let client = Client::of(entrance);
    client.send(b"what is new?");
    loop {
        match &client.receive()[..] {
            b"news" => {}
            last => return assert_eq!(last, b"the end"),
        }
    }
}

#[test]
fn the_newest_of_many_clients_is_always_answered() {
    const TABLE: usize = 8;
    const CLIENTS: usize = 10 * TABLE;
    let server = DatagramServer::echo();
    let (relay, entrance) = start(server.address(), &[&format!("SOXCONF=udpflows:{TABLE}")]);
    let idle = relay.descriptors();
    let oldest = Client::of(entrance);
    oldest.check_echo(b"first of all");
    // All are kept, so that none gets the port of another, and its flow.
    let mut others = Vec::new();
    for number in 1..CLIENTS as u64 {
        let client = Client::of(entrance);
        client.check_echo(&datagram(number, 100));
        others.push(client);
        assert!(relay.descriptors() <= idle + TABLE + 1);
    }
    // Its flow has ended; the next datagram begins another.
    oldest.check_echo(b"still there");
    let stopped = stop(relay);
    assert_eq!(stopped["flows_evicted"], CLIENTS + 1 - TABLE, "{stopped}");
    assert_eq!(stopped["datagrams_dropped"], 0, "{stopped}");
}

#[test]
fn datagrams_wait_for_the_name_of_their_server() {
    let server = DatagramServer::echo();
    let (_relay, entrance) = start(format!("localhost:{}", server.address().port()), &[]);
    let client = Client::of(entrance);
    for round in 0..2 {
        (0..10).for_each(|number| client.send(&datagram(round << 32 | number, 30)));
        for number in 0..10 {
            assert_eq!(client.receive(), datagram(round << 32 | number, 30));
        }
    }
}

#[test]
fn a_name_that_is_not_known_is_said_and_asked_for_again() {
    let (relay, entrance) = start("nowhere.invalid:1", &[]);
    let client = Client::of(entrance);
    for nth in 1..3 {
        client.send(b"anybody?");
        let said = relay.wait_for_nth("stream refused", nth);
        let reason = said["reason"].as_str().expect("a reason");
        assert!(reason.contains("name not found"), "{reason}");
    }
}

#[test]
fn on_every_address_an_answer_comes_from_where_the_question_went() {
    let server = DatagramServer::echo();
    for (entrance, addresses) in
        [("0.0.0.0:0", &["127.0.0.1", "127.0.0.2"][..]), ("[::]:0", &["127.0.0.2", "[::1]"])]
    {
        let (_relay, listening) = start_on(entrance, server.address(), &[]);
        for address in addresses {
            let to = format!("{address}:{}", listening.port()).parse().expect("an address");
            // It receives from its destination only.
            let client = Client::of(to);
            (0..10).for_each(|number| client.send(&datagram(number, 500)));
            for number in 0..10 {
                assert_eq!(client.receive(), datagram(number, 500), "{entrance}, {address}");
            }
        }
    }
}

#[test]
fn an_idle_flow_does_not_hold_up_the_end() {
    let server = DatagramServer::echo();
    let (mut relay, entrance) = start(server.address(), &[]);
    Client::of(entrance).check_echo(b"hello");
    relay.terminate();
    assert_eq!(relay.wait_exit(ENDS_WITHIN).code(), Some(0));
    assert_eq!(relay.wait_for("stopped")["how"], "Drained");
}

/// Sends requests without a pause until there is no answer any more. Returns the number of answers.
fn talk(client: &Client) -> u64 {
    (0..)
        .take_while(|&number| {
            let question = datagram(number, 50);
            client.try_echo(&question).is_ok_and(|answer| {
                assert_eq!(answer, question);
                true
            })
        })
        .count() as u64
}

#[test]
fn a_flow_that_talks_may_finish() {
    let server = DatagramServer::echo();
    let (mut relay, entrance) = start(server.address(), &[]);
    let client = Client::of(entrance);
    client.check_echo(b"hello");
    relay.terminate();
    relay.wait_for("draining");
    // Longer than a silent flow would be left.
    let end = Instant::now() + Duration::from_secs(2);
    let mut number = 0;
    while Instant::now() < end {
        client.check_echo(&datagram(number, 50));
        number += 1;
    }
    // New clients are not served.
    let late = Client::of(entrance);
    late.send(b"me too?");
    client.check_echo(b"good-bye");
    assert_eq!(late.hears_within(Duration::from_millis(100)), None);
    assert_eq!(relay.wait_exit(ENDS_WITHIN).code(), Some(0));
    assert_eq!(relay.wait_for("stopped")["how"], "Drained");
}

#[test]
fn a_flow_that_talks_for_ever_is_ended_by_the_timeout_of_draining() {
    let server = DatagramServer::echo();
    let (mut relay, entrance) = start(server.address(), &["TIMEOUT=drain:2"]);
    let client = Client::of(entrance);
    client.check_echo(b"hello");
    std::thread::scope(|scope| {
        let talking = scope.spawn(|| talk(&client));
        relay.terminate();
        relay.wait_exit(ENDS_WITHIN);
        assert!(talking.join().expect("it is answered in order") > 0);
    });
    let stopped = relay.wait_for("stopped");
    assert!(
        stopped["how"].as_str().is_some_and(|how| how.starts_with("DeadlinePassed")),
        "{stopped}"
    );
}
