//! The link layer of a serial line: makes a reliable byte stream in each direction of a line that
//! loses, changes, repeats and inserts bytes, and pauses.
//!
//! It stands between a session's bytes and the device. A pure state machine, as the session is: no
//! descriptor, clock, randomness or log. The format is in `docs/protocol.md`, "Serial lines".
//!
//! ```text
//! session -> write -> Sender -> poll_output -> device ===== line ===== device -> received -> Receiver -> read -> session
//! ```
//!
//! The first bytes show whether the peer speaks it: [`LineMode`]. Towards an original, which does
//! not, bytes pass unchanged, unless they have to be checked: [`LineChecks`].
#![warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

mod checked;
mod estimate;
mod frame;
mod framing;
mod handshake;
mod hello;
mod pacer;
mod plain;
mod probe;
mod receive;
mod send;

use crate::limits::{
    LINE_DEAD_MICROS, LINE_FRAME_MILLIS, LINE_LAST_WAITS, LINE_PAYLOAD_BYTES_MAX,
    LINE_PAYLOAD_BYTES_START_MIN,
};
use crate::session::Moment;
use crate::wire::v1;
use frame::OVERHEAD_BYTES;
use framing::Deframer;
use handshake::Handshake;
use hello::OwnHello;
use pacer::Pacer;
use plain::Plain;
use probe::Scanner;
use receive::Receiver;
use send::Sender;

/// Settings of a line.
#[derive(Debug, Clone, Copy)]
pub struct LineConfig {
    /// Capacity of the line: baud divided by the bits of a character.
    pub bytes_per_second: u32,
    /// Random number of this opening of the line, by which the peer recognizes a restart. 0 counts
    /// as 1.
    pub incarnation: u32,
    /// Whether the link layer is used.
    pub checks: LineChecks,
}

/// Whether what passes a line is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineChecks {
    /// Never: bytes pass unchanged, once the peer's HELLO was received.
    Never,
    /// If the peer checks it, too. Its HELLO shows that.
    WherePeerDoes,
    /// Always. No byte of the session is on the line before the peer is known to check it, so that the
    /// session's need not begin with a HELLO.
    Always,
}

/// Protocol on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineMode {
    /// Not known yet: our HELLO is repeated until the peer identifies itself.
    Probing,
    /// Unchanged bytes: SockMux 0.3, as the original speaks it.
    Plain,
    /// Frames with checks, acknowledgements and retransmission.
    Checked,
}

impl LineMode {
    /// Its name for the log.
    pub fn name(self) -> &'static str {
        match self {
            LineMode::Probing => "Probing",
            LineMode::Plain => "Plain",
            LineMode::Checked => "Checked",
        }
    }
}

/// Why a line, and with it the tunnel, is over. The next opening uses another incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The peer has another incarnation than before.
    #[error("the peer at the other end of the line began anew")]
    PeerRestarted,
    /// Retransmissions were sent, and no valid frame was received for
    /// [`crate::limits::LINE_DEAD_MICROS`].
    #[error("nobody answers on the line: check its cable, and that both ends have the same baud")]
    Silent,
    /// The peer does not use the link layer, without which nothing is to pass.
    #[error(
        "the peer does not check the line (an original, or check=no there), and encryption needs \
         that: take sockmux-uring with check=auto at both ends, or neither STLS= nor TLSCONF= here"
    )]
    Unchecked,
}

/// Counts since the opening of the line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LineCounters {
    /// Frames with data sent for the first time.
    pub frames_sent: u64,
    /// Frames sent again.
    pub frames_retransmitted: u64,
    /// Valid frames received, of every kind, including duplicates.
    pub frames_received: u64,
    /// What was received between two flags and was no frame of this peer.
    pub frames_damaged: u64,
    /// Frames with data that had been received before.
    pub duplicates: u64,
    /// Frames with data refused because the session did not read.
    pub frames_refused: u64,
    /// Received bytes that belonged to no frame.
    pub bytes_skipped: u64,
}

/// One opening of a line.
#[derive(Debug)]
pub struct LineProtocol {
    checks: LineChecks,
    mode: LineMode,
    /// The time of the last call.
    now: Moment,
    pacer: Pacer,
    /// Payload of a frame on a line without losses, in bytes.
    payload_bytes_max: usize,
    hello: OwnHello,
    scanner: Scanner,
    /// Our HELLO was answered: how long to wait for the peer's own.
    answered_until: Option<Moment>,
    plain: Plain,
    deframer: Deframer,
    handshake: Handshake,
    sender: Sender,
    receiver: Receiver,
    /// When an acknowledgement is sent by itself.
    ack_at: Option<Moment>,
    /// Bytes were received since the last valid frame.
    is_noisy: bool,
    over: Option<LineError>,
    counters: LineCounters,
}

