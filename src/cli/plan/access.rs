//! Who may connect to this process: `RELIABLE=`, and what holds where it was not given.

use std::net::IpAddr;

use super::{Caller, ClientName, HostList, LinkPlan, Plan};
use crate::cli::hosttest::HostTest;
use crate::cli::localnet;

impl Plan {
    /// Verdict on somebody who connects here: a client at an entrance, or a peer at the receptor's
    /// port. Without `RELIABLE=` it has to be this machine, or a host of a network that one of its
    /// interfaces is in now. `None`: depends on the caller's name.
    pub fn lets_in(&self, caller: &Caller, name: ClientName<'_>) -> Option<bool> {
        match &self.reliable {
            Some(list) => list.verdict(caller, name),
            None => Some(HostTest::LocalNet.matches(caller, None)),
        }
    }

    /// Verdict on a peer at the receptor's port. Where the persistent connection is encrypted its key
    /// decides, and `RELIABLE=` only if it was given. `None`: depends on the caller's name.
    pub fn lets_in_peer(&self, caller: &Caller, name: ClientName<'_>) -> Option<bool> {
        match (&self.reliable, &self.encryption) {
            (None, Some(_)) => Some(true),
            _ => self.lets_in(caller, name),
        }
    }

    /// Verdict on a stream of a peer, by what that says of its client. Without `RELIABLE=` all are
    /// taken: the peer itself was let in, and its clients are seldom of our networks. `None`: depends
    /// on the caller's name.
    pub fn takes_stream_of(&self, caller: &Caller, name: ClientName<'_>) -> Option<bool> {
        match &self.reliable {
            Some(list) => list.verdict(caller, name),
            None => Some(true),
        }
    }

    /// The parameter that lets this address in too: the one to add behind all others, or, where there
    /// is none, one that keeps what held without it.
    pub fn words_that_let_in(&self, address: IpAddr) -> String {
        let address = address.to_canonical();
        match self.reliable {
            Some(_) => format!("RELIABLE={address}"),
            None => format!("RELIABLE={},{address}", localnet::WORD),
        }
    }

    /// Who may connect here, for people. `None`: nobody can, since nothing listens.
    pub fn who_may_connect(&self) -> Option<String> {
        if !self.listens() {
            return None;
        }
        Some(match &self.reliable {
            Some(list) if list.permits_everybody() => "everybody".to_owned(),
            Some(list) => list.to_string(),
            None => localnet::WORD.to_owned(),
        })
    }

    /// Whether the networks of the interfaces decide on anybody.
    pub(crate) fn means_localnet(&self) -> bool {
        self.reliable.as_ref().is_none_or(HostList::means_localnet)
    }

    /// Whether anybody can connect here, as a client or as a peer.
    fn listens(&self) -> bool {
        matches!(self.link, LinkPlan::Listen(_) | LinkPlan::Relay { .. })
            || !(self.entrances.is_empty() && self.unix_entrances.is_empty())
    }
}
