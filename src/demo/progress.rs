//! The demo's progress: one line that is overwritten on a terminal, else a line for each phase.

use std::io::{self, Write};

use crate::observe;

/// Progress on standard error. Failing to show it is no failure of the demo.
#[derive(Debug)]
pub(super) struct Progress {
    phases: usize,
    done: usize,
    terminal: bool,
}

impl Progress {
    /// Progress through `phases` phases.
    pub(super) fn new(phases: usize) -> Self {
        Progress { phases, done: 0, terminal: observe::stderr_is_a_screen() }
    }

    /// The next phase begins.
    pub(super) fn phase(&mut self, what: &str) {
        self.done += 1;
        let line = format!("[{}/{}] {what}", self.done, self.phases);
        let mut stderr = io::stderr().lock();
        let _ = if self.terminal {
            write!(stderr, "\r\x1b[K{line} ...").and_then(|()| stderr.flush())
        } else {
            writeln!(stderr, "{line}")
        };
    }
}

impl Drop for Progress {
    /// Leaves an empty line for the next output, the table or an error.
    fn drop(&mut self) {
        if self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
