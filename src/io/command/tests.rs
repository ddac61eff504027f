use std::io::{Read, Write};
use std::thread;

use super::*;
use crate::narrow::micros;

/// Longest that anything here may take.
const DEADLINE: Duration = Duration::from_secs(10);

fn start(command: &str) -> (RunningCommand, UnixStream) {
    let (running, socket) =
        RunningCommand::start(&Watchdog::default(), command).expect("it starts");
    let socket = UnixStream::from(socket);
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    (running, socket)
}

/// The status once the pidfd says that there is one.
fn status(running: &mut RunningCommand) -> String {
    assert!(running.wait(micros(DEADLINE) / 1_000), "it does not end");
    describe(running.exited().expect("the pidfd says so"))
}

/// Reads all of standard error; how often it was read, and for how long in all.
fn read_all(running: &mut RunningCommand, told: &mut Vec<String>) -> (u32, Duration) {
    let (began, mut reads) = (Instant::now(), 0);
    loop {
        assert!(began.elapsed() < DEADLINE, "standard error does not end");
        reads += 1;
        match running.read_stderr(|line| told.push(line.to_string())) {
            StderrState::Ended => return (reads, began.elapsed()),
            StderrState::Rest(rest) => thread::sleep(rest),
            StderrState::Wait => {
                let mut ready = [PollFd::new(&*running.stderr, PollFlags::IN)];
                poll(&mut ready, None).unwrap();
            }
        }
    }
}

/// Nothing of the command is left: the last one that held the socket has gone.
fn gone(socket: &mut UnixStream) {
    assert_eq!(socket.read(&mut [0]).expect("it is gone"), 0);
}

#[test]
fn standard_input_and_output_are_the_socket() {
    let (mut running, mut socket) = start("cat; echo done");
    socket.write_all(b"through the command").unwrap();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "through the commanddone\n");
    assert_eq!(status(&mut running), "exit status 0");
}

#[test]
fn the_shell_reads_the_words() {
    let (_running, mut socket) = start("A='b  c'; printf %s \"$A\" | tr b x");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "x  c");
}

#[test]
fn the_end_is_told_with_the_last_words() {
    let (mut running, mut socket) = start("echo no way >&2; exit 255");
    assert_eq!(status(&mut running), "exit status 255");
    assert_eq!(status(&mut running), "exit status 255");
    let mut told = Vec::new();
    read_all(&mut running, &mut told);
    assert_eq!(told, ["no way"]);
    assert_eq!(socket.read(&mut [0]).unwrap(), 0);

    let (mut running, _socket) = start("kill -9 $$");
    assert_eq!(status(&mut running), "killed by signal 9 (SIGKILL)");
    let (mut running, _socket) = start("no-such-command-anywhere");
    assert_eq!(status(&mut running), "exit status 127");
}

#[test]
fn one_that_runs_has_not_exited() {
    let (mut running, _socket) = start("exec sleep 1000");
    assert_eq!(running.exited(), None);
    assert_eq!(running.read_stderr(|line| panic!("{line}")), StderrState::Wait);
    running.end();
    assert_eq!(status(&mut running), "killed by signal 15 (SIGTERM)");
}

#[test]
fn a_flood_of_errors_is_read_slowly() {
    // 2 MiB in lines of 64 bytes.
    let line = "x".repeat(63);
    let (mut running, _socket) = start(&format!("yes {line} | head -c 2097152 >&2"));
    let mut told = Vec::new();
    let (reads, time) = read_all(&mut running, &mut told);
    assert_eq!(status(&mut running), "exit status 0");
    assert!(time > Duration::from_millis(1_900), "2 MiB in {time:?}");
    // One after each rest, and those that find the end.
    assert!(u128::from(reads) <= time.as_millis() / 16 + 2, "{reads} reads in {time:?}");
    assert!(told.iter().all(|told| *told == line));
    assert_eq!(told.len(), 32_768);
}

#[test]
fn one_that_ignores_to_be_asked_is_killed() {
    let (running, mut socket) = start("trap '' TERM; echo ready; sleep 1000; sleep 1000");
    let mut ready = [0; 6];
    socket.read_exact(&mut ready).unwrap();
    running.end();
    assert!(!running.wait(50), "it should ignore SIGTERM");
    let began = Instant::now();
    assert_eq!(running.finish(), None);
    assert!(began.elapsed() >= Duration::from_millis(COMMAND_GRACE_MILLIS));
    gone(&mut socket);
}

#[test]
fn what_it_started_ends_with_it() {
    let (running, mut socket) = start("(trap '' TERM; echo ready; sleep 1000) & wait");
    let mut ready = [0; 6];
    socket.read_exact(&mut ready).unwrap();
    assert_eq!(running.finish().map(describe).as_deref(), Some("killed by signal 15 (SIGTERM)"));
    gone(&mut socket);

    // Left behind by a command that ended by itself.
    let (mut running, mut socket) = start("trap '' TERM; sleep 1000 & echo ready");
    socket.read_exact(&mut ready).unwrap();
    assert_eq!(status(&mut running), "exit status 0");
    drop(running);
    gone(&mut socket);
}

#[test]
fn a_stopped_one_ends_too() {
    let (mut running, mut socket) = start("echo ready; kill -STOP $$; sleep 1000");
    let mut ready = [0; 6];
    socket.read_exact(&mut ready).unwrap();
    running.end();
    assert_eq!(status(&mut running), "killed by signal 15 (SIGTERM)");
}

#[test]
fn it_ends_with_the_thread_that_started_it() {
    let starter = thread::spawn(|| {
        let (running, socket) =
            RunningCommand::start(&Watchdog::default(), "exec sleep 1000").unwrap();
        let pidfd = running.pidfd.try_clone().unwrap();
        // As if killed: nothing is said to the command.
        std::mem::forget(running);
        (pidfd, socket)
    });
    let (pidfd, _socket) = starter.join().unwrap();
    let ended = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
    assert_eq!(ended.terminating_signal(), Some(Signal::TERM.as_raw()));
}
