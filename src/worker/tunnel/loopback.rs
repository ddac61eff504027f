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

use crate::cli::plan::LinkPlan;
use crate::io::driver::Driver;
use crate::io::link::Link;
use crate::limits::JOIN_MILLIS;
use crate::policy::connection_limits::LimitGuard;
use crate::session::{Moment, Rest};
use crate::worker::stream::conn::{Conn, Reading, Stage};
use crate::worker::token::StreamOwner;
use crate::worker::{Drain, Key, Worker};

/// Name of the peer in the log.
const NAME: &str = "this process";

/// State of the loopback and of streams about to leave it.
#[derive(Debug, Default)]
pub(in crate::worker) struct Loopback {
    /// Exits whose stream is to be joined with its client, each with a deadline.
    joining: Vec<(Key, Moment)>,
    /// When to retry creating the loopback.
    again_at: Option<Moment>,
}

impl<D: Driver> Worker<D> {
    /// Whether this process is its own peer.
    pub(in crate::worker) fn is_loopback(&self) -> bool {
        self.cx.plan.link == LinkPlan::Loopback
    }

    /// Creates the two tunnels if the plan has proxies only; again if they break.
    pub(in crate::worker) fn begin_loopback(&mut self) {
        if !self.is_loopback() || self.drain != Drain::No || self.tunnels.len() > 0 {
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
                    self.begin_tunnel(link);
                }
            }
            // Descriptors are exhausted; those of the broken tunnels are about to be closed.
            Err(error) => {
                warn!(%error, "cannot join this process with itself");
                self.loopback.again_at =
                    Some(self.cx.now.after(Duration::from_millis(JOIN_MILLIS)));
            }
        }
    }

    /// The next deadline of the loopback.
    pub(in crate::worker) fn next_join(&self) -> Option<Moment> {
        let joining = self.loopback.joining.iter().map(|&(_, until)| until);
        joining.chain(self.loopback.again_at).min()
    }

    /// Joins clients with servers whose streams are quiescent.
    pub(in crate::worker) fn join_quiescent(&mut self) {
        if self.loopback.again_at.is_some_and(|at| at <= self.cx.now) {
            self.loopback.again_at = None;
            self.begin_loopback();
        }
        let mut at = 0;
        while let Some(&(key, until)) = self.loopback.joining.get(at) {
            match self.client_of(key) {
                Some(client) if self.has_ended(client) || self.has_ended(key) => {
                    self.loopback.joining.swap_remove(at);
                    self.keep_in_tunnel(client, key);
                }
                Some(client) if self.is_quiescent(client, key) => {
                    self.loopback.joining.swap_remove(at);
                    self.join(client, key);
                }
                Some(client) if until <= self.cx.now => {
                    self.loopback.joining.swap_remove(at);
                    self.keep_in_tunnel(client, key);
                }
                Some(client) => {
                    self.pause_reading(client);
                    at += 1;
                }
                None => {
                    self.loopback.joining.swap_remove(at);
                    self.resume_reading(key);
                }
            }
        }
    }

    /// The proxy handshake of a stream is done: joins it with its server once it is quiescent.
    pub(in crate::worker) fn join_when_quiescent(&mut self, key: Key) {
        if self.is_loopback() && self.conns.get(key).is_some_and(|l| l.stream.is_some()) {
            self.pause_reading(key);
            self.loopback
                .joining
                .push((key, self.cx.now.after(Duration::from_millis(JOIN_MILLIS))));
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
    fn pause_reading(&mut self, key: Key) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.joining = true;
            conn.reading.cancel(&mut self.cx.driver);
        }
    }

    fn resume_reading(&mut self, key: Key) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.joining = false;
            self.read_conn(key);
        }
    }

    fn keep_in_tunnel(&mut self, client: Key, exit: Key) {
        debug!("a stream stays in the tunnel");
        self.resume_reading(client);
        self.resume_reading(exit);
    }

    /// Takes a stream out of the tunnels and turns its client and server into a pair.
    fn join(&mut self, client: Key, exit: Key) {
        let now = self.cx.now;
        if self.relay.is_full() {
            return self.keep_in_tunnel(client, exit);
        }
        self.close_asked_of(client);
        let (Some(client), Some(exit)) = (self.conns.remove(client), self.conns.remove(exit))
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
            self.cx.driver.cancel_all(fd);
        }
        let limit_guard = LimitGuard::both(client.limit_guard, exit.limit_guard);
        self.relay.join(&mut self.cx, client.client.address(), (client_fd, server), limit_guard);
    }
}
