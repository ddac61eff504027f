//! The servers of proxy sessions: connected one after another as the protocol requests, and read
//! for it. See [`crate::worker::proxy::conversation`].

use tracing::debug;

use crate::cli::plan::Target;
use crate::io::chunk::Chunk;
use crate::io::driver::{Driver, Fd};
use crate::proxy_proto::Unreached;
use crate::worker::context::Cx;
use crate::worker::context::dialer::dial::{Owner, Permission, Request};
use crate::worker::proxy::Proxies;
use crate::worker::stream::Streams;
use crate::worker::stream::server::{NextServer, UpstreamState};
use crate::worker::table::Key;

impl Proxies {
    /// Whether [`Self::dial_after_closing`] has something to do.
    pub(in crate::worker) fn may_dial_next_server(&self, streams: &Streams) -> bool {
        self.closing.iter().any(|&key| streams.may_dial_next(key))
    }

    /// Dials the next server of sessions whose previous socket is idle.
    pub(in crate::worker) fn dial_after_closing<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
    ) {
        if self.closing.is_empty() {
            return;
        }
        for key in std::mem::take(&mut self.closing) {
            match streams.next_server(key) {
                NextServer::Dial(target) => self.dial_server(cx, streams, key, target),
                NextServer::Wait => self.closing.push(key),
                NextServer::None => {}
            }
        }
    }

    fn dial_server<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
        target: Target,
    ) {
        let Some(client) = streams.client(key) else { return };
        let Some(session) = self.proxy_session(streams, key) else { return };
        let (stream, host, port) = (key.number(), &target.host, target.port);
        debug!(stream, %client, %host, port, "proxy connects");
        streams.server_named(key, &target);
        let connect = session.exit.timeouts.connect;
        let overall = connect.map(|connect| cx.now.after(connect));
        let mut request = Request::new(Owner::Conversation(key), target, overall);
        if session.is_judged {
            request.permission = Permission::Proxy(session.protocol(), session.asker.clone());
        }
        match cx.dial(request) {
            Some(dial) => streams.server_dialled(key, dial),
            None => {
                let why = String::from("too many connections are open");
                self.upstream_unreachable(cx, streams, key, Unreached::Other(why));
            }
        }
    }

    /// The server of a session is unreachable.
    pub(in crate::worker) fn upstream_unreachable<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
        unreached: Unreached,
    ) {
        streams.server_refused(key, unreached.why());
        self.leave_upstream(cx, streams, key, UpstreamState::None);
        self.converse(cx, streams, key, |conversation, steps| {
            conversation.connected(Err(unreached), steps)
        });
    }

    /// The server of a session is connected.
    pub(in crate::worker) fn upstream_connected<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
        server: Fd,
    ) {
        let Some(addresses) = streams.server_connected(key, server) else { return };
        self.converse(cx, streams, key, |conversation, steps| {
            conversation.connected(Ok(addresses), steps)
        });
        streams.read_conn(cx, key);
    }

    /// Data of the server.
    pub(super) fn on_server_data<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
        chunk: &Chunk,
    ) {
        // Late data of the previous server is no answer.
        if matches!(streams.server_of(key), Some(UpstreamState::Connected { .. })) {
            self.converse(cx, streams, key, |conversation, steps| {
                conversation.from_server(chunk, steps)
            });
            streams.read_server_on(cx, key, chunk.len());
        }
    }
}
