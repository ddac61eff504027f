//! Tools of the benches: baseline relays, our own, loads, statistics and tables.

pub(crate) mod epoll_relay;
pub(crate) mod load;
pub(crate) mod ours;
pub(crate) mod requests;
pub(crate) mod stats;
pub(crate) mod table;
pub(crate) mod tokio_uring_relay;
pub(crate) mod way;
