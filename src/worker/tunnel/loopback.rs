//! Proxies without a persistent connection: the process is its own peer.
//!
//! Two tunnels of this worker are joined by a pair of sockets. A client that comes in becomes a stream
//! of one of them, and leaves by an exit at the other: so a proxy is the same as behind a tunnel, with
//! all that comes beside its streams (ports that it has opened, datagrams, calls), and with the same
//! limits, times and drain.
//!
//! Where a conversation is over and bytes only pass, the stream is taken out of the tunnels: client and
//! server become a [`Pair`], and their bytes go as those of a plain relay. That is done when nothing of
//! the stream is in flight; both sockets are left unread until then. A stream that does not come to
//! rest, or one side of which has ended already, stays where it is: it is carried all the same.

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

/// What the log calls the peer.
const NAME: &str = "this process";

/// Streams that leave the tunnel from the process to itself.
#[derive(Debug, Default)]
pub(in crate::worker) struct Loopback {
    /// Exits whose stream is to be joined with its client, here, until that time.
    joining: Vec<(Key, Moment)>,
    /// When this process is joined with itself again.
    again_at: Option<Moment>,
}

impl<D: Driver> Worker<D> {
    /// Whether this process is its own peer.
    pub(in crate::worker) fn is_loopback(&self) -> bool {
        self.cx.plan.link == LinkPlan::Loopback
    }

    /// Makes the two tunnels, where the plan has proxies alone; again, should they break.
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
            // Descriptors are used up; those of the tunnels that broke are about to be closed.
            Err(error) => {
                warn!(%error, "cannot join this process with itself");
                self.loopback.again_at =
                    Some(self.cx.now.after(Duration::from_millis(JOIN_MILLIS)));
            }
        }
    }

    /// When to look at them again at the latest.
    pub(in crate::worker) fn next_join(&self) -> Option<Moment> {
        let joining = self.loopback.joining.iter().map(|&(_, until)| until);
        joining.chain(self.loopback.again_at).min()
    }

    /// Joins clients with servers whose streams have come to rest.
    pub(in crate::worker) fn join_resting(&mut self) {
        if self.loopback.again_at.is_some_and(|at| at <= self.cx.now) {
            self.loopback.again_at = None;
            self.begin_loopback();
        }
        let mut at = 0;
        while let Some(&(key, until)) = self.loopback.joining.get(at) {
            match self.client_of(key) {
                Some(client) if self.has_ended(client) || self.has_ended(key) => {
                    self.loopback.joining.swap_remove(at);
                    self.leave_in_tunnel(client, key);
                }
                Some(client) if self.is_at_rest(client, key) => {
                    self.loopback.joining.swap_remove(at);
                    self.join(client, key);
                }
                Some(client) if until <= self.cx.now => {
                    self.loopback.joining.swap_remove(at);
                    self.leave_in_tunnel(client, key);
                }
                Some(client) => {
                    self.leave_unread(client);
                    at += 1;
                }
                None => {
                    self.loopback.joining.swap_remove(at);
                    self.read_on(key);
                }
            }
        }
    }

    /// The conversation of a stream is over: it is joined with its server when it comes to rest.
    pub(in crate::worker) fn join_when_at_rest(&mut self, key: Key) {
        if self.is_loopback() && self.conns.get(key).is_some_and(|l| l.stream.is_some()) {
            self.leave_unread(key);
            self.loopback
                .joining
                .push((key, self.cx.now.after(Duration::from_millis(JOIN_MILLIS))));
        }
    }

    /// The client of a stream whose exit this is: the connection at the other tunnel.
    fn client_of(&self, key: Key) -> Option<Key> {
        let exit = self.conns.get(key)?;
        let number = self.tunnels.get(exit.tunnel)?.session.number_of(exit.stream?)?;
        let (_, other) = self.tunnels.iter().find(|&(other, _)| other != exit.tunnel)?;
        let stream = other.session.opened_as(number)?;
        StreamOwner::conn(other.session.user_of(stream)?)
    }

    /// One of its directions has ended, or it is no longer what bytes pass through.
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

    /// Nothing of the stream is in flight: all that either side has sent is written to the other's
    /// socket.
    fn is_at_rest(&self, client: Key, exit: Key) -> bool {
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

    /// The socket is left unread.
    fn leave_unread(&mut self, key: Key) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.joining = true;
            conn.reading.cancel(&mut self.cx.driver);
        }
    }

    fn read_on(&mut self, key: Key) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.joining = false;
            self.read_conn(key);
        }
    }

    fn leave_in_tunnel(&mut self, client: Key, exit: Key) {
        debug!("a stream stays in the tunnel");
        self.read_on(client);
        self.read_on(exit);
    }

    /// Takes a stream out of the tunnels, and makes a pair of its client and server.
    fn join(&mut self, client: Key, exit: Key) {
        let now = self.cx.now;
        if self.relay.is_full() {
            return self.leave_in_tunnel(client, exit);
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
            // Only polls are in flight, which nobody waits for any more.
            self.cx.driver.cancel_all(fd);
        }
        let limit_guard = LimitGuard::both(client.limit_guard, exit.limit_guard);
        self.relay.join(&mut self.cx, client.client.address(), (client_fd, server), limit_guard);
    }
}
