//! Until the peer is known: what it is called by, and what its first bytes mean.

use super::probe::FoundHello;
use super::{LineChecks, LineError, LineMode, LineProtocol};
use crate::limits::{
    LINE_ANSWERED_BYTES_MAX, LINE_ANSWERED_MICROS, LINE_HELLO_BYTES_MAX, LINE_HELLO_BYTES_USUAL,
    LINE_PROBE_MICROS,
};
use crate::session::Moment;
use crate::wire::v03;

/// The first packet of our session, sent to peers of either kind.
#[derive(Debug, Default)]
pub(super) struct OwnHello {
    pub(super) bytes: Vec<u8>,
    /// When it is repeated while probing.
    pub(super) again_at: Moment,
    pub(super) times_sent: u64,
    /// How much of it was put into checked frames.
    pub(super) framed_bytes: usize,
}

impl OwnHello {
    /// How many bytes of it are still missing, as far as that is known.
    pub(super) fn missing_bytes(&self) -> usize {
        let whole = match *self.bytes {
            [_, _, _, _, _, _, high, low, ..] => {
                v03::HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]))
            }
            _ => v03::HEADER_BYTES,
        };
        whole.min(LINE_HELLO_BYTES_MAX).saturating_sub(self.bytes.len())
    }
}

impl LineProtocol {
    /// Searches `bytes` for the peer's hello.
    pub(super) fn probe(&mut self, bytes: &[u8]) {
        let (taken, found, skipped) = self.scanner.take(bytes, &self.hello.bytes);
        self.counters.bytes_skipped += skipped;
        match found {
            None => return self.wait_for_hello(),
            Some(FoundHello::Checked) if self.checks != LineChecks::Never => self.begin_checked(),
            Some(_) if self.checks == LineChecks::Always => {
                self.over = Some(LineError::Unchecked);
            }
            Some(_) => self.begin_plain(&bytes[taken..]),
        }
        self.scanner.clear();
    }

    /// When our HELLO is sent next. A peer that has answered has received it, and an original
    /// counts them.
    pub(super) fn hello_at(&self) -> Option<Moment> {
        let has_any = self.hello.missing_bytes() == 0 || self.checks == LineChecks::Always;
        (has_any && self.answered_until.is_none()).then_some(self.hello.again_at)
    }

    /// Calls the peer: by our HELLO, or by a SYN where that is all that may be on the line.
    pub(super) fn call(&mut self, out: &mut Vec<u8>) {
        let left = if self.checks == LineChecks::Always {
            self.put_syn(out, self.handshake.syn(), self.now)
        } else {
            out.extend_from_slice(&self.hello.bytes);
            self.hello.times_sent += 1;
            self.pacer.spend(self.hello.bytes.len(), self.now)
        };
        self.hello.again_at = Moment(left.0.saturating_add(LINE_PROBE_MICROS));
    }

    /// A HELLOOK to our HELLO may have been received. A peer of ours that sends it has sent its own
    /// HELLO before we listened, and repeats it within half a second. An original never does.
    fn wait_for_hello(&mut self) {
        let [answer, behind, _] = self.scanner.answered();
        if answer.is_empty() || self.hello.times_sent == 0 {
            return;
        }
        if behind.len() > LINE_ANSWERED_BYTES_MAX {
            return self.begin_answered();
        }
        if self.answered_until.is_none() {
            let repeat = self.pacer.micros(LINE_HELLO_BYTES_USUAL as u64);
            let micros = LINE_PROBE_MICROS / 2 + LINE_ANSWERED_MICROS + repeat;
            self.answered_until = Some(Moment(self.now.0.saturating_add(micros)));
        }
    }

    /// The peer is an original that sent HELLO before we listened: its answer, and everything
    /// behind it, belongs to the session.
    pub(super) fn begin_answered(&mut self) {
        self.mode = LineMode::Plain;
        self.handshake.heard(self.now);
        for bytes in self.scanner.answered() {
            self.receiver.inbox().extend_from_slice(bytes);
        }
        self.scanner.clear();
    }

    pub(super) fn begin_checked(&mut self) {
        self.mode = LineMode::Checked;
        self.handshake.begin(self.now);
    }

    /// Passes the packet that was found, and `rest` behind it, to the session.
    fn begin_plain(&mut self, rest: &[u8]) {
        self.mode = LineMode::Plain;
        self.handshake.heard(self.now);
        let [hello, answer, behind] = self.scanner.found();
        if self.hello.times_sent == 0 {
            self.plain.write(&self.hello.bytes);
        } else if answer.is_empty() {
            self.plain.expect_answer(self.now);
        }
        for bytes in [hello, answer, behind, rest] {
            self.plain.received(bytes);
            self.receiver.inbox().extend_from_slice(bytes);
        }
    }
}
