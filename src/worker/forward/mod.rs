//! Remote forwards: ports that a peer requests for a client of this end (FTP's passive mode, SOCKS
//! UDP). The plane owns the table of requested ports.
//!
//! [`asked`] is the table, [`ports`] opens and serves ports, [`callback`] connects a server to a client of this end.

mod asked;
mod callback;
mod ports;

use self::asked::AskedPorts;
use crate::session::Moment;
use crate::worker::table::Key;

/// State of remote forwards.
pub(in crate::worker) struct Forwards {
    asked: AskedPorts,
}

impl Forwards {
    pub(in crate::worker) fn new() -> Forwards {
        Forwards { asked: AskedPorts::new() }
    }

    /// The earliest deadline of a listener.
    pub(in crate::worker) fn next_timeout(&self) -> Option<Moment> {
        self.asked.next_due().map(|(_, until)| until)
    }

    /// The client that a port is open for.
    pub(in crate::worker) fn owner_of(&self, port: Key) -> Option<Key> {
        Some(self.asked.get(port)?.owner)
    }
}
