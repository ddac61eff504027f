//! Exits that give each stream to a command on its descriptors 0 and 1.

use std::fs::DirEntry;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::testkit::net::{check_echo, check_new_echo, connect, refused, reset};
use crate::testkit::pattern::Pattern;
use crate::testkit::program::Program;
use crate::testkit::protocol::{Protocol, in_both_protocols};
use crate::testkit::skip::needs;
use crate::testkit::tunnel::{Tunnel, start_connector};
use crate::testkit::{DEADLINE, eventually};

/// A tunnel whose receptor gives streams to `command`.
fn tunnel(protocol: Protocol, command: &str) -> Tunnel {
    let exit = format!("SERVER=exec:{command},-in");
    Tunnel::start(protocol, &[&exit, "-v"], &["PORT=127.0.0.1:0", "-v"])
}

/// All that comes until the end.
fn all_of(mut stream: &TcpStream) -> String {
    let mut all = String::new();
    stream.read_to_string(&mut all).expect("text, then an end");
    all
}

/// Processes whose parent is this program: its commands, and the watchdog that ends them if it cannot.
fn all_children(program: u32) -> Vec<(Pid, String)> {
    let parent = program.to_string();
    let processes = std::fs::read_dir("/proc").expect("a list of processes").flatten();
    let child = |process: DirEntry| {
        let stat = std::fs::read_to_string(process.path().join("stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
        let words = std::fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        let number = process.file_name().to_str()?.parse().ok()?;
        let is_ours = fields.split_whitespace().nth(1) == Some(&parent);
        is_ours.then_some((Pid::from_raw(number)?, words))
    };
    processes.filter_map(child).collect()
}

/// Those of them that end commands.
fn watchdogs(program: &Program) -> Vec<Pid> {
    let children = all_children(program.pid()).into_iter();
    children.filter(|(_, words)| is_watchdog(words)).map(|(pid, _)| pid).collect()
}

fn is_watchdog(words: &str) -> bool {
    words.contains("\0watchdog\0")
}

/// How many commands of this program there are.
fn children(program: &Program) -> usize {
    children_of(program.pid())
}

/// The same, those among them that have ended and that nobody has waited for.
fn children_of(program: u32) -> usize {
    all_children(program).iter().filter(|(_, words)| !is_watchdog(words)).count()
}

fn are_gone(program: &Program) {
    assert!(eventually(DEADLINE, || children(program) == 0), "{} left", children(program));
}

/// A command that does nothing for long. No other test, of this run or another, has the same.
fn mark(number: u32) -> String {
    format!("sleep 3600.{}{number}", std::process::id())
}

/// Whether a process runs whose command line has this in it, but for the program itself.
fn runs(mark: &str) -> bool {
    let processes = std::fs::read_dir("/proc").expect("a list of processes").flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        // The words end with a NUL each.
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .any(|line| line.contains(mark) && !line.contains("SERVER=exec:"))
}

fn each_stream_has_a_command_of_its_own(protocol: Protocol) {
    let tunnel = tunnel(protocol, "cat");
    check_new_echo(tunnel.entrance(), 1, 2_000_000);
    let streams: Vec<_> = (0..3).map(|_| connect(tunnel.entrance())).collect();
    for (seed, stream) in streams.iter().enumerate() {
        check_echo(stream, seed as u64, 100_000);
    }
    assert!(children(&tunnel.receptor) >= 3);
    drop(streams);
    are_gone(&tunnel.receptor);
}

fn a_command_may_answer_when_the_client_has_said_all(protocol: Protocol) {
    let tunnel = tunnel(protocol, "wc -c");
    let mut stream = connect(tunnel.entrance());
    Pattern::new(2).send(&mut stream, 3_000_000).expect("everything is sent");
    stream.shutdown(Shutdown::Write).expect("sending can end");
    assert_eq!(all_of(&stream).trim(), "3000000");
    are_gone(&tunnel.receptor);
}

fn a_command_that_ends_ends_the_stream(protocol: Protocol) {
    let tunnel = tunnel(protocol, "echo first; head -c 5 >/dev/null; echo second");
    let mut stream = connect(tunnel.entrance());
    stream.write_all(b"12345").expect("sent");
    assert_eq!(all_of(&stream), "first\nsecond\n");
    drop(stream);
    are_gone(&tunnel.receptor);
    let ended = tunnel.receptor.wait_for("command ended");
    assert_eq!(ended["status"], "exit status 0");
}

in_both_protocols!(
    each_stream_has_a_command_of_its_own,
    a_command_may_answer_when_the_client_has_said_all,
    a_command_that_ends_ends_the_stream,
);

#[test]
fn a_command_knows_whose_the_stream_is() {
    let tunnel = tunnel(Protocol::V1, "echo $REMOTE_HOST $REMOTE_PORT $LOCAL_PORT");
    let stream = connect(tunnel.entrance());
    let own = stream.local_addr().expect("bound");
    let wanted = format!("127.0.0.1 {} {}\n", own.port(), tunnel.entrance().port());
    assert_eq!(all_of(&stream), wanted);
}

#[test]
fn what_a_command_complains_of_is_logged_with_its_name() {
    let tunnel = tunnel(Protocol::V1, "echo answer; echo complaint >&2; exit 3");
    assert_eq!(all_of(&connect(tunnel.entrance())), "answer\n");
    let said = tunnel.receptor.wait_for("command said");
    assert_eq!(said["line"], "complaint");
    assert_eq!(said["command"], "echo answer; echo complaint >&2; exit 3");
    let failed = tunnel.receptor.wait_for_event("an end", 1, |event| {
        matches!(event["message"].as_str(), Some("command failed at once" | "command ended"))
    });
    assert_eq!(failed["status"], "exit status 3");
}

#[test]
fn a_command_that_is_not_there_is_warned_of() {
    let tunnel = tunnel(Protocol::V1, "exec /nonexistent/server");
    let stream = connect(tunnel.entrance());
    assert_eq!(all_of(&stream), "");
    let failed = tunnel.receptor.wait_for("command failed at once");
    assert_eq!((&failed["level"], &failed["status"]), (&"WARN".into(), &"exit status 127".into()));
    assert!(tunnel.receptor.log_text().contains("/nonexistent/server"));
}

/// Every client can cause such lines, so all commands together have one limit.
#[test]
fn what_all_commands_say_is_bounded_and_counted() {
    const LINES: u64 = 60 * 10;
    let mut tunnel = tunnel(Protocol::V1, "seq 10 >&2; echo done");
    for _ in 0..LINES / 10 {
        assert_eq!(all_of(&connect(tunnel.entrance())), "done\n");
    }
    are_gone(&tunnel.receptor);
    tunnel.receptor.terminate();
    assert_eq!(tunnel.receptor.wait_exit(DEADLINE).code(), Some(0));
    let said = tunnel.receptor.count("command said") as u64;
    assert!((1..60).contains(&said), "{said} lines");
    let counts = tunnel.receptor.log_events().into_iter();
    let counts =
        counts.filter(|event| event["message"] == "more lines of commands, not logged one by one");
    let counted: u64 = counts.map(|event| event["count"].as_u64().expect("a count")).sum();
    assert_eq!(said + counted, LINES);
}

#[test]
fn a_client_that_goes_takes_its_command_along() {
    // It reads nothing, so it does not see the end; its child ignores SIGTERM.
    let mark = &mark(3);
    let tunnel = tunnel(Protocol::V1, &format!("(trap '' TERM; {mark}); exec {mark}"));
    let stream = connect(tunnel.entrance());
    assert!(eventually(DEADLINE, || runs(mark)));
    reset(stream);
    are_gone(&tunnel.receptor);
    assert!(eventually(DEADLINE, || !runs(mark)));
}

#[test]
fn a_hundred_at_once_and_none_left_behind() {
    let mut tunnel = tunnel(Protocol::V1, "cat");
    let entrance = tunnel.entrance();
    let before_any = tunnel.receptor.descriptors();
    // The first command starts the watchdog of all of them, which stays: a socket.
    check_new_echo(entrance, 1, 1);
    are_gone(&tunnel.receptor);
    let before = before_any + 1;
    assert!(eventually(DEADLINE, || tunnel.receptor.descriptors() == before));
    let streams: Vec<_> = (0..100).map(|_| connect(entrance)).collect();
    std::thread::scope(|scope| {
        for (seed, stream) in streams.iter().enumerate() {
            scope.spawn(move || check_echo(stream, seed as u64, 20_000));
        }
    });
    assert_eq!(children(&tunnel.receptor), 100);
    drop(streams);
    are_gone(&tunnel.receptor);
    assert!(eventually(DEADLINE, || tunnel.receptor.descriptors() == before));
    // A signal while some run.
    let mark = &mark(4);
    let others = self::tunnel(Protocol::V1, &format!("trap '' TERM; {mark}"));
    let kept: Vec<_> = (0..10).map(|_| connect(others.entrance())).collect();
    assert!(eventually(DEADLINE, || children(&others.receptor) == 10));
    let Tunnel { mut receptor, .. } = others;
    receptor.terminate();
    receptor.wait_for("draining");
    receptor.terminate();
    receptor.wait_exit(DEADLINE);
    assert!(eventually(DEADLINE, || !runs(mark)));
    drop(kept);
    tunnel.receptor.terminate();
    assert!(tunnel.receptor.wait_exit(DEADLINE).success());
}

#[test]
fn more_than_may_run_at_once_are_refused() {
    let most = sockmux_uring::limits::COMMANDS_MAX;
    let tunnel = tunnel(Protocol::V1, "cat");
    let entrance = tunnel.entrance();
    let mut streams: Vec<_> = (0..most).map(|_| connect(entrance)).collect();
    for stream in &streams {
        check_echo(stream, 1, 1);
    }
    refused("127.0.0.1", entrance);
    let reason = tunnel.receptor.wait_for_reason("stream refused");
    assert_eq!(reason, format!("{most} commands run at once already"));
    assert!(tunnel.connector.wait_for_reason("stream refused").contains(&reason));
    // As soon as one has ended there is room again.
    streams.pop();
    assert!(eventually(DEADLINE, || children(&tunnel.receptor) < most));
    check_new_echo(entrance, 2, 1000);
}

/// All processes of a command end with it, even those that ignore SIGTERM.
#[test]
fn commands_go_with_a_program_that_is_killed() {
    let mark = &mark(1);
    for command in [
        mark.clone(),
        format!("{mark} | cat"),
        format!("(trap '' TERM; {mark}; :) | sh -c '{mark}; :'"),
    ] {
        let Tunnel { mut receptor, connector, .. } = tunnel(Protocol::V1, &command);
        let entrance: SocketAddr = connector.address_of("entrance listening");
        let _stream = connect(entrance);
        assert!(eventually(DEADLINE, || runs(mark)));
        receptor.kill_9();
        assert!(eventually(DEADLINE, || !runs(mark)), "{command}");
    }
}

/// The watchdog of the commands ends as well, and is started again if it was ended.
#[test]
fn the_watchdog_of_commands_leaves_nothing_behind() {
    let mark = &mark(2);
    let mut tunnel = tunnel(Protocol::V1, mark);
    assert_eq!(watchdogs(&tunnel.receptor).len(), 0);
    let _first = connect(tunnel.entrance());
    assert!(eventually(DEADLINE, || runs(mark)));
    let [watchdog] = watchdogs(&tunnel.receptor)[..] else { panic!("one for all commands") };
    kill_process(watchdog, Signal::KILL).expect("it runs");
    assert!(eventually(DEADLINE, || watchdogs(&tunnel.receptor).is_empty()));
    let second = connect(tunnel.entrance());
    // One that is only being started has the program's name still.
    let is_back = || watchdogs(&tunnel.receptor).len() == 1 && children(&tunnel.receptor) == 2;
    assert!(eventually(DEADLINE, is_back));
    let [watchdog] = watchdogs(&tunnel.receptor)[..] else { panic!("a new one") };
    tunnel.receptor.kill_9();
    assert!(eventually(DEADLINE, || !runs(mark)));
    assert!(eventually(DEADLINE, || test_kill_process(watchdog).is_err()));
    drop(second);
}

/// As process 1 it has to wait for orphans of its commands, since no other process does.
#[test]
fn as_process_1_it_waits_for_what_commands_leave_behind() {
    needs!(Namespaces);
    let exit = "SERVER=exec:sleep 3600; echo done,-in";
    let receptor = Program::start_as_process_1(&["-P127.0.0.1:0", exit, "-v"]);
    let address = receptor.address_of("receptor listening");
    let connector = start_connector(Protocol::V1, address, &["PORT=127.0.0.1:0"]);
    let [(init, _)] = &all_children(receptor.pid())[..] else { panic!("one child of unshare") };
    let init = init.as_raw_nonzero().get() as u32;
    const STREAMS: usize = 20;
    for nth in 1..=STREAMS {
        let stream = connect(connector.address_of("entrance listening"));
        assert!(eventually(DEADLINE, || children_of(init) == 1));
        reset(stream);
        receptor.wait_for_nth("command ended", nth);
        assert!(eventually(DEADLINE, || children_of(init) == 0), "{:?}", all_children(init));
    }
    // As others see it, SIGTERM ends it.
    kill_process(Pid::from_raw(init as i32).expect("a process"), Signal::TERM).expect("it runs");
    let mut receptor = receptor;
    assert_eq!(receptor.wait_exit(DEADLINE).code(), Some(0));
}

/// Regardless of the signals that the program ignores, or was started to ignore.
#[test]
fn commands_have_no_signal_ignored_or_blocked() {
    let exit = "SERVER=exec:exec grep -E 'Sig(Ign|Blk)' /proc/self/status,-in";
    let receptor = Program::start_after("trap '' HUP TERM USR2 TSTP", &["-P127.0.0.1:0", exit]);
    let address = receptor.address_of("receptor listening");
    let connector = start_connector(Protocol::V1, address, &["PORT=127.0.0.1:0"]);
    let all = all_of(&connect(connector.address_of("entrance listening")));
    // Two are reserved by the C library, and cannot be set.
    const LIBRARYS: u64 = 0b11 << 31;
    let of_line = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    let signals: Vec<_> = all.lines().map(|line| of_line(line).map(|s| s & !LIBRARYS)).collect();
    assert_eq!(signals, [Some(0), Some(0)], "{all}");
}
