//! The access log: a line for each stream at its end, in a file of its own.
//!
//! It is written as the log is, by a thread with a bounded queue. The file is opened before the process
//! is fenced in, and again when it was rotated ([`AccessLog::reopen`]).

use std::fmt::Write;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::Errno;
use tracing::{info, warn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::writer::{self, Queue, Sink};
use crate::cli::access_log::AccessLogPlan;
use crate::cli::invocation::LogFormat;
use crate::limits::{ACCESS_QUEUE_BYTES, LOG_EXIT_MILLIS};

/// An access log that is open, and not written yet.
#[derive(Debug)]
pub struct OpenedAccessLog {
    file: OwnedFd,
    /// A file that can be opened anew.
    path: Option<PathBuf>,
    format: LogFormat,
}

impl OpenedAccessLog {
    /// Opens the access log of a plan.
    ///
    /// # Errors
    /// The system's error.
    pub fn open(plan: &AccessLogPlan) -> io::Result<OpenedAccessLog> {
        let format = plan.format;
        let Some(path) = &plan.file else {
            let file = io::stdout().as_fd().try_clone_to_owned()?;
            return Ok(OpenedAccessLog { file, path: None, format });
        };
        let file = match append_to(path) {
            // A FIFO that nobody reads yet: with a reader of our own it can be written, as far as it
            // has room.
            Err(Errno::NXIO) => open(path, FLAGS | OFlags::RDWR, Mode::empty())?,
            opened => opened?,
        };
        let is_file = FileType::from_raw_mode(fstat(&file)?.st_mode) == FileType::RegularFile;
        Ok(OpenedAccessLog { file, path: is_file.then(|| path.clone()), format })
    }

    /// Starts the thread that writes.
    ///
    /// # Errors
    /// When no thread can be created.
    pub fn start(self) -> io::Result<RunningAccessLog> {
        let queue = Arc::new(Queue::of(ACCESS_QUEUE_BYTES));
        let (wanted, is_file) = (Arc::new(AtomicBool::new(false)), self.path.is_some());
        let log = AccessLog { queue, format: self.format, reopen: Arc::clone(&wanted), is_file };
        let sink = AccessFile { file: self.file, path: self.path, reopen: wanted, failing: false };
        writer::start("access-log", Arc::clone(&log.queue), sink, |lines| {
            warn!(lines, "access log lines are lost: it could not be written");
            Vec::new()
        })?;
        Ok(RunningAccessLog(log))
    }
}

/// An access log that is written until this is dropped, which waits for the last lines, at most
/// [`LOG_EXIT_MILLIS`].
#[derive(Debug)]
pub struct RunningAccessLog(AccessLog);

impl RunningAccessLog {
    /// A handle to it.
    pub fn handle(&self) -> AccessLog {
        self.0.clone()
    }
}

impl Drop for RunningAccessLog {
    fn drop(&mut self) {
        self.0.queue.close(Duration::from_millis(LOG_EXIT_MILLIS));
    }
}

/// A handle to the access log.
#[derive(Debug, Clone)]
pub struct AccessLog {
    queue: Arc<Queue>,
    format: LogFormat,
    reopen: Arc<AtomicBool>,
    is_file: bool,
}

impl AccessLog {
    /// Queues a line. Never waits for the writing.
    pub fn write(&self, entry: &Entry<'_>) {
        self.queue.push(entry.line(self.format).as_bytes());
    }

    /// Has the file opened anew, which the thread does and logs. `false`: it is none.
    pub fn reopen(&self) -> bool {
        if self.is_file {
            self.reopen.store(true, Ordering::Relaxed);
            // Wakes the thread.
            self.queue.run(Box::new(|| {}));
        }
        self.is_file
    }
}

/// Where the lines go.
struct AccessFile {
    file: OwnedFd,
    path: Option<PathBuf>,
    reopen: Arc<AtomicBool>,
    /// The last write has failed.
    failing: bool,
}

const FLAGS: OFlags = OFlags::CLOEXEC.union(OFlags::NOCTTY).union(OFlags::NONBLOCK);

fn append_to(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = FLAGS | OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE;
    open(path, flags, Mode::RUSR | Mode::WUSR | Mode::RGRP)
}

impl Sink for AccessFile {
    fn descriptor(&mut self) -> (BorrowedFd<'_>, bool) {
        let mut is_new = false;
        if self.reopen.swap(false, Ordering::Relaxed)
            && let Some(path) = &self.path
        {
            let file = path.display();
            match append_to(path) {
                Ok(opened) => {
                    info!(%file, "SIGHUP: the access log is opened anew");
                    self.file = opened;
                    is_new = true;
                }
                Err(error) => {
                    let error = error.to_string();
                    warn!(%file, error, "SIGHUP: the access log cannot be opened anew, and goes on as before");
                }
            }
        }
        (self.file.as_fd(), is_new)
    }

    fn failed(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.failing, true) {
            warn!(%error, "the access log cannot be written, and is tried again each second");
        }
    }

    fn wrote(&mut self) {
        self.failing = false;
    }
}

