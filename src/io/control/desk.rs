//! The process's side: a thread takes requests in and asks the worker, one question at a time.

use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use serde::Serialize;
use tracing::info;

use super::Place;
use crate::control::page::{Ask, Next, Part};
use crate::control::{Answer, Request, Target};
use crate::io::net;
use crate::io::unix::{SocketFile, is_trusted, shown_user};
use crate::limits::{
    ACCEPT_PAUSE_MILLIS, CONTROL_ANSWER_MILLIS, CONTROL_CONNECTIONS_MAX, CONTROL_PAGE_MILLIS,
    CONTROL_REQUEST_BYTES_MAX, CONTROL_REQUEST_MILLIS,
};

/// The byte by which the thread wakes the worker: a question has come. It is no number of a signal.
pub(crate) const WAKE: u8 = b'c';

/// The answer to a question that was given up must not be taken for that to the next.
type Numbered<T> = (u64, T);

/// The worker's end.
#[derive(Debug)]
pub(crate) struct Desk {
    listener: Arc<OwnedFd>,
    /// Removed with the desk.
    _file: SocketFile,
    asks: Receiver<Numbered<Ask>>,
    parts: SyncSender<Numbered<Part>>,
}

impl Desk {
    /// Starts the thread. `wake` gets [`WAKE`] with each question.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(crate) fn open(place: Place, wake: UnixStream) -> io::Result<Desk> {
        let Place { listener, file } = place;
        let listener = Arc::new(listener);
        let (asks_in, asks) = sync_channel(1);
        let (parts, parts_out) = sync_channel(1);
        let attendant =
            Attendant { asks: asks_in, parts: parts_out, wake, number: 0, waiting: Vec::new() };
        let at = Arc::clone(&listener);
        thread::Builder::new().name("control".to_owned()).spawn(move || attendant.attend(&at))?;
        Ok(Desk { listener, _file: file, asks, parts })
    }

    /// The question that has come.
    pub(crate) fn ask(&self) -> Option<(u64, Ask)> {
        self.asks.try_recv().ok()
    }

    /// Answers it.
    pub(crate) fn answer(&self, number: u64, part: Part) {
        // There is room for one, unless the thread has given up the one before.
        let _ = self.parts.try_send((number, part));
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        net::shut_down(&self.listener);
    }
}

/// A connection whose request has not come whole.
#[derive(Debug)]
struct Waiting {
    socket: UnixStream,
    request: Vec<u8>,
    until: Instant,
}

/// What has become of a request.
#[derive(Debug, PartialEq, Eq)]
enum Took {
    /// More is to come.
    Part,
    Whole(String),
    /// It is too long.
    TooLong,
    Gone,
}

/// Why a question has no answer.
const NO_ANSWER: &str = "the process is busy or ending, and has not answered in time; ask again";

/// The thread.
struct Attendant {
    asks: SyncSender<Numbered<Ask>>,
    parts: Receiver<Numbered<Part>>,
    wake: UnixStream,
    /// Of the last question.
    number: u64,
    /// Oldest first.
    waiting: Vec<Waiting>,
}

impl Attendant {
    /// Serves until the socket is closed.
    fn attend(mut self, listener: &OwnedFd) {
        loop {
            let Ok((is_called, ready)) = self.wait(listener) else { return };
            // From the last on, so that the places of the others stay.
            for place in ready.into_iter().rev() {
                match self.waiting[place].take() {
                    Took::Part => {}
                    Took::Gone => drop(self.waiting.remove(place)),
                    Took::TooLong => {
                        let error =
                            format!("a request has {CONTROL_REQUEST_BYTES_MAX} bytes at most");
                        refuse(self.waiting.remove(place).socket, error);
                    }
                    Took::Whole(line) => {
                        let socket = self.waiting.remove(place).socket;
                        // Whoever does not read the answer has given it up.
                        let _ = self.serve(socket, &line);
                    }
                }
            }
            let now = Instant::now();
            self.waiting.retain(|waiting| waiting.until > now);
            if is_called && !self.accept(listener) {
                return;
            }
        }
    }

