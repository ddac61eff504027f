#![allow(unsafe_code)]
//! Listening sockets that were there before the program began: systemd's socket activation, as
//! sd_listen_fds(3) has it, and what the old process hands over ([`takeover`](super::takeover)).

use std::env;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::net::sockopt::socket_acceptconn;
use socket2::{SockRef, Type};
use tracing::info;

use super::datagram;
use super::net;
use super::takeover::Handed;
use crate::limits::ENTRANCES_MAX;
use crate::narrow::to_u16;
use crate::wire::Transport;

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
    /// The numbers of those that were asked for, among the old process's.
    taken: Vec<u16>,
}

#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    place: Place,
    /// How it is called in messages.
    title: String,
    giver: Giver,
}

/// From whom a socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Giver {
    Environment,
    /// The old process, which counts them.
    Predecessor {
        number: u16,
        is_ours: bool,
        is_asked: bool,
    },
}

/// A socket that the old process has opened since a peer asked for it.
#[derive(Debug)]
pub(crate) struct Reserved {
    pub(crate) fd: OwnedFd,
    pub(crate) transport: Transport,
    pub(crate) address: SocketAddr,
}

/// A socket that was asked for.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) fd: OwnedFd,
    /// No other process goes on with it when this one ends.
    pub(crate) is_ours: bool,
}

/// Where a socket listens.
#[derive(Debug)]
enum Place {
    Address(Transport, SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Address(Transport::Tcp, address) => address.fmt(f),
            Place::Address(Transport::Udp, address) => write!(f, "{address}/udp"),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Inherited {
    /// Those that the environment says are for this process: `LISTEN_PID`, `LISTEN_FDS` and
    /// `LISTEN_FDNAMES`. None if it says nothing, or has been asked before.
    ///
    /// # Errors
    /// What is said is no number, or names something that is neither a listening stream socket nor a port
    /// of UDP.
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
        Ok(Inherited { sockets: sockets.collect::<Result<_, _>>()?, taken: Vec::new() })
    }

    /// Adds those of the old process. What is no listening socket is left to it.
    pub(crate) fn add(&mut self, handed: Vec<Handed>) {
        for (number, Handed { fd, is_ours, is_asked }) in handed.into_iter().enumerate() {
            let giver = Giver::Predecessor { number: to_u16(number), is_ours, is_asked };
            let title = format!("socket {} of the old process", number + 1);
            self.sockets.extend(Socket::new(fd, title, giver));
        }
    }

    /// Takes those whose address is wanted.
    pub(crate) fn take(
        &mut self,
        transport: Transport,
        wanted: impl Fn(SocketAddr) -> bool,
    ) -> Vec<Taken> {
        self.take_at(|place| match place {
            Place::Address(of, address) => *of == transport && wanted(*address),
            Place::Unix(_) => false,
        })
    }

    /// Takes the Unix socket of this path.
    pub(crate) fn take_unix(&mut self, path: &Path) -> Option<Taken> {
        self.take_at(|place| matches!(place, Place::Unix(other) if other == path)).pop()
    }

    /// Takes those that peers have asked for, and may ask this process for.
    pub(crate) fn take_asked(&mut self) -> Vec<Reserved> {
        let is_asked = |giver| matches!(giver, Giver::Predecessor { is_asked: true, .. });
        let mut reserved = Vec::new();
        for Socket { fd, place, giver, .. } in
            self.sockets.extract_if(.., |socket| is_asked(socket.giver))
        {
            if let (Place::Address(transport, address), Giver::Predecessor { number, .. }) =
                (place, giver)
            {
                self.taken.push(number);
                reserved.push(Reserved { fd, transport, address });
            }
        }
        reserved
    }

    /// The numbers of those that were taken from the old process.
    pub(crate) fn taken(&self) -> &[u16] {
        &self.taken
    }

    fn take_at(&mut self, wanted: impl Fn(&Place) -> bool) -> Vec<Taken> {
        let fits = |socket: &Socket| wanted(&socket.place);
        // The old process may have had the same ones of the environment.
        let is_given = |socket: &Socket| socket.giver == Giver::Environment && fits(socket);
        let of_environment = self.sockets.iter().any(is_given);
        let taken: Vec<Socket> = self
            .sockets
            .extract_if(.., |socket| match of_environment {
                true => is_given(socket),
                false => fits(socket),
            })
            .collect();
        let numbers = taken.iter().filter_map(|socket| match socket.giver {
            Giver::Predecessor { number, .. } => Some(number),
            Giver::Environment => None,
        });
        self.taken.extend(numbers);
        taken
            .into_iter()
            .map(|Socket { fd, place, title, giver }| {
                info!(address = %place, socket = title, "inherited socket");
                Taken { fd, is_ours: matches!(giver, Giver::Predecessor { is_ours: true, .. }) }
            })
            .collect()
    }

    /// Whoever passes a socket wants it to be served.
    ///
    /// # Errors
    /// Nothing has asked for one of the environment's.
    pub(crate) fn all_taken(&self) -> Result<(), InheritedError> {
        let mut given = self.sockets.iter().filter(|socket| socket.giver == Giver::Environment);
        match given.next() {
            None => Ok(()),
            Some(Socket { place, title, .. }) => Err(failed(
                format!("{title}, which listens on {place}"),
                "no -P and no PORT= asks for this address; name it in one, host and port (or the \
                 path) as the socket has them, with /udp for one of UDP, or do not pass it",
            )),
        }
    }
}

impl Socket {
    fn adopt(number: RawFd, title: String) -> Result<Socket, InheritedError> {
        match takes_clients(number) {
            Ok(true) => {}
            Ok(false) => return Err(failed(title, NOT_LISTENING)),
            Err(error) => return Err(failed(title, &format!("{error}; {NOT_LISTENING}"))),
        }
        // SAFETY: it is open, and listens or is a port of UDP. Nothing in this process has opened either
        // before its first relay is bound, so it is what the environment says was passed to us, and
        // `TAKEN` lets it be taken once.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        let set = SockRef::from(&fd).set_cloexec(true);
        set.map_err(|error| failed(title.clone(), &error.to_string()))?;
        let socket = Socket::new(fd, title.clone(), Giver::Environment);
        let socket = socket.ok_or_else(|| failed(title.clone(), NOT_LISTENING))?;
        if let Place::Address(Transport::Udp, address) = socket.place {
            let set_up = datagram::adopt(&socket.fd, address);
            set_up.map_err(|error| failed(title, &error.to_string()))?;
        }
        Ok(socket)
    }

