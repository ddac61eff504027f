//! A pair of FIFOs as a link: opened in any order at either side, without waiting in the kernel,
//! and never shared by two sessions.
//!
//! A FIFO outlives those who use it. Somebody who opens one may find bytes, or a partner, of a
//! session whose other end is gone: a process that was killed, its peer stopped and not yet aware
//! of it. Frames of two sessions in one FIFO would be nonsense, so locks of the open file (they end
//! with it, however it ends) say who uses it. They are advice, as such locks are: whatever else
//! (`cat`, the original) is at the other end takes none, and is served without them.
//!
//! - Each reader has the whole FIFO by `flock`: a second reader would take bytes away.
//! - Each writer has [`WRITER`]. A reader that has just opened the FIFO and finds that lock has met
//!   a writer from before its time, because a FIFO without a reader cannot be opened for writing
//!   without waiting: it closes again, which tells that writer.
//! - A reader takes [`SESSION`] before it reads its first byte. A writer that has just opened the
//!   FIFO and finds that lock, or bytes, has met the reader of an earlier session: it closes again,
//!   and the reader comes to the end of data.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{FlockOperation, flock};
use rustix::pipe::fcntl_setpipe_size;

use super::direct;
use super::driver::Fd;
use super::link::{Link, LinkError, NotYet};
use super::net;
use crate::limits::PIPE_BYTES;

/// The byte of the FIFO whose lock its writer holds.
const WRITER: i64 = 0;
/// The byte whose lock its reader holds from the first byte that it reads.
const SESSION: i64 = 1;

/// How messages call the two.
const INPUT: &str = "input FIFO (commin@, -I)";
const OUTPUT: &str = "output FIFO (commout@, -O)";

/// Two FIFOs by name.
#[derive(Debug)]
pub(crate) struct FifoPair {
    input: PathBuf,
    output: PathBuf,
    /// The input while the output has no reader: it is open, so that our peer may open it.
    waiting: Option<Fd>,
}

impl FifoPair {
    /// Looks at both.
    ///
    /// # Errors
    /// One is missing, is something else, or is used by another process.
    pub(crate) fn new(input: PathBuf, output: PathBuf) -> Result<FifoPair, LinkError> {
        let ours = look(INPUT, &input)?;
        if look(OUTPUT, &output)? == ours {
            let remedy = "give commin@ (-I) and commout@ (-O) one each";
            return Err(LinkError::new(OUTPUT, &output, "one FIFO cannot be both ways", remedy));
        }
        let mut pair = FifoPair { input, output, waiting: None };
        match NotYet::patiently(|| pair.open_input()) {
            Ok(input) => pair.waiting = Some(input),
            Err(NotYet::Waits(_)) => {}
            Err(NotYet::Taken(error) | NotYet::Fails(error)) => return Err(error),
        }
        Ok(pair)
    }

    /// Its name for the log.
    pub(crate) fn name(&self) -> String {
        format!("commin@{} commout@{}", self.input.display(), self.output.display())
    }

    /// Opens both, if the peer has come.
    ///
    /// # Errors
    /// [`NotYet`]: ask again after a moment.
    pub(crate) fn open(&mut self) -> Result<Link, NotYet> {
        // What a peer has left that has gone meanwhile is forgotten with the open file.
        let fresh = self.waiting.take().filter(|input| !net::is_hung_up(input));
        let input = match fresh {
            Some(input) => input,
            None => self.open_input()?,
        };
        match self.open_output() {
            Ok(output) => Ok(Link::fifos(input, output, self.name())),
            Err(not_yet) => {
                self.waiting = Some(input);
                Err(not_yet)
            }
        }
    }

