//! The HTTP proxy: CONNECT, and requests for whole addresses (RFC 9110, RFC 9112).
//!
//! A client may request any number of resources, one after another, also ahead of the answers. One
//! server is connected at a time, and is kept while the next request is for it. Heads are parsed,
//! validated and rewritten; bodies pass. Ambiguous messages are refused.
//!
//! Programs in use are not exact, and are served where the deviation cannot mislead another party.
//! Accepted: a bare LF at the end of an answer's lines (`scan`), a fragment and a user in the
//! request's address and a user in `Host` (dropped, not passed on; see `address`), CONNECT without
//! `Host` (`request`). Strict: everything that delimits requests, since a party before or behind
//! could see another request in it: CRLF and nothing else at the end of its lines, lengths and
//! codings without a contradiction, no blanks before a colon, no folded lines, exactly one `Host`
//! in what is passed on, and chunks to the letter in both directions.

mod address;
mod authorization;
mod body;
mod exchange;
mod fault;
mod fields;
mod held;
mod request;
mod response;
mod scan;
mod server;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Conversation, ProxyStep, Target, Unreached, say};
use crate::cli::plan::User;
use crate::limits::HTTP_HELD_BYTES;
use exchange::{Answer, Exchange};
use fault::{Fault, Status};
use held::Held;
use request::Asked;
use scan::{LineEnd, Scan};

/// The proxy's name, and authentication.
pub struct HttpConfig {
    /// For the field `Via`: a host's name or any other word of RFC 9110's `token`.
    pub via: String,
    /// `None` means no authentication.
    pub users: Option<Vec<User>>,
}

/// The conversation with one client.
pub struct Http {
    config: Arc<HttpConfig>,
    state: State,
    /// Bytes of the client that are not consumed yet.
    held: Held,
    /// Progress of the search for a head.
    scan: Scan,
    /// The connected server, which may be used for the next request.
    server: Option<Target>,
    /// The start of a server's answer, until its head is complete.
    answer: Vec<u8>,
    /// See `scan`.
    answer_scan: Scan,
    client_ended: bool,
    /// A request was served.
    has_served: bool,
}

enum State {
    /// A request's head is awaited.
    Asking,
    /// For CONNECT.
    Tunnelling,
    Connecting(Box<Exchange>),
    /// The server is connected, and was sent the request's head.
    Serving(Box<Exchange>),
    Over,
}

impl Http {
    /// A conversation with a new client. An `Arc` lets all streams of an exit share the settings.
    pub fn new(config: impl Into<Arc<HttpConfig>>) -> Self {
        Http {
            config: config.into(),
            state: State::Asking,
            held: Held::default(),
            scan: Scan::default(),
            server: None,
            answer: Vec::new(),
            answer_scan: Scan::default(),
            client_ended: false,
            has_served: false,
        }
    }

