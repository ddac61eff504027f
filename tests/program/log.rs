//! The log: where it cannot be written, or is not read, and how its lines look.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

use crate::testkit::engine::Leg;
use crate::testkit::log::Log;
use crate::testkit::net::{check_new_echo, free_port, is_turned_away};
use crate::testkit::pipes::full_pipe;
use crate::testkit::program::{Program, command};
use crate::testkit::protocol::Protocol;
use crate::testkit::servers::Server;
use crate::testkit::tunnel::{NO_RESUMPTION, Tunnel};
use crate::testkit::{DEADLINE, eventually};

/// Within this a program whose log is blocked has ended: it waits a second for its last lines.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// The program with its standard error where a test wants it.
struct Bare(Child);

impl Bare {
    fn start(words: &[&str], stderr: impl Into<Stdio>) -> Bare {
        let mut program = command();
        program.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        Bare(Leg::current().spawn(&mut program).expect("the binary under test starts"))
    }

    /// A plain relay to an echo server, which logs every client.
    fn relay(server: &Server, stderr: impl Into<Stdio>) -> (Bare, SocketAddr) {
        let entrance = free_port(Ipv4Addr::LOCALHOST);
        let words = [format!("-P{entrance}"), format!("SERVER=tcprelay://{}", server.address())];
        let relay = Bare::start(&["-v", "--log", "json", &words[0], &words[1]], stderr);
        let listens = || std::net::TcpStream::connect(entrance).is_ok();
        assert!(eventually(DEADLINE, listens), "it does not listen");
        (relay, entrance)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let mut status = None;
        let ended = eventually(deadline, || {
            status = self.0.try_wait().expect("a child");
            status.is_some()
        });
        assert!(ended, "it still runs after {deadline:?}");
        status.expect("it has ended")
    }

    /// SIGTERM ends it, in any state of its log.
    fn drains(&mut self) {
        kill_process(self.pid(), Signal::TERM).expect("it runs");
        assert_eq!(self.wait(ENDS_WITHIN).code(), Some(0));
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves so many clients, each of which brings about some lines.
fn serve(entrance: SocketAddr, clients: u64) {
    for seed in 0..clients {
        check_new_echo(entrance, seed, 100);
    }
}

/// The lines of a log in JSON, each of which has to be one.
fn events(text: &str) -> Vec<Value> {
    let lines = text.lines().filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn clients(events: &[Value]) -> usize {
    events.iter().filter(|event| event["message"] == "connection ended").count()
}

#[test]
fn a_reader_that_has_gone_ends_nothing() {
    let server = Server::echo();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let (mut relay, entrance) = Bare::relay(&server, writer);
    drop(reader);
    serve(entrance, 20);
    relay.drains();
}

#[test]
fn a_reader_that_stands_still_stops_nothing() {
    let server = Server::echo();
    let (reader, writer) = full_pipe();
    let (mut relay, entrance) = Bare::relay(&server, writer);
    serve(entrance, 200);
    relay.drains();
    drop(reader);
}

#[test]
fn a_reader_that_goes_on_misses_nothing() {
    let server = Server::echo();
    for non_blocking in [false, true] {
        let (mut reader, writer) = full_pipe();
        rustix::io::ioctl_fionbio(&writer, non_blocking).expect("a flag");
        let (mut relay, entrance) = Bare::relay(&server, writer);
        serve(entrance, 200);
        let read = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).expect("text");
            text
        });
        relay.drains();
        // The first looked whether it listens.
        assert_eq!(clients(&events(&read.join().expect("read to the end"))), 201);
    }
}

fn limit_file_size(relay: &Bare, most: Option<u64>) {
    let limit = Rlimit { current: most, maximum: None };
    prlimit(Some(relay.pid()), Resource::Fsize, limit).expect("a child's limits can be set");
}

fn append_to(path: &Path) -> File {
    OpenOptions::new().append(true).create(true).open(path).expect("a file")
}

