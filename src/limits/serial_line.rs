//! Serial lines: the device, and the link layer that repairs the line's losses.

use super::DRAIN_SECS;

/// How far the rate that a serial device really has may be from the one asked for, in percent. Two
/// clocks that differ by 5 % sample the last bit of a character wrongly; each side has half of it,
/// less what its own clock is off.
pub const SERIAL_RATE_PERCENT: u32 = 2;

/// How long closing a serial line waits until the device has sent its buffer, in milliseconds: the last
/// frames at any usual rate. The kernel itself would wait for 30 s when the other side's flow control
/// stops us.
pub const SERIAL_DRAIN_MILLIS: u64 = 200;
/// How often it looks, in milliseconds.
pub const SERIAL_DRAIN_GLANCE_MILLIS: u64 = 2;

/// Serial line: time between two HELLO, or two SYN to a peer that was up, in microseconds.
pub const LINE_PROBE_MICROS: u64 = 1_000_000;

/// Serial line: time between two SYN while the peer has not answered, in microseconds.
pub const LINE_SYN_MICROS: u64 = 250_000;

/// Serial line: longest first packet (HELLO) of a session, in bytes. Ours have at most 112.
pub const LINE_HELLO_BYTES_MAX: usize = 512;

/// Serial line: bytes of a first packet of ours, which is waited for where only an answer has come.
pub const LINE_HELLO_BYTES_USUAL: usize = 112;

/// Serial line: how much later than it is due that one may be, in microseconds, on a busy machine.
pub const LINE_ANSWERED_MICROS: u64 = 250_000;

/// Serial line: bytes behind an answer without a HELLO up to which the HELLO is waited for. A native
/// peer sends nothing else meanwhile.
pub const LINE_ANSWERED_BYTES_MAX: usize = 4_096;

/// Serial line: longest offer behind a HELLO's text, in bytes. Today's has 16.
pub const LINE_OFFER_BYTES_MAX: usize = 64;

/// Serial line: most payload bytes of a frame of the link layer. Longer ones save less than a
/// hundredth of the line, and would hardly pass once it turns bad: a frame that was sent is not split
/// again.
pub const LINE_PAYLOAD_BYTES_MAX: usize = 512;

/// Serial line: payload of a frame when none has been lost, as milliseconds of the line. A keystroke
/// waits for a frame that has begun. At 115,200 baud these are 207 bytes, whose header is 4 %.
pub const LINE_FRAME_MILLIS: u64 = 18;

/// Serial line: the least that those milliseconds are taken for, in bytes.
pub const LINE_PAYLOAD_BYTES_START_MIN: usize = 64;

/// Serial line: least payload of a frame, in bytes, however many are lost: half of it is header then.
pub const LINE_PAYLOAD_BYTES_MIN: usize = 32;

/// Serial line: bytes over which losses are averaged: some seconds of 115,200 baud.
pub const LINE_LOSS_BYTES: u64 = 32 << 10;

/// Serial line: bytes without a loss, as if they had been sent, that payload begins with: about 230
/// in a frame, and more when more have arrived.
pub const LINE_LOSS_BYTES_FIRST: u64 = 6_600;

/// Serial line: a write of at most so many bytes gets a frame for itself (and others like it), so
/// that a keystroke does not wait for later writes.
pub const LINE_SMALL_BYTES: usize = 64;

/// Serial line: frames on the way, and kept by the receiver behind one that is missing. With
/// sequence numbers of 8 bits at most 127. They are 1.1 s of the line at 115,200 baud: a frame may be
/// lost several times before its sender has to stop.
pub const LINE_WINDOW_FRAMES: u8 = 64;

const _: () = assert!(LINE_WINDOW_FRAMES <= 64, "the receiver keeps a bit for each");

/// Serial line: how far ahead of the line its device is given bytes, in microseconds. Devices
/// buffer kilobytes, which would delay keystrokes; a busy machine is late by a millisecond or two.
pub const LINE_AHEAD_MICROS: u64 = 5_000;

/// Serial line: bytes in flight beyond the shortest round trip seen, as microseconds of the line,
/// besides four frames: the buffers of both devices. A line that is slower than its nominal rate would
/// else fill them all.
pub const LINE_QUEUE_MICROS: u64 = 40_000;

/// Serial line: bytes of the stream that wait for the session at least before a frame is refused (to
/// be sent again). A full window may be added to them.
pub const LINE_INBOX_BYTES: usize = 64 << 10;

/// Serial line: shortest and longest wait for an acknowledgement, in microseconds, without the time of
/// three frames: the delays of USB adapters and of a busy machine, and a loss that is still noticed soon.
pub const LINE_RETRY_MICROS_MIN: u64 = 30_000;
/// See [`LINE_RETRY_MICROS_MIN`]. Also after a peer has stood still for seconds, which is then taken for the
/// round trip, a process that leaves has waited [`LINE_LAST_WAITS`] times before its drain ends.
pub const LINE_RETRY_MICROS_MAX: u64 = 1_500_000;
/// Serial line: that wait before any round trip is known, in microseconds.
pub const LINE_RETRY_MICROS_FIRST: u64 = 300_000;

/// Serial line: waits in vain for an acknowledgement, in a row, after which a process that leaves waits
/// no longer: the peer may have left as well, and its last acknowledgement been lost. Each is twice as
/// long as the one before; together some 1.6 s at 115,200 baud. A line on which one frame in seven is lost
/// and answered to comes to that once in two thousand times.
pub const LINE_LAST_WAITS: u32 = 4;

const _: () = assert!(LINE_LAST_WAITS as u64 * LINE_RETRY_MICROS_MAX < DRAIN_SECS * 1_000_000);

/// Serial line: least bytes of a TLS record of bulk. Shorter ones would be a third record head and tag;
/// these take 133 ms at 9,600 baud, which a keystroke may have to wait for. A record has the length of
/// one frame of the line, or of as many as reach this.
pub const LINE_RECORD_BYTES_MIN: usize = 128;

/// Serial line: bytes of a TLS handshake, of both sides, for which the line's time is added to that of
/// handshakes. Chains of certificates at both ends are some 12 KiB; twice that, for a bad line.
pub const LINE_HANDSHAKE_BYTES: u64 = 24 << 10;

/// Serial line: with something to be acknowledged and no valid frame from the peer for so long, the
/// line is dead, in microseconds: time to put a plug back.
pub const LINE_DEAD_MICROS: u64 = 30_000_000;
