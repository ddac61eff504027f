//! Names that are resolved: of servers, of clients, and of the destinations of SOCKS flows.

/// Threads that look names up, and how many look-ups may wait for them.
pub const RESOLVER_THREADS: usize = 4;
/// See [`RESOLVER_THREADS`].
pub const RESOLVER_QUEUE: usize = 1024;

/// Addresses of one name that are tried.
pub const ADDRESSES_MAX: usize = 16;

/// Names of clients that are remembered, for host lists with patterns of names: some hundred bytes
/// each. With more clients within a minute some are looked up again.
pub const CLIENT_NAMES_MAX: usize = 4096;

/// How long a client's name is cached: short enough that a corrected name soon takes effect, long enough
/// that a browser's many connections cost one look-up.
pub const CLIENT_NAME_SECS: u64 = 60;

/// Longest wait for a client's name. A name server that answers at all does so within this; the
/// resolver's own timeout is several times as long, and a client would have given up.
pub const CLIENT_NAME_PATIENCE_SECS: u64 = 5;

/// Connections and streams that wait for their client's name. Each may be a descriptor, or hold
/// data that its client has sent already.
pub const CLIENT_NAMES_WAITING_MAX: usize = 1024;

/// Destinations that one flow of SOCKS remembers having sent to, the last ones: answers come from
/// them within seconds, and a resolver or a game talks to a few dozen in that time.
pub const DESTINATIONS_PER_FLOW: usize = 64;

/// Names of destinations that one flow of SOCKS has looked up, or is looking up. A client that asks
/// by name usually means one or two servers.
pub const NAMES_PER_FLOW: usize = 16;

/// How long such a name is cached, in seconds. The system's resolver does not report a time to live;
/// shorter ones are rare.
pub const NAME_HOLD_SECS: u64 = 30;

/// Datagrams of one flow of SOCKS that wait for their destination's name, and their bytes: those before
/// the first answer, or one of the largest.
pub const NAMELESS_DATAGRAMS: usize = 8;
/// See [`NAMELESS_DATAGRAMS`].
pub const NAMELESS_BYTES: usize = 64 << 10;
