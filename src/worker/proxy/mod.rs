//! Proxy sessions: exits that ask their client for the destination. The plane owns expected
//! connections and sessions whose server is being replaced; a session itself is part of its
//! connection's stage.
//!
//! [`conversation`] runs the protocols of [`crate::proxy_proto`], [`upstream`] connects to servers,
//! [`related`] and [`expected_conn`] handle the additional connections of a session (FTP data,
//! SOCKS `BIND` and UDP).

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

/// State of the proxy plane.
pub(in crate::worker) struct Proxies {
    beginnings: Beginnings,
    /// Sessions that wait until the socket of their previous server is idle.
    closing: Vec<Key>,
    /// Listeners of sessions.
    expected_conns: Table<ExpectedConn>,
}

impl Proxies {
    pub(in crate::worker) fn new(plan: &Plan) -> Proxies {
        let expected_conns = Table::new(PORTS_ON_REQUEST_MAX);
        Proxies { beginnings: Beginnings::new(plan), closing: Vec::new(), expected_conns }
    }

    /// Number of listeners of sessions.
    pub(in crate::worker) fn expected_count(&self) -> usize {
        self.expected_conns.len()
    }
}
