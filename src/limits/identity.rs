//! Keys, peers and secrets.

/// Largest file with a key, a certificate or a secret. Chains of certificates have some 10 KiB; a
/// device or a log given by mistake must not be read into memory.
pub const KEY_FILE_BYTES: u64 = 256 << 10;

/// Most peers of a peers file, and of a command line. Each handshake searches all of them.
pub const PEERS_MAX: usize = 4096;

/// Largest peers file: all peers, each with a comment of its own.
pub const PEERS_FILE_BYTES: u64 = 1 << 20;

/// Longest wait for a look at the peers file, in seconds: a file system that answers at all does so
/// within this. Less than what a peer has for its hello, so that the log says what it waited for.
pub const PEERS_LOOK_SECS: u64 = 3;

/// Longest name of a peer, in characters: that of a host (RFC 1123 section 2.1), short enough for a
/// log line.
pub const PEER_NAME_CHARS: usize = 64;

/// Most elements of a list among the options of a peer. Each of its streams is held against all of
/// them.
pub const PEER_LIST_MAX: usize = 64;

/// Shortest shared secret, in characters. Whoever dials may guess offline, so it has 128 bits or
/// more: 32 hexadecimal digits have these.
pub const SECRET_CHARS_MIN: usize = 32;

/// Longest one. 43 are generated.
pub const SECRET_CHARS_MAX: usize = 1024;

/// Fewest different characters of a shared secret. Of 32 random hexadecimal digits, fewer than 8
/// are different less than once in ten million times; of a repeated word they often are.
pub const SECRET_DISTINCT_MIN: usize = 8;

/// Most files of `TLSCONF=ca:`, and most names of `TLSCONF=name:`.
pub const AUTHORITY_ITEMS_MAX: usize = 64;
