//! Remote forwards: ports that a peer requests for a client of this end (FTP's passive mode, SOCKS
//! UDP). The plane owns the table of requested ports and the range they are opened in.
//!
//! [`asked`] is the table, [`ports`] opens and serves ports, [`port_range`] selects port numbers,
//! [`callback`] connects a server to a client of this end.

pub(in crate::worker) mod asked;
pub(in crate::worker) mod callback;
pub(in crate::worker) mod port_range;
pub(in crate::worker) mod ports;

use self::asked::AskedPorts;
use self::port_range::PortRange;
use crate::cli::plan::Plan;
use crate::session::Moment;
use crate::worker::table::Key;

/// State of remote forwards.
pub(in crate::worker) struct Forwards {
    asked: AskedPorts,
    port_range: PortRange,
}

impl Forwards {
    pub(in crate::worker) fn new(plan: &Plan) -> Forwards {
        let port_range = PortRange::new(plan.soxconf.request_ports.clone());
        Forwards { asked: AskedPorts::new(), port_range }
    }

    /// The earliest deadline of a listener.
    pub(in crate::worker) fn next_timeout(&self) -> Option<Moment> {
        self.asked.next_due().map(|(_, until)| until)
    }

    /// The client that a port is open for.
    pub(in crate::worker) fn owner_of(&self, port: Key) -> Option<Key> {
        Some(self.asked.get(port)?.owner)
    }

    /// The port range, which proxy sessions share.
    pub(in crate::worker) fn port_range(&mut self) -> &mut PortRange {
        &mut self.port_range
    }
}
