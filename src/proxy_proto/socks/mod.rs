//! The SOCKS proxy: 4, 4a, and 5 (RFC 1928) with or without user and password (RFC 1929).
//!
//! BIND accepts one connection, from the host that the client has named. The port of UDP ASSOCIATE
//! is opened by the peer, where the client is. Its datagrams bypass the conversation, which only
//! waits for the client's end.

mod address;
pub mod datagram;
mod reply;
mod request;
#[cfg(test)]
#[path = "../../../tests/testkit/proxy/socks_datagram.rs"]
mod socks_datagram;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{Conversation, Lead, PortUse, ProxyStep, Unreached, users};
use crate::cli::plan::{Proxy, User};
use crate::limits::PROXY_HEAD_BYTES;
use reply::{Reply, Version};
use request::{Fault, Password, Request};

/// The number of a conversation's only port.
const PORT: u32 = 1;

/// Versions served, and authentication.
pub struct SocksConfig {
    /// One of the versions, or both: [`Proxy::Socks`].
    pub versions: Proxy,
    /// Users of SOCKS 5; `None` means no authentication.
    pub users: Option<Vec<User>>,
    /// There are users for SOCKS 4 too. It has no passwords, so it is refused.
    pub four_has_users: bool,
}

/// Both versions, with users for both.
impl From<Option<Vec<User>>> for SocksConfig {
    fn from(users: Option<Vec<User>>) -> Self {
        SocksConfig { versions: Proxy::Socks, four_has_users: users.is_some(), users }
    }
}

/// The conversation with one client.
pub struct Socks {
    config: Arc<SocksConfig>,
    state: State,
    /// Version in the client's first byte.
    version: Option<Version>,
    /// Bytes of the client that are not consumed yet; in the end early data.
    held: Vec<u8>,
    client_ended: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The first message is awaited: the request of 4, or the methods of 5.
    First,
    /// 5: user and password are awaited.
    Password,
    /// 5: the request is awaited.
    Request,
    Connecting(Version),
    Binding(Version, Bind),
    /// UDP ASSOCIATE: the port was requested of the peer.
    Opening,
    /// The port stays open until the client ends.
    Associated,
    Over,
}

/// Progress of BIND.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bind {
    /// The access check of the host that the client has named.
    Checking,
    Opening,
    /// The first answer was sent.
    Waiting,
}

impl Socks {
    /// A conversation with a new client. An `Arc` lets all streams of an exit share the settings.
    pub fn new(config: impl Into<Arc<SocksConfig>>) -> Self {
        Socks {
            config: config.into(),
            state: State::First,
            version: None,
            held: Vec::new(),
            client_ended: false,
        }
    }

    /// Handles the buffered bytes, message by message.
    fn read(&mut self, steps: &mut Vec<ProxyStep>) {
        loop {
            let taken = match self.state {
                State::First => match self.held.first().copied() {
                    None => return,
                    Some(4) if self.serves(Version::Four, steps) => {
                        self.read_request(Version::Four, steps)
                    }
                    Some(5) if self.serves(Version::Five, steps) => self.read_methods(steps),
                    Some(4 | 5) => None,
                    Some(other) => {
                        let why = format!("neither SOCKS 4 nor 5: the first byte is {other:#04x}");
                        self.end(ProxyStep::Reset(why), steps);
                        None
                    }
                },
                State::Password => self.read_password(steps),
                State::Request => self.read_request(Version::Five, steps),
                State::Connecting(version) | State::Binding(version, _) => {
                    if self.held.len() > PROXY_HEAD_BYTES {
                        let why = "more data than is kept came before the answer";
                        self.refuse(version, Reply::Failure, why, steps);
                    }
                    None
                }
                State::Opening | State::Associated => {
                    // Data beside the datagrams has no meaning.
                    self.held = Vec::new();
                    None
                }
                State::Over => None,
            };
            match taken {
                Some(bytes) => drop(self.held.drain(..bytes)),
                None => return,
            }
        }
    }

    /// Whether the client's version is served. If not, the client is answered in that version.
    fn serves(&mut self, version: Version, steps: &mut Vec<ProxyStep>) -> bool {
        self.version = Some(version);
        if version.proxy().meets(self.config.versions) {
            return true;
        }
        let (no, other) = match version {
            Version::Four => (reply::request(version, Reply::Failure, None), Version::Five),
            Version::Five => (reply::method(reply::NO_METHOD), Version::Four),
        };
        steps.push(ProxyStep::ToClient(no));
        steps.push(ProxyStep::Note(format!(
            "SOCKS {version} is refused: the exit is for SOCKS {other}"
        )));
        self.end(ProxyStep::EndClient, steps);
        false
    }

