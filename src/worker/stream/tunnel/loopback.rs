//! Proxies without a peer: the process is its own peer.
//!
//! Two tunnels of this worker are joined by a socket pair. A client becomes a stream of one of them
//! and leaves by an exit at the other. A proxy thus behaves as behind a real tunnel, including
//! related streams (forwarded ports, datagrams, callbacks), limits, timeouts and drain.
//!
//! Once a proxy handshake is done and bytes only pass through, the stream is taken out of the
//! tunnels: client and server become a [`Pair`], relayed as by a plain relay. This happens when
//! nothing of the stream is in flight; neither socket is read until then. A stream that does not
//! become quiescent, or that has ended in one direction, stays in the tunnel, which carries it as
//! well.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use tracing::{debug, warn};

use crate::io::driver::Driver;
use crate::io::link::Link;
use crate::io::net;
use crate::limits::JOIN_MILLIS;
use crate::policy::connection_limits::LimitGuard;
use crate::session::{Moment, Rest};
use crate::worker::context::{Cx, Drain, Effect};
use crate::worker::stream::Streams;
use crate::worker::stream::conn::{Conn, Reading, Stage};
use crate::worker::table::Key;
use crate::worker::token::StreamOwner;

/// Name of the peer in the log.
const NAME: &str = "this process";

/// State of the loopback and of streams about to leave it.
#[derive(Debug, Default)]
pub(in crate::worker::stream) struct Loopback {
    /// Exits whose stream is to be joined with its client, each with a deadline.
    joining: Vec<(Key, Moment)>,
    /// When to retry creating the loopback.
    again_at: Option<Moment>,
}

impl Streams {
    /// Creates the two tunnels if the plan has proxies only; again if they break.
    pub(in crate::worker) fn begin_loopback<D: Driver>(&mut self, cx: &mut Cx<D>) {
        if !cx.is_loopback() || cx.drain != Drain::No || self.tunnels.len() > 0 {
            return;
        }
        let pair = UnixStream::pair().and_then(|(one, other)| {
            one.set_nonblocking(true)?;
            other.set_nonblocking(true)?;
            Ok([one, other])
        });
        match pair {
            Ok(ends) => {
                for end in ends {
                    let link = Link::socket(Rc::new(OwnedFd::from(end)), NAME.to_owned());
                    self.begin_tunnel(cx, link);
                }
            }
            // Descriptors are exhausted; those of the broken tunnels are about to be closed.
            Err(error) => {
                warn!(%error, "cannot join this process with itself");
                self.loopback.again_at = Some(cx.now.after(Duration::from_millis(JOIN_MILLIS)));
            }
        }
    }

    /// The next deadline of the loopback.
    pub(in crate::worker) fn next_join(&self) -> Option<Moment> {
        let joining = self.loopback.joining.iter().map(|&(_, until)| until);
        joining.chain(self.loopback.again_at).min()
    }

    /// Joins clients with servers whose streams are quiescent, as long as there is room for pairs.
    pub(in crate::worker) fn join_quiescent<D: Driver>(&mut self, cx: &mut Cx<D>, mut room: usize) {
        if self.loopback.again_at.is_some_and(|at| at <= cx.now) {
            self.loopback.again_at = None;
            self.begin_loopback(cx);
        }
        let mut at = 0;
        while let Some(&(key, until)) = self.loopback.joining.get(at) {
            match self.client_of(key) {
                Some(client) if self.has_ended(client) || self.has_ended(key) => {
                    self.loopback.joining.swap_remove(at);
                    self.keep_in_tunnel(cx, client, key);
                }
                Some(client) if self.is_quiescent(client, key) => {
                    self.loopback.joining.swap_remove(at);
                    if room == 0 {
                        self.keep_in_tunnel(cx, client, key);
                        continue;
                    }
                    room -= 1;
                    self.join(cx, client, key);
                }
                Some(client) if until <= cx.now => {
                    self.loopback.joining.swap_remove(at);
                    self.keep_in_tunnel(cx, client, key);
                }
                Some(client) => {
                    self.pause_reading(cx, client);
                    at += 1;
                }
                None => {
                    self.loopback.joining.swap_remove(at);
                    self.resume_reading(cx, key);
                }
            }
        }
    }

