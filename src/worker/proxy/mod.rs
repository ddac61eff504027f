//! Proxy sessions: exits that ask their client for the destination. The plane owns the sessions
//! and their expected connections.
//!
//! [`conversation`] runs the protocols of [`crate::proxy_proto`], [`upstream`] connects to servers,
//! [`related`] and [`expected_conn`] handle the additional connections of a session (FTP data,
//! SOCKS `BIND` and UDP). [`held`] bounds what all of them hold.

mod conversation;
mod expected_conn;
mod held;
mod related;
mod session;
mod upstream;

use std::collections::HashMap;

use self::expected_conn::ExpectedConn;
use self::held::HeldBytes;
use self::session::ProxySession;
use crate::limits::PORTS_ON_REQUEST_MAX;
use crate::policy::wrong_passwords::WrongPasswords;
use crate::worker::table::{Key, Table};

/// State of the proxy plane.
pub(in crate::worker) struct Proxies {
    /// By the connection of their stream.
    sessions: HashMap<Key, ProxySession>,
    /// Sessions that wait until the socket of their previous server is idle.
    closing: Vec<Key>,
    held: HeldBytes,
    /// Listeners of sessions.
    expected_conns: Table<ExpectedConn>,
    /// Clients that may be guessing passwords.
    wrong_passwords: WrongPasswords,
}

impl Proxies {
    /// `held_max`: bytes that all sessions together may hold.
    pub(in crate::worker) fn new(held_max: usize) -> Proxies {
        let expected_conns = Table::new(PORTS_ON_REQUEST_MAX);
        let (sessions, closing) = (HashMap::new(), Vec::new());
        let wrong_passwords = WrongPasswords::default();
        let held = HeldBytes::new(held_max);
        Proxies { sessions, closing, held, expected_conns, wrong_passwords }
    }

    /// Number of listeners of sessions.
    pub(in crate::worker) fn expected_count(&self) -> usize {
        self.expected_conns.len()
    }
}
