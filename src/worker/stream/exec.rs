//! Exits to commands (`exec:`): each stream is given to one of its own, on its descriptors 0 and 1,
//! as inetd does it. The command that carries the tunnel (`proc@`) is in [`crate::worker::tunnel::command`].
//!
//! The socket to a command is a local connection like others. Here is what a process has beyond
//! that: what it writes to its standard error, and its end. A command whose stream has ended is
//! asked to end, then killed; one that has ended leaves its stream to the socket, which ends with
//! it.

use std::net::SocketAddr;
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use crate::cli::plan::Caller;
use crate::io::command::{RunningCommand, StderrState, describe};
use crate::io::driver::Driver;
use crate::limits::{
    COMMAND_AT_ONCE_MILLIS, COMMAND_GRACE_MILLIS, COMMAND_LAST_WORDS_BYTES, COMMAND_NAME_CHARS,
    COMMAND_STDERR_BYTES, COMMANDS_MAX,
};
use crate::policy::seats::Seat;
use crate::session::{Moment, NO_ADDRESS};
use crate::worker::ingress::access::Incoming;
use crate::worker::log_limit::{Class, LogLimit};
use crate::worker::stream::local::Stage;
use crate::worker::token::Kind;
use crate::worker::{Key, Worker};

/// A command that a stream was given to.
#[derive(Debug)]
pub(in crate::worker) struct Exec {
    running: RunningCommand,
    /// The socket to it.
    local: Key,
    client: SocketAddr,
    title: Box<str>,
    began: Moment,
    /// It was asked to end, and is killed then.
    kill_at: Option<Moment>,
}

impl<D: Driver> Worker<D> {
    /// The exit of a stream is a command: starts it.
    pub(in crate::worker) fn open_exec(
        &mut self,
        incoming: &Incoming,
        seat: Option<Seat>,
        command: &str,
    ) {
        let Incoming { tunnel, stream, client, .. } = *incoming;
        let name = client.unwrap_or(NO_ADDRESS);
        if self.execs.len() == COMMANDS_MAX {
            let reason = format!("{COMMANDS_MAX} commands run at once already");
            return self.refuse_stream(tunnel, stream, name, &reason, false);
        }
        let title: Box<str> = command.chars().take(COMMAND_NAME_CHARS).collect();
        let environment = environment(&incoming.caller(), client);
        let (running, socket) =
            match RunningCommand::start_with(&self.watchdog, command, &environment) {
                Ok(started) => started,
                Err(error) => {
                    let reason = format!("exec:{title}: cannot be started: {error}");
                    return self.refuse_stream(tunnel, stream, name, &reason, false);
                }
            };
        let Some(local) = self.begin_exit(incoming, seat, None, Stage::Open) else { return };
        debug!(client = %name, command = &*title, process = running.process_id(), "exit");
        let began = self.cx.now;
        let command = Exec { running, local, client: name, title, began, kill_at: None };
        if let Some(key) = self.execs.insert(command) {
            self.watch_exec(key);
            if let Some(command) = self.execs.get(key) {
                let token = Kind::ExecExit.of(key);
                self.cx.driver.poll(command.running.pidfd(), libc::POLLIN as u32, false, token);
            }
        }
        if let Some(local) = self.locals.get_mut(local) {
            local.fd = Some(Rc::new(socket));
        }
        self.exit_reached(local);
    }

    fn watch_exec(&mut self, key: Key) {
        if let Some(command) = self.execs.get(key) {
            let token = Kind::ExecStderr.of(key);
            self.cx.driver.poll(command.running.stderr_fd(), libc::POLLIN as u32, false, token);
        }
    }

    /// Logs what a command says, no faster than is good for the log.
    pub(in crate::worker) fn exec_said(&mut self, key: Key) {
        let Some(command) = self.execs.get_mut(key) else {
            self.cx.counters.stale += 1;
            return;
        };
        match command.log_stderr(&mut self.cx.log_limit, self.cx.now) {
            StderrState::Wait => self.watch_exec(key),
            StderrState::Rest(time) => self.muted.push((self.cx.now.after(time), key)),
            StderrState::Ended => {}
        }
    }

