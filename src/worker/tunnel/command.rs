//! The command that carries the tunnel: started, listened to, ended, and started again.
//!
//! It may end before its link does, or its link before it. Whichever is first, the other follows,
//! and the command is started again when both are over. Commands that streams are given to are in
//! [`crate::worker::stream::exec`].

use std::rc::Rc;
use std::time::Duration;

use tracing::{info, warn};

use crate::io::command::{RunningCommand, StderrState, describe};
use crate::io::driver::{Driver, Fd};
use crate::io::link::Link;
use crate::io::net;
use crate::limits::{COMMAND_GRACE_MILLIS, COMMAND_LEAVE_MILLIS, COMMAND_NAME_CHARS};
use crate::session::{Moment, TunnelError};
use crate::worker::log_limit::{Class, LogLimit};
use crate::worker::token::Kind;
use crate::worker::tunnel::connector::{LinkSource, State};
use crate::worker::{Drain, Worker};

/// A command that was started.
#[derive(Debug)]
pub(in crate::worker) struct Carrier {
    command: RunningCommand,
    /// Our end of its standard input and output.
    socket: Fd,
    /// Its standard error is left alone until then.
    rests_until: Option<Moment>,
    /// Its link is over: what happens to it then, if it does not end by itself.
    ends: Option<(Moment, Step)>,
}

impl Carrier {
    pub(in crate::worker) fn process_id(&self) -> u32 {
        self.command.process_id()
    }
}

/// What ends a command that does not end by itself.
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

/// The command's name for the log.
pub(in crate::worker) fn name(command: &str) -> String {
    match command.char_indices().nth(COMMAND_NAME_CHARS) {
        Some((end, _)) => format!("proc@{}...", &command[..end]),
        None => format!("proc@{command}"),
    }
}

impl<D: Driver> Worker<D> {
    /// Starts the connector's command; a tunnel begins with it.
    pub(in crate::worker) fn start_command(&mut self) {
        let now = self.cx.now;
        let Some(connector) = &mut self.connector else { return };
        let LinkSource::Command(command) = &connector.source else { return };
        let name = name(command);
        match RunningCommand::start(&self.cx.watchdog, command) {
            Ok((command, socket)) => {
                info!(link = %name, process = command.process_id(), "command started");
                let socket: Fd = Rc::new(socket);
                let number = connector.next_number();
                let events = libc::POLLIN as u32;
                let (exit, stderr) =
                    (Kind::LinkCommandExit.number(number), Kind::LinkCommandStderr.number(number));
                self.cx.driver.poll(command.pidfd(), events, false, exit);
                self.cx.driver.poll(command.stderr_fd(), events, false, stderr);
                let link = Link::socket(Rc::clone(&socket), name);
                connector.carrier =
                    Some(Carrier { command, socket, rests_until: None, ends: None });
                connector.state = State::Up;
                self.begin_own_tunnel(link);
            }
            Err(error) => {
                let wait = connector.back_off(now);
                warn!(link = %name, %error, wait_secs = wait.as_secs_f32(), "cannot run the command");
            }
        }
    }

    /// The tunnel through the command is over: so is the command, after a moment in which it may
    /// end by itself and say why. `false`: there is none.
    pub(in crate::worker) fn leave_command(&mut self) -> bool {
        let now = self.cx.now;
        let carrier = self.connector.as_mut().and_then(|connector| connector.carrier.as_mut());
        let Some(carrier) = carrier else { return false };
        let leaves = now.after(Duration::from_millis(COMMAND_LEAVE_MILLIS));
        carrier.ends.get_or_insert((leaves, Step::Terminate));
        true
    }

