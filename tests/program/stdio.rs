//! The program's own standard input and output as the persistent connection: sockets and pipes, and
//! an end of the process with the end of the connection.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use rustix::fs::{OFlags, fcntl_getfl};

use crate::testkit::DEADLINE;
use crate::testkit::keys::Keys;
use crate::testkit::net::{check_new_echo, connect};
use crate::testkit::program::Program;
use crate::testkit::servers::{Exchange, Server};
use crate::testkit::tunnel::check_nothing_is_left;

const ENTRANCE: &str = "PORT=127.0.0.1:0";
const FOREGROUND: &str = "-Fsockmux";

/// Exit codes.
const BROKEN: i32 = 1;
const SET_UP_FAILED: i32 = 3;

fn entrance(program: &Program) -> SocketAddr {
    program.address_of("entrance listening")
}

/// Two programs joined by a pair of sockets.
fn joined_by_sockets(near: &[&str], far: &[&str]) -> [Program; 2] {
    let (one, other) = UnixStream::pair().expect("a pair of sockets");
    [(one, near), (other, far)].map(|(socket, words)| {
        let again = socket.try_clone().expect("a descriptor");
        start(words, OwnedFd::from(socket), OwnedFd::from(again))
    })
}

/// Two programs joined by two pipes.
fn joined_by_pipes(near: &[&str], far: &[&str]) -> [Program; 2] {
    let (there, back) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
    [start(near, back.0, there.1), start(far, there.0, back.1)]
}

fn start(words: &[&str], input: impl Into<Stdio>, output: impl Into<Stdio>) -> Program {
    let words: Vec<&str> = [FOREGROUND].iter().chain(words).copied().collect();
    Program::start_with_stdio(&words, input.into(), output.into())
}

type Join = fn(&[&str], &[&str]) -> [Program; 2];

const WAYS: [Join; 2] = [joined_by_sockets, joined_by_pipes];

#[test]
fn bytes_pass_whole_and_both_leave_when_one_is_stopped() {
    let server = Server::exchange();
    let exit = format!("DEST={}", server.address());
    for join in WAYS {
        let [mut near, mut far] = join(&[ENTRANCE], &[&exit]);
        let entrance = entrance(&near);
        std::thread::scope(|scope| {
            for seed in 0..8 {
                scope.spawn(move || {
                    Exchange { seed, up_bytes: 8 << 20, down_bytes: 8 << 20 }.run(entrance);
                });
            }
        });
        near.terminate();
        for program in [&mut near, &mut far] {
            assert_eq!(program.wait_exit(DEADLINE).code(), Some(0), "{}", program.log_text());
        }
    }
}

#[test]
fn a_stream_that_has_ended_leaves_nothing() {
    let server = Server::ends_first();
    let exit = format!("DEST={}", server.address());
    for join in WAYS {
        let ends = join(&[ENTRANCE], &[&exit]);
        check_nothing_is_left([&ends[0], &ends[1]], entrance(&ends[0]));
    }
}

#[test]
fn a_connection_that_breaks_ends_the_process_with_a_failure() {
    let server = Server::echo();
    let exit = format!("DEST={}", server.address());
    for join in WAYS {
        let [mut near, mut far] = join(&[ENTRANCE], &[&exit]);
        let mut stream = connect(entrance(&near));
        stream.write_all(b"x").expect("sent");
        stream.read_exact(&mut [0]).expect("echoed");
        far.kill_9();
        let code = near.wait_exit(DEADLINE).code();
        assert_eq!(code, Some(BROKEN), "{}", near.log_text());
        assert!(near.log_text().contains("the tunnel over standard input and output broke"));
    }
}

#[test]
fn an_end_before_the_hello_is_a_failure() {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let again = theirs.try_clone().expect("a descriptor");
    let mut program = start(&[ENTRANCE], OwnedFd::from(theirs), OwnedFd::from(again));
    program.wait_for("entrance listening");
    ours.shutdown(Shutdown::Write).expect("it is open");
    assert_eq!(program.wait_exit(DEADLINE).code(), Some(BROKEN));
    assert!(program.log_text().contains("the peer closed the connection"));
}

#[test]
fn a_peer_that_says_nothing_is_given_up() {
    let (input, _output) = pipe().expect("a pipe");
    let (_rest, output) = pipe().expect("a pipe");
    let mut program = start(&[ENTRANCE, "TIMEOUT=acc:1"], input, output);
    assert_eq!(program.wait_exit(DEADLINE).code(), Some(BROKEN));
    assert!(program.log_text().contains("TIMEOUT=acc"), "{}", program.log_text());
}

fn is_nonblocking(fd: impl AsFd) -> bool {
    fcntl_getfl(fd).expect("it is open").contains(OFlags::NONBLOCK)
}

/// They may be shared with a shell, which does not expect to be refused.
#[test]
fn descriptors_are_as_they_were_afterwards() {
    let (input, to): (PipeReader, PipeWriter) = pipe().expect("a pipe");
    let (from, output) = pipe().expect("a pipe");
    let kept =
        (input.try_clone().expect("a descriptor"), output.try_clone().expect("a descriptor"));
    let mut program = start(&[ENTRANCE], input, output);
    let mut from = from;
    from.read_exact(&mut [0; 8]).expect("the hello");
    assert!(is_nonblocking(&kept.0) && is_nonblocking(&kept.1));
    program.terminate();
    assert_eq!(program.wait_exit(DEADLINE).code(), Some(0));
    assert!(!is_nonblocking(&kept.0) && !is_nonblocking(&kept.1));
    drop(to);
}

#[test]
fn what_is_no_connection_is_refused_with_the_remedy() {
    let nowhere = || Stdio::null();
    let mut program = Program::start_with_stdio(&[FOREGROUND, ENTRANCE], nowhere(), nowhere());
    assert_eq!(program.wait_exit(DEADLINE).code(), Some(SET_UP_FAILED));
    let text = program.log_text();
    for part in ["standard input", "/dev/null", "proc@", "-A"] {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
}

/// A Unix socket by its name, as `comm@`, is neither: but is much the same to the engine.
#[test]
fn a_unix_socket_by_its_name() {
    let (server, keys) = (Server::echo(), Keys::new());
    let (exit, secret) = (format!("DEST={}", server.address()), keys.secret("secret"));
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("socket");
    let device = format!("SERVER=sockmux:comm@{}", path.display());
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    for is_encrypted in [false, true] {
        let (mut near, mut far) = (vec![device.as_str(), ENTRANCE], vec![&*exit]);
        if is_encrypted {
            near.extend([&*secret, "STLS=fsv"]);
            far.push(&secret);
        }
        let near = Program::start(&near);
        let (socket, _) = listener.accept().expect("it connects");
        let again = socket.try_clone().expect("a descriptor");
        let _far = start(&far, OwnedFd::from(socket), OwnedFd::from(again));
        assert_eq!(near.wait_for("tunnel up")["cipher"].is_string(), is_encrypted);
        check_new_echo(entrance(&near), 1, 100_000);
    }
}
