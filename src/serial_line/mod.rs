//! The link layer of a serial line: makes a reliable stream of bytes, each way, of a line that loses,
//! changes, repeats and inserts bytes, and pauses.
//!
//! It stands between a session's bytes and the device. A pure state machine, as the session is: no
//! descriptor, clock, randomness or log. The format is in `docs/protocol.md`, "Serial lines".
//!
//! ```text
//! session -> write -> Sender -> poll_output -> device ===== line ===== device -> received -> Receiver -> read -> session
//! ```
//!
//! Whether the peer speaks it is found out with the first bytes: [`LineMode`]. Towards an original, which
//! does not, bytes pass as they are.

mod checked;
mod estimate;
mod frame;
mod framing;
mod handshake;
mod pacer;
mod plain;
mod probe;
mod receive;
mod send;

use crate::limits::{
    LINE_ANSWERED_BYTES_MAX, LINE_ANSWERED_MICROS, LINE_DEAD_MICROS, LINE_FRAME_MILLIS,
    LINE_HELLO_BYTES_MAX, LINE_HELLO_BYTES_USUAL, LINE_PAYLOAD_BYTES_MAX,
    LINE_PAYLOAD_BYTES_START_MIN, LINE_PROBE_MICROS,
};
use crate::session::Moment;
use crate::wire::{v1, v03};
use frame::OVERHEAD_BYTES;
use framing::Deframer;
use handshake::Handshake;
use pacer::Pacer;
use plain::Plain;
use probe::{FoundHello, Scanner};
use receive::Receiver;
use send::Sender;

/// What a line needs to know at its beginning.
#[derive(Debug, Clone, Copy)]
pub struct LineConfig {
    /// What the line carries: baud divided by the bits of a character.
    pub bytes_per_second: u32,
    /// A random number of this opening of the line: tells the peer that we began anew. 0 is taken
    /// for 1.
    pub incarnation: u32,
    /// Speak the link layer with a peer that does. Without, bytes pass as they are, once the peer's
    /// HELLO has been heard.
    pub checked: bool,
}

/// What is spoken on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineMode {
    /// Not known yet: our HELLO is said again and again until the peer shows what it is.
    Probing,
    /// Bytes as they are: SockMux 0.3, as the original speaks it.
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

/// Why a line, and with it the tunnel, is over. It is to be begun anew with another incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The peer has another incarnation than before.
    #[error("the peer at the other end of the line began anew")]
    PeerRestarted,
    /// Something was sent again and again, and nothing valid came back for
    /// [`crate::limits::LINE_DEAD_MICROS`].
    #[error("nobody answers on the line: check its cable, and that both ends have the same baud")]
    Silent,
}

/// Counts since the beginning of the line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LineCounters {
    /// Frames with data sent for the first time.
    pub frames_sent: u64,
    /// Frames sent again.
    pub frames_retransmitted: u64,
    /// Frames received whole, of every kind, duplicates too.
    pub frames_received: u64,
    /// What came between two flags and was no frame of this peer.
    pub frames_damaged: u64,
    /// Frames with data that were there before.
    pub duplicates: u64,
    /// Frames with data refused because the session did not read.
    pub frames_refused: u64,
    /// Bytes that came and belonged to nothing.
    pub bytes_skipped: u64,
}

/// One opening of a line.
#[derive(Debug)]
pub struct LineProtocol {
    /// The link layer is spoken with a peer that does.
    checked: bool,
    mode: LineMode,
    /// The latest time that was told.
    now: Moment,
    pacer: Pacer,
    /// Payload of a frame without losses, in bytes.
    payload_bytes_max: usize,
    hello: OwnHello,
    scanner: Scanner,
    /// Our HELLO was answered: so long the peer's own is waited for.
    answered_until: Option<Moment>,
    plain: Plain,
    deframer: Deframer,
    handshake: Handshake,
    sender: Sender,
    receiver: Receiver,
    /// When an acknowledgement goes by itself.
    ack_at: Option<Moment>,
    /// Bytes came since the last valid frame.
    is_noisy: bool,
    over: Option<LineError>,
    counters: LineCounters,
}

