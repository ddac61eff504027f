//! Proxy protocols: the handshake of an exit with its client, and the choice of the server.
//!
//! A conversation is a pure state machine: bytes and results in, [`ProxyStep`]s out, without a
//! descriptor, a clock or a log. The engine performs the steps, makes the access check and the
//! connect, and keeps the time.

pub mod config;
#[cfg(test)]
#[path = "../../tests/testkit/proxy/conversation.rs"]
mod conversation;
pub mod ftp;
#[cfg(test)]
#[path = "../../tests/testkit/proxy/ftp_script.rs"]
mod ftp_script;
mod host;
pub mod http;
#[cfg(test)]
#[path = "../../tests/testkit/proxy/http_script.rs"]
mod http_script;
pub mod proxy_header;
pub mod socks;
pub mod telnet;
#[cfg(test)]
mod tests;
mod users;

use std::net::{IpAddr, SocketAddr};

pub use crate::cli::plan::{Proxy, Target};

/// An action that a conversation requests, to be performed in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyStep {
    /// Bytes for the client.
    ToClient(Vec<u8>),
    /// Bytes for the connected server.
    ToServer(Vec<u8>),
    /// Connect there, after the access check, which the engine makes. Answered by
    /// [`Conversation::connected`]. The previous server is closed first.
    Connect(Target),
    /// From now on bytes pass unchanged in both directions: the conversation is over, and the
    /// stream returns to the fast path. Bytes of the client that the conversation still held were
    /// passed on by [`ProxyStep::ToServer`] before this, and the client's end, if it was received,
    /// by [`ProxyStep::EndServer`].
    Pass,
    /// Request a port at the peer for this client alone, at the address by which the client reached
    /// it. Answered by [`Conversation::port_opened`]. A TCP port accepts one connection and is
    /// closed then; a UDP port lives until [`ProxyStep::ClosePort`]. All are closed with the
    /// stream.
    OpenPort {
        /// The conversation's own number of the port, not in use by another.
        request: u32,
        /// Destination of connections to the port.
        lead: Lead,
    },
    /// A port of [`ProxyStep::OpenPort`] or [`ProxyStep::ListenHere`] is not needed any more.
    ClosePort(u32),
    /// Listen here for one connection of that host and no other. Answered by
    /// [`Conversation::port_opened`], and by [`Conversation::port_used`] when the host connects, or
    /// the wait times out.
    ListenHere {
        /// The conversation's own number of the port, not in use by another.
        request: u32,
        /// The address of ours to listen on; `None`: the source address towards `from`.
        own: Option<IpAddr>,
        /// The host that may connect.
        from: IpAddr,
        /// Use of the connection.
        then: PortUse,
    },
    /// Check a host of the client's server. Answered by [`Conversation::host_checked`] with its
    /// addresses that may be reached (the access check is that of [`ProxyStep::Connect`]).
    CheckHost(Target),
    /// End the data for the server.
    EndServer,
    /// End the stream after everything was sent to the client.
    EndClient,
    /// As [`ProxyStep::EndClient`], but reset the stream, with the reason for the log.
    Reset(String),
    /// For the log, once per cause: an event of the client, or a refusal.
    Note(String),
    /// As [`ProxyStep::Note`]: the client has tried a password, which was wrong. The engine refuses
    /// further tries when there are too many.
    WrongPassword(String),
}

/// Destination of connections to a port opened by the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lead {
    /// A connection: to this server, unchanged. The conversation has ensured that it may be
    /// reached.
    Server(SocketAddr),
    /// Datagrams: each begins with the header of SOCKS (RFC 1928, section 7), which holds its
    /// destination, and is sent after the access check; answers get a header.
    SocksDatagrams,
}

/// Use of a connection accepted at a port of [`ProxyStep::ListenHere`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortUse {
    /// The peer connects to this port of the client's host, and bytes pass between the two.
    CallClient(u16),
    /// It becomes this conversation's server, as after [`ProxyStep::Connect`].
    BeServer,
}

/// Why a server was not reached, with a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreached {
    /// The access check refused it.
    NotPermitted(String),
    /// The name does not exist, or could not be looked up.
    NameNotFound(String),
    /// The server's host refused the connection.
    Refused(String),
    /// The connect timed out.
    TimedOut(String),
    /// Anything else.
    Other(String),
}