    fn open_input(&self) -> Result<Fd, NotYet> {
        look(INPUT, &self.input)?;
        let file = open(&self.input, std::fs::OpenOptions::new().read(true))
            .map_err(|error| refused(INPUT, &self.input, &error))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let remedy = "end that one, or take FIFOs of your own";
            let error = LinkError::new(INPUT, &self.input, "another process reads it", remedy);
            return Err(NotYet::Taken(error));
        }
        if is_locked(&file, WRITER) {
            return Err(NotYet::Waits("the peer's end of an earlier tunnel is still open"));
        }
        Ok(Rc::new(file))
    }

    fn open_output(&self) -> Result<Fd, NotYet> {
        look(OUTPUT, &self.output)?;
        let file = match open(&self.output, std::fs::OpenOptions::new().write(true)) {
            Ok(file) => file,
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                return Err(NotYet::Waits("the peer has not opened its end"));
            }
            Err(error) => return Err(refused(OUTPUT, &self.output, &error).into()),
        };
        if lock(&file, libc::F_WRLCK, WRITER).is_err() {
            return Err(NotYet::Waits("another process writes there"));
        }
        // In this order: a reader takes the lock first and the bytes then.
        if direct::waiting_bytes(&file) > 0 || is_locked(&file, SESSION) {
            return Err(NotYet::Waits("the peer is still in an earlier tunnel"));
        }
        // Refused where the user has many pipes already: then it stays as it is.
        let _ = fcntl_setpipe_size(&file, PIPE_BYTES);
        Ok(Rc::new(file))
    }
}

/// The reader of a FIFO is about to read its first byte.
///
/// # Errors
/// What the system says.
pub(crate) fn claim(input: &OwnedFd) -> io::Result<()> {
    lock(input, libc::F_RDLCK, SESSION)
}

/// Which FIFO `path` is, if it is one.
fn look(what: &str, path: &Path) -> Result<(u64, u64), LinkError> {
    let metadata = std::fs::metadata(path).map_err(|error| refused(what, path, &error))?;
    let kind = metadata.file_type();
    if kind.is_fifo() {
        return Ok((metadata.dev(), metadata.ino()));
    }
    let (why, remedy) = if kind.is_char_device() {
        ("is a device, not a FIFO", "a device that is both ways is given as comm@ (-X)")
    } else if kind.is_socket() {
        ("is a socket, not a FIFO", "a socket is given as comm@ (-X)")
    } else if kind.is_dir() {
        ("is a directory, not a FIFO", "make one in it with mkfifo")
    } else {
        ("is an ordinary file, not a FIFO", "remove it and make a FIFO with mkfifo")
    };
    Err(LinkError::new(what, path, why, remedy))
}

fn open(path: &Path, options: &mut std::fs::OpenOptions) -> io::Result<OwnedFd> {
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).map(OwnedFd::from)
}

fn refused(what: &str, path: &Path, error: &io::Error) -> LinkError {
    match error.kind() {
        io::ErrorKind::NotFound => {
            let remedy = format!("make it with `mkfifo {}`", path.display());
            LinkError::new(what, path, "there is no such file", &remedy)
        }
        io::ErrorKind::PermissionDenied => {
            let remedy = "its mode must let this user read the input and write the output";
            LinkError::new(what, path, &error.to_string(), remedy)
        }
        _ => LinkError::new(what, path, &error.to_string(), "see the message of the system"),
    }
}

/// The lock of one byte, for the system.
#[expect(clippy::cast_possible_truncation, reason = "both are small constants of the system's")]
fn range(kind: i32, byte: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte as libc::off_t,
        l_len: 1,
        l_pid: 0,
    }
}

fn lock(file: &OwnedFd, kind: i32, byte: i64) -> io::Result<()> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&range(kind, byte)))?;
    Ok(())
}

/// Whether anybody else holds a lock of that byte.
fn is_locked(file: &OwnedFd, byte: i64) -> bool {
    let mut range = range(libc::F_WRLCK, byte);
    let asked = fcntl(file, FcntlArg::F_OFD_GETLK(&mut range));
    asked.is_ok() && i32::from(range.l_type) != libc::F_UNLCK
}
