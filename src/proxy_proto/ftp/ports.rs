//! Ports for data connections: passive mode, where the peer opens one for the client, and active
//! mode, where we do for the server.

use std::net::{IpAddr, SocketAddr};

use super::address::{self, Fault};
use super::command::Command;
use super::reply::{self, is_of_a_transfer};
use super::{Due, Ftp, Stage, tell_server};
use crate::limits::FTP_DATA_PORT_MIN;
use crate::proxy_proto::{Lead, PortUse, ProxyStep, say};

/// Which of the two commands of passive mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// PASV: IPv4 only.
    Plain,
    /// EPSV: a port at the same host.
    Extended,
}

/// The ports of one conversation: one at a time, as the protocol has one address for the next
/// transfer.
#[derive(Debug, Default)]
pub(super) struct Ports {
    next_request: u32,
    open: Option<u32>,
    /// Asked for and not answered; everything waits for it.
    opening: Option<Opening>,
    /// The server knows PASV only.
    plain_only: bool,
}

#[derive(Debug)]
struct Opening {
    request: u32,
    what: What,
}

#[derive(Debug)]
enum What {
    /// For the client that sent this command.
    Passive(Form),
    /// For the server, by this address of ours.
    Active(IpAddr),
}

impl Ports {
    pub(super) fn is_being_opened(&self) -> bool {
        self.opening.is_some()
    }

    fn ask(&mut self, what: What) -> u32 {
        let request = self.next_request;
        self.next_request = request.wrapping_add(1);
        self.opening = Some(Opening { request, what });
        request
    }

    /// The one that is open is of no more use.
    fn close(&mut self, steps: &mut Vec<ProxyStep>) {
        steps.extend(self.open.take().map(ProxyStep::ClosePort));
    }

    /// The server does not take this one.
    pub(super) fn give_up(&mut self, request: u32, steps: &mut Vec<ProxyStep>) {
        if self.open == Some(request) {
            self.close(steps);
        }
    }

    /// This one is closed already.
    pub(super) fn is_used(&mut self, request: u32) {
        self.open.take_if(|open| *open == request);
    }
}

impl Ftp {
    /// PASV or EPSV. A server that is reached by IPv6 has no address for PASV, and is sent EPSV.
    pub(super) fn passive(&mut self, asked: Form, steps: &mut Vec<ProxyStep>) {
        let Stage::Talking { server, .. } = self.stage else { return };
        self.ports.close(steps);
        let sent = match server {
            IpAddr::V6(_) => Form::Extended,
            IpAddr::V4(_) if self.ports.plain_only => Form::Plain,
            IpAddr::V4(_) => asked,
        };
        self.ask_server(asked, sent, steps);
    }

    fn ask_server(&mut self, asked: Form, sent: Form, steps: &mut Vec<ProxyStep>) {
        self.pending.push_back(Due::Passive { asked, sent });
        let command: &[u8] = match sent {
            Form::Plain => b"PASV\r\n",
            Form::Extended => b"EPSV\r\n",
        };
        tell_server(command, steps);
    }

    /// EPSV may name the address family of the client's choice, which is independent of the one by which
    /// the server is reached.
    pub(super) fn extended_passive(&mut self, command: &Command, steps: &mut Vec<ProxyStep>) {
        match (&command.argument.to_ascii_uppercase()[..], self.client) {
            (b"", _) | (b"1", None | Some(IpAddr::V4(_))) | (b"2", None | Some(IpAddr::V6(_))) => {
                self.passive(Form::Extended, steps);
            }
            (b"ALL", _) => self.pass(command, Due::Reply, steps),
            (_, Some(IpAddr::V4(_))) => self.answer("522 Network protocol not supported, use (1)"),
            (_, Some(IpAddr::V6(_))) => self.answer("522 Network protocol not supported, use (2)"),
            (_, None) => self.answer("522 Network protocol not supported, use (1,2)"),
        }
    }

