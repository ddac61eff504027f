//! Listeners that a successor takes over, and what this process has taken over for peers.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tracing::{debug, info};

use crate::io::inherited::Reserved;
use crate::io::net;
use crate::io::takeover::Handed;
use crate::limits::HOLD_SECS;
use crate::session::Moment;
use crate::wire::Transport;
use crate::worker::context::Cx;
use crate::worker::ingress::Ingress;
use crate::worker::ingress::asked::shown;
use crate::worker::table::Key;
use crate::worker::takeover::Offered;

/// Entrances that peers had asked the old process for. Their clients wait in the queues until the peers
/// have come here, and have asked for them again.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    sockets: Vec<Reserved>,
    /// Who has not asked by then does not come any more.
    until: Option<Moment>,
}

impl Reserve {
    /// The socket that a peer asks for. Another one at that port would be in its way.
    pub(super) fn take(&mut self, transport: Transport, at: SocketAddr) -> Option<OwnedFd> {
        let has_port = |socket: &mut Reserved| {
            socket.transport == transport && socket.address.port() == at.port()
        };
        let mut found = None;
        for Reserved { fd, address, .. } in self.sockets.extract_if(.., has_port) {
            let everywhere = address.ip().is_unspecified() && at.ip().is_unspecified();
            if everywhere || address == at {
                debug!(entrance = shown(address, transport), "entrance taken over for a peer");
                found = Some(fd);
            } else {
                net::shut_down(&fd);
            }
        }
        found
    }

    pub(super) fn until(&self) -> Option<Moment> {
        self.until.filter(|_| !self.sockets.is_empty())
    }

    pub(super) fn on_time(&mut self, now: Moment) {
        if self.until().is_some_and(|until| until <= now) {
            self.end();
        }
    }

    /// Nobody has them any more.
    pub(super) fn end(&mut self) {
        for Reserved { fd, transport, address } in self.sockets.drain(..) {
            info!(
                entrance = shown(address, transport),
                "entrance closed: no peer has asked for it"
            );
            net::shut_down(&fd);
        }
    }

    fn offers(&self) -> impl Iterator<Item = (Offered, io::Result<Handed>)> + use<'_> {
        self.sockets.iter().map(|socket| {
            let offer = socket.fd.try_clone();
            let offer = offer.map(|fd| Handed { fd, is_ours: true, is_asked: true });
            (Offered::Reserved, offer)
        })
    }
}

impl Ingress {
    /// Keeps these as long as clients wait for a tunnel.
    pub(in crate::worker) fn keep_for_peers<D>(&mut self, cx: &Cx<D>, sockets: Vec<Reserved>) {
        let hold = cx.plan.timeouts.hold.unwrap_or(Duration::from_secs(HOLD_SECS));
        self.reserve = Reserve { sockets, until: Some(cx.now.after(hold)) };
    }

    /// Those that are open, for a successor.
    pub(in crate::worker) fn offers(
        &self,
    ) -> impl Iterator<Item = (Offered, io::Result<Handed>)> + use<'_> {
        let open = self.listeners.iter().filter(|(_, listener)| !listener.is_closing());
        let open = open.map(|(key, listener)| (Offered::Listener(key), listener.offer()));
        open.chain(self.reserve.offers())
    }

    /// A successor has it: closing it ends nothing.
    pub(in crate::worker) fn leave_listener(&mut self, key: Key) {
        if let Some(listener) = self.listeners.get_mut(key) {
            listener.leave();
        }
    }

    /// Whether another process accepts here, until this one has taken over.
    pub(in crate::worker) fn open_later(&mut self, later: bool) {
        self.opens_later = later;
        self.outage.await_tunnel();
    }

    /// Whether another process may accept here.
    pub(super) fn are_opened_later(&self) -> bool {
        self.opens_later
    }

    /// All listeners are another process's.
    pub(in crate::worker) fn leave_all(&mut self) {
        self.listeners.iter_mut().for_each(|(_, listener)| listener.leave());
    }

    /// A successor keeps them, all or none of them.
    pub(in crate::worker) fn leave_reserve(&mut self) {
        self.reserve.sockets.clear();
    }
}
