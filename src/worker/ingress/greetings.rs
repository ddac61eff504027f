//! PROXY headers of clients at entrances with `?proxy=accept`. Runs between accepting a connection
//! and [`crate::worker::ingress::access`].
//!
//! Headers are peeked at before they are received, so that no byte of the stream behind them is
//! consumed: only bytes known to belong to the header are received.

use std::io;
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use tracing::debug;

use crate::io::driver::{Driver, Fd};
use crate::io::net;
use crate::limits::{DRAIN_GREETING_MILLIS, PROXY_HEADER_BYTES};
use crate::proxy_proto::proxy_header::{self, Read, Said};
use crate::session::{Moment, NO_ADDRESS};
use crate::worker::client::Client;
use crate::worker::context::{Cx, Drain};
use crate::worker::datagram::Datagrams;
use crate::worker::ingress::Ingress;
use crate::worker::message::AcceptedConn;
use crate::worker::stream::Streams;
use crate::worker::table::Key;
use crate::worker::token::Kind;

/// A client whose PROXY header is incomplete.
#[derive(Debug)]
pub(super) struct HeaderRead {
    came: AcceptedConn,
    /// Header bytes received so far.
    taken: Vec<u8>,
    /// Deadline, if any.
    until: Option<Moment>,
}

impl Ingress {
    /// Begins to read the header of a client.
    pub(super) fn begin_header_read<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        came: AcceptedConn,
    ) {
        let until = match cx.drain {
            Drain::No => cx.plan.timeouts.ask.map(|ask| cx.now.after(ask)),
            _ => Some(cx.now.after(Duration::from_millis(DRAIN_GREETING_MILLIS))),
        };
        let (client, socket) = (came.client, Fd::clone(&came.socket));
        match self.header_reads.insert(HeaderRead { came, taken: Vec::new(), until }) {
            // The header usually arrives with the connection.
            Some(key) => self.read_header(cx, streams, datagrams, key),
            None => {
                net::reset_on_close(&socket);
                cx.log_refused(client, "too many clients have sent no PROXY header yet");
            }
        }
    }

    /// Reads available header bytes.
    pub(in crate::worker) fn read_header<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        key: Key,
    ) {
        let Some(read) = self.header_reads.get_mut(key) else {
            cx.counters.stale += 1;
            return;
        };
        match take_header(&read.came.socket, &mut read.taken) {
            Ok(Some(said)) => {
                let Some(HeaderRead { mut came, .. }) = self.header_reads.remove(key) else {
                    return;
                };
                match said {
                    Said::Client { source, .. } => {
                        came.client = Client::Address(net::plain(source))
                    }
                    // The sender's own connection, as if without a header.
                    Said::Own => {}
                    // Not the sender's address either: host lists must not match it.
                    Said::Unknown => came.client = Client::Address(NO_ADDRESS),
                }
                self.on_connection(cx, streams, datagrams, came);
            }
            Ok(None) => {
                let token = Kind::HeaderReady.of(key);
                cx.driver.poll(&read.came.socket, libc::POLLIN as u32, false, token);
            }
            Err(why) => self.refuse_header_read(cx, key, &why),
        }
    }

    fn refuse_header_read<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, why: &Why) {
        let Some(HeaderRead { came: AcceptedConn { socket, client, .. }, .. }) =
            self.header_reads.remove(key)
        else {
            return;
        };
        net::reset_on_close(&socket);
        cx.driver.cancel_all(&socket);
        match why {
            Why::Refused(reason) => cx.log_refused(client, reason),
            Why::Gone(error) => debug!(%client, %error, "client gone before its PROXY header"),
        }
    }

    /// Rejects clients whose header is overdue.
    pub(in crate::worker) fn sweep_header_reads<D: Driver>(&mut self, cx: &mut Cx<D>) {
        let due: Vec<Key> = self
            .header_reads
            .iter()
            .filter(|(_, read)| read.until.is_some_and(|until| until <= cx.now))
            .map(|(key, _)| key)
            .collect();
        let ask_secs = cx.plan.timeouts.ask.map_or(0, |ask| ask.as_secs());
        let why = Why::Refused(format!("no PROXY header within {ask_secs} s (TIMEOUT=ask)"));
        for key in due {
            self.refuse_header_read(cx, key, &why);
        }
    }

    /// Shortens the deadlines for a drain: headers in flight are still accepted.
    pub(super) fn shorten_header_deadlines<D: Driver>(&mut self, cx: &mut Cx<D>) {
        let soon = cx.now.after(Duration::from_millis(DRAIN_GREETING_MILLIS));
        for (_, read) in self.header_reads.iter_mut() {
            read.until = Some(read.until.map_or(soon, |until| until.min(soon)));
        }
    }
}

/// Why a client is not served.
enum Why {
    Refused(String),
    /// The client closed or reset the connection, as port probes do.
    Gone(io::Error),
}

impl From<io::Error> for Why {
    fn from(error: io::Error) -> Why {
        Why::Gone(error)
    }
}

/// Receives the header, or its available part. `None`: incomplete.
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
