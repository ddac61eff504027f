//! Options of an exit: `,-in(option list)`. There is always another exit without.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Stdio;

use crate::testkit::net::{
    Ended, check_echo, connect, connect_from, free_port, read_to_end_of, refused,
};
use crate::testkit::program::command;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::Server;
use crate::testkit::tunnel::Tunnel;
use crate::testkit::{DEADLINE, eventually};

in_both_protocols!(
    a_permit_opens_loopback_to_one_proxy_alone,
    clients_of_one_exit,
    clients_of_one_exit_by_name,
    streams_of_a_client_through_one_exit,
    a_silent_client_of_one_proxy_is_not_waited_for,
    a_silent_stream_of_one_exit_is_ended,
);

const FIRST: &str = "127.0.0.1";
const SECOND: &str = "127.0.0.77";

/// A tunnel with two entrances, each of which leads to an exit of its own.
struct Two {
    tunnel: Tunnel,
    first: SocketAddr,
    second: SocketAddr,
}

impl Two {
    /// With these in place of `...` in `SERVER=...:-:-Pport`, and these words besides.
    fn start(protocol: Protocol, [first, second]: [&str; 2], words: &[&str]) -> Two {
        let entrances = [(); 2].map(|()| free_port(Ipv4Addr::new(127, 0, 0, 5)));
        let exits = [first, second].into_iter().zip(entrances);
        let exits = exits.map(|(exit, at)| format!("SERVER={exit}:-:-P{}", at.port()));
        let exits: Vec<String> = exits.chain(words.iter().map(ToString::to_string)).collect();
        let [first, second] = entrances;
        let tunnel = Tunnel::start(protocol, &exits, &[format!("PORT={first},{second}")]);
        tunnel.connector.nth_address_of("entrance listening", 2);
        Two { tunnel, first, second }
    }

    /// Waits until the exits' end has refused `nth` streams, the last for this reason.
    fn says(&self, nth: usize, wanted: &str) {
        let event = self.tunnel.receptor.wait_for_nth("stream refused", nth);
        assert_eq!(event["reason"], wanted, "{event}");
    }
}

/// Asks a SOCKS 5 proxy for a server: the stream and the reply's code.
fn socks(proxy: SocketAddr, server: SocketAddr) -> (TcpStream, u8) {
    let mut stream = connect(proxy);
    let SocketAddr::V4(v4) = server else { panic!("an IPv4 server") };
    let mut said = vec![5, 1, 0, 5, 1, 0, 1];
    said.extend(v4.ip().octets());
    said.extend(v4.port().to_be_bytes());
    stream.write_all(&said).expect("sent");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("an answer");
    (stream, answer[3])
}

/// A connection from `own` that is echoed to.
fn served(own: &str, entrance: SocketAddr) -> TcpStream {
    let stream = connect_from(own, entrance).expect("a connection");
    check_echo(&stream, 1, 100_000);
    stream
}

fn a_permit_opens_loopback_to_one_proxy_alone(protocol: Protocol) {
    /// The reply "not allowed by ruleset" (RFC 1928, section 6).
    const NOT_ALLOWED: u8 = 2;
    let server = Server::echo();
    let (own, plain) = ("socks,-in(PERMIT=socks:127.0.0.1:*)", "socks,-in");
    let two = Two::start(protocol, [own, plain], &[]);
    let (stream, code) = socks(two.first, server.address());
    assert_eq!(code, 0);
    check_echo(&stream, 2, 100_000);
    assert_eq!(socks(two.second, server.address()).1, NOT_ALLOWED);
    // The other way round: the exit's own list replaces that of the process.
    let own = "socks,-in(PERMIT=socks:127.0.0.9:*)";
    let two = Two::start(protocol, [own, plain], &["PERMIT=socks:127.0.0.1:*"]);
    assert_eq!(socks(two.first, server.address()).1, NOT_ALLOWED);
    assert_eq!(socks(two.second, server.address()).1, 0);
}

fn clients_of_one_exit(protocol: Protocol) {
    let server = Server::echo();
    let (own, plain) = (
        format!("tcprelay://{},-in(RELIABLE=127.0.0.0/8 RELIABLE=!{SECOND})", server.address()),
        format!("tcprelay://{},-in", server.address()),
    );
    let two = Two::start(protocol, [&own, &plain], &["RELIABLE=127.0.0.0/8,!127.0.0.3"]);
    served(FIRST, two.first);
    served(SECOND, two.second);
    refused(SECOND, two.first);
    two.says(1, "RELIABLE= of its exit does not let in client 127.0.0.77");
    // Both lists have to let a client in.
    refused("127.0.0.3", two.first);
    two.says(2, "RELIABLE= does not let in client 127.0.0.3");
}