/// What a line has. `None` is unknown, or does not apply.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// `stream`, `flow` or `pair`.
    pub kind: &'static str,
    /// The number of the tunnel, as in the log.
    pub tunnel: Option<u32>,
    /// The number of the stream, flow or pair, as in the log.
    pub number: Option<u32>,
    /// The name of the peer.
    pub peer: Option<&'a str>,
    /// The client.
    pub client: Option<&'a str>,
    /// `entrance` or `exit`: what of the stream is in this process.
    pub side: &'static str,
    /// The address of the entrance, or the name of the exit.
    pub place: Option<&'a str>,
    /// The server.
    pub server: Option<&'a str>,
    /// From client to server.
    pub up_bytes: u64,
    /// From server to client.
    pub down_bytes: u64,
    /// From its begin to its end.
    pub duration: Duration,
    /// How it ended.
    pub end: Option<&'static str>,
    /// Who ended it.
    pub by: Option<&'static str>,
    /// The reason, in words.
    pub reason: Option<&'a str>,
}

impl Entry<'_> {
    /// The line, with its end.
    fn line(&self, format: LogFormat) -> String {
        let mut line = String::with_capacity(256);
        // Writing to a text cannot fail.
        let _ = match format {
            LogFormat::Text => self.text(&mut line),
            LogFormat::Json => self.json(&mut line),
        };
        line.push('\n');
        line
    }

    fn text(&self, line: &mut String) -> std::fmt::Result {
        SystemTime.format_time(&mut Writer::new(line))?;
        write!(line, " {}", self.kind)?;
        for number in [self.tunnel, self.number] {
            match number {
                Some(number) => write!(line, " {number}")?,
                None => line.push_str(" -"),
            }
        }
        for value in [self.peer, self.client, Some(self.side), self.place, self.server] {
            line.push(' ');
            word(line, value)?;
        }
        let secs = self.duration.as_secs_f64();
        write!(line, " {} {} {secs:.3} ", self.up_bytes, self.down_bytes)?;
        write!(line, "{} {} ", self.end.unwrap_or("-"), self.by.unwrap_or("-"))?;
        match self.reason {
            Some(reason) => line.push_str(&json(reason)),
            None => line.push('-'),
        }
        Ok(())
    }

    fn json(&self, line: &mut String) -> std::fmt::Result {
        line.push_str("{\"timestamp\":\"");
        SystemTime.format_time(&mut Writer::new(line))?;
        write!(line, "\",\"kind\":\"{}\"", self.kind)?;
        for (name, number) in [("tunnel", self.tunnel), ("number", self.number)] {
            match number {
                Some(number) => write!(line, ",\"{name}\":{number}")?,
                None => write!(line, ",\"{name}\":null")?,
            }
        }
        let strings = |line: &mut String, pairs: &[(&str, Option<&str>)]| {
            pairs.iter().try_for_each(|(name, value)| {
                let value = value.map_or_else(|| String::from("null"), json);
                write!(line, ",\"{name}\":{value}")
            })
        };
        strings(
            line,
            &[
                ("peer", self.peer),
                ("client", self.client),
                ("side", Some(self.side)),
                ("place", self.place),
                ("server", self.server),
            ],
        )?;
        let secs = self.duration.as_secs_f64();
        let (up, down) = (self.up_bytes, self.down_bytes);
        write!(line, ",\"up_bytes\":{up},\"down_bytes\":{down},\"secs\":{secs:.3}")?;
        strings(line, &[("end", self.end), ("by", self.by), ("reason", self.reason)])?;
        line.push('}');
        Ok(())
    }
}

/// A text as one word: what would part it, or end the line, is `%` and two digits.
fn word(line: &mut String, value: Option<&str>) -> std::fmt::Result {
    for c in value.filter(|value| !value.is_empty()).unwrap_or("-").chars() {
        match c {
            ' ' | '"' | '%' | '\\' => write!(line, "%{:02X}", u32::from(c))?,
            _ if c.is_control() || c.is_whitespace() => {
                let mut bytes = [0; 4];
                c.encode_utf8(&mut bytes)
                    .bytes()
                    .try_for_each(|byte| write!(line, "%{byte:02X}"))?;
            }
            _ => line.push(c),
        }
    }
    Ok(())
}

/// A text between quotes, as in JSON.
fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: Entry<'_> = Entry {
        kind: "stream",
        tunnel: Some(3),
        number: Some(17),
        peer: Some("spoke a"),
        client: Some("192.0.2.7:5000"),
        side: "exit",
        place: Some("unix:/a b"),
        server: None,
        up_bytes: 1,
        down_bytes: 2,
        duration: Duration::from_millis(1_500),
        end: Some("refused"),
        by: Some("here"),
        reason: Some("it says \"no\"\nand more"),
    };

    #[test]
    fn a_line_of_text_has_each_field_in_its_place() {
        let line = ENTRY.line(LogFormat::Text);
        let (time, rest) = line.split_once(' ').expect("a time");
        assert!(time.ends_with('Z') && time.len() == 27, "{time}");
        let wanted = "stream 3 17 spoke%20a 192.0.2.7:5000 exit unix:/a%20b - 1 2 1.500 refused here \
                      \"it says \\\"no\\\"\\nand more\"\n";
        assert_eq!(rest, wanted);
        let unknown =
            Entry { tunnel: None, number: None, end: None, by: None, reason: None, ..ENTRY };
        assert!(unknown.line(LogFormat::Text).ends_with(" 1.500 - - -\n"));
    }

    #[test]
    fn a_line_of_json_has_each_field_by_its_name() {
        let line = Entry { peer: None, ..ENTRY }.line(LogFormat::Json);
        let json: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!((&json["kind"], &json["number"]), (&"stream".into(), &17.into()));
        assert_eq!((&json["secs"], &json["peer"]), (&1.5.into(), &serde_json::Value::Null));
        assert_eq!(json["reason"], "it says \"no\"\nand more");
        assert_eq!(line.matches('\n').count(), 1);
    }
}
