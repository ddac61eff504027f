//! `--takeover`, where it comes to nothing: strangers, others than ours, and processes that fail on the
//! way. The old process goes on, or ends as it was told to, and the sockets are nobody else's.

use std::fs::{self, Permissions};
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::thread;

use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::takeover::{
    LONG_DRAIN, Lineage, ends_in_order, plain_relay, ports, upgrade_below_traffic,
};
use crate::testkit::engine::Leg;
use crate::testkit::net::{check_echo, check_new_echo, connect};
use crate::testkit::program::{Program, command};
use crate::testkit::servers::Server;
use crate::testkit::skip::needs;
use crate::testkit::successor::{HELLO, Successor};
use crate::testkit::traffic::Traffic;
use crate::testkit::{DEADLINE, eventually};

/// Exit code when the command line is valid and the set-up fails.
const SET_UP_FAILED: i32 = 3;

/// A plain relay to an echo server, and the words for the next one.
fn relay() -> (Lineage, Program, Server) {
    let server = Server::echo();
    let (lineage, _) = plain_relay(&server, &[LONG_DRAIN]);
    let program = lineage.start();
    (lineage, program, server)
}

#[test]
fn another_version_and_no_version_are_told_so() {
    let (lineage, old, _server) = relay();
    for (said, wanted) in [
        (
            &b"sockmux takeover \x09"[..],
            "by version 1, and the new process takes over by version 9",
        ),
        (b"sockmux takeover \x09 and more", "by version 9"),
        (b"sockmux takeover ", "no request to hand over"),
        (b"GET / HTTP/1.1\r\n\r\n", "no request to hand over"),
        (&[0; 300], "no request to hand over"),
    ] {
        let successor = Successor::that_says(&lineage.path(), said);
        let (record, socket) = successor.hear();
        let text = String::from_utf8_lossy(&record);
        assert!(text.starts_with('R') && text.contains(wanted), "{text}");
        assert!(socket.is_none() && successor.hear().0.is_empty());
    }
    let new = lineage.upgrade(&old);
    ends_in_order(old);
    drop(new);
}

/// What the old process says reaches the user of the new one, with a remedy.
#[test]
fn whoever_listens_there_and_is_not_ours_is_an_error_with_a_remedy() {
    let [entrance] = ports();
    let exit = "SERVER=tcprelay://127.0.0.1:9";
    let lineage = Lineage::of(&[format!("-P{entrance}"), exit.to_owned()]);
    let refused = |remedy: &str| {
        let mut program = lineage.start_with(&[]);
        assert_eq!(program.wait_exit(DEADLINE).code(), Some(SET_UP_FAILED));
        let text = program.log_text();
        assert!(text.contains("--takeover ") && text.contains(remedy), "{text}");
    };
    let listener = UnixListener::bind(lineage.path()).expect("a socket");
    refused("it is another program's socket: take another path");
    drop(listener);
    fs::remove_file(lineage.path()).expect("it is there");
    fs::write(lineage.path(), "precious").expect("a file");
    refused("it is no socket: take another path");
    fs::remove_file(lineage.path()).expect("it is there");
    fs::create_dir(lineage.path()).expect("a directory");
    refused("it is no socket: take another path");
    fs::remove_dir(lineage.path()).expect("it is there");
    let elsewhere = lineage.path().join("nowhere/socket");
    let words = [&format!("-P{entrance}"), exit, "--takeover", &elsewhere.display().to_string()];
    let mut program = Program::start(&words);
    assert_eq!(program.wait_exit(DEADLINE).code(), Some(SET_UP_FAILED));
    assert!(program.log_text().contains("make its directory first"), "{}", program.log_text());
}

#[test]
fn a_successor_that_fails_at_any_point_changes_nothing() {
    let (lineage, old, _server) = relay();
    let entrance = old.address_of("entrance listening");
    let traffic = Traffic::start(entrance);
    drop(Successor::that_says(&lineage.path(), HELLO));
    old.wait_for("the new process has failed: going on");
    let successor = Successor::that_says(&lineage.path(), HELLO);
    assert_eq!(successor.sockets().len(), 1);
    traffic.goes_on();
    drop(successor);
    old.wait_for_nth("the new process has failed: going on", 2);
    // It says what it should not, and waits.
    let successor = Successor::that_says(&lineage.path(), HELLO);
    successor.sockets();
    successor.say(b"what?");
    assert!(successor.hear().0.is_empty());
    old.wait_for_nth("the new process has failed: going on", 3);
    traffic.goes_on();
    assert_eq!(old.count("draining"), 0);
    let new = lineage.upgrade(&old);
    traffic.goes_on();
    traffic.end();
    ends_in_order(old);
    drop(new);
}

