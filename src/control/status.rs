//! What `status` and `streams` tell, as it is in JSON. Names of fields stay; others may be added.

use serde::{Deserialize, Serialize};

/// The answer to `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The process itself.
    pub process: ProcessStatus,
    /// Each tunnel. Peers that have not completed their hello are in it, and not `up`.
    pub tunnels: Vec<TunnelRow>,
    /// What listens.
    pub entrances: Vec<EntranceRow>,
    /// How the connector gets its next connection. `None`: peers connect here, or there is no tunnel.
    pub connector: Option<ConnectorStatus>,
    /// Since the start of the process.
    pub totals: Totals,
}

/// The process itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Its number.
    pub pid: u32,
    /// The program's version.
    pub version: String,
    /// How long it has run.
    pub uptime_secs: u64,
    /// `io_uring` or `epoll`.
    pub engine: String,
    /// It takes no new clients, and ends when its streams have.
    pub draining: bool,
}

/// A tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelRow {
    /// Its number, as in the log.
    pub tunnel: u32,
    /// Its hello is done.
    pub up: bool,
    /// Where the peer is.
    pub peer: String,
    /// The peer's name, by its key.
    pub name: Option<String>,
    /// The fingerprint of the peer's key. `None`: the tunnel is not encrypted.
    pub peer_key: Option<String>,
    /// What it is encrypted by.
    pub cipher: Option<String>,
    /// `1` or `0.3`.
    pub protocol: Option<String>,
    /// How long there has been the tunnel.
    pub age_secs: u64,
    /// The last round trip that was measured.
    pub rtt_micros: Option<u64>,
    /// Payload from the peer.
    pub bytes_in: u64,
    /// Payload to the peer.
    pub bytes_out: u64,
    /// Streams and flows in it now.
    pub streams: u64,
    /// How often it went on over another connection.
    pub resumptions: u32,
    /// Sent and kept, since the peer has not read it yet.
    pub retained_bytes: u64,
    /// How long it has had no connection. `None`: it has one.
    pub suspended_secs: Option<u64>,
}

/// Something that listens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntranceRow {
    /// Where. `/udp` is behind a port for datagrams.
    pub address: String,
    /// `entrance`, `receptor`, `relay`, or `entrance at peer`.
    pub kind: String,
    /// Whoever connects is accepted.
    pub open: bool,
    /// Why it is not.
    pub why: Option<String>,
}

/// How the connector gets its connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectorStatus {
    /// Where it leads.
    pub target: String,
    /// `up`, `connecting`, `waiting` (for the next attempt), `leaving` or `over`.
    pub state: String,
    /// When the next attempt is, from now.
    pub next_attempt_millis: Option<u64>,
    /// Why the last attempt failed, or the last tunnel ended.
    pub last_failure: Option<String>,
}

/// Since the start of the process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Connections of streams now.
    pub streams: u64,
    /// Flows of datagrams now.
    pub flows: u64,
    /// Pairs of a plain relay now.
    pub pairs: u64,
    /// Streams and flows of tunnels since the start.
    pub streams_ever: u64,
    /// Payload from peers.
    pub bytes_in: u64,
    /// Payload to peers.
    pub bytes_out: u64,
    /// From clients to servers of a plain relay.
    pub relayed_up_bytes: u64,
    /// From servers to clients of a plain relay.
    pub relayed_down_bytes: u64,
    /// Spliced from sockets of clients and servers.
    pub spliced_from_sockets_bytes: u64,
    /// Spliced to sockets of clients and servers.
    pub spliced_to_sockets_bytes: u64,
    /// Copied within the process, from one buffer to another.
    pub copied_bytes: u64,
    /// How often splicing was given up for copying.
    pub splice_fallbacks: u64,
    /// Tunnels that went on over another connection.
    pub resumptions: u64,
    /// Datagrams received from sockets.
    pub datagrams_in: u64,
    /// Datagrams sent to sockets.
    pub datagrams_out: u64,
    /// Datagrams that were dropped.
    pub datagrams_dropped: u64,
    /// Who was refused or given up.
    pub refusals: Refusals,
}

/// Who was refused or given up, by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    /// Connections to a receptor that ended before their first byte.
    pub silent_peers: u64,
    /// Connections to a forwarded port from another client than the expected one.
    pub unexpected_clients: u64,
    /// Streams that were reset since the buffers for slow readers were used up.
    pub buffers_used_up: u64,
    /// Flows that made room for newer ones.
    pub flows_evicted: u64,
}

/// A stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRow {
    /// Its number, as in the log.
    pub stream: u32,
    /// The number of its tunnel. `None`: it waits for one.
    pub tunnel: Option<u32>,
    /// The client, here or at the peer.
    pub client: String,
    /// Of a client here: where it came in.
    pub entrance: Option<String>,
    /// Of a client of the peer: where it leads.
    pub exit: Option<String>,
    /// What it is at: `open`, `connecting`, `asked`, `waiting`, `closing`.
    pub state: String,
    /// How long there has been the stream.
    pub age_secs: u64,
    /// Payload from the peer. `None`: the stream has ended, and its connection has not.
    pub bytes_in: Option<u64>,
    /// Payload to the peer.
    pub bytes_out: Option<u64>,
}
