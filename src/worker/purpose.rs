//! What a listening socket is for.

/// What a listener accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Links of peers.
    Receptor,
    /// Clients whose streams use a tunnel.
    Entrance,
    /// Clients of a plain relay.
    Relay,
}