/// It says that it is ready and ends before it could be told that all is its own.
#[test]
fn one_that_ends_when_it_was_ready_changes_nothing() {
    let (lineage, old, _server) = relay();
    let successor = Successor::that_says(&lineage.path(), HELLO);
    successor.sockets();
    // The old process reads both at once.
    old.pause();
    successor.say(b"T\0\0");
    drop(successor);
    old.go_on();
    old.wait_for("the new process has failed: going on");
    check_new_echo(old.address_of("entrance listening"), 1, 1000);
    assert_eq!(old.count("draining"), 0);
}

/// Told to end while a successor is on its way, it leaves the sockets as they are.
#[test]
fn a_process_that_ends_meanwhile_leaves_its_sockets_to_the_successor() {
    let (lineage, mut old, _server) = relay();
    let entrance = old.address_of("entrance listening");
    let open = connect(entrance);
    check_echo(&open, 1, 1000);
    let successor = Successor::that_says(&lineage.path(), HELLO);
    let mut sockets = successor.sockets();
    old.terminate();
    old.wait_for("draining");
    let queue = TcpListener::from(sockets.remove(0));
    queue.set_nonblocking(false).expect("it can be set");
    let client = connect(entrance);
    successor.say(b"T\0\0");
    assert_eq!(successor.hear().0, b"Y");
    let (_, came_from) = queue.accept().expect("the client is there");
    assert_eq!(came_from, client.local_addr().expect("connected"));
    check_echo(&open, 2, 1000);
    drop(open);
    assert_eq!(old.wait_exit(DEADLINE).code(), Some(0));
    connect(entrance);
}

/// The file lets them in, and they are refused all the same.
#[test]
fn a_stranger_is_refused_by_its_user() {
    needs!(Namespaces);
    let (lineage, old, server) = relay();
    let open = |path: &std::path::Path, mode| {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
    };
    open(lineage.path().parent().expect("a directory"), 0o777);
    let entrance = old.address_of("entrance listening");
    let exit = format!("SERVER=tcprelay://{}", server.address());
    let stranger = || {
        // By its descriptor: another user may not find the file by its name.
        let by = "exec 3<\"$0\"; exec setpriv --reuid=65534 --regid=65534 --clear-groups \
                  /proc/self/fd/3 \"$@\"";
        let mut shell = Command::new("sh");
        shell.args(["-c", by]).arg(command().get_program());
        shell.args([&format!("-P{entrance}"), &exit, "--takeover"]).arg(lineage.path());
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = Leg::current().spawn(&mut shell).expect("it starts");
        let ended = eventually(DEADLINE, || child.try_wait().expect("a child").is_some());
        if !ended {
            child.kill().expect("the child can be killed");
        }
        let mut text = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut text).expect("text");
        assert_eq!(child.wait().expect("a child").code(), Some(SET_UP_FAILED), "{text}");
        text
    };
    // As it is made.
    let text = stranger();
    assert!(text.contains("start this process as the user that the old one"), "{text}");
    open(&lineage.path(), 0o777);
    let text = stranger();
    assert!(text.contains("the old process refuses: the new process is of user 65534"), "{text}");
    assert_eq!(
        old.wait_for_reason("no new process may take over"),
        "the new process is of user 65534"
    );
    check_new_echo(entrance, 1, 1000);
    let new = lineage.upgrade(&old);
    ends_in_order(old);
    drop(new);
}

/// Each is started by root and goes on as another user, who could not make what root has made.
#[test]
fn a_process_that_has_become_another_user_is_taken_over_from() {
    needs!(Namespaces);
    let server = Server::echo();
    let (lineage, entrance) = plain_relay(&server, &[LONG_DRAIN, "--user=65533:65532"]);
    let first = lineage.start();
    drop(upgrade_below_traffic(&lineage, first, entrance));
}

/// Nobody takes sockets from a process of a third user.
#[test]
fn a_strangers_sockets_are_not_taken() {
    needs!(Namespaces);
    let [entrance] = ports();
    let words = [format!("-P{entrance}"), "SERVER=tcprelay://127.0.0.1:9".into()];
    let lineage = Lineage::of(&words);
    let dir = lineage.path().parent().expect("a directory").to_owned();
    fs::set_permissions(dir, Permissions::from_mode(0o777)).expect("a mode");
    let path = lineage.path();
    // The user of a thread is its own, and so is that of a socket which it has listen.
    let stranger = thread::spawn(move || {
        let nobody = Uid::from_raw(65534);
        set_thread_res_uid(nobody, nobody, nobody).expect("root may");
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).expect("a socket");
        socket.bind(&SockAddr::unix(path).expect("a path")).expect("a place");
        socket.listen(8).expect("it can");
        socket
    });
    let _socket = stranger.join().expect("it listens");
    let mut program = lineage.start_with(&[]);
    assert_eq!(program.wait_exit(DEADLINE).code(), Some(SET_UP_FAILED));
    let text = program.log_text();
    assert!(text.contains("whoever listens there is user 65534, neither ours nor root"), "{text}");
}
