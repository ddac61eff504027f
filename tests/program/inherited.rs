//! Listening sockets that are passed to the program, as systemd does (sd_listen_fds(3)).

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use crate::testkit::DEADLINE;
use crate::testkit::datagrams::{Client, DatagramServer};
use crate::testkit::net::{check_echo, check_new_echo, connect, free_port};
use crate::testkit::program::Program;
use crate::testkit::protocol::Protocol;
use crate::testkit::servers::Server;
use crate::testkit::tunnel::start_connector;

/// Exit code when the command line is valid and the set-up fails.
const SET_UP_FAILED: i32 = 3;

pub(crate) const BOTH: &str = "LISTEN_FDS=2 LISTEN_FDNAMES=link:web";

/// Sockets for persistent connections and for clients, and where they are.
pub(crate) fn sockets() -> ([TcpListener; 2], [SocketAddr; 2]) {
    let sockets = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"));
    let addresses = sockets.each_ref().map(|socket| socket.local_addr().expect("bound"));
    (sockets, addresses)
}

pub(crate) fn passed(sockets: &[TcpListener; 2]) -> [OwnedFd; 2] {
    sockets.each_ref().map(|socket| socket.try_clone().expect("a descriptor").into())
}

/// Starts a program that fails, and returns its standard error.
fn refused(words: &[&str], sockets: [OwnedFd; 2], environment: &str) -> String {
    let mut program = Program::start_with_sockets(words, sockets, environment);
    let status = program.wait_exit(DEADLINE);
    assert_eq!(status.code(), Some(SET_UP_FAILED), "{}", program.log_text());
    program.log_text()
}

#[test]
fn sockets_are_used_for_the_addresses_that_they_have_and_outlive_the_program() {
    let server = Server::echo();
    let (sockets, [link, web]) = sockets();
    let words = [format!("-P{link}"), format!("PORT={web}")];
    let words = words.each_ref().map(String::as_str);
    let exit = format!("DEST={}", server.address());
    let mut receptor = Program::start_with_sockets(&words, passed(&sockets), BOTH);
    assert_eq!(receptor.address_of("receptor listening"), link);
    assert_eq!(receptor.address_of("entrance listening"), web);
    assert_eq!(receptor.wait_for_nth("inherited socket", 2)["socket"], "descriptor 4 (web)");
    let connector = start_connector(Protocol::V1, link, &[&exit]);
    check_new_echo(web, 1, 100_000);
    receptor.terminate();
    assert!(receptor.wait_exit(DEADLINE).success());
    // A client that connects now waits for the next process.
    let client = connect(web);
    let receptor = Program::start_with_sockets(&words, passed(&sockets), BOTH);
    receptor.wait_for("tunnel up");
    check_echo(&client, 2, 100_000);
    drop(connector);
}

#[test]
fn a_socket_that_nobody_asks_for_is_an_error_that_names_it() {
    let (sockets, [link, web]) = sockets();
    let message = refused(&[&format!("-P{link}"), "DEST=127.0.0.1:9"], passed(&sockets), BOTH);
    for part in ["LISTEN_FDS", "descriptor 4 (web)", &web.to_string(), "PORT="] {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
    // The port is right and the address is not.
    let words = [format!("-P{link}"), format!("PORT=127.0.0.2:{}", web.port())];
    let message = refused(&words.each_ref().map(String::as_str), passed(&sockets), "LISTEN_FDS=2");
    assert!(message.contains("descriptor 4, which listens on"), "{message}");
}

#[test]
fn what_is_no_listening_tcp_socket_is_not_taken_for_one() {
    let ([first, _], [link, _]) = sockets();
    let words = [&*format!("-P{link}"), "DEST=127.0.0.1:9"];
    let unix = UnixDatagram::unbound().expect("a socket");
    let client = TcpStream::connect(link).expect("it listens");
    for other in
        [OwnedFd::from(unix), client.into(), File::open("/dev/null").expect("it is there").into()]
    {
        let copy = first.try_clone().expect("a descriptor");
        let message = refused(&words, [copy.into(), other], BOTH);
        assert!(message.contains("descriptor 4 (web): "), "{message}");
        assert!(
            message.contains("it is no listening TCP or Unix socket and no port of UDP"),
            "{message}"
        );
    }
    let copy = first.try_clone().expect("a descriptor");
    let message = refused(&words, [first.into(), copy.into()], "LISTEN_FDS=many");
    assert!(message.contains("LISTEN_FDS=many"), "{message}");
}

/// On one address, and on every one: an answer has to come from where the client has sent to.
#[test]
fn a_port_of_udp_is_used_and_outlives_the_program() {
    let server = DatagramServer::echo();
    let exit = format!("DEST={}/udp", server.address());
    for (at, clients_at) in [([127, 0, 0, 1], [127, 0, 0, 1]), ([0, 0, 0, 0], [127, 0, 0, 7])] {
        let ([first, _], [link, _]) = sockets();
        let udp = UdpSocket::bind((Ipv4Addr::from(at), 0)).expect("a port");
        let port = udp.local_addr().expect("bound").port();
        let entrance = SocketAddr::from((clients_at, port));
        let at = if at[0] == 0 { format!("{port}/udp") } else { format!("127.0.0.1:{port}/udp") };
        let words = [format!("-P{link}"), format!("PORT={at}")];
        let words = words.each_ref().map(String::as_str);
        let passed =
            || [first.try_clone().expect("one").into(), udp.try_clone().expect("one").into()];
        let mut receptor = Program::start_with_sockets(&words, passed(), BOTH);
        receptor.wait_for_event("the port of UDP", 1, |event| {
            event["message"] == "inherited socket" && event["socket"] == "descriptor 4 (web)"
        });
        let _connector = start_connector(Protocol::V1, link, &[&exit]);
        receptor.wait_for("tunnel up");
        let client = Client::of(entrance);
        client.check_echo(b"one");
        receptor.terminate();
        assert!(receptor.wait_exit(DEADLINE).success());
        // Clients can go on sending: the next process has the same port.
        let receptor = Program::start_with_sockets(&words, passed(), BOTH);
        receptor.wait_for("tunnel up");
        client.check_echo(b"two");
    }
}

#[test]
fn a_port_of_udp_is_not_taken_for_one_of_tcp() {
    let ([first, _], [link, _]) = sockets();
    // The port has to be free for TCP, too.
    let web = free_port(Ipv4Addr::LOCALHOST);
    let udp = UdpSocket::bind(web).expect("a port");
    let words = [format!("-P{link}"), format!("PORT={web}")];
    let message = refused(&words.each_ref().map(String::as_str), [first.into(), udp.into()], BOTH);
    let wanted = format!("descriptor 4 (web), which listens on {web}/udp");
    assert!(message.contains(&wanted) && message.contains("/udp for one of UDP"), "{message}");
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    let (sockets, _) = sockets();
    let words = ["-P127.0.0.1:0", "DEST=127.0.0.1:9"];
    let environment = format!("LISTEN_PID=1; export LISTEN_PID; {BOTH}");
    let program = Program::start_with_sockets(&words, passed(&sockets), &environment);
    program.wait_for("receptor listening");
    assert_eq!(program.count("inherited socket"), 0);
}
