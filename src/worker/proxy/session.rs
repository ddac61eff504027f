//! State of a proxy session.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::cli::plan::{ExitKind, Proxy, Target};
use crate::policy::destinations::Asker;
use crate::proxy_proto::config::ConversationConfig;
use crate::proxy_proto::{Conversation, Lead, Unreached};
use crate::session::{Moment, StreamKey};
use crate::worker::exits::ExitState;
use crate::worker::table::Key;

/// A stream in the handshake of a proxy protocol.
pub(super) struct ProxySession {
    pub(super) conversation: Box<dyn Conversation>,
    pub(super) proxy: Proxy,
    pub(super) asker: Asker,
    pub(super) exit: Rc<ExitState>,
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
    /// Bytes that the protocol holds, as far as they were taken down.
    pub(super) held_bytes: usize,
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
        exit: &Rc<ExitState>,
        stream: (Key, StreamKey),
    ) -> ProxySession {
        ProxySession {
            conversation,
            proxy,
            asker,
            exit: Rc::clone(exit),
            is_judged: matches!(exit.plan.way, ExitKind::Proxy(_)),
            stream,
            awaited_since: None,
            ports: Vec::new(),
            checking: None,
            held_bytes: 0,
            answers: VecDeque::new(),
        }
    }

    /// Whether the client has to say a password.
    pub(super) fn asks_user(&self) -> bool {
        self.exit.conversation.as_ref().is_some_and(ConversationConfig::asks_user)
    }

    /// The protocol whose `PERMIT=` applies to its destinations.
    pub(super) fn protocol(&self) -> Proxy {
        self.conversation.speaks().unwrap_or(self.proxy)
    }
}
