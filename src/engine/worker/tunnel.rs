//! A persistent connection, as the worker holds it.

use std::net::SocketAddr;

use super::local::Reading;
use super::table::Key;
use crate::engine::driver::Fd;
use crate::session::{Moment, Session};
use crate::wire::Decoder;

/// Where the payload of the frame being read goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    Nowhere,
    Local(Key),
    Urgent(Key),
}

/// One persistent connection with its session.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) fd: Fd,
    pub(super) peer: SocketAddr,
    pub(super) session: Session,
    pub(super) decoder: Decoder,
    pub(super) destination: Destination,
    pub(super) reading: Reading,
    /// A batch is under way.
    pub(super) sending: bool,
    /// In the list of those that may have something to send.
    pub(super) dirty: bool,
    pub(super) began: Moment,
}
