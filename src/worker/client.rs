//! Identity of the client of a connection, for the log, host lists and limits.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use crate::io::net;
use crate::session::NO_ADDRESS;

/// A client, as the log names it.
#[derive(Debug, Clone, Copy)]
pub(in crate::worker) enum Client {
    /// A client with an address, here or at the peer.
    Address(SocketAddr),
    /// A process connected to a Unix socket. It has no address for peers and host lists: an address
    /// of this machine would let it pass for another user of that address at the peer.
    Process {
        /// Process id; 0 if not visible from here (another container).
        id: i32,
        /// User id.
        user: u32,
    },
}

impl Client {
    /// The client connected by this socket to an entrance.
    pub(in crate::worker) fn of(socket: &OwnedFd, unix: bool) -> Client {
        let process = if unix { net::peer_process(socket) } else { None };
        match process {
            Some((id, user)) => Client::Process { id, user },
            None => Client::Address(net::peer_address(socket)),
        }
    }

    /// The address reported to peers.
    pub(in crate::worker) fn address(self) -> SocketAddr {
        match self {
            Client::Address(address) => address,
            Client::Process { .. } => NO_ADDRESS,
        }
    }

    /// The address for host lists and limits, if known.
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