impl LineProtocol {
    /// A line that was just opened.
    pub fn new(config: LineConfig, now: Moment) -> LineProtocol {
        let pacer = Pacer::new(config.bytes_per_second);
        let payload_bytes = pacer.bytes_per_second() * LINE_FRAME_MILLIS / 1_000;
        let payload_bytes_max =
            (payload_bytes as usize).clamp(LINE_PAYLOAD_BYTES_START_MIN, LINE_PAYLOAD_BYTES_MAX);
        LineProtocol {
            checks: config.checks,
            mode: LineMode::Probing,
            now,
            payload_bytes_max,
            hello: OwnHello::default(),
            scanner: Scanner::default(),
            answered_until: None,
            plain: Plain::default(),
            deframer: Deframer::new(),
            handshake: Handshake::new(
                config.incarnation,
                config.bytes_per_second,
                pacer.micros((payload_bytes_max + OVERHEAD_BYTES) as u64),
            ),
            sender: Sender::new(payload_bytes_max, &pacer),
            receiver: Receiver::new(),
            pacer,
            ack_at: None,
            is_noisy: false,
            over: None,
            counters: LineCounters::default(),
        }
    }

    /// Protocol on the line.
    pub fn mode(&self) -> LineMode {
        self.mode
    }

    /// The peer is present and either end may send: in [`LineMode::Checked`] each knows the other's
    /// incarnation.
    pub fn is_up(&self) -> bool {
        match self.mode {
            LineMode::Probing => false,
            LineMode::Plain => true,
            LineMode::Checked => self.handshake.is_up(),
        }
    }

    /// Nothing written waits to be sent or acknowledged, and nothing received is yet to be.
    pub fn is_settled(&self) -> bool {
        !self.sender.is_busy() && self.ack_at.is_none()
    }

    /// Several attempts in a row to have something acknowledged were in vain. A peer that has left
    /// while its last acknowledgement was lost never answers.
    pub fn is_unheard(&self) -> bool {
        self.sender.waits() >= LINE_LAST_WAITS
    }

    /// Counts since the opening.
    pub fn counters(&self) -> LineCounters {
        self.counters
    }

    /// Largest payload that a frame of the session should have, in bytes
    /// (`session::SessionConfig::frame_bytes_max`): with its head it fills one frame of the line.
    pub fn frame_bytes(&self) -> usize {
        self.payload_bytes_max - v1::HEADER_BYTES
    }

