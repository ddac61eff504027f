//! Datagrams: how large they are, what of them may wait, and how they are taken from a socket.

/// Largest datagram: what IPv4 leaves of 65,535 bytes behind its header and UDP's.
pub const DATAGRAM_BYTES_MAX: u32 = 65_507;

/// Datagrams of all flows of a tunnel that wait for it, in bytes, each counted with
/// [`DATAGRAM_COST_BYTES`] more. A flow may have as many as are left of it, so that a flood takes
/// half of it and a single question always finds room. It bridges the ten milliseconds in which the
/// connection is busy with a flood at full speed; what is older than
/// [`DATAGRAM_AGE_MICROS`] makes room in any case.
pub const DATAGRAM_QUEUE_BYTES: u64 = 16 << 20;

/// What a run of datagrams in a queue costs beside its bytes: its entry there and its frame's head.
pub const DATAGRAM_COST_BYTES: u64 = 32;

/// Datagrams that have waited this long for their tunnel, in microseconds, make room for new ones:
/// those who wait for an answer have asked again.
pub const DATAGRAM_AGE_MICROS: u64 = 200_000;

/// Datagrams of one flow that wait for its server's name to be looked up, in bytes: a few of the
/// largest, or what a client asks while it waits.
pub const DATAGRAM_WAITING_BYTES: usize = 256 << 10;

/// Kernel buffer of an entrance for datagrams, in bytes: what a flood brings in the tens of
/// milliseconds that a busy machine may keep us waiting. Small datagrams count for 768 bytes there.
pub const DATAGRAM_ENTRANCE_BYTES: usize = 8 << 20;

/// Kernel buffer of an exit's socket for datagrams, one for each flow, in bytes.
pub const DATAGRAM_EXIT_BYTES: usize = 2 << 20;

/// Messages taken from a socket for datagrams in one call, and so in one turn: enough that the call
/// costs little beside them, few enough that byte streams have their turn soon.
pub const DATAGRAMS_AT_ONCE: usize = 64;

/// Datagrams that the kernel cuts one send into, at most. Newer kernels take 128.
pub const DATAGRAM_SEGMENTS_MAX: u32 = 64;

/// A message with at least so many bytes of datagrams stays where it was received; what is less is
/// copied, so that little does not hold a buffer of 64 KiB.
pub const DATAGRAM_KEEP_BYTES: usize = 16 << 10;

/// Such buffers, in all: those that are received into, and thrice as many for what waits or is being
/// sent. While all are in use, everything is copied.
pub const DATAGRAM_BUFFERS: u32 = 4 * DATAGRAMS_AT_ONCE as u32;

/// Datagrams that come more closely than this at a socket, on average, are left to gather there, in
/// microseconds: a client that waits for each answer is never so fast (`docs/performance.md`).
pub const DATAGRAM_REST_INTERVAL_MICROS: u64 = 20;

/// How long such a socket is then left alone, in microseconds: some tens of datagrams. Besides, it is
/// what they may be late by.
pub const DATAGRAM_REST_MICROS: u64 = 200;

/// A read that brought more bytes than this is followed by the next without a rest.
pub const DATAGRAM_REST_BYTES_MAX: usize = 1 << 20;

/// Longest that a socket is left alone because more comes to it than the tunnel takes, in
/// microseconds. What is there then is late by so much more.
pub const DATAGRAM_BACK_OFF_MICROS: u64 = 3_000;

/// How long a flow may be silent while the process drains, in milliseconds: an answer that is on
/// its way comes sooner.
pub const DRAIN_FLOW_MILLIS: u64 = 1_000;

/// How long a flow's server may leave a client's datagrams unanswered before its name is looked up again,
/// in seconds, where `TIMEOUT=udp` sets no time: its default.
pub const UNANSWERED_SECS: u64 = 180;
