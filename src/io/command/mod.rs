#![allow(unsafe_code)]
//! A command that carries the persistent connection (`SERVER="sockmux:proc@COMMAND"`), or that a
//! stream is given to (`SERVER="exec:COMMAND,-in"`).
//!
//! - **Words**: COMMAND is given to `/bin/sh -c` as it is: quotes, variables, pipes and `exec` mean
//!   what they mean there. Its directory is ours.
//! - **Environment**: of ours only `KEPT_VARIABLES` and `LC_*`. The rest may have secrets in it, and
//!   the paths to some; a command talks to whoever comes in.
//! - **Standard input and output** of the command are one stream socket (`AF_UNIX`) to us. Between
//!   the commands of a pipeline the shell makes pipes of its own.
//! - **Standard error** is a pipe to us. Its lines are for our log; they are bounded in length, the
//!   log bounds those of all commands in number, and a command that floods it is read no faster than [`COMMAND_STDERR_BYTES`] each
//!   [`COMMAND_STDERR_REST_MILLIS`], and waits.
//! - **Signals** are at their defaults and none is blocked, whatever we ignore or were started to
//!   ignore. The command and whatever it starts are a process group of their own, which is not the
//!   one of the terminal: a password cannot be typed there.
//! - **Its end**: SIGTERM to the group, SIGKILL to what is left of it. When we die without a word,
//!   the [`Watchdog`] does that.

mod orphans;
mod stderr;
mod watchdog;

use std::io::{self, PipeReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, getppid, kill_process_group,
    pidfd_open, set_parent_process_death_signal, waitid,
};
use tracing::warn;

pub use self::orphans::reap;
pub use self::stderr::Line;
use self::stderr::Lines;
pub use self::watchdog::Watchdog;
use super::driver::Fd;
use crate::limits::{
    COMMAND_GRACE_MILLIS, COMMAND_REAP_MILLIS, COMMAND_STDERR_BYTES, COMMAND_STDERR_REST_MILLIS,
};

/// Variables of our environment that each command has too, if they are set.
const KEPT_VARIABLES: [&str; 9] =
    ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR"];

/// Those that a command which carries the persistent connection has besides: by what ssh logs in.
const LINK_VARIABLES: [&str; 2] = ["SSH_AUTH_SOCK", "KRB5CCNAME"];

/// A command that was started. Dropped, nothing of it is left: what still runs is killed.
///
/// To be started and dropped by one thread that lives as long: the kernel ends the command with the
/// thread that started it.
#[derive(Debug)]
pub struct RunningCommand {
    child: Child,
    group: Pid,
    watchdog: Watchdog,
    pidfd: Fd,
    stderr: Fd,
    lines: Lines,
    buffer: Box<[u8]>,
    /// How it ended, once that was seen. It is waited for at the drop only: until then no other
    /// process and no other group has its number.
    ended: Option<ExitStatus>,
}

/// What to do until standard error is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StderrState {
    /// Nothing is there: wait until it can be read.
    Wait,
    /// Read again after this long, whether or not there is something.
    Rest(Duration),
    /// It was closed: do not read it again.
    Ended,
}

impl RunningCommand {
    /// Runs a command that carries the persistent connection, and gives our end of the socket that is
    /// its standard input and output (non-blocking).
    ///
    /// # Errors
    /// What the system says: no descriptors or no processes are left.
    pub fn start(watchdog: &Watchdog, command: &str) -> io::Result<(RunningCommand, OwnedFd)> {
        let of_link = LINK_VARIABLES.map(|name| (name, std::env::var(name).ok()));
        RunningCommand::start_with(watchdog, command, &of_link)
    }