/// As on a full disk, with a signal besides.
#[test]
fn a_file_that_takes_no_more_is_written_again_when_it_does() {
    let server = Server::echo();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    let (mut relay, entrance) = Bare::relay(&server, append_to(&path));
    let read = || std::fs::read_to_string(&path).expect("a log");
    assert!(eventually(DEADLINE, || clients(&events(&read())) == 1));
    // The next line does not fit.
    limit_file_size(&relay, Some(read().len() as u64 + 20));
    serve(entrance, 20);
    assert!(read().lines().count() > 0);
    limit_file_size(&relay, None);
    serve(entrance, 1);
    relay.drains();
    assert_eq!(clients(&events(&read())), 22);
}

#[test]
fn a_disk_that_stays_full_ends_nothing() {
    let server = Server::echo();
    let full = OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let (mut relay, entrance) = Bare::relay(&server, full);
    serve(entrance, 20);
    relay.drains();
}

/// `logger <fifo` was killed and started again.
#[test]
fn the_next_reader_of_a_fifo_misses_nothing() {
    let server = Server::echo();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("fifo");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
    let first = OpenOptions::new().read(true).write(true).open(&path).expect("a FIFO");
    let writer = OpenOptions::new().write(true).open(&path).expect("a FIFO with a reader");
    let (mut relay, entrance) = Bare::relay(&server, writer);
    // Its unread lines are lost.
    drop(first);
    serve(entrance, 20);
    let mut reader = File::open(&path).expect("a FIFO");
    // It is tried again by itself.
    let mut text = vec![0];
    reader.read_exact(&mut text).expect("a log");
    let read = std::thread::spawn(move || {
        reader.read_to_end(&mut text).expect("a log");
        String::from_utf8(text).expect("text")
    });
    relay.drains();
    let clients = clients(&events(&read.join().expect("read to the end")));
    assert!((20..=21).contains(&clients), "{clients}");
}

/// The program with these words, whose standard error a shell makes of `redirection`.
fn exit_code(words: &[&str], redirection: &str) -> Option<i32> {
    let program = command();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &format!("exec \"$0\" \"$@\" {redirection}")]).arg(program.get_program());
    shell.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Bare(shell.spawn().expect("a shell")).wait(ENDS_WITHIN).code()
}

#[test]
fn messages_that_nobody_takes_leave_the_exit_code_as_it_is() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let taken = format!("-P{}", taken.local_addr().expect("an address"));
    let cases: [(&[&str], i32); 5] = [
        (&["PORT=nonsense"], 2),
        (&["-P127.0.0.1:0", "--frobnicate"], 2),
        (&["-P127.0.0.1:0", "DEST=127.0.0.1:x", "--check"], 2),
        (&["-P127.0.0.1:0", "DEST=127.0.0.1:9", "--check"], 0),
        (&[&taken, "DEST=127.0.0.1:9"], 3),
    ];
    for (words, code) in cases {
        for redirection in ["2>&-", "2>/dev/full", ">&- 2>&-"] {
            assert_eq!(exit_code(words, redirection), Some(code), "{words:?} {redirection}");
        }
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        assert_eq!(Bare::start(words, writer).wait(ENDS_WITHIN).code(), Some(code), "{words:?}");
        let (_reader, writer) = full_pipe();
        let begun = Instant::now();
        assert_eq!(Bare::start(words, writer).wait(ENDS_WITHIN).code(), Some(code), "{words:?}");
        assert!(begun.elapsed() < ENDS_WITHIN);
    }
}

#[test]
fn what_is_asked_for_and_cannot_be_printed_is_a_failure() {
    for words in [&["--help"][..], &["-P127.0.0.1:0", "DEST=127.0.0.1:9", "--check"]] {
        assert_eq!(exit_code(words, ">/dev/full"), Some(1), "{words:?}");
        // A reader that has closed the pipe wants no more.
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut program = command();
        program.args(words).stdin(Stdio::null()).stdout(writer).stderr(Stdio::null());
        let code = Bare(program.spawn().expect("it starts")).wait(ENDS_WITHIN).code();
        assert_eq!(code, Some(0), "{words:?}");
    }
}

