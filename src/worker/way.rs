//! The directions of a relayed pair.

/// A direction of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

impl Way {
    /// Its name for the log.
    pub(in crate::worker) fn name(self) -> &'static str {
        match self {
            Way::Up => "up",
            Way::Down => "down",
        }
    }
}
