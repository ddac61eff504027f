//! When to look at a socket for datagrams again.
//!
//! A socket that many small datagrams come to is not watched: each would wake us up, and to be
//! woken up and to pass one on costs several times what one more beside it does. It is looked at
//! from time to time instead, until little has come.

use crate::limits::{
    DATAGRAM_BACK_OFF_MICROS, DATAGRAM_REST_BYTES_MAX, DATAGRAM_REST_INTERVAL_MICROS,
    DATAGRAM_REST_MICROS,
};
use crate::session::Moment;
use crate::worker::datagram::PortName;
use crate::worker::table::Key;

/// A socket that datagrams come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Source {
    /// Where clients' datagrams come in.
    Port(PortName),
    /// The server of a flow.
    Flow(Key),
}

/// What a read brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::worker) struct Came {
    pub(in crate::worker) datagrams: u64,
    /// Of all of them.
    pub(in crate::worker) bytes: usize,
    /// Some went no further.
    pub(in crate::worker) dropped: bool,
    /// More is there.
    pub(in crate::worker) more: bool,
}

/// What to do with a socket that was just read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Next {
    /// Be told of the next datagram.
    Watch,
    /// Look again then.
    Rest(Moment),
}

/// How close datagrams come at a socket.
#[derive(Debug, Default)]
pub(crate) struct Coalescing {
    read_at: Moment,
    /// Time from one datagram to the next, averaged over the last few reads, in sixteenths of a
    /// microsecond.
    interval: u64,
    /// How long the socket is left alone because what comes is too much.
    back_off_micros: u64,
}

/// Sixteenths, so that a few hundred thousand a second can be told apart.
const FRACTION: u64 = 16;

/// A silence counts for no more than this, so that what comes behind it is soon seen.
const SILENCE_MICROS: u64 = 5 * DATAGRAM_REST_MICROS;

impl Coalescing {
    pub(in crate::worker) fn read(&mut self, came: Came, now: Moment) -> Next {
        let passed = now.0.saturating_sub(self.read_at.0).min(SILENCE_MICROS);
        self.read_at = now;
        let interval = passed * FRACTION / came.datagrams.max(1);
        self.interval = (self.interval * 3 + interval) / 4;
        let close = self.interval < DATAGRAM_REST_INTERVAL_MICROS * FRACTION;
        if came.datagrams <= 1 || !close {
            self.back_off_micros = 0;
            return Next::Watch;
        }
        // What is large costs by the byte, and fills sockets meanwhile.
        let is_large = came.bytes > DATAGRAM_REST_BYTES_MAX;
        let micros = match came {
            // Reading what goes no further takes the time that the rest needs to go on. Small
            // ones are read to the end all the same: a socket holds a second of them.
            Came { dropped: true, more, .. } if is_large || !more => {
                let longer = 2 * self.back_off_micros + DATAGRAM_REST_MICROS;
                self.back_off_micros = longer.min(DATAGRAM_BACK_OFF_MICROS);
                self.back_off_micros
            }
            Came { dropped: true, .. } => 0,
            Came { more, .. } => {
                self.back_off_micros /= 2;
                if is_large || more { 0 } else { DATAGRAM_REST_MICROS }
            }
        };
        Next::Rest(Moment(now.0 + micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: Came = Came { datagrams: 1, bytes: 64, dropped: false, more: false };
    const FLOOD: Came = Came { datagrams: 5, bytes: 320, ..QUESTION };

    #[test]
    fn a_flood_is_left_to_gather_and_a_trickle_is_not() {
        let (mut coalescing, mut now) = (Coalescing::default(), Moment(1_000_000));
        // Questions and answers, one after another.
        for _ in 0..100 {
            now.0 += 2 * DATAGRAM_REST_INTERVAL_MICROS;
            assert_eq!(coalescing.read(QUESTION, now), Next::Watch);
        }
        // Five in ten microseconds, again and again.
        let mut next = Next::Watch;
        for _ in 0..20 {
            now.0 += 10;
            next = coalescing.read(FLOOD, now);
        }
        assert_eq!(next, Next::Rest(Moment(now.0 + DATAGRAM_REST_MICROS)));
        let large = Came { bytes: DATAGRAM_REST_BYTES_MAX + 1, ..FLOOD };
        assert_eq!(coalescing.read(large, now), Next::Rest(now), "no time is lost with runs");
        let full = Came { more: true, ..FLOOD };
        assert_eq!(coalescing.read(full, now), Next::Rest(now), "nor with what is there already");
        // It ends.
        now.0 += DATAGRAM_REST_MICROS;
        assert_eq!(coalescing.read(Came::default(), now), Next::Watch);
    }

    #[test]
    fn what_is_too_much_is_read_less_often() {
        let (mut coalescing, mut now) = (Coalescing::default(), Moment(1_000_000));
        let large = Came { datagrams: 3_000, bytes: 3_000_000, dropped: true, more: true };
        let mut rests = Vec::new();
        for _ in 0..20 {
            now.0 += 100;
            if let Next::Rest(until) = coalescing.read(large, now) {
                rests.push(until.0 - now.0);
            }
        }
        assert!(rests.is_sorted() && rests.last() == Some(&DATAGRAM_BACK_OFF_MICROS), "{rests:?}");
        // Small ones to the end: the socket holds many of them.
        let small = Came { bytes: 4_096, ..large };
        assert_eq!(coalescing.read(small, now), Next::Rest(now));
        // As it becomes less, so do the rests.
        let fits = Came { dropped: false, ..large };
        for _ in 0..20 {
            coalescing.read(fits, now);
        }
        let next = coalescing.read(large, now);
        assert_eq!(next, Next::Rest(Moment(now.0 + DATAGRAM_REST_MICROS)));
    }
}
