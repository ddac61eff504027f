//! Exits that think: what a proxy says to the client of a stream, and where it then leads.
//!
//! A conversation is a pure state machine: bytes and answers in, [`ProxyStep`]s out, without a
//! descriptor, a clock or a log. The engine takes the steps, makes the access check and the
//! connect, and keeps the time.

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

/// What a conversation asks for, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyStep {
    /// Bytes for the client.
    ToClient(Vec<u8>),
    /// Bytes for the server that is connected.
    ToServer(Vec<u8>),
    /// Connect there (after the access check, which the engine makes); answered by
    /// [`Conversation::connected`]. A server that was connected before is closed first.
    Connect(Target),
    /// From now on bytes pass both ways untouched: the conversation is over, and the stream goes
    /// back to the fast path. What the conversation still held of the client's bytes was given by
    /// [`ProxyStep::ToServer`] before this, and the client's end, if it came already, by
    /// [`ProxyStep::EndServer`].
    Pass,
    /// The peer is to open a port for this client alone, at the address that the client reached it
    /// by; answered by [`Conversation::port_opened`]. One for TCP takes one connection and is closed
    /// then; one for UDP lives until [`ProxyStep::ClosePort`]. All are closed with the stream.
    OpenPort {
        /// The conversation's own number for it, not in use by another.
        request: u32,
        /// Where what comes in by it is led.
        lead: Lead,
    },
    /// A port of [`ProxyStep::OpenPort`] or [`ProxyStep::ListenHere`] is of no more use.
    ClosePort(u32),
    /// Listen here for one connection of that host and no other; answered by
    /// [`Conversation::port_opened`], and by [`Conversation::port_used`] when the host connects, or
    /// nobody did in time.
    ListenHere {
        /// The conversation's own number for it, not in use by another.
        request: u32,
        /// Which address of ours to listen at; `None`: the one that packets to `from` would have.
        own: Option<IpAddr>,
        /// Who may connect.
        from: IpAddr,
        /// What becomes of the connection.
        then: PortUse,
    },
    /// May the client's server be at this host? Answered by [`Conversation::host_checked`] with its
    /// addresses that may be reached (the access check is that of [`ProxyStep::Connect`]).
    CheckHost(Target),
    /// No more for the server: its end of data.
    EndServer,
    /// No more for the client: after all that was said, the stream's end.
    EndClient,
    /// As [`ProxyStep::EndClient`], but the stream is reset; why, for the log.
    Reset(String),
    /// For the log, once per cause: what the client did or was refused.
    Note(String),
}

/// Where what comes in by a port that the peer has opened is led.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lead {
    /// A connection: to this server, untouched. The conversation has made sure that it may be
    /// reached.
    Server(SocketAddr),
    /// Datagrams: each begins with the header of SOCKS (RFC 1928, section 7), which says where it
    /// is sent to, after the access check; answers get one.
    SocksDatagrams,
}

/// What becomes of a connection that came in at a port of [`ProxyStep::ListenHere`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortUse {
    /// The peer connects to this port of the client's host, and bytes pass between the two.
    CallClient(u16),
    /// It is this conversation's server from now on, as after [`ProxyStep::Connect`].
    BeServer,
}

/// Why a server was not reached; each with a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreached {
    /// Access says no.
    NotPermitted(String),
    /// The name is not known, or could not be looked up.
    NameNotFound(String),
    /// The server's machine answered that nobody listens.
    Refused(String),
    /// Nobody answered in time.
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

/// A proxy's talk with the client of one stream, and with the servers that it leads to.
///
/// After [`ProxyStep::Pass`], [`ProxyStep::EndClient`] or [`ProxyStep::Reset`] it is over: what is told to it
/// then has no effect.
#[expect(clippy::wrong_self_convention, reason = "from here is whose bytes, not a conversion")]
pub trait Conversation {
    /// The stream is there: called once, before anything else. A server that speaks first does so
    /// here.
    fn begin(&mut self, _steps: &mut Vec<ProxyStep>) {}

    /// Bytes of the client, all of which are taken in. What comes behind a request that is being
    /// served is kept within [`limits::PROXY_HEAD_BYTES`](crate::limits::PROXY_HEAD_BYTES); more
    /// ends the conversation with an error of its protocol.
    fn from_client(&mut self, bytes: &[u8], steps: &mut Vec<ProxyStep>);

    /// The client will send no more.
    fn client_ended(&mut self, steps: &mut Vec<ProxyStep>);

    /// What became of the last [`ProxyStep::Connect`]: the server's address and our own, or why not.
    fn connected(
        &mut self,
        result: Result<(SocketAddr, SocketAddr), Unreached>,
        steps: &mut Vec<ProxyStep>,
    );

    /// Bytes of the server that is connected.
    fn from_server(&mut self, bytes: &[u8], steps: &mut Vec<ProxyStep>);

    /// The server will send no more.
    fn server_ended(&mut self, steps: &mut Vec<ProxyStep>);

    /// The server broke off: what came of it may not be all, even where its end would say so.
    fn server_failed(&mut self, steps: &mut Vec<ProxyStep>) {
        self.server_ended(steps);
    }

    /// A port that was asked for is open at this address, or why not: for [`ProxyStep::OpenPort`] at the
    /// peer, for [`ProxyStep::ListenHere`] here.
    fn port_opened(
        &mut self,
        _request: u32,
        _result: Result<SocketAddr, String>,
        _steps: &mut Vec<ProxyStep>,
    ) {
    }

    /// The host that [`ProxyStep::ListenHere`] waited for has connected from this address, or why it
    /// will not any more. The port is closed.
    fn port_used(
        &mut self,
        _request: u32,
        _result: Result<SocketAddr, String>,
        _steps: &mut Vec<ProxyStep>,
    ) {
    }

    /// What became of [`ProxyStep::CheckHost`]: the addresses that may be reached, at least one.
    fn host_checked(
        &mut self,
        _result: Result<Vec<SocketAddr>, Unreached>,
        _steps: &mut Vec<ProxyStep>,
    ) {
    }

    /// The client was too slow to say what it wants: by the engine's clock,
    /// [`limits::PROXY_ASK_SECS`](crate::limits::PROXY_ASK_SECS) after the beginning, or after the
    /// last request ended.
    fn timed_out(&mut self, steps: &mut Vec<ProxyStep>);

    /// Whether a request of the client is awaited: the clock of [`Self::timed_out`] runs.
    fn awaits_client(&self) -> bool;

    /// What the client speaks, where its first bytes decide that and have come.
    fn speaks(&self) -> Option<Proxy> {
        None
    }

    /// Whether the client's bytes are of use now. While not, what comes is held: the engine should
    /// not make room for more at the peer, so that at most a window of it comes.
    fn takes_client(&self) -> bool {
        true
    }
}

/// Adds bytes for the client, to those that are the last step already if there are.
fn say(bytes: &[u8], steps: &mut Vec<ProxyStep>) {
    match steps.last_mut() {
        Some(ProxyStep::ToClient(said)) => said.extend_from_slice(bytes),
        _ => steps.push(ProxyStep::ToClient(bytes.to_vec())),
    }
}
