//! The part of the plan that is about a peer: who it is, and what it may do here.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::Exit;
use crate::cli::fingerprint::Fingerprint;

/// A peer that is known by its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPeer {
    /// Its name here. `None`: it was given by its fingerprint alone.
    pub name: Option<String>,
    /// Of its public key.
    pub fingerprint: Fingerprint,
    /// What it may do here.
    pub options: Arc<PeerOptions>,
}

/// What a peer may do here: the options behind its key in the peers file. The default is what holds
/// without any, and for keys of the command line. Lists have at most
/// [`PEER_LIST_MAX`](crate::limits::PEER_LIST_MAX) elements.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerOptions {
    /// `streams=`: most streams that it has open here at once, by all of its tunnels together.
    pub streams: Option<u32>,
    /// `exits=`: the exits that it may use, of those that are for it, as [`Exit::name`] has them. `None`:
    /// all of these.
    pub exits: Option<Vec<String>>,
    /// `entrances=`: the ports of the entrances that lead to it, of those that may. `None`: all of these.
    pub entrances: Option<PortRanges>,
    /// `listen=`: ports at which it, a connector, may ask this receptor to open entrances. Empty: none.
    pub listen: PortRanges,
}

impl PeerOptions {
    /// Whether its streams may leave by an exit.
    pub fn permits_exit(&self, exit: &Exit) -> bool {
        self.exits.as_ref().is_none_or(|names| names.contains(&exit.name))
    }

    /// Whether clients of the entrance at this port are led to it; those of Unix sockets have port 0.
    pub fn has_entrance(&self, port: u16) -> bool {
        self.entrances.as_ref().is_none_or(|ports| ports.contains(port))
    }

    /// Whether it can have clients of entrances at all.
    pub fn has_entrances(&self) -> bool {
        self.entrances.as_ref().is_none_or(|ports| !ports.is_empty())
    }
}

/// Ports of a list, as `8000-8100,9000`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortRanges(pub Vec<RangeInclusive<u16>>);

impl PortRanges {
    /// Whether a port is among them.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// As it would be written.
impl fmt::Display for PortRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{separator}{first}")?,
                (first, last) => write!(f, "{separator}{first}-{last}")?,
            }
        }
        Ok(())
    }
}
