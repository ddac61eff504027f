//! Streams: the connection of a client, or to a server, that belongs to one stream of a tunnel.
//!
//! [`conn`] is such a connection. [`read`] and [`write`] move its bytes, [`lifecycle`] does what the
//! session says, [`broken`] delivers what a broken one had sent. [`exits`], [`unix`] and [`exec`] are
//! where the peer's streams leave. [`stalled`] takes pipes and buffers back.

pub(in crate::worker) mod broken;
pub(in crate::worker) mod client;
pub(in crate::worker) mod conn;
pub(in crate::worker) mod exec;
pub(in crate::worker) mod exits;
pub(in crate::worker) mod lifecycle;
pub(in crate::worker) mod payload_queue;
pub(in crate::worker) mod read;
pub(in crate::worker) mod stalled;
pub(in crate::worker) mod unix;
pub(in crate::worker) mod write;
