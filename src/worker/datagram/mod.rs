//! Datagrams: flows between clients, tunnels and servers.
//!
//! [`datagrams`] reads and writes sockets, [`coalesce`] says when, [`flow`] is the table,
//! [`lifecycle`] and [`servers`] begin and end flows; [`association_io`] and [`association`] are those of
//! SOCKS, where each datagram names its destination.

pub(in crate::worker) mod association;
pub(in crate::worker) mod association_io;
pub(in crate::worker) mod coalesce;
pub(in crate::worker) mod datagrams;
pub(in crate::worker) mod flow;
pub(in crate::worker) mod lifecycle;
pub(in crate::worker) mod servers;
