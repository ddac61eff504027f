//! Whose a connection is.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use crate::io::net;
use crate::session::NO_ADDRESS;

/// A client, as the log names it.
#[derive(Debug, Clone, Copy)]
pub(in crate::worker) enum Client {
    /// One with an address, here or at the peer.
    Address(SocketAddr),
    /// A process that came in at a Unix socket. To peers and host lists it is unknown: an address of
    /// this machine would let it pass for whoever uses that address at the other end's.
    Process {
        /// Its number; 0 where it cannot be seen from here (another container).
        id: i32,
        /// Its user's number.
        user: u32,
    },
}

impl Client {
    /// Who has connected to an entrance.
    pub(in crate::worker) fn of(socket: &OwnedFd, unix: bool) -> Client {
        let process = if unix { net::peer_process(socket) } else { None };
        match process {
            Some((id, user)) => Client::Process { id, user },
            None => Client::Address(net::peer_address(socket)),
        }
    }

    /// What peers are told.
    pub(in crate::worker) fn address(self) -> SocketAddr {
        match self {
            Client::Address(address) => address,
            Client::Process { .. } => NO_ADDRESS,
        }
    }

    /// The address that host lists and limits apply to, if it is known.
    pub(in crate::worker) fn ip(self) -> Option<IpAddr> {
        Some(self.address().ip()).filter(|address| !address.is_unspecified())
    }
}

impl From<SocketAddr> for Client {
    fn from(address: SocketAddr) -> Client {
        Client::Address(address)
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Client::Address(address) => address.fmt(f),
            Client::Process { id, user } => write!(f, "process {id} of user {user}"),
        }
    }
}
