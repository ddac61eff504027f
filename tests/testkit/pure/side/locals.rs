//! The local sockets of a side: opening, deciding, writing, taking, ending.

use sockmux_uring::limits::READ_AHEAD_BYTES;
use sockmux_uring::session::{Moment, OpenError};

use super::super::script::{End, Exit, LEAVING, Plan, REFUSAL, address_of};
use super::super::world::Order;
use super::{Side, later};

impl Side {
    /// Performs the actions of the local sockets at `now`. Returns whether there were any.
    pub(crate) fn run_locals(&mut self, now: Moment, plans: &[Plan], order: &mut Order) -> bool {
        let mut busy = self.leave_due(now) | self.open_due(now, plans);
        let count = self.locals.len();
        let first = order.below(count);
        for n in 0..count {
            let user = (first + n) % count;
            // In runs with many short streams most have ended.
            if self.locals[user].key.is_none() {
                continue;
            }
            for step in order.of::<4>() {
                if order.puts_off() {
                    continue;
                }
                busy |= match step {
                    0 => self.decide(user, now, plans),
                    1 => self.reset_due(user, now),
                    2 => self.take(user, now),
                    // Several pieces, and the end after them, before a frame is sent.
                    _ => (0..=order.below(4)).fold(false, |any, _| any | self.write(user, now)),
                };
            }
        }
        self.ending = None;
        self.take_events(now, plans);
        busy
    }

    fn leave_due(&mut self, now: Moment) -> bool {
        if self.left || self.leave_at.is_none_or(|at| now < at) {
            return false;
        }
        self.left = true;
        self.session.refuse_new(LEAVING);
        true
    }

    fn open_due(&mut self, now: Moment, plans: &[Plan]) -> bool {
        if !self.session.is_up() || now < self.retry_at {
            return false;
        }
        let Some(at) = self.to_open.iter().position(|&plan| plans[plan].open_at <= now) else {
            return false;
        };
        let plan = self.to_open[at];
        let user = self.locals.len();
        let (client, entrance) = (address_of(plan), address_of(0));
        let opened = match plans[plan].datagrams {
            true => self.session.open_datagrams(user as u64, client, entrance),
            false => self.session.open(user as u64, client, entrance),
        };
        match opened {
            Ok(key) => {
                assert!(!self.peer_leaves, "a stream towards a peer that goes away");
                self.to_open.swap_remove(at);
                assert_eq!(user, self.begin(plan, 0, &plans[plan], now));
                self.set_key(user, key);
                assert!(self.session.stream_count() <= self.session.streams_max() as usize);
            }
            Err(OpenError::GoingAway) => {
                assert!(self.peer_leaves);
                self.given_up.push(self.to_open.swap_remove(at));
            }
            Err(_) => {
                assert!(self.session.stream_count() >= self.session.streams_max() as usize);
                self.retry_at = later(now, 500_000);
            }
        }
        true
    }

    fn decide(&mut self, user: usize, now: Moment, plans: &[Plan]) -> bool {
        let local = &mut self.locals[user];
        let (Some(key), Some(at)) = (local.key, local.decide_at) else { return false };
        if now < at {
            return false;
        }
        local.decide_at = None;
        match plans[local.plan].exit {
            Exit::Accept { .. } => {
                local.opened = true;
                local.write_at = now;
                self.session.accept(key, address_of(0), address_of(1));
            }
            Exit::Refuse { unreachable, .. } => {
                local.key = None;
                local.reset = true;
                self.by_key.remove(&key);
                self.session.refuse(key, REFUSAL, unreachable);
            }
        }
        true
    }

    fn reset_due(&mut self, user: usize, now: Moment) -> bool {
        let local = &mut self.locals[user];
        let Some(key) = local.key.filter(|_| local.decide_at.is_none() && !local.reset) else {
            return false;
        };
        let due = match local.script.end {
            End::ResetAt(after) => later(local.began, after) <= now,
            End::ResetAfter(bytes) => local.read >= bytes.min(local.script.total),
            _ => false,
        };
        if due {
            local.reset = true;
            local.broken = matches!(local.script.end, End::ResetAfter(_));
            let reason = "connection reset by the script";
            let keep = match local.broken {
                true => self.session.local_broken(key, reason),
                false => self.session.local_reset(key, reason),
            };
            self.locals[user].dropped = !keep;
        }
        due
    }

    fn take(&mut self, user: usize, now: Moment) -> bool {
        let local = &mut self.locals[user];
        let Some(key) = local.key.filter(|_| local.decide_at.is_none() && !local.reset) else {
            return false;
        };
        let waiting = local.delivered - local.taken;
        if waiting == 0 || now < local.take_at {
            return false;
        }
        let bytes = waiting.min(local.script.gulp);
        local.taken += bytes;
        local.take_at = later(now, local.script.gulp_gap);
        self.session.consumed(key, bytes, now);
        true
    }

    fn write(&mut self, user: usize, now: Moment) -> bool {
        let local = &mut self.locals[user];
        let Some(key) = local.key.filter(|_| local.decide_at.is_none()) else { return false };
        if local.eof || local.reset || local.paused || now < local.write_at {
            return false;
        }
        let left = local.script.total.saturating_sub(local.read);
        if local.flow.is_some() {
            return left > 0 && self.write_datagrams(user, key, now);
        }
        if left == 0 {
            let due = match local.script.end {
                End::Eof => true,
                End::EofAfterPeer => local.peer_end.is_some(),
                _ => false,
            };
            local.eof = due;
            if due {
                self.session.data_end(key, now);
            }
            return due;
        }
        if !self.session.may_read(key) {
            local.paused = true;
            return true;
        }
        let bytes = left.min(local.script.chunk);
        local.read += bytes;
        local.write_at = later(now, local.script.chunk_gap);
        assert!(local.read - local.framed <= READ_AHEAD_BYTES + bytes, "too much is read ahead");
        self.session.data_ready(key, bytes);
        if local.urgent_left > 0 && local.opened {
            local.urgent_left -= 1;
            self.session.urgent(key, b'!');
        }
        true
    }

    /// Time of the next action here.
    pub(crate) fn next_moment(&self, plans: &[Plan]) -> Option<Moment> {
        let locals = self.locals.iter().filter(|local| local.key.is_some()).flat_map(|local| {
            let decided = local.decide_at.is_none();
            let reset_at = match local.script.end {
                End::ResetAt(after) => Some(later(local.began, after)),
                _ => None,
            };
            let takes = decided && !local.reset && local.delivered > local.taken;
            let wants = match local.script.end {
                _ if local.flow.is_some() => false,
                End::Eof => true,
                End::EofAfterPeer => local.peer_end.is_some(),
                _ => false,
            } || local.read < local.script.total;
            let writes = decided && !local.reset && !local.eof && !local.paused && wants;
            [
                local.decide_at,
                reset_at.filter(|_| decided && !local.reset),
                takes.then_some(local.take_at),
                writes.then_some(local.write_at),
            ]
        });
        let opens = self.to_open.iter().map(|&plan| plans[plan].open_at.max(self.retry_at));
        let opens = opens.filter(|_| self.session.is_up()).min();
        let leaves = self.leave_at.filter(|_| !self.left);
        locals.flatten().chain(opens).chain(leaves).chain(self.session.next_timeout()).min()
    }
}
