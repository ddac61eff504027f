//! What the thread of the control socket asks the worker for, and what the worker answers: a page at a
//! time, so that no turn of the loop is long, whatever there is to list.

use super::status::{EntranceRow, Status, StreamRow, TunnelRow};

/// Where the next page begins: a slot of a table. What lives as long as the listing is in one page,
/// since it keeps its slot.
pub type Next = Option<usize>;

/// A question that one turn answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Everything of the status that is no list.
    Status,
    /// Tunnels from this slot on.
    Tunnels(usize),
    /// Entrances and receptors from this slot on.
    Entrances(usize),
    /// Streams from this slot on.
    Streams(usize),
    /// To end a tunnel.
    KillTunnel(u32),
    /// To end a stream, which is looked for from this slot on.
    KillStream(u32, usize),
    /// To end the tunnels of a peer.
    KillPeer(String),
    /// To drain.
    Drain,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Of [`Ask::Status`], with empty lists.
    Status(Box<Status>),
    /// Some tunnels.
    Tunnels(Vec<TunnelRow>, Next),
    /// Some entrances.
    Entrances(Vec<EntranceRow>, Next),
    /// Some streams.
    Streams(Vec<StreamRow>, Next),
    /// So many were ended; the stream may be in the next page.
    Killed(usize, Next),
    /// It drains; `true`: it did already.
    Drains(bool),
}
