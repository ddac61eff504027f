//! Pairs with one broken side, see [`crate::worker::broken`].

use std::io;

use tracing::debug;

use super::Relay;
use super::pair::Output;
use crate::io::driver::Driver;
use crate::io::net;
use crate::worker::broken::Broken;
use crate::worker::context::Cx;
use crate::worker::table::Key;
use crate::worker::way::Way;

/// A pair with one broken side.
#[derive(Debug)]
pub(super) struct BrokenSide {
    /// The direction that comes from it. The other direction is abandoned.
    pub(super) way: Way,
    /// All of its data has been written.
    is_empty: bool,
    broken: Broken,
}

impl Relay {
    /// The source of direction `way` accepts no more writes.
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

    /// A broken side is read to its end and its data written: resets the other side once it is
    /// acknowledged.
    pub(super) fn side_is_empty<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, way: Way) {
        if self.note_broken_side(cx, key, way) {
            let Some(pair) = self.pairs.get_mut(key) else { return };
            if let Some(side) = &mut pair.broken {
                side.is_empty = true;
            }
            self.look_at_pair(cx, key);
        }
    }

    /// `false`: the pair is gone.
    fn note_broken_side<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, way: Way) -> bool {
        let now = cx.now;
        let linger = cx.plan.timeouts.linger;
        let Some(pair) = self.pairs.get_mut(key) else { return false };
        match &pair.broken {
            Some(side) if side.way == way => return true,
            Some(_) => {
                // Both sides are broken.
                self.reset_pair(cx, key);
                return false;
            }
            None => {}
        }
        debug!(pair = key.number(), client = %pair.peer, way = way.name(), "connection broken");
        let broken = Broken::new(now, linger);
        pair.entry.reset_by(matches!(way, Way::Up));
        pair.broken = Some(BrokenSide { way, is_empty: false, broken });
        cx.deadline_count += 1;
        if let Some((half, ..)) = pair.half(way.other()) {
            half.output = Output::Broken;
            half.pipe.take().into_iter().for_each(|pipe| cx.buffers.pipes.give_back(pipe));
        }
        true
    }

    /// Checks a pair that is to be reset. `false`: it is not broken.
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

    /// The direction from a broken side has reached its end of data, and all of it is written.
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