    /// The readers return the length of a whole message, and `None` while it is incomplete, or
    /// after the last one.
    fn read_methods(&mut self, steps: &mut Vec<ProxyStep>) -> Option<usize> {
        let (methods, bytes) = request::methods(&self.held)?;
        let (method, next) = match self.config.users {
            None => (reply::NO_AUTHENTICATION, State::Request),
            Some(_) => (reply::USER_PASSWORD, State::Password),
        };
        if !methods.contains(&method) {
            steps.push(ProxyStep::ToClient(reply::method(reply::NO_METHOD)));
            steps.push(ProxyStep::Note(match method {
                reply::USER_PASSWORD => "SOCKS 5 without user and password is refused".into(),
                _ => "SOCKS 5 that insists on authentication is refused: no users are set".into(),
            }));
            self.end(ProxyStep::EndClient, steps);
            return None;
        }
        steps.push(ProxyStep::ToClient(reply::method(method)));
        self.state = next;
        Some(bytes)
    }

    fn read_password(&mut self, steps: &mut Vec<ProxyStep>) -> Option<usize> {
        let note = match request::password(&self.held) {
            Ok(whole) => {
                let (Password { user, password }, bytes) = whole?;
                if self.config.know(user, password) {
                    steps.push(ProxyStep::ToClient(reply::password(true)));
                    self.state = State::Request;
                    return Some(bytes);
                }
                let user = String::from_utf8_lossy(user);
                ProxyStep::WrongPassword(format!("SOCKS 5: user {user:?} refused"))
            }
            Err(Fault { why, .. }) => ProxyStep::Note(why),
        };
        steps.push(ProxyStep::ToClient(reply::password(false)));
        steps.push(note);
        self.end(ProxyStep::EndClient, steps);
        None
    }

    fn read_request(&mut self, version: Version, steps: &mut Vec<ProxyStep>) -> Option<usize> {
        let read = match version {
            Version::Four => request::four(&self.held),
            Version::Five => request::five(&self.held),
        };
        let (request, bytes) = match read {
            Ok(whole) => whole?,
            Err(Fault { reply, why }) => {
                self.refuse(version, reply, &why, steps);
                return None;
            }
        };
        if version == Version::Four && self.config.four_has_users {
            steps.push(ProxyStep::ToClient(reply::no_such_user()));
            steps.push(ProxyStep::Note(
                "SOCKS 4 is refused: it has no passwords, and users are set".into(),
            ));
            self.end(ProxyStep::EndClient, steps);
            return None;
        }
        self.state = match request {
            Request::Connect(target) => {
                steps.push(ProxyStep::Connect(target));
                State::Connecting(version)
            }
            Request::Bind(target) => {
                steps.push(ProxyStep::CheckHost(target));
                State::Binding(version, Bind::Checking)
            }
            Request::Associate => {
                steps.push(ProxyStep::OpenPort { request: PORT, lead: Lead::SocksDatagrams });
                State::Opening
            }
            Request::Other(command) => {
                let why = format!("command {command} is not supported");
                self.refuse(version, Reply::CommandNotSupported, &why, steps);
                return None;
            }
        };
        Some(bytes)
    }

    /// Refuses the request, and logs the reason.
    fn refuse(&mut self, version: Version, reply: Reply, why: &str, steps: &mut Vec<ProxyStep>) {
        steps.push(ProxyStep::ToClient(reply::request(version, reply, None)));
        steps.push(ProxyStep::Note(format!("SOCKS {version}: {why}")));
        self.end(ProxyStep::EndClient, steps);
    }

    /// The server was not reached, which the engine has logged.
    fn not_reached(&mut self, version: Version, why: &Unreached, steps: &mut Vec<ProxyStep>) {
        steps.push(ProxyStep::ToClient(reply::request(version, why.into(), None)));
        self.end(ProxyStep::EndClient, steps);
    }

    /// The server is connected, at this address (or for the client behind it), and bytes pass.
    fn pass(&mut self, version: Version, address: SocketAddr, steps: &mut Vec<ProxyStep>) {
        steps.push(ProxyStep::ToClient(reply::request(version, Reply::Granted, Some(address))));
        if !self.held.is_empty() {
            steps.push(ProxyStep::ToServer(std::mem::take(&mut self.held)));
        }
        if self.client_ended {
            steps.push(ProxyStep::EndServer);
        }
        self.end(ProxyStep::Pass, steps);
    }

    fn end(&mut self, how: ProxyStep, steps: &mut Vec<ProxyStep>) {
        steps.push(how);
        self.state = State::Over;
        self.held = Vec::new();
    }
}