    /// The proxy handshake of a stream is done: joins it with its server once it is quiescent.
    pub(in crate::worker::stream) fn join_when_quiescent<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
    ) {
        if cx.is_loopback() && self.conns.get(key).is_some_and(|l| l.stream.is_some()) {
            self.pause_reading(cx, key);
            self.loopback.joining.push((key, cx.now.after(Duration::from_millis(JOIN_MILLIS))));
        }
    }

    /// The connection at the other tunnel whose stream has this exit.
    fn client_of(&self, key: Key) -> Option<Key> {
        let exit = self.conns.get(key)?;
        let number = self.tunnels.get(exit.tunnel)?.session.number_of(exit.stream?)?;
        let (_, other) = self.tunnels.iter().find(|&(other, _)| other != exit.tunnel)?;
        let stream = other.session.opened_as(number)?;
        StreamOwner::conn(other.session.user_of(stream)?)
    }

    /// Whether a direction has ended, or the connection no longer just passes bytes.
    fn has_ended(&self, key: Key) -> bool {
        self.conns.get(key).is_none_or(|conn| {
            conn.read_ended
                || conn.end_after_output
                || conn.fd.is_none()
                || !matches!(conn.stage, Stage::Open)
                || self.rest_of(conn).is_none_or(|rest| rest.has_end)
        })
    }

    fn rest_of(&self, conn: &Conn) -> Option<Rest> {
        self.tunnels.get(conn.tunnel)?.session.rest_of(conn.stream?)
    }

    /// Nothing of the stream is in flight: everything that either side has sent is written to the
    /// other side's socket. The matching credit shows that no window update is in flight either.
    fn is_quiescent(&self, client: Key, exit: Key) -> bool {
        let (Some(client), Some(exit)) = (self.conns.get(client), self.conns.get(exit)) else {
            return false;
        };
        let is_quiet = |conn: &Conn| {
            matches!(conn.reading, Reading::Idle | Reading::Watched)
                && !conn.sending
                && conn.input.is_empty()
                && conn.output_is_empty()
        };
        let (Some(ours), Some(theirs)) = (self.rest_of(client), self.rest_of(exit)) else {
            return false;
        };
        is_quiet(client)
            && is_quiet(exit)
            && ours.is_still
            && theirs.is_still
            && ours.credit_bytes == theirs.allowance_bytes
            && theirs.credit_bytes == ours.allowance_bytes
    }

    /// Stops reading the socket.
    fn pause_reading<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.joining = true;
            conn.reading.cancel(&mut cx.driver);
        }
    }

    fn resume_reading<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.joining = false;
            self.read_conn(cx, key);
        }
    }

    fn keep_in_tunnel<D: Driver>(&mut self, cx: &mut Cx<D>, client: Key, exit: Key) {
        debug!(stream = client.number(), exit = exit.number(), "a stream stays in the tunnel");
        self.resume_reading(cx, client);
        self.resume_reading(cx, exit);
    }

    /// Takes a stream out of the tunnels and turns its client and server into a pair.
    fn join<D: Driver>(&mut self, cx: &mut Cx<D>, client: Key, exit: Key) {
        let now = cx.now;
        cx.effects.push_back(Effect::StreamOver(client));
        let (Some(mut client), Some(exit)) = (self.conns.remove(client), self.conns.remove(exit))
        else {
            return;
        };
        for conn in [&client, &exit] {
            if let (Some(tunnel), Some(stream)) = (self.tunnels.get_mut(conn.tunnel), conn.stream) {
                tunnel.session.data_end(stream, now);
            }
            self.tunnels.mark(conn.tunnel);
        }
        let (Some(client_fd), Some(server)) = (client.fd, exit.fd) else { return };
        for fd in [&client_fd, &server] {
            // Only polls are in flight, and their results no longer matter.
            cx.driver.cancel_all(fd);
        }
        let limit_guard = LimitGuard::both(client.limit_guard, exit.limit_guard);
        let mut entry = std::mem::take(&mut client.entry);
        entry.server_at(net::peer_address(&server));
        let (address, ends) = (client.client.address(), (client_fd, server));
        cx.effects.push_back(Effect::Pair { client: address, ends, limit_guard, entry });
    }
}
