//! Unix sockets as entrances and exits.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::testkit::net::{check_new_echo, connect, refused};
use crate::testkit::pattern::Pattern;
use crate::testkit::program::Program;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::servers::Server;
use crate::testkit::tunnel::{Tunnel, start_connector, start_receptor};
use crate::testkit::{DEADLINE, eventually};

/// Exit code when the command line is valid and the set-up fails.
const SET_UP_FAILED: i32 = 3;

fn dir() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("socket");
    (dir, path)
}

fn connect_unix(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
    stream.set_write_timeout(Some(DEADLINE)).expect("a timeout can be set");
    stream
}

/// Serves each client of a Unix socket by `serve`, for as long as the process lives.
fn serve(path: &Path, serve: fn(UnixStream) -> std::io::Result<()>) {
    let listener = UnixListener::bind(path).expect("the socket can be made");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || serve(stream));
        }
    });
}

fn echo(mut stream: UnixStream) -> std::io::Result<()> {
    let mut copy = stream.try_clone()?;
    std::io::copy(&mut copy, &mut stream)?;
    Ok(())
}

/// Sends a pattern and checks its echo, then ends sending and waits for the end.
pub(crate) fn check_echo_to_the_end(stream: &UnixStream, seed: u64, count: u64) {
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut to = stream;
            Pattern::new(seed).send(&mut to, count).expect("everything is sent");
            stream.shutdown(Shutdown::Write).expect("sending can end");
        });
        let mut from = stream;
        Pattern::new(seed).receive(&mut from, count).expect("everything comes back");
        assert_eq!(from.read(&mut [0]).expect("an end"), 0);
    });
}

/// An entrance at the connector, an exit at the receptor, both Unix sockets.
fn both_ends(protocol: Protocol, entrance: &Path, exit: &Path, more: &[&str]) -> Tunnel {
    let words = |first: String| {
        std::iter::once(first).chain(more.iter().map(|word| word.to_string())).collect::<Vec<_>>()
    };
    Tunnel::start(
        protocol,
        &words(format!("DEST=unix:{}", exit.display())),
        &words(format!("PORT=unix:{}", entrance.display())),
    )
}

fn from_socket_to_socket(protocol: Protocol) {
    let ((_dir, entrance), (_other, exit)) = (dir(), dir());
    serve(&exit, echo);
    let tunnel = both_ends(protocol, &entrance, &exit, &[]);
    let event = tunnel.connector.wait_for("entrance listening");
    assert_eq!(event["address"], format!("unix:{}", entrance.display()));
    check_echo_to_the_end(&connect_unix(&entrance), 1, 300_000);
    std::thread::scope(|scope| {
        for seed in 0..20 {
            let entrance = &entrance;
            scope.spawn(move || check_echo_to_the_end(&connect_unix(entrance), seed, 100_000));
        }
    });
}

fn the_end_of_one_direction_leaves_the_other(protocol: Protocol) {
    let ((_dir, entrance), (_other, exit)) = (dir(), dir());
    // Answers only after the end of data.
    serve(&exit, |mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        writeln!(stream, "{} bytes", all.len())
    });
    let _tunnel = both_ends(protocol, &entrance, &exit, &[]);
    let mut stream = connect_unix(&entrance);
    Pattern::new(3).send(&mut stream, 5_000_000).expect("everything is sent");
    stream.shutdown(Shutdown::Write).expect("sending can end");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert_eq!(answer, "5000000 bytes\n");
}

fn a_socket_that_nobody_listens_on_refuses_the_stream(protocol: Protocol) {
    let (_dir, missing) = dir();
    let tunnel = Tunnel::start(
        protocol,
        &[format!("DEST=unix:{}", missing.display())],
        &["PORT=127.0.0.1:0"],
    );
    refused("127.0.0.1", tunnel.entrance());
    let reason = tunnel.receptor.wait_for_reason("stream refused");
    assert!(reason.contains("unix:") && reason.contains("No such file"), "{reason}");
    // One that exists, without a listener.
    drop(UnixListener::bind(&missing).expect("the socket can be made"));
    refused("127.0.0.1", tunnel.entrance());
    let refused = tunnel.receptor.wait_for_nth("stream refused", 2);
    assert!(refused["reason"].as_str().unwrap_or("").contains("refused"), "{refused}");
    // And it is served as soon as there is one.
    fs::remove_file(&missing).expect("the socket can be removed");
    serve(&missing, echo);
    check_new_echo(tunnel.entrance(), 4, 100_000);
}

