//! Exits to commands (`exec:`): each stream gets a command of its own on its descriptors 0 and 1,
//! as with inetd. The command that carries the link (`proc@`) is in [`crate::worker::connector`].
//!
//! The socket to a command is a connection like others. This module owns the rest of the process:
//! its standard error and its exit. A command whose stream has ended is terminated, then killed.
//! When a command exits by itself, its stream ends with its socket.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use crate::cli::plan::Caller;
use crate::cli::secrets::without_secrets;
use crate::io::command::{RunningCommand, StderrState, describe};
use crate::io::driver::Driver;
use crate::limits::{
    COMMAND_AT_ONCE_MILLIS, COMMAND_GRACE_MILLIS, COMMAND_LAST_WORDS_BYTES, COMMAND_NAME_CHARS,
    COMMAND_STDERR_BYTES, COMMANDS_MAX,
};
use crate::session::Moment;
use crate::worker::context::Cx;
use crate::worker::context::log_limit::{Class, LogLimit};
use crate::worker::table::{Key, Table};
use crate::worker::token::Kind;

/// A command of a stream.
#[derive(Debug)]
pub(super) struct Exec {
    running: RunningCommand,
    /// The connection of its socket.
    conn: Key,
    client: SocketAddr,
    title: Box<str>,
    began: Moment,
    /// Set after it was asked to terminate: when it is killed.
    kill_at: Option<Moment>,
}

/// All commands of streams.
pub(in crate::worker) struct Execs {
    execs: Table<Exec>,
    /// Commands whose standard error is not read until this time.
    stderr_paused: Vec<(Moment, Key)>,
}

impl Execs {
    pub(super) fn new() -> Execs {
        Execs { execs: Table::new(COMMANDS_MAX), stderr_paused: Vec::new() }
    }

    /// Number of running commands.
    pub(in crate::worker) fn len(&self) -> usize {
        self.execs.len()
    }

    /// Whether a process is one of the commands.
    pub(in crate::worker) fn is_ours(&self, process: u32) -> bool {
        self.execs.iter().any(|(_, exec)| exec.running.process_id() == process)
    }

    /// Starts a command for a client. Returns it with its socket; [`Execs::register`] takes it.
    ///
    /// # Errors
    /// The reason, for the peer.
    pub(super) fn start<D: Driver>(
        &self,
        cx: &Cx<D>,
        command: &str,
        (caller, client): (&Caller, Option<SocketAddr>),
    ) -> Result<(RunningCommand, OwnedFd), String> {
        if self.execs.len() == COMMANDS_MAX {
            return Err(format!("{COMMANDS_MAX} commands run at once already"));
        }
        let environment = environment(caller, client);
        RunningCommand::start_with(&cx.watchdog, command, &environment)
            .map_err(|error| format!("exec:{}: cannot be started: {error}", title(command)))
    }

