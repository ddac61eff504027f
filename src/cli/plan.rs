//! The plan: what the command line means, resolved and validated. Nothing behind this module
//! parses text of the user's.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

pub use super::authorizer::{Authorizer, User};
use super::hostlist::{ClientName, HostList};
pub use crate::wire::Transport;

/// Everything one process was told to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How the persistent connection comes about, if there is one.
    pub link: LinkPlan,
    /// Where streams begin at this end, in the order given.
    pub entrances: Vec<Entrance>,
    /// The same at Unix sockets.
    pub unix_entrances: Vec<UnixEntrance>,
    /// Where streams from the peer leave, in the order given: the first that matches is taken.
    pub exits: Vec<Exit>,
    /// `RELIABLE=`: who may connect here, and whose streams of the peer are taken. `None` is
    /// everybody.
    pub reliable: Option<HostList>,
    /// How many streams there may be at once.
    pub maxima: Maxima,
    /// What proxies may reach. Without any: all but what is this machine's or its network's own.
    pub permits: Vec<Permit>,
    /// Whom proxies ask for: a proxy that none of these names asks nobody.
    pub authorizers: Vec<Authorizer>,
    /// All times.
    pub timeouts: Timeouts,
    /// What `SOXCONF=` says of the protocol.
    pub soxconf: SoxConf,
    /// Things accepted but without effect, one sentence each, to be logged at start.
    pub notices: Vec<String>,
}

impl Plan {
    /// The times of a stream, by the place of its exit among the [`Plan::exits`] if it has one here.
    pub fn timeouts_of(&self, exit: Option<usize>) -> &Timeouts {
        let exit = exit.and_then(|place| self.exits.get(place));
        exit.and_then(|exit| exit.options.timeouts.as_ref()).unwrap_or(&self.timeouts)
    }

    /// What `PERMIT=` says of a client of something that is no proxy, by its protocol word: one of
    /// the source lists that are about it lets the client in, if there are any. Where it leads its
    /// operator has said, so the lists of destinations are not asked. `None`: that depends on the
    /// client's name.
    pub fn permits_client(
        &self,
        protocol: &str,
        caller: &Caller,
        name: ClientName<'_>,
    ) -> Option<bool> {
        let about = self.permits.iter().filter(|permit| permit.is_of_word(protocol));
        let mut verdicts = about.map(|permit| permit.sources.verdict(caller, name)).peekable();
        if verdicts.peek().is_none() {
            return Some(true);
        }
        // The first yes decides, else whatever a name could still change.
        let either = |so_far: Option<bool>, verdict: Option<bool>| match (so_far, verdict) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (None, _) | (_, None) => None,
            _ => Some(false),
        };
        verdicts.fold(Some(false), either)
    }
}

/// How the persistent connection comes about, or that there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkPlan {
    /// Receptor: accept any number of persistent connections on these addresses.
    Listen(Vec<Bind>),
    /// Connector: connect there, keep it up, reconnect for ever.
    Connect(Target),
    /// Devices or files of this machine: opened, and opened again when the peer went away.
    Device(Device),
    /// `proc@`: run by `/bin/sh -c`, again when it ends; its descriptors 0 and 1 are a socket to us.
    Command(String),
    /// `-Fsockmux` without `-A`, `-C`, `-I`, `-O` and `-X`: our own descriptors 0 and 1. The process
    /// ends when the persistent connection does.
    Stdio,
    /// Plain relay, without a persistent connection: whoever connects to these addresses is joined
    /// with the server. The plan then has no entrances and no exits.
    Relay {
        /// Where clients connect.
        binds: Vec<Bind>,
        /// Where each of them is connected to: [`Way::Server`] or [`Way::SamePort`].
        server: Way,
        /// What they speak, at both sides.
        transport: Transport,
    },
    /// Proxies without a persistent connection: the streams of the plan's entrances leave by its
    /// exits, in this very process.
    Loopback,
}

/// What of this machine carries the persistent connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// `commin@` and `commout@`: one for each direction, as two FIFOs are.
    Pair {
        /// Where the peer's bytes come from.
        input: PathBuf,
        /// Where ours go to.
        output: PathBuf,
    },
    /// `comm@`: one both ways, as a serial line is.
    Both {
        /// The device.
        path: PathBuf,
        /// How the line is run, if it is a serial one.
        line: LineOptions,
    },
}

