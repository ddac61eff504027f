//! The new process's side: it is handed the sockets, and says when it is ready.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing::info;

use super::desk::WAKE;
use super::{
    END, HELLO, Handed, IS_ASKED, IS_OURS, LISTENER, Line, RECORD_BYTES_MAX, REFUSED, SOCKET,
    TAKEN, TakeoverError, VERSION, YOURS, is_trusted, shown,
};
use crate::io::unix::{self, SocketFile};
use crate::limits::{LISTEN_AGAIN_MILLIS, LISTENERS_MAX, TAKEOVER_ANSWER_MILLIS};

const NO_ANSWER: &str = "stop it, then start this one again";

/// Whom there is to take over from, and where the next one takes over.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) listener: OwnedFd,
    pub(crate) file: SocketFile,
    pub(crate) predecessor: Option<Predecessor>,
}

/// The process that listens until this one is ready.
#[derive(Debug)]
pub(crate) struct Predecessor {
    path: PathBuf,
    line: Line,
    /// It has a tunnel.
    pub(crate) has_tunnel: bool,
    /// Whether what it has handed over is ours alone, the files of its Unix sockets too.
    is_over: Arc<AtomicBool>,
}

/// Asks whoever listens at `path` for its sockets. If nobody does, listens there.
///
/// # Errors
/// [`TakeoverError`] with the remedy.
pub(crate) fn begin(path: &Path) -> Result<(Place, Vec<Handed>), TakeoverError> {
    let failed = |error: &io::Error| {
        TakeoverError::new(path, format!("cannot listen there: {error}"), remedy(error))
    };
    let until = Instant::now() + Duration::from_millis(TAKEOVER_ANSWER_MILLIS);
    loop {
        match unix::connect_for_records(path) {
            Ok(socket) => {
                if let Some(taken) = ask(path, socket)? {
                    return Ok(taken);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if is_nobody(&error) => match unix::listen_for_records(path, 0o600) {
                Ok((listener, file)) => {
                    return Ok((Place { listener, file, predecessor: None }, Vec::new()));
                }
                // Another one that has just been started.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(failed(&error)),
            },
            Err(error) => return Err(failed(&error)),
        }
        if Instant::now() >= until {
            let what = "whoever listens there does not answer";
            return Err(TakeoverError::new(path, what, NO_ANSWER));
        }
        thread::sleep(Duration::from_millis(LISTEN_AGAIN_MILLIS));
    }
}

/// Nobody listens: there is nothing, or what a process left behind that was killed.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOENT) => "make its directory first",
        Some(libc::EACCES | libc::EPERM) => {
            "start this process as the user that the old one was started as, or as root, and let that \
             user write to the directory"
        }
        Some(libc::EPROTOTYPE) => "it is another program's socket: take another path",
        _ if error.kind() == io::ErrorKind::AlreadyExists => "it is no socket: take another path",
        _ => "see the message of the system",
    }
}

/// Asks one process. `None`: it is ending.
fn ask(path: &Path, socket: OwnedFd) -> Result<Option<(Place, Vec<Handed>)>, TakeoverError> {
    let failed = |error: &io::Error| {
        let what = match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => "there are not enough descriptors".to_owned(),
            _ => format!("its sockets could not be received: {error}"),
        };
        TakeoverError::new(path, what, "raise the limit of open files (ulimit -n), or stop it")
    };
    let line = Line::new(socket, Duration::from_millis(TAKEOVER_ANSWER_MILLIS));
    let line = line.map_err(|error| failed(&error))?;
    let user = line.user();
    if !is_trusted(user) {
        let what = format!("whoever listens there is {}, neither ours nor root", shown(user));
        return Err(TakeoverError::new(path, what, "take a path that only our user can make"));
    }
    // An error is that of a process which has gone, and so is what is read then.
    let _ = line.send(&[HELLO, &[VERSION]].concat(), None);
    let mut record = vec![0; RECORD_BYTES_MAX];
    let (mut listener, mut sockets) = (None, Vec::new());
    let has_tunnel = loop {
        let (bytes, fd) = match line.receive(&mut record) {
            Ok(got) => got,
            Err(error) if has_gone(&error) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let what = "whoever listens there does not answer";
                return Err(TakeoverError::new(path, what, NO_ANSWER));
            }
            Err(error) => return Err(failed(&error)),
        };
        match (&record[..bytes], fd) {
            ([LISTENER], Some(fd)) => listener = Some(fd),
            ([SOCKET, traits], Some(fd)) if sockets.len() < LISTENERS_MAX => {
                let [is_ours, is_asked] = [IS_OURS, IS_ASKED].map(|one| traits & one != 0);
                sockets.push(Handed { fd, is_ours, is_asked });
            }
            ([END, has_tunnel], None) => break *has_tunnel != 0,
            ([REFUSED, reason @ ..], None) => return Err(refused(path, reason)),
            _ => {
                let what = "whoever listens there does not hand sockets over";
                return Err(TakeoverError::new(path, what, "take another path"));
            }
        }
    };
    let Some(listener) = listener else { return Ok(None) };
    info!(path = %path.display(), sockets = sockets.len(), "taking over from the old process");
    let is_over = Arc::new(AtomicBool::new(false));
    let file = SocketFile::handed_over(path, &is_over);
    let predecessor = Some(Predecessor { path: path.to_owned(), line, has_tunnel, is_over });
    Ok(Some((Place { listener, file, predecessor }, sockets)))
}

