//! The plan: the command line, resolved and validated. No code behind this module parses text of the
//! user.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

mod access;
mod control;
mod encryption;
mod link;
mod peer;
mod privileges;
mod settings;

pub use super::access_log::AccessLogPlan;
pub use super::authorizer::{Authorizer, User};
pub use super::fingerprint::Fingerprint;
use super::hostlist::{ClientName, HostList};
use super::portlist::suffix;
pub use crate::wire::Transport;
pub use control::Control;
pub use encryption::{Authority, Encryption, Proof, TlsSide};
pub use link::{Checked, Device, FlowControl, LineOptions, LinkPlan, Parity};
pub use peer::{KnownPeer, PeerOptions, PortRanges};
pub use privileges::{Privileges, RunAs, Sandbox};
pub use settings::{Bulk, Congestion, Maxima, SoxConf, Timeouts, WhileDown};

/// Settings of one process.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The persistent connection, if there is one.
    pub link: LinkPlan,
    /// TLS on it. `None`: everything is sent in clear.
    pub encryption: Option<Encryption>,
    /// Entrances, in the order given.
    pub entrances: Vec<Entrance>,
    /// Entrances at Unix sockets.
    pub unix_entrances: Vec<UnixEntrance>,
    /// `?at=peer`: where the peer is asked to open entrances, for clients of the exits here. An
    /// unspecified IPv6 address stands for every address of both families.
    pub entrances_at_peer: Vec<(Transport, SocketAddr)>,
    /// Exits for streams of the peer, in the order given: the first that matches is used.
    pub exits: Vec<Exit>,
    /// `RELIABLE=`: the clients and peers that may connect here, and whose streams are accepted.
    /// `None`: [`Plan::lets_in`] and [`Plan::takes_stream_of`] say what holds without it.
    pub reliable: Option<HostList>,
    /// Limits on concurrent streams.
    pub maxima: Maxima,
    /// Destinations that proxies may reach. If empty: all but this machine's and its network's own.
    pub permits: Vec<Permit>,
    /// Users of proxies. A proxy that none of these names has no authentication.
    pub authorizers: Vec<Authorizer>,
    /// All timeouts.
    pub timeouts: Timeouts,
    /// Protocol settings of `SOXCONF=`.
    pub soxconf: SoxConf,
    /// What the process gives up once its ports are open.
    pub privileges: Privileges,
    /// The Unix socket by which this process takes over from another one, and a later one from it.
    pub takeover: Option<PathBuf>,
    /// A line for each stream at its end.
    pub access_log: Option<AccessLogPlan>,
    /// Where operators ask the process.
    pub control: Control,
    /// Things accepted but without effect, one sentence each, to be logged at start.
    pub notices: Vec<String>,
}

impl Plan {
    /// The timeouts of an exit's streams.
    pub fn timeouts_of<'a>(&'a self, exit: &'a Exit) -> &'a Timeouts {
        exit.options.timeouts.as_ref().unwrap_or(&self.timeouts)
    }

    /// Whether `PERMIT=` admits a client of an exit that is no proxy, by its protocol word: one of
    /// the source lists that apply must admit the client, if there are any. Its destination is
    /// given by the operator, so the lists of destinations are not checked. `None`: the decision
    /// depends on the client's name.
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
        // The first list that admits the client decides, otherwise any that still depends on the
        // name.
        let either = |so_far: Option<bool>, verdict: Option<bool>| match (so_far, verdict) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (None, _) | (_, None) => None,
            _ => Some(false),
        };
        verdicts.fold(Some(false), either)
    }
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

/// A remote address, resolved at each connect, so that changes of the name take effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Literal address (no brackets) or name.
    pub host: String,
    /// Port, never 0.
    pub port: u16,
}

/// `host:port`, an IPv6 address in brackets.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::address::show(Some(&self.host), self.port))
    }
}

/// A port for clients at this end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrance {
    /// Where to listen.
    pub bind: Bind,
    /// The transport.
    pub transport: Transport,
    /// `?proxy=accept`: each client begins with a PROXY header, which identifies the client.
    pub proxy_header: bool,
    /// `?peer=NAME`: the peers that its clients go to, by their names. If empty, any.
    pub peers: Vec<String>,
}

/// A Unix socket for clients at this end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixEntrance {
    /// Its path; at most 107 bytes.
    pub path: PathBuf,
    /// Permission bits of the file, which decide on access.
    pub mode: u32,
    /// As of an [`Entrance`].
    pub proxy_header: bool,
    /// As of an [`Entrance`].
    pub peers: Vec<String>,
}

/// A destination for streams of the peer.
#[derive(Debug, Clone)]
pub struct Exit {
    /// Protocol word as given (`tcprelay`, `telnet`, `http`, ...), for the log; its port is already
    /// filled in.
    pub protocol: String,
    /// The kind of destination.
    pub way: ExitKind,
    /// What it is called in `exits=` of a peer: [`ExitKind::name`].
    pub name: String,
    /// `?proxy=`: a PROXY header identifies the client to the server before the first byte.
    pub proxy_header: Option<ProxyHeader>,
    /// Admitted clients, by address and remote entrance port. `None` admits all.
    pub clients: Option<HostList>,
    /// Settings of this exit alone.
    pub options: ExitOptions,
    /// The parameter as written, for messages.
    pub source: String,
}