    /// Bytes of the stream in one frame of the line, if few are lost.
    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes_max
    }

    /// Handles bytes from the device. Noise is skipped and counted. [`LineProtocol::read`] is to be
    /// called after each call, since unread bytes are kept.
    ///
    /// # Errors
    /// [`LineError`] when the tunnel is over.
    pub fn received(&mut self, bytes: &[u8], now: Moment) -> Result<(), LineError> {
        self.now = self.now.max(now);
        match self.mode {
            LineMode::Plain => {
                self.plain.received(bytes);
                self.receiver.inbox().extend_from_slice(bytes);
            }
            LineMode::Probing => {
                if self.checks != LineChecks::Never {
                    self.received_frames(bytes);
                }
                if self.mode == LineMode::Probing {
                    self.probe(bytes);
                }
            }
            LineMode::Checked => self.received_frames(bytes),
        }
        self.over.map_or(Ok(()), Err)
    }

    /// Appends the received part of the peer's stream, in order, to `out`.
    pub fn read(&mut self, out: &mut Vec<u8>) {
        out.append(self.receiver.inbox());
    }

    /// Bytes of our session's stream that are accepted now. 0: ask again after
    /// [`LineProtocol::received`], [`LineProtocol::poll_output`] and when
    /// [`LineProtocol::next_timeout`] has passed. Only what can be sent at once is accepted, so
    /// that the caller can send what is most urgent next.
    pub fn room_bytes(&self, now: Moment) -> usize {
        let now = now.max(self.now);
        match self.mode {
            _ if self.over.is_some() => 0,
            LineMode::Plain => self.plain.room_bytes(self.payload_bytes_max, &self.pacer, now),
            LineMode::Checked if self.is_streaming() => self.sender.room_bytes(&self.pacer, now),
            LineMode::Checked | LineMode::Probing if self.checks == LineChecks::Always => 0,
            LineMode::Checked | LineMode::Probing => self.hello.missing_bytes(),
        }
    }

    /// Accepts bytes of our session's stream, up to [`LineProtocol::room_bytes`], which is to be
    /// asked again after each call, and returns how many. A write of at most
    /// [`crate::limits::LINE_SMALL_BYTES`] does not share a frame with longer writes behind it, so
    /// a keystroke arrives without waiting for them. So each frame of the session is best written
    /// by a call of its own.
    pub fn write(&mut self, bytes: &[u8], now: Moment) -> usize {
        self.now = self.now.max(now);
        let bytes = &bytes[..bytes.len().min(self.room_bytes(now))];
        match self.mode {
            LineMode::Plain => self.plain.write(bytes),
            LineMode::Checked if self.is_streaming() => return self.sender.write(bytes),
            LineMode::Checked | LineMode::Probing => {
                self.hello.bytes.extend_from_slice(bytes);
                self.frame_hello();
            }
        }
        bytes.len()
    }

    /// Appends what may be sent to the device now to `out`, and returns whether there was
    /// something. It counts as sent. At most what the line sends in
    /// [`crate::limits::LINE_AHEAD_MICROS`] and one frame, or a window.
    pub fn poll_output(&mut self, out: &mut Vec<u8>, now: Moment) -> bool {
        self.now = self.now.max(now);
        let now = self.now;
        let before = out.len();
        if self.over.is_none() && self.pacer.room_nanos(now).is_some() {
            match self.mode {
                LineMode::Probing if self.hello_at().is_some_and(|at| at <= now) => {
                    self.call(out);
                }
                LineMode::Probing => {}
                LineMode::Plain => {
                    self.plain.poll_output(out, &self.hello.bytes, now);
                    self.pacer.spend(out.len() - before, now);
                }
                LineMode::Checked => self.poll_frames(out, now, true),
            }
        }
        out.len() > before
    }

    /// Appends frames with what is not sent yet and, behind it, `bytes` to `out`, as many as the peer
    /// accepts at once: nothing follows, so that it does not matter how long the device is busy.
    pub fn say_last(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.over.is_none() && self.mode == LineMode::Checked && self.is_streaming() {
            self.sender.write(bytes);
            self.poll_frames(out, self.now, false);
        }
    }

    /// When [`LineProtocol::on_time`] is to be called, and then [`LineProtocol::room_bytes`] and
    /// [`LineProtocol::poll_output`] if the device accepts more. Always after the time of the last
    /// call.
    pub fn next_timeout(&self) -> Option<Moment> {
        if self.over.is_some() {
            return None;
        }
        // What poll_output waits for: it has just been tried.
        let output = match self.mode {
            LineMode::Probing => self.hello_at(),
            LineMode::Plain => self.plain.wakes_at(),
            LineMode::Checked => self.ack_at,
        };
        let syn_at = (self.mode == LineMode::Checked).then(|| self.handshake.syn_at()).flatten();
        let output = [output, syn_at, Some(self.pacer.opens_at())];
        let output = output.into_iter().flatten().filter(|at| *at > self.now);
        // Timers of on_time, even if they are overdue.
        let overdue = match self.mode {
            LineMode::Plain => [None; 3],
            LineMode::Probing => [self.answered_until, None, None],
            LineMode::Checked => {
                let ask_at = self.is_doubtful().then(|| self.handshake.ask_at()).flatten();
                [self.sender.retry_at(), self.dead_at(), ask_at]
            }
        };
        let soon = Moment(self.now.0.saturating_add(1));
        output.chain(overdue.into_iter().flatten().map(|at| at.max(soon))).min()
    }

    /// Handles expired timers.
    ///
    /// # Errors
    /// [`LineError`] when the tunnel is over.
    pub fn on_time(&mut self, now: Moment) -> Result<(), LineError> {
        self.now = self.now.max(now);
        if self.mode == LineMode::Probing && self.answered_until.is_some_and(|at| at <= self.now) {
            self.begin_answered();
        }
        if self.mode == LineMode::Checked && self.over.is_none() {
            if self.dead_at().is_some_and(|at| at <= self.now) {
                self.over = Some(LineError::Silent);
            }
            self.sender.on_time(self.now);
            if self.is_doubtful() {
                self.handshake.ask(self.now);
            }
        }
        self.over.map_or(Ok(()), Err)
    }

    /// Our HELLO is in flight in frames: the rest of the stream may follow.
    fn is_streaming(&self) -> bool {
        let has_begun =
            self.hello.missing_bytes() == 0 && self.hello.framed_bytes == self.hello.bytes.len();
        self.handshake.is_up() && (has_begun || self.checks == LineChecks::Always)
    }

    /// The peer may have restarted, so that neither understands the other.
    fn is_doubtful(&self) -> bool {
        self.is_noisy || self.sender.waits() > 1
    }

    /// When the line counts as dead if no valid frame is received.
    fn dead_at(&self) -> Option<Moment> {
        let since = match self.handshake.is_up() {
            true => self.sender.waiting_since()?,
            false => self.handshake.begun_at(),
        };
        let since = since.max(self.handshake.heard_at());
        Some(Moment(since.0.saturating_add(LINE_DEAD_MICROS)))
    }
}