/// What is said of a serial line behind `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineOptions {
    /// `baud`: bits a second.
    pub baud: u32,
    /// `flow`: how a receiver that is full says so.
    pub flow: FlowControl,
    /// `parity`: the bit behind the data bits of a character.
    pub parity: Parity,
    /// `bits`: data bits of a character.
    pub data_bits: u8,
    /// `stop`: stop bits of a character, 1 or 2.
    pub stop_bits: u8,
    /// `check`: whether frames are checked and sent again.
    pub checked: Checked,
    /// Whether any option was given.
    pub given: bool,
}

impl Default for LineOptions {
    fn default() -> Self {
        LineOptions {
            baud: 115_200,
            flow: FlowControl::None,
            parity: Parity::None,
            data_bits: 8,
            stop_bits: 1,
            checked: Checked::Auto,
            given: false,
        }
    }
}

/// How a receiver at a serial line says that it is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FlowControl {
    /// Not at all.
    #[default]
    None,
    /// By the wires RTS and CTS.
    RtsCts,
    /// By the characters XOFF (0x13) and XON (0x11), which no data may then contain.
    XonXoff,
}

/// The parity bit of a character on a serial line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Parity {
    /// There is none.
    #[default]
    None,
    /// It makes the number of ones even.
    Even,
    /// It makes the number of ones odd.
    Odd,
}

/// Whether what passes a serial line is checked, and sent again where it was spoiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checked {
    /// Between two of ours.
    #[default]
    Auto,
    /// Never.
    Never,
}

/// A local address to listen on. `host` is `None` for every address of the machine (IPv6 and
/// IPv4), else a literal address or a name looked up once at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Literal address or name; `None` is every address.
    pub host: Option<String>,
    /// Port; 0 lets the kernel choose (the log names it).
    pub port: u16,
}

/// A remote address: looked up at each connect, so that a changed name is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Literal address (no brackets) or name.
    pub host: String,
    /// Port, never 0.
    pub port: u16,
}

/// `host:port`, an IPv6 address in brackets.
impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&super::address::show(Some(&self.host), self.port))
    }
}

/// One port where streams begin at this end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrance {
    /// Where to listen.
    pub bind: Bind,
    /// What is accepted there.
    pub transport: Transport,
    /// `?proxy=accept`: each client begins with a PROXY header, which says whose the stream is.
    pub proxy_header: bool,
}

/// A Unix socket where streams begin at this end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixEntrance {
    /// Where it is made; at most 107 bytes.
    pub path: PathBuf,
    /// Who may connect: permission bits of the file.
    pub mode: u32,
    /// As of an [`Entrance`].
    pub proxy_header: bool,
}

/// One way out for streams that come from the peer.
#[derive(Debug, Clone)]
pub struct Exit {
    /// Protocol word as given (`tcprelay`, `telnet`, `http`, ...): for the log; the port is
    /// already filled in.
    pub protocol: String,
    /// Where it leads.
    pub way: Way,
    /// `?proxy=`: the server is told whose the stream is before its first byte.
    pub proxy_header: Option<ProxyHeader>,
    /// Who may use it: by client address and remote entrance port. `None` is everybody.
    pub clients: Option<HostList>,
    /// What it has for itself.
    pub options: ExitOptions,
    /// The parameter as written, for messages.
    pub source: String,
}

/// `,-in(option list)`: what holds for one exit alone.
#[derive(Debug, Clone, Default)]
pub struct ExitOptions {
    /// What this proxy may reach, in place of the process's list. Without any, that one holds.
    pub permits: Vec<Permit>,
    /// Whose streams are taken, of those whom the process's list lets in. `None` is everybody.
    pub reliable: Option<HostList>,
    /// Whom this proxy lets in, in place of the process's lists. Without any, those hold.
    pub authorizers: Vec<Authorizer>,
    /// How many streams there may be at once through this exit, besides the process's numbers.
    pub maxima: Maxima,
    /// All times as they are for its streams, where some are not the process's. Only those to
    /// connect, to ask, to linger and of silence are an exit's.
    pub timeouts: Option<Timeouts>,
}

impl Exit {
    /// What it carries. Only a server may be reached by UDP.
    pub fn transport(&self) -> Transport {
        match self.way {
            Way::Server { transport, .. } | Way::SamePort { transport, .. } => transport,
            _ => Transport::Tcp,
        }
    }

    /// The server that it leads to, if it leads to one by name.
    pub fn target(&self) -> Option<&Target> {
        match &self.way {
            Way::Server { target, .. } | Way::Ftp(target) => Some(target),
            _ => None,
        }
    }
}

