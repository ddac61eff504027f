//! SockMux 1: sizes of frames, and how many bytes may be in flight over the whole link, with and
//! without interactive traffic.

/// Largest payload of one DATA frame of SockMux 1, in bytes. It equals the capacity of a pipe, so
/// that a full pipe goes as one frame and the copied head is a small part of it.
pub const FRAME_BYTES: u64 = 1 << 20;

/// SockMux 1: a frame with at most this many payload bytes is small. Small frames are sent
/// regardless of what is in flight.
pub const SMALL_FRAME_BYTES: u64 = 4 << 10;

/// SockMux 1: how long after a small frame a link counts as interactive, in microseconds.
pub const INTERACTIVE_MICROS: u64 = 50_000;

/// SockMux 1: bulk that may be in flight over an interactive link, in bytes. With 256 KiB a
/// keystroke beside bulk takes a fifth longer, with 128 KiB bulk loses two fifths of its speed
/// (`docs/performance.md`).
pub const LINK_CAP_INTERACTIVE_BYTES: u64 = 192 << 10;

/// SockMux 1: the same for a peer that reads slowly, as the time it takes to read the bytes in
/// flight, in microseconds. Small datagrams take three times as long as the same bytes of a stream.
pub const LINK_CAP_INTERACTIVE_MICROS: u64 = 400;

/// SockMux 1: lower bound of the cap above, in bytes. It leaves room for more than one report before
/// it is used up.
pub const LINK_CAP_INTERACTIVE_BYTES_MIN: u64 = 128 << 10;

const _: () = assert!(LINK_CAP_INTERACTIVE_BYTES_MIN <= LINK_CAP_INTERACTIVE_BYTES);

/// SockMux 1: bulk that may be in flight over a link that is not interactive, in bytes.
pub const LINK_CAP_BULK_BYTES: u64 = 16 << 20;

/// SockMux 1: bulk that may be in flight while many datagrams pass, in milliseconds of the peer's
/// recent read rate. This bounds the delay of the datagrams.
pub const LINK_CAP_RUNS_MILLIS: u64 = 10;

/// SockMux 1: payload bytes read from the link after which a report is sent. Several reports are
/// sent per smaller cap.
pub const LINK_ACK_BYTES: u64 = 48 << 10;

/// SockMux 1: the same while large runs of datagrams pass and the link is not interactive. Each
/// report costs a wake-up at both ends, a tenth of the total cost of a flood.
pub const LINK_ACK_RUNS_BYTES: u64 = 1 << 20;

/// SockMux 1: longest delay of such a report, in microseconds. It is small against
/// [`LINK_CAP_RUNS_MILLIS`].
pub const LINK_ACK_RUNS_MICROS: u64 = 1_000;

const _: () = assert!(2 * LINK_ACK_RUNS_MICROS < 1_000 * LINK_CAP_RUNS_MILLIS);

/// SockMux 1: less room than this counts as none, and no quantum is smaller. Sending bulk in small
/// fragments costs more than it brings.
pub const LINK_QUANTUM_BYTES: u64 = 48 << 10;

const _: () = assert!(LINK_ACK_BYTES + LINK_QUANTUM_BYTES <= LINK_CAP_INTERACTIVE_BYTES / 2);
const _: () = assert!(LINK_ACK_BYTES + LINK_QUANTUM_BYTES <= LINK_CAP_INTERACTIVE_BYTES_MIN);
