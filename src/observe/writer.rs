//! A bounded queue of lines, and the thread that writes them.
//!
//! Logging adds a line to the queue and never blocks. The thread writes whole lines in order. Where
//! writing fails (a full disk, a closed pipe or terminal) or blocks (a reader that does not read),
//! the lines stay queued, and are retried. Lines that find no room in the queue are lost and
//! counted, and the count is written in their place.
//!
//! Standard error may be shared with other programs, so its flags are not changed: it may be
//! non-blocking or not.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::limits::{LOG_AGAIN_MILLIS, LOG_QUEUE_BYTES, LOG_RETRY_MILLIS, LOG_WRITE_BYTES};

/// Where lines are written.
pub(super) trait Sink: Send + 'static {
    /// The descriptor for the next write. `true`: it is another one than before.
    fn descriptor(&mut self) -> (BorrowedFd<'_>, bool);

    /// A write has failed, and is tried again later.
    fn failed(&mut self, _error: &io::Error) {}

    /// A write has succeeded.
    fn wrote(&mut self) {}
}

/// A descriptor that stays what it is.
impl<T: AsFd + Send + 'static> Sink for T {
    fn descriptor(&mut self) -> (BorrowedFd<'_>, bool) {
        (T::as_fd(self), false)
    }
}

/// Queued lines.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    max_bytes: usize,
    /// Signals the thread: there are lines, or the log ends.
    work: Condvar,
    /// Signals those who wait for the thread: it has written everything, or has ended.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    /// Lines lost after those in `lines`.
    lost: u64,
    /// What the thread is to do first.
    errand: Option<Errand>,
    /// The thread waits for `work`.
    idle: bool,
    closing: bool,
    ended: bool,
}

struct Errand(Box<dyn FnOnce() + Send>);

impl fmt::Debug for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an errand")
    }
}

impl Default for Queue {
    fn default() -> Queue {
        Queue::of(LOG_QUEUE_BYTES)
    }
}

impl Queue {
    /// A queue for so many bytes at the most.
    pub(super) fn of(max_bytes: usize) -> Queue {
        let state = Mutex::default();
        Queue { state, max_bytes, work: Condvar::new(), written: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent even after a panic of the thread: a line is added by one call.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a line, or counts it as lost. Never waits for the writing.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        // While lines are being lost, all are, so that the count stands in their place.
        if state.lost > 0 || state.lines.len() + line.len() > self.max_bytes {
            state.lost += 1;
        } else {
            state.lines.extend_from_slice(line);
        }
        if std::mem::take(&mut state.idle) {
            self.work.notify_one();
        }
    }

    /// Has the thread do this before it writes another line. Never waits for that.
    pub(super) fn run(&self, errand: Box<dyn FnOnce() + Send>) {
        let mut state = self.lock();
        state.errand = Some(Errand(errand));
        state.idle = false;
        self.work.notify_one();
    }

    /// Ends the queue, and waits until the last lines are written or the time is over.
    pub(super) fn close(&self, patience: Duration) {
        let mut state = self.lock();
        state.closing = true;
        self.work.notify_one();
        let _ = self.written.wait_timeout_while(state, patience, |state| !state.ended);
    }

    /// Waits until all queued lines are written or the time is over.
    pub(super) fn flush(&self, patience: Duration) {
        let writes = |state: &mut State| !state.idle && !state.ended;
        let _ = self.written.wait_timeout_while(self.lock(), patience, writes);
    }

    /// Waits for lines and exchanges them for `written`, whose memory is reused. Also returns how
    /// many were lost after them. After an errand there may be no lines. `None`: the log has ended.
    fn take(&self, written: &mut Vec<u8>) -> Option<u64> {
        written.clear();
        let mut state = self.lock();
        loop {
            if let Some(Errand(errand)) = state.errand.take() {
                drop(state);
                errand();
                state = self.lock();
                break;
            }
            if !state.lines.is_empty() || state.lost > 0 {
                break;
            }
            if state.closing {
                return None;
            }
            state.idle = true;
            self.written.notify_all();
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle = false;
        std::mem::swap(&mut state.lines, written);
        Some(std::mem::take(&mut state.lost))
    }

    /// Takes the queued lines without waiting.
    pub(super) fn take_now(&self) -> Vec<u8> {
        std::mem::take(&mut self.lock().lines)
    }

    /// Takes what is queued when nothing more is written. Returns the number of lines, lost ones among
    /// them.
    fn abandon(&self) -> u64 {
        let mut state = self.lock();
        let lines = std::mem::take(&mut state.lines);
        count_lines(&lines) + std::mem::take(&mut state.lost)
    }

    /// Waits before another try. The log's end interrupts the wait and allows one more try.
    /// `false`: no more tries.
    fn rest(&self) -> bool {
        let state = self.lock();
        let goes_on = !state.closing;
        let patience = Duration::from_millis(LOG_RETRY_MILLIS);
        let _ = self.work.wait_timeout_while(state, patience, |state| !state.closing);
        goes_on
    }
}

/// The formatter writes each line by one call.
impl Write for &Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the thread that writes the queued lines to `sink`. `lost` is told the number of lost ones, and
/// returns the line that is written in their place, if any.
pub(super) fn start(
    name: &str,
    queue: Arc<Queue>,
    mut sink: impl Sink,
    lost: impl Fn(u64) -> Vec<u8> + Send + 'static,
) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Signals are for the other threads. A write can cause signals that would stop or end the
        // process: SIGTTOU on a terminal whose foreground is another job's, SIGXFSZ at the limit of
        // a file's size. While they are blocked, the write succeeds or fails.
        let _ = SigSet::all().thread_block();
        write_queue(&queue, &mut sink, lost);
        queue.lock().ended = true;
        queue.written.notify_all();
    })?;
    Ok(())
}

