//! Ids in the log: what of tunnels and streams a line is about.

use super::table::Key;
use super::token::StreamOwner;

/// The numbers of what a line is about, as far as that has begun.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::worker) struct LogIds {
    pub(in crate::worker) tunnel: Option<u32>,
    pub(in crate::worker) stream: Option<u32>,
    pub(in crate::worker) flow: Option<u32>,
    /// Of a plain relay.
    pub(in crate::worker) pair: Option<u32>,
}

impl LogIds {
    /// A stream or flow of a tunnel; without an owner it was refused before it had one.
    pub(in crate::worker) fn of(tunnel: Key, owner: Option<StreamOwner>) -> LogIds {
        let tunnel = Some(tunnel.number());
        match owner {
            Some(StreamOwner::Conn(key)) => LogIds { tunnel, ..LogIds::stream(key) },
            Some(StreamOwner::Flow(key)) => LogIds { tunnel, ..LogIds::flow(key) },
            None => LogIds { tunnel, ..LogIds::default() },
        }
    }

    pub(in crate::worker) fn stream(key: Key) -> LogIds {
        LogIds { stream: Some(key.number()), ..LogIds::default() }
    }

    pub(in crate::worker) fn flow(key: Key) -> LogIds {
        LogIds { flow: Some(key.number()), ..LogIds::default() }
    }

    pub(in crate::worker) fn pair(key: Key) -> LogIds {
        LogIds { pair: Some(key.number()), ..LogIds::default() }
    }
}
