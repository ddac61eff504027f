//! The choice of an engine: the selection, its log, and that the program runs on it.

use std::process::{Command, Stdio};

use crate::testkit::engine::{Leg, spawn_refused};
use crate::testkit::log::Log;
use crate::testkit::net::check_new_echo;
use crate::testkit::program::{Program, command};
use crate::testkit::servers::Server;
use crate::testkit::{DEADLINE, eventually};

/// Exit code when the command line is valid and the set-up fails.
const SET_UP_FAILED: i32 = 3;

const FALLBACK: &str = "io_uring cannot be used here: going on with epoll, which is slower";

/// Runs a command to its end: its exit code and its standard error.
fn run(
    words: &[&str],
    begin: impl FnOnce(&mut Command) -> std::io::Result<std::process::Child>,
) -> (i32, String) {
    let mut command = command();
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = begin(&mut command).expect("the binary under test starts");
    let log = Log::follow(child.stderr.take().expect("a pipe"));
    let ended = eventually(DEADLINE, || child.try_wait().expect("a child").is_some());
    if !ended {
        child.kill().expect("the child can be killed");
    }
    let status = child.wait().expect("the child can be waited for");
    assert!(ended && log.wait_end(DEADLINE), "{words:?} did not end:\n{}", log.text());
    (status.code().expect("an exit code"), log.text())
}

#[test]
fn the_engine_is_the_one_that_this_run_is_for() {
    let receptor = Program::start(&["-P127.0.0.1:0", "DEST=127.0.0.1:9"]);
    assert_eq!(receptor.wait_for("engine ready")["engine"], Leg::current().engine());
}

#[test]
fn an_engine_that_was_asked_for_is_taken() {
    let engines: &[_] = match Leg::current() {
        Leg::Refused => &[("epoll", "epoll")],
        Leg::Uring | Leg::Epoll => {
            &[("epoll", "epoll"), ("uring", "io_uring"), ("auto", "io_uring")]
        }
    };
    for (word, name) in engines {
        let receptor = Program::start(&["-P127.0.0.1:0", "DEST=127.0.0.1:9", "--engine", word]);
        assert_eq!(receptor.wait_for("engine ready")["engine"], *name);
        assert_eq!(receptor.count(FALLBACK), 0);
    }
}

#[test]
fn where_io_uring_is_refused_the_program_says_why_once_and_runs() {
    let server = Server::echo();
    let exit = format!("DEST={}", server.address());
    let receptor = Program::start_refused(&["-P127.0.0.1:0", &exit]);
    let address = receptor.address_of("receptor listening");
    let link = format!("SERVER=sockmux://{address}");
    let connector = Program::start_refused(&[&link, "PORT=127.0.0.1:0"]);
    connector.wait_for("tunnel up");
    check_new_echo(connector.address_of("entrance listening"), 1, 1_000_000);
    for program in [&receptor, &connector] {
        assert_eq!(program.wait_for("engine ready")["engine"], "epoll");
        let reason = program.wait_for_reason(FALLBACK);
        for part in ["io_uring_setup", "Operation not permitted", "seccomp", "--security-opt"] {
            assert!(reason.contains(part), "no {part:?} in {reason:?}");
        }
        assert_eq!(program.count(FALLBACK), 1);
    }
}

#[test]
fn who_asks_for_io_uring_gets_no_other() {
    let words = ["-P127.0.0.1:0", "DEST=127.0.0.1:9", "--engine", "uring"];
    let (code, message) = run(&words, spawn_refused);
    assert_eq!(code, SET_UP_FAILED, "{message}");
    for part in ["io_uring_setup", "seccomp", "--security-opt"] {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
    assert!(!message.contains("epoll"), "{message}");
}

#[test]
fn the_demo_runs_where_io_uring_is_refused() {
    let (code, message) = run(&["demo"], spawn_refused);
    assert_eq!(code, 0, "{message}");
}

#[test]
fn an_engine_that_is_none_is_a_wrong_command_line() {
    let (code, message) = run(&["-P127.0.0.1:0", "--engine", "aio"], Command::spawn);
    assert_eq!(code, 2, "{message}");
    assert!(message.contains("--engine") && message.contains("epoll"), "{message}");
}
