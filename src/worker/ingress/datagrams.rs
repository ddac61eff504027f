//! Begins flows for new clients of entrances.

use std::net::SocketAddr;

use crate::io::driver::Driver;
use crate::io::net;
use crate::policy::routing;
use crate::worker::context::{Cx, Drain};
use crate::worker::datagram::Datagrams;
use crate::worker::datagram::flow::{Flow, FlowServer, Waiting};
use crate::worker::ingress::Ingress;
use crate::worker::message::FlowOrigin;
use crate::worker::purpose::Purpose;
use crate::worker::stream::Streams;
use crate::worker::table::Key;

impl Ingress {
    /// Begins a flow of a new client at an entrance. `None`: its datagrams cannot be carried.
    pub(in crate::worker) fn begin_flow<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        origin: FlowOrigin,
    ) -> Option<Key> {
        if cx.drain != Drain::No {
            return None;
        }
        let port = datagrams.port(origin.port)?;
        let client = net::plain(origin.client);
        let (purpose, address) = (port.purpose(), port.address());
        let limit_guard = self.admit_datagrams(cx, client, (address.port(), purpose))?;
        let tunnels = streams.tunnels_mut();
        match purpose {
            Purpose::Relay => {
                let target = match routing::relay_target(&cx.plan, address) {
                    Ok(target) => target,
                    Err(reason) => {
                        cx.log_refused(client, &reason);
                        return None;
                    }
                };
                let server = FlowServer::Unknown(Waiting::new(target.clone()));
                let flow = Flow::of_client(origin, server, limit_guard, cx.now);
                let key = datagrams.insert_flow(cx, tunnels, flow)?;
                datagrams.enter_relayed(cx, key, (address, &target));
                datagrams.find_server(cx, tunnels, key, &target);
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
                let flow = Flow::of_client(origin, FlowServer::Peer, limit_guard, cx.now);
                datagrams.begin_flow(cx, tunnels, flow, entrance)
            }
        }
    }
}
