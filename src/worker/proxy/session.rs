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
use crate::session::{Moment, StreamKey};
use crate::worker::table::Key;

/// A stream in the handshake of a proxy protocol.
pub(super) struct ProxySession {
    pub(super) conversation: Box<dyn Conversation>,
    pub(super) proxy: Proxy,
    pub(super) asker: Asker,
    /// The client names the destination, so it must be judged. Otherwise the operator has named the
    /// server.
    pub(super) is_judged: bool,
    /// Its stream of this tunnel.
    pub(super) stream: (Key, StreamKey),
    /// Since when a request is awaited.
    pub(super) awaited_since: Option<Moment>,
    /// Its few ports, by its own numbers.
    pub(super) ports: Vec<(u32, Place)>,
    /// The host whose check is in progress.
    pub(super) checking: Option<Target>,
    /// Results to be passed to the protocol next.
    pub(super) answers: VecDeque<Answer>,
}

/// Where a port of a session is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// At the peer; its connections are led to this destination.
    Peer(Lead),
    /// In this process.
    ExpectedConn(Key),
}

/// The result of a request by the protocol; passed on after the steps that requested it.
pub(super) enum Answer {
    PortOpened(u32, Result<SocketAddr, String>),
    HostChecked(Result<Vec<SocketAddr>, Unreached>),
}

impl ProxySession {
    pub(super) fn new(
        conversation: Box<dyn Conversation>,
        proxy: Proxy,
        asker: Asker,
        is_judged: bool,
        stream: (Key, StreamKey),
    ) -> ProxySession {
        ProxySession {
            conversation,
            proxy,
            asker,
            is_judged,
            stream,
            awaited_since: None,
            ports: Vec::new(),
            checking: None,
            answers: VecDeque::new(),
        }
    }

    /// The protocol whose `PERMIT=` applies to its destinations.
    pub(super) fn protocol(&self) -> Proxy {
        self.conversation.speaks().unwrap_or(self.proxy)
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
pub(super) struct Beginnings {
    /// By index of the exit in the plan.
    exits: Vec<Option<Beginning>>,
}

impl Beginnings {
    pub(super) fn new(plan: &Plan) -> Beginnings {
        let host = net::hostname();
        let of = |exit| Beginning::of(plan, exit, &host);
        Beginnings { exits: (0..plan.exits.len()).map(of).collect() }
    }

    /// Starts a session with a new client of an exit.
    ///
    /// # Panics
    /// If the exit runs no proxy protocol.
    pub(super) fn begin(&self, exit: usize, client: Option<IpAddr>) -> Box<dyn Conversation> {
        match self.exits[exit].as_ref().expect("an exit that asks its clients") {
            Beginning::Socks(config) => Box::new(Socks::new(Arc::clone(config))),
            Beginning::Http(config) => Box::new(Http::new(Arc::clone(config))),
            Beginning::Telnet(config) => Box::new(Telnet::new(config.clone())),
            Beginning::Ftp(config) => Box::new(Ftp::new(config.clone(), client)),
        }
    }
}