/// `,-in(option list)`: settings of one exit.
#[derive(Debug, Clone, Default)]
pub struct ExitOptions {
    /// The peers whose streams may leave by it, by their names; behind `-in:-:`, not in the option
    /// list. If empty, those of every peer.
    pub peers: Vec<String>,
    /// Destinations of this proxy, in place of the process's list. If empty, the process's list
    /// applies.
    pub permits: Vec<Permit>,
    /// Admitted clients, among those that the process's list admits. `None` admits all.
    pub reliable: Option<HostList>,
    /// Users of this proxy, in place of the process's lists. If empty, those apply.
    pub authorizers: Vec<Authorizer>,
    /// Limits on concurrent streams through this exit, in addition to the process's.
    pub maxima: Maxima,
    /// All timeouts of its streams, if some differ from the process's. Only those for connecting,
    /// requests, lingering and silence can differ.
    pub timeouts: Option<Timeouts>,
}

impl AsRef<Exit> for Exit {
    fn as_ref(&self) -> &Exit {
        self
    }
}

impl Exit {
    /// The transport towards the server. Only a server may be reached by UDP.
    pub fn transport(&self) -> Transport {
        match self.way {
            ExitKind::Server { transport, .. } | ExitKind::SamePort { transport, .. } => transport,
            _ => Transport::Tcp,
        }
    }

    /// Whether streams of the peer with this name may leave by it.
    pub fn is_for_peer(&self, name: Option<&str>) -> bool {
        let peers = &self.options.peers;
        peers.is_empty() || name.is_some_and(|name| peers.iter().any(|peer| peer == name))
    }

    /// The server, if the exit leads to one by name.
    pub fn target(&self) -> Option<&Target> {
        match &self.way {
            ExitKind::Server { target, .. } | ExitKind::Ftp(target) => Some(target),
            _ => None,
        }
    }
}

/// Kinds of destinations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitKind {
    /// A server.
    Server {
        /// Where it listens.
        target: Target,
        /// TCP or UDP towards it.
        transport: Transport,
    },
    /// A server at the port of the client's entrance, plus an offset.
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
    /// A proxy: the client names the destination.
    Proxy(Proxy),
    /// An FTP server, with its data connections.
    Ftp(Target),
    /// A command for each stream, with the stream as its descriptors 0 and 1.
    Command(String),
}

impl ExitKind {
    /// What exits of this kind to this place are called in `exits=` of a peer: a proxy by its word, a
    /// command `exec`, any other by its place as in `DEST=`, whatever its protocol word.
    pub fn name(&self) -> String {
        let host_and_port = |host: &str, port: &dyn fmt::Display, transport| {
            super::address::show(Some(host), port) + suffix(transport)
        };
        match self {
            ExitKind::Server { target: Target { host, port }, transport } => {
                host_and_port(host, port, *transport)
            }
            ExitKind::Ftp(Target { host, port }) => host_and_port(host, port, Transport::Tcp),
            ExitKind::SamePort { host, offset: 0, transport } => {
                host_and_port(host, &'-', *transport)
            }
            ExitKind::SamePort { host, offset, transport } => {
                host_and_port(host, &format_args!("{offset:+}"), *transport)
            }
            ExitKind::Unix(path) => format!("unix:{}", path.display()),
            ExitKind::Proxy(proxy) => proxy.word().to_owned(),
            ExitKind::Command(_) => "exec".to_owned(),
        }
    }
}

impl Transport {
    /// The protocol word of a plain relay.
    pub fn relay_word(self) -> &'static str {
        match self {
            Transport::Tcp => "tcprelay",
            Transport::Udp => "udprelay",
        }
    }
}

/// Proxy protocols.
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
    /// All of them.
    pub const ALL: [Proxy; 6] =
        [Proxy::Socks, Proxy::Socks4, Proxy::Socks5, Proxy::Http, Proxy::Telnet, Proxy::Ftp];

    /// The proxy of a protocol word in lower case.
    pub fn of_word(word: &str) -> Option<Proxy> {
        Proxy::ALL.into_iter().find(|proxy| proxy.word() == word)
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

    /// Whether a setting for one applies to the other: `socks` is both of its versions.
    pub fn meets(self, other: Proxy) -> bool {
        use Proxy::{Socks, Socks4, Socks5};
        self == other
            || matches!((self, other), (Socks, Socks4 | Socks5) | (Socks4 | Socks5, Socks))
    }
}

/// `PERMIT=`: destinations of proxies, and clients of plain exits.
#[derive(Debug, Clone)]
pub struct Permit {
    /// The proxies that it applies to, by their words; `None` is all.
    pub protocols: Option<Vec<Proxy>>,
    /// The other exits and plain relays that it applies to, by their words in lower case.
    pub relays: Vec<String>,
    /// Destinations: the address, and by `-Pport` the port. Checked for proxies only.
    pub destinations: HostList,
    /// Admitted clients, by address and remote entrance port.
    pub sources: HostList,
    /// The parameter as written, for messages.
    pub source: String,
}

impl Permit {
    /// Whether it applies to this proxy.
    pub fn is_of(&self, proxy: Proxy) -> bool {
        self.protocols.as_ref().is_none_or(|list| list.iter().any(|of| of.meets(proxy)))
    }

    /// Whether it applies to this protocol word.
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

/// A client that asks for an exit: its address (if the peer sent one that can be read) and its
/// remote entrance port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The client's address.
    pub client: Option<IpAddr>,
    /// The port of the client's entrance at the peer.
    pub entrance_port: Option<u16>,
}