    /// Reads standard errors that have rested; when the next one has.
    pub(in crate::worker) fn execs_on_time(&mut self) -> Option<Moment> {
        let now = self.cx.now;
        while let Some(at) = self.muted.iter().position(|&(until, _)| until <= now) {
            let (_, key) = self.muted.swap_remove(at);
            if self.execs.get(key).is_some() {
                self.exec_said(key);
            }
        }
        self.muted.iter().map(|&(until, _)| until).min()
    }

    /// A command has ended by itself, or was ended.
    pub(in crate::worker) fn exec_ended(&mut self, key: Key) {
        let now = self.cx.now;
        let Some(command) = self.execs.get_mut(key) else {
            self.cx.counters.stale += 1;
            return;
        };
        let Some(status) = command.running.exited() else {
            // A wait that was cut short.
            let token = Kind::ExecExit.of(key);
            self.cx.driver.poll(command.running.pidfd(), libc::POLLIN as u32, false, token);
            return;
        };
        for _ in 0..=COMMAND_LAST_WORDS_BYTES / COMMAND_STDERR_BYTES {
            if !matches!(command.log_stderr(&mut self.cx.log_limit, now), StderrState::Rest(_)) {
                break;
            }
        }
        let at_once = command.began.after(Duration::from_millis(COMMAND_AT_ONCE_MILLIS)) > now;
        // Whose client has gone may say so by its status.
        let wanted = command.kill_at.is_none() && self.locals.get(command.local).is_some();
        let failed = at_once && wanted && !status.success();
        // Dropped at the end: it is waited for, and what it has left behind is killed.
        let Some(command) = self.execs.remove(key) else { return };
        self.cx.driver.cancel_all(command.running.stderr_fd());
        self.tell_end(&command, status, failed);
    }

    fn tell_end(&mut self, command: &Exec, status: ExitStatus, failed: bool) {
        let (title, status) = (&*command.title, describe(status));
        let process = command.running.process_id();
        let client = command.client;
        if failed && self.cx.may_log(Class::Refusal) {
            warn!(%client, command = title, process, status, "command failed at once");
        } else {
            debug!(%client, command = title, process, status, "command ended");
        }
    }

    /// Ends commands whose streams have ended.
    pub(in crate::worker) fn sweep_execs(&mut self) {
        let now = self.cx.now;
        if self.execs.len() == 0 {
            return;
        }
        let mut due = std::mem::take(&mut self.cx.scratch);
        due.extend(self.execs.iter().map(|(key, _)| key));
        for key in due.drain(..) {
            let Some(command) = self.execs.get_mut(key) else { continue };
            match command.kill_at {
                None if self.locals.get(command.local).is_none() => {
                    command.running.end();
                    let grace = Duration::from_millis(COMMAND_GRACE_MILLIS);
                    command.kill_at = Some(now.after(grace));
                }
                Some(kill_at) if kill_at <= now => command.running.kill(),
                _ => {}
            }
        }
        self.cx.scratch = due;
    }

    /// Asks all commands to end, for the end of the process. All of them together have one time of
    /// grace; what is left then is killed with the worker.
    pub(in crate::worker) fn end_execs(&mut self) -> Instant {
        for (_, command) in self.execs.iter() {
            command.running.end();
        }
        Instant::now() + Duration::from_millis(COMMAND_GRACE_MILLIS)
    }

    /// Waits for them until then. Those that have not ended are killed.
    pub(in crate::worker) fn await_execs(&mut self, until: Instant) {
        for (_, command) in self.execs.iter() {
            let left = until.saturating_duration_since(Instant::now());
            command.running.wait(left.as_millis() as u64);
        }
    }
}

impl Exec {
    pub(in crate::worker) fn process_id(&self) -> u32 {
        self.running.process_id()
    }

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

/// What a command finds in its environment: whose the stream is, as far as the peer has said it.
fn environment(caller: &Caller, client: Option<SocketAddr>) -> [(&'static str, Option<String>); 3] {
    let client = client.filter(|_| caller.client.is_some());
    [
        ("REMOTE_HOST", client.map(|client| client.ip().to_string())),
        ("REMOTE_PORT", client.map(|client| client.port().to_string())),
        ("LOCAL_PORT", caller.entrance_port.map(|port| port.to_string())),
    ]
}