/// The first packet of our session: what a peer of either kind is greeted with.
#[derive(Debug, Default)]
struct OwnHello {
    bytes: Vec<u8>,
    /// When it goes out again while probing.
    again_at: Moment,
    times_sent: u64,
    /// So much of it has gone into checked frames.
    framed_bytes: usize,
}

impl OwnHello {
    /// Bytes that are missing of it, as far as can be told.
    fn missing_bytes(&self) -> usize {
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
    /// A line that was just opened.
    pub fn new(config: LineConfig, now: Moment) -> LineProtocol {
        let pacer = Pacer::new(config.bytes_per_second);
        let payload_bytes = pacer.bytes_per_second() * LINE_FRAME_MILLIS / 1_000;
        let payload_bytes_max =
            (payload_bytes as usize).clamp(LINE_PAYLOAD_BYTES_START_MIN, LINE_PAYLOAD_BYTES_MAX);
        LineProtocol {
            checked: config.checked,
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

    /// What is spoken.
    pub fn mode(&self) -> LineMode {
        self.mode
    }

    /// The peer is there and either end may send: in [`LineMode::Checked`] each knows the other's
    /// incarnation.
    pub fn is_up(&self) -> bool {
        match self.mode {
            LineMode::Probing => false,
            LineMode::Plain => true,
            LineMode::Checked => self.handshake.is_up(),
        }
    }

    /// Nothing that was written waits to be sent or acknowledged.
    pub fn is_settled(&self) -> bool {
        !self.sender.is_busy()
    }

    /// Counts since the beginning.
    pub fn counters(&self) -> LineCounters {
        self.counters
    }

    /// Payload that a session's frame should have at most, in bytes
    /// (`session::SessionConfig::frame_bytes_max`): with its head it fills one frame of the line.
    pub fn frame_bytes(&self) -> usize {
        self.payload_bytes_max - v1::HEADER_BYTES
    }

    /// Bytes came from the device. Rubbish is skipped and counted. [`LineProtocol::read`] is to be called
    /// after each call, since what is not read is kept.
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
                if self.checked {
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

    /// Appends what came of the peer's stream, in order, to `out`.
    pub fn read(&mut self, out: &mut Vec<u8>) {
        out.append(self.receiver.inbox());
    }

    /// Bytes of our session's stream that are taken now. 0: to be asked again after
    /// [`LineProtocol::received`], [`LineProtocol::poll_output`] and when [`LineProtocol::next_timeout`] has passed. It is
    /// only what goes out at once, so that what the caller sends next can be what is most urgent.
    pub fn room_bytes(&self, now: Moment) -> usize {
        let now = now.max(self.now);
        match self.mode {
            _ if self.over.is_some() => 0,
            LineMode::Plain => self.plain.room_bytes(self.payload_bytes_max, &self.pacer, now),
            LineMode::Checked if self.is_streaming() => self.sender.room_bytes(&self.pacer, now),
            LineMode::Checked | LineMode::Probing => self.hello.missing_bytes(),
        }
    }

    /// Takes bytes of our session's stream, up to [`LineProtocol::room_bytes`], which is to be asked anew for
    /// the next: how many. What is written by one call with
    /// at most [`crate::limits::LINE_SMALL_BYTES`] does not share a frame with longer writes behind
    /// it, so a keystroke arrives without waiting for them: a frame of the session is best written by
    /// a call of its own.
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

    /// Appends what may go to the device now, if anything, to `out`: whether there was something. It
    /// is counted as sent. At most what the line sends in [`crate::limits::LINE_AHEAD_MICROS`] and one
    /// frame, or a window.
    pub fn poll_output(&mut self, out: &mut Vec<u8>, now: Moment) -> bool {
        self.now = self.now.max(now);
        let now = self.now;
        let before = out.len();
        if self.over.is_none() && self.pacer.room_nanos(now).is_some() {
            match self.mode {
                LineMode::Probing if self.hello_at().is_some_and(|at| at <= now) => {
                    out.extend_from_slice(&self.hello.bytes);
                    let left = self.pacer.spend(self.hello.bytes.len(), now);
                    self.hello.again_at = Moment(left.0.saturating_add(LINE_PROBE_MICROS));
                    self.hello.times_sent += 1;
                }
                LineMode::Probing => {}
                LineMode::Plain => {
                    self.plain.poll_output(out, &self.hello.bytes, now);
                    self.pacer.spend(out.len() - before, now);
                }
                LineMode::Checked => self.poll_frames(out, now),
            }
        }
        out.len() > before
    }

    /// When [`LineProtocol::on_time`] is to be called, and then [`LineProtocol::room_bytes`] and
    /// [`LineProtocol::poll_output`] if the device takes more. Always after the latest time that was told.
    pub fn next_timeout(&self) -> Option<Moment> {
        if self.over.is_some() {
            return None;
        }
        // What poll_output is waited for with: it has just been tried.
        let output = match self.mode {
            LineMode::Probing => self.hello_at(),
            LineMode::Plain => self.plain.wakes_at(),
            LineMode::Checked => self.ack_at,
        };
        let syn_at = (self.mode == LineMode::Checked).then(|| self.handshake.syn_at()).flatten();
        let output = [output, syn_at, Some(self.pacer.opens_at())];
        let output = output.into_iter().flatten().filter(|at| *at > self.now);
        // What on_time does, even if it is late.
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

    /// It is now `now`.
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

    /// Our HELLO is on its way in frames: the rest of the stream may follow.
    fn is_streaming(&self) -> bool {
        self.handshake.is_up()
            && self.hello.missing_bytes() == 0
            && self.hello.framed_bytes == self.hello.bytes.len()
    }

    /// The peer may have begun anew, and not understand us, nor we it.
    fn is_doubtful(&self) -> bool {
        self.is_noisy || self.sender.waits() > 1
    }

    /// When the line is taken for dead, as long as nothing comes.
    fn dead_at(&self) -> Option<Moment> {
        let since = match self.handshake.is_up() {
            true => self.sender.waiting_since()?,
            false => self.handshake.begun_at(),
        };
        let since = since.max(self.handshake.heard_at());
        Some(Moment(since.0.saturating_add(LINE_DEAD_MICROS)))
    }

    /// Looks for the peer's hello in `bytes`.
    fn probe(&mut self, bytes: &[u8]) {
        let (taken, found, skipped) = self.scanner.take(bytes, &self.hello.bytes);
        self.counters.bytes_skipped += skipped;
        match found {
            None => return self.wait_for_hello(),
            Some(FoundHello::Checked) if self.checked => self.begin_checked(),
            Some(_) => self.begin_plain(&bytes[taken..]),
        }
        self.scanner.clear();
    }

    /// When our HELLO goes out next. A peer that has answered has heard it, and an original counts.
    fn hello_at(&self) -> Option<Moment> {
        let says = self.hello.missing_bytes() == 0 && self.answered_until.is_none();
        says.then_some(self.hello.again_at)
    }

    /// A HELLOOK may have come, to our HELLO: one of ours that sends it has said its own HELLO when we
    /// did not listen, and says it again within half a second. An original never does.
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

    /// It is an original that said HELLO when nobody was there: its answer, and all behind it, is the
    /// session's.
    fn begin_answered(&mut self) {
        self.mode = LineMode::Plain;
        self.handshake.heard(self.now);
        for bytes in self.scanner.answered() {
            self.receiver.inbox().extend_from_slice(bytes);
        }
        self.scanner.clear();
    }

    fn begin_checked(&mut self) {
        self.mode = LineMode::Checked;
        self.handshake.begin(self.now);
    }

    /// The packet that was found, and `rest` behind it, are the session's.
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
