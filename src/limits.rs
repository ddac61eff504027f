//! Every bound of the program in one place, each with its reason.
//!
//! Queues, tables and buffers elsewhere take their size from here, so that the most memory a
//! process can hold follows from this file alone.

/// Default length of the kernel's queue of accepted connections per listener. The kernel cuts it
/// to `net.core.somaxconn` (4096 by default); clients wait there while the tunnel is down.
pub const LISTEN_BACKLOG: i32 = 1024;

/// Deepest nesting of `+=FILE`. A loop is found by path before this; the bound is for chains that
/// never repeat a path (a FIFO or a generated file).
pub const PARAM_FILE_DEPTH: usize = 16;

/// Largest parameter file. Nobody writes one this long by hand; a device or a log given by
/// mistake must not be read into memory.
pub const PARAM_FILE_BYTES: u64 = 1 << 20;

/// Most entrance ports of one process, ranges counted out. Each is a listening descriptor.
pub const ENTRANCES_MAX: usize = 4096;

/// Payload of one chunk of the demo's and the benches' bulk traffic. A power of two well above a
/// tunnel packet, so that a chunk's own 12-byte header costs nothing that shows, and small enough
/// that a sender looks at the clock many times a second.
pub const DEMO_CHUNK_BYTES: usize = 1 << 20;

/// Bytes after which the demo's test pattern repeats: the first prime above 2^20, so that data
/// moved by a whole packet, buffer or chunk never meets the same bytes again.
pub const DEMO_PATTERN_BYTES: usize = 1_048_583;

/// Most that the demo's readers take from a socket at once; as large as the buffers of the
/// programs that it stands for.
pub const DEMO_READ_BYTES: usize = 256 << 10;

/// Longest message of a request/response measurement.
pub const DEMO_MESSAGE_BYTES: usize = 4096;

/// Longest silence on a socket of the demo before it gives up with an error. Loopback answers in
/// microseconds; a machine that is busy for ten seconds is not one to measure on.
pub const DEMO_STALL_SECS: u64 = 10;
/// Longest text of CONNECT or CONNECTED that is kept, in bytes. Two IPv6 addresses with ports
/// and the number before them take 105; a longer text is read to its end and cut.
pub const OPEN_TEXT_BYTES: usize = 256;

/// Streams at once towards an original peer. It breaks its tunnel at 62 or 63 (61 where it
/// connects with one port); two are left as room for streams that both sides open at once.
pub const ORIGINAL_STREAMS_MAX: u32 = 60;

/// Largest stream id towards an original peer: its ids are 8 bits, and 255 says "none".
pub const ORIGINAL_ID_MAX: u16 = 254;

/// Streams at once that we offer to one of ours, in one tunnel.
pub const STREAMS_MAX: u32 = 8192;

/// Stream ids that are used before one is used again, as a multiple of the streams at once: a
/// late frame to an ended stream then finds its id unused.
pub const ID_REUSE_DISTANCE: u32 = 4;

/// First stream id. The original uses 0 and 1 for the tunnel itself.
pub const STREAM_ID_FIRST: u16 = 2;

/// Bytes of one stream that we take from one of ours before our local socket has taken any.
/// Half a megabyte carries 4 GB/s at the 120 us that a loaded loopback tunnel takes to answer,
/// and 50 MB/s at 10 ms.
pub const WINDOW_BYTES: u32 = 512 << 10;

/// Bounds on what a peer's offer may ask us to have on the way in one stream, in bytes.
pub const PEER_WINDOW_BYTES_MIN: u32 = 64 << 10;
/// See [`PEER_WINDOW_BYTES_MIN`].
pub const PEER_WINDOW_BYTES_MAX: u32 = 16 << 20;

/// Packets unacknowledged at which the original stops reading a stream: it goes on while not
/// more than this many packet sizes are on the way.
pub const ORIGINAL_WINDOW_PACKETS: u64 = 4;

/// Bytes of one stream that are read from its local socket ahead of the link. One bulk receive
/// buffer: enough to fill a batch, little enough that a blocked link costs little memory.
pub const READ_AHEAD_BYTES: u64 = 64 << 10;

/// Answers to ECHO that wait for the link. A peer asks once in 30 s; one that floods loses the
/// oldest.
pub const PONGS_MAX: usize = 8;

/// Longest reason that travels in a CLOSE, in bytes.
pub const REASON_BYTES: usize = 200;

/// How long an acknowledgement may wait for a frame to ride with. Towards one of ours only: the
/// window is large, so that nobody waits for it.
pub const ACK_DELAY_MICROS: u64 = 20_000;

/// Where the other side has answered already, CLOSE is held back this long after the last byte
/// of the answer, towards an original peer (see `docs/architecture.md`, half-close).
pub const ANSWERED_HOLD_MICROS: u64 = 1_000_000;

/// Silence is given up after this many keep-alive intervals: 90 s at the original's 30.
pub const KEEPALIVE_INTERVALS: u32 = 3;

const _: () =
    assert!(PEER_WINDOW_BYTES_MIN <= WINDOW_BYTES && WINDOW_BYTES <= PEER_WINDOW_BYTES_MAX);
const _: () = assert!(STREAMS_MAX * ID_REUSE_DISTANCE < 65_535 - 2);
const _: () = assert!(ORIGINAL_STREAMS_MAX * ID_REUSE_DISTANCE <= ORIGINAL_ID_MAX as u32 - 2);
/// Most parts of one gathered send: the kernel's own bound for a vector (`UIO_MAXIOV`); a longer
/// one is refused with `EMSGSIZE`. The rest of a longer list goes with the next send.
pub const GATHER_PARTS_MAX: usize = 1024;

/// Parts a gathered send has room for before it first grows: a batch of frames, each with its
/// header and payload, of some thirty streams.
pub const GATHER_PARTS_START: usize = 64;
