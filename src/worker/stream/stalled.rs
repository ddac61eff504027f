//! Pipes and bulk receive buffers are few, and those of streams whose readers have stopped are missed by
//! streams that flow. When one finds none, what stands in theirs is copied into buffers of our own,
//! where what is kept for slow readers has its place.

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
    /// Whether more can be spliced to a local socket, if need be by a pipe of one that stands still.
    pub(in crate::worker) fn has_pipe_room(&mut self, key: Key) -> bool {
        let has_room = |worker: &mut Self| {
            let conn = worker.conns.get_mut(key);
            conn.is_some_and(|conn| conn.output.need_room(&mut worker.cx.buffers.pipes).is_some())
        };
        has_room(self) || (self.free_stalled_pipes(key) && has_room(self))
    }

    /// A stream finds no further pipe: takes those of others that have stood still for a while. Whether
    /// there are more free ones now.
    pub(in crate::worker) fn free_stalled_pipes(&mut self, asking: Key) -> bool {
        let may_have_more = |conn: &Conn| conn.output.pipe_count() < STREAM_PIPES_MAX;
        if self.cx.now < self.conns.pipes_looked_for.after(STALLED)
            || !self.conns.get(asking).is_some_and(may_have_more)
        {
            return false;
        }
        self.conns.pipes_looked_for = self.cx.now;
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

    /// When to look for bulk receive buffers that stand still, if somebody waits for one.
    pub(in crate::worker) fn next_look_for_buffers(&self) -> Option<Moment> {
        self.cx.waiters.wants_bulk().then(|| self.conns.buffers_looked_for.after(STALLED))
    }

    /// Somebody waits for a bulk receive buffer: copies what has waited for links for a while, so
    /// that the buffers come back.
    pub(in crate::worker) fn free_stalled_buffers(&mut self) {
        if self.next_look_for_buffers().is_none_or(|at| self.cx.now < at) {
            return;
        }
        self.conns.buffers_looked_for = self.cx.now;
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

    /// How many pipes it had, if it has none any more.
    fn empty_pipes_of(&mut self, key: Key) -> usize {
        let Some(conn) = self.conns.get_mut(key) else { return 0 };
        let before = conn.output.pipe_count();
        match self.cx.buffers.empty_pipes(&mut conn.output) {
            Ok(()) => {
                // What is left is in our own buffers.
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
