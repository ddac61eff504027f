//! Serves clients of entrances: at once, or when a tunnel has room for them.
//! [`crate::worker::stream::clients`] begins their streams.

use std::net::SocketAddr;

use crate::io::driver::Driver;
use crate::session::OpenError;
use crate::worker::context::{Cx, Drain};
use crate::worker::ingress::Ingress;
use crate::worker::message::{AcceptedConn, LedTo};
use crate::worker::stream::Streams;
use crate::worker::table::Key;

/// Why a client is refused at once.
const NO_TUNNEL: &str = "no tunnel is up (SOXCONF=down:)";

impl Ingress {
    /// Handles a client accepted at an entrance.
    pub(super) fn on_client<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        came: AcceptedConn,
    ) {
        let has_room = streams.has_room();
        if !has_room && self.hold_has_expired(cx) {
            let why = self.hold_reason(streams);
            return cx.reject(&came.socket, came.client, &why);
        }
        if !has_room && self.outage.refuses(cx.now) {
            return cx.reject(&came.socket, came.client, NO_TUNNEL);
        }
        if !has_room && cx.drain != Drain::No {
            return cx.reject(&came.socket, came.client, "the tunnel is down");
        }
        let led_to = came.led_to.clone();
        let Some((key, at)) = streams.add_client(cx, came, Key::NONE) else { return };
        let entrance = (at, led_to);
        if !has_room || !self.waiting.is_empty() {
            return self.await_tunnel(cx, streams, key, entrance);
        }
        let led_to = entrance.1.clone();
        match streams.begin_client(cx, key, entrance) {
            Ok(()) => {}
            Err(OpenError::NotUp) => {
                let reason = streams.why_nobody(at.port(), &led_to);
                streams.refuse_client(cx, key, &reason);
            }
            Err(error) => streams.refuse_client(cx, key, &error.to_string()),
        }
    }

    /// Keeps a client that was accepted just after the last tunnel, or its last slot, was gone. It
    /// waits as long as those in the kernel's queue.
    fn await_tunnel<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
        entrance: (SocketAddr, LedTo),
    ) {
        if !self.clients_held {
            self.hold_clients(cx);
        }
        streams.keep_client(cx, key, entrance, self.hold_deadline);
        self.waiting.push_back(key);
    }

    /// Begins streams of waiting clients while a tunnel has room.
    pub(in crate::worker) fn serve_waiting_clients<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
    ) {
        while streams.has_room() {
            let Some(key) = self.waiting.pop_front() else { return };
            if let Err(error) = streams.serve_client(cx, key) {
                streams.refuse_client(cx, key, &error.to_string());
            }
        }
    }

    /// Refuses all waiting clients: no tunnel will come.
    pub(in crate::worker) fn refuse_waiting_clients<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
    ) {
        for key in std::mem::take(&mut self.waiting) {
            streams.refuse_client(cx, key, "the tunnel is down");
        }
    }

    /// Refuses all waiting clients: entrances are to refuse while no tunnel is up.
    pub(super) fn refuse_waiting_for_tunnel<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
    ) {
        for key in std::mem::take(&mut self.waiting) {
            streams.refuse_client(cx, key, NO_TUNNEL);
        }
    }

    /// The hold time of a waiting client has expired.
    pub(in crate::worker) fn client_hold_expired<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        key: Key,
    ) {
        let Some(at) = self.waiting.iter().position(|&waiting| waiting == key) else {
            return;
        };
        self.waiting.remove(at);
        let why = self.hold_reason(streams);
        streams.refuse_client(cx, key, &why);
    }
}
