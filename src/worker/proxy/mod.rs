//! Proxy sessions: exits whose client is asked where to go.
//!
//! [`conversation`] runs the protocols of [`crate::proxy_proto`], [`upstream`] reaches the servers,
//! [`related`] and [`expected_conn`] have the connections that come beside the client's own.

pub(in crate::worker) mod conversation;
pub(in crate::worker) mod expected_conn;
pub(in crate::worker) mod related;
pub(in crate::worker) mod session;
pub(in crate::worker) mod upstream;
