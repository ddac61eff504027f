//! Remote forwards: ports that a peer asks for. [`port_range`] says where, [`asked`] holds them,
//! [`ports`] opens them, [`callback`] leads a server's connection to the client that waits for it.

pub(in crate::worker) mod asked;
pub(in crate::worker) mod callback;
pub(in crate::worker) mod port_range;
pub(in crate::worker) mod ports;
