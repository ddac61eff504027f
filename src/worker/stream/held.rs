//! Streams of the peer that wait for the name of their client: a connection without a server holds
//! their place, and what is delivered meanwhile.

use std::net::SocketAddr;

use crate::io::driver::Driver;
use crate::worker::context::Cx;
use crate::worker::message::Incoming;
use crate::worker::stream::Streams;
use crate::worker::stream::conn::{Conn, Stage};
use crate::worker::table::Key;
use crate::worker::token::StreamOwner;

/// A stream whose client's name is known now.
#[derive(Debug)]
pub(in crate::worker) struct HeldStream(Conn);

impl Streams {
    /// Holds a stream and its data. `None`: there is no room.
    pub(in crate::worker) fn hold_conn<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        incoming: &Incoming,
        client: SocketAddr,
    ) -> Option<Key> {
        let Incoming { tunnel, stream, .. } = *incoming;
        let mut conn = Conn::new(tunnel, Stage::ResolvingName, client, cx.now);
        conn.stream = Some(stream);
        let key = self.conns.insert(conn)?;
        if let Some(tunnel) = self.tunnels.get_mut(tunnel) {
            tunnel.session_mut().attach(stream, StreamOwner::Conn(key).user());
        }
        Some(key)
    }

    /// Takes a held stream, whose exit is opened next. `None`: it has ended.
    pub(in crate::worker) fn take_held_stream(&mut self, key: Key) -> Option<HeldStream> {
        self.conns.remove(key).map(HeldStream)
    }

    /// The owner that a stream is attached to.
    pub(in crate::worker) fn owner_of(&self, incoming: &Incoming) -> Option<StreamOwner> {
        let session = self.tunnels.get(incoming.tunnel)?.session();
        session.user_of(incoming.stream).map(StreamOwner::of)
    }

    /// Hands over what was delivered to a held stream, if its exit was opened.
    pub(in crate::worker) fn hand_over<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        incoming: &Incoming,
        HeldStream(mut held): HeldStream,
    ) {
        if let Some(StreamOwner::Conn(key)) = self.owner_of(incoming) {
            if self.is_proxy_handshake(key) {
                return self.take_over_held(cx, key, &mut held);
            }
            if let Some(conn) = self.conns.get_mut(key) {
                std::mem::swap(&mut conn.output, &mut held.output);
                std::mem::swap(&mut conn.spill, &mut held.spill);
                conn.urgent = held.urgent;
                conn.end_after_output = held.end_after_output;
                self.conns.mark(key);
            }
        }
        held.output.clear(&mut cx.buffers.pipes);
    }
}