in_both_protocols!(
    from_socket_to_socket,
    the_end_of_one_direction_leaves_the_other,
    a_socket_that_nobody_listens_on_refuses_the_stream,
);

#[test]
fn bulk_is_spliced_between_unix_sockets() {
    const BYTES: u64 = 200 << 20;
    let ((_dir, entrance), (_other, exit)) = (dir(), dir());
    serve(&exit, echo);
    for way in ["auto", "copy", "splice"] {
        let bulk = format!("SOXCONF=bulk:{way}");
        let mut tunnel = both_ends(Protocol::V1, &entrance, &exit, &[&bulk]);
        check_echo_to_the_end(&connect_unix(&entrance), 7, BYTES);
        for program in [&mut tunnel.connector, &mut tunnel.receptor] {
            program.terminate();
            program.wait_exit(DEADLINE);
            let event = program.wait_for("stopped");
            let [from_local, to_local] = ["spliced_from_local", "spliced_to_local"]
                .map(|name| event[name].as_u64().expect("a count"));
            match way {
                "copy" => assert_eq!([from_local, to_local], [0, 0]),
                "splice" => assert!(from_local > BYTES / 2 && to_local > 0, "{event}"),
                _ => assert!(from_local <= BYTES && to_local <= BYTES, "{event}"),
            }
        }
    }
}

#[test]
fn a_server_that_is_behind_with_accepting_is_waited_for() {
    let (_dir, exit) = dir();
    // A backlog of two: further connections wait until one is accepted.
    let socket =
        socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&socket2::SockAddr::unix(&exit).expect("a path")).expect("bound");
    socket.listen(1).expect("it listens");
    let listener = UnixListener::from(std::os::fd::OwnedFd::from(socket));
    let tunnel = Tunnel::start(
        Protocol::V1,
        &[format!("DEST=unix:{}", exit.display())],
        &["PORT=127.0.0.1:0"],
    );
    let clients: Vec<_> = (0..6).map(|_| connect(tunnel.entrance())).collect();
    for mut client in &clients {
        client.write_all(b"ping").expect("it is sent");
    }
    for _ in &clients {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut said = [0; 4];
        stream.read_exact(&mut said).expect("what it said");
        stream.write_all(&said).expect("it is sent back");
    }
    for mut client in clients {
        let mut said = [0; 4];
        client.read_exact(&mut said).expect("the answer");
        assert_eq!(&said, b"ping");
    }
    assert_eq!(tunnel.receptor.count("stream refused"), 0);
}

#[test]
fn only_who_lets_in_everybody_lets_in_clients_without_an_address() {
    let server = Server::echo();
    for (reliable, let_in) in [("0.0.0.0/0,::/0", false), ("*", true)] {
        let (_dir, entrance) = dir();
        let tunnel = Tunnel::start(
            Protocol::V1,
            &[format!("DEST={}", server.address())],
            &[format!("PORT=unix:{}", entrance.display()), format!("RELIABLE={reliable}")],
        );
        let mut stream = connect_unix(&entrance);
        if let_in {
            check_echo_to_the_end(&stream, 1, 1000);
        } else {
            assert_eq!(stream.read(&mut [0]).expect("an end"), 0);
            let reason = tunnel.connector.wait_for_reason("stream refused");
            assert!(reason.contains("RELIABLE="), "{reason}");
        }
    }
}

#[test]
fn clients_of_a_unix_socket_have_no_address() {
    let server = Server::echo();
    let (_dir, entrance) = dir();
    let entrance_word = format!("PORT=unix:{}", entrance.display());
    let local = "127.0.0.0/8,::1,0.0.0.0/0";
    let tunnel = Tunnel::start(
        Protocol::V1,
        &[format!("DEST={}:{local}", server.address())],
        &[&entrance_word, "PORT=127.0.0.1:0", "-v"],
    );
    let mut stream = connect_unix(&entrance);
    assert_eq!(stream.read(&mut [0]).expect("an end"), 0);
    let reason = tunnel.receptor.wait_for_reason("stream refused");
    assert!(reason.starts_with("no exit for client 0.0.0.0"), "{reason}");
    // In our own log it is the process that came.
    let refused = tunnel.connector.wait_for("stream refused");
    let own = format!("process {} of user ", std::process::id());
    assert!(refused["client"].as_str().unwrap_or("").starts_with(&own), "{refused}");
    let tcp = tunnel.connector.nth_address_of("entrance listening", 1);
    check_new_echo(tcp, 5, 1000);
}

