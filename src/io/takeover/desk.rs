//! The old process's side: a thread waits for a successor, so that the loop waits for nobody, and asks
//! the worker for the sockets and for its end.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags, accept_with, shutdown};
use tracing::{info, warn};

use super::{
    END, HELLO, Handed, IS_ASKED, IS_OURS, LISTENER, Line, RECORD_BYTES_MAX, REFUSED, SOCKET,
    TAKEN, VERSION, YOURS, is_trusted, shown,
};
use crate::io::net;
use crate::io::unix::SocketFile;
use crate::limits::{ACCEPT_PAUSE_MILLIS, TAKEOVER_READY_MILLIS};

/// The byte by which the thread wakes the worker: a request has come. It is no number of a signal.
pub(crate) const WAKE: u8 = b't';

/// What the worker is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Duplicates of its listening sockets, which a successor may take until the next request.
    Sockets,
    /// The successor has those with these numbers and is ready: to leave them to it, and to drain. The
    /// answer is the end of the [`Desk`].
    Leave(Vec<u16>),
    /// The successor has failed: to go on.
    GoOn,
}

/// What the worker answers.
#[derive(Debug)]
pub(crate) enum Reply {
    Sockets {
        offers: Vec<Handed>,
        /// A tunnel is up, so that clients of entrances are served.
        has_tunnel: bool,
    },
    /// Why there are none.
    Failed(io::Error),
    Done,
}

/// Where a successor comes to.
#[derive(Debug)]
pub(crate) struct Desk {
    listener: Arc<OwnedFd>,
    file: SocketFile,
    requests: Receiver<Request>,
    replies: SyncSender<Reply>,
}

impl Desk {
    /// Starts the thread. `wake` gets [`WAKE`] with each request.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(crate) fn open(listener: OwnedFd, file: SocketFile, wake: UnixStream) -> io::Result<Desk> {
        socket2::SockRef::from(&listener).set_nonblocking(false)?;
        let listener = Arc::new(listener);
        let (asks, requests) = channel();
        let (replies, answers) = sync_channel(1);
        let (at, worker) = (Arc::clone(&listener), Attendant { asks, answers, wake });
        let name = String::from("takeover");
        thread::Builder::new().name(name).spawn(move || worker.attend(&at))?;
        Ok(Desk { listener, file, requests, replies })
    }

    /// The next request.
    pub(crate) fn request(&self) -> Option<Request> {
        self.requests.try_recv().ok()
    }

    /// Answers the last request.
    pub(crate) fn reply(&self, reply: Reply) {
        // There is one request at a time, and room for its answer.
        let _ = self.replies.try_send(reply);
    }

    /// Nobody can take over any more; who tries finds no socket there.
    pub(crate) fn close(self) {
        net::shut_down(&self.listener);
    }

    /// The place is the successor's. It is told so when this is dropped.
    pub(crate) fn leave(&self) {
        self.file.leave();
    }
}

/// The thread.
struct Attendant {
    asks: Sender<Request>,
    answers: Receiver<Reply>,
    wake: UnixStream,
}

impl Attendant {
    /// Serves one successor after the other, until one has taken over or the socket is closed.
    fn attend(mut self, listener: &OwnedFd) {
        loop {
            match accept_with(listener, SocketFlags::CLOEXEC) {
                Ok(socket) => {
                    let patience = Duration::from_millis(TAKEOVER_READY_MILLIS);
                    let line = Line::new(socket, patience);
                    if line.is_ok_and(|line| self.serve(listener, &line) == Next::Ends) {
                        return;
                    }
                }
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    thread::sleep(Duration::from_millis(ACCEPT_PAUSE_MILLIS));
                }
                Err(_) => return,
            }
        }
    }

    /// `None`: the worker has ended, or has left its sockets to the successor.
    fn ask(&mut self, request: Request) -> Option<Reply> {
        self.asks.send(request).ok()?;
        // It wakes for a byte that is there already, too.
        let _ = self.wake.write_all(&[WAKE]);
        self.answers.recv().ok()
    }

    fn serve(&mut self, listener: &OwnedFd, line: &Line) -> Next {
        if let Err(reason) = greet(line) {
            refuse(line, &reason);
            return Next::GoesOn;
        }
        let (offers, has_tunnel) = match self.ask(Request::Sockets) {
            Some(Reply::Sockets { offers, has_tunnel }) => (offers, has_tunnel),
            Some(Reply::Failed(error)) => {
                refuse(line, &format!("it cannot hand its sockets over: {error}"));
                return Next::GoesOn;
            }
            _ => return Next::Ends,
        };
        info!(sockets = offers.len(), "a new process is taking over");
        let handed_over = hand_over(line, listener, &offers);
        let ended = handed_over.and_then(|()| line.send(&[END, u8::from(has_tunnel)], None));
        let taken = ended.and_then(|()| taken(line));
        drop(offers);
        match taken {
            // It may have failed since.
            Ok(taken) if !line.has_hung_up() => {
                self.ask(Request::Leave(taken));
                // If that does not reach it, it has ended, after it was ready.
                let _ = line.send(&[YOURS], None);
                return Next::Ends;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let secs = TAKEOVER_READY_MILLIS / 1000;
                refuse(
                    line,
                    &format!("it goes on, since the new one was not ready within {secs} s"),
                );
            }
            _ => warn!("the new process has failed: going on"),
        }
        match self.ask(Request::GoOn) {
            Some(_) => Next::GoesOn,
            None => Next::Ends,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    GoesOn,
    Ends,
}

/// Who comes, and whether it speaks as we do.
fn greet(line: &Line) -> Result<(), String> {
    let user = line.user();
    if !is_trusted(user) {
        return Err(format!("the new process is of {}", shown(user)));
    }
    let mut record = [0; 64];
    let got = line.receive(&mut record).map_or(0, |(bytes, _)| bytes);
    match record[..got].strip_prefix(HELLO) {
        Some([VERSION]) => Ok(()),
        Some([other, ..]) => Err(format!(
            "it hands over by version {VERSION}, and the new process takes over by version {other}"
        )),
        _ => Err("what came is no request to hand over".to_owned()),
    }
}

/// Says why not. What the other has sent is not read: it would take that for our end.
fn refuse(line: &Line, reason: &str) {
    warn!(reason, "no new process may take over");
    let record = [&[REFUSED], reason.as_bytes()].concat();
    let _ = line.send(&record, None);
    let _ = shutdown(&line.0, Shutdown::Read);
    let mut rest = [0; 64];
    while line.receive(&mut rest).is_ok() {}
}

fn hand_over(line: &Line, listener: &OwnedFd, offers: &[Handed]) -> io::Result<()> {
    line.send(&[LISTENER], Some(listener.as_fd()))?;
    for Handed { fd, is_ours, is_asked } in offers {
        let traits = IS_OURS * u8::from(*is_ours) + IS_ASKED * u8::from(*is_asked);
        line.send(&[SOCKET, traits], Some(fd.as_fd()))?;
    }
    Ok(())
}

/// The numbers of those that the successor has taken, when it is ready.
fn taken(line: &Line) -> io::Result<Vec<u16>> {
    let mut record = vec![0; RECORD_BYTES_MAX];
    let (bytes, _) = line.receive(&mut record)?;
    match record[..bytes].split_first() {
        Some((&TAKEN, numbers)) => {
            Ok(numbers.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect())
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