    /// Waits until something has come: whether somebody has connected, and whose request goes on.
    fn wait(&self, listener: &OwnedFd) -> Result<(bool, Vec<usize>), Errno> {
        let until = self.waiting.iter().map(|waiting| waiting.until).min();
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let all = self.waiting.iter().map(|waiting| waiting.socket.as_fd());
        let all = std::iter::once(listener.as_fd()).chain(all);
        let mut fds: Vec<PollFd<'_>> =
            all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok((false, Vec::new())),
            Err(error) => return Err(error),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let is_called = ready.next() == Some(true);
        Ok((is_called, ready.enumerate().filter_map(|(at, is)| is.then_some(at)).collect()))
    }

    /// Takes one connection in. `false`: nothing listens any more.
    fn accept(&mut self, listener: &OwnedFd) -> bool {
        let socket = match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => socket,
            Err(Errno::INTR | Errno::CONNABORTED | Errno::AGAIN) => return true,
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                thread::sleep(Duration::from_millis(ACCEPT_PAUSE_MILLIS));
                return true;
            }
            Err(_) => return false,
        };
        let user = net::peer_process(&socket).map(|(_, user)| user);
        let socket = UnixStream::from(socket);
        if !is_trusted(user) {
            let error = format!("only our own user and root may ask, not {}", shown_user(user));
            refuse(socket, error);
            return true;
        }
        if self.waiting.len() == CONTROL_CONNECTIONS_MAX {
            self.waiting.remove(0);
        }
        let until = Instant::now() + Duration::from_millis(CONTROL_REQUEST_MILLIS);
        self.waiting.push(Waiting { socket, request: Vec::new(), until });
        true
    }

    /// Answers one request.
    fn serve(&mut self, socket: UnixStream, line: &str) -> io::Result<()> {
        let request = match Request::parse(line) {
            Ok(request) => request,
            Err(error) => return answer(socket, &Answer::Error(error)),
        };
        let answered = match request {
            Request::Status => self.status(),
            Request::Streams => return self.streams(socket),
            Request::Kill(target) => {
                info!(%target, "the control socket is asked to end it");
                self.kill(&target)
            }
            Request::Drain => {
                info!("the control socket is asked to drain");
                self.drain()
            }
        };
        let error = || Answer::Error(NO_ANSWER.to_owned());
        answer(socket, &answered.unwrap_or_else(error))
    }

    /// Asks the worker. `None`: it has ended, or does not answer in time.
    fn ask(&mut self, ask: Ask) -> Option<Part> {
        self.number += 1;
        self.asks.try_send((self.number, ask)).ok()?;
        // It wakes for a byte that is there already, too.
        let _ = self.wake.write_all(&[WAKE]);
        let until = Instant::now() + Duration::from_millis(CONTROL_PAGE_MILLIS);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let (number, part) = self.parts.recv_timeout(left).ok()?;
            if number == self.number {
                return Some(part);
            }
        }
    }

    fn status(&mut self) -> Option<Answer> {
        let Part::Status(mut status) = self.ask(Ask::Status)? else { return None };
        let mut from = Some(0);
        while let Some(slot) = from {
            let Part::Tunnels(rows, next) = self.ask(Ask::Tunnels(slot))? else { return None };
            status.tunnels.extend(rows);
            from = next;
        }
        from = Some(0);
        while let Some(slot) = from {
            let Part::Entrances(rows, next) = self.ask(Ask::Entrances(slot))? else { return None };
            status.entrances.extend(rows);
            from = next;
        }
        // Those of tunnels that have ended are counted by the worker.
        status.totals.bytes_in += status.tunnels.iter().map(|row| row.bytes_in).sum::<u64>();
        status.totals.bytes_out += status.tunnels.iter().map(|row| row.bytes_out).sum::<u64>();
        status.process.pid = std::process::id();
        env!("CARGO_PKG_VERSION").clone_into(&mut status.process.version);
        Some(Answer::Status(status))
    }

    /// Streams are sent page by page: there may be many.
    fn streams(&mut self, socket: UnixStream) -> io::Result<()> {
        let mut from: Next = Some(0);
        let mut out: Option<Rows> = None;
        while let Some(slot) = from {
            let Some(Part::Streams(rows, next)) = self.ask(Ask::Streams(slot)) else {
                return match out {
                    // An answer that ends early is not taken for a whole one.
                    Some(_) => Ok(()),
                    None => answer(socket, &Answer::Error(NO_ANSWER.to_owned())),
                };
            };
            let out = match &mut out {
                Some(out) => out,
                None => out.insert(Rows::begin(socket.try_clone()?)?),
            };
            rows.iter().try_for_each(|row| out.row(row))?;
            from = next;
        }
        out.map_or(Ok(()), Rows::end)
    }

    fn kill(&mut self, target: &Target) -> Option<Answer> {
        let mut ended = 0;
        let mut from = Some(0);
        while let Some(slot) = from {
            let ask = match target {
                Target::Tunnel(number) => Ask::KillTunnel(*number),
                Target::Stream(number) => Ask::KillStream(*number, slot),
                Target::Peer(name) => Ask::KillPeer(name.clone()),
            };
            let Part::Killed(count, next) = self.ask(ask)? else { return None };
            ended += count;
            from = next;
        }
        Some(match (ended, target) {
            (0, _) => {
                Answer::Error(format!("there is no {target} here; status and streams list what is"))
            }
            (count, Target::Peer(name)) => Answer::Done(format!("{count} tunnels of {name} ended")),
            (_, target) => Answer::Done(format!("{target} ended")),
        })
    }

    fn drain(&mut self) -> Option<Answer> {
        let Part::Drains(did) = self.ask(Ask::Drain)? else { return None };
        let text = if did { "the process drains already" } else { "the process drains" };
        Some(Answer::Done(text.to_owned()))
    }
}

