//! A command that carries the persistent connection: socat, a real ssh, and commands that are of no
//! use, which must cost nothing and leave nothing behind.

use std::net::SocketAddr;

use serde_json::Value;

use crate::testkit::engine::Leg;
use crate::testkit::net::check_new_echo;
use crate::testkit::program::{Program, command};
use crate::testkit::servers::{Exchange, Server};
use crate::testkit::services::{Service, postgres, run, sshd};
use crate::testkit::skip::needs;
use crate::testkit::tunnel::{check_nothing_is_left, start_receptor};
use crate::testkit::{DEADLINE, eventually};

const ENTRANCE: &str = "PORT=127.0.0.1:0";

fn start(carrier: &str, more: &[&str]) -> Program {
    let words: Vec<String> = [format!("SERVER=sockmux:proc@{carrier}"), ENTRANCE.to_owned()]
        .into_iter()
        .chain(more.iter().map(|&word| word.to_owned()))
        .collect();
    Program::start(&words)
}

fn entrance(program: &Program) -> SocketAddr {
    program.address_of("entrance listening")
}

/// The command line of a far end on its own standard input and output, whose streams go there.
fn far_end(server: SocketAddr) -> String {
    let program = command();
    let program = program.get_program().to_str().expect("a path in UTF-8").to_owned();
    let words = Leg::current().words().join(" ");
    format!("{program} -Fsockmux -Q{server} {words}")
}

/// The process of the command that was started as the `nth`.
fn process(program: &Program, nth: usize) -> u64 {
    let event = program.wait_for_nth("command started", nth);
    event["process"].as_u64().unwrap_or_else(|| panic!("no process in {event}"))
}

fn is_there(process: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // A zombie that init has not waited for yet has ended, too.
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

fn is_gone(process: u64) -> bool {
    eventually(DEADLINE, || !is_there(process))
}

/// Waits for the first end of the command, and gives its status.
fn status(program: &Program) -> String {
    let ended = program.wait_for("command ended");
    ended["status"].as_str().unwrap_or_else(|| panic!("no status in {ended}")).to_owned()
}

/// Waits until the command has written this to its standard error.
fn has_said(program: &Program, line: &str) {
    program.wait_for_event(line, 1, |event: &Value| {
        event["message"] == "command said" && event["line"] == line
    });
}

fn exchange_over(entrance: SocketAddr) {
    std::thread::scope(|scope| {
        for seed in 0..8 {
            scope.spawn(move || {
                Exchange { seed, up_bytes: 4 << 20, down_bytes: 4 << 20 }.run(entrance);
            });
        }
    });
}

#[test]
fn socat_to_the_other_end() {
    needs!("socat");
    let server = Server::exchange();
    let mut receptor = start_receptor("127.0.0.1:0", &[format!("DEST={}", server.address())]);
    let address = receptor.address_of("receptor listening");
    let mut near = start(&format!("socat - TCP:{address}"), &[]);
    near.wait_for("tunnel up");
    exchange_over(entrance(&near));
    near.terminate();
    assert_eq!(near.wait_exit(DEADLINE).code(), Some(0));
    receptor.wait_for("tunnel down");
    receptor.terminate();
    assert_eq!(receptor.wait_exit(DEADLINE).code(), Some(0));
}

#[test]
fn a_stream_that_has_ended_leaves_nothing() {
    needs!("socat");
    let server = Server::ends_first();
    let receptor = start_receptor("127.0.0.1:0", &[format!("DEST={}", server.address())]);
    let near = start(&format!("socat - TCP:{}", receptor.address_of("receptor listening")), &[]);
    near.wait_for("tunnel up");
    check_nothing_is_left([&near, &receptor], entrance(&near));
}

/// The command line of an ssh that starts such a far end through the server.
fn ssh_to(service: &Service, server: SocketAddr) -> String {
    let ssh = sshd::client("ssh", service, service.address());
    let mut words = vec![ssh.get_program().to_str().expect("UTF-8").to_owned()];
    words.extend(ssh.get_args().map(|word| format!("'{}'", word.to_str().expect("UTF-8"))));
    words.push(sshd::destination(service.address()));
    words.push(format!("'{}'", far_end(server)));
    words.join(" ")
}

/// The manual's example 8.
#[test]
fn ssh_to_the_other_end() {
    needs!("sshd", "ssh");
    let (server, service) = (Server::exchange(), sshd::start());
    let mut near = start(&ssh_to(&service, server.address()), &[]);
    near.wait_for("tunnel up");
    exchange_over(entrance(&near));
    let ssh = process(&near, 1);
    near.terminate();
    assert_eq!(near.wait_exit(DEADLINE).code(), Some(0));
    assert!(is_gone(ssh));
}

/// The same, with a database at the far end.
#[test]
fn postgresql_through_ssh() {
    needs!("postgres", "pgbench", "psql", "sshd", "ssh");
    let (server, service) = (postgres::start(), sshd::start());
    let near = start(&ssh_to(&service, server.address()), &[]);
    near.wait_for("tunnel up");
    let entrance = entrance(&near);
    run(postgres::client("pgbench", entrance).args(["-i", "-q", "-s", "1"]));
    run(postgres::client("pgbench", entrance).args(["-c", "4", "-t", "50"]));
    let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts)
                     = (SELECT sum(delta) FROM pgbench_history)";
    assert_eq!(postgres::sql(entrance, sums).trim(), "t");
}

