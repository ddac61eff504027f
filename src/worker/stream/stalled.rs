//! Reclaims pipes and bulk receive buffers from streams whose readers have stopped. Both are
//! scarce. When an active stream finds none, the content of stalled ones is copied into the pool,
//! which exists for slow readers.

use std::time::Duration;

use tracing::debug;

use crate::io::driver::{BufferClass, Driver};
use crate::limits::{STALLED_MILLIS, STREAM_PIPES_MAX};
use crate::session::Moment;
use crate::worker::stream::conn::Conn;
use crate::worker::{Key, Worker};

/// See [`STALLED_MILLIS`].
pub(in crate::worker) const STALLED: Duration = Duration::from_millis(STALLED_MILLIS);

impl<D: Driver> Worker<D> {
    /// Whether more can be spliced to a local socket; reclaims pipes of stalled streams if needed.
    pub(in crate::worker) fn has_pipe_room(&mut self, key: Key) -> bool {
        let has_room = |worker: &mut Self| {
            let conn = worker.conns.get_mut(key);
            conn.is_some_and(|conn| conn.output.need_room(&mut worker.cx.buffers.pipes).is_some())
        };
        has_room(self) || (self.free_stalled_pipes(key) && has_room(self))
    }

    /// Reclaims pipes of stalled streams for a stream that finds none. Returns whether any became
    /// free.
    pub(in crate::worker) fn free_stalled_pipes(&mut self, asking: Key) -> bool {
        let may_have_more = |conn: &Conn| conn.output.pipe_count() < STREAM_PIPES_MAX;
        if self.cx.now < self.conns.pipes_scanned_at.after(STALLED)
            || !self.conns.get(asking).is_some_and(may_have_more)
        {
            return false;
        }
        self.conns.pipes_scanned_at = self.cx.now;
        let (now, mut freed) = (self.cx.now, 0);
        let mut due = std::mem::take(&mut self.cx.scratch);
        let is_stalled = self.conns.iter().filter(|(_, conn)| {
            conn.waiting && conn.output.pipe().is_some() && conn.last_data.after(STALLED) <= now
        });
        due.extend(is_stalled.map(|(key, _)| key).filter(|&key| key != asking));
        for key in due.drain(..) {
            freed += self.empty_pipes_of(key);
        }
        self.cx.scratch = due;
        if freed > 0 {
            debug!(freed, "pipes of streams that stand still");
        }
        freed > 0
    }

    /// When to scan for stalled bulk receive buffers, if something waits for one.
    pub(in crate::worker) fn next_buffer_scan(&self) -> Option<Moment> {
        self.cx.waiters.wants_bulk().then(|| self.conns.buffers_scanned_at.after(STALLED))
    }

    /// Copies input that has waited for a link for a while, if something waits for a bulk receive
    /// buffer.
    pub(in crate::worker) fn free_stalled_buffers(&mut self) {
        if self.next_buffer_scan().is_none_or(|at| self.cx.now < at) {
            return;
        }
        self.conns.buffers_scanned_at = self.cx.now;
        let before = self.cx.driver.free_buffers(BufferClass::Bulk);
        for (_, conn) in self.conns.table.iter_mut() {
            if conn.received_at.after(STALLED) <= self.cx.now {
                self.cx.buffers.copy_bulk(&mut conn.packed, &mut conn.input);
            }
        }
        self.tunnels.free_stalled_buffers(&mut self.cx);
        let freed = self.cx.driver.free_buffers(BufferClass::Bulk).saturating_sub(before);
        if freed > 0 {
            debug!(freed, "receive buffers of streams that stand still");
        }
    }

    /// Empties the pipes of a connection; returns how many became free.
    fn empty_pipes_of(&mut self, key: Key) -> usize {
        let Some(conn) = self.conns.get_mut(key) else { return 0 };
        let before = conn.output.pipe_count();
        match self.cx.buffers.empty_pipes(&mut conn.output) {
            Ok(()) => {
                // The rest is in pool buffers.
                conn.stalled = !conn.output.uses_pipe();
                before - conn.output.pipe_count()
            }
            Err(error) => {
                self.conn_failed(key, "broken", &error);
                before
            }
        }
    }
}
