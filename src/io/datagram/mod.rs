//! Datagrams at the kernel: taken from a socket many at a time, and handed to one in runs.
//!
//! A run is datagrams of equal size, one behind the other, of which the last may be shorter. The
//! kernel gives runs (`UDP_GRO`) and takes them (`UDP_SEGMENT`), each for about the price of one
//! datagram. Calls are made at once, on sockets that the driver found ready.

mod address;
mod inbox;
mod outbox;
mod socket;

pub(crate) use inbox::{Inbox, Received};
pub(crate) use outbox::{Outbox, SegmentLimit, Sent, Towards};
#[cfg(test)]
pub(crate) use socket::joins;
pub(crate) use socket::{adopt, bind, bind_v6, connected, free_port, kept_open, unconnected};

/// The control message of both: a datagram's size within a run. In Linux's `udp.h`.
const UDP_SEGMENT: libc::c_int = 103;
/// See [`UDP_SEGMENT`].
const UDP_GRO: libc::c_int = 104;