impl Waiting {
    /// Takes in what has come.
    fn take(&mut self) -> Took {
        let mut buffer = [0; CONTROL_REQUEST_BYTES_MAX];
        let got = match self.socket.read(&mut buffer) {
            Ok(0) => return Took::Gone,
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Took::Part,
            Err(_) => return Took::Gone,
        };
        self.request.extend_from_slice(&buffer[..got]);
        match self.request.iter().position(|&byte| byte == b'\n') {
            Some(end) if end <= CONTROL_REQUEST_BYTES_MAX => {
                Took::Whole(String::from_utf8_lossy(&self.request[..end]).into_owned())
            }
            None if self.request.len() <= CONTROL_REQUEST_BYTES_MAX => Took::Part,
            _ => Took::TooLong,
        }
    }
}

/// Says why not, as far as the socket takes that at once.
fn refuse(mut socket: UnixStream, error: String) {
    let mut line = serde_json::to_vec(&Answer::Error(error)).unwrap_or_default();
    line.push(b'\n');
    let _ = socket.write(&line);
}

/// Answers whole, for as long as an answer may take.
fn answer(socket: UnixStream, answer: &Answer) -> io::Result<()> {
    let mut out = BufWriter::new(Patient::new(socket)?);
    serde_json::to_writer(&mut out, answer)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// A list that is sent row by row.
struct Rows {
    out: BufWriter<Patient>,
    is_first: bool,
}

impl Rows {
    fn begin(socket: UnixStream) -> io::Result<Rows> {
        let mut out = BufWriter::new(Patient::new(socket)?);
        out.write_all(b"{\"streams\":[")?;
        Ok(Rows { out, is_first: true })
    }

    fn row(&mut self, row: &impl Serialize) -> io::Result<()> {
        if !std::mem::take(&mut self.is_first) {
            self.out.write_all(b",")?;
        }
        Ok(serde_json::to_writer(&mut self.out, row)?)
    }

    fn end(mut self) -> io::Result<()> {
        self.out.write_all(b"]}\n")?;
        self.out.flush()
    }
}

/// Waits for its reader for a while in all.
struct Patient {
    socket: UnixStream,
    until: Instant,
}

impl Patient {
    fn new(socket: UnixStream) -> io::Result<Patient> {
        socket.set_nonblocking(false)?;
        Ok(Patient { socket, until: Instant::now() + Duration::from_millis(CONTROL_ANSWER_MILLIS) })
    }
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.socket.set_write_timeout(Some(left))?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