fn write_queue(queue: &Queue, sink: &mut impl Sink, lost: impl Fn(u64) -> Vec<u8>) {
    let mut lines = Vec::new();
    while let Some(lost_lines) = queue.take(&mut lines) {
        // An errand may have asked for another one, and there may be no lines for it yet.
        sink.descriptor();
        let left = write_lines(queue, sink, &lines);
        if left.is_empty()
            && lost_lines > 0
            && !write_lines(queue, sink, &lost(lost_lines)).is_empty()
        {
            return;
        }
        if !left.is_empty() {
            lost(count_lines(left) + lost_lines + queue.abandon());
            return;
        }
    }
}

/// Writes all lines, with any number of tries. Returns what cannot be written, since the log ends.
fn write_lines<'a>(queue: &Queue, sink: &mut impl Sink, lines: &'a [u8]) -> &'a [u8] {
    let (mut written, mut blocked) = (0, false);
    while written < lines.len() {
        let (descriptor, is_new) = sink.descriptor();
        if is_new {
            // It begins with a whole line.
            written =
                lines[..written].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        }
        match write_some(&descriptor, whole_lines(&lines[written..]), &mut blocked) {
            // The rest is written first next time.
            Ok(Some(bytes)) => {
                written += bytes;
                sink.wrote();
            }
            Ok(None) => {}
            Err(error) => {
                sink.failed(&error);
                if !queue.rest() {
                    break;
                }
            }
        }
    }
    &lines[written..]
}

