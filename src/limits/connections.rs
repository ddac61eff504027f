//! Connections: clients, the persistent connection and its redials, and how long the worker waits for
//! incoming data.

use super::COMMAND_GRACE_MILLIS;

/// Default length of the kernel's queue of accepted connections per listener. The kernel cuts it
/// to `net.core.somaxconn` (4096 by default); clients wait there while the tunnel is down.
pub const LISTEN_BACKLOG: i32 = 1024;

/// How long binding a port that is in use is retried at the start, and how often, in milliseconds. The
/// kernel tears down the ring of a killed predecessor within tens of milliseconds.
pub const LISTEN_PATIENCE_MILLIS: u64 = 500;
/// See [`LISTEN_PATIENCE_MILLIS`].
pub const LISTEN_AGAIN_MILLIS: u64 = 10;

/// How long a process waits for its successor to be ready, which may have names to look up and keys to
/// read, in milliseconds. Meanwhile it goes on as before.
pub const TAKEOVER_READY_MILLIS: u64 = 20_000;
/// How long a connector that takes over tries to have a tunnel, in milliseconds. The old one has its own
/// meanwhile, and waits no longer than [`TAKEOVER_READY_MILLIS`].
pub const TAKEOVER_TUNNEL_MILLIS: u64 = 10_000;
/// How long a successor waits for an answer: longer than another one may be in its way.
pub const TAKEOVER_ANSWER_MILLIS: u64 = 30_000;

/// How long there is no tunnel before an entrance is taken for down (`SOXCONF=down:`), in milliseconds.
/// A connection that broke is back within a second where the path is good, and so is a peer that is
/// restarted ([`REDIAL_SOON_TIMES`]): a balancer is not to learn of either.
pub const DOWN_AFTER_MILLIS: u64 = 2_000;
/// How often opening a closed entrance again is tried where another program has taken its port, in
/// milliseconds.
pub const DOWN_RETRY_MILLIS: u64 = 1_000;
/// Shortest time between two looks at which entrances have a tunnel, in milliseconds: thousands of
/// tunnels may come and go, and each look is at all entrances.
pub const DOWN_LOOK_MILLIS: u64 = 20;

/// How long an entrance pauses when the process is out of descriptors.
pub const ACCEPT_PAUSE_MILLIS: u64 = 200;

/// Descriptors reserved for connections to servers, so that clients, which are accepted first, do not
/// take the last ones. So many clients are served at once, the others when these end.
pub const DIAL_DESCRIPTORS: usize = 8;

/// How often connections to servers that wait for a descriptor are retried, in milliseconds. A retry
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

/// The same while streams wait for it: clients give up when it lasts. A receptor that ten thousand such
/// connectors have lost refuses ten thousand connections a second.
pub const REDIAL_AWAITED_MAX_MILLIS: u64 = 2_000;

/// Average wait before a dial that follows a failed one shortly after a tunnel was up. A peer that is
/// being restarted is back within some tens of milliseconds.
pub const REDIAL_SOON_MILLIS: u64 = 50;
/// Number of such dials before the waits grow: a second of them.
pub const REDIAL_SOON_TIMES: u32 = 20;

/// A tunnel that was up this long has lasted.
pub const HEALTHY_MILLIS: u64 = 5_000;

/// Consecutive short-lived tunnels whose loss is still followed by an immediate dial. It bounds the
/// immediate dials to a peer that drops every tunnel after its hello.
pub const SHORT_LIVES_MAX: u32 = 8;

/// Delay before the next address of a name is tried in parallel, in milliseconds, as RFC 8305
/// recommends. Most round trips on the Internet are shorter.
pub const ATTEMPT_DELAY_MILLIS: u64 = 250;

/// Minimum of that delay, where `TIMEOUT=con` leaves less: that of RFC 8305.
pub const ATTEMPT_DELAY_MIN_MILLIS: u64 = 10;

/// Parallel connection attempts to the addresses of one name. Each is a socket, and a proxy's client
/// that names a server causes so many packets at once.
pub const ATTEMPTS_AT_ONCE: usize = 4;

