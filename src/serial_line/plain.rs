//! The way out towards a peer without the link layer: bytes as they are.

use super::pacer::Pacer;
use super::probe::Packets;
use crate::limits::{LINE_AHEAD_MICROS, LINE_PROBE_MICROS};
use crate::session::Moment;

/// Bytes that wait for the line, and whether the HELLO has to be said again.
#[derive(Debug, Default)]
pub(super) struct Plain {
    queue: Vec<u8>,
    repeat: Option<Repeat>,
}

/// A HELLO that went out while the peer may not have listened yet. A second one that does reach it
/// ends its tunnel, so that it is said again only once, and only without any answer.
#[derive(Debug)]
struct Repeat {
    at: Moment,
    incoming: Packets,
    outgoing: Packets,
}

impl Plain {
    /// Bytes of the stream that go to the device within its turn.
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

    /// The peer's HELLO has come and no answer to ours, which was sent before.
    pub(super) fn expect_answer(&mut self, now: Moment) {
        // Before the peer, if it is one of ours that has not heard us, says its own again.
        let at = Moment(now.0.saturating_add(LINE_PROBE_MICROS / 2));
        let (incoming, outgoing) = (Packets::default(), Packets::default());
        self.repeat = Some(Repeat { at, incoming, outgoing });
    }

    /// These bytes came.
    pub(super) fn received(&mut self, bytes: &[u8]) {
        if let Some(repeat) = &mut self.repeat
            && repeat.incoming.pass(bytes)
        {
            self.repeat = None;
        }
    }

    /// Takes what waits, and perhaps `hello` once more.
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

    /// When something is to be done without being asked.
    pub(super) fn wakes_at(&self) -> Option<Moment> {
        self.repeat.as_ref().map(|repeat| repeat.at)
    }
}

const _: () = assert!(LINE_AHEAD_MICROS < LINE_PROBE_MICROS / 2);
