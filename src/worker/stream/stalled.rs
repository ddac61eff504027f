//! Reclaims pipes and bulk receive buffers from streams whose readers have stopped. Both are
//! scarce. When an active stream finds none, the content of stalled ones is copied into the pool,
//! which exists for slow readers.

use std::time::Duration;

use tracing::debug;

use crate::io::driver::{BufferClass, Driver};
use crate::io::pipe::Pipes;
use crate::limits::{STALLED_MILLIS, STREAM_PIPES_MAX};
use crate::session::Moment;
use crate::worker::context::Cx;
use crate::worker::stream::conn::Conn;
use crate::worker::stream::{Conns, Streams};
use crate::worker::table::Key;

/// See [`STALLED_MILLIS`].
pub(super) const STALLED: Duration = Duration::from_millis(STALLED_MILLIS);

impl Streams {
    /// Whether more can be spliced to a local socket; reclaims pipes of stalled streams if needed.
    pub(super) fn has_pipe_room<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) -> bool {
        let has_room = |conns: &mut Conns, pipes: &mut Pipes| {
            conns.get_mut(key).is_some_and(|conn| conn.output.need_room(pipes).is_some())
        };
        has_room(&mut self.conns, &mut cx.buffers.pipes)
            || (self.free_stalled_pipes(cx, key)
                && has_room(&mut self.conns, &mut cx.buffers.pipes))
    }

    /// Reclaims pipes of stalled streams for a stream that finds none. Returns whether any became
    /// free.
    pub(super) fn free_stalled_pipes<D: Driver>(&mut self, cx: &mut Cx<D>, asking: Key) -> bool {
        let may_have_more = |conn: &Conn| conn.output.pipe_count() < STREAM_PIPES_MAX;
        if cx.now < self.conns.pipes_scanned_at.after(STALLED)
            || !self.conns.get(asking).is_some_and(may_have_more)
        {
            return false;
        }
        self.conns.pipes_scanned_at = cx.now;
        let (now, mut freed) = (cx.now, 0);
        let mut due = std::mem::take(&mut cx.scratch);
        let is_stalled = self.conns.iter().filter(|(_, conn)| {
            conn.waiting && conn.output.pipe().is_some() && conn.last_data.after(STALLED) <= now
        });
        due.extend(is_stalled.map(|(key, _)| key).filter(|&key| key != asking));
        for key in due.drain(..) {
            freed += self.empty_pipes_of(cx, key);
        }
        cx.scratch = due;
        if freed > 0 {
            debug!(freed, "pipes of streams that stand still");
        }
        freed > 0
    }

    /// When to scan for stalled bulk receive buffers, if something waits for one.
    pub(in crate::worker) fn next_buffer_scan<D: Driver>(&self, cx: &Cx<D>) -> Option<Moment> {
        cx.waiters.wants_bulk().then(|| self.conns.buffers_scanned_at.after(STALLED))
    }

    /// Copies input that has waited for a link for a while, if something waits for a bulk receive
    /// buffer.
    pub(in crate::worker) fn free_stalled_buffers<D: Driver>(&mut self, cx: &mut Cx<D>) {
        if self.next_buffer_scan(cx).is_none_or(|at| cx.now < at) {
            return;
        }
        self.conns.buffers_scanned_at = cx.now;
        let before = cx.driver.free_buffers(BufferClass::Bulk);
        for (_, conn) in self.conns.table.iter_mut() {
            if conn.received_at.after(STALLED) <= cx.now {
                cx.buffers.copy_bulk(&mut conn.packed, &mut conn.input);
            }
        }
        self.tunnels.free_stalled_buffers(cx);
        let freed = cx.driver.free_buffers(BufferClass::Bulk).saturating_sub(before);
        if freed > 0 {
            debug!(freed, "receive buffers of streams that stand still");
        }
    }

    /// Empties the pipes of a connection; returns how many became free.
    fn empty_pipes_of<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) -> usize {
        let Some(conn) = self.conns.get_mut(key) else { return 0 };
        let before = conn.output.pipe_count();
        match cx.buffers.empty_pipes(&mut conn.output) {
            Ok(()) => {
                // The rest is in pool buffers.
                conn.stalled = !conn.output.uses_pipe();
                before - conn.output.pipe_count()
            }
            Err(error) => {
                self.conn_failed(cx, key, "broken", &error);
                before
            }
        }
    }
}
