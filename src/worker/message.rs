//! What planes say to each other: accepted connections, streams of a peer, runs of datagrams, and
//! events of streams in a proxy handshake. They are values, without state of their own.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::client::Client;
use super::exits::ExitState;
use super::purpose::Purpose;
use super::table::Key;
use crate::cli::plan::{Caller, Transport};
use crate::io::chunk::Chunk;
use crate::io::datagram::Towards;
use crate::io::driver::{Fd, Gather};
use crate::session::StreamKey;

/// An accepted connection.
#[derive(Debug)]
pub(in crate::worker) struct AcceptedConn {
    pub(in crate::worker) socket: Fd,
    pub(in crate::worker) purpose: Purpose,
    /// The client that is judged; behind a PROXY header, the one it names.
    pub(in crate::worker) client: Client,
    /// Address of the listener; unspecified for a Unix socket.
    pub(in crate::worker) at: SocketAddr,
    /// Accepted at a Unix socket.
    pub(in crate::worker) unix: bool,
    /// The tunnels that it may take.
    pub(in crate::worker) led_to: LedTo,
}

/// The tunnels that clients of an entrance may take.
#[derive(Debug, Clone, Default)]
pub(in crate::worker) enum LedTo {
    /// Any.
    #[default]
    Any,
    /// Those of the peers with these names (`?peer=NAME`).
    Peers(Rc<[String]>),
    /// The one whose peer has asked for the entrance (`?at=peer` there).
    Tunnel(Key),
}

impl LedTo {
    /// The peers of an entrance; none: any.
    pub(in crate::worker) fn names(names: &[String]) -> LedTo {
        if names.is_empty() { LedTo::Any } else { LedTo::Peers(names.into()) }
    }

    /// Why a client is refused where none of the tunnels is its own.
    pub(in crate::worker) fn not_here(&self) -> Option<String> {
        match self {
            LedTo::Any => None,
            LedTo::Peers(names) => Some(format!("no peer {} is here", names.join(", "))),
            LedTo::Tunnel(_) => Some(String::from("the peer that it leads to is gone")),
        }
    }
}

/// A stream begun by the peer.
#[derive(Debug, Clone)]
pub(in crate::worker) struct Incoming {
    pub(in crate::worker) tunnel: Key,
    pub(in crate::worker) stream: StreamKey,
    pub(in crate::worker) client: Option<SocketAddr>,
    pub(in crate::worker) entrance: Option<SocketAddr>,
    pub(in crate::worker) transport: Option<Transport>,
    /// Its exit, once chosen.
    pub(in crate::worker) exit: Option<Rc<ExitState>>,
    /// A callback to a client of this end. `client` is then that client, and `entrance` the address
    /// it had connected to.
    pub(in crate::worker) call: Option<Call>,
}

impl Incoming {
    /// The caller for host lists. A client without an address is reported as the unspecified
    /// address, and an entrance without a port as port 0.
    pub(in crate::worker) fn caller(&self) -> Caller {
        let client = self.client.map(|client| client.ip());
        Caller {
            client: client.filter(|client| !client.is_unspecified()),
            entrance_port: self.entrance.map(|entrance| entrance.port()).filter(|&port| port != 0),
        }
    }
}

/// What continues once a client's name is known.
#[derive(Debug)]
pub(in crate::worker) enum NameWaiter {
    /// An accepted connection.
    Connection(AcceptedConn),
    /// A stream. This connection without a server holds its place.
    Stream(Key, Incoming),
    /// A stream of datagrams. This flow without a server holds its place.
    Flow(Key, Incoming),
}

/// The client to be called.
#[derive(Debug, Clone, Copy)]
pub(in crate::worker) struct Call {
    /// The client of the control stream.
    pub(in crate::worker) owner: Key,
    pub(in crate::worker) port: u16,
}

/// Identifies a port for datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::worker) enum PortName {
    /// An entrance, by its number.
    Entrance(u32),
    /// A forwarded port.
    Asked(Key),
    /// An entrance that a peer has asked for.
    Given(Key),
}

/// The client side of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::worker) struct FlowOrigin {
    /// The port where its datagrams arrive.
    pub(in crate::worker) port: PortName,
    /// The client's address, as the kernel reports it.
    pub(in crate::worker) client: SocketAddr,
    /// The local address that it sends to, if the entrance has several.
    pub(in crate::worker) own: Option<IpAddr>,
}

impl FlowOrigin {
    /// How to send to the client.
    pub(in crate::worker) fn towards(&self) -> Towards {
        Towards { to: self.client, own: self.own }
    }
}

/// A run of datagrams being received from the link.
#[derive(Debug)]
pub(in crate::worker) struct Run {
    pub(in crate::worker) flow: Key,
    pub(in crate::worker) stream: StreamKey,
    /// 0.3: its bytes count as consumed payload.
    pub(in crate::worker) is_counted: bool,
    pub(in crate::worker) size_bytes: u32,
    /// Bytes still to be received.
    pub(in crate::worker) left_bytes: u32,
    pub(in crate::worker) parts: Box<Gather>,
}

/// What happens to a stream in a proxy handshake.
#[derive(Debug)]
pub(in crate::worker) enum HandshakeEvent {
    /// The client has sent data or ended its direction, or its server has taken what was held up.
    Client,
    ServerData(Chunk),
    /// The server has ended its direction.
    ServerEnded,
    /// Reading from the server has failed, and its socket is closed.
    ServerFailed,
    /// A deadline, of the client or of the stream, has expired.
    Deadline,
}
