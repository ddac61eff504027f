//! Towards an original, CLOSE would end both directions. So after the end of a client's data CLOSE
//! is held until nothing was received for the client for a while, or other streams need its slot.

use std::time::Duration;

use super::stream::{LocalEnd, Stream, StreamState};
use super::{Moment, Session, StreamKey};
use crate::limits::{
    ANSWERED_HOLD_MICROS, ANSWERED_HOLD_MICROS_MIN, ORIGINAL_STREAMS_SPARE,
    UNANSWERED_HOLD_MICROS_MIN,
};

/// State of a held CLOSE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hold {
    /// When the client ended its data, something had been received since it last sent.
    answered: bool,
    /// The client consumed slowly: the hold then lasts at least as long as after an answer.
    slow: bool,
    /// Start of the current wait: the end of the client's data, the acknowledgement of the last of
    /// it, or the last time that the client consumed part of an answer.
    since: Moment,
}

impl Hold {
    pub(super) fn new(answered: bool, now: Moment) -> Hold {
        Hold { answered, slow: false, since: now }
    }

    /// Restarts the wait, because an answer may arrive from now on, or is arriving.
    pub(super) fn renew(&mut self, now: Moment) {
        self.since = now;
    }
}

impl Stream {
    /// The stream is ending, or would but for the hold, and the peer will release its slot.
    fn gives_slot_back(&self) -> bool {
        self.state == StreamState::Closing || self.todo.close
    }

    /// Only the hold delays CLOSE.
    fn is_only_held(&self) -> bool {
        let done = self.ready_bytes == 0 && self.unacked_bytes == 0 && self.backlog_bytes == 0;
        done && self.state == StreamState::Open && self.local_end == LocalEnd::Eof
    }
}

impl Session {
    /// Another stream may be opened here.
    pub fn has_room(&self) -> bool {
        self.hello.is_done()
            && !self.peer_leaves
            && self.streams.len() < self.peer.streams_max() as usize
    }

    /// Number of slots that must be freed to have enough of them free or about to be.
    fn missing_slots(&self) -> usize {
        let limit = self.peer.streams_max() as usize;
        if self.holds.is_empty() || self.streams.len() + ORIGINAL_STREAMS_SPARE <= limit {
            return 0;
        }
        let free = limit.saturating_sub(self.streams.len());
        let freed = self.streams.iter().filter(|stream| stream.gives_slot_back()).count();
        ORIGINAL_STREAMS_SPARE.saturating_sub(free + freed)
    }

    /// Longest hold of a silent stream, in general and when slots run short. An answer that fills
    /// the windows pauses for a round trip each time.
    fn hold_times(&self, hold: &Hold) -> (Duration, Duration) {
        let round_trip = self.round_trip().unwrap_or_default();
        let with_round_trip = |micros| round_trip.saturating_add(Duration::from_micros(micros));
        let whole = self.config.linger.unwrap_or(Duration::MAX);
        let (most, least) = match hold.answered {
            true => (whole.min(with_round_trip(ANSWERED_HOLD_MICROS)), ANSWERED_HOLD_MICROS_MIN),
            false => (whole, UNANSWERED_HOLD_MICROS_MIN),
        };
        let most = if hold.slow { most.max(with_round_trip(ANSWERED_HOLD_MICROS)) } else { most };
        (most, most.min(with_round_trip(least)))
    }

    fn is_over_at(&self, hold: &Hold) -> Moment {
        hold.since.after(self.hold_times(hold).0)
    }

    /// The stream that was held and silent for longest, with the time at which it may be closed.
    fn longest_held(&self) -> Option<(Moment, StreamKey)> {
        let held = self.holds.iter().filter_map(|&key| {
            let stream = self.streams.get(key).filter(|stream| stream.is_only_held())?;
            let hold = stream.hold?;
            Some((hold.since.after(self.hold_times(&hold).1), key))
        });
        held.min_by_key(|&(gives_way_at, _)| gives_way_at)
    }

    /// When slots run short, closes the streams that were held and silent for longest.
    pub(super) fn free_slots(&mut self) {
        let now = self.link_window.now();
        for _ in 0..self.missing_slots() {
            match self.longest_held() {
                Some((gives_way_at, key)) if gives_way_at <= now => self.end_hold(key),
                _ => return,
            }
        }
    }

    /// When the next hold ends.
    pub(super) fn next_hold_end(&self) -> Option<Moment> {
        let holds = self.holds.iter().filter_map(|&key| self.streams.get(key)?.hold);
        let over = holds.map(|hold| self.is_over_at(&hold)).min()?;
        let gives_way = match self.missing_slots() {
            0 => None,
            _ => self.longest_held().map(|(gives_way_at, _)| gives_way_at),
        };
        Some(gives_way.map_or(over, |at| at.min(over)))
    }

    fn end_hold(&mut self, key: StreamKey) {
        self.holds.retain(|&held| held != key);
        if let Some(stream) = self.streams.get_mut(key) {
            stream.hold = None;
        }
        self.check_end(key);
    }

    /// Ends the holds whose time has passed.
    pub(super) fn end_holds(&mut self, now: Moment) {
        let mut at = 0;
        while at < self.holds.len() {
            let key = self.holds[at];
            let hold = self.streams.get(key).and_then(|stream| stream.hold);
            let ends = hold.is_none_or(|hold| self.is_over_at(&hold) <= now);
            let stream = self.streams.get_mut(key);
            match stream.filter(|stream| ends && stream.backlog_bytes > 0) {
                // Data is still being delivered to a slow client: wait for it.
                Some(Stream { hold: Some(hold), .. }) => {
                    hold.slow = true;
                    hold.renew(now);
                    at += 1;
                }
                _ if ends => self.end_hold(key),
                _ => at += 1,
            }
        }
        self.free_slots();
    }
}