    /// Registers a running command, whose socket is the connection `conn`.
    pub(super) fn register<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        (running, command): (RunningCommand, &str),
        client: SocketAddr,
        conn: Key,
    ) {
        let title = title(command);
        let process = running.process_id();
        debug!(stream = conn.number(), %client, command = &*title, process, "exit");
        let exec = Exec { running, conn, client, title, began: cx.now, kill_at: None };
        if let Some(key) = self.execs.insert(exec) {
            self.watch_stderr(cx, key);
            if let Some(command) = self.execs.get(key) {
                let token = Kind::ExecExit.of(key);
                cx.driver.poll(command.running.pidfd(), libc::POLLIN as u32, false, token);
            }
        }
    }

    fn watch_stderr<D: Driver>(&self, cx: &mut Cx<D>, key: Key) {
        if let Some(command) = self.execs.get(key) {
            let token = Kind::ExecStderr.of(key);
            cx.driver.poll(command.running.stderr_fd(), libc::POLLIN as u32, false, token);
        }
    }

    /// Logs standard error of a command, within the rate limit.
    pub(in crate::worker) fn on_stderr<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(command) = self.execs.get_mut(key) else {
            cx.counters.stale += 1;
            return;
        };
        match command.log_stderr(&mut cx.log_limit, cx.now) {
            StderrState::Wait => self.watch_stderr(cx, key),
            StderrState::Rest(time) => self.stderr_paused.push((cx.now.after(time), key)),
            StderrState::Ended => {}
        }
    }

    /// Reads standard errors that have rested.
    pub(in crate::worker) fn on_time<D: Driver>(&mut self, cx: &mut Cx<D>) {
        let now = cx.now;
        while let Some(at) = self.stderr_paused.iter().position(|&(until, _)| until <= now) {
            let (_, key) = self.stderr_paused.swap_remove(at);
            if self.execs.get(key).is_some() {
                self.on_stderr(cx, key);
            }
        }
    }

    /// When the next of them has.
    pub(in crate::worker) fn next_timeout(&self) -> Option<Moment> {
        self.stderr_paused.iter().map(|&(until, _)| until).min()
    }

    /// A command has exited.
    ///
    /// `has_stream`: whether its stream is still open.
    pub(super) fn on_exit<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        has_stream: impl Fn(Key) -> bool,
    ) {
        let now = cx.now;
        let Some(command) = self.execs.get_mut(key) else {
            cx.counters.stale += 1;
            return;
        };
        let Some(status) = command.running.exited() else {
            // Not exited yet: the poll ended early.
            let token = Kind::ExecExit.of(key);
            cx.driver.poll(command.running.pidfd(), libc::POLLIN as u32, false, token);
            return;
        };
        for _ in 0..=COMMAND_LAST_WORDS_BYTES / COMMAND_STDERR_BYTES {
            if !matches!(command.log_stderr(&mut cx.log_limit, now), StderrState::Rest(_)) {
                break;
            }
        }
        let at_once = command.began.after(Duration::from_millis(COMMAND_AT_ONCE_MILLIS)) > now;
        // A command whose client has left may report that by its status.
        let wanted = command.kill_at.is_none() && has_stream(command.conn);
        let failed = at_once && wanted && !status.success();
        // Dropped at the end, which reaps it and kills what it has left behind.
        let Some(command) = self.execs.remove(key) else { return };
        cx.driver.cancel_all(command.running.stderr_fd());
        log_end(cx, &command, status, failed);
    }

    /// Terminates commands whose streams have ended.
    pub(super) fn sweep<D: Driver>(&mut self, cx: &mut Cx<D>, has_stream: impl Fn(Key) -> bool) {
        let now = cx.now;
        if self.execs.len() == 0 {
            return;
        }
        let mut due = std::mem::take(&mut cx.scratch);
        due.extend(self.execs.iter().map(|(key, _)| key));
        for key in due.drain(..) {
            let Some(command) = self.execs.get_mut(key) else { continue };
            match command.kill_at {
                None if !has_stream(command.conn) => {
                    command.running.end();
                    let grace = Duration::from_millis(COMMAND_GRACE_MILLIS);
                    command.kill_at = Some(now.after(grace));
                }
                Some(kill_at) if kill_at <= now => command.running.kill(),
                _ => {}
            }
        }
        cx.scratch = due;
    }

    /// Terminates all commands at the end of the process. They share one grace period; the rest is
    /// killed with the worker.
    pub(in crate::worker) fn end_all(&mut self) -> Instant {
        for (_, command) in self.execs.iter() {
            command.running.end();
        }
        Instant::now() + Duration::from_millis(COMMAND_GRACE_MILLIS)
    }

    /// Waits for all commands until then. The rest is killed.
    pub(in crate::worker) fn await_all(&mut self, until: Instant) {
        for (_, command) in self.execs.iter() {
            let left = until.saturating_duration_since(Instant::now());
            command.running.wait(left.as_millis() as u64);
        }
    }
}

impl Exec {
    /// Logs some of its standard error.
    fn log_stderr(&mut self, limit: &mut LogLimit, now: Moment) -> StderrState {
        let (title, process) = (&*self.title, self.running.process_id());
        self.running.read_stderr(|line| {
            if limit.allow(Class::Command, now) {
                info!(command = title, process, %line, "command said");
            }
        })
    }
}

/// The beginning of a command, for the log.
fn title(command: &str) -> Box<str> {
    without_secrets(command).chars().take(COMMAND_NAME_CHARS).collect()
}

fn log_end<D: Driver>(cx: &mut Cx<D>, command: &Exec, status: ExitStatus, failed: bool) {
    let (title, status) = (&*command.title, describe(status));
    let process = command.running.process_id();
    let (stream, client) = (command.conn.number(), command.client);
    if failed && cx.may_log(Class::Refusal) {
        warn!(stream, %client, command = title, process, status, "command failed at once");
    } else {
        debug!(stream, %client, command = title, process, status, "command ended");
    }
}

/// Environment of a command: the client of the stream, as far as the peer has reported it.
fn environment(caller: &Caller, client: Option<SocketAddr>) -> [(&'static str, Option<String>); 3] {
    let client = client.filter(|_| caller.client.is_some());
    [
        ("REMOTE_HOST", client.map(|client| client.ip().to_string())),
        ("REMOTE_PORT", client.map(|client| client.port().to_string())),
        ("LOCAL_PORT", caller.entrance_port.map(|port| port.to_string())),
    ]
}
