//! Listeners that a successor takes over.

use std::io;

use crate::io::takeover::desk::Offer;
use crate::worker::ingress::Ingress;
use crate::worker::table::Key;
use crate::worker::takeover::Offered;

impl Ingress {
    /// Those that are open, for a successor.
    pub(in crate::worker) fn offers(
        &self,
    ) -> impl Iterator<Item = (Offered, io::Result<Offer>)> + use<'_> {
        let open = self.listeners.iter().filter(|(_, listener)| !listener.is_closing());
        let open = open.filter(|(_, listener)| !listener.is_asked());
        open.map(|(key, listener)| (Offered::Listener(key), listener.offer()))
    }

    /// A successor has it: closing it ends nothing.
    pub(in crate::worker) fn leave_listener(&mut self, key: Key) {
        if let Some(listener) = self.listeners.get_mut(key) {
            listener.leave();
        }
    }
}
