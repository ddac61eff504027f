//! Receive coalescing: decides when a UDP socket is read again.
//!
//! With many small datagrams, a wake-up and a send for each cost several times what one more
//! datagram in a batch does. Such a socket is not polled but read at intervals, until little
//! arrives.

use crate::limits::{
    DATAGRAM_BACK_OFF_MICROS, DATAGRAM_REST_BYTES_MAX, DATAGRAM_REST_INTERVAL_MICROS,
    DATAGRAM_REST_MICROS,
};
use crate::session::Moment;
use crate::worker::message::PortName;
use crate::worker::table::Key;

/// A socket that receives datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Source {
    /// A port for clients.
    Port(PortName),
    /// The socket of a flow to its server.
    Flow(Key),
}

/// Result of a read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ReadTally {
    pub(super) datagrams: u64,
    /// Total size.
    pub(super) bytes: usize,
    /// Some were dropped.
    pub(super) dropped: bool,
    /// More datagrams are waiting.
    pub(super) more: bool,
}

/// What to do with a socket after a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Poll for the next datagram.
    Watch,
    /// Read again at this time.
    Rest(Moment),
}

/// Arrival statistics of a socket.
#[derive(Debug, Default)]
pub(crate) struct Coalescing {
    read_at: Moment,
    /// Moving average of the time between datagrams over the last few reads, in sixteenths of a
    /// microsecond.
    interval: u64,
    /// Current back-off because datagrams are dropped.
    back_off_micros: u64,
}

/// Resolution that distinguishes a few hundred thousand datagrams per second.
const FRACTION: u64 = 16;

/// Caps a long silence in the average, so that traffic after it is noticed soon.
const SILENCE_MICROS: u64 = 5 * DATAGRAM_REST_MICROS;

impl Coalescing {
    pub(super) fn read(&mut self, came: ReadTally, now: Moment) -> Next {
        let passed = now.0.saturating_sub(self.read_at.0).min(SILENCE_MICROS);
        self.read_at = now;
        let interval = passed * FRACTION / came.datagrams.max(1);
        self.interval = (self.interval * 3 + interval) / 4;
        let close = self.interval < DATAGRAM_REST_INTERVAL_MICROS * FRACTION;
        if came.datagrams <= 1 || !close {
            self.back_off_micros = 0;
            return Next::Watch;
        }
        // Large datagrams cost by the byte, and fill socket buffers meanwhile.
        let is_large = came.bytes > DATAGRAM_REST_BYTES_MAX;
        let micros = match came {
            // Reading datagrams only to drop them takes time from those that can be sent. Small
            // ones are read all the same, since a socket buffer holds a second of them.
            ReadTally { dropped: true, more, .. } if is_large || !more => {
                let longer = 2 * self.back_off_micros + DATAGRAM_REST_MICROS;
                self.back_off_micros = longer.min(DATAGRAM_BACK_OFF_MICROS);
                self.back_off_micros
            }
            ReadTally { dropped: true, .. } => 0,
            ReadTally { more, .. } => {
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

    const QUESTION: ReadTally = ReadTally { datagrams: 1, bytes: 64, dropped: false, more: false };
    const FLOOD: ReadTally = ReadTally { datagrams: 5, bytes: 320, ..QUESTION };

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
        let large = ReadTally { bytes: DATAGRAM_REST_BYTES_MAX + 1, ..FLOOD };
        assert_eq!(coalescing.read(large, now), Next::Rest(now), "no time is lost with runs");
        let full = ReadTally { more: true, ..FLOOD };
        assert_eq!(coalescing.read(full, now), Next::Rest(now), "nor with what is there already");
        // It ends.
        now.0 += DATAGRAM_REST_MICROS;
        assert_eq!(coalescing.read(ReadTally::default(), now), Next::Watch);
    }

    #[test]
    fn what_is_too_much_is_read_less_often() {
        let (mut coalescing, mut now) = (Coalescing::default(), Moment(1_000_000));
        let large = ReadTally { datagrams: 3_000, bytes: 3_000_000, dropped: true, more: true };
        let mut rests = Vec::new();
        for _ in 0..20 {
            now.0 += 100;
            if let Next::Rest(until) = coalescing.read(large, now) {
                rests.push(until.0 - now.0);
            }
        }
        assert!(rests.is_sorted() && rests.last() == Some(&DATAGRAM_BACK_OFF_MICROS), "{rests:?}");
        // Small ones to the end: the socket holds many of them.
        let small = ReadTally { bytes: 4_096, ..large };
        assert_eq!(coalescing.read(small, now), Next::Rest(now));
        // As it becomes less, so do the rests.
        let fits = ReadTally { dropped: false, ..large };
        for _ in 0..20 {
            coalescing.read(fits, now);
        }
        let next = coalescing.read(large, now);
        assert_eq!(next, Next::Rest(Moment(now.0 + DATAGRAM_REST_MICROS)));
    }
}