impl Unreached {
    /// The sentence.
    pub fn why(&self) -> &str {
        match self {
            Unreached::NotPermitted(why)
            | Unreached::NameNotFound(why)
            | Unreached::Refused(why)
            | Unreached::TimedOut(why)
            | Unreached::Other(why) => why,
        }
    }
}

/// A proxy's handshake with the client of one stream, and with its servers.
///
/// After [`ProxyStep::Pass`], [`ProxyStep::EndClient`] or [`ProxyStep::Reset`] it is over, and
/// further calls have no effect.
#[expect(clippy::wrong_self_convention, reason = "from here is whose bytes, not a conversion")]
pub trait Conversation {
    /// The stream was opened: called once, before anything else. A server that speaks first does so
    /// here.
    fn begin(&mut self, _steps: &mut Vec<ProxyStep>) {}

    /// Handles bytes of the client, and consumes all of them. Data behind a request in progress is
    /// buffered up to [`limits::PROXY_HEAD_BYTES`](crate::limits::PROXY_HEAD_BYTES); more ends the
    /// conversation with an error of its protocol.
    fn from_client(&mut self, bytes: &[u8], steps: &mut Vec<ProxyStep>);

    /// The client has ended its data.
    fn client_ended(&mut self, steps: &mut Vec<ProxyStep>);

    /// Result of the last [`ProxyStep::Connect`]: the server's address and our own, or the reason.
    fn connected(
        &mut self,
        result: Result<(SocketAddr, SocketAddr), Unreached>,
        steps: &mut Vec<ProxyStep>,
    );

    /// Handles bytes of the connected server.
    fn from_server(&mut self, bytes: &[u8], steps: &mut Vec<ProxyStep>);

    /// The server has ended its data.
    fn server_ended(&mut self, steps: &mut Vec<ProxyStep>);

    /// The server's connection was reset: its data may be incomplete, even where its end would
    /// suggest otherwise.
    fn server_failed(&mut self, steps: &mut Vec<ProxyStep>) {
        self.server_ended(steps);
    }

    /// A requested port is open at this address, or the reason why not: for [`ProxyStep::OpenPort`]
    /// at the peer, for [`ProxyStep::ListenHere`] here.
    fn port_opened(
        &mut self,
        _request: u32,
        _result: Result<SocketAddr, String>,
        _steps: &mut Vec<ProxyStep>,
    ) {
    }

    /// The host that [`ProxyStep::ListenHere`] waited for has connected from this address, or the
    /// reason why it will not. The port is closed.
    fn port_used(
        &mut self,
        _request: u32,
        _result: Result<SocketAddr, String>,
        _steps: &mut Vec<ProxyStep>,
    ) {
    }

    /// Result of [`ProxyStep::CheckHost`]: the addresses that may be reached, at least one.
    fn host_checked(
        &mut self,
        _result: Result<Vec<SocketAddr>, Unreached>,
        _steps: &mut Vec<ProxyStep>,
    ) {
    }

    /// The client did not make a request in time: called by the engine
    /// [`limits::PROXY_ASK_SECS`](crate::limits::PROXY_ASK_SECS) after the start, or after the last
    /// request ended.
    fn timed_out(&mut self, steps: &mut Vec<ProxyStep>);

    /// A request of the client is awaited: the timeout of [`Self::timed_out`] runs.
    fn awaits_client(&self) -> bool;

    /// How many bytes of requests and answers it holds that are not whole or not yet passed on.
    fn held_bytes(&self) -> usize {
        0
    }

    /// The client's protocol, once its first bytes have decided that.
    fn speaks(&self) -> Option<Proxy> {
        None
    }

    /// Whether the client's bytes are of use now. Otherwise the engine holds them, and should grant
    /// the peer no more credit, so that at most a window of them arrives.
    fn takes_client(&self) -> bool {
        true
    }
}

/// Appends bytes for the client, to the last step if that has such already.
fn say(bytes: &[u8], steps: &mut Vec<ProxyStep>) {
    match steps.last_mut() {
        Some(ProxyStep::ToClient(said)) => said.extend_from_slice(bytes),
        _ => steps.push(ProxyStep::ToClient(bytes.to_vec())),
    }
}
