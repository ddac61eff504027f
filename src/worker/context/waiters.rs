//! Backpressure for buffers: one waiter list per resource.
//!
//! An operation that finds no buffer is queued in the list of the resource it lacks, and is retried
//! only when some of that resource has been returned. A stopped peer or a dead path therefore costs
//! no CPU time, however many waiters it has. [`crate::worker::turn`] retries waiters at the end of each
//! turn.

use std::collections::VecDeque;

use super::Cx;
use crate::io::driver::{BufferClass, Driver};
use crate::limits::BULK_BUFFERS_FOR_LINKS;
use crate::worker::Key;
use crate::worker::way::Way;

/// An owner that waits for a receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Waiter {
    Conn(Key),
    /// One direction of a relayed pair.
    Half(Key, Way),
}

/// Waiter lists by resource; each is first in, first out.
#[derive(Debug, Default)]
pub(in crate::worker) struct Waiters {
    /// Waiting for small receive buffers.
    small: VecDeque<Waiter>,
    /// Waiting for bulk receive buffers, some of which are reserved for links.
    bulk: VecDeque<Waiter>,
    /// Links that wait for a bulk receive buffer.
    pub(in crate::worker) links: VecDeque<Key>,
    /// Tunnels that wait for the worker's own pool, to read ahead or to write a frame.
    pub(in crate::worker) pool: VecDeque<Key>,
    /// Receives of local sockets in flight, each of which will take a bulk buffer.
    pub(in crate::worker) bulk_receives: usize,
}

impl Waiters {
    fn of(&mut self, class: BufferClass) -> &mut VecDeque<Waiter> {
        match class {
            BufferClass::Small => &mut self.small,
            BufferClass::Bulk => &mut self.bulk,
        }
    }

    /// Queues a waiter. The owner must have noted that it is queued.
    pub(in crate::worker) fn push(&mut self, class: BufferClass, waiter: Waiter) {
        self.of(class).push_back(waiter);
    }

    /// Whether anything waits for a bulk receive buffer.
    #[inline]
    pub(in crate::worker) fn wants_bulk(&self) -> bool {
        !self.bulk.is_empty() || !self.links.is_empty()
    }
}

impl<D: Driver> Cx<D> {
    /// How many receives this kind of waiter can start.
    fn buffers_for(&self, class: BufferClass, waiter: Waiter) -> usize {
        let kept_free = match (class, waiter) {
            (BufferClass::Bulk, Waiter::Conn(_)) => {
                // Receives in flight take their buffer only when they complete, so they are counted
                // here. The rest is reserved for links: only their progress frees the buffers that
                // streams hold.
                BULK_BUFFERS_FOR_LINKS + self.waiters.bulk_receives
            }
            _ => 0,
        };
        self.driver.free_buffers(class).saturating_sub(kept_free)
    }

    /// Whether a local socket or a direction of a pair may start a receive.
    pub(in crate::worker) fn has_buffer_for(&self, class: BufferClass, waiter: Waiter) -> bool {
        self.buffers_for(class, waiter) > 0
    }

    /// How many waiters of the list can be retried.
    pub(in crate::worker) fn servable(&self, class: BufferClass) -> usize {
        let first = match class {
            BufferClass::Small => self.waiters.small.front(),
            BufferClass::Bulk => self.waiters.bulk.front(),
        };
        first.map_or(0, |&first| self.buffers_for(class, first))
    }

    /// Whether links that wait can be retried.
    pub(in crate::worker) fn can_serve_links(&self) -> bool {
        !self.waiters.links.is_empty() && self.driver.free_buffers(BufferClass::Bulk) > 0
    }

    /// Whether tunnels that wait can be retried.
    pub(in crate::worker) fn can_serve_tunnels(&self) -> bool {
        !self.waiters.pool.is_empty() && self.buffers.can_read_ahead()
    }

    /// Whether any waiter can be retried successfully.
    pub(in crate::worker) fn can_serve_any(&self) -> bool {
        self.servable(BufferClass::Small) > 0
            || self.servable(BufferClass::Bulk) > 0
            || self.can_serve_links()
            || self.can_serve_tunnels()
    }
}

impl Waiters {
    /// The next owner that waits for a receive buffer.
    pub(in crate::worker) fn pop(&mut self, class: BufferClass) -> Option<Waiter> {
        self.of(class).pop_front()
    }

    /// Removes waiters that ended while queued. Runs only when the list is longer than the number
    /// of possible waiters (`most`), so its cost is amortized.
    pub(in crate::worker) fn prune(
        &mut self,
        class: BufferClass,
        most: usize,
        is_waiting: impl FnMut(&Waiter) -> bool,
    ) {
        let list = self.of(class);
        if list.len() > 2 * most + 64 {
            list.retain(is_waiting);
        }
    }
}

#[cfg(test)]
mod tests;
