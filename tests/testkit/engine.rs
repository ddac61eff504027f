//! The engine of the programs under test: the environment variable `SOCKMUX_TEST_ENGINE` of the tests
//! is `uring` (the default), `epoll`, or `refused`, where a seccomp filter forbids io_uring to the
//! program, as containers do, and it has to fall back by itself.

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::process::{Child, Command};
use std::thread;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Names the engine for a whole run of tests.
const VARIABLE: &str = "SOCKMUX_TEST_ENGINE";

/// The option of the program.
pub const OPTION: &str = "--engine";

/// How the programs under test are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leg {
    /// No option is given, and io_uring is available.
    Uring,
    /// The option for epoll is given.
    Epoll,
    /// No option is given, and io_uring is refused.
    Refused,
}

impl Leg {
    /// That of this run.
    pub fn current() -> Leg {
        match env::var(VARIABLE).as_deref() {
            Err(env::VarError::NotPresent) | Ok("uring") => Leg::Uring,
            Ok("epoll") => Leg::Epoll,
            Ok("refused") => Leg::Refused,
            other => panic!("{VARIABLE} is {other:?}: it must be uring, epoll or refused"),
        }
    }

    /// The engine that a program started by [`spawn`](Leg::spawn) must report.
    pub fn engine(self) -> &'static str {
        match self {
            Leg::Uring => "io_uring",
            Leg::Epoll | Leg::Refused => "epoll",
        }
    }

    /// The words that it adds. A refusal is inherited by the programs that a program starts.
    pub fn words(self) -> Vec<&'static str> {
        match self {
            Leg::Uring | Leg::Refused => Vec::new(),
            Leg::Epoll => vec![OPTION, "epoll"],
        }
    }

    /// Starts a command of the program with the words or the filter of the leg.
    pub fn spawn(self, command: &mut Command) -> io::Result<Child> {
        match self {
            Leg::Uring => command.spawn(),
            Leg::Epoll => command.args(self.words()).spawn(),
            Leg::Refused => spawn_refused(command),
        }
    }
}

/// Starts a command to which io_uring is refused as Docker's default profile does.
pub fn spawn_refused(command: &mut Command) -> io::Result<Child> {
    let calls = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
    spawn_without(command, &calls, libc::EPERM)
}

/// Starts a command that gets this error for these system calls.
pub fn spawn_without(command: &mut Command, calls: &[i64], error: i32) -> io::Result<Child> {
    let filter = filter(calls, error);
    // A filter holds for the thread that installs it and for the processes that it starts.
    thread::scope(|scope| {
        let begun = scope.spawn(|| {
            seccompiler::apply_filter(&filter).expect("a seccomp filter can be installed");
            command.spawn()
        });
        begun.join().expect("the thread that starts the program")
    })
}

fn filter(calls: &[i64], error: i32) -> BpfProgram {
    let rules: BTreeMap<_, _> = calls.iter().map(|call| (*call, Vec::new())).collect();
    let here = env::consts::ARCH.try_into().expect("an architecture that seccompiler knows");
    let refuse = SeccompAction::Errno(error as u32);
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, here)
        .and_then(BpfProgram::try_from)
        .expect("a sound filter")
}
