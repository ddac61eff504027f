//! Broken connections. A server may answer early, close with part of a request unread and so reset
//! the connection; the kernel keeps what came before the reset. So a socket that takes no more is
//! read to its end, what it gave is delivered, and only then the other side is reset: when its kernel
//! has acknowledged all, since a reset drops what it has not. A client that is reset behind what it
//! has sent is treated the same.
//!
//! Bounds: a broken TCP socket gives no more than its receive queue holds. What stands still for
//! [`BROKEN_QUIET_MILLIS`], or takes longer than `TIMEOUT=lin` altogether, is dropped.

use std::io;
use std::time::Duration;

use tracing::debug;

use crate::io::driver::{Driver, Fd};
use crate::io::{direct, net};
use crate::limits::{BROKEN_QUIET_MILLIS, SWEEP_MILLIS};
use crate::session::Moment;
use crate::worker::relay::pair::{Output, Way};
use crate::worker::stream::local::Stage;
use crate::worker::{Key, Worker};

/// How long what a broken connection had sent is waited for.
#[derive(Debug)]
pub(in crate::worker) struct Patience {
    /// Something moved, last.
    moved_at: Moment,
    until: Option<Moment>,
    /// What had not arrived when that was last asked, in bytes.
    undelivered_bytes: usize,
}

impl Patience {
    fn new(now: Moment, linger: Option<Duration>) -> Patience {
        let until = linger.map(|linger| now.after(linger));
        Patience { moved_at: now, until, undelivered_bytes: 0 }
    }

    /// Whether it is over. `last_data`: when bytes were last moved here.
    fn is_over(&mut self, now: Moment, last_data: Moment, undelivered_bytes: usize) -> bool {
        if undelivered_bytes != self.undelivered_bytes {
            self.undelivered_bytes = undelivered_bytes;
            self.moved_at = now;
        }
        let quiet = Duration::from_millis(BROKEN_QUIET_MILLIS);
        let still = self.moved_at.max(last_data).after(quiet) <= now;
        still || self.until.is_some_and(|until| until <= now)
    }
}

/// A socket that takes no more.
#[derive(Debug)]
pub(in crate::worker) struct Broken {
    /// A write has reported the reset. The kernel reports it once: the end of data that reading comes
    /// to is none. A write that fails with `EPIPE` says nothing of the kind: the end of data, if one
    /// comes, was sent before the reset.
    reset_reported: bool,
    patience: Patience,
}

impl Broken {
    pub(in crate::worker) fn new(now: Moment, linger: Option<Duration>) -> Broken {
        Broken { reset_reported: false, patience: Patience::new(now, linger) }
    }

    /// A write has failed.
    pub(in crate::worker) fn write_failed(&mut self, error: &io::Error) {
        self.reset_reported |= error.raw_os_error() != Some(libc::EPIPE);
    }

    /// An end of data that is read now was sent by the other end.
    pub(in crate::worker) fn ends_in_order(&self) -> bool {
        !self.reset_reported
    }
}

/// When what is waited for is looked at again.
pub(in crate::worker) fn next_look(now: Moment) -> Moment {
    now.after(Duration::from_millis(SWEEP_MILLIS))
}

// Local connections of a tunnel.
impl<D: Driver> Worker<D> {
    /// A local socket takes no more: what it has sent is read, then its stream is reset.
    pub(in crate::worker) fn local_takes_no_more(&mut self, key: Key, error: Option<&io::Error>) {
        let now = self.cx.now;
        let Some(local) = self.locals.get_mut(key) else { return };
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        let (Stage::Open, Some(fd), Some(_)) = (&local.stage, &local.fd, local.stream) else {
            return self.local_failed(key, "reset", error.unwrap_or(&reset));
        };
        let gone = net::is_hung_up(fd);
        let linger = self.cx.plan.timeouts_of(local.exit).linger;
        let broken = local.broken.get_or_insert_with(|| Box::new(Broken::new(now, linger)));
        if let Some(error) = error {
            broken.write_failed(error);
        }
        local.forget_output(&mut self.cx.buffers.pipes);
        if local.read_ended {
            return self.local_is_empty(key, "reset", error.unwrap_or(&reset));
        }
        // A Unix socket may take no more and go on giving.
        if gone {
            self.set_deadline(key, Some(next_look(now)));
        }
        self.read_local(key);
    }

    /// Whether nothing is left in a local socket that is broken, and gets nothing any more.
    pub(in crate::worker) fn has_given_all(&self, key: Key) -> bool {
        let Some(local) = self.locals.get(key) else { return false };
        let is_open = matches!(local.stage, Stage::Open) && local.stream.is_some();
        let is_gone = |fd: &Fd| net::is_hung_up(fd) && direct::waiting_bytes(fd) == 0;
        is_open && local.broken.is_some() && local.fd.as_ref().is_some_and(is_gone)
    }

    /// All that a broken local socket had sent has been read: it goes to the peer, as the peer takes
    /// it, and then the reset.
    pub(in crate::worker) fn local_is_empty(
        &mut self,
        key: Key,
        what: &'static str,
        error: &io::Error,
    ) {
        let now = self.cx.now;
        let Some(local) = self.drop_socket(key, what, error) else { return };
        let (tunnel, stream, exit) = (local.tunnel, local.stream, local.exit);
        let keep = match (self.tunnels.get_mut(tunnel), stream) {
            (Some(tunnel), Some(stream)) => tunnel.session.local_broken(stream, what),
            _ => false,
        };
        if keep && let Some(local) = self.locals.get_mut(key) {
            let linger = self.cx.plan.timeouts_of(exit).linger;
            local.broken = Some(Box::new(Broken::new(now, linger)));
            self.set_deadline(key, Some(next_look(now)));
        } else {
            self.locals.remove(key);
        }
        self.mark_tunnel(tunnel);
    }