fn count_lines(lines: &[u8]) -> u64 {
    lines.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// As many whole lines as are written at once; at least one.
fn whole_lines(lines: &[u8]) -> &[u8] {
    let most = &lines[..lines.len().min(LOG_WRITE_BYTES)];
    let end = most.iter().rposition(|byte| *byte == b'\n').or_else(|| {
        // A longer line is written in one piece all the same.
        lines.iter().position(|byte| *byte == b'\n')
    });
    end.map_or(lines, |end| &lines[..=end])
}

/// Writes a part. `None`: the descriptor accepts nothing, and it was waited for, not for long.
fn write_some(sink: &impl AsFd, bytes: &[u8], blocked: &mut bool) -> io::Result<Option<usize>> {
    loop {
        match rustix::io::write(sink, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                *blocked = false;
                return Ok(Some(written));
            }
            Err(Errno::INTR) => {}
            // The descriptor is non-blocking, as set by another process.
            Err(Errno::AGAIN) => {
                if std::mem::replace(blocked, true) {
                    thread::sleep(Duration::from_millis(LOG_AGAIN_MILLIS));
                }
                let patience = Timespec::try_from(Duration::from_millis(LOG_RETRY_MILLIS)).ok();
                // The next write reports an error of the descriptor.
                let _ = poll(&mut [PollFd::new(sink, PollFlags::OUT)], patience.as_ref());
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes everything, waiting for the reader.
pub(super) fn write_all(sink: &impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    let mut blocked = false;
    while !bytes.is_empty() {
        let written = write_some(sink, bytes, &mut blocked)?.unwrap_or(0);
        bytes = &bytes[written..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::time::Instant;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn line(number: usize) -> String {
        format!("{number:08} {}\n", "x".repeat(number % 200))
    }

    /// Overfills the queue while nothing is read, then reads everything until the end.
    fn stall<R: Read + Send + 'static>(
        sink: impl AsFd + Send + 'static,
        reader: impl FnOnce() -> R,
    ) -> (usize, Vec<String>) {
        let queue = Arc::new(Queue::default());
        let lost = |lines| format!("lost {lines}\n").into_bytes();
        start("log", Arc::clone(&queue), sink, lost).expect("a thread");
        let (mut pushed, begun) = (0, Instant::now());
        while queue.lock().lost < 1_000 {
            assert!(begun.elapsed() < LONG, "the queue takes everything");
            queue.push(line(pushed).as_bytes());
            pushed += 1;
        }
        let mut reader = reader();
        let read = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).expect("text");
            text
        });
        queue.close(LONG);
        assert!(queue.lock().ended);
        let text = read.join().expect("read to the end");
        assert!(text.ends_with('\n'), "the last line is whole");
        (pushed, text.lines().map(str::to_owned).collect())
    }

    fn every_line_is_there_or_counted((pushed, lines): (usize, Vec<String>)) {
        let mut next = 0;
        for got in lines {
            match got.strip_prefix("lost ") {
                Some(lost) => next += lost.parse::<usize>().expect("a count"),
                None => {
                    assert_eq!(format!("{got}\n"), line(next));
                    next += 1;
                }
            }
        }
        assert_eq!(next, pushed);
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_that_are_counted_and_nobodys_time() {
        let (reader, sink) = io::pipe().expect("a pipe");
        every_line_is_there_or_counted(stall(sink, || reader));
    }

    #[test]
    fn a_sink_that_somebody_has_made_non_blocking_is_waited_for() {
        let (reader, sink) = io::pipe().expect("a pipe");
        rustix::io::ioctl_fionbio(&sink, true).expect("a flag");
        every_line_is_there_or_counted(stall(sink, || reader));
    }

    #[test]
    fn a_reader_that_comes_back_finds_every_line_or_its_count() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("fifo");
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, &path, FileType::Fifo, mode, 0).expect("a FIFO");
        let both = File::options().read(true).write(true).open(&path).expect("a FIFO");
        let sink = File::options().write(true).open(&path).expect("a FIFO with a reader");
        drop(both);
        every_line_is_there_or_counted(stall(sink, || File::open(&path).expect("a FIFO")));
    }

    #[test]
    fn the_end_does_not_wait_for_ever() {
        let (reader, sink) = io::pipe().expect("a pipe");
        let queue = Arc::new(Queue::default());
        start("log", Arc::clone(&queue), sink, |_| Vec::new()).expect("a thread");
        queue.push("x".repeat(LOG_QUEUE_BYTES - 1).as_bytes());
        let begun = Instant::now();
        queue.close(Duration::from_millis(50));
        assert!(begun.elapsed() < LONG / 2 && !queue.lock().ended);
        drop(reader);
    }

    #[test]
    fn an_errand_is_done_by_the_thread_before_the_next_line() {
        let (mut reader, sink) = io::pipe().expect("a pipe");
        let errands_sink = sink.try_clone().expect("a pipe");
        let queue = Arc::new(Queue::default());
        start("log", Arc::clone(&queue), sink, |_| Vec::new()).expect("a thread");
        queue.flush(LONG);
        queue.run(Box::new(move || {
            let name = thread::current().name().unwrap_or_default().to_owned();
            write_all(&errands_sink, format!("an errand of {name}\n").as_bytes()).expect("written");
        }));
        queue.push(b"a line\n");
        queue.close(LONG);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        assert_eq!(text, "an errand of log\na line\n");
    }

    #[test]
    fn what_cannot_be_written_does_not_keep_the_end_waiting() {
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        let queue = Arc::new(Queue::default());
        start("log", Arc::clone(&queue), full, |_| Vec::new()).expect("a thread");
        queue.push(b"a line\n");
        queue.close(LONG);
        assert!(queue.lock().ended);
    }

    #[test]
    fn lines_are_written_whole() {
        let lines = "short\n".repeat(LOG_WRITE_BYTES);
        let first = whole_lines(lines.as_bytes());
        assert!(first.len() <= LOG_WRITE_BYTES && first.ends_with(b"\n"));
        let long = format!("{}\nnext\n", "x".repeat(2 * LOG_WRITE_BYTES));
        assert_eq!(whole_lines(long.as_bytes()).len(), 2 * LOG_WRITE_BYTES + 1);
        assert_eq!(whole_lines(b"no end"), b"no end");
    }
}
