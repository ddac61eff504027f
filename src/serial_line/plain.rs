//! Output towards a peer without the link layer: unchanged bytes.

use super::pacer::Pacer;
use super::probe::Packets;
use crate::limits::{LINE_AHEAD_MICROS, LINE_PROBE_MICROS};
use crate::session::Moment;

/// Bytes that wait for the line, and whether the HELLO is to be repeated.
#[derive(Debug, Default)]
pub(super) struct Plain {
    queue: Vec<u8>,
    repeat: Option<Repeat>,
}

/// A HELLO that was sent while the peer may not have listened yet. A second one that does arrive
/// ends the peer's tunnel, so it is repeated only once, and only without any answer.
#[derive(Debug)]
struct Repeat {
    at: Moment,
    incoming: Packets,
    outgoing: Packets,
}

impl Plain {
    /// Bytes of the stream that are handed to the device in its turn.
    pub(super) fn room_bytes(&self, frame_bytes: usize, pacer: &Pacer, now: Moment) -> usize {
        let Some(nanos) = pacer.room_nanos(now).filter(|_| self.queue.is_empty()) else { return 0 };
        let ahead = nanos.saturating_mul(pacer.bytes_per_second()) / 1_000_000_000;
        frame_bytes.max(ahead as usize)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.queue.extend_from_slice(bytes);
        if let Some(repeat) = &mut self.repeat {
            repeat.outgoing.pass(bytes);
        }
    }

    /// The peer's HELLO was received, and no answer to ours, which was sent before.
    pub(super) fn expect_answer(&mut self, now: Moment) {
        // Before a peer of ours that has not received it repeats its own.
        let at = Moment(now.0.saturating_add(LINE_PROBE_MICROS / 2));
        let (incoming, outgoing) = (Packets::default(), Packets::default());
        self.repeat = Some(Repeat { at, incoming, outgoing });
    }

    /// Handles received bytes.
    pub(super) fn received(&mut self, bytes: &[u8]) {
        if let Some(repeat) = &mut self.repeat
            && repeat.incoming.pass(bytes)
        {
            self.repeat = None;
        }
    }

    /// Takes what waits, and `hello` once more if it is due.
    pub(super) fn poll_output(&mut self, out: &mut Vec<u8>, hello: &[u8], now: Moment) {
        out.append(&mut self.queue);
        if let Some(repeat) = &self.repeat
            && repeat.at <= now
            && repeat.outgoing.is_between()
        {
            out.extend_from_slice(hello);
            self.repeat = None;
        }
    }

    /// The next deadline.
    pub(super) fn wakes_at(&self) -> Option<Moment> {
        self.repeat.as_ref().map(|repeat| repeat.at)
    }
}

const _: () = assert!(LINE_AHEAD_MICROS < LINE_PROBE_MICROS / 2);
