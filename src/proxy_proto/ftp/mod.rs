//! FTP (RFC 959, RFC 2428): the control connection passes line by line, and the addresses of data
//! connections are rewritten, so that the client at one end of the tunnel meets the server at the
//! other.
//!
//! Passive mode: the server names a port (227, 229); the peer opens a port for the client alone,
//! which leads there, and that one is reported to the client. Active mode: the client names its
//! port (PORT, EPRT); we listen for the server alone and name that port to it, and the peer
//! connects to the client.
//!
//! Two rules keep others from being reached this way (RFC 2577): a data connection leads to the
//! control connection's own two hosts and to no port below 1024, whatever client or server request,
//! and encryption of the control connection, which would hide it, is refused.
//!
//! The server is the exit's, or the one that the client names by `USER name@host[:port]`.

mod address;
mod command;
mod line;
mod login;
mod ports;
mod reply;
mod server;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use super::{Conversation, ProxyStep, Target, Unreached, say};
use crate::limits::{FTP_OWN_ANSWERS_MAX, FTP_PENDING_MAX, PROXY_HEAD_BYTES};
use command::Command;
use line::{Lines, TooLong};
use ports::{Form, Ports};
use reply::Replies;

/// Commands of RFC 2228, which encrypt the control connection or the transfers.
const KEPT_BACK: [&str; 9] = ["AUTH", "ADAT", "PBSZ", "PROT", "CCC", "MIC", "CONF", "ENC", "TLS"];

/// The server, and the proxy's name.
#[derive(Debug, Clone)]
pub struct FtpConfig {
    /// The server; `None`: each client names one with its login.
    pub server: Option<Target>,
    /// The machine's name in the proxy's prompts.
    pub banner_host: String,
}

/// The conversation of one client with an FTP server.
#[derive(Debug)]
pub struct Ftp {
    config: FtpConfig,
    /// The client's host, if it is known: only this host gets data connections in active mode.
    client: Option<IpAddr>,
    stage: Stage,
    /// The server's host as it was named.
    target: Option<Target>,
    client_lines: Lines,
    server_lines: Lines,
    replies: Replies,
    /// Replies due to the client, in order.
    pending: VecDeque<Due>,
    ports: Ports,
    /// Replies of ours since the server's last one.
    own_answers: u32,
    client_ended: bool,
    /// The server was informed that the client has ended.
    server_told: bool,
}

#[derive(Debug)]
enum Stage {
    /// The client must name a server.
    Asking,
    /// Connecting to the server. It is then sent this user name, unless the client sends its own.
    Connecting(Option<Vec<u8>>),
    /// Connected to the server at the first address, from our own, the second.
    Talking {
        server: IpAddr,
        own: IpAddr,
    },
    Over,
}

/// A reply due to the client.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    /// The server's greeting. If a user name is pending, the greeting is not passed to the client:
    /// the user name is sent, and its reply is passed.
    Greeting(Option<Vec<u8>>),
    /// A reply of the server, unchanged.
    Reply,
    /// The same, without the features that are withheld.
    Features,
    /// The server's reply to PASV or EPSV; the client's command, and ours.
    Passive { asked: Form, sent: Form },
    /// The server's reply to PORT or EPRT, for this port of ours.
    Active(u32),
    /// A reply of ours, without its line end.
    Own(String),
}

