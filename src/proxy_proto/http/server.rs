//! Data of a request's server.

use super::body::Body;
use super::exchange::Answer;
use super::fault::Fault;
use super::response::{self, Answered};
use super::scan::{LineEnd, Scan};
use super::{Http, State, say};
use crate::limits::PROXY_HEAD_BYTES;
use crate::proxy_proto::ProxyStep;

impl Http {
    /// Bytes of the server that is connected.
    pub(super) fn take_answer(&mut self, mut bytes: &[u8], steps: &mut Vec<ProxyStep>) {
        while !bytes.is_empty() {
            let State::Serving(exchange) = &mut self.state else {
                // No request is pending. These bytes must not become the next answer.
                if matches!(self.state, State::Asking) {
                    self.drop_server(steps);
                }
                return;
            };
            match &mut exchange.answer {
                Answer::Head => bytes = &bytes[self.take_head(bytes, steps)..],
                Answer::Body { body, keeps_server, .. } if body.has_ended() => {
                    // The request is still being sent.
                    *keeps_server = false;
                    return;
                }
                Answer::Body { body, .. } => {
                    let mut out = Vec::new();
                    let passed = body.pass(bytes, &mut out);
                    if !out.is_empty() {
                        say(&out, steps);
                    }
                    match passed {
                        Ok(used) => {
                            bytes = &bytes[used..];
                            self.turn(steps);
                        }
                        Err(why) => {
                            let why = format!("the server's answer is malformed: {why}");
                            return self.end(ProxyStep::Reset(why), steps);
                        }
                    }
                }
            }
        }
    }

    /// Consumes bytes of the answer's head, and returns their number.
    fn take_head(&mut self, bytes: &[u8], steps: &mut Vec<ProxyStep>) -> usize {
        let before = self.answer.len();
        // One more than a head can have, which makes it too long.
        let most = (PROXY_HEAD_BYTES + 1 - before).min(bytes.len());
        self.answer.extend_from_slice(&bytes[..most]);
        let place = match self.answer_scan.find(&self.answer, response::begins, LineEnd::LfToo) {
            Ok(None) => return most,
            Ok(Some(place)) => place,
            Err(why) => {
                self.fail(Fault::gateway(response::no_head(why)), steps);
                return bytes.len();
            }
        };
        let answer = std::mem::take(&mut self.answer);
        self.answer_scan = Scan::default();
        let used = place.end - before;
        let State::Serving(exchange) = &mut self.state else { return used };
        match response::read(&answer[place], exchange.terms, &self.config.via) {
            Err(why) => self.fail(Fault::gateway(why), steps),
            Ok(Answered::Interim(head)) => {
                // The server does answer: the request will not be repeated.
                exchange.is_reused = false;
                if let Some(head) = head {
                    say(&head, steps);
                }
            }
            Ok(Answered::Switched(_)) if !exchange.body.has_ended() => {
                let why = "the server changes to another protocol in the middle of the request";
                self.fail(Fault::gateway(why), steps);
            }
            Ok(Answered::Switched(head)) => {
                say(&head, steps);
                if used < bytes.len() {
                    say(&bytes[used..], steps);
                }
                self.pass(steps);
                return bytes.len();
            }
            Ok(Answered::Final(answered)) => {
                exchange.head = Vec::new();
                exchange.answer = Answer::Body {
                    body: Body::new(answered.body),
                    keeps_client: answered.keeps_client,
                    keeps_server: answered.keeps_server,
                };
                say(&answered.head, steps);
                self.turn(steps);
            }
        }
        used
    }

    /// The server will send no more.
    pub(super) fn lose_server(&mut self, steps: &mut Vec<ProxyStep>) {
        match std::mem::replace(&mut self.state, State::Asking) {
            State::Asking => self.drop_server(steps),
            State::Serving(exchange) => match &exchange.answer {
                Answer::Head if exchange.is_reused && self.answer.is_empty() => {
                    if exchange.is_repeatable {
                        let mut exchange = exchange;
                        exchange.is_reused = false;
                        return self.connect(exchange, steps);
                    }
                    // As without a proxy, the client decides whether to repeat the request (RFC 9110
                    // section 9.2.2).
                    let why = "the server ended before it answered on a kept connection";
                    steps.push(ProxyStep::Note(why.into()));
                    self.end(ProxyStep::EndClient, steps);
                }
                Answer::Head => {
                    let why = if self.answer.is_empty() {
                        "the server ended without an answer"
                    } else {
                        "the server ended in the middle of its answer's head"
                    };
                    self.state = State::Serving(exchange);
                    self.fail(Fault::gateway(why), steps);
                }
                Answer::Body { body, .. } if body.has_ended() || body.ends_with_connection() => {
                    self.end(ProxyStep::EndClient, steps);
                }
                Answer::Body { .. } => {
                    let why = "the server ended in the middle of its answer";
                    self.end(ProxyStep::Reset(why.into()), steps);
                }
            },
            // Of a server before this one.
            state => self.state = state,
        }
    }
}
