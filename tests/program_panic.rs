//! A panic behind the log: it is logged, and ends the process in any state of its log.
//!
//! Nothing from outside makes the program panic, so this is a program of its own: it starts itself
//! again, starts the log as the real one does, and panics.

// Of a crate of its own, `pub` reaches no further than it.
#[path = "testkit/pipes.rs"]
#[allow(unreachable_pub)]
mod pipes;

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use pipes::full_pipe;
use serde_json::Value;
use sockmux_uring::cli::invocation::LogFormat;
use sockmux_uring::limits::LOG_EXIT_MILLIS;
use sockmux_uring::observe::Log;

/// Which panic this process is to have.
const PANIC: &str = "SOCKMUX_TEST_PANIC";
/// The message of the panic.
const REASON: &str = "the first line\nand the second";
/// For a process to start and end on a busy machine, beside the time that its log may take.
const SLACK: Duration = Duration::from_secs(3);

fn main() {
    match std::env::var(PANIC).as_deref() {
        Err(_) => {
            a_panic_is_logged_in_one_line_and_exits_with_101();
            a_panic_that_cannot_unwind_is_logged_before_the_abort();
            a_panic_ends_the_process_while_the_logs_reader_stands_still();
        }
        Ok("text") => panics_behind(LogFormat::Text),
        Ok("abort") => {
            let _log = Log::start(0, LogFormat::Json).expect("a thread");
            cannot_unwind();
        }
        Ok(_) => panics_behind(LogFormat::Json),
    }
}

fn panics_behind(format: LogFormat) {
    let _log = Log::start(0, format).expect("a thread");
    panic!("{REASON}");
}

extern "C" fn cannot_unwind() {
    panic!("{REASON}");
}

/// The exit status and run time of a process with this panic and standard error.
fn ended_by(panic: &str, stderr: impl Into<Stdio>) -> (ExitStatus, Duration) {
    let mut program = Command::new(std::env::current_exe().expect("this program"));
    program.env(PANIC, panic).env_remove("RUST_BACKTRACE").stderr(stderr);
    let begun = Instant::now();
    let mut child = program.spawn().expect("it starts");
    loop {
        match child.try_wait().expect("a child") {
            Some(status) => return (status, begun.elapsed()),
            None if begun.elapsed() < Duration::from_secs(30) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            None => {
                child.kill().expect("it still runs");
                panic!("a panic ({panic}) does not end the process");
            }
        }
    }
}

/// The same, with its output.
fn said_by(panic: &str) -> (ExitStatus, String) {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let (status, _) = ended_by(panic, writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("text");
    (status, text)
}

fn check_event(line: &str) {
    let event: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    assert_eq!((&event["level"], &event["reason"]), (&"ERROR".into(), &REASON.into()), "{line}");
    let location = event["location"].as_str().unwrap_or_default();
    assert!(location.starts_with(file!()), "{line}");
    assert_eq!(event["thread"], "main", "{line}");
}

fn a_panic_is_logged_in_one_line_and_exits_with_101() {
    let (status, json) = said_by("json");
    assert_eq!(status.code(), Some(101));
    check_event(&json);
    let (status, text) = said_by("text");
    assert_eq!(status.code(), Some(101));
    assert_eq!(text.lines().count(), 1, "{text}");
    let reason = format!("reason={REASON:?}");
    for part in [" ERROR ", &reason, file!()] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
}

fn a_panic_that_cannot_unwind_is_logged_before_the_abort() {
    let (status, json) = said_by("abort");
    assert_eq!(status.signal(), Some(rustix::process::Signal::ABORT.as_raw()));
    check_event(json.lines().next().unwrap_or_default());
}

fn a_panic_ends_the_process_while_the_logs_reader_stands_still() {
    let (_reader, writer) = full_pipe();
    let (status, took) = ended_by("json", writer);
    assert_eq!(status.code(), Some(101));
    assert!(took < Duration::from_millis(LOG_EXIT_MILLIS) + SLACK, "it took {took:?}");
}
