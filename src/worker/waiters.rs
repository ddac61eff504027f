//! Waiting for buffers: one list for each resource.
//!
//! Whoever finds no buffer is put into the list of what it lacks and is asked nothing more until some
//! of that have come back. So a peer that has stopped, or a path that is dead, costs no time however
//! many wait for it.

use std::collections::VecDeque;

use super::{Key, Worker};
use crate::io::driver::{BufferClass, Driver};
use crate::limits::BULK_BUFFERS_FOR_LINKS;
use crate::worker::relay::pair::{Input, Way};
use crate::worker::tunnel::Lack;

/// Who waits for a receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiter {
    Local(Key),
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
    links: VecDeque<Key>,
    /// Tunnels that wait for the engine's own pool: to read ahead, or to write a frame.
    pool: VecDeque<Key>,
}

impl Waiters {
    fn of(&mut self, class: BufferClass) -> &mut VecDeque<Waiter> {
        match class {
            BufferClass::Small => &mut self.small,
            BufferClass::Bulk => &mut self.bulk,
        }
    }

    /// Whether anybody waits for a bulk receive buffer.
    #[inline]
    pub(super) fn miss_bulk(&self) -> bool {
        !self.bulk.is_empty() || !self.links.is_empty()
    }
}

impl<D: Driver> Worker<D> {
    /// A local socket or a direction of a pair found no buffer: its turn comes when one is back.
    pub(super) fn wait_for_buffer(&mut self, class: BufferClass, waiter: Waiter) {
        match waiter {
            Waiter::Local(key) => {
                let Some(local) = self.locals.get_mut(key) else { return };
                local.starved = true;
            }
            Waiter::Half(key, way) => {
                let Some(pair) = self.pairs.get_mut(key) else { return };
                let Some((half, ..)) = pair.half(way) else { return };
                half.input = Input::Starved;
            }
        }
        self.waiters.of(class).push_back(waiter);
        // Those that ended while they waited are still in it.
        let most = 2 * (self.locals.len() + 2 * self.pairs.len()) + 64;
        if self.waiters.of(class).len() > most {
            let mut list = std::mem::take(self.waiters.of(class));
            list.retain(|&waiter| self.is_waiting(waiter));
            *self.waiters.of(class) = list;
        }
    }

    fn is_waiting(&mut self, waiter: Waiter) -> bool {
        match waiter {
            Waiter::Local(key) => self.locals.get(key).is_some_and(|local| local.starved),
            Waiter::Half(key, way) => {
                let half = self.pairs.get_mut(key).and_then(|pair| pair.half(way));
                half.is_some_and(|(half, ..)| half.input == Input::Starved)
            }
        }
    }

    /// A link found no bulk buffer to receive into.
    pub(super) fn link_waits_for_buffer(&mut self, key: Key) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        if tunnel.starved.replace(Lack::Receive) != Some(Lack::Receive) {
            self.waiters.links.push_back(key);
        }
    }

    /// A tunnel found no buffer of the engine's own pool.
    pub(super) fn wait_for_pool(&mut self, key: Key) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        if !std::mem::replace(&mut tunnel.waits_for_pool, true) {
            self.waiters.pool.push_back(key);
        }
    }

    /// How many receives can find a buffer of a class.
    fn buffers_for(&self, class: BufferClass, waiter: Waiter) -> usize {
        let kept_free = match (class, waiter) {
            (BufferClass::Bulk, Waiter::Local(_)) => BULK_BUFFERS_FOR_LINKS + self.bulk_receives,
            _ => 0,
        };
        self.cx.driver.free_buffers(class).saturating_sub(kept_free)
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
        !self.waiters.links.is_empty() && self.cx.driver.free_buffers(BufferClass::Bulk) > 0
    }

    fn may_feed_tunnels(&self) -> bool {
        !self.waiters.pool.is_empty() && self.cx.buffers.can_read_ahead()
    }

    /// Whether what somebody waits for is there.
    pub(super) fn may_feed_any(&self) -> bool {
        self.may_feed(BufferClass::Small) > 0
            || self.may_feed(BufferClass::Bulk) > 0
            || self.may_feed_links()
            || self.may_feed_tunnels()
    }

    /// Lets those go on for whom there is a buffer now.
    pub(super) fn feed_waiters(&mut self) {
        // Links first: what they bring ends what others wait for.
        if self.may_feed_links() {
            for key in std::mem::take(&mut self.waiters.links) {
                if let Some(tunnel) = self.tunnels.get_mut(key) {
                    tunnel.starved.take_if(|lack| *lack == Lack::Receive);
                    self.read_link(key);
                }
            }
        }
        if self.may_feed_tunnels() {
            for key in std::mem::take(&mut self.waiters.pool) {
                if let Some(tunnel) = self.tunnels.get_mut(key) {
                    tunnel.waits_for_pool = false;
                    tunnel.starved.take_if(|lack| *lack == Lack::Pool);
                    // Writing comes back to reading.
                    self.mark_tunnel(key);
                }
            }
        }
        for class in [BufferClass::Small, BufferClass::Bulk] {
            // Not more than can find one: the others would be asked in vain.
            for _ in 0..self.may_feed(class) {
                match self.waiters.of(class).pop_front() {
                    Some(Waiter::Local(key)) => {
                        if let Some(local) = self.locals.get_mut(key) {
                            local.starved = false;
                            self.read_local(key);
                        }
                    }
                    Some(Waiter::Half(key, way)) => self.feed_half(key, way),
                    None => break,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
