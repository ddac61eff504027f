//! Waiting for buffers: one list for each resource.
//!
//! Whoever finds no buffer is put into the list of what it lacks and is asked nothing more until some
//! of that have come back. So a peer that has stopped, or a path that is dead, costs no time however
//! many wait for it.

use std::collections::VecDeque;

use super::context::Cx;
use super::{Key, Worker};
use crate::io::driver::{BufferClass, Driver};
use crate::limits::BULK_BUFFERS_FOR_LINKS;
use crate::worker::relay::Way;

/// Who waits for a receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiter {
    Conn(Key),
    /// A direction of a pair.
    Half(Key, Way),
}

/// All who wait, by what they lack; in each list those first that have waited longest.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    /// For small receive buffers.
    small: VecDeque<Waiter>,
    /// For bulk receive buffers, of which some are kept back for links.
    bulk: VecDeque<Waiter>,
    /// Links that wait for any bulk receive buffer.
    pub(super) links: VecDeque<Key>,
    /// Tunnels that wait for the engine's own pool: to read ahead, or to write a frame.
    pub(super) pool: VecDeque<Key>,
    /// Receives of local sockets in flight that will each take a bulk buffer.
    pub(super) bulk_receives: usize,
}

impl Waiters {
    fn of(&mut self, class: BufferClass) -> &mut VecDeque<Waiter> {
        match class {
            BufferClass::Small => &mut self.small,
            BufferClass::Bulk => &mut self.bulk,
        }
    }

    /// One more waits, and has noted so.
    pub(super) fn push(&mut self, class: BufferClass, waiter: Waiter) {
        self.of(class).push_back(waiter);
    }

    /// Whether anybody waits for a bulk receive buffer.
    #[inline]
    pub(super) fn miss_bulk(&self) -> bool {
        !self.bulk.is_empty() || !self.links.is_empty()
    }
}

impl<D: Driver> Cx<D> {
    /// How many receives can find a buffer of a class.
    fn buffers_for(&self, class: BufferClass, waiter: Waiter) -> usize {
        let kept_free = match (class, waiter) {
            (BufferClass::Bulk, Waiter::Conn(_)) => {
                BULK_BUFFERS_FOR_LINKS + self.waiters.bulk_receives
            }
            _ => 0,
        };
        self.driver.free_buffers(class).saturating_sub(kept_free)
    }

    /// Whether a local socket or a direction of a pair may start a receive.
    pub(super) fn has_buffer_for(&self, class: BufferClass, waiter: Waiter) -> bool {
        self.buffers_for(class, waiter) > 0
    }

    fn may_feed(&self, class: BufferClass) -> usize {
        let first = match class {
            BufferClass::Small => self.waiters.small.front(),
            BufferClass::Bulk => self.waiters.bulk.front(),
        };
        first.map_or(0, |&first| self.buffers_for(class, first))
    }

    fn may_feed_links(&self) -> bool {
        !self.waiters.links.is_empty() && self.driver.free_buffers(BufferClass::Bulk) > 0
    }

    fn may_feed_tunnels(&self) -> bool {
        !self.waiters.pool.is_empty() && self.buffers.can_read_ahead()
    }

    /// Whether what somebody waits for is there.
    pub(super) fn may_feed_any(&self) -> bool {
        self.may_feed(BufferClass::Small) > 0
            || self.may_feed(BufferClass::Bulk) > 0
            || self.may_feed_links()
            || self.may_feed_tunnels()
    }
}

impl<D: Driver> Worker<D> {
    /// Lets those go on for whom there is a buffer now.
    pub(super) fn retry_buffer_waiters(&mut self) {
        // Links first: what they bring ends what others wait for.
        if self.cx.may_feed_links() {
            for key in std::mem::take(&mut self.cx.waiters.links) {
                self.link_has_buffer(key);
            }
        }
        if self.cx.may_feed_tunnels() {
            for key in std::mem::take(&mut self.cx.waiters.pool) {
                self.tunnels.pool_is_back(key);
            }
        }
        for class in [BufferClass::Small, BufferClass::Bulk] {
            self.forget_ended(class);
            // Not more than can find one: the others would be asked in vain.
            for _ in 0..self.cx.may_feed(class) {
                match self.cx.waiters.of(class).pop_front() {
                    Some(Waiter::Conn(key)) => {
                        if let Some(conn) = self.conns.get_mut(key) {
                            conn.starved = false;
                            self.read_conn(key);
                        }
                    }
                    Some(Waiter::Half(key, way)) => self.relay.feed_half(&mut self.cx, key, way),
                    None => break,
                }
            }
        }
    }

    /// Takes those out of a list that ended while they waited, when it has grown longer than those who
    /// can be waiting.
    fn forget_ended(&mut self, class: BufferClass) {
        let most = 2 * (self.conns.len() + 2 * self.relay.len()) + 64;
        if self.cx.waiters.of(class).len() > most {
            let mut list = std::mem::take(self.cx.waiters.of(class));
            list.retain(|&waiter| self.is_waiting(waiter));
            *self.cx.waiters.of(class) = list;
        }
    }

    fn is_waiting(&mut self, waiter: Waiter) -> bool {
        match waiter {
            Waiter::Conn(key) => self.conns.get(key).is_some_and(|conn| conn.starved),
            Waiter::Half(key, way) => self.relay.is_waiting(key, way),
        }
    }
}

#[cfg(test)]
mod tests;
