//! Clients of entrances with `?proxy=accept`: what they say first is whose the stream is.
//!
//! A header is looked at before it is taken, so that nothing of the stream behind it is ever here:
//! what belongs to a header that is not complete is taken, and of what completes it no more than
//! that.

use std::io;
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use tracing::debug;

use crate::io::driver::{Driver, Fd};
use crate::io::net;
use crate::limits::{DRAIN_GREETING_MILLIS, PROXY_HEADER_BYTES};
use crate::proxy_proto::proxy_header::{self, Read, Said};
use crate::session::{Moment, NO_ADDRESS};
use crate::worker::ingress::access::Came;
use crate::worker::stream::client::Client;
use crate::worker::token::Kind;
use crate::worker::{Drain, Key, Worker};

/// A client whose header is not complete.
#[derive(Debug)]
pub(super) struct Greeting {
    came: Came,
    /// What was taken of the header.
    taken: Vec<u8>,
    /// When patience ends, if it does.
    until: Option<Moment>,
}

impl<D: Driver> Worker<D> {
    /// A client has come in that has to send a header first.
    pub(in crate::worker) fn begin_greeting(&mut self, came: Came) {
        let until = match self.drain {
            Drain::No => self.cx.plan.timeouts.ask.map(|ask| self.cx.now.after(ask)),
            _ => Some(self.cx.now.after(Duration::from_millis(DRAIN_GREETING_MILLIS))),
        };
        let (client, socket) = (came.client, Fd::clone(&came.socket));
        match self.ingress.greetings.insert(Greeting { came, taken: Vec::new(), until }) {
            // The header usually comes with the connection.
            Some(key) => self.read_greeting(key),
            None => {
                net::reset_on_close(&socket);
                self.cx.log_refused(client, "too many clients have sent no PROXY header yet");
            }
        }
    }

    /// Reads what is there of a header.
    pub(in crate::worker) fn read_greeting(&mut self, key: Key) {
        let Some(greeting) = self.ingress.greetings.get_mut(key) else {
            self.cx.counters.stale += 1;
            return;
        };
        match take_header(&greeting.came.socket, &mut greeting.taken) {
            Ok(Some(said)) => {
                let Some(Greeting { mut came, .. }) = self.ingress.greetings.remove(key) else {
                    return;
                };
                match said {
                    Said::Client { source, .. } => {
                        came.client = Client::Address(net::plain(source))
                    }
                    // The sender's own connection, as if it had sent no header.
                    Said::Own => {}
                    // Not the sender either: host lists must not take it for that.
                    Said::Unknown => came.client = Client::Address(NO_ADDRESS),
                }
                self.connection_came(came);
            }
            Ok(None) => {
                let token = Kind::GreetingReady.of(key);
                self.cx.driver.poll(&greeting.came.socket, libc::POLLIN as u32, false, token);
            }
            Err(why) => self.refuse_greeting(key, &why),
        }
    }

    fn refuse_greeting(&mut self, key: Key, why: &Why) {
        let Some(Greeting { came: Came { socket, client, .. }, .. }) =
            self.ingress.greetings.remove(key)
        else {
            return;
        };
        net::reset_on_close(&socket);
        self.cx.driver.cancel_all(&socket);
        match why {
            Why::Refused(reason) => self.cx.log_refused(client, reason),
            Why::Gone(error) => debug!(%client, %error, "client gone before its PROXY header"),
        }
    }

    /// Ends those whose header has not come in time.
    pub(in crate::worker) fn sweep_greetings(&mut self) {
        let due: Vec<Key> = self
            .ingress
            .greetings
            .iter()
            .filter(|(_, greeting)| greeting.until.is_some_and(|until| until <= self.cx.now))
            .map(|(key, _)| key)
            .collect();
        let ask_secs = self.cx.plan.timeouts.ask.map_or(0, |ask| ask.as_secs());
        let why = Why::Refused(format!("no PROXY header within {ask_secs} s (TIMEOUT=ask)"));
        for key in due {
            self.refuse_greeting(key, &why);
        }
    }

    /// The process drains: a header that is on its way is still taken, one that does not come is waited
    /// for no longer.
    pub(in crate::worker) fn hurry_greetings(&mut self) {
        let soon = self.cx.now.after(Duration::from_millis(DRAIN_GREETING_MILLIS));
        for (_, greeting) in self.ingress.greetings.iter_mut() {
            greeting.until = Some(greeting.until.map_or(soon, |until| until.min(soon)));
        }
    }
}

/// Why a client is not served.
enum Why {
    Refused(String),
    /// It has ended, or reset, its connection: one who looked whether somebody listens.
    Gone(io::Error),
}

impl From<io::Error> for Why {
    fn from(error: io::Error) -> Why {
        Why::Gone(error)
    }
}

/// Takes the header, or what is there of it, from the socket. `None`: more has to come.
fn take_header(socket: &Fd, taken: &mut Vec<u8>) -> Result<Option<Said>, Why> {
    let mut buffer = [0; PROXY_HEADER_BYTES];
    let before_bytes = taken.len();
    buffer[..before_bytes].copy_from_slice(taken);
    let there_bytes = match look(socket, &mut buffer[before_bytes..], RecvFlags::PEEK) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        looked => before_bytes + looked?,
    };
    let (header_bytes, said) = match proxy_header::read(&buffer[..there_bytes]) {
        Ok(Read::Header { len_bytes, said }) => (len_bytes, Some(said)),
        Ok(Read::More) => (there_bytes, None),
        Err(error) => return Err(Why::Refused(error.to_string())),
    };
    look(socket, &mut buffer[before_bytes..header_bytes], RecvFlags::empty())?;
    if said.is_none() {
        taken.extend_from_slice(&buffer[before_bytes..there_bytes]);
    }
    Ok(said)
}

fn look(socket: &Fd, buffer: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
    loop {
        match recv(&**socket, &mut *buffer, flags | RecvFlags::DONTWAIT) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?.0),
        }
    }
}