#[test]
fn a_command_that_was_killed_is_started_again() {
    let server = Server::echo();
    let near = start(&far_end(server.address()), &[]);
    near.wait_for("tunnel up");
    check_new_echo(entrance(&near), 1, 100_000);
    let far = process(&near, 1);
    let far = rustix::process::Pid::from_raw(far as i32).expect("a process");
    rustix::process::kill_process(far, rustix::process::Signal::KILL).expect("it runs");
    near.wait_for("tunnel down");
    assert!(status(&near).contains("SIGKILL"));
    near.wait_for_nth("tunnel up", 2);
    check_new_echo(entrance(&near), 2, 100_000);
}

#[test]
fn a_command_that_exits_at_once_is_not_started_in_a_tight_loop() {
    let near = start("echo sorry >&2; exit 7", &[]);
    has_said(&near, "sorry");
    assert_eq!(status(&near), "exit status 7");
    near.check_idle();
    let started = near.count("command started");
    assert!((2..12).contains(&started), "it was started {started} times");
    assert_eq!(near.count("tunnel up"), 0);
}

#[test]
fn a_command_that_floods_its_standard_error_costs_little() {
    let mut near = start("yes noise >&2", &["TIMEOUT=acc:0"]);
    has_said(&near, "noise");
    near.check_idle();
    let lines = near.count("command said");
    assert!(lines < 40, "{lines} lines of it were logged");
    near.terminate();
    assert_eq!(near.wait_exit(DEADLINE).code(), Some(0));
    let more = near.wait_for("more lines of commands, not logged one by one");
    assert!(more["count"].as_u64() > Some(1_000), "{more}");
}

#[test]
fn a_command_that_never_answers_is_told_of_and_started_again() {
    let near = start("sleep 1000", &["TIMEOUT=acc:1"]);
    let reason = near.wait_for_reason("tunnel did not come up");
    assert!(reason.contains("has not answered with a hello in 1 s"), "{reason}");
    assert!(reason.contains("sockmux-uring -Fsockmux"), "{reason}");
    assert!(is_gone(process(&near, 1)));
    assert!(status(&near).contains("SIGTERM"));
    process(&near, 2);
    near.check_idle();
}

#[test]
fn a_command_that_talks_nonsense_is_told_of() {
    let near = start("yes", &[]);
    near.wait_for_reason("tunnel did not come up");
    near.check_idle();
}

/// However we end, and although the command may ignore signals, it does not survive.
#[test]
fn the_command_ends_with_us() {
    // The second is not ended by a signal that it ignores.
    for carrier in ["cat >/dev/null; sleep 1000", "trap '' TERM; sleep 1000; sleep 1000"] {
        let mut near = start(carrier, &["TIMEOUT=acc:0"]);
        let shell = process(&near, 1);
        near.terminate();
        assert_eq!(near.wait_exit(DEADLINE).code(), Some(0));
        assert!(is_gone(shell), "{carrier}");
    }
    // After SIGKILL the command gets no notice: `name` is the process that it has started by then.
    for (carrier, name) in [("exec sleep 1000", "sleep"), ("sleep 1000 | tac | sort", "tac")] {
        let mut near = start(carrier, &["TIMEOUT=acc:0"]);
        let shell = process(&near, 1);
        let has_begun = || members(shell).iter().any(|(_, comm)| comm.trim() == name);
        assert!(eventually(DEADLINE, has_begun), "{:?}", members(shell));
        let all = members(shell);
        near.kill_9();
        for (process, name) in all {
            assert!(is_gone(process), "{name}");
        }
    }
}

/// The processes of a group, with their names.
fn members(group: u64) -> Vec<(u64, String)> {
    let processes = std::fs::read_dir("/proc").expect("a list of processes").flatten();
    let member = |process: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(process.path().join("stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
        let is_of = fields.split_whitespace().nth(2) == Some(&group.to_string());
        let name = std::fs::read_to_string(process.path().join("comm")).ok()?;
        is_of.then_some((process.file_name().to_str()?.parse().ok()?, name))
    };
    processes.filter_map(member).collect()
}

/// A background process of a command keeps its standard output open, and yet the tunnel ends.
#[test]
fn what_a_command_leaves_behind_does_not_keep_its_tunnel() {
    let near = start("sleep 1000 & exit 3", &["TIMEOUT=acc:0"]);
    near.wait_for("tunnel did not come up");
    assert_eq!(status(&near), "exit status 3");
    near.wait_for_nth("command started", 2);
}
