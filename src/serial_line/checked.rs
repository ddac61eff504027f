//! The checked mode of a line: handling of received frames, and choice of the frames to send.

use super::frame::{Ack, Head, LineFrame, OVERHEAD_BYTES, Syn};
use super::framing::{self, FLAG, Segment};
use super::handshake::HelloProgress;
use super::receive::Arrival;
use super::{LineError, LineMode, LineProtocol};
use crate::session::Moment;

impl LineProtocol {
    /// Handles bytes from a peer that speaks frames, or may.
    pub(super) fn received_frames(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.over.is_none() {
            let (taken, is_ended) = self.deframer.take(bytes);
            bytes = &bytes[taken..];
            if is_ended {
                self.take_segment();
                self.deframer.clear();
            }
        }
        // A restarted peer sends its HELLO, which has no flags.
        self.is_noisy |= self.deframer.pending_bytes() > 0;
    }

    /// Handles what a flag ended, which may be a frame.
    fn take_segment(&mut self) {
        let (segment, raw_bytes) = self.deframer.segment();
        let body = match segment {
            Segment::Rubbish => None,
            Segment::Frame(frame) if LineFrame::is_syn(frame) => framing::checked(frame, 0),
            Segment::Frame(frame) => {
                self.handshake.seed_in().and_then(|seed| framing::checked(frame, seed))
            }
        };
        let is_right = match body.and_then(LineFrame::decode) {
            None => false,
            Some(LineFrame::Syn(syn)) => {
                let heard = self.handshake.received(&syn, self.now);
                match heard {
                    HelloProgress::Echo => false,
                    HelloProgress::Restarted => {
                        self.over = Some(LineError::PeerRestarted);
                        true
                    }
                    HelloProgress::Peer { is_news } => {
                        if self.mode == LineMode::Probing {
                            self.begin_checked();
                            self.scanner.clear();
                        }
                        if is_news {
                            self.sender.set_limits(syn.window_frames, syn.payload_bytes_max);
                        }
                        true
                    }
                }
            }
            Some(LineFrame::Ack(ack)) => {
                self.handshake.confirmed();
                self.sender.acknowledged(ack, self.now);
                true
            }
            Some(LineFrame::Data { sequence, ack, payload }) => {
                self.handshake.confirmed();
                self.sender.acknowledged(ack, self.now);
                let arrival = self.receiver.take(sequence, payload);
                self.owe_ack(arrival);
                true
            }
        };
        if is_right {
            self.counters.frames_received += 1;
            self.is_noisy = false;
            self.handshake.heard(self.now);
        } else {
            self.is_noisy = true;
            // While probing, the scanner counts skipped bytes.
            if self.mode == LineMode::Checked {
                self.counters.frames_damaged += 1;
                self.counters.bytes_skipped += raw_bytes;
            }
        }
        self.frame_hello();
    }

    /// A DATA was received, which is to be acknowledged.
    fn owe_ack(&mut self, arrival: Arrival) {
        // A frame of ours is likely to be sent within one frame time, and carries the
        // acknowledgement.
        let may_ride = self.sender.is_busy();
        let delay_micros = match arrival {
            Arrival::InOrder { gap: false } if may_ride => {
                self.pacer.micros((self.payload_bytes_max + OVERHEAD_BYTES) as u64)
            }
            Arrival::InOrder { .. } | Arrival::Early => 0,
            Arrival::Duplicate => {
                self.counters.duplicates += 1;
                0
            }
            Arrival::Refused | Arrival::Impossible => {
                self.counters.frames_refused += 1;
                return;
            }
        };
        let at = Moment(self.now.0.saturating_add(delay_micros));
        self.ack_at = Some(self.ack_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Puts the session's HELLO into frames before anything else.
    pub(super) fn frame_hello(&mut self) {
        if self.mode == LineMode::Checked && self.handshake.is_up() {
            let rest = &self.hello.bytes[self.hello.framed_bytes..];
            self.hello.framed_bytes += self.sender.write(rest);
        }
    }

    /// Appends a SYN, and returns when it will have left.
    pub(super) fn put_syn(&mut self, out: &mut Vec<u8>, syn: Syn, now: Moment) -> Moment {
        let before = self.flag_after_pause(out, now);
        framing::put(out, 0, [&syn.encode(), &[]]);
        let left = self.pacer.spend(out.len() - before, now);
        self.handshake.sent(left);
        left
    }

    /// Appends the frames that may be sent now; all there are, unless they are to be paced.
    pub(super) fn poll_frames(&mut self, out: &mut Vec<u8>, now: Moment, is_paced: bool) {
        if let Some(syn) = self.handshake.due(now) {
            self.put_syn(out, syn, now);
        }
        let Some(seed) = self.handshake.seed_out().filter(|_| self.handshake.is_up()) else {
            return;
        };
        self.frame_hello();
        while !is_paced || self.pacer.room_nanos(now).is_some() {
            let ack = self.receiver.ack();
            let before = self.flag_after_pause(out, now);
            let Some(frame) = self.sender.next() else {
                self.poll_ack(out, before, seed, ack);
                return;
            };
            let head = Head::new(Some(frame.sequence), ack);
            framing::put(out, seed, [head.as_bytes(), frame.payload]);
            let (number, is_again) = (frame.number(), frame.is_again);
            let left = self.pacer.spend(out.len() - before, now);
            self.sender.sent(number, out.len() - before, now, left);
            self.counters.frames_retransmitted += u64::from(is_again);
            self.counters.frames_sent += u64::from(!is_again);
            self.ack_at = None;
        }
    }

    /// Appends an acknowledgement by itself, if it is due. `before`: offset of its flag.
    fn poll_ack(&mut self, out: &mut Vec<u8>, before: usize, seed: u32, ack: Ack) {
        if self.ack_at.is_none_or(|at| at > self.now) {
            out.truncate(before);
            return;
        }
        self.ack_at = None;
        framing::put(out, seed, [Head::new(None, ack).as_bytes(), &[]]);
        self.pacer.spend(out.len() - before, self.now);
    }

    /// Begins with a flag if the line was silent, so that noise received during silence is not part
    /// of the frame. Returns the offset.
    fn flag_after_pause(&self, out: &mut Vec<u8>, now: Moment) -> usize {
        let before = out.len();
        if self.pacer.ahead_nanos(now) == 0 {
            out.push(FLAG);
        }
        before
    }
}
