//! Proxy sessions: exits whose client is asked where to go.
//!
//! [`conversation`] runs the protocols of [`crate::proxy_proto`], [`upstream`] reaches the servers,
//! [`related`] and [`expected_conn`] have the connections that come beside the client's own.

pub(in crate::worker) mod conversation;
pub(in crate::worker) mod expected_conn;
pub(in crate::worker) mod related;
pub(in crate::worker) mod session;
pub(in crate::worker) mod upstream;

use self::expected_conn::ExpectedConn;
use self::session::Beginnings;
use crate::cli::plan::Plan;
use crate::limits::PORTS_ON_REQUEST_MAX;
use crate::worker::table::{Key, Table};

/// Proxy sessions, beside what their streams hold.
pub(in crate::worker) struct Proxies {
    beginnings: Beginnings,
    /// Sessions whose last server is about to be gone.
    closing: Vec<Key>,
    /// Ports that sessions listen at.
    expected_conns: Table<ExpectedConn>,
}

impl Proxies {
    pub(in crate::worker) fn new(plan: &Plan) -> Proxies {
        let expected_conns = Table::new(PORTS_ON_REQUEST_MAX);
        Proxies { beginnings: Beginnings::new(plan), closing: Vec::new(), expected_conns }
    }

    /// Ports that sessions listen at.
    pub(in crate::worker) fn expected_count(&self) -> usize {
        self.expected_conns.len()
    }
}
