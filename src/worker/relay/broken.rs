//! Pairs of which one side is broken, see [`crate::worker::broken`].

use std::io;

use tracing::debug;

use super::Relay;
use super::pair::{Output, Way};
use crate::io::driver::Driver;
use crate::io::net;
use crate::worker::broken::Broken;
use crate::worker::context::Cx;
use crate::worker::table::Key;

/// A pair of which one side is broken.
#[derive(Debug)]
pub(super) struct BrokenSide {
    /// The direction that comes from it. The other one is given up.
    pub(super) way: Way,
    /// All of it has been written.
    is_empty: bool,
    broken: Broken,
}

impl Relay {
    /// The side that the direction `way` comes from takes no more, as a write to it says or a poll.
    pub(super) fn side_takes_no_more<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        key: Key,
        way: Way,
        error: Option<&io::Error>,
    ) {
        if self.note_broken_side(cx, key, way) {
            let Some(pair) = self.pairs.get_mut(key) else { return };
            if let (Some(side), Some(error)) = (&mut pair.broken, error) {
                side.broken.write_failed(error);
            }
            match pair.half(way) {
                Some((half, ..)) if half.output == Output::Shut => self.side_is_empty(cx, key, way),
                _ => self.advance_half(cx, key, way),
            }
        }
    }

    /// All that a broken side had sent has been written to the other: that is reset when it has arrived.
    pub(super) fn side_is_empty<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, way: Way) {
        if self.note_broken_side(cx, key, way) {
            let Some(pair) = self.pairs.get_mut(key) else { return };
            if let Some(side) = &mut pair.broken {
                side.is_empty = true;
            }
            self.look_at_pair(cx, key);
        }
    }

    /// `false`: there is nothing more to be done for the pair.
    fn note_broken_side<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, way: Way) -> bool {
        let now = cx.now;
        let linger = cx.plan.timeouts.linger;
        let Some(pair) = self.pairs.get_mut(key) else { return false };
        match &pair.broken {
            Some(side) if side.way == way => return true,
            Some(_) => {
                // Now both are.
                self.reset_pair(cx, key);
                return false;
            }
            None => {}
        }
        debug!(client = %pair.peer, way = way.name(), "connection broken");
        let broken = Broken::new(now, linger);
        pair.broken = Some(BrokenSide { way, is_empty: false, broken });
        cx.deadline_count += 1;
        if let Some((half, ..)) = pair.half(way.other()) {
            half.output = Output::Broken;
            half.pipe.take().into_iter().for_each(|pipe| cx.buffers.pipes.give_back(pipe));
        }
        true
    }

    /// Looks at a pair that is to be reset. `false`: it waits for nothing.
    pub(super) fn look_at_pair<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) -> bool {
        let now = cx.now;
        let Some(pair) = self.pairs.get_mut(key) else { return true };
        let Some(side) = &mut pair.broken else { return false };
        let target = match side.way {
            Way::Up => pair.server.as_ref(),
            Way::Down => Some(&pair.client),
        };
        let undelivered_bytes = target.map_or(0, |fd| net::undelivered_bytes(fd));
        let settled = side.is_empty && undelivered_bytes == 0;
        if settled || side.broken.grace.is_over(now, pair.last_data, undelivered_bytes) {
            self.reset_pair(cx, key);
            return true;
        }
        cx.deadline_count += 1;
        true
    }

    /// What comes from a broken side has come to its end of data, and all before it is written.
    pub(super) fn broken_side_ended<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, way: Way) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let in_order = pair.broken.as_ref().is_some_and(|side| side.broken.ends_in_order());
        if let (true, Some((half, _, to))) = (in_order, pair.half(way)) {
            net::shut_down_write(to);
            half.output = Output::Shut;
        }
        self.side_is_empty(cx, key, way);
    }
}
