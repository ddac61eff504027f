//! Reads the sockets of datagrams, and begins flows for new clients.

use std::net::SocketAddr;

use crate::io::datagram::Received;
use crate::io::driver::Driver;
use crate::io::net;
use crate::worker::datagram::PortName;
use crate::worker::datagram::coalesce::Source;
use crate::worker::datagram::datagrams::datagrams;
use crate::worker::datagram::flow::{Flow, Origin, Server, Waiting};
use crate::worker::purpose::Purpose;
use crate::worker::{Drain, Key, Worker, relay};

impl<D: Driver> Worker<D> {
    /// Reads each socket whose pause is over, once.
    pub(in crate::worker) fn sources_on_time(&mut self) {
        for _ in 0..self.datagrams.paused_count() {
            let Some(source) = self.datagrams.take_due(self.cx.now) else { return };
            self.read_source(source);
        }
    }

    /// Reads a socket, up to the maximum of a turn.
    pub(in crate::worker) fn read_source(&mut self, source: Source) {
        let (cx, tunnels) = (&mut self.cx, &mut self.tunnels);
        let Some(mut read) = self.datagrams.begin_read(cx, tunnels, source) else { return };
        while let Some(got) = read.take_next() {
            match source {
                Source::Port(name) => self.client_sent(name, got),
                Source::Flow(key) => {
                    let (cx, tunnels) = (&mut self.cx, &mut self.tunnels);
                    self.datagrams.server_answered(cx, tunnels, key, got);
                }
            }
        }
        self.datagrams.end_read(&mut self.cx, read);
    }

    /// Datagrams have come to an entrance: a client without a flow gets one, or they are dropped.
    fn client_sent(&mut self, port: PortName, got: Received<'_>) {
        let Some(client) = got.from else { return };
        let origin = Origin { port, client, own: got.own };
        let count = datagrams(got.payload.len(), got.size_bytes);
        self.cx.counters.datagrams_in += count;
        let found = self.datagrams.find(&origin).or_else(|| self.begin_flow(origin));
        let (cx, tunnels) = (&mut self.cx, &mut self.tunnels);
        match found {
            Some(key) => self.datagrams.client_sent(cx, tunnels, key, got),
            None => cx.counters.datagrams_dropped += count,
        }
    }

    /// `None`: the datagrams cannot be carried.
    fn begin_flow(&mut self, origin: Origin) -> Option<Key> {
        if let PortName::Asked(key) = origin.port {
            return self.begin_asked_flow(key, origin);
        }
        if self.drain != Drain::No {
            return None;
        }
        let port = self.datagrams.port(origin.port)?;
        let client = net::plain(origin.client);
        let (purpose, address) = (port.purpose, port.address);
        let limit_guard = self.admit_datagrams(client, (address.port(), purpose))?;
        let (cx, tunnels) = (&mut self.cx, &mut self.tunnels);
        match purpose {
            Purpose::Relay => {
                let target = match relay::target(&cx.plan, address) {
                    Ok(target) => target,
                    Err(reason) => {
                        cx.log_refused(client, &reason);
                        return None;
                    }
                };
                let server = Server::Unknown(Waiting::new(target.clone()));
                let mut flow = Flow::new(client, server, cx.now);
                flow.origin = Some(origin);
                flow.limit_guard = limit_guard;
                let key = self.datagrams.insert_flow(cx, tunnels, flow)?;
                self.datagrams.find_server(cx, tunnels, key, &target);
                Some(key)
            }
            Purpose::Entrance | Purpose::Receptor => {
                if tunnels.up().is_empty() {
                    return None;
                }
                let mut entrance = address;
                if let Some(own) = origin.own {
                    entrance = net::plain(SocketAddr::new(own, entrance.port()));
                }
                let mut flow = Flow::new(client, Server::Peer, cx.now);
                flow.origin = Some(origin);
                flow.limit_guard = limit_guard;
                self.datagrams.begin_flow(cx, tunnels, flow, entrance)
            }
        }
    }
}