/// A terminal: the master side, and the other one.
fn terminal() -> (OwnedFd, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).expect("granted");
    unlockpt(&master).expect("unlocked");
    let name = ptsname(&master, Vec::new()).expect("a name");
    let flags = OFlags::WRONLY | OFlags::NOCTTY;
    let slave = rustix::fs::open(name, flags, Mode::empty()).expect("it");
    (master, slave.into())
}

#[test]
fn a_terminal_that_is_stopped_or_closed_ends_nothing() {
    let server = Server::echo();
    for close in [false, true] {
        let (master, slave) = terminal();
        let (mut relay, entrance) = Bare::relay(&server, slave);
        // It buffers some 4 KiB without a reader.
        serve(entrance, 50);
        let master = Some(master).filter(|_| !close);
        serve(entrance, 50);
        relay.drains();
        drop(master);
    }
}

/// The lines at standard error, a terminal of this kind, until it listens.
fn on_terminal(environment: &[(&str, &str)]) -> String {
    let (master, slave) = terminal();
    let mut program = command();
    program.args(["-P127.0.0.1:0", "DEST=127.0.0.1:9"]);
    program.env_remove("NO_COLOR").env("TERM", "xterm").envs(environment.iter().copied());
    program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(slave);
    let child = Bare(Leg::current().spawn(&mut program).expect("it starts"));
    // Its end is the terminal's.
    drop(program);
    let log = Log::follow(File::from(master));
    let listens = |lines: &[Value]| {
        lines.iter().any(|l| l.as_str().is_some_and(|l| l.contains("listening"))).then_some(())
    };
    log.wait_for(DEADLINE, listens).unwrap_or_else(|| panic!("{}", log.text()));
    drop(child);
    log.text()
}

#[test]
fn colours_are_for_terminals_and_users_that_want_them() {
    assert!(on_terminal(&[]).contains('\u{1b}'));
    // Set to nothing is not set (no-color.org).
    assert!(on_terminal(&[("NO_COLOR", "")]).contains('\u{1b}'));
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let text = on_terminal(&[(name, value)]);
        assert!(text.contains("listening") && !text.contains('\u{1b}'), "{text}");
    }
}

/// The messages that a client of a tunnel, or of a plain relay, causes at each verbosity.
fn messages(tunnel: bool, verbosity: &str) -> BTreeSet<String> {
    let server = Server::echo();
    let exit = format!("DEST={}", server.address());
    let (mut program, other) = match tunnel {
        true => {
            let Tunnel { connector, receptor, .. } = Tunnel::start(
                Protocol::V1,
                &[&exit, verbosity],
                &["PORT=127.0.0.1:0", NO_RESUMPTION],
            );
            (receptor, Some(connector))
        }
        false => {
            let exit = format!("SERVER=tcprelay://{}", server.address());
            (Program::start(&["-P127.0.0.1:0", &exit, verbosity]), None)
        }
    };
    let entrance = other.as_ref().unwrap_or(&program).address_of("entrance listening");
    check_new_echo(entrance, 1, 1000);
    drop(other);
    program.terminate();
    assert_eq!(program.wait_exit(DEADLINE).code(), Some(0));
    let events = program.log_events();
    let messages = events.iter().map(|event| event["message"].as_str().expect("text").to_owned());
    messages.collect()
}

