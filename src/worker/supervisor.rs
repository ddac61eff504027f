//! Reports to the service manager (`Type=notify`): that the process is ready, or stopping, a line of status, and
//! that the loop turns. Each is one datagram, sent when something has changed, and waits for nobody.

use std::fmt::Write;
use std::process;
use std::time::Duration;

use crate::cli::invocation::Ready;
use crate::io::notify::Notifier;
use crate::limits::{NOTIFY_AGAIN_MILLIS, STATUS_MILLIS};
use crate::session::Moment;

/// What is reported.
#[derive(Debug, Clone, Copy)]
pub(super) struct State {
    /// The old process accepts no more, if there is one.
    pub(super) accepts: bool,
    /// The process has tunnels; else the line of status says nothing.
    pub(super) has_tunnels: bool,
    /// Number of tunnels that are up.
    pub(super) up: usize,
    /// Counts changes of that.
    pub(super) changes: u64,
    /// Streams that a drain waits for, while there is one.
    pub(super) draining: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Starting,
    Ready,
    Stopping,
    /// A successor has taken over, and reports. This process only shows that it turns: each may have a
    /// watchdog of its own.
    Left,
}

/// A service manager, and what it has been told.
#[derive(Debug)]
pub(super) struct Supervisor {
    notifier: Notifier,
    ready: Ready,
    /// The old process was the one that the manager knows.
    has_taken_over: bool,
    stage: Stage,
    /// Changes that the last status has seen.
    told: Option<(u64, bool)>,
    /// Something is to be told from then on.
    due: Option<Moment>,
    /// Next status at the earliest.
    next_status: Moment,
    /// Next try at the earliest, after one that found no room.
    not_before: Moment,
    /// When to show that the loop turns, and how often.
    watchdog: Option<(Moment, Duration)>,
}

impl Supervisor {
    pub(super) fn new(notifier: Notifier, ready: Ready, has_taken_over: bool) -> Supervisor {
        let watchdog = notifier.watchdog().map(|time| (Moment(0), time / 2));
        Supervisor {
            notifier,
            ready,
            has_taken_over,
            stage: Stage::Starting,
            told: None,
            due: None,
            next_status: Moment(0),
            not_before: Moment(0),
            watchdog,
        }
    }

    /// A successor has taken over.
    pub(super) fn leave(&mut self) {
        (self.stage, self.due) = (Stage::Left, None);
    }

    pub(super) fn next_timeout(&self) -> Option<Moment> {
        self.due.into_iter().chain(self.watchdog.map(|(at, _)| at)).min()
    }

    /// Reports what has changed. `suspended` counts tunnels without a connection, when it is asked.
    pub(super) fn report(&mut self, now: Moment, state: &State, suspended: impl FnOnce() -> usize) {
        if let Some((at, every)) = &mut self.watchdog
            && *at <= now
        {
            // One that finds no room comes again in half the time that the manager allows.
            self.notifier.send("WATCHDOG=1");
            *at = now.after(*every);
        }
        if self.stage == Stage::Left {
            return;
        }
        let stage = self.next_stage(state);
        let mark = (state.changes, state.draining.is_some());
        if stage == self.stage && self.told == Some(mark) {
            self.due = None;
            return;
        }
        // Another stage waits for no status.
        let status_at = if stage == self.stage { self.next_status } else { Moment(0) };
        let at = status_at.max(self.not_before);
        if now < at {
            self.due = Some(at);
        } else if self.notifier.send(&self.message(stage, state, suspended)) {
            (self.stage, self.told, self.due) = (stage, Some(mark), None);
            self.next_status = now.after(Duration::from_millis(STATUS_MILLIS));
        } else {
            self.not_before = now.after(Duration::from_millis(NOTIFY_AGAIN_MILLIS));
            self.due = Some(self.not_before);
        }
    }

    fn next_stage(&self, state: &State) -> Stage {
        let is_ready = state.accepts && (self.ready == Ready::Ports || state.up > 0);
        match self.stage {
            _ if state.draining.is_some() => Stage::Stopping,
            Stage::Starting if is_ready => Stage::Ready,
            stage => stage,
        }
    }

    fn message(&self, stage: Stage, state: &State, suspended: impl FnOnce() -> usize) -> String {
        let mut message = String::new();
        if stage != self.stage {
            match stage {
                Stage::Ready => message.push_str("READY=1\n"),
                Stage::Stopping => message.push_str("STOPPING=1\n"),
                Stage::Starting | Stage::Left => {}
            }
            if stage == Stage::Ready && self.has_taken_over {
                // Writing to a string cannot fail.
                let _ = writeln!(message, "MAINPID={}", process::id());
            }
        }
        message.push_str("STATUS=");
        message.push_str(&status(state, suspended));
        message
    }
}

/// The line that `systemctl status` shows.
fn status(state: &State, suspended: impl FnOnce() -> usize) -> String {
    if let Some(streams) = state.draining {
        return match streams {
            0 => String::from("draining"),
            1 => String::from("draining: 1 stream is open"),
            streams => format!("draining: {streams} streams are open"),
        };
    }
    if !state.has_tunnels {
        return String::from("clients are served");
    }
    let mut line = match state.up {
        0 => String::from("no tunnel is up"),
        1 => String::from("1 tunnel is up"),
        up => format!("{up} tunnels are up"),
    };
    match suspended() {
        0 => {}
        1 => line.push_str(", 1 waits for another connection"),
        waiting => {
            let _ = write!(line, ", {waiting} wait for another connection");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_one_line_about_tunnels_or_about_the_drain() {
        let state = State { accepts: true, has_tunnels: true, up: 0, changes: 0, draining: None };
        for (state, suspended, wanted) in [
            (state, 0, "no tunnel is up"),
            (state, 1, "no tunnel is up, 1 waits for another connection"),
            (State { up: 1, ..state }, 0, "1 tunnel is up"),
            (State { up: 3, ..state }, 2, "3 tunnels are up, 2 wait for another connection"),
            (State { has_tunnels: false, ..state }, 0, "clients are served"),
            (State { draining: Some(0), ..state }, 1, "draining"),
            (State { draining: Some(1), ..state }, 0, "draining: 1 stream is open"),
            (State { draining: Some(7), ..state }, 0, "draining: 7 streams are open"),
        ] {
            assert_eq!(status(&state, || suspended), wanted);
        }
    }
}