    /// Runs any command so, with these variables in its environment; those without a value are not
    /// there, whatever ours has.
    ///
    /// # Errors
    /// As of [`RunningCommand::start`].
    pub fn start_with(
        watchdog: &Watchdog,
        command: &str,
        environment: &[(&str, Option<String>)],
    ) -> io::Result<(RunningCommand, OwnedFd)> {
        match RunningCommand::try_start(watchdog, command, environment) {
            // The watchdog was killed just now; there is another for the next attempt.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)) => {
                RunningCommand::try_start(watchdog, command, environment)
            }
            started => started,
        }
    }

    fn try_start(
        watchdog: &Watchdog,
        command: &str,
        environment: &[(&str, Option<String>)],
    ) -> io::Result<(RunningCommand, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (stderr, their_stderr) = io::pipe()?;
        rustix::io::ioctl_fionbio(&stderr, true)?;
        let known_by = watchdog.socket()?;
        let child = spawn(command, environment, (theirs.into(), their_stderr.into()), known_by)
            .inspect_err(|_| watchdog.failed())?;
        let running = RunningCommand::follow(child, watchdog, stderr)?;
        Ok((running, ours.into()))
    }

    fn follow(
        mut child: Child,
        watchdog: &Watchdog,
        stderr: PipeReader,
    ) -> io::Result<RunningCommand> {
        let group = Pid::from_child(&child);
        watchdog.began(group);
        match pidfd_open(group, PidfdFlags::empty()) {
            Ok(pidfd) => Ok(RunningCommand {
                child,
                group,
                watchdog: watchdog.clone(),
                pidfd: Rc::new(pidfd),
                stderr: Rc::new(stderr.into()),
                lines: Lines::new(),
                buffer: vec![0; COMMAND_STDERR_BYTES].into_boxed_slice(),
                ended: None,
            }),
            Err(error) => {
                let _ = kill_process_group(group, Signal::KILL);
                watchdog.ended(group);
                child.wait()?;
                Err(error.into())
            }
        }
    }

    /// The number of the process and of its group, for the log.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Can be read as soon as [`RunningCommand::exited`] has something to say, and for ever then.
    pub fn pidfd(&self) -> &Fd {
        &self.pidfd
    }

    /// Can be read as soon as [`RunningCommand::read_stderr`] has something to do.
    pub fn stderr_fd(&self) -> &Fd {
        &self.stderr
    }

    /// How the command ended, if it did. What it left behind in its group is asked to end; it is
    /// killed when this is dropped.
    ///
    /// Read the standard error once more then: its last words are there.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), options).ok()??;
            self.ended = Some(match status.terminating_signal() {
                Some(signal) => ExitStatus::from_raw(signal),
                None => ExitStatus::from_raw(status.exit_status().unwrap_or_default() << 8),
            });
            self.end();
        }
        self.ended
    }

    /// Reads what is there of standard error, at most [`COMMAND_STDERR_BYTES`], and gives each line
    /// of it to `tell`, escaped where it is no text and cut where it is long. How many are logged is
    /// for the caller to decide.
    pub fn read_stderr(&mut self, mut tell: impl FnMut(Line<'_>)) -> StderrState {
        let read = loop {
            match rustix::io::read(&*self.stderr, &mut *self.buffer) {
                Err(rustix::io::Errno::INTR) => {}
                read => break read,
            }
        };
        match read {
            Ok(0) => {
                self.lines.finish(&mut tell);
                StderrState::Ended
            }
            Ok(bytes) => {
                self.lines.add(&self.buffer[..bytes], &mut tell);
                // After little as after much: single bytes come by the hundred thousand a second.
                StderrState::Rest(Duration::from_millis(COMMAND_STDERR_REST_MILLIS))
            }
            Err(rustix::io::Errno::AGAIN) => StderrState::Wait,
            // A pipe has no errors of its own.
            Err(_) => StderrState::Ended,
        }
    }

    /// Asks the command and all of its group to end. The caller gives them
    /// [`COMMAND_GRACE_MILLIS`], then comes [`RunningCommand::kill`].
    pub fn end(&self) {
        self.signal(Signal::TERM);
        // One that was stopped would not see it.
        self.signal(Signal::CONT);
    }

    /// Ends the command and all of its group.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Ends the command and waits until it has ended, for the end of the process: by SIGTERM, and by
    /// SIGKILL after [`COMMAND_GRACE_MILLIS`].
    pub fn finish(mut self) -> Option<ExitStatus> {
        self.end();
        self.wait(COMMAND_GRACE_MILLIS);
        self.exited()
    }

    fn signal(&self, signal: Signal) {
        // Until it is waited for, the group has its number to itself. It has gone when the command
        // has left it (setsid) with all that was in it.
        let _ = kill_process_group(self.group, signal);
    }

    /// True when the command ended in this time.
    pub fn wait(&self, millis: u64) -> bool {
        let until = Instant::now() + Duration::from_millis(millis);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let mut ended = [PollFd::new(&*self.pidfd, PollFlags::IN)];
            match poll(&mut ended, Timespec::try_from(left).ok().as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                ready => return ready.is_ok_and(|ready| ready > 0),
            }
        }
    }
}

impl Drop for RunningCommand {
    fn drop(&mut self) {
        self.kill();
        self.watchdog.ended(self.group);
        if self.wait(COMMAND_REAP_MILLIS) {
            let _ = self.child.wait();
        } else {
            // In the kernel, on a file system that does not answer.
            warn!(process = self.child.id(), "the command does not end, although killed");
        }
    }
}

/// As `exit status 255` or `killed by signal 9 (SIGKILL)`.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => match signal_hook::low_level::signal_name(signal) {
            Some(name) => format!("killed by signal {signal} ({name})"),
            None => format!("killed by signal {signal}"),
        },
        // Only a status that was not one of an end has neither.
        (None, None) => status.to_string(),
    }
}

fn spawn(
    command: &str,
    environment: &[(&str, Option<String>)],
    (socket, stderr): (OwnedFd, OwnedFd),
    known_by: Arc<UnixStream>,
) -> io::Result<Child> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).process_group(0).env_clear();
    let is_kept = |name: &str| KEPT_VARIABLES.contains(&name) || name.starts_with("LC_");
    shell.envs(std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_kept)));
    for (name, value) in environment {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    shell.stdin(socket.try_clone()?).stdout(socket).stderr(Stdio::from(stderr));
    let parent = getpid();
    let before_exec = move || {
        reset_signals()?;
        // Should somebody kill the watchdog first, the shell at least goes with us.
        set_parent_process_death_signal(Some(Signal::TERM))?;
        // Had we died before that, nothing would come any more.
        if getppid() != Some(parent) {
            return Err(rustix::io::Errno::SRCH.into());
        }
        // By the command itself: whoever kills us now does not find one that nobody knows.
        watchdog::tell_own_group(&known_by)
    };
    // SAFETY: between fork and exec only what is safe in a signal handler may be called. These are
    // system calls, which allocate nothing and take no lock; neither does an error of a number.
    unsafe { shell.pre_exec(before_exec) };
    shell.spawn()
}

/// Sets every signal to its default and lets all of them come, for a process of another program.
/// Handlers of ours end with exec by themselves; what is ignored would go on to be.
///
/// May be called between fork and exec: system calls, nothing allocated, no lock.
fn reset_signals() -> io::Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        // Those that cannot be set (SIGKILL, SIGSTOP, and two of the C library's) are refused.
        // SAFETY: no handler is set; this process has one thread and is about to be another program.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

#[cfg(test)]
mod tests;
