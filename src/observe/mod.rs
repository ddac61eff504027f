//! The log, on standard error, and the access log.

pub mod access;
mod panics;
mod writer;

use std::env;
use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, dispatcher, warn};

use self::writer::Queue;
use crate::cli::invocation::LogFormat;
use crate::cli::log_level::LogLevel;
use crate::limits::LOG_EXIT_MILLIS;

/// The log of the process on standard error. Logging never blocks and never fails: a separate
/// thread writes the lines, and counts those that it cannot write.
///
/// Dropping it waits until the last lines are written, at most [`LOG_EXIT_MILLIS`]. So does a
/// panic, which is logged as well.
#[derive(Debug)]
pub struct Log {
    queue: Arc<Queue>,
}

impl Log {
    /// Starts the log. The level may be given as the number of `-v`.
    ///
    /// # Errors
    /// When no thread can be created.
    pub fn start(level: impl Into<LogLevel>, format: LogFormat) -> io::Result<Log> {
        let level = match level.into() {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        };
        let style = Style { level, format, colours: colours_are_wanted() };
        let log = Log::on(io::stderr(), move |lines| style.lost(lines))?;
        // A second start (several relays in one process) keeps the first one's log.
        if dispatcher::set_global_default(style.dispatch(Arc::clone(&log.queue))).is_ok() {
            panics::log_all(Arc::clone(&log.queue));
        }
        Ok(log)
    }

    fn on(
        sink: impl AsFd + Send + 'static,
        lost: impl Fn(u64) -> Vec<u8> + Send + 'static,
    ) -> io::Result<Log> {
        let queue = Arc::new(Queue::default());
        writer::start("log", Arc::clone(&queue), sink, lost)?;
        Ok(Log { queue })
    }

    /// Has the log's thread do this before it writes its next line.
    pub fn run(&self, errand: Box<dyn FnOnce() + Send>) {
        self.queue.run(errand);
    }

    /// Appends a line as it is behind the queued ones: the reason for the end of the process.
    pub fn complain(&self, text: &str) {
        self.queue.push(complaint(text).as_bytes());
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // A panic of this thread has waited already.
        let patience_millis = if thread::panicking() { 0 } else { LOG_EXIT_MILLIS };
        self.queue.close(Duration::from_millis(patience_millis));
    }
}

/// Writes to standard error why the process does not start, if there is no log yet. As the log, it
/// does not fail, and waits for a short time only.
pub fn complain(text: &str) {
    match Log::on(io::stderr(), |_| Vec::new()) {
        Ok(log) => log.complain(text),
        // Without a thread, it is tried once here.
        Err(_) => {
            let _ = io::stderr().write_all(complaint(text).as_bytes());
        }
    }
}

/// Prints to standard output, which may be non-blocking. A closed pipe (`| head`) is no failure.
///
/// # Errors
/// The system's error, such as a full disk.
pub fn print(text: &str) -> io::Result<()> {
    match writer::write_all(&io::stdout(), text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

fn complaint(text: &str) -> String {
    format!("sockmux-uring: {text}\n")
}

/// Whether standard error is a terminal with cursor control.
pub(crate) fn stderr_is_a_screen() -> bool {
    io::stderr().is_terminal() && !is_dumb(env::var_os("TERM").as_deref())
}

/// Whether lines are coloured: on a terminal with colours, unless `NO_COLOR` is set (no-color.org).
fn colours_are_wanted() -> bool {
    stderr_is_a_screen() && env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}

fn is_dumb(term: Option<&OsStr>) -> bool {
    term.is_none_or(|term| term.is_empty() || term == "dumb")
}

/// Format of lines.
#[derive(Debug, Clone, Copy)]
struct Style {
    level: LevelFilter,
    format: LogFormat,
    colours: bool,
}

impl Style {
    fn dispatch(self, queue: Arc<Queue>) -> Dispatch {
        let builder = tracing_subscriber::fmt()
            .with_max_level(self.level)
            .with_writer(queue)
            .with_target(false)
            .with_ansi(self.colours)
            // It would be written to standard error.
            .log_internal_errors(false);
        match self.format {
            LogFormat::Text => Dispatch::new(builder.finish()),
            LogFormat::Json => Dispatch::new(builder.json().flatten_event(true).finish()),
        }
    }

    /// The line that reports lost ones. It bypasses the queue, which may be full.
    fn lost(self, lines: u64) -> Vec<u8> {
        let line = Arc::new(Queue::default());
        dispatcher::with_default(&self.dispatch(Arc::clone(&line)), || {
            warn!(lines, "log lines are lost here: the log could not be written for a while");
        });
        line.take_now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dumb_terminal_is_given_no_colours() {
        assert!(is_dumb(Some(OsStr::new("dumb"))) && is_dumb(None));
        assert!(!is_dumb(Some(OsStr::new("xterm-256color"))));
    }

    #[test]
    fn lost_lines_are_told_in_the_logs_own_form() {
        let style = |format| Style { level: LevelFilter::INFO, format, colours: false };
        let text = String::from_utf8(style(LogFormat::Text).lost(7)).expect("text");
        assert!(text.contains(" WARN ") && text.ends_with(" lines=7\n"), "{text}");
        let json: serde_json::Value =
            serde_json::from_slice(&style(LogFormat::Json).lost(7)).expect("JSON");
        assert_eq!((&json["level"], &json["lines"]), (&"WARN".into(), &7.into()));
    }
}