    /// `None`: it is at no address that can be asked for.
    fn new(fd: OwnedFd, title: String, giver: Giver) -> Option<Socket> {
        let socket = SockRef::from(&fd);
        socket.set_nonblocking(true).ok()?;
        let transport = match socket.r#type().ok()? {
            Type::DGRAM => Transport::Udp,
            _ if socket_acceptconn(&fd).is_ok_and(|listens| listens) => Transport::Tcp,
            _ => return None,
        };
        let address = socket.local_addr().ok()?;
        let place = match (address.as_socket(), address.as_pathname()) {
            (Some(address), _) => Place::Address(transport, net::plain(address)),
            (_, Some(path)) if transport == Transport::Tcp => Place::Unix(path.to_owned()),
            _ => return None,
        };
        Some(Socket { fd, place, title, giver })
    }
}

const NOT_LISTENING: &str = "it is no listening TCP or Unix socket and no port of UDP; others are opened by the \
                             program itself: do not pass it";

fn failed(what: String, why: &str) -> InheritedError {
    InheritedError { what, why: why.to_owned() }
}

/// Whether a descriptor is a socket that accepts connections, or a port of UDP.
fn takes_clients(number: RawFd) -> io::Result<bool> {
    // SAFETY: for these calls, which only ask; a number that is no open descriptor is an error.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let socket = SockRef::from(&fd);
    if socket.r#type()? == Type::DGRAM {
        return Ok(socket.local_addr()?.as_socket().is_some_and(|at| at.port() != 0));
    }
    Ok(socket_acceptconn(fd)?)
}