/// While streams wait for the persistent connection, an address that has not answered is tried anew after
/// this many milliseconds: so much later than the path is it good again. Three of these last for a second
/// and a half; the first attempt lasts for as long as `TIMEOUT=con` lets it.
pub const ATTEMPT_AGAIN_MILLIS: u64 = 500;

/// Time of each attempt before it is given up for the next address, unless `TIMEOUT=con` is set. A lost
/// packet is retransmitted after a second.
pub const ATTEMPT_TURN_MILLIS: u64 = 2_000;

/// How long an address that did not answer is tried last, in seconds: long enough that it costs a busy
/// relay next to nothing, short enough that it is soon used again once it answers.
pub const SILENT_ADDRESS_SECS: u64 = 60;

/// Such addresses that are remembered, some 60 bytes each. Beyond it the oldest are forgotten, and
/// delay their next connection by [`ATTEMPT_DELAY_MILLIS`].
pub const SILENT_ADDRESSES_MAX: usize = 1024;

/// How often opening a FIFO that the peer has not opened yet is retried, in milliseconds: too soon to be
/// noticed, and seldom enough that waiting for days costs next to nothing.
pub const LINK_AGAIN_MILLIS: u64 = 50;

/// How often opening a device or FIFO that is missing or in use is retried, in milliseconds. An operator
/// has to act first.
pub const DEVICE_AGAIN_MILLIS: u64 = 1_000;

/// How long a worker polls for the next small message before it sleeps, in microseconds: the time of
/// an answer by another process of the machine that has to be woken up for it.
pub const WATCH_MICROS: u64 = 100;

/// Largest interval of small messages at which it polls, in microseconds. This bounds the cost of
/// polling in vain: with fewer than some 7,000 messages a second there is none.
pub const WATCH_INTERVAL_MICROS: u64 = 140;

/// How long a stream between two sockets of this process may take to drain, so that they are joined
/// without a tunnel between them. They are not read meanwhile; a stream whose reader is slow stays in
/// the tunnel.
pub const JOIN_MILLIS: u64 = 200;

/// How often connections with a deadline are checked.
pub const SWEEP_MILLIS: u64 = 100;

/// How long open streams may take to end after SIGTERM, unless `TIMEOUT=drain` is set. Together with
/// the time for commands that have to be killed ([`COMMAND_GRACE_MILLIS`]) it is less than
/// `docker stop` waits before SIGKILL ([`STOP_GRACE_SECS`]).
pub const DRAIN_SECS: u64 = 7;
/// Shortest default time from SIGTERM to SIGKILL among supervisors: that of `docker stop` and Compose.
/// Kubernetes waits for 30 s, systemd for 90.
pub const STOP_GRACE_SECS: u64 = 10;
/// How long a client that connected before SIGTERM may take for its PROXY header. The header comes with
/// the connection, or this is a health check.
pub const DRAIN_GREETING_MILLIS: u64 = 1_000;
/// How long clients wait for a tunnel, unless `TIMEOUT=hold` is set: as long as people wait before they
/// try again.
pub const HOLD_SECS: u64 = 30;

// Clients are still waiting when a peer that is restarted has drained and its successor is up.
const _: () = assert!(2 * DRAIN_SECS < HOLD_SECS);
// With half a second for a machine that is busy.
const _: () = assert!(DRAIN_SECS * 1_000 + COMMAND_GRACE_MILLIS + 500 < STOP_GRACE_SECS * 1_000);

/// How long the remaining data of a broken connection may stall on its way to the other side before
/// that is reset, in milliseconds: longer than TCP takes to recover from three losses in a row. Without
/// a relay there would be no wait at all.
pub const BROKEN_QUIET_MILLIS: u64 = 2_000;

/// How long a draining process waits for its peers, first to learn of the drain, at the end to read its
/// last bytes: more than a socket's buffer takes on a path of 10 Mbit/s.
pub const LEAVE_MILLIS: u64 = 5_000;

/// Tunnels that are logged one by one on SIGUSR1: a screen or two; the sum of all follows.
pub const STATE_TUNNELS_MAX: usize = 64;
