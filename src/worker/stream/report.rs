//! What operators are told of streams by the control socket, and what they end.

use std::io;
use std::net::SocketAddr;

use crate::control::page::Next;
use crate::control::status::StreamRow;
use crate::io::driver::Driver;
use crate::limits::{CONTROL_FIND_SLOTS, CONTROL_PAGE_ROWS};
use crate::session::{Moment, StreamFacts};
use crate::worker::context::Cx;
use crate::worker::stream::Streams;
use crate::worker::stream::conn::{Conn, Stage};
use crate::worker::stream::tunnel::Tunnel;
use crate::worker::table::Key;

impl Streams {
    /// Some streams, from this slot on.
    pub(in crate::worker) fn rows(&self, now: Moment, from: usize) -> (Vec<StreamRow>, Next) {
        let (conns, next) = self.conns.table.page(from, CONTROL_PAGE_ROWS);
        (conns.map(|(key, conn)| self.row(key, conn, now)).collect(), next)
    }

    fn row(&self, key: Key, conn: &Conn, now: Moment) -> StreamRow {
        let session = self.tunnels.get(conn.tunnel).map(Tunnel::session);
        let facts = session.and_then(|session| session.facts_of(conn.stream?));
        StreamRow {
            stream: key.number(),
            tunnel: session.map(|_| conn.tunnel.number()),
            client: conn.client.to_string(),
            entrance: facts
                .filter(|facts| facts.is_opener)
                .map(|facts| facts.addresses.1.to_string()),
            exit: exit(conn, facts),
            state: state(&conn.stage).to_owned(),
            age_secs: now.0.saturating_sub(conn.began.0) / 1_000_000,
            bytes_in: facts.map(|facts| facts.payload_bytes_in),
            bytes_out: facts.map(|facts| facts.payload_bytes_out),
        }
    }

    /// The operator ends a stream, by its number, if it is in one of some slots from this one on. Returns
    /// whether it was.
    pub(in crate::worker) fn kill_stream<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        number: u32,
        from: usize,
    ) -> (bool, Next) {
        let (mut conns, next) = self.conns.table.page(from, CONTROL_FIND_SLOTS);
        let found = conns.find(|(key, _)| key.number() == number).map(|(key, _)| key);
        drop(conns);
        let Some(key) = found else { return (false, next) };
        self.conn_failed(cx, key, "ended by the operator", &io::Error::other("kill"));
        (true, None)
    }
}

/// Where a stream of the peer leads: to the exit, and to the server that was reached by it.
fn exit(conn: &Conn, facts: Option<StreamFacts>) -> Option<String> {
    let name = conn.exit.as_ref()?.plan.way.name();
    let server = facts.filter(|facts| !facts.is_opener).map(|facts| facts.addresses.0);
    let server = server.filter(|server: &SocketAddr| !server.ip().is_unspecified());
    Some(match server.map(|server| server.to_string()).filter(|server| *server != name) {
        Some(server) => format!("{name} ({server})"),
        None => name,
    })
}

fn state(stage: &Stage) -> &'static str {
    match stage {
        Stage::Waiting => "waiting",
        Stage::ResolvingName | Stage::Dialing(_) | Stage::ConnectingUnix(..) => "connecting",
        Stage::ProxyHandshake(_) => "asked",
        Stage::Open => "open",
        Stage::Flushing { .. } | Stage::Settling | Stage::Lingering | Stage::Draining => "closing",
    }
}
