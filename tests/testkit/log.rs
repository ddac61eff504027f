//! The standard error of a child process, read by a thread and awaited by tests.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The lines so far, and whether there may be more.
#[derive(Default)]
struct Lines {
    events: Vec<Value>,
    ended: bool,
}

/// A growing log. Lines that are not JSON are kept as JSON strings.
#[derive(Default)]
pub struct Log {
    lines: Mutex<Lines>,
    grown: Condvar,
}

impl Log {
    /// Reads `source` to its end on a thread of its own.
    pub fn follow(source: impl Read + Send + 'static) -> Arc<Log> {
        let log = Arc::new(Log::default());
        let ours = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(source).split(b'\n').map_while(Result::ok) {
                let event = serde_json::from_slice(&line)
                    .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&line).into_owned()));
                ours.lines.lock().unwrap().events.push(event);
                ours.grown.notify_all();
            }
            ours.lines.lock().unwrap().ended = true;
            ours.grown.notify_all();
        });
        log
    }

    /// Every line so far.
    pub fn events(&self) -> Vec<Value> {
        self.lines.lock().unwrap().events.clone()
    }

    /// Waits until `find` gives something for the lines so far. `None`: the deadline passed, or
    /// the child closed its standard error without it.
    pub fn wait_for<T>(
        &self,
        deadline: Duration,
        find: impl Fn(&[Value]) -> Option<T>,
    ) -> Option<T> {
        let end = Instant::now() + deadline;
        let mut lines = self.lines.lock().unwrap();
        loop {
            if let Some(found) = find(&lines.events) {
                return Some(found);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || lines.ended {
                return None;
            }
            lines = self.grown.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Waits until the child has closed its standard error. False when it has not in time.
    pub fn wait_end(&self, deadline: Duration) -> bool {
        let lines = self.lines.lock().unwrap();
        let (lines, _) =
            self.grown.wait_timeout_while(lines, deadline, |lines| !lines.ended).unwrap();
        lines.ended
    }

    /// The log as text, for a failed test's output.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for event in &self.lines.lock().unwrap().events {
            match event {
                Value::String(line) => text.push_str(line),
                event => text.push_str(&event.to_string()),
            }
            text.push('\n');
        }
        text
    }
}