impl Ftp {
    /// A conversation with a new client, whose address the peer may have reported.
    pub fn new(config: FtpConfig, client: Option<IpAddr>) -> Ftp {
        Ftp {
            target: config.server.clone(),
            config,
            client: client.map(|client| client.to_canonical()),
            stage: Stage::Asking,
            client_lines: Lines::default(),
            server_lines: Lines::default(),
            replies: Replies::default(),
            pending: VecDeque::new(),
            ports: Ports::default(),
            own_answers: 0,
            client_ended: false,
            server_told: false,
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// Handles everything that is buffered, one item at a time.
    fn advance(&mut self, steps: &mut Vec<ProxyStep>) {
        while !self.is_over() && self.advance_once(steps) {}
        if self.client_lines.held_bytes() > PROXY_HEAD_BYTES {
            self.give_up("Too much was said ahead of the answers", steps);
        } else if self.server_lines.held_bytes() > PROXY_HEAD_BYTES {
            self.give_up("The server says too much at once", steps);
        }
    }

    /// Handles one item. Returns whether there was any.
    fn advance_once(&mut self, steps: &mut Vec<ProxyStep>) -> bool {
        if self.ports.is_being_opened() {
            return false;
        }
        if let Some(Due::Own(text)) = self.pending.front_mut() {
            let text = std::mem::take(text);
            self.pending.pop_front();
            self.answer_now(&text, steps);
            return true;
        }
        // Before further lines of the server, so that the result does not depend on how its lines
        // are split.
        if self.takes_client()
            && let Some(line) = self.client_lines.next()
        {
            match line.map(|line| command::parse(&line)) {
                Ok(Some(command)) => self.command(&command, steps),
                Ok(None) => self.answer("500 This is no command"),
                Err(TooLong) => {
                    say(b"500 The line is too long\r\n", steps);
                    self.end(steps);
                }
            }
            return true;
        }
        if self.client_ended && self.pass_end_on(steps) {
            return true;
        }
        if let Some(line) = self.server_lines.next() {
            match line {
                Ok(line) => self.server_line(&line, steps),
                Err(TooLong) => self.give_up("A line of the server's is too long", steps),
            }
            return true;
        }
        false
    }

    fn command(&mut self, command: &Command, steps: &mut Vec<ProxyStep>) {
        let asks = self.config.server.is_none();
        match &command.verb[..] {
            "AUTH" => self.answer(
                "534 Encryption would hide where data connections go: use FTP without TLS through \
                 this exit, or an exit that passes everything",
            ),
            verb if KEPT_BACK.contains(&verb) => self.answer("503 There is no encryption here"),
            "USER" if asks => self.login(command, steps),
            "QUIT" if matches!(self.stage, Stage::Asking) => {
                say(b"221 Bye\r\n", steps);
                self.end(steps);
            }
            _ if matches!(self.stage, Stage::Asking) => self.answer(login::answer(command)),
            "PASV" => self.passive(Form::Plain, steps),
            "EPSV" => self.extended_passive(command, steps),
            "PORT" | "EPRT" => self.active(command, steps),
            // Other commands that name an address: RFC 1639, and some servers' own.
            "LPRT" | "LPSV" | "CPSV" | "SPSV" => self.answer("502 Use PASV, EPSV, PORT or EPRT"),
            "FEAT" => self.pass(command, Due::Features, steps),
            _ => self.pass(command, Due::Reply, steps),
        }
    }

    fn pass(&mut self, command: &Command, due: Due, steps: &mut Vec<ProxyStep>) {
        self.pending.push_back(due);
        tell_server(&command.to_server(), steps);
    }

    /// Handles the login by which the client names the server.
    fn login(&mut self, command: &Command, steps: &mut Vec<ProxyStep>) {
        let login = login::parse(&command.argument);
        match (&self.stage, login) {
            (Stage::Asking, Ok(login)) => {
                self.target = Some(login.target.clone());
                self.stage = Stage::Connecting(Some(login.name));
                steps.push(ProxyStep::Connect(login.target));
            }
            (Stage::Asking, Err(why)) => self.answer(&format!("530 {why}")),
            (_, Ok(login)) if self.target.as_ref() != Some(&login.target) => {
                self.answer("530 Another host needs another connection");
            }
            (_, login) => {
                // A name without a host is for the same server.
                let name = login.map_or_else(|_| command.argument.clone(), |login| login.name);
                self.pending.push_back(Due::Reply);
                tell_server(&user(&name), steps);
            }
        }
    }

    /// Sends a reply in its turn.
    fn answer(&mut self, text: &str) {
        self.pending.push_back(Due::Own(text.to_owned()));
    }

    fn answer_now(&mut self, text: &str, steps: &mut Vec<ProxyStep>) {
        say(format!("{text}\r\n").as_bytes(), steps);
        self.own_answers += 1;
        if self.own_answers == FTP_OWN_ANSWERS_MAX {
            self.give_up("That is enough in vain", steps);
        }
    }

    /// Informs the server that the client has ended, when everything is answered. Returns whether
    /// there was anything to do.
    fn pass_end_on(&mut self, steps: &mut Vec<ProxyStep>) -> bool {
        match self.stage {
            Stage::Asking => self.end(steps),
            Stage::Talking { .. } if self.pending.is_empty() && !self.server_told => {
                self.server_told = true;
                steps.push(ProxyStep::EndServer);
            }
            _ => return false,
        }
        true
    }

    /// The reason is sent to the client unchanged.
    fn give_up(&mut self, why: &str, steps: &mut Vec<ProxyStep>) {
        say(format!("421 {why}\r\n").as_bytes(), steps);
        steps.push(ProxyStep::Note(format!("FTP gave up: {why}")));
        self.end(steps);
    }

    fn end(&mut self, steps: &mut Vec<ProxyStep>) {
        steps.push(ProxyStep::EndClient);
        self.stage = Stage::Over;
        self.client_lines = Lines::default();
        self.server_lines = Lines::default();
        self.pending = VecDeque::new();
    }
}

fn user(name: &[u8]) -> Vec<u8> {
    [b"USER ", name, b"\r\n"].concat()
}

/// Appends bytes for the server, to the last step if that has such already.
fn tell_server(bytes: &[u8], steps: &mut Vec<ProxyStep>) {
    match steps.last_mut() {
        Some(ProxyStep::ToServer(said)) => said.extend_from_slice(bytes),
        _ => steps.push(ProxyStep::ToServer(bytes.to_vec())),
    }
}

impl Conversation for Ftp {
    fn begin(&mut self, steps: &mut Vec<ProxyStep>) {
        match &self.target {
            Some(server) => {
                self.stage = Stage::Connecting(None);
                steps.push(ProxyStep::Connect(server.clone()));
            }
            None => {
                let host = self.config.banner_host.escape_debug();
                let greeting = format!("220 FTP proxy at {host}: say USER name@host[:port]\r\n");
                say(greeting.as_bytes(), steps);
            }
        }
    }

    fn from_client(&mut self, bytes: &[u8], steps: &mut Vec<ProxyStep>) {
        if !self.is_over() {
            self.client_lines.put(bytes);
            self.advance(steps);
        }
    }

    fn client_ended(&mut self, steps: &mut Vec<ProxyStep>) {
        self.client_ended = true;
        self.advance(steps);
    }

    fn connected(
        &mut self,
        result: Result<(SocketAddr, SocketAddr), Unreached>,
        steps: &mut Vec<ProxyStep>,
    ) {
        let Stage::Connecting(name) = &mut self.stage else { return };
        match result {
            Ok((server, own)) => {
                self.pending.push_back(Due::Greeting(name.take()));
                let (server, own) = (server.ip().to_canonical(), own.ip().to_canonical());
                self.stage = Stage::Talking { server, own };
                self.advance(steps);
            }
            Err(unreached) => {
                let why = unreached.why().escape_debug();
                let at = self.target.as_ref().map(|at| format!(" to {at}")).unwrap_or_default();
                self.give_up(&format!("Cannot connect{at}: {why}"), steps);
            }
        }
    }

    fn from_server(&mut self, bytes: &[u8], steps: &mut Vec<ProxyStep>) {
        if let Stage::Talking { .. } = self.stage {
            self.server_lines.put(bytes);
            self.advance(steps);
        }
    }

    fn server_ended(&mut self, steps: &mut Vec<ProxyStep>) {
        if let Stage::Talking { .. } = self.stage {
            if !self.pending.is_empty() || self.ports.is_being_opened() {
                say(b"421 The server has ended the connection\r\n", steps);
            }
            self.end(steps);
        }
    }

    fn port_opened(
        &mut self,
        request: u32,
        result: Result<SocketAddr, String>,
        steps: &mut Vec<ProxyStep>,
    ) {
        if !self.is_over() {
            self.port_is_open(request, result, steps);
            self.advance(steps);
        }
    }

    fn port_used(
        &mut self,
        request: u32,
        _result: Result<SocketAddr, String>,
        _steps: &mut Vec<ProxyStep>,
    ) {
        self.ports.is_used(request);
    }

    fn timed_out(&mut self, steps: &mut Vec<ProxyStep>) {
        if self.awaits_client() {
            self.give_up("No host was named in time", steps);
        }
    }

    fn awaits_client(&self) -> bool {
        matches!(self.stage, Stage::Asking)
    }

    fn held_bytes(&self) -> usize {
        self.client_lines.held_bytes() + self.server_lines.held_bytes()
    }

    fn takes_client(&self) -> bool {
        let waits = self.ports.is_being_opened()
            || self.pending.len() >= FTP_PENDING_MAX
            // Later commands may depend on the results of these.
            || matches!(self.pending.back(), Some(Due::Greeting(_) | Due::Passive { .. }));
        matches!(self.stage, Stage::Asking | Stage::Talking { .. }) && !waits
    }
}
