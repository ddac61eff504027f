#![allow(unsafe_code)]
//! Listening sockets that were there before the program began: systemd's socket activation, as
//! sd_listen_fds(3) has it.

use std::env;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::net::sockopt::socket_acceptconn;
use socket2::SockRef;
use tracing::info;

use super::net;
use crate::limits::ENTRANCES_MAX;

/// A socket that was passed to the process cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("inherited sockets (LISTEN_FDS): {what}: {why}")]
pub struct InheritedError {
    /// Which socket.
    what: String,
    /// Why, and what to do.
    why: String,
}

/// The first of them; the others follow.
const FIRST: RawFd = 3;

/// Nobody has them twice.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Sockets that wait to be asked for by their address.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<Socket>,
}

#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    place: Place,
    /// How it is called in messages.
    title: String,
}

/// Where a socket listens.
#[derive(Debug)]
enum Place {
    Address(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Address(address) => address.fmt(f),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Inherited {
    /// Those that the environment says are for this process: `LISTEN_PID`, `LISTEN_FDS` and
    /// `LISTEN_FDNAMES`. None if it says nothing, or has been asked before.
    ///
    /// # Errors
    /// What is said is no number, or names something that is not a listening stream socket.
    pub fn from_environment() -> Result<Inherited, InheritedError> {
        let said = |name: &str| env::var(name).ok().filter(|text| !text.is_empty());
        let own = said("LISTEN_PID").is_some_and(|pid| pid == process::id().to_string());
        let Some(count) = said("LISTEN_FDS").filter(|_| own) else {
            return Ok(Inherited::default());
        };
        let count = match count.parse::<RawFd>() {
            Ok(count) if usize::try_from(count).is_ok_and(|n| n <= ENTRANCES_MAX) => count,
            _ => return Err(failed(format!("LISTEN_FDS={count}"), "it is no number of sockets")),
        };
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Ok(Inherited::default());
        }
        let names = said("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let sockets = (FIRST..FIRST + count).map(|number| {
            let title = match names.next().filter(|name| !name.is_empty()) {
                Some(name) => format!("descriptor {number} ({name})"),
                None => format!("descriptor {number}"),
            };
            Socket::adopt(number, title)
        });
        Ok(Inherited { sockets: sockets.collect::<Result<_, _>>()? })
    }

    /// Takes those whose address is wanted.
    pub(crate) fn take(&mut self, wanted: impl Fn(SocketAddr) -> bool) -> Vec<OwnedFd> {
        self.take_at(|place| matches!(place, Place::Address(address) if wanted(*address)))
    }

    /// Takes the Unix socket of this path.
    pub(crate) fn take_unix(&mut self, path: &Path) -> Option<OwnedFd> {
        self.take_at(|place| matches!(place, Place::Unix(other) if other == path)).pop()
    }

    fn take_at(&mut self, wanted: impl Fn(&Place) -> bool) -> Vec<OwnedFd> {
        let taken = self.sockets.extract_if(.., |socket| wanted(&socket.place));
        taken
            .map(|Socket { fd, place, title }| {
                info!(address = %place, socket = title, "inherited socket");
                fd
            })
            .collect()
    }

    /// Whoever passes a socket wants it to be served.
    ///
    /// # Errors
    /// Nothing has asked for one of them.
    pub(crate) fn all_taken(&self) -> Result<(), InheritedError> {
        match self.sockets.first() {
            None => Ok(()),
            Some(Socket { place, title, .. }) => Err(failed(
                format!("{title}, which listens on {place}"),
                "no -P and no PORT= asks for this address; name it in one, host and port (or the \
                 path) as the socket has them, or do not pass it",
            )),
        }
    }
}

impl Socket {
    fn adopt(number: RawFd, title: String) -> Result<Socket, InheritedError> {
        match listens(number) {
            Ok(true) => {}
            Ok(false) => return Err(failed(title, NOT_LISTENING)),
            Err(error) => return Err(failed(title, &format!("{error}; {NOT_LISTENING}"))),
        }
        // SAFETY: it is open and listens. Nothing in this process has opened a listening socket
        // before its first relay is bound, so it is what the environment says was passed to us, and
        // `TAKEN` lets it be taken once.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        let socket = SockRef::from(&fd);
        let set = socket.set_cloexec(true).and_then(|()| socket.set_nonblocking(true));
        let address = match (set, socket.local_addr()) {
            (Ok(()), Ok(address)) => address,
            (Err(error), _) | (_, Err(error)) => return Err(failed(title, &error.to_string())),
        };
        let place = match (address.as_socket(), address.as_pathname()) {
            (Some(address), _) => Place::Address(net::plain(address)),
            (_, Some(path)) => Place::Unix(path.to_owned()),
            _ => return Err(failed(title, NOT_LISTENING)),
        };
        Ok(Socket { fd, place, title })
    }
}

const NOT_LISTENING: &str = "it is no listening TCP or Unix socket; others are opened by the program itself: do not pass it";

fn failed(what: String, why: &str) -> InheritedError {
    InheritedError { what, why: why.to_owned() }
}

/// Whether a descriptor is a socket that accepts connections.
fn listens(number: RawFd) -> io::Result<bool> {
    // SAFETY: for this one call, which only asks; a number that is no open descriptor is an error.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(socket_acceptconn(fd)?)
}