/// `--log-level` outdoes `-v`, and that `RUST_LOG`.
#[test]
fn the_level_is_that_of_option_letter_or_variable() {
    let server = Server::echo();
    let exit = format!("SERVER=tcprelay://{}", server.address());
    for (variable, words, has_debug) in [
        ("", &["-v"][..], true),
        ("RUST_LOG=debug", &[], true),
        ("RUST_LOG=error", &["-v"], true),
        ("RUST_LOG=trace", &["--log-level=info"], false),
        ("", &["-vv", "--log-level=info"], false),
        ("RUST_LOG=a=debug", &[], false),
    ] {
        let words = [&["-P127.0.0.1:0", &exit], words].concat();
        let mut relay = Program::start_after(&format!("export {variable}"), &words);
        check_new_echo(relay.address_of("entrance listening"), 1, 10);
        relay.terminate();
        assert_eq!(relay.wait_exit(DEADLINE).code(), Some(0));
        let any = |level| relay.log_events().iter().any(|event| event["level"] == level);
        assert_eq!((any("DEBUG"), any("TRACE")), (has_debug, false), "{variable} {words:?}");
        let ignored = relay.count("RUST_LOG is ignored: error, warn, info, debug or trace");
        assert_eq!(ignored, usize::from(variable.contains("=a=")));
    }
}

#[test]
fn each_verbosity_shows_more() {
    for tunnel in [true, false] {
        let [much, more] = ["-v", "-vv"].map(|verbosity| messages(tunnel, verbosity));
        assert!(more.is_superset(&much), "{much:?} {more:?}");
        assert!(more.len() >= much.len() + 3, "{much:?} {more:?}");
        assert!(more.contains("connected") && !much.contains("connected"));
    }
}

/// Lines that concern a tunnel or a stream have its id, so that one can be followed through the log.
#[test]
fn lines_have_the_ids_of_their_stream_and_tunnel() {
    let server = Server::echo();
    let exit = format!("DEST={}", server.address());
    let tunnel = Tunnel::start(Protocol::V1, &[&exit, "-v"], &["PORT=127.0.0.1:0", "-v"]);
    for _ in 0..2 {
        check_new_echo(tunnel.entrance(), 1, 1000);
    }
    for (end, first) in [(&tunnel.connector, "client"), (&tunnel.receptor, "exit")] {
        let id = end.wait_for("tunnel up")["tunnel"].clone();
        assert!(id.is_u64());
        let streams = [1, 2].map(|nth| end.wait_for_nth(first, nth));
        assert!(streams.iter().all(|begun| begun["tunnel"] == id), "{streams:?}");
        assert_ne!(streams[0]["stream"], streams[1]["stream"]);
        for begun in &streams {
            end.wait_for_event("the end of each stream", 1, |event| {
                event["message"] == "stream ended" && event["stream"] == begun["stream"]
            });
        }
    }
}

/// A refusal names what was refused at both ends, and so do the lines of its dial.
#[test]
fn refused_streams_have_the_ids_of_their_stream_and_tunnel() {
    let nobody = free_port([127, 0, 0, 2].into());
    let exit = format!("DEST={nobody}");
    let tunnel = Tunnel::start(Protocol::V1, &[&exit, "-vv"], &["PORT=127.0.0.1:0", "-v"]);
    is_turned_away(tunnel.entrance());
    for (end, first) in [(&tunnel.connector, "client"), (&tunnel.receptor, "exit")] {
        let (begun, refused) = (end.wait_for(first), end.wait_for("stream refused"));
        for id in ["stream", "tunnel"] {
            assert!(begun[id].is_u64(), "{begun}");
            assert_eq!(begun[id], refused[id], "{refused}");
        }
    }
    let stream = &tunnel.receptor.wait_for("exit")["stream"];
    for step in ["dialling", "connecting", "not connected"] {
        assert_eq!(&tunnel.receptor.wait_for(step)["stream"], stream, "{step}");
    }
}

/// What is refused before it has a number has that of its tunnel.
#[test]
fn a_stream_without_an_exit_is_refused_with_the_id_of_its_tunnel() {
    let exit = ["DEST=127.0.0.1:1:10.0.0.0/8"];
    let tunnel = Tunnel::start(Protocol::V1, &exit, &["PORT=127.0.0.1:0"]);
    is_turned_away(tunnel.entrance());
    let refused = tunnel.receptor.wait_for("stream refused");
    assert_eq!(refused["tunnel"], tunnel.receptor.wait_for("tunnel up")["tunnel"], "{refused}");
    assert!(refused["stream"].is_null(), "{refused}");
}
