//! Broken connections of streams, see [`crate::worker::broken`]. Called when a write fails or an
//! error poll fires, and by sweeps.

use std::io;

use crate::io::driver::{Driver, Fd};
use crate::io::{direct, net};
use crate::worker::broken::{Broken, next_check};
use crate::worker::context::Cx;
use crate::worker::stream::Streams;
use crate::worker::stream::conn::Stage;
use crate::worker::table::Key;

impl Streams {
    /// A local socket accepts no more writes: reads it to its end, then resets the stream.
    pub(super) fn break_conn<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        error: Option<&io::Error>,
    ) {
        let now = cx.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        let (Stage::Open, Some(fd), Some(_)) = (&conn.stage, &conn.fd, conn.stream) else {
            return self.conn_failed(cx, key, "reset", error.unwrap_or(&reset));
        };
        let gone = net::is_hung_up(fd);
        conn.entry.reset_by_local(error.map(io::Error::to_string).as_deref());
        let linger = cx.timeouts_of(conn.exit.as_ref()).linger;
        let broken = conn.broken.get_or_insert_with(|| Box::new(Broken::new(now, linger)));
        if let Some(error) = error {
            broken.write_failed(error);
        }
        conn.forget_output(&mut cx.buffers.pipes);
        if conn.read_ended {
            return self.finish_broken(cx, key, "reset", error.unwrap_or(&reset));
        }
        // A Unix socket may accept no writes and still deliver data.
        if gone {
            self.set_deadline(cx, key, Some(next_check(now)));
        }
        self.read_conn(cx, key);
    }

    /// Whether a broken local socket is gone in both directions and has no data left.
    pub(super) fn is_drained(&self, key: Key) -> bool {
        let Some(conn) = self.conns.get(key) else { return false };
        let is_open = matches!(conn.stage, Stage::Open) && conn.stream.is_some();
        let is_gone = |fd: &Fd| net::is_hung_up(fd) && direct::waiting_bytes(fd) == 0;
        is_open && conn.broken.is_some() && conn.fd.as_ref().is_some_and(is_gone)
    }

    /// A broken local socket is read to its end: the data goes to the peer as its window allows,
    /// followed by the reset.
    pub(in crate::worker) fn finish_broken<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        what: &'static str,
        error: &io::Error,
    ) {
        let now = cx.now;
        let Some(conn) = self.drop_socket(cx, key, what, error) else { return };
        let (tunnel, stream) = (conn.tunnel, conn.stream);
        let keep = match (self.tunnels.get_mut(tunnel), stream) {
            (Some(tunnel), Some(stream)) => tunnel.session_mut().local_broken(stream, what),
            _ => false,
        };
        if keep && let Some(conn) = self.conns.get_mut(key) {
            let linger = cx.timeouts_of(conn.exit.as_ref()).linger;
            conn.broken = Some(Box::new(Broken::new(now, linger)));
            self.set_deadline(cx, key, Some(next_check(now)));
        } else {
            self.conns.remove(key);
        }
        self.tunnels.mark(tunnel);
    }

    /// All output is written and the connection is to be reset: resets it once the data is
    /// acknowledged.
    pub(super) fn reset_after_output<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let now = cx.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(fd) = &conn.fd else { return self.reset_conn(cx, key) };
        if std::mem::take(&mut conn.end_after_output) {
            net::shut_down_write(fd);
        }
        if net::undelivered_bytes(fd) == 0 {
            return self.reset_conn(cx, key);
        }
        if !matches!(conn.stage, Stage::Settling) {
            let linger = cx.timeouts_of(conn.exit.as_ref()).linger;
            conn.stage = Stage::Settling;
            conn.broken = Some(Box::new(Broken::new(now, linger)));
        }
        self.set_deadline(cx, key, Some(next_check(now)));
    }

    /// Checks a connection in its grace period. `false`: it is not broken.
    pub(super) fn check_broken<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) -> bool {
        let now = cx.now;
        let Some(conn) = self.conns.get_mut(key) else { return true };
        let Some(broken) = &mut conn.broken else { return false };
        let settling = conn.fd.as_ref().filter(|_| matches!(conn.stage, Stage::Settling));
        let undelivered_bytes = settling.map_or(0, |fd| net::undelivered_bytes(fd));
        let found = settling.is_some() && undelivered_bytes == 0;
        if !found && !broken.grace.is_over(now, conn.last_data, undelivered_bytes) {
            self.set_deadline(cx, key, Some(next_check(now)));
        } else if matches!(conn.stage, Stage::Settling) {
            self.reset_conn(cx, key);
        } else {
            let over = io::Error::from(io::ErrorKind::TimedOut);
            self.conn_failed(cx, key, "reset", &over);
        }
        true
    }
}
