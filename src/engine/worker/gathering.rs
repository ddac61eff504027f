//! When to look at a socket for datagrams again.
//!
//! A socket that many small datagrams come to is not watched: each would wake us up, and to be
//! woken up and to pass one on costs several times what one more beside it does. It is looked at
//! from time to time instead, until little has come.

use crate::limits::{DATAGRAM_REST_BYTES_MAX, DATAGRAM_REST_INTERVAL_MICROS, DATAGRAM_REST_MICROS};
use crate::session::Moment;

use super::table::Key;

/// A socket that datagrams come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// An entrance, by its number.
    Port(usize),
    /// The server of a flow.
    Flow(Key),
}

/// What to do with a socket that was just read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Be told of the next datagram.
    Watch,
    /// Look again then.
    Rest(Moment),
}

/// How close datagrams come at a socket.
#[derive(Debug, Default)]
pub(in crate::engine) struct Gathering {
    read_at: Moment,
    /// Time from one datagram to the next, averaged over the last few reads, in sixteenths of a
    /// microsecond.
    interval: u64,
}

/// Sixteenths, so that a few hundred thousand a second can be told apart.
const FRACTION: u64 = 16;

impl Gathering {
    /// So many datagrams, of so many bytes together, were read; `all`: that was all there was.
    pub(super) fn read(&mut self, count: u64, bytes: usize, all: bool, now: Moment) -> Next {
        let passed = now.0.saturating_sub(self.read_at.0).min(4 * DATAGRAM_REST_INTERVAL_MICROS);
        self.read_at = now;
        let interval = passed * FRACTION / count.max(1);
        self.interval = (self.interval * 3 + interval) / 4;
        let close = self.interval < DATAGRAM_REST_INTERVAL_MICROS * FRACTION;
        match count > 1 && close {
            false => Next::Watch,
            // What is large costs by the byte, and fills sockets meanwhile.
            true if bytes > DATAGRAM_REST_BYTES_MAX || !all => Next::Rest(now),
            true => Next::Rest(Moment(now.0 + DATAGRAM_REST_MICROS)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_left_to_gather_and_a_trickle_is_not() {
        let (mut gathering, mut now) = (Gathering::default(), Moment(1_000_000));
        // Questions and answers, one after another.
        for _ in 0..100 {
            now.0 += 2 * DATAGRAM_REST_INTERVAL_MICROS;
            assert_eq!(gathering.read(1, 64, true, now), Next::Watch);
        }
        // Five in ten microseconds, again and again.
        let mut next = Next::Watch;
        for _ in 0..20 {
            now.0 += 10;
            next = gathering.read(5, 320, true, now);
        }
        assert_eq!(next, Next::Rest(Moment(now.0 + DATAGRAM_REST_MICROS)));
        let large = gathering.read(5, DATAGRAM_REST_BYTES_MAX + 1, true, now);
        assert_eq!(large, Next::Rest(now), "no time is lost with runs");
        let full = gathering.read(5, 320, false, now);
        assert_eq!(full, Next::Rest(now), "nor with what is there already");
        // It ends.
        now.0 += DATAGRAM_REST_MICROS;
        assert_eq!(gathering.read(0, 0, true, now), Next::Watch);
    }
}
