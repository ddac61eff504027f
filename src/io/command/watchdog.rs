#![allow(unsafe_code)]
//! Ends the commands of a relay that has died without a word (SIGKILL, out of memory, an abort).
//!
//! The kernel's parent-death signal reaches the shell alone, and not at all what the shell has
//! started. So a process beside the relay knows the process group of each command. It waits at a
//! socket whose other end is the relay's; once that has gone it sends SIGTERM to all groups, and
//! SIGKILL to what is left of them after [`COMMAND_GRACE_MILLIS`]. What has left its group
//! (`setsid`) has left us, too.
//!
//! One for all commands of a relay, started with the first of them. It is a shell: that is here
//! anyway, where commands are run, needs no part of our memory, and has another name than the relay,
//! so that who kills the relay by its name does not kill it along.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;

use rustix::net::SendFlags;
use rustix::process::Pid;

use super::reset_signals;
use crate::limits::COMMAND_GRACE_MILLIS;

/// Reads `+ GROUP` and `- GROUP`. `$1` is the grace in seconds; the name in `$0` is for ps.
const SCRIPT: &str = r#"trap '' HUP INT QUIT ALRM TERM USR1 USR2 TSTP
all=' '
while read -r what group; do
    case $what in
    +) all="$all$group " ;;
    -) case $all in *" $group "*) all="${all%% $group *} ${all#* $group }" ;; esac ;;
    esac
done
for group in $all; do kill -TERM "-$group"; kill -CONT "-$group"; done
while [ -n "${all# }" ] && [ "$1" -gt 0 ]; do
    sleep 1 || break
    set -- $(($1 - 1))
    left=' '
    for group in $all; do kill -0 "-$group" && left="$left$group "; done
    all=$left
done
for group in $all; do kill -KILL "-$group"; done"#;

/// Its name in a list of processes.
const NAME: &str = "watchdog";

/// Knows the commands that run, and outlives the relay to end them. A handle is held by each command;
/// with the last one it ends.
#[derive(Debug, Clone, Default)]
pub struct Watchdog(Rc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    process: RefCell<Option<Process>>,
    /// Groups that run, for a new process if this one is lost.
    groups: RefCell<Vec<Pid>>,
    /// The process does not know what it should, and a new one is needed.
    lost: Cell<bool>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    /// Shared with the commands that are about to be executed.
    socket: Arc<UnixStream>,
}

impl Process {
    fn start() -> io::Result<Process> {
        let (socket, theirs) = UnixStream::pair()?;
        let mut shell = Command::new("/bin/sh");
        let grace_secs = COMMAND_GRACE_MILLIS.div_ceil(1_000).to_string();
        shell.args(["-c", SCRIPT, NAME, &grace_secs]).process_group(0);
        shell.env_clear().current_dir("/");
        if let Some(path) = std::env::var_os("PATH") {
            shell.env("PATH", path);
        }
        shell.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: `reset_signals` may be called between fork and exec, as it says.
        unsafe { shell.pre_exec(reset_signals) };
        Ok(Process { child: shell.spawn()?, socket: Arc::new(socket) })
    }

    fn tell(&self, what: u8, group: Pid) -> io::Result<()> {
        tell(&self.socket, what, group.as_raw_nonzero().get())
    }
}

/// Nothing is known to it any more, or a new one knows it.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Watchdog {
    /// The socket that a command tells its group by before it is executed ([`tell_own_group`]).
    ///
    /// # Errors
    /// What the system says: no descriptors or no processes are left, or there is no shell.
    pub(super) fn socket(&self) -> io::Result<Arc<UnixStream>> {
        self.look();
        let Shared { process, groups, lost } = &*self.0;
        let mut process = process.borrow_mut();
        if process.is_none() {
            let new = Process::start()?;
            for group in groups.borrow().iter() {
                new.tell(b'+', *group)?;
            }
            *process = Some(new);
            lost.set(false);
        }
        process
            .as_ref()
            .map(|process| Arc::clone(&process.socket))
            .ok_or_else(io::Error::last_os_error)
    }

    /// Looks whether the process is still there: whoever wanted to end something else may have killed
    /// it. The next command starts it again.
    pub fn look(&self) {
        let Shared { process, lost, .. } = &*self.0;
        let mut process = process.borrow_mut();
        let has_ended = |process: &mut Process| !matches!(process.child.try_wait(), Ok(None));
        if lost.get() || process.as_mut().is_some_and(has_ended) {
            *process = None;
        }
    }

    /// Its number, if it runs: it is no command.
    pub fn process(&self) -> Option<u32> {
        self.0.process.borrow().as_ref().map(|process| process.child.id())
    }

    /// A command runs, and has told its group itself.
    pub(super) fn began(&self, group: Pid) {
        self.0.groups.borrow_mut().push(group);
    }

    /// A command could not be executed after it had told its group perhaps.
    pub(super) fn failed(&self) {
        self.0.lost.set(true);
    }

    /// A command is about to be waited for: its group's number may then be another's.
    pub(super) fn ended(&self, group: Pid) {
        let Shared { process, groups, lost } = &*self.0;
        groups.borrow_mut().retain(|&other| other != group);
        let told = process.borrow().as_ref().map_or(Ok(()), |process| process.tell(b'-', group));
        if told.is_err() {
            // One that knows a number too many is worse than none.
            *process.borrow_mut() = None;
            lost.set(true);
        }
    }
}

/// Tells the watchdog at the other end of `socket` the group of the calling process, which leads it.
/// May be called between fork and exec: one system call, nothing allocated, no lock.
pub(super) fn tell_own_group(socket: &UnixStream) -> io::Result<()> {
    tell(socket, b'+', rustix::process::getpid().as_raw_nonzero().get())
}

/// Sends `what GROUP` without waiting: a watchdog that does not read is of no use.
fn tell(socket: &UnixStream, what: u8, group: i32) -> io::Result<()> {
    // The number from its end: a formatter might allocate.
    let mut line = [b'\n'; 16];
    let (mut at, mut rest) = (line.len() - 1, group.unsigned_abs());
    while rest > 0 {
        at -= 1;
        line[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    (line[at - 2], line[at - 1]) = (what, b' ');
    let line = &line[at - 2..];
    match rustix::net::send(socket, line, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)? {
        sent if sent == line.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}