#[test]
fn the_file_has_its_mode_and_goes_with_the_process() {
    let (_dir, path) = dir();
    let word = |options: &str| format!("PORT=unix:{}{options}", path.display());
    for (options, mode) in [("", 0o600), ("?mode=0666", 0o666)] {
        let mut program = start_receptor("127.0.0.1:0", &[word(options)]);
        program.wait_for("entrance listening");
        let file = fs::symlink_metadata(&path).expect("the socket");
        assert!(file.file_type().is_socket());
        assert_eq!(file.permissions().mode() & 0o777, mode);
        program.terminate();
        assert!(program.wait_exit(DEADLINE).success());
        assert!(!path.exists());
    }
    // One that was killed leaves it behind, and the next one takes its place.
    let mut killed = start_receptor("127.0.0.1:0", &[word("")]);
    killed.wait_for("entrance listening");
    killed.kill_9();
    assert!(path.exists());
    let next = start_receptor("127.0.0.1:0", &[word("")]);
    next.wait_for("entrance listening");
    // While that lives, no other does.
    let mut second = Program::start(&["-P127.0.0.1:0", &word("")]);
    assert_eq!(second.wait_exit(DEADLINE).code(), Some(SET_UP_FAILED));
    let said = second.log_text();
    for piece in ["unix:", "(PORT=)", "another process listens there"] {
        assert!(said.contains(piece), "no `{piece}` in {said}");
    }
    assert!(path.exists());
    drop(next);
    fs::remove_file(&path).expect("left behind by the one that was killed");
    fs::write(&path, "precious").expect("written");
    let mut third = Program::start(&["-P127.0.0.1:0", &word("")]);
    assert_eq!(third.wait_exit(DEADLINE).code(), Some(SET_UP_FAILED));
    assert!(third.log_text().contains("it is no socket"), "{}", third.log_text());
    assert_eq!(fs::read(&path).expect("still there"), b"precious");
}

#[test]
fn a_client_that_goes_ends_its_stream() {
    let server = Server::echo();
    let (_dir, entrance) = dir();
    let tunnel = Tunnel::start(
        Protocol::V1,
        &[format!("DEST={}", server.address())],
        &[format!("PORT=unix:{}", entrance.display())],
    );
    let before = tunnel.connector.descriptors();
    let mut streams: Vec<_> = (0..20).map(|_| connect_unix(&entrance)).collect();
    for stream in &mut streams {
        stream.write_all(b"x").expect("sent");
        stream.read_exact(&mut [0]).expect("sent back");
        // Unread bytes make the close a reset for the other side.
        stream.write_all(&[0; 1000]).expect("sent");
    }
    drop(streams);
    assert!(eventually(DEADLINE, || tunnel.connector.descriptors() == before));
}

#[test]
fn a_socket_that_was_passed_is_used_and_left_there() {
    let server = Server::echo();
    let (_dir, path) = dir();
    let passed = UnixListener::bind(&path).expect("the socket can be made");
    let link = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = link.local_addr().expect("bound");
    let words = [format!("-P{address}"), format!("PORT=unix:{}", path.display())];
    let words = words.each_ref().map(String::as_str);
    let mut receptor = Program::start_with_sockets(
        &words,
        [link.into(), passed.into()],
        "LISTEN_FDS=2 LISTEN_FDNAMES=link:clients",
    );
    let inherited = receptor.wait_for_nth("inherited socket", 2);
    assert_eq!(inherited["address"], format!("unix:{}", path.display()));
    let exit = format!("DEST={}", server.address());
    let _connector = start_connector(Protocol::V1, address, &[exit]);
    check_echo_to_the_end(&connect_unix(&path), 9, 100_000);
    receptor.terminate();
    receptor.wait_exit(DEADLINE);
    assert!(path.exists());
}
