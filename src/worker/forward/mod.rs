//! Remote forwards: ports that a peer asks for. [`port_range`] says where, [`asked`] holds them,
//! [`ports`] opens them, [`callback`] leads a server's connection to the client that waits for it.

pub(in crate::worker) mod asked;
pub(in crate::worker) mod callback;
pub(in crate::worker) mod port_range;
pub(in crate::worker) mod ports;

use self::asked::AskedPorts;
use self::port_range::PortRange;
use crate::cli::plan::Plan;
use crate::session::Moment;
use crate::worker::table::Key;

/// Ports that peers asked for.
pub(in crate::worker) struct Forwards {
    asked: AskedPorts,
    port_range: PortRange,
}

impl Forwards {
    pub(in crate::worker) fn new(plan: &Plan) -> Forwards {
        let port_range = PortRange::new(plan.soxconf.request_ports.clone());
        Forwards { asked: AskedPorts::new(), port_range }
    }

    /// When a listener that nobody came to is closed.
    pub(in crate::worker) fn next_timeout(&self) -> Option<Moment> {
        self.asked.next_due().map(|(_, until)| until)
    }

    /// The client that a port is for.
    pub(in crate::worker) fn owner_of(&self, port: Key) -> Option<Key> {
        Some(self.asked.get(port)?.owner)
    }

    /// Where ports on request are opened, and those of proxy sessions.
    pub(in crate::worker) fn port_range(&mut self) -> &mut PortRange {
        &mut self.port_range
    }
}