fn clients_of_one_exit_by_name(protocol: Protocol) {
    let server = Server::echo();
    let (own, plain) = (
        format!("tcprelay://{},-in(RELIABLE=*host)", server.address()),
        format!("tcprelay://{},-in", server.address()),
    );
    let two = Two::start(protocol, [&own, &plain], &[]);
    for _ in 0..2 {
        served(FIRST, two.first);
        refused(SECOND, two.first);
        served(SECOND, two.second);
    }
    two.says(2, "RELIABLE= of its exit does not let in client 127.0.0.77");
}

fn streams_of_a_client_through_one_exit(protocol: Protocol) {
    let server = Server::echo();
    let (own, plain) = (
        format!("tcprelay://{},-in(MAXIMA=conpch:1)", server.address()),
        format!("tcprelay://{},-in", server.address()),
    );
    let two = Two::start(protocol, [&own, &plain], &["MAXIMA=conpch:2"]);
    let held = served(FIRST, two.first);
    refused(FIRST, two.first);
    two.says(1, "client 127.0.0.1 has 1 streams already (MAXIMA=conpch:1 of its exit)");
    // The guard of the process's limit, acquired before the exit's was refused, is released.
    let beside = served(FIRST, two.second);
    refused(FIRST, two.second);
    two.says(2, "client 127.0.0.1 has 2 streams already (MAXIMA=conpch:2)");
    drop((held, beside));
    let again = || match connect_from(FIRST, two.first) {
        Ok(mut stream) => stream.write_all(b"x").and_then(|()| stream.read_exact(&mut [0])).is_ok(),
        Err(_) => false,
    };
    assert!(eventually(DEADLINE, again), "both limits are released");
}

fn a_silent_client_of_one_proxy_is_not_waited_for(protocol: Protocol) {
    let server = Server::echo();
    let own = "socks,-in(TIMEOUT=ask:1 PERMIT=socks:127.0.0.1:*)";
    let two = Two::start(protocol, [own, "socks,-in(PERMIT=socks:127.0.0.1:*)"], &[]);
    let [mut silent, mut patient] = [two.first, two.second].map(connect);
    read_to_end_of(&mut silent, DEADLINE);
    // The other proxy still waits.
    let SocketAddr::V4(v4) = server.address() else { panic!("an IPv4 server") };
    let mut said = vec![5, 1, 0, 5, 1, 0, 1];
    said.extend(v4.ip().octets());
    said.extend(v4.port().to_be_bytes());
    patient.write_all(&said).expect("sent");
    let mut answer = [0; 12];
    patient.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer[3], 0);
}

fn a_silent_stream_of_one_exit_is_ended(protocol: Protocol) {
    let server = Server::echo();
    let (own, plain) = (
        format!("tcprelay://{},-in(TIMEOUT=io:1)", server.address()),
        format!("tcprelay://{},-in", server.address()),
    );
    let two = Two::start(protocol, [&own, &plain], &[]);
    let [mut ended, other] = [two.first, two.second].map(|at| served(FIRST, at));
    assert_eq!(read_to_end_of(&mut ended, DEADLINE), Ended::Reset);
    check_echo(&other, 3, 100_000);
}

/// The example of the original's manual: a proxy with a file of its own.
#[test]
fn a_proxy_with_a_file_of_its_own() {
    let server = Server::echo();
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("config.cnf");
    std::fs::write(&config, "# for us alone\n\nPERMIT=\"http:127.0.0.1:*\"\n").expect("written");
    let own = format!("http,-in(+={})", config.display());
    let two = Two::start(Protocol::V1, [&own, "http,-in"], &[]);
    for (proxy, wanted) in [(two.first, "200"), (two.second, "403")] {
        let mut stream = connect(proxy);
        let address = server.address();
        let request = format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {wanted}"));
    }
    // And with a server named there, to which the exit then leads.
    std::fs::write(&config, format!("SERVER=http://{}\n", server.address())).expect("written");
    let two = Two::start(Protocol::V1, [&own, "http,-in"], &[]);
    served(FIRST, two.first);
}

#[test]
fn a_file_that_is_wrong_is_named_with_its_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("config.cnf");
    std::fs::write(&config, "# options\nTIMEOUT=io:5\nPORT=8080\n").expect("written");
    let word = format!("SERVER=http,-in(+={})", config.display());
    let output = command()
        .args(["-P127.0.0.1:0", &word, "--check"])
        .stdin(Stdio::null())
        .output()
        .expect("the binary under test starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let wanted = format!("{word}: {}:3: PORT=8080: PORT= is the whole process's", config.display());
    assert!(said.contains(&wanted), "{said}");
}
