//! What the benches measure with: baseline relays, load and statistics.

pub(crate) mod epoll_relay;
pub(crate) mod requests;
pub(crate) mod stats;
pub(crate) mod tokio_uring_relay;
pub(crate) mod way;
