//! A stream whose client is asked where to go, as the worker holds it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::cli::plan::{Plan, Proxy, Target, Way};
use crate::io::net;
use crate::policy::destinations::Asker;
use crate::proxy_proto::ftp::{Ftp, FtpConfig};
use crate::proxy_proto::http::{Http, HttpConfig};
use crate::proxy_proto::socks::{Socks, SocksConfig};
use crate::proxy_proto::telnet::{Telnet, TelnetConfig};
use crate::proxy_proto::{Conversation, Lead, Unreached};
use crate::session::Moment;
use crate::worker::broken::Broken;
use crate::worker::stream::payload_queue::PayloadQueue;
use crate::worker::table::Key;

/// A stream that is asked where to go.
pub(in crate::worker) struct ProxySession {
    pub(in crate::worker) conversation: Box<dyn Conversation>,
    pub(in crate::worker) proxy: Proxy,
    pub(in crate::worker) asker: Asker,
    /// Its client says where it goes, and that is judged. Else the operator has named the server.
    pub(in crate::worker) is_judged: bool,
    pub(in crate::worker) server: Server,
    /// What the client said and the conversation was not told. The session has not been told either
    /// that it was taken.
    pub(in crate::worker) held: PayloadQueue,
    pub(in crate::worker) held_bytes: u64,
    /// The client has said all, which stands behind what is held.
    pub(in crate::worker) client_ended: bool,
    /// Since when a request is awaited.
    pub(in crate::worker) awaited_since: Option<Moment>,
    /// Its ports, by its own numbers: a few.
    pub(in crate::worker) ports: Vec<(u32, Place)>,
    /// The host that it has asked about.
    pub(in crate::worker) checking: Option<Target>,
    /// What it is told next.
    pub(in crate::worker) answers: VecDeque<Answer>,
}

/// Where a conversation has a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Place {
    /// At the peer; what comes in by it is led there.
    Peer(Lead),
    /// Here.
    ExpectedConn(Key),
}

/// What a conversation has asked for, and is told behind the steps that it took.
pub(in crate::worker) enum Answer {
    PortOpened(u32, Result<SocketAddr, String>),
    HostChecked(Result<Vec<SocketAddr>, Unreached>),
}

/// How far a conversation's server is.
pub(in crate::worker) enum Server {
    None,
    /// Connecting there waits until nothing is under way on the socket of the server before, whose
    /// last words must not be taken for those of the next.
    Closing(Target),
    Dialing(Key),
    Connected {
        /// It takes no more; it may have more to say.
        broken: Option<Broken>,
    },
    /// The conversation is over, and the client's end awaited.
    Over,
}

impl std::fmt::Debug for ProxySession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Talk").field("proxy", &self.proxy).finish_non_exhaustive()
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

    /// Its server is to be read.
    pub(in crate::worker) fn reads_server(&self) -> bool {
        matches!(self.server, Server::Connected { .. })
    }

    /// What `PERMIT=` is to say of its destinations.
    pub(in crate::worker) fn protocol(&self) -> Proxy {
        self.conversation.speaks().unwrap_or(self.proxy)
    }

    /// It may be told what the client or the server did.
    pub(in crate::worker) fn listens(&self) -> bool {
        matches!(self.server, Server::None | Server::Connected { .. })
    }
}

/// What the conversations of an exit begin with.
enum Beginning {
    Socks(Arc<SocksConfig>),
    Http(Arc<HttpConfig>),
    Telnet(TelnetConfig),
    Ftp(FtpConfig),
}

impl Beginning {
    /// `None`: it asks nobody.
    fn of(plan: &Plan, exit: usize, host: &str) -> Option<Beginning> {
        let banner_host = host.to_owned();
        let proxy = match &plan.exits[exit].way {
            Way::Proxy(proxy) => *proxy,
            Way::Ftp(server) => {
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

/// What conversations begin with.
pub(in crate::worker) struct Beginnings {
    /// By the exit's place in the plan.
    exits: Vec<Option<Beginning>>,
}

impl Beginnings {
    pub(in crate::worker) fn new(plan: &Plan) -> Beginnings {
        let host = net::hostname();
        let of = |exit| Beginning::of(plan, exit, &host);
        Beginnings { exits: (0..plan.exits.len()).map(of).collect() }
    }

    /// A conversation with a new client of an exit.
    ///
    /// # Panics
    /// If the exit asks nobody.
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
