//! The plan: what the command line means, resolved and validated. Nothing behind this module
//! parses text of the user's.

use std::net::IpAddr;
use std::path::PathBuf;

mod link;
mod settings;

pub use super::authorizer::{Authorizer, User};
use super::hostlist::{ClientName, HostList};
pub use crate::wire::Transport;
pub use link::{Checked, Device, FlowControl, LineOptions, LinkPlan, Parity};
pub use settings::{Bulk, Congestion, Maxima, SoxConf, Timeouts};

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
    pub way: ExitKind,
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
            ExitKind::Server { transport, .. } | ExitKind::SamePort { transport, .. } => transport,
            _ => Transport::Tcp,
        }
    }

    /// The server that it leads to, if it leads to one by name.
    pub fn target(&self) -> Option<&Target> {
        match &self.way {
            ExitKind::Server { target, .. } | ExitKind::Ftp(target) => Some(target),
            _ => None,
        }
    }
}

/// Where an exit leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitKind {
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

/// Who asks for an exit: the client's address (if the peer said one that can be read) and the
/// remote entrance port that it came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The client's address.
    pub client: Option<IpAddr>,
    /// The port of the entrance at the peer.
    pub entrance_port: Option<u16>,
}