    /// The last line of the server's reply to PASV or EPSV. Of 227 only the port is used: the address is
    /// always that of the control connection.
    pub(super) fn passive_reply(
        &mut self,
        code: u16,
        line: &[u8],
        (asked, sent): (Form, Form),
        steps: &mut Vec<ProxyStep>,
    ) {
        let Stage::Talking { server, .. } = self.stage else { return };
        let text = reply::text(line);
        let port = match code {
            227 => address::port_of_227(text),
            229 => address::port_of_229(text),
            // EPSV is unknown to it; an IPv4 server can be sent PASV as well.
            500..=502 if sent == Form::Extended && server.is_ipv4() => {
                self.ports.plain_only = true;
                return self.ask_server(asked, Form::Plain, steps);
            }
            code => {
                if is_of_a_transfer(code) {
                    self.pending.push_front(Due::Passive { asked, sent });
                }
                return say(line, steps);
            }
        };
        match port {
            Some(port) if port >= FTP_DATA_PORT_MIN => {
                let request = self.ports.ask(What::Passive(asked));
                let lead = Lead::Server(SocketAddr::new(server, port));
                steps.push(ProxyStep::OpenPort { request, lead });
            }
            Some(port) => self.answer_now(&format!("425 The server offers port {port}"), steps),
            None => self.answer_now("425 The server names no port", steps),
        }
    }

    /// PORT or EPRT.
    pub(super) fn active(&mut self, command: &Command, steps: &mut Vec<ProxyStep>) {
        let Stage::Talking { server, own } = self.stage else { return };
        self.ports.close(steps);
        let named = match &command.verb[..] {
            "PORT" => address::of_port(&command.argument).ok_or(Fault::Syntax),
            _ => address::of_eprt(&command.argument),
        };
        match named {
            Err(Fault::Syntax) => self.answer("501 This is no address"),
            Err(Fault::Protocol) => {
                self.answer("522 Network protocol not supported, use (1,2)");
            }
            Ok(named) if Some(named.ip().to_canonical()) != self.client => {
                steps.push(ProxyStep::Note(format!("FTP data connection to {named} refused")));
                self.answer("500 Data connections go to the client's own host only");
            }
            Ok(named) if named.port() < FTP_DATA_PORT_MIN => {
                self.answer("501 Data connections go to no port below 1024");
            }
            Ok(named) => {
                let request = self.ports.ask(What::Active(own));
                let then = PortUse::CallClient(named.port());
                steps.push(ProxyStep::ListenHere { request, own: Some(own), from: server, then });
            }
        }
    }

    /// A requested port is open, or was refused.
    pub(super) fn port_is_open(
        &mut self,
        request: u32,
        result: Result<SocketAddr, String>,
        steps: &mut Vec<ProxyStep>,
    ) {
        let asked_for = |opening: &mut Opening| opening.request == request;
        let Some(Opening { what, .. }) = self.ports.opening.take_if(asked_for) else { return };
        let address = match (result, &what) {
            (Ok(address), _) => address,
            // The server's reply has arrived, and is replaced by this one.
            (Err(why), What::Passive(_)) => return self.answer_now(&not_open(&why), steps),
            (Err(why), What::Active(_)) => return self.answer(&not_open(&why)),
        };
        self.ports.open = Some(request);
        let port = address.port();
        match (what, address.ip().to_canonical()) {
            (What::Active(own), _) => {
                self.pending.push_back(Due::Active(request));
                tell_server(address::command(SocketAddr::new(own, port)).as_bytes(), steps);
            }
            (What::Passive(Form::Extended), _) => {
                let answer = format!("229 Entering Extended Passive Mode (|||{port}|)\r\n");
                say(answer.as_bytes(), steps);
            }
            (What::Passive(Form::Plain), IpAddr::V4(ip)) if !ip.is_unspecified() => {
                let numbers = address::as_numbers(ip, port);
                say(format!("227 Entering Passive Mode ({numbers}).\r\n").as_bytes(), steps);
            }
            (What::Passive(Form::Plain), _) => {
                self.ports.close(steps);
                self.answer_now("425 There is no IPv4 address for it here: use EPSV", steps);
            }
        }
    }
}

fn not_open(why: &str) -> String {
    format!("425 Cannot open a data connection: {}", why.escape_debug())
}
