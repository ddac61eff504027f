//! Peers are not trusted: how many may be on their way in.

#[cfg(doc)]
use super::TUNNELS_MAX;

/// Connections at receptors' ports whose hello is not complete, beside [`TUNNELS_MAX`]. A peer is one for
/// a round trip or two, so this many come in again and again; a flood drives out its own kind.
pub const STRANGERS_MAX: usize = 512;

/// Part of the process's descriptors that strangers may have, of [`STRANGERS_MAX`] at most.
pub const STRANGERS_DESCRIPTORS_PART: u64 = 8;

/// Strangers that are kept however few descriptors there are: less would make a peer's hello a matter of
/// luck.
pub const STRANGERS_MIN: usize = 8;

/// Longest time for the hello of a peer that connects here, in seconds, unless `TIMEOUT=acc` is set. It
/// takes one round trip, three with a handshake of encryption.
pub const STRANGER_SECS: u64 = 5;