    /// The command's process has ended.
    pub(in crate::worker) fn command_exited(&mut self, number: u32) {
        let Some(connector) = &mut self.connector else { return };
        if number != connector.number() {
            self.cx.counters.stale += 1;
            return;
        }
        let Some(carrier) = &mut connector.carrier else { return };
        let Some(status) = carrier.command.exited() else {
            let token = Kind::LinkCommandExit.number(number);
            self.cx.driver.poll(carrier.command.pidfd(), libc::POLLIN as u32, false, token);
            return;
        };
        let name = connector.source.to_string();
        // Its last words.
        carrier.log_stderr(&name, &mut self.cx.log_limit, self.cx.now);
        let (ended, status) = (status.success(), describe(status));
        if ended {
            info!(command = %name, status, "command ended");
        } else {
            warn!(command = %name, status, "command ended");
        }
        self.cx.driver.cancel_all(carrier.command.stderr_fd());
        let wait = match connector.state {
            // What it has written before is read; then comes the end of data, even where something
            // that it has started still holds the other end.
            State::Up => {
                net::shut_down(&carrier.socket);
                None
            }
            _ => Some(connector.back_off(self.cx.now)),
        };
        connector.carrier = None;
        if let Some(wait) = wait.filter(|_| self.drain == Drain::No) {
            info!(wait_secs = wait.as_secs_f32(), "starting the command again");
        }
    }

    /// The command has said something on its standard error, or has rested for long enough.
    pub(in crate::worker) fn command_said(&mut self, number: u32) {
        let now = self.cx.now;
        let Some(connector) = &mut self.connector else { return };
        if number != connector.number() {
            self.cx.counters.stale += 1;
            return;
        }
        let name = connector.source.to_string();
        let Some(carrier) = &mut connector.carrier else { return };
        match carrier.log_stderr(&name, &mut self.cx.log_limit, now) {
            StderrState::Wait => {
                let token = Kind::LinkCommandStderr.number(number);
                self.cx.driver.poll(carrier.command.stderr_fd(), libc::POLLIN as u32, false, token);
            }
            StderrState::Rest(rest) => carrier.rests_until = Some(now.after(rest)),
            StderrState::Ended => {}
        }
    }

    /// Does what it is time for; when to ask again.
    pub(in crate::worker) fn command_on_time(&mut self) -> Option<Moment> {
        let now = self.cx.now;
        let connector = self.connector.as_mut()?;
        let number = connector.number();
        let carrier = connector.carrier.as_mut()?;
        if let Some((at, step)) = carrier.ends
            && at <= now
        {
            match step {
                Step::Terminate => {
                    carrier.command.end();
                    let grace = now.after(Duration::from_millis(COMMAND_GRACE_MILLIS));
                    carrier.ends = Some((grace, Step::Kill));
                }
                // That it has ended shows at its descriptor.
                Step::Kill => {
                    carrier.command.kill();
                    carrier.ends = None;
                }
            }
        }
        if carrier.rests_until.take_if(|until| *until <= now).is_some() {
            self.command_said(number);
        }
        let carrier = self.connector.as_ref()?.carrier.as_ref()?;
        [carrier.rests_until, carrier.ends.map(|(at, _)| at)].into_iter().flatten().min()
    }

    /// The end of the run is that of the command.
    pub(in crate::worker) fn finish_command(&mut self) {
        let Some(connector) = &mut self.connector else { return };
        let Some(carrier) = connector.carrier.take() else { return };
        net::shut_down(&carrier.socket);
        if let Some(status) = carrier.command.finish() {
            info!(command = %connector.source, status = describe(status), "command ended");
        }
    }

    /// Why a tunnel is over, in the words that help its user.
    pub(in crate::worker) fn explain(&self, error: &TunnelError) -> String {
        let by_command = self.connector.as_ref().is_some_and(|c| c.carrier.is_some());
        match error {
            TunnelError::HelloTimeout { seconds } if by_command => format!(
                "the command has not answered with a hello in {seconds} s (TIMEOUT=acc): is \
                 sockmux-uring -Fsockmux at its other end?"
            ),
            _ => error.to_string(),
        }
    }
}
