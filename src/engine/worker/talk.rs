//! A stream whose client is asked where to go, as the worker holds it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::dial::Dial;
use super::pieces::Pieces;
use super::table::Key;
use crate::endpoint::destinations::Asker;
use crate::endpoint::proxy::http::{Http, HttpConfig};
use crate::endpoint::proxy::socks::{Socks, SocksConfig};
use crate::endpoint::proxy::telnet::{Telnet, TelnetConfig};
use crate::endpoint::proxy::{Conversation, Lead, Unreached};
use crate::engine::net;
use crate::params::plan::{Plan, Proxy, Target};
use crate::session::Moment;

/// A stream that is asked where to go.
pub(super) struct Talk {
    pub(super) conversation: Box<dyn Conversation>,
    pub(super) proxy: Proxy,
    pub(super) asker: Asker,
    /// Its client says where it goes, and that is judged. Else the operator has named the server.
    pub(super) is_judged: bool,
    pub(super) server: Server,
    /// What the client said and the conversation was not told. The session has not been told either
    /// that it was taken.
    pub(super) held: Pieces,
    pub(super) held_bytes: u64,
    /// The client has said all, which stands behind what is held.
    pub(super) client_ended: bool,
    /// Since when a request is awaited.
    pub(super) awaited_since: Option<Moment>,
    /// Its ports, by its own numbers: a few.
    pub(super) ports: Vec<(u32, Place)>,
    /// The host that it has asked about.
    pub(super) checking: Option<Target>,
    /// What it is told next.
    pub(super) answers: VecDeque<Answer>,
}

/// Where a conversation has a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// At the peer; what comes in by it is led there.
    Peer(Lead),
    /// Here.
    Here(Key),
}

/// What a conversation has asked for, and is told behind the steps that it took.
pub(super) enum Answer {
    PortOpened(u32, Result<SocketAddr, String>),
    HostChecked(Result<Vec<SocketAddr>, Unreached>),
}

/// How far a conversation's server is.
pub(super) enum Server {
    None,
    /// Connecting there waits until nothing is under way on the socket of the server before, whose
    /// last words must not be taken for those of the next.
    Closing(Target),
    Dialing {
        dial: Box<Dial>,
        /// What the failure of the last attempt is called.
        failure: fn(String) -> Unreached,
    },
    Connected {
        /// It takes no more; it may have more to say.
        deaf: bool,
    },
    /// The conversation is over, and the client's end awaited.
    Over,
}

impl std::fmt::Debug for Talk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Talk").field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

impl Talk {
    pub(super) fn new(
        conversation: Box<dyn Conversation>,
        proxy: Proxy,
        asker: Asker,
        is_judged: bool,
    ) -> Talk {
        Talk {
            conversation,
            proxy,
            asker,
            is_judged,
            server: Server::None,
            held: Pieces::default(),
            held_bytes: 0,
            client_ended: false,
            awaited_since: None,
            ports: Vec::new(),
            checking: None,
            answers: VecDeque::new(),
        }
    }

    /// Its server is to be read.
    pub(super) fn reads_server(&self) -> bool {
        matches!(self.server, Server::Connected { .. })
    }

    /// It may be told what the client or the server did.
    pub(super) fn listens(&self) -> bool {
        matches!(self.server, Server::None | Server::Connected { .. })
    }
}

/// What conversations begin with.
pub(super) struct Proxies {
    socks: Arc<SocksConfig>,
    http: Arc<HttpConfig>,
    telnet: TelnetConfig,
}

impl Proxies {
    pub(super) fn new(plan: &Plan) -> Proxies {
        let host = net::hostname();
        Proxies {
            socks: Arc::new(SocksConfig { users: plan.users(Proxy::Socks) }),
            http: Arc::new(HttpConfig { via: host.clone(), users: plan.users(Proxy::Http) }),
            telnet: TelnetConfig { banner_host: host },
        }
    }

    /// A conversation with a new client.
    pub(super) fn begin(&self, proxy: Proxy) -> Box<dyn Conversation> {
        match proxy {
            Proxy::Socks => Box::new(Socks::new(Arc::clone(&self.socks))),
            Proxy::Http => Box::new(Http::new(Arc::clone(&self.http))),
            Proxy::Telnet => Box::new(Telnet::new(self.telnet.clone())),
        }
    }
}
