//! State of a proxy session, and the configuration that sessions of an exit start with.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::cli::plan::{ExitKind, Plan, Proxy, Target};
use crate::io::net;
use crate::policy::destinations::Asker;
use crate::proxy_proto::ftp::{Ftp, FtpConfig};
use crate::proxy_proto::http::{Http, HttpConfig};
use crate::proxy_proto::socks::{Socks, SocksConfig};
use crate::proxy_proto::telnet::{Telnet, TelnetConfig};
use crate::proxy_proto::{Conversation, Lead, Unreached};
use crate::session::Moment;
use crate::worker::broken::Broken;
use crate::worker::payload_queue::PayloadQueue;
use crate::worker::table::Key;

/// A stream in the handshake of a proxy protocol.
pub(in crate::worker) struct ProxySession {
    pub(in crate::worker) conversation: Box<dyn Conversation>,
    pub(in crate::worker) proxy: Proxy,
    pub(in crate::worker) asker: Asker,
    /// The client names the destination, so it must be judged. Otherwise the operator has named the
    /// server.
    pub(in crate::worker) is_judged: bool,
    pub(in crate::worker) server: Server,
    /// Client data not yet passed to the protocol. Its consumption has not been reported to the
    /// session either.
    pub(in crate::worker) held: PayloadQueue,
    pub(in crate::worker) held_bytes: u64,
    /// The client's end of data, which comes after `held`.
    pub(in crate::worker) client_ended: bool,
    /// Since when a request is awaited.
    pub(in crate::worker) awaited_since: Option<Moment>,
    /// Its few ports, by its own numbers.
    pub(in crate::worker) ports: Vec<(u32, Place)>,
    /// The host whose check is in progress.
    pub(in crate::worker) checking: Option<Target>,
    /// Results to be passed to the protocol next.
    pub(in crate::worker) answers: VecDeque<Answer>,
}

/// Where a port of a session is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Place {
    /// At the peer; its connections are led to this destination.
    Peer(Lead),
    /// In this process.
    ExpectedConn(Key),
}

/// The result of a request by the protocol; passed on after the steps that requested it.
pub(in crate::worker) enum Answer {
    PortOpened(u32, Result<SocketAddr, String>),
    HostChecked(Result<Vec<SocketAddr>, Unreached>),
}

/// State of a session's server.
pub(in crate::worker) enum Server {
    None,
    /// The next dial waits until nothing is in flight on the socket of the previous server, so that
    /// late data of that one cannot be taken for data of the next.
    Closing(Target),
    Dialing(Key),
    Connected {
        /// Set if it accepts no more writes; it may still deliver data.
        broken: Option<Broken>,
    },
    /// The session is over, and the client's end awaited.
    Over,
}

impl std::fmt::Debug for ProxySession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProxySession").field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

impl ProxySession {
    pub(in crate::worker) fn new(
        conversation: Box<dyn Conversation>,
        proxy: Proxy,
        asker: Asker,
        is_judged: bool,
    ) -> ProxySession {
        ProxySession {
            conversation,
            proxy,
            asker,
            is_judged,
            server: Server::None,
            held: PayloadQueue::default(),
            held_bytes: 0,
            client_ended: false,
            awaited_since: None,
            ports: Vec::new(),
            checking: None,
            answers: VecDeque::new(),
        }
    }

    /// Whether its server is to be read.
    pub(in crate::worker) fn reads_server(&self) -> bool {
        matches!(self.server, Server::Connected { .. })
    }

    /// The protocol whose `PERMIT=` applies to its destinations.
    pub(in crate::worker) fn protocol(&self) -> Proxy {
        self.conversation.speaks().unwrap_or(self.proxy)
    }

    /// Whether the protocol accepts events of client and server.
    pub(in crate::worker) fn listens(&self) -> bool {
        matches!(self.server, Server::None | Server::Connected { .. })
    }
}

/// Configuration for sessions of an exit.
enum Beginning {
    Socks(Arc<SocksConfig>),
    Http(Arc<HttpConfig>),
    Telnet(TelnetConfig),
    Ftp(FtpConfig),
}

impl Beginning {
    /// `None`: the exit runs no proxy protocol.
    fn of(plan: &Plan, exit: usize, host: &str) -> Option<Beginning> {
        let banner_host = host.to_owned();
        let proxy = match &plan.exits[exit].way {
            ExitKind::Proxy(proxy) => *proxy,
            ExitKind::Ftp(server) => {
                return Some(Beginning::Ftp(FtpConfig {
                    server: Some(server.clone()),
                    banner_host,
                }));
            }
            _ => return None,
        };
        let users = plan.users(exit, proxy);
        Some(match proxy {
            Proxy::Socks | Proxy::Socks4 | Proxy::Socks5 => {
                let users_of = |version| plan.users(exit, version);
                Beginning::Socks(Arc::new(SocksConfig {
                    versions: proxy,
                    users: users_of(Proxy::Socks5),
                    four_has_users: users_of(Proxy::Socks4).is_some(),
                }))
            }
            Proxy::Http => Beginning::Http(Arc::new(HttpConfig { via: banner_host, users })),
            Proxy::Telnet => Beginning::Telnet(TelnetConfig { banner_host }),
            Proxy::Ftp => Beginning::Ftp(FtpConfig { server: None, banner_host }),
        })
    }
}

/// Configurations of all exits.
pub(in crate::worker) struct Beginnings {
    /// By index of the exit in the plan.
    exits: Vec<Option<Beginning>>,
}

impl Beginnings {
    pub(in crate::worker) fn new(plan: &Plan) -> Beginnings {
        let host = net::hostname();
        let of = |exit| Beginning::of(plan, exit, &host);
        Beginnings { exits: (0..plan.exits.len()).map(of).collect() }
    }

    /// Starts a session with a new client of an exit.
    ///
    /// # Panics
    /// If the exit runs no proxy protocol.
    pub(in crate::worker) fn begin(
        &self,
        exit: usize,
        client: Option<IpAddr>,
    ) -> Box<dyn Conversation> {
        match self.exits[exit].as_ref().expect("an exit that asks its clients") {
            Beginning::Socks(config) => Box::new(Socks::new(Arc::clone(config))),
            Beginning::Http(config) => Box::new(Http::new(Arc::clone(config))),
            Beginning::Telnet(config) => Box::new(Telnet::new(config.clone())),
            Beginning::Ftp(config) => Box::new(Ftp::new(config.clone(), client)),
        }
    }
}
