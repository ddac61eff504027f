//! The command that carries the link (`proc@`): started, its standard error logged, terminated and
//! restarted.
//!
//! Command and link may end in either order. When one ends the other is ended too, and the command
//! is restarted when both have ended. Commands of exits are in [`crate::worker::stream::exec`].

use std::rc::Rc;
use std::time::Duration;

use tracing::{info, warn};

use super::{Connector, LinkSource, State};
use crate::cli::secrets::without_secrets;
use crate::io::command::{RunningCommand, StderrState, describe};
use crate::io::driver::{Driver, Fd};
use crate::io::link::Link;
use crate::io::net;
use crate::limits::{COMMAND_GRACE_MILLIS, COMMAND_LEAVE_MILLIS, COMMAND_NAME_CHARS};
use crate::session::Moment;
use crate::worker::context::log_limit::{Class, LogLimit};
use crate::worker::context::{Cx, Effect};
use crate::worker::token::Kind;

/// A running command.
#[derive(Debug)]
pub(super) struct Carrier {
    command: RunningCommand,
    /// The local end of its standard input and output.
    socket: Fd,
    /// Its standard error is not read until then.
    rests_until: Option<Moment>,
    /// Set once its link has ended: the next step if it does not exit by itself.
    ends: Option<(Moment, Step)>,
}

/// How a command is ended that does not exit by itself.
#[derive(Debug, Clone, Copy)]
enum Step {
    Terminate,
    Kill,
}

impl Carrier {
    /// Logs some of its standard error.
    fn log_stderr(&mut self, name: &str, limit: &mut LogLimit, now: Moment) -> StderrState {
        self.command.read_stderr(|line| {
            if limit.allow(Class::Command, now) {
                info!(command = name, %line, "command said");
            }
        })
    }
}

/// Name of the command in the log.
pub(super) fn name(command: &str) -> String {
    let command = without_secrets(command);
    match command.char_indices().nth(COMMAND_NAME_CHARS) {
        Some((end, _)) => format!("proc@{}...", &command[..end]),
        None => format!("proc@{command}"),
    }
}

impl Connector {
    /// Starts the command; its tunnel begins in the same turn.
    pub(super) fn start_command<D: Driver>(&mut self, cx: &mut Cx<D>) {
        let now = cx.now;
        let LinkSource::Command(command) = &self.source else { return };
        let name = name(command);
        match RunningCommand::start(&cx.watchdog, command) {
            Ok((command, socket)) => {
                info!(link = %name, process = command.process_id(), "command started");
                let socket: Fd = Rc::new(socket);
                let number = self.next_number();
                let events = libc::POLLIN as u32;
                let (exit, stderr) =
                    (Kind::LinkCommandExit.number(number), Kind::LinkCommandStderr.number(number));
                cx.driver.poll(command.pidfd(), events, false, exit);
                cx.driver.poll(command.stderr_fd(), events, false, stderr);
                let link = Link::socket(Rc::clone(&socket), name);
                self.carrier = Some(Carrier { command, socket, rests_until: None, ends: None });
                self.state = State::Up;
                cx.effects.push_back(Effect::LinkUp(link));
            }
            Err(error) => {
                let wait = self.back_off(now);
                warn!(link = %name, %error, wait_secs = wait.as_secs_f32(), "cannot run the command");
            }
        }
    }

    /// The link has ended: schedules the command's termination, with time to exit by itself and
    /// report why. `false`: there is no command.
    pub(super) fn leave_command(&mut self, now: Moment) -> bool {
        let Some(carrier) = &mut self.carrier else { return false };
        let leaves = now.after(Duration::from_millis(COMMAND_LEAVE_MILLIS));
        carrier.ends.get_or_insert((leaves, Step::Terminate));
        true
    }

    /// The command has exited.
    pub(in crate::worker) fn command_exited<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        number: u32,
        drains: bool,
    ) {
        if number != self.number() {
            cx.counters.stale += 1;
            return;
        }
        let Some(carrier) = &mut self.carrier else { return };
        let Some(status) = carrier.command.exited() else {
            let token = Kind::LinkCommandExit.number(number);
            cx.driver.poll(carrier.command.pidfd(), libc::POLLIN as u32, false, token);
            return;
        };
        let name = self.source.to_string();
        // Its remaining output.
        carrier.log_stderr(&name, &mut cx.log_limit, cx.now);
        let (ended, status) = (status.success(), describe(status));
        if ended {
            info!(command = %name, status, "command ended");
        } else {
            warn!(command = %name, status, "command ended");
        }
        cx.driver.cancel_all(carrier.command.stderr_fd());
        let wait = match self.state {
            // Data written before the exit is still read, then the end of data follows, even if a
            // child of the command holds the other end.
            State::Up => {
                net::shut_down(&carrier.socket);
                None
            }
            _ => Some(self.back_off(cx.now)),
        };
        self.carrier = None;
        if let Some(wait) = wait.filter(|_| !drains) {
            info!(wait_secs = wait.as_secs_f32(), "starting the command again");
        }
    }

    /// The standard error of the command is readable, or its pause is over.
    pub(in crate::worker) fn on_command_stderr<D: Driver>(&mut self, cx: &mut Cx<D>, number: u32) {
        let now = cx.now;
        if number != self.number() {
            cx.counters.stale += 1;
            return;
        }
        let name = self.source.to_string();
        let Some(carrier) = &mut self.carrier else { return };
        match carrier.log_stderr(&name, &mut cx.log_limit, now) {
            StderrState::Wait => {
                let token = Kind::LinkCommandStderr.number(number);
                cx.driver.poll(carrier.command.stderr_fd(), libc::POLLIN as u32, false, token);
            }
            StderrState::Rest(rest) => carrier.rests_until = Some(now.after(rest)),
            StderrState::Ended => {}
        }
    }

    /// Runs timers of the command.
    pub(in crate::worker) fn command_on_time<D: Driver>(&mut self, cx: &mut Cx<D>) {
        let now = cx.now;
        let number = self.number();
        let Some(carrier) = &mut self.carrier else { return };
        if let Some((at, step)) = carrier.ends
            && at <= now
        {
            match step {
                Step::Terminate => {
                    carrier.command.end();
                    let grace = now.after(Duration::from_millis(COMMAND_GRACE_MILLIS));
                    carrier.ends = Some((grace, Step::Kill));
                }
                // The exit is reported by its pidfd.
                Step::Kill => {
                    carrier.command.kill();
                    carrier.ends = None;
                }
            }
        }
        if carrier.rests_until.take_if(|until| *until <= now).is_some() {
            self.on_command_stderr(cx, number);
        }
    }

    /// The next deadline of the command.
    pub(in crate::worker) fn command_timeout(&self) -> Option<Moment> {
        let carrier = self.carrier.as_ref()?;
        [carrier.rests_until, carrier.ends.map(|(at, _)| at)].into_iter().flatten().min()
    }

    /// Ends the command at the end of the run.
    pub(in crate::worker) fn finish_command(&mut self) {
        let Some(carrier) = self.carrier.take() else { return };
        net::shut_down(&carrier.socket);
        if let Some(status) = carrier.command.finish() {
            info!(command = %self.source, status = describe(status), "command ended");
        }
    }

    /// The process id of the command, if one runs.
    pub(in crate::worker) fn process(&self) -> Option<u32> {
        self.carrier.as_ref().map(|carrier| carrier.command.process_id())
    }
}
