//! The SOCKS proxy: 4, 4a, and 5 (RFC 1928) with or without user and password (RFC 1929).
//!
//! CONNECT only: BIND and UDP ASSOCIATE are answered as not supported.

mod reply;
mod request;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Conversation, Step, Unreached};
use crate::limits::PROXY_HEAD_BYTES;
use reply::{Reply, Version};
use request::{Fault, Password, Request};

/// Who may use the proxy.
pub struct SocksConfig {
    /// Users and their passwords. With some only SOCKS 5 serves, for 4 has no passwords; `None` is
    /// everybody.
    pub users: Option<Vec<(String, String)>>,
}

/// One client's talk with the SOCKS proxy.
pub struct Socks {
    config: Arc<SocksConfig>,
    state: State,
    /// What the client said and was not used yet; early data at the end.
    held: Vec<u8>,
    client_ended: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The first message is awaited: of 4 the request, of 5 the methods.
    First,
    /// 5: user and password are awaited.
    Password,
    /// 5: the request is awaited.
    Request,
    Connecting(Version),
    Over,
}

impl Socks {
    /// The talk with a new client. An `Arc` lets all streams of an exit share what they need.
    pub fn new(config: impl Into<Arc<SocksConfig>>) -> Self {
        Socks { config: config.into(), state: State::First, held: Vec::new(), client_ended: false }
    }

    /// Uses up what is held, as far as whole messages go.
    fn read(&mut self, steps: &mut Vec<Step>) {
        loop {
            let taken = match self.state {
                State::First => match self.held.first() {
                    None => return,
                    Some(4) => self.read_request(Version::Four, steps),
                    Some(5) => self.read_methods(steps),
                    Some(other) => {
                        let why = format!("neither SOCKS 4 nor 5: the first byte is {other:#04x}");
                        self.end(Step::Reset(why), steps);
                        None
                    }
                },
                State::Password => self.read_password(steps),
                State::Request => self.read_request(Version::Five, steps),
                State::Connecting(version) => {
                    if self.held.len() > PROXY_HEAD_BYTES {
                        let why = "more data than is kept came before the answer";
                        self.refuse(version, Reply::Failure, why, steps);
                    }
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

    /// The readers give the bytes that a whole message had, and `None` while it is not whole, or
    /// when it was the last.
    fn read_methods(&mut self, steps: &mut Vec<Step>) -> Option<usize> {
        let (methods, bytes) = request::methods(&self.held)?;
        let (method, next) = match self.config.users {
            None => (reply::NO_AUTHENTICATION, State::Request),
            Some(_) => (reply::USER_PASSWORD, State::Password),
        };
        if !methods.contains(&method) {
            steps.push(Step::ToClient(reply::method(reply::NO_METHOD)));
            steps.push(Step::Note(match method {
                reply::USER_PASSWORD => "SOCKS 5 without user and password is refused".into(),
                _ => "SOCKS 5 that insists on authentication is refused: no users are set".into(),
            }));
            self.end(Step::EndClient, steps);
            return None;
        }
        steps.push(Step::ToClient(reply::method(method)));
        self.state = next;
        Some(bytes)
    }

    fn read_password(&mut self, steps: &mut Vec<Step>) -> Option<usize> {
        let why = match request::password(&self.held) {
            Ok(whole) => {
                let (Password { user, password }, bytes) = whole?;
                if self.config.knows(user, password) {
                    steps.push(Step::ToClient(reply::password(true)));
                    self.state = State::Request;
                    return Some(bytes);
                }
                format!("SOCKS 5: user {:?} refused", String::from_utf8_lossy(user))
            }
            Err(Fault { why, .. }) => why,
        };
        steps.push(Step::ToClient(reply::password(false)));
        steps.push(Step::Note(why));
        self.end(Step::EndClient, steps);
        None
    }

    fn read_request(&mut self, version: Version, steps: &mut Vec<Step>) -> Option<usize> {
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
        if version == Version::Four && self.config.users.is_some() {
            let why = "has no passwords, and users are set";
            self.refuse(version, Reply::NotAllowed, why, steps);
            return None;
        }
        match request {
            Request::Connect(target) => {
                steps.push(Step::Connect(target));
                self.state = State::Connecting(version);
                Some(bytes)
            }
            Request::Other(command) => {
                let why = format!("command {command} is not supported");
                self.refuse(version, Reply::CommandNotSupported, &why, steps);
                None
            }
        }
    }

    /// Says no to the request, and why to the log.
    fn refuse(&mut self, version: Version, reply: Reply, why: &str, steps: &mut Vec<Step>) {
        steps.push(Step::ToClient(reply::request(version, reply, None)));
        steps.push(Step::Note(format!("SOCKS {version}: {why}")));
        self.end(Step::EndClient, steps);
    }

    fn end(&mut self, how: Step, steps: &mut Vec<Step>) {
        steps.push(how);
        self.state = State::Over;
        self.held = Vec::new();
    }
}

impl Conversation for Socks {
    fn from_client(&mut self, bytes: &[u8], steps: &mut Vec<Step>) {
        if self.state != State::Over {
            self.held.extend_from_slice(bytes);
            self.read(steps);
        }
    }

    fn client_ended(&mut self, steps: &mut Vec<Step>) {
        self.client_ended = true;
        if self.awaits_client() {
            self.end(Step::EndClient, steps);
        }
    }

    fn connected(
        &mut self,
        result: Result<(SocketAddr, SocketAddr), Unreached>,
        steps: &mut Vec<Step>,
    ) {
        let State::Connecting(version) = self.state else { return };
        match result {
            Ok((_, own)) => {
                let granted = reply::request(version, Reply::Granted, Some(own));
                steps.push(Step::ToClient(granted));
                if !self.held.is_empty() {
                    steps.push(Step::ToServer(std::mem::take(&mut self.held)));
                }
                if self.client_ended {
                    steps.push(Step::EndServer);
                }
                self.end(Step::Pass, steps);
            }
            // Who did not let the client through has logged it.
            Err(unreached) => {
                let reply = reply::request(version, Reply::from(&unreached), None);
                steps.push(Step::ToClient(reply));
                self.end(Step::EndClient, steps);
            }
        }
    }

    /// Nothing: the answer to a connect is the end of the conversation.
    fn from_server(&mut self, _bytes: &[u8], _steps: &mut Vec<Step>) {}

    /// As [`Self::from_server`].
    fn server_ended(&mut self, _steps: &mut Vec<Step>) {}

    fn timed_out(&mut self, steps: &mut Vec<Step>) {
        if self.awaits_client() {
            self.end(Step::Reset("the client made no SOCKS request in time".into()), steps);
        }
    }

    fn awaits_client(&self) -> bool {
        matches!(self.state, State::First | State::Password | State::Request)
    }
}

impl SocksConfig {
    /// Looks at every user and every byte, so that the time taken tells nothing of a password but
    /// whether its length is right.
    fn knows(&self, user: &[u8], password: &[u8]) -> bool {
        let same = |a: &[u8], b: &[u8]| {
            a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
        };
        let users = self.users.iter().flatten();
        users.fold(false, |known, (name, secret)| {
            known | (same(user, name.as_bytes()) & same(password, secret.as_bytes()))
        })
    }
}
