//! A successor takes the listening sockets over: which of them it may, and which it has.

use std::io;

use super::message::PortName;
use super::table::Key;
use crate::io::takeover::Handed;
use crate::io::takeover::desk::Desk;

/// A listening socket that is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    Listener(Key),
    Datagrams(PortName),
    /// One that is kept for a peer.
    Reserved,
}

/// The place that a successor comes to, and how far it is.
#[derive(Debug)]
pub(super) struct Takeover {
    pub(super) desk: Desk,
    /// What a successor has, by its numbers, until it is ready or has failed.
    offered: Option<Vec<Offered>>,
}

impl Takeover {
    pub(super) fn new(desk: Desk) -> Takeover {
        Takeover { desk, offered: None }
    }

    /// All of these are offered.
    ///
    /// # Errors
    /// There are not enough descriptors.
    pub(super) fn offer(
        &mut self,
        sockets: impl Iterator<Item = (Offered, io::Result<Handed>)>,
    ) -> io::Result<Vec<Handed>> {
        // They are counted by two bytes.
        let sockets = sockets.take(usize::from(u16::MAX));
        let offers = sockets.map(|(which, offer)| Ok((which, offer?)));
        let (offered, offers) = offers.collect::<io::Result<(Vec<_>, Vec<_>)>>()?;
        self.offered = Some(offered);
        Ok(offers)
    }

    /// Whether a successor has duplicates, and has neither taken them nor failed.
    pub(super) fn is_offering(&self) -> bool {
        self.offered.is_some()
    }

    /// The successor has failed.
    pub(super) fn withdraw(&mut self) {
        self.offered = None;
    }

    /// Those that the successor has taken.
    pub(super) fn take(&mut self, numbers: &[u16]) -> Vec<Offered> {
        let offered = self.offered.take().unwrap_or_default();
        numbers.iter().filter_map(|&number| offered.get(usize::from(number)).copied()).collect()
    }

    /// Those that it may take yet, whose end would be its failure. `None`: there is no successor.
    pub(super) fn take_all(&mut self) -> Option<Vec<Offered>> {
        self.offered.take()
    }
}
