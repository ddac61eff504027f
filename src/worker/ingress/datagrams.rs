//! Begins flows for datagrams of new clients. Dispatch applies
//! [`crate::worker::context::Effect::UnknownClient`] here.

use std::net::SocketAddr;

use crate::io::driver::Driver;
use crate::io::net;
use crate::worker::datagram::PortName;
use crate::worker::datagram::datagrams::datagrams;
use crate::worker::datagram::flow::{Flow, Origin, Server, Waiting};
use crate::worker::purpose::Purpose;
use crate::worker::{Drain, Key, Worker, relay};

impl<D: Driver> Worker<D> {
    /// Begins a flow for a new client, or drops its datagrams.
    pub(in crate::worker) fn unknown_client(
        &mut self,
        origin: Origin,
        payload: &[u8],
        size_bytes: u32,
    ) {
        let found = self.datagrams.find(&origin).or_else(|| self.begin_flow(origin));
        match found {
            Some(key) => {
                let first = (payload, size_bytes);
                self.datagrams.first_came(&mut self.cx, &mut self.tunnels, key, first);
            }
            None => self.cx.counters.datagrams_dropped += datagrams(payload.len(), size_bytes),
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