fn refused(path: &Path, reason: &[u8]) -> TakeoverError {
    let reason = String::from_utf8_lossy(reason);
    let what = format!("the old process refuses: {}", reason.escape_debug());
    TakeoverError::new(path, what, NO_ANSWER)
}

fn has_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

impl Predecessor {
    /// The file of a Unix socket that it has handed over: ours when it has left it to us.
    pub(crate) fn file(&self, path: &Path) -> SocketFile {
        SocketFile::handed_over(path, &self.is_over)
    }

    /// This process is ready, and has taken the sockets with these numbers. On return the old one
    /// accepts no more, or has ended.
    ///
    /// # Errors
    /// It goes on.
    pub(crate) fn ready(&self, taken: &[u16]) -> Result<(), TakeoverError> {
        let mut record = vec![TAKEN];
        record.extend(taken.iter().flat_map(|number| number.to_be_bytes()));
        // Whether that has reached it is seen by its answer.
        let _ = self.line.send(&record, None);
        let mut answer = vec![0; RECORD_BYTES_MAX];
        match self.line.receive(&mut answer) {
            Ok((bytes, _)) => match &answer[..bytes] {
                [YOURS] => {}
                [REFUSED, reason @ ..] => return Err(refused(&self.path, reason)),
                _ => return Err(self.silent()),
            },
            Err(error) if has_gone(&error) => {}
            Err(_) => return Err(self.silent()),
        }
        self.is_over.store(true, Ordering::Relaxed);
        info!(sockets = taken.len(), "taken over: the old process serves what it has, and ends");
        Ok(())
    }

    fn silent(&self) -> TakeoverError {
        TakeoverError::new(&self.path, "the old process does not answer", NO_ANSWER)
    }
}

/// This process has everything but its tunnel: it is ready when that is up.
#[derive(Debug)]
pub(crate) struct Succession {
    /// Until it is told.
    waits: Option<(Predecessor, Vec<u16>)>,
    answer: Option<Receiver<Result<(), TakeoverError>>>,
    wake: UnixStream,
}

impl Succession {
    /// `wake` gets [`WAKE`](super::desk::WAKE) when the old process has answered.
    pub(crate) fn new(predecessor: Predecessor, taken: Vec<u16>, wake: UnixStream) -> Succession {
        Succession { waits: Some((predecessor, taken)), answer: None, wake }
    }

    /// Says that it is ready, by a thread: the old process may take its time.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(crate) fn is_ready(&mut self) -> io::Result<()> {
        let Some((predecessor, taken)) = self.waits.take() else { return Ok(()) };
        let (sender, receiver) = sync_channel(1);
        let mut wake = self.wake.try_clone()?;
        thread::Builder::new().name(String::from("successor")).spawn(move || {
            let _ = sender.send(predecessor.ready(&taken));
            let _ = wake.write_all(&[WAKE]);
        })?;
        self.answer = Some(receiver);
        Ok(())
    }

    /// The answer, when it has come.
    pub(crate) fn answer(&self) -> Option<Result<(), TakeoverError>> {
        self.answer.as_ref()?.try_recv().ok()
    }
}
