//! Datagrams: their sizes, their queues, and how they are read from a socket.

/// Largest datagram: 65,535 bytes without the headers of IPv4 and UDP.
pub const DATAGRAM_BYTES_MAX: u32 = 65_507;

/// Datagrams of all flows of a tunnel that wait for it, in bytes, each counted with
/// [`DATAGRAM_COST_BYTES`] more. A flow may have as many as are left of it, so that a flood takes
/// half of it and a single request always finds room. It bridges the ten milliseconds for which a flood
/// at full speed occupies the connection; datagrams older than [`DATAGRAM_AGE_MICROS`] make room in any
/// case. Less where the pool is small.
pub const DATAGRAM_QUEUE_BYTES: u64 = 16 << 20;

/// Cost of a queued run of datagrams beside its bytes: its entry in the queue and its frame's head.
pub const DATAGRAM_COST_BYTES: u64 = 32;

/// Datagrams that have waited this long for their tunnel, in microseconds, make room for new ones:
/// clients that wait for an answer have sent their requests again.
pub const DATAGRAM_AGE_MICROS: u64 = 200_000;

/// Datagrams of one flow that wait for its server's name to be looked up, in bytes: a few of the
/// largest, or the requests of a client that waits.
pub const DATAGRAM_WAITING_BYTES: usize = 256 << 10;

/// Kernel buffer of an entrance for datagrams, in bytes: a flood of the tens of milliseconds for which a
/// busy machine may not schedule us. Small datagrams count for 768 bytes there.
pub const DATAGRAM_ENTRANCE_BYTES: usize = 8 << 20;

/// Kernel buffer of an exit's socket for datagrams, one for each flow, in bytes.
pub const DATAGRAM_EXIT_BYTES: usize = 2 << 20;

/// Messages read from a datagram socket in one call, and so in one turn: enough to amortise the call,
/// few enough that byte streams have their turn soon.
pub const DATAGRAMS_AT_ONCE: usize = 64;

/// Datagrams that the kernel cuts one send into, at most. Newer kernels take 128.
pub const DATAGRAM_SEGMENTS_MAX: u32 = 64;

/// A message with at least so many bytes of datagrams stays where it was received; a smaller one is
/// copied, so that it does not hold a buffer of 64 KiB.
pub const DATAGRAM_KEEP_BYTES: usize = 16 << 10;

/// Number of these buffers: those being received into, and three times as many for datagrams that wait
/// or are being sent. While all are in use, everything is copied.
pub const DATAGRAM_BUFFERS: u32 = 4 * DATAGRAMS_AT_ONCE as u32;

/// Average interval of datagrams at a socket below which they are left to accumulate there, in
/// microseconds. A client that waits for each answer is never so fast (`docs/performance.md`).
pub const DATAGRAM_REST_INTERVAL_MICROS: u64 = 20;

/// How long such a socket is then not read, in microseconds: some tens of datagrams. It is also their
/// largest delay.
pub const DATAGRAM_REST_MICROS: u64 = 200;

/// A read of more bytes than this is followed by the next without a pause.
pub const DATAGRAM_REST_BYTES_MAX: usize = 1 << 20;

/// Longest pause in reading a socket that receives more than the tunnel takes, in microseconds. It adds
/// to the delay of the datagrams there.
pub const DATAGRAM_BACK_OFF_MICROS: u64 = 3_000;

/// How long a flow may be silent while the process drains, in milliseconds. An answer in transit
/// arrives sooner.
pub const DRAIN_FLOW_MILLIS: u64 = 1_000;

/// How long a flow's server may leave a client's datagrams unanswered before its name is looked up again,
/// in seconds, unless `TIMEOUT=udp` is set: the default of that.
pub const UNANSWERED_SECS: u64 = 180;
