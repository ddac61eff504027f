//! The handshake of incarnations by SYN.

use super::frame::Syn;
use crate::limits::{
    LINE_PAYLOAD_BYTES_MAX, LINE_PROBE_MICROS, LINE_SYN_MICROS, LINE_WINDOW_FRAMES,
};
use crate::narrow::to_u16;
use crate::session::Moment;

/// Meaning of a received SYN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HelloProgress {
    /// Our own, echoed by the line.
    Echo,
    /// From another incarnation of the peer than the established one.
    Restarted,
    /// The peer's. `is_news`: its incarnation was not known.
    Peer { is_news: bool },
}

/// Both incarnations, and the timing of SYN.
#[derive(Debug)]
pub(super) struct Handshake {
    own: u32,
    bytes_per_second: u32,
    peer: Option<u32>,
    /// The peer knows our incarnation.
    is_up: bool,
    /// The peer waits for a SYN.
    owes_answer: bool,
    /// We ask for one although we are established.
    asks: bool,
    /// When the last SYN has left.
    sent_at: Option<Moment>,
    begun_at: Moment,
    /// When a valid frame was last received.
    heard_at: Moment,
    /// Interval of SYN while the peer has not answered, in microseconds.
    syn_micros: u64,
    /// The same towards a peer that was established.
    ask_micros: u64,
}

impl Handshake {
    /// `frame_micros`: time of a frame on the line. All intervals are longer on a slow one.
    pub(super) fn new(incarnation: u32, bytes_per_second: u32, frame_micros: u64) -> Handshake {
        Handshake {
            own: incarnation.max(1),
            bytes_per_second,
            peer: None,
            is_up: false,
            owes_answer: false,
            asks: false,
            sent_at: None,
            begun_at: Moment(0),
            heard_at: Moment(0),
            syn_micros: LINE_SYN_MICROS.max(2 * frame_micros),
            ask_micros: LINE_PROBE_MICROS.max(4 * frame_micros),
        }
    }

    /// The peer is known to speak frames.
    pub(super) fn begin(&mut self, now: Moment) {
        self.begun_at = now;
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up
    }

    pub(super) fn begun_at(&self) -> Moment {
        self.begun_at
    }

    pub(super) fn heard_at(&self) -> Moment {
        self.heard_at
    }

    /// A valid frame was received.
    pub(super) fn heard(&mut self, now: Moment) {
        self.heard_at = now;
    }

    /// Handles a SYN.
    pub(super) fn received(&mut self, syn: &Syn, now: Moment) -> HelloProgress {
        if syn.from == self.own {
            return HelloProgress::Echo;
        }
        let is_news = self.peer != Some(syn.from);
        if is_news && self.is_up {
            return HelloProgress::Restarted;
        }
        self.peer = Some(syn.from);
        self.is_up |= syn.to == self.own;
        self.owes_answer |= syn.wants_answer;
        self.asks = false;
        self.heard(now);
        HelloProgress::Peer { is_news }
    }

    /// A frame was received whose check is seeded with both incarnations: so the peer knows ours.
    pub(super) fn confirmed(&mut self) {
        self.is_up = true;
    }

    /// When an established peer may be asked for a SYN: no valid frame was received for a second,
    /// and none was asked for within one. `None` while one is asked for.
    pub(super) fn ask_at(&self) -> Option<Moment> {
        let since = self.sent_at.map_or(self.heard_at, |at| at.max(self.heard_at));
        let at = Moment(since.0.saturating_add(self.ask_micros));
        (self.is_up && !self.asks).then_some(at)
    }

    /// Asks the peer for a SYN, if it is due.
    pub(super) fn ask(&mut self, now: Moment) {
        self.asks |= self.ask_at().is_some_and(|at| at <= now);
    }

    /// The SYN to be sent now, if one is due.
    pub(super) fn due(&self, now: Moment) -> Option<Syn> {
        let again = || self.syn_at().is_none_or(|at| at <= now);
        let is_due = self.owes_answer || self.asks || (!self.is_up && again());
        is_due.then(|| self.syn())
    }

    /// A SYN as of now.
    pub(super) fn syn(&self) -> Syn {
        Syn {
            from: self.own,
            to: self.peer.unwrap_or(0),
            wants_answer: !self.is_up || self.asks,
            window_frames: LINE_WINDOW_FRAMES,
            payload_bytes_max: to_u16(LINE_PAYLOAD_BYTES_MAX),
            bytes_per_second: self.bytes_per_second,
        }
    }

    /// When the next SYN is due; `None`: at once, or never.
    pub(super) fn syn_at(&self) -> Option<Moment> {
        let sent_at = self.sent_at.filter(|_| !self.is_up)?;
        Some(Moment(sent_at.0.saturating_add(self.syn_micros)))
    }

    /// A SYN was handed to the device, and will have left at `left`.
    pub(super) fn sent(&mut self, left: Moment) {
        self.sent_at = Some(left);
        self.owes_answer = false;
        self.asks = false;
    }

    /// Seed of the check of our frames, once the peer's incarnation is known.
    pub(super) fn seed_out(&self) -> Option<u32> {
        Some(seed(self.own, self.peer?))
    }

    /// Seed of the check of the peer's frames.
    pub(super) fn seed_in(&self) -> Option<u32> {
        Some(seed(self.peer?, self.own))
    }
}

/// A frame of another session, or our own echo, has another seed.
fn seed(from: u32, to: u32) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&from.to_be_bytes()), &to.to_be_bytes())
}