impl Conversation for Socks {
    fn from_client(&mut self, bytes: &[u8], steps: &mut Vec<ProxyStep>) {
        if self.state != State::Over {
            self.held.extend_from_slice(bytes);
            self.read(steps);
        }
    }

    fn client_ended(&mut self, steps: &mut Vec<ProxyStep>) {
        self.client_ended = true;
        if self.awaits_client() || self.state == State::Associated {
            self.end(ProxyStep::EndClient, steps);
        }
    }

    fn connected(
        &mut self,
        result: Result<(SocketAddr, SocketAddr), Unreached>,
        steps: &mut Vec<ProxyStep>,
    ) {
        let State::Connecting(version) = self.state else { return };
        match result {
            Ok((_, own)) => self.pass(version, own, steps),
            Err(why) => self.not_reached(version, &why, steps),
        }
    }

    fn host_checked(
        &mut self,
        result: Result<Vec<SocketAddr>, Unreached>,
        steps: &mut Vec<ProxyStep>,
    ) {
        let State::Binding(version, Bind::Checking) = self.state else { return };
        let addresses = match result {
            Ok(addresses) => addresses,
            Err(why) => return self.not_reached(version, &why, steps),
        };
        // The client gets our address towards it; 4 has no room for an IPv6 one.
        let fits = |ip: &IpAddr| version == Version::Five || ip.is_ipv4();
        match addresses.iter().map(|address| address.ip().to_canonical()).find(fits) {
            Some(from) => {
                let then = PortUse::BeServer;
                steps.push(ProxyStep::ListenHere { request: PORT, own: None, from, then });
                self.state = State::Binding(version, Bind::Opening);
            }
            None => {
                let why = "the host that will connect has no IPv4 address";
                self.refuse(version, Reply::HostUnreachable, why, steps);
            }
        }
    }

    fn port_opened(
        &mut self,
        _request: u32,
        result: Result<SocketAddr, String>,
        steps: &mut Vec<ProxyStep>,
    ) {
        match (self.state, result) {
            (State::Binding(version, Bind::Opening), Ok(address)) => {
                steps.push(ProxyStep::ToClient(reply::request(
                    version,
                    Reply::Granted,
                    Some(address),
                )));
                self.state = State::Binding(version, Bind::Waiting);
            }
            (State::Binding(version, Bind::Opening), Err(why)) => {
                let why = format!("no port for BIND: {why}");
                self.refuse(version, Reply::Failure, &why, steps);
            }
            (State::Opening, Ok(address)) => {
                let granted = reply::request(Version::Five, Reply::Granted, Some(address));
                steps.push(ProxyStep::ToClient(granted));
                self.state = State::Associated;
                if self.client_ended {
                    self.end(ProxyStep::EndClient, steps);
                }
            }
            // Answered as an unknown command: that makes a client do without.
            (State::Opening, Err(why)) => {
                let why = format!("no port for UDP ASSOCIATE: {why}");
                self.refuse(Version::Five, Reply::CommandNotSupported, &why, steps);
            }
            _ => {}
        }
    }

    fn port_used(
        &mut self,
        _request: u32,
        result: Result<SocketAddr, String>,
        steps: &mut Vec<ProxyStep>,
    ) {
        let State::Binding(version, Bind::Waiting) = self.state else { return };
        match result {
            Ok(from) => self.pass(version, from, steps),
            Err(why) => {
                let why = format!("nobody came in by BIND: {why}");
                self.refuse(version, Reply::TimedOut, &why, steps);
            }
        }
    }

    /// Not called: with a server the conversation is over.
    fn from_server(&mut self, _bytes: &[u8], _steps: &mut Vec<ProxyStep>) {}

    /// As [`Self::from_server`].
    fn server_ended(&mut self, _steps: &mut Vec<ProxyStep>) {}

    fn timed_out(&mut self, steps: &mut Vec<ProxyStep>) {
        if self.awaits_client() {
            self.end(ProxyStep::Reset("the client made no SOCKS request in time".into()), steps);
        }
    }

    fn awaits_client(&self) -> bool {
        matches!(self.state, State::First | State::Password | State::Request)
    }

    fn speaks(&self) -> Option<Proxy> {
        self.version.map(Version::proxy)
    }

    fn held_bytes(&self) -> usize {
        self.held.len()
    }

    fn takes_client(&self) -> bool {
        !matches!(self.state, State::Binding(..))
    }
}

impl SocksConfig {
    fn know(&self, user: &[u8], password: &[u8]) -> bool {
        users::known(self.users.as_deref().unwrap_or_default(), user, password)
    }
}