    /// All that was delivered is written, and the connection is to be reset: when it has arrived.
    pub(in crate::worker) fn reset_after_output(&mut self, key: Key) {
        let now = self.cx.now;
        let Some(local) = self.locals.get_mut(key) else { return };
        let Some(fd) = &local.fd else { return self.reset_local(key) };
        if std::mem::take(&mut local.end_after_output) {
            net::shut_down_write(fd);
        }
        if net::undelivered_bytes(fd) == 0 {
            return self.reset_local(key);
        }
        if !matches!(local.stage, Stage::Settling) {
            let linger = self.cx.plan.timeouts_of(local.exit).linger;
            local.stage = Stage::Settling;
            local.broken = Some(Box::new(Broken::new(now, linger)));
        }
        self.set_deadline(key, Some(next_look(now)));
    }

    /// Looks at a connection that waits for the rest of a broken one. `false`: it is none.
    pub(in crate::worker) fn look_at_broken(&mut self, key: Key) -> bool {
        let now = self.cx.now;
        let Some(local) = self.locals.get_mut(key) else { return true };
        let Some(broken) = &mut local.broken else { return false };
        let settling = local.fd.as_ref().filter(|_| matches!(local.stage, Stage::Settling));
        let undelivered_bytes = settling.map_or(0, |fd| net::undelivered_bytes(fd));
        let found = settling.is_some() && undelivered_bytes == 0;
        if !found && !broken.patience.is_over(now, local.last_data, undelivered_bytes) {
            self.set_deadline(key, Some(next_look(now)));
        } else if matches!(local.stage, Stage::Settling) {
            self.reset_local(key);
        } else {
            let over = io::Error::from(io::ErrorKind::TimedOut);
            self.local_failed(key, "reset", &over);
        }
        true
    }
}

/// A pair of which one side is broken.
#[derive(Debug)]
pub(in crate::worker) struct BrokenSide {
    /// The direction that comes from it. The other one is given up.
    pub(in crate::worker) way: Way,
    /// All of it has been written.
    is_empty: bool,
    broken: Broken,
}

// Pairs of a plain relay.
impl<D: Driver> Worker<D> {
    /// The side that the direction `way` comes from takes no more, as a write to it says or a poll.
    pub(in crate::worker) fn side_takes_no_more(
        &mut self,
        key: Key,
        way: Way,
        error: Option<&io::Error>,
    ) {
        if self.note_broken_side(key, way) {
            let Some(pair) = self.pairs.get_mut(key) else { return };
            if let (Some(side), Some(error)) = (&mut pair.broken, error) {
                side.broken.write_failed(error);
            }
            match pair.half(way) {
                Some((half, ..)) if half.output == Output::Shut => self.side_is_empty(key, way),
                _ => self.advance_half(key, way),
            }
        }
    }

    /// All that a broken side had sent has been written to the other: that is reset when it has arrived.
    pub(in crate::worker) fn side_is_empty(&mut self, key: Key, way: Way) {
        if self.note_broken_side(key, way) {
            let Some(pair) = self.pairs.get_mut(key) else { return };
            if let Some(side) = &mut pair.broken {
                side.is_empty = true;
            }
            self.look_at_pair(key);
        }
    }

    /// `false`: there is nothing more to be done for the pair.
    fn note_broken_side(&mut self, key: Key, way: Way) -> bool {
        let now = self.cx.now;
        let linger = self.cx.plan.timeouts.linger;
        let Some(pair) = self.pairs.get_mut(key) else { return false };
        match &pair.broken {
            Some(side) if side.way == way => return true,
            Some(_) => {
                // Now both are.
                self.reset_pair(key);
                return false;
            }
            None => {}
        }
        debug!(client = %pair.peer, way = way.name(), "connection broken");
        let broken = Broken::new(now, linger);
        pair.broken = Some(BrokenSide { way, is_empty: false, broken });
        self.timed += 1;
        if let Some((half, ..)) = pair.half(way.other()) {
            half.output = Output::Broken;
            half.pipe.take().into_iter().for_each(|pipe| self.cx.buffers.pipes.give_back(pipe));
        }
        true
    }

    /// Looks at a pair that is to be reset. `false`: it waits for nothing.
    pub(in crate::worker) fn look_at_pair(&mut self, key: Key) -> bool {
        let now = self.cx.now;
        let Some(pair) = self.pairs.get_mut(key) else { return true };
        let Some(side) = &mut pair.broken else { return false };
        let target = match side.way {
            Way::Up => pair.server.as_ref(),
            Way::Down => Some(&pair.client),
        };
        let undelivered_bytes = target.map_or(0, |fd| net::undelivered_bytes(fd));
        let settled = side.is_empty && undelivered_bytes == 0;
        if settled || side.broken.patience.is_over(now, pair.last_data, undelivered_bytes) {
            self.reset_pair(key);
            return true;
        }
        self.timed += 1;
        true
    }

    /// What comes from a broken side has come to its end of data, and all before it is written.
    pub(in crate::worker) fn broken_side_ended(&mut self, key: Key, way: Way) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let in_order = pair.broken.as_ref().is_some_and(|side| side.broken.ends_in_order());
        if let (true, Some((half, _, to))) = (in_order, pair.half(way)) {
            net::shut_down_write(to);
            half.output = Output::Shut;
        }
        self.side_is_empty(key, way);
    }
}
