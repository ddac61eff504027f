//! The telnet proxy: asks its client for a host, then passes everything through.
//!
//! While it asks it is a plain server in line mode: it agrees to no option, and the client echoes
//! and edits. Options that the client and the server agree on pass through unchanged.
//!
//! The starts of the lines (`>> Host name: `, `-- Connected to `, and `!!!!!!!!` for failures) are
//! the original's: terminal programs that dial through such a proxy wait for them.

mod line;
mod request;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use super::{Conversation, ProxyStep, Target, Unreached, say};
use crate::limits::{PROXY_HEAD_BYTES, TELNET_FAILURES_MAX, TELNET_PROMPTS_MAX};
use line::{Heard, Reader};
use request::Request;

const PROMPT: &[u8] = b">> Host name: ";
const TROUBLE: &str = "!!!!!!!!";

/// The proxy's name.
#[derive(Debug, Clone)]
pub struct TelnetConfig {
    /// The machine's name in the prompts.
    pub banner_host: String,
}

/// The conversation with one client.
#[derive(Debug)]
pub struct Telnet {
    config: TelnetConfig,
    state: State,
    reader: Reader,
    /// Raw bytes that the client typed ahead: for the server if it is reached, else the next line.
    held: Vec<u8>,
    /// Bytes received since the last connect.
    asked_bytes: usize,
    failures: u32,
    prompts: u32,
    client_ended: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Asking,
    Connecting(Target),
    Over,
}

impl Telnet {
    /// A conversation with a new client.
    pub fn new(config: TelnetConfig) -> Self {
        Telnet {
            config,
            state: State::Asking,
            reader: Reader::default(),
            held: Vec::new(),
            asked_bytes: 0,
            failures: 0,
            prompts: 0,
            client_ended: false,
        }
    }

    /// Handles bytes of the client until it has named a host.
    fn read(&mut self, mut bytes: &[u8], steps: &mut Vec<ProxyStep>) {
        while self.state == State::Asking && !bytes.is_empty() {
            let (taken, heard) = self.reader.take(bytes);
            bytes = &bytes[taken..];
            self.asked_bytes += taken;
            if self.asked_bytes > PROXY_HEAD_BYTES {
                self.give_up("Too much was said without a host", steps);
            } else if let Some(heard) = heard {
                self.answer(heard, steps);
            }
        }
        if let State::Connecting(_) = self.state {
            self.held.extend_from_slice(bytes);
            if self.held.len() > PROXY_HEAD_BYTES {
                self.give_up("Too much was said before the server was connected", steps);
            }
        }
    }

    fn answer(&mut self, heard: Heard, steps: &mut Vec<ProxyStep>) {
        match heard {
            Heard::Line(line) => match request::parse(&line) {
                Ok(Request::Nothing) => self.prompt(steps),
                Ok(Request::Quit) => self.bye(steps),
                Ok(Request::Connect(target)) => {
                    self.asked_bytes = 0;
                    self.state = State::Connecting(target.clone());
                    steps.push(ProxyStep::Connect(target));
                }
                Err(why) => self.failed(&why, steps),
            },
            Heard::TooLong => self.failed("The line is too long", steps),
            Heard::Ends => self.bye(steps),
            Heard::Refuse(refusal) => say(&refusal, steps),
            Heard::AreYouThere => say(b"[Yes]\r\n", steps),
        }
    }

    fn prompt(&mut self, steps: &mut Vec<ProxyStep>) {
        if self.prompts == TELNET_PROMPTS_MAX {
            return self.give_up("Asked often enough", steps);
        }
        self.prompts += 1;
        say(PROMPT, steps);
    }

    /// Reports the failure, and prompts again, a limited number of times.
    fn failed(&mut self, why: &str, steps: &mut Vec<ProxyStep>) {
        self.failures += 1;
        if self.failures == TELNET_FAILURES_MAX {
            self.give_up(why, steps);
        } else {
            say(format!("{TROUBLE} {why}\r\n").as_bytes(), steps);
            self.prompt(steps);
        }
    }

    fn give_up(&mut self, why: &str, steps: &mut Vec<ProxyStep>) {
        say(format!("{TROUBLE} {why}\r\n").as_bytes(), steps);
        steps.push(ProxyStep::Note(format!("telnet proxy gave up: {why}")));
        self.bye(steps);
    }

    fn bye(&mut self, steps: &mut Vec<ProxyStep>) {
        say(b"-- Bye.\r\n", steps);
        self.end(ProxyStep::EndClient, steps);
    }

    fn end(&mut self, how: ProxyStep, steps: &mut Vec<ProxyStep>) {
        steps.push(how);
        self.state = State::Over;
        self.held = Vec::new();
    }
}

impl Conversation for Telnet {
    fn begin(&mut self, steps: &mut Vec<ProxyStep>) {
        let greeting = format!(
            "-- Telnet proxy at {}.\r\n\
             -- Name a host, or a host and a port; \"quit\" ends.\r\n",
            self.config.banner_host.escape_debug(),
        );
        say(greeting.as_bytes(), steps);
        self.prompt(steps);
    }

    fn from_client(&mut self, bytes: &[u8], steps: &mut Vec<ProxyStep>) {
        self.read(bytes, steps);
    }

    fn client_ended(&mut self, steps: &mut Vec<ProxyStep>) {
        self.client_ended = true;
        if self.awaits_client() {
            self.end(ProxyStep::EndClient, steps);
        }
    }

    fn connected(
        &mut self,
        result: Result<(SocketAddr, SocketAddr), Unreached>,
        steps: &mut Vec<ProxyStep>,
    ) {
        let State::Connecting(target) = &self.state else { return };
        match result {
            Ok(_) => {
                say(format!("-- Connected to {target}\r\n").as_bytes(), steps);
                if !self.held.is_empty() {
                    steps.push(ProxyStep::ToServer(std::mem::take(&mut self.held)));
                }
                if self.client_ended {
                    steps.push(ProxyStep::EndServer);
                }
                self.end(ProxyStep::Pass, steps);
            }
            Err(unreached) => {
                let why = format!("Cannot connect to {target}: {}", unreached.why().escape_debug());
                self.state = State::Asking;
                self.failed(&why, steps);
                let ahead = std::mem::take(&mut self.held);
                self.read(&ahead, steps);
                if self.client_ended && self.awaits_client() {
                    self.end(ProxyStep::EndClient, steps);
                }
            }
        }
    }

    /// Not called: a successful connect ends the conversation.
    fn from_server(&mut self, _bytes: &[u8], _steps: &mut Vec<ProxyStep>) {}

    /// As [`Self::from_server`].
    fn server_ended(&mut self, _steps: &mut Vec<ProxyStep>) {}

    fn timed_out(&mut self, steps: &mut Vec<ProxyStep>) {
        if self.awaits_client() {
            say(b"\r\n", steps);
            self.give_up("No host was named in time", steps);
        }
    }

    fn awaits_client(&self) -> bool {
        self.state == State::Asking
    }
}
