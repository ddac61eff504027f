//! Settings of the plan: times, maxima, and the values of `SOXCONF=`.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Times of `TIMEOUT=what:seconds`. `None` is "never" (0 on the command line).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// `acc`: longest wait for the peer's hello on a new persistent connection. The original
    /// drops a silent peer at 15 s; a receptor of ours, to which anybody may connect, at 5 s.
    pub hello: Option<Duration>,
    /// `con`: longest wait for one TCP connect (all addresses of a name together).
    pub connect: Option<Duration>,
    /// `lin`: how long CLOSE is held back after end of data from one side while the other side
    /// may still answer (0.3 has no half-close).
    pub linger: Option<Duration>,
    /// `io`: a stream without data for this long either way is reset. Only when given.
    pub io: Option<Duration>,
    /// `ask` (not in the original): how long a client of a proxy may take for its request or its user.
    pub ask: Option<Duration>,
    /// `hold` (ours): how long clients wait in the entrance's queue while the tunnel is down
    /// before they are reset.
    pub hold: Option<Duration>,
    /// `keepalive` (ours): silence after which ECHO is sent; the connection is given up after
    /// three times this without a byte.
    pub keepalive: Option<Duration>,
    /// `drain` (ours): how long SIGTERM waits for open streams.
    pub drain: Option<Duration>,
    /// `udp` (ours): a flow of datagrams without any for this long either way is forgotten, and one
    /// without answers looks its server's name up again. The original's is 180 s.
    pub udp: Option<Duration>,
    /// `resume` (ours): how long a tunnel whose connection broke waits for another one. `None`: its streams
    /// are reset at once.
    pub resume: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        let secs = |s| Some(Duration::from_secs(s));
        Timeouts {
            hello: secs(15),
            connect: secs(10),
            linger: secs(30),
            io: None,
            ask: secs(crate::limits::PROXY_ASK_SECS),
            hold: secs(crate::limits::HOLD_SECS),
            keepalive: secs(30),
            drain: secs(crate::limits::DRAIN_SECS),
            udp: secs(180),
            resume: secs(crate::limits::RESUME_SECS),
        }
    }
}

/// `MAXIMA=`: streams at once, UDP flows among them, whichever end they begin at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Maxima {
    /// `conpch`: of one client address. `None` is any number.
    pub per_client: Option<u32>,
    /// `delegated`: of all clients together. The original counts processes, each of which serves
    /// one client. `None` is as many as fit the tables.
    pub together: Option<u32>,
    /// `service`: clients, or persistent connections where no client comes in, that are served before
    /// the process ends; of no exit. `None` is any number.
    pub services: Option<u32>,
}

/// `SOXCONF=`: choices of the wire protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoxConf {
    /// `packsize`: packet size in bytes, header included (128 to 16384).
    pub packet_bytes: u16,
    /// `noconndata` clears it: first data may ride in CONNECT and CONNECTED.
    pub first_data: bool,
    /// `protocol` (ours): the newest that is offered to a peer of our kind; 0 is SockMux 0.3.
    pub newest_protocol: u8,
    /// `congestion` (ours): the congestion control of our own sockets.
    pub congestion: Congestion,
    /// `bulk` (ours): how payload in bulk is moved.
    pub bulk: Bulk,
    /// `udpflows` (ours): flows of datagrams at once, of the process; the one that was silent for
    /// longest makes room for a new one.
    pub udp_flows: usize,
    /// `ports` (ours): where ports on request are opened, and those at which conversations listen.
    /// `None`: the kernel chooses.
    pub request_ports: Option<RangeInclusive<u16>>,
    /// `down` (ours): what entrances do while no tunnel is up.
    pub down: WhileDown,
}

/// What entrances do while no tunnel is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhileDown {
    /// Clients wait in the queue, for `TIMEOUT=hold`.
    #[default]
    Hold,
    /// Clients are accepted and reset.
    Refuse,
    /// Nothing listens, so that the kernel refuses clients.
    Close,
}

/// How payload in bulk is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bulk {
    /// As each stream is best served at the moment.
    #[default]
    Auto,
    /// Through buffers of the process.
    Copy,
    /// From socket to socket by splice(2), as soon as a stream fills a small buffer.
    Splice,
}

/// The congestion control of our own sockets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Congestion {
    /// A plain algorithm on short paths, the system's choice on long ones.
    #[default]
    Auto,
    /// The system's default.
    System,
    /// This one, on every socket.
    Named(String),
}

impl Default for SoxConf {
    fn default() -> Self {
        SoxConf {
            packet_bytes: 16384,
            first_data: true,
            newest_protocol: 1,
            congestion: Congestion::Auto,
            bulk: Bulk::Auto,
            udp_flows: crate::limits::UDP_FLOWS,
            request_ports: None,
            down: WhileDown::default(),
        }
    }
}
