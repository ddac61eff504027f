//! Connections: those that come in, the persistent one and how it comes back, and how long the
//! worker waits for what they bring.

use super::COMMAND_GRACE_MILLIS;

/// Default length of the kernel's queue of accepted connections per listener. The kernel cuts it
/// to `net.core.somaxconn` (4096 by default); clients wait there while the tunnel is down.
pub const LISTEN_BACKLOG: i32 = 1024;

/// How long a port that is taken is asked for at the start, and how often, in milliseconds. The
/// kernel takes down the ring of a killed predecessor within tens of them.
pub const LISTEN_PATIENCE_MILLIS: u64 = 500;
/// See [`LISTEN_PATIENCE_MILLIS`].
pub const LISTEN_AGAIN_MILLIS: u64 = 10;

/// How long an entrance pauses when the process is out of descriptors.
pub const ACCEPT_PAUSE_MILLIS: u64 = 200;

/// Descriptors that are kept for connections to servers, so that clients, who come first, do not take
/// the last ones: so many are served at once, and those behind them when they end.
pub const DIAL_DESCRIPTORS: usize = 8;

/// How often connections to servers that wait for a descriptor are looked at, in milliseconds: a try
/// costs one system call, however many wait.
pub const DESCRIPTOR_RETRY_MILLIS: u64 = 100;

/// Listening sockets of one process: as many as connections, since each is a descriptor, too.
pub const LISTENERS_MAX: usize = CONNECTIONS_MAX;

/// Local connections of one process. Each is a descriptor; the process raises its own limit of
/// those as far as it may.
pub const CONNECTIONS_MAX: usize = 65_536;

/// Persistent connections that a receptor holds at once.
pub const TUNNELS_MAX: usize = 1024;

/// A path whose round trip is at most this is short: the same machine, rack or datacenter.
pub const SHORT_PATH_MICROS: u32 = 5_000;

/// Shortest and longest wait before the persistent connection is dialled again. The first dial
/// after a healthy connection is at once.
pub const REDIAL_FIRST_MILLIS: u64 = 200;
/// See [`REDIAL_FIRST_MILLIS`].
pub const REDIAL_MAX_MILLIS: u64 = 15_000;

/// How long a dial waits, on average, that follows one in vain where a tunnel was up a moment ago: a
/// peer that is being restarted is back within some tens of milliseconds.
pub const REDIAL_SOON_MILLIS: u64 = 50;
/// How many dials follow each other so soon before the waits grow: a second of them.
pub const REDIAL_SOON_TIMES: u32 = 20;

/// A tunnel that was up this long has lasted.
pub const HEALTHY_MILLIS: u64 = 5_000;

/// Tunnels in a row that came up and did not last, whose loss is followed by a dial at once all the
/// same. A peer that says hello and drops for ever is dialled at once so many times and no more.
pub const SHORT_LIVES_MAX: u32 = 8;

/// How long the address of a name that is connected to has for itself before the next one is tried
/// beside it, in milliseconds: what RFC 8305 recommends. Most paths of the Internet are shorter.
pub const ATTEMPT_DELAY_MILLIS: u64 = 250;

/// The least of that, where `TIMEOUT=con` leaves less: RFC 8305 allows none below.
pub const ATTEMPT_DELAY_MIN_MILLIS: u64 = 10;

/// Addresses of one name that are connected to at once. Each is a socket, and somebody who names a
/// proxy's server causes so many packets at once.
pub const ATTEMPTS_AT_ONCE: usize = 4;

/// How long each of them has, before it goes for the next one, where `TIMEOUT=con` says nothing: a
/// packet that is lost is sent again after a second.
pub const ATTEMPT_TURN_MILLIS: u64 = 2_000;

/// How long an address that did not answer is tried last, in seconds. Long enough that its silence
/// costs a busy relay next to nothing, short enough that one that is back is used again soon.
pub const SILENT_ADDRESS_SECS: u64 = 60;

/// Such addresses that are remembered, some 60 bytes each. Of more the oldest are forgotten, and cost
/// their next connection [`ATTEMPT_DELAY_MILLIS`].
pub const SILENT_ADDRESSES_MAX: usize = 1024;

/// How often FIFOs are tried that the peer has not opened yet, in milliseconds: soon enough that
/// nobody notices, seldom enough that waiting for days costs next to nothing.
pub const LINK_AGAIN_MILLIS: u64 = 50;

/// How often a device or FIFO is tried that is missing or taken, in milliseconds: somebody has to do
/// something about it.
pub const DEVICE_AGAIN_MILLIS: u64 = 1_000;

/// How long a worker looks for the next small message before it sleeps, in microseconds: what an
/// answer takes to come from another program of the machine that has to be woken up for it.
pub const WATCH_MICROS: u64 = 100;

/// How closely small messages must follow each other for that, in microseconds. It bounds what
/// looking in vain costs: with fewer than some 7,000 messages a second there is none.
pub const WATCH_INTERVAL_MICROS: u64 = 140;

/// How long a stream between two sockets of this process may take to come to rest, so that they are
/// joined without a tunnel between them. Meanwhile they are not read: one whose reader is slow goes on
/// as it is.
pub const JOIN_MILLIS: u64 = 200;

/// How often connections with a deadline are looked at.
pub const SWEEP_MILLIS: u64 = 100;

/// How long open streams may take to end after SIGTERM, unless `TIMEOUT=drain` says otherwise: less
/// than what `docker stop` and its like wait before they kill ([`STOP_GRACE_SECS`]), commands that have to
/// be killed then included ([`COMMAND_GRACE_MILLIS`]).
pub const DRAIN_SECS: u64 = 7;
/// How long the least patient of those who stop processes waits by default: `docker stop` and Compose.
/// Kubernetes waits for 30 s, systemd for 90.
pub const STOP_GRACE_SECS: u64 = 10;
/// How long a client that came before SIGTERM may take for its PROXY header: it comes with the
/// connection, or it is a health check.
pub const DRAIN_GREETING_MILLIS: u64 = 1_000;
/// How long clients wait for a tunnel, unless `TIMEOUT=hold` says otherwise: as long as people wait
/// before they try again.
pub const HOLD_SECS: u64 = 30;

// A peer that is restarted may drain for so long before its successor can be there: clients are still
// waiting then.
const _: () = assert!(2 * DRAIN_SECS < HOLD_SECS);
// With half a second for a machine that is busy.
const _: () = assert!(DRAIN_SECS * 1_000 + COMMAND_GRACE_MILLIS + 500 < STOP_GRACE_SECS * 1_000);

/// How long what a broken connection had sent may stand still on its way to the other side before
/// that is reset, in milliseconds: longer than TCP takes to get over three losses in a row. Nobody
/// who is connected directly is waited for at all.
pub const BROKEN_QUIET_MILLIS: u64 = 2_000;

/// How long a process that drains waits for peers to know of it, before, and to have read its last
/// bytes, after: more than a socket's buffer takes on a path of 10 Mbit/s.
pub const LEAVE_MILLIS: u64 = 5_000;

/// Tunnels that are logged one by one on SIGUSR1: a screen or two; the sum of all follows.
pub const STATE_TUNNELS_MAX: usize = 64;