    /// Handles the buffered bytes as far as possible.
    fn turn(&mut self, steps: &mut Vec<ProxyStep>) {
        loop {
            let goes_on = match &self.state {
                State::Asking => self.take_request(steps),
                State::Serving(_) => {
                    let held = std::mem::take(&mut self.held);
                    let used = self.pass_body(held.bytes(), steps);
                    self.held = held;
                    self.held.use_up(used);
                    self.settle(steps)
                }
                State::Tunnelling | State::Connecting(_) | State::Over => false,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Starts to serve the next request, if its head is complete. Returns whether there is more to
    /// do.
    fn take_request(&mut self, steps: &mut Vec<ProxyStep>) -> bool {
        let mut head_only = false;
        let asked = match self.scan.find(self.held.bytes(), request::begins, LineEnd::Crlf) {
            Ok(None) if !self.client_ended => return false,
            Ok(None) if !self.scan.has_begun() => {
                self.end(ProxyStep::EndClient, steps);
                return false;
            }
            Ok(None) => Err(Fault::bad("the client ended in the middle of a request's head")),
            Ok(Some(place)) => {
                let end = place.end;
                let head = &self.held.bytes()[place];
                head_only = request::is_for_head(head);
                let asked = request::read(head, &self.config);
                self.held.use_up(end);
                self.scan = Scan::default();
                asked
            }
            Err(why) => Err(request::no_head(why)),
        };
        match asked {
            Err(fault) => self.refuse(fault, !head_only, steps),
            Ok(Asked::Tunnel(target)) => {
                self.server = None;
                steps.push(ProxyStep::Connect(target));
                self.state = State::Tunnelling;
            }
            Ok(Asked::Resource(request)) if self.server.as_ref() == Some(&request.target) => {
                self.serve(Box::new(Exchange::new(request, true)), steps);
                return true;
            }
            Ok(Asked::Resource(request)) => {
                self.connect(Box::new(Exchange::new(request, false)), steps);
            }
        }
        false
    }

    fn connect(&mut self, exchange: Box<Exchange>, steps: &mut Vec<ProxyStep>) {
        self.server = None;
        steps.push(ProxyStep::Connect(exchange.target.clone()));
        self.state = State::Connecting(exchange);
    }

    /// The server is connected: sends it the request's head.
    fn serve(&mut self, mut exchange: Box<Exchange>, steps: &mut Vec<ProxyStep>) {
        self.server = Some(exchange.target.clone());
        if exchange.is_reused && exchange.is_repeatable {
            say_to_server(&exchange.head, steps);
        } else {
            say_to_server(&std::mem::take(&mut exchange.head), steps);
        }
        self.state = State::Serving(exchange);
    }

    /// Passes on the part that belongs to the request's body, and returns its length.
    fn pass_body(&mut self, bytes: &[u8], steps: &mut Vec<ProxyStep>) -> usize {
        let State::Serving(exchange) = &mut self.state else { return 0 };
        let mut out = Vec::new();
        let passed = exchange.body.pass(bytes, &mut out);
        if !out.is_empty() {
            say_to_server(&out, steps);
        }
        passed.unwrap_or_else(|why| {
            self.fail(Fault::bad(format!("the request's body is malformed: {why}")), steps);
            bytes.len()
        })
    }

    /// Whether the exchange is complete, so that the next can start. A server may have answered
    /// before it has received the whole request: the rest then follows.
    fn settle(&mut self, steps: &mut Vec<ProxyStep>) -> bool {
        let State::Serving(exchange) = &self.state else { return false };
        let sent = exchange.body.has_ended();
        if !sent && self.client_ended {
            self.fail(Fault::bad("the client ended in the middle of a request's body"), steps);
            return false;
        }
        let Answer::Body { body, keeps_client, keeps_server } = &exchange.answer else {
            return false;
        };
        if !body.has_ended() {
            return false;
        }
        if !keeps_client {
            self.end(ProxyStep::EndClient, steps);
            return false;
        }
        if !sent {
            return false;
        }
        if !keeps_server {
            self.drop_server(steps);
        }
        self.has_served = true;
        self.state = State::Asking;
        true
    }

    /// Marks the connected server as not reusable.
    fn drop_server(&mut self, steps: &mut Vec<ProxyStep>) {
        if self.server.take().is_some() {
            steps.push(ProxyStep::EndServer);
        }
    }

    /// Ends the request with an error, which is sent if no answer was started.
    fn fail(&mut self, fault: Fault, steps: &mut Vec<ProxyStep>) {
        let with_content = match &self.state {
            State::Over => return,
            State::Serving(exchange) if exchange.is_answered() => {
                steps.push(ProxyStep::Note(fault.why.into_owned()));
                return self.end(ProxyStep::EndClient, steps);
            }
            State::Serving(exchange) if matches!(exchange.answer, Answer::Body { .. }) => {
                return self.end(ProxyStep::Reset(fault.why.into_owned()), steps);
            }
            State::Serving(exchange) | State::Connecting(exchange) => !exchange.terms.head_only,
            State::Asking | State::Tunnelling => true,
        };
        self.refuse(fault, with_content, steps);
    }

    /// Answers with the error, and ends the conversation.
    fn refuse(&mut self, fault: Fault, with_content: bool, steps: &mut Vec<ProxyStep>) {
        say(&fault.answer(with_content), steps);
        steps.push(fault.note());
        self.end(ProxyStep::EndClient, steps);
    }

    fn end(&mut self, last: ProxyStep, steps: &mut Vec<ProxyStep>) {
        steps.push(last);
        self.state = State::Over;
        self.held = Held::default();
        self.answer = Vec::new();
        self.server = None;
    }

    /// Ends the conversation: bytes pass from here on.
    fn pass(&mut self, steps: &mut Vec<ProxyStep>) {
        if !self.held.bytes().is_empty() {
            say_to_server(self.held.bytes(), steps);
        }
        if self.client_ended {
            steps.push(ProxyStep::EndServer);
        }
        self.end(ProxyStep::Pass, steps);
    }
}

impl Conversation for Http {
    fn from_client(&mut self, bytes: &[u8], steps: &mut Vec<ProxyStep>) {
        if matches!(self.state, State::Over) {
            return;
        }
        // The middle of a body need not be buffered.
        let used = if self.held.bytes().is_empty() { self.pass_body(bytes, steps) } else { 0 };
        self.held.add(&bytes[used..]);
        self.turn(steps);
        if self.held.bytes().len() > HTTP_HELD_BYTES {
            let why = "too much was sent ahead, before the request could be served";
            self.fail(Fault::new(Status::ContentTooLarge, why), steps);
        }
    }

    fn client_ended(&mut self, steps: &mut Vec<ProxyStep>) {
        self.client_ended = true;
        self.turn(steps);
    }

    fn connected(
        &mut self,
        result: Result<(SocketAddr, SocketAddr), Unreached>,
        steps: &mut Vec<ProxyStep>,
    ) {
        match (std::mem::replace(&mut self.state, State::Over), result) {
            (State::Tunnelling, Ok(_)) => {
                say(b"HTTP/1.1 200 Connection established\r\n\r\n", steps);
                self.pass(steps);
            }
            (State::Connecting(exchange), Ok(_)) => {
                self.serve(exchange, steps);
                self.turn(steps);
            }
            (state @ (State::Tunnelling | State::Connecting(_)), Err(unreached)) => {
                self.state = state;
                self.fail(unreached.into(), steps);
            }
            (state, _) => self.state = state,
        }
    }

    fn from_server(&mut self, bytes: &[u8], steps: &mut Vec<ProxyStep>) {
        self.take_answer(bytes, steps);
    }

    fn server_ended(&mut self, steps: &mut Vec<ProxyStep>) {
        self.lose_server(steps);
    }

    fn server_failed(&mut self, steps: &mut Vec<ProxyStep>) {
        match &self.state {
            // An answer delimited by the end of the connection is cut short, and nothing in it
            // shows that.
            State::Serving(exchange) if exchange.answer_is_under_way() => {
                let why = "the server broke off in the middle of its answer";
                self.end(ProxyStep::Reset(why.into()), steps);
            }
            _ => self.lose_server(steps),
        }
    }

    fn timed_out(&mut self, steps: &mut Vec<ProxyStep>) {
        if !matches!(self.state, State::Asking) {
            return;
        }
        if self.has_served && !self.scan.has_begun() {
            // Nothing may follow the final answer: it could be taken for the answer to a request
            // that is in flight.
            return self.end(ProxyStep::EndClient, steps);
        }
        self.fail(Fault::new(Status::RequestTimeout, "no whole request came in time"), steps);
    }

    fn awaits_client(&self) -> bool {
        matches!(self.state, State::Asking)
    }

    fn held_bytes(&self) -> usize {
        let of_exchange = match &self.state {
            State::Connecting(exchange) | State::Serving(exchange) => exchange.head.len(),
            State::Asking | State::Tunnelling | State::Over => 0,
        };
        self.held.bytes().len() + self.answer.len() + of_exchange
    }

    fn takes_client(&self) -> bool {
        match &self.state {
            State::Asking => true,
            State::Serving(exchange) => !exchange.body.has_ended(),
            State::Tunnelling | State::Connecting(_) | State::Over => false,
        }
    }
}

/// Appends bytes for the server, to the last step if that has such already.
fn say_to_server(bytes: &[u8], steps: &mut Vec<ProxyStep>) {
    match steps.last_mut() {
        Some(ProxyStep::ToServer(said)) => said.extend_from_slice(bytes),
        _ => steps.push(ProxyStep::ToServer(bytes.to_vec())),
    }
}
