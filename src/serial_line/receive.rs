//! The receiver: puts frames in order.

use super::frame::{self, Ack};
use crate::limits::{LINE_INBOX_BYTES, LINE_PAYLOAD_BYTES_MAX, LINE_WINDOW_FRAMES};

const WINDOW: u64 = LINE_WINDOW_FRAMES as u64;

/// Result of a received DATA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It was the next one. `gap`: others are kept behind one that is now missing.
    InOrder { gap: bool },
    /// One before it is missing.
    Early,
    /// It had been received before.
    Duplicate,
    /// The session has not read for long: handled as lost.
    Refused,
    /// Its number is neither in the window nor just before it.
    Impossible,
}

/// Frames kept behind a missing one, and bytes that wait to be read.
#[derive(Debug)]
pub(super) struct Receiver {
    /// Number of the next frame in order.
    next: u64,
    /// Bit i: frame `next + i` is kept. Bit 0 is never set.
    kept: u64,
    frames: Box<[Vec<u8>]>,
    inbox: Vec<u8>,
}

impl Receiver {
    pub(super) fn new() -> Receiver {
        let frame = || Vec::with_capacity(LINE_PAYLOAD_BYTES_MAX);
        Receiver {
            next: 0,
            kept: 0,
            frames: (0..WINDOW).map(|_| frame()).collect(),
            inbox: Vec::with_capacity(LINE_INBOX_BYTES),
        }
    }

    /// Handles a DATA with the lower 8 bits of its number.
    pub(super) fn take(&mut self, sequence: u8, payload: &[u8]) -> Arrival {
        let ahead = u64::from(sequence.wrapping_sub(frame::sequence(self.next)));
        if ahead >= WINDOW {
            let is_old = ahead >= 256 - WINDOW;
            return if is_old { Arrival::Duplicate } else { Arrival::Impossible };
        }
        if ahead > 0 {
            if self.kept & 1 << ahead != 0 {
                return Arrival::Duplicate;
            }
            self.kept |= 1 << ahead;
            let frame = &mut self.frames[((self.next + ahead) % WINDOW) as usize];
            frame.clear();
            frame.extend_from_slice(payload);
            return Arrival::Early;
        }
        if self.inbox.len() >= LINE_INBOX_BYTES {
            return Arrival::Refused;
        }
        self.inbox.extend_from_slice(payload);
        self.advance();
        while self.kept & 1 != 0 {
            self.inbox.extend_from_slice(&self.frames[(self.next % WINDOW) as usize]);
            self.advance();
        }
        Arrival::InOrder { gap: self.kept != 0 }
    }

    fn advance(&mut self) {
        self.next += 1;
        self.kept >>= 1;
    }

    /// The acknowledgement for the peer.
    pub(super) fn ack(&self) -> Ack {
        Ack { next: frame::sequence(self.next), beyond: self.kept >> 1 }
    }

    /// Bytes that wait to be read; in plain mode the line appends them itself.
    pub(super) fn inbox(&mut self) -> &mut Vec<u8> {
        &mut self.inbox
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_put_in_order() {
        let mut receiver = Receiver::new();
        assert_eq!(receiver.take(1, b"b"), Arrival::Early);
        assert_eq!(receiver.take(3, b"d"), Arrival::Early);
        assert_eq!(receiver.take(3, b"d"), Arrival::Duplicate);
        assert_eq!(receiver.ack(), Ack { next: 0, beyond: 0b101 });
        assert_eq!(receiver.take(0, b"a"), Arrival::InOrder { gap: true });
        assert_eq!(receiver.ack(), Ack { next: 2, beyond: 0b1 });
        assert_eq!(receiver.take(2, b"c"), Arrival::InOrder { gap: false });
        assert_eq!(receiver.take(2, b"c"), Arrival::Duplicate);
        assert_eq!(receiver.take(100, b"x"), Arrival::Impossible);
        assert_eq!(receiver.inbox(), b"abcd");
    }

    #[test]
    fn numbers_go_round() {
        let mut receiver = Receiver::new();
        for number in 0..1_000_u64 {
            let early = frame::sequence(number + 1);
            assert_eq!(receiver.take(early, b"2"), Arrival::Early);
            assert_eq!(receiver.take(early, b"2"), Arrival::Duplicate);
            // Each pair is reordered, so the window advances pair by pair.
            receiver.kept = 0;
            assert_eq!(
                receiver.take(frame::sequence(number), b"1"),
                Arrival::InOrder { gap: false }
            );
        }
        assert_eq!(receiver.inbox().len(), 1_000);
    }

    #[test]
    fn nothing_grows_while_nobody_reads() {
        let mut receiver = Receiver::new();
        let payload = [7; LINE_PAYLOAD_BYTES_MAX];
        let mut number = 0_u8;
        while receiver.take(number, &payload) != Arrival::Refused {
            number = number.wrapping_add(1);
        }
        for ahead in 1..LINE_WINDOW_FRAMES {
            assert_eq!(receiver.take(number.wrapping_add(ahead), &payload), Arrival::Early);
        }
        assert_eq!(receiver.inbox().len(), LINE_INBOX_BYTES);
        receiver.inbox().clear();
        assert_eq!(receiver.take(number, &payload), Arrival::InOrder { gap: false });
        assert_eq!(
            receiver.inbox().len(),
            usize::from(LINE_WINDOW_FRAMES) * LINE_PAYLOAD_BYTES_MAX
        );
    }
}
