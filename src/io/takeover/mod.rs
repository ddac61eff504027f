//! An upgrade without loss: a new process takes over the listening sockets of the old one.
//!
//! The old one listens at a Unix socket (`--takeover PATH`), which a thread serves ([`desk`]). The new
//! one connects there when it starts ([`successor`]) and is handed the sockets, duplicates of which
//! stay with the old one. When all of its set-up has succeeded it says so, and from then on they are
//! its own: the old one accepts no more and drains. Should the new one fail before that, nothing has
//! happened: a queue of a listening socket belongs to all that have the socket.
//!
//! ```text
//! new                       old
//! HELLO version        ->
//!                      <-   LISTENER + the socket at PATH itself
//!                      <-   SOCKET traits + a socket      (each; they are counted from 0)
//!                      <-   END has_tunnel
//! TAKEN numbers        ->
//!                      <-   YOURS
//! ```
//!
//! Instead of an answer the old one may say REFUSED and a reason, whatever the version. When it closes
//! the connection without a word it is ending.

pub(crate) mod desk;
pub(crate) mod successor;

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use socket2::SockRef;

use super::net;
use super::unix::{is_trusted, shown_user as shown};

/// What the first record begins with; the version follows.
const HELLO: &[u8] = b"sockmux takeover ";
/// That of the records.
const VERSION: u8 = 1;

const LISTENER: u8 = b'L';
const SOCKET: u8 = b'S';
const END: u8 = b'E';
const TAKEN: u8 = b'T';
const YOURS: u8 = b'Y';
const REFUSED: u8 = b'R';

/// A trait of a socket: no third process has it, so who has it last ends it.
const IS_OURS: u8 = 1;
/// A peer has asked for it, and the command line does not name it.
const IS_ASKED: u8 = 2;

/// The longest record: a number of two bytes for each socket, of which there are as many as numbers.
const RECORD_BYTES_MAX: usize = 1 + 2 * (1 << 16);

/// The process cannot take over from another one. Layer: engine; scope: the process.
#[derive(Debug, thiserror::Error)]
#[error("--takeover {path}: {what}; {remedy}")]
pub struct TakeoverError {
    path: String,
    /// Who did what.
    what: String,
    remedy: &'static str,
}

impl TakeoverError {
    fn new(path: &Path, what: impl Into<String>, remedy: &'static str) -> TakeoverError {
        TakeoverError { path: path.display().to_string(), what: what.into(), remedy }
    }
}

/// A listening socket that is handed over. It counts by its place among the others.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) fd: OwnedFd,
    /// No third process has it: who has it last ends it.
    pub(crate) is_ours: bool,
    /// A peer has asked for it.
    pub(crate) is_asked: bool,
}

/// A connection between the two.
#[derive(Debug)]
struct Line(OwnedFd);

impl Line {
    /// Either waits so long for the other at most.
    fn new(fd: OwnedFd, patience: Duration) -> io::Result<Line> {
        let socket = SockRef::from(&fd);
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        Ok(Line(fd))
    }

    /// Sends a record, and a descriptor with it.
    fn send(&self, record: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = fd.as_slice();
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        retry_on_intr(|| {
            sendmsg(&self.0, &[IoSlice::new(record)], &mut control, SendFlags::NOSIGNAL)
        })?;
        Ok(())
    }

    /// Receives a record into `buffer`: its length, and the descriptor that came with it.
    ///
    /// # Errors
    /// `UnexpectedEof`: the other has gone. `WouldBlock`: nothing came in time.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = retry_on_intr(|| {
            let buffer = &mut [IoSliceMut::new(buffer)];
            recvmsg(&self.0, buffer, &mut control, RecvFlags::CMSG_CLOEXEC)
        })?;
        let mut fds = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let fd = fds.next().and_then(|mut fds| fds.next());
        if got.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // The descriptor that belongs to the record found no room in this process.
        if fd.is_none() && got.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        Ok((got.bytes, fd))
    }

    /// The user of the process at the other end.
    fn user(&self) -> Option<u32> {
        net::peer_process(&self.0).map(|(_, user)| user)
    }

    fn has_hung_up(&self) -> bool {
        net::is_hung_up(&self.0)
    }
}