/// Where an exit leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// A server.
    Server {
        /// Where it listens.
        target: Target,
        /// TCP or UDP towards it.
        transport: Transport,
    },
    /// A server at the port of the entrance that the client came in by, or at one that lies so far
    /// from it.
    SamePort {
        /// Literal address (no brackets) or name.
        host: String,
        /// Added to the entrance's port.
        offset: i32,
        /// TCP or UDP towards it.
        transport: Transport,
    },
    /// A Unix socket (stream).
    Unix(PathBuf),
    /// Nowhere by itself: it asks its client.
    Proxy(Proxy),
    /// An FTP server, with its data connections.
    Ftp(Target),
    /// Each stream is given to a command on its descriptors 0 and 1.
    Command(String),
}

impl Transport {
    /// The word of what carries it and adds nothing.
    pub fn relay_word(self) -> &'static str {
        match self {
            Transport::Tcp => "tcprelay",
            Transport::Udp => "udprelay",
        }
    }
}

/// How an exit asks its client for the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxy {
    /// SOCKS 4, 4a and 5.
    Socks,
    /// SOCKS 4 and 4a.
    Socks4,
    /// SOCKS 5.
    Socks5,
    /// HTTP: CONNECT, and requests for `http://`.
    Http,
    /// Telnet: a prompt for a host.
    Telnet,
    /// FTP: the host in the user's name.
    Ftp,
}

impl Proxy {
    /// By its protocol word, in lower case.
    pub fn of_word(word: &str) -> Option<Proxy> {
        Some(match word {
            "socks" => Proxy::Socks,
            "socks4" => Proxy::Socks4,
            "socks5" => Proxy::Socks5,
            "http" => Proxy::Http,
            "telnet" => Proxy::Telnet,
            "ftp" => Proxy::Ftp,
            _ => return None,
        })
    }

    /// The protocol word.
    pub fn word(self) -> &'static str {
        match self {
            Proxy::Socks => "socks",
            Proxy::Socks4 => "socks4",
            Proxy::Socks5 => "socks5",
            Proxy::Http => "http",
            Proxy::Telnet => "telnet",
            Proxy::Ftp => "ftp",
        }
    }

    /// Whether what is said of one is about the other too: `socks` is both of its versions.
    pub fn meets(self, other: Proxy) -> bool {
        use Proxy::{Socks, Socks4, Socks5};
        self == other
            || matches!((self, other), (Socks, Socks4 | Socks5) | (Socks4 | Socks5, Socks))
    }
}

/// `PERMIT=`: something that proxies may reach, and who may use what leads to one server.
#[derive(Debug, Clone)]
pub struct Permit {
    /// Of these proxies, and exits by their words; `None` is all.
    pub protocols: Option<Vec<Proxy>>,
    /// Other words of exits and of plain relays, in lower case.
    pub relays: Vec<String>,
    /// Where to: the address, and by `-Pport` the port. Asked for proxies only.
    pub destinations: HostList,
    /// For whom: by client address and remote entrance port.
    pub sources: HostList,
    /// The parameter as written, for messages.
    pub source: String,
}

impl Permit {
    /// Whether it is about this proxy.
    pub fn is_of(&self, proxy: Proxy) -> bool {
        self.protocols.as_ref().is_none_or(|list| list.iter().any(|of| of.meets(proxy)))
    }

    /// Whether it is about what has this protocol word.
    pub fn is_of_word(&self, word: &str) -> bool {
        match Proxy::of_word(word) {
            Some(proxy) => self.is_of(proxy),
            None => self.protocols.is_none() || self.relays.iter().any(|relay| relay == word),
        }
    }
}

/// `?proxy=`: the version of the PROXY header that a server is sent before its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `v1`: a line of text.
    V1,
    /// `v2`: binary.
    V2,
}

/// Times of `TIMEOUT=what:seconds`. `None` is "never" (0 on the command line).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// `acc`: longest wait for the peer's hello on a new persistent connection. The original
    /// drops a silent peer at 15 s.
    pub hello: Option<Duration>,
    /// `con`: longest wait for one TCP connect (all addresses of a name together).
    pub connect: Option<Duration>,
    /// `lin`: how long CLOSE is held back after end of data from one side while the other side
    /// may still answer (0.3 cannot say half-close).
    pub linger: Option<Duration>,
    /// `io`: a stream without data for this long either way is reset. Only when given.
    pub io: Option<Duration>,
    /// `ask` (ours): how long a client may take to say where it wants to go or whose it is.
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
    /// What the system gives each socket.
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
        }
    }
}

/// Who asks for an exit: the client's address (if the peer said one that can be read) and the
/// remote entrance port that it came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The client's address.
    pub client: Option<IpAddr>,
    /// The port of the entrance at the peer.
    pub entrance_port: Option<u16>,
}
