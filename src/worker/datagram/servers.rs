//! Local servers of flows: looked up, connected by a socket per flow, and looked up again when they
//! do not answer.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use tracing::{debug, warn};

use super::Datagrams;
use crate::cli::plan::Target;
use crate::io::datagram::{self, SegmentLimit};
use crate::io::driver::Driver;
use crate::io::net;
use crate::io::resolver;
use crate::limits::UNANSWERED_SECS;
use crate::worker::context::log_limit::Class;
use crate::worker::context::{Cx, Lookup};
use crate::worker::datagram::coalesce::Source;
use crate::worker::datagram::flow::{FlowServer, ServerName};
use crate::worker::log_ids::LogIds;
use crate::worker::stream::tunnel::Tunnels;
use crate::worker::table::Key;

impl Datagrams {
    /// Looks up a flow's server.
    pub(in crate::worker) fn find_server<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        key: Key,
        target: &Target,
    ) {
        if let Some(address) = resolver::literal(target) {
            self.flow_resolved(cx, tunnels, key, Ok(vec![address]));
        } else if let Err(error) = cx.resolver.ask(Lookup::Flow(key), target) {
            self.flow_resolved(cx, tunnels, key, Err(error));
        }
    }

    /// The look-up of a flow's server has ended: connects to the first address with a route. UDP
    /// cannot tell whether a server is there.
    pub(in crate::worker) fn flow_resolved<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        key: Key,
        found: io::Result<Vec<SocketAddr>>,
    ) {
        let Some(flow) = self.flows.get_mut(key) else {
            cx.counters.stale += 1;
            return;
        };
        if let FlowServer::Reached(socket) = &flow.server {
            let current = net::peer_address(socket);
            return self.server_looked_up_again(cx, tunnels, key, current, found);
        }
        let socket = match self.first_routable(cx, tunnels, found, None) {
            Ok(Some(socket)) => Rc::new(socket),
            Ok(None) => return,
            Err(error) => return self.flow_unreachable(cx, key, &error),
        };
        let now = cx.now;
        let Some(flow) = self.flows.get_mut(key) else { return };
        let (server, own) = (net::peer_address(&socket), net::local_address(&socket));
        flow.entry.server_at(server);
        let before = std::mem::replace(&mut flow.server, FlowServer::Reached(socket));
        if let FlowServer::Unknown(waiting) = &before
            && resolver::literal(&waiting.target).is_none()
        {
            let target = waiting.target.clone();
            flow.server_name = Some(Box::new(ServerName { target, silent_since: now }));
        }
        if let Some((tunnel_key, stream)) = flow.stream {
            if let Some(tunnel) = tunnels.get_mut(tunnel_key) {
                tunnel.session_mut().accept(stream, server, own);
            }
            tunnels.mark(tunnel_key);
        }
        self.watch_source(cx, Source::Flow(key));
        if let FlowServer::Unknown(mut waiting) = before {
            for (run, size_bytes) in waiting.take() {
                self.send_run(cx, tunnels, key, run, size_bytes);
            }
        }
    }

    /// A socket to the first address with a route. `Ok(None)`: that is the `current` one.
    fn first_routable<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        found: io::Result<Vec<SocketAddr>>,
        current: Option<SocketAddr>,
    ) -> io::Result<Option<OwnedFd>> {
        let mut addresses =
            found.map_err(|error| io::Error::other(format!("name not found: {error}")))?;
        let place = addresses.iter().position(|&address| current == Some(address));
        addresses.truncate(place.unwrap_or(addresses.len()));
        let opened = match addresses.first() {
            Some(&first) => {
                self.open_socket(cx, tunnels, first, || connected_to_one_of(&addresses))
            }
            None => Err(io::Error::other("no address")),
        };
        match (opened, place) {
            (Ok(socket), _) => Ok(Some(socket)),
            (Err(_), Some(_)) => Ok(None),
            (Err(error), None) => Err(error),
        }
    }

    /// A flow's server is unreachable: refuses the flow.
    fn flow_unreachable<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, error: &io::Error) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let (client, stream) = (flow.client, flow.stream);
        let reason = match &flow.server {
            FlowServer::Unknown(waiting) => format!("{}/udp: {error}", waiting.target),
            FlowServer::Reached(_) | FlowServer::UdpAssociation(_) | FlowServer::Peer => {
                error.to_string()
            }
        };
        flow.entry.refused_here(&reason);
        self.forget_flow(cx, key);
        match stream {
            Some(stream) => cx.refuse_stream(stream, client, reason, true),
            None => cx.log_refused_of(LogIds::flow(key), client, &reason),
        }
    }

    /// After a send: looks the server's name up again if nothing was received for `TIMEOUT=udp`.
    #[inline]
    pub(super) fn look_up_if_unanswered<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let Some(name) = &mut flow.server_name else { return };
        let timeout = cx.plan.timeouts.udp.unwrap_or(Duration::from_secs(UNANSWERED_SECS));
        if name.silent_since.after(timeout) > cx.now {
            return;
        }
        name.silent_since = cx.now;
        if let Err(error) = cx.resolver.ask(Lookup::Flow(key), &name.target) {
            let number = key.number();
            debug!(flow = number, client = %flow.client, %error, "cannot look a silent server up again");
        }
    }

    /// The repeated look-up of a silent server has ended: connects to the first address, as a new
    /// flow would.
    fn server_looked_up_again<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        key: Key,
        current: SocketAddr,
        found: io::Result<Vec<SocketAddr>>,
    ) {
        let found = self.first_routable(cx, tunnels, found, Some(current));
        let Some(flow) = self.flows.get_mut(key) else { return };
        let (client, number) = (flow.client, key.number());
        match found {
            Ok(None) => {}
            Err(error) => {
                debug!(flow = number, %client, %error, "a silent server's name leads nowhere now");
            }
            Ok(Some(socket)) => {
                let server = net::peer_address(&socket);
                debug!(
                    flow = number,
                    %client,
                    %current,
                    %server,
                    "a silent server's name leads elsewhere now"
                );
                flow.limit = SegmentLimit::default();
                flow.entry.server_at(server);
                let before =
                    std::mem::replace(&mut flow.server, FlowServer::Reached(Rc::new(socket)));
                if let FlowServer::Reached(socket) = before {
                    // Cancelling the poll of the old socket makes the flow read and poll the new
                    // one. A paused socket is not polled; the new one is read when the pause ends.
                    cx.driver.cancel_all(&socket);
                }
            }
        }
    }

    /// Opens a socket for datagrams to or at `address`. Without a free local port or descriptor,
    /// the least recently used flow is evicted. Its port can be used at once; its descriptor is
    /// released later, for the next datagram.
    pub(in crate::worker) fn open_socket<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        tunnels: &mut Tunnels,
        address: SocketAddr,
        mut open: impl FnMut() -> io::Result<OwnedFd>,
    ) -> io::Result<OwnedFd> {
        let error = match open() {
            Err(error) => error,
            opened => return opened,
        };
        let no_port = net::is_out_of_ports(&error, address);
        if !no_port && !matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
            return Err(error);
        }
        let error = io::Error::other(net::why_not_connected(&error, address));
        let Some(oldest) = self.flows.oldest_with_socket() else { return Err(error) };
        if cx.may_log(Class::Shortage) {
            warn!(reason = %error, "the UDP flow that was silent for longest is let go for a new one");
        }
        if let Some(socket) = self.flows.get_mut(oldest).and_then(|flow| flow.socket()) {
            datagram::free_port(&socket);
        }
        cx.counters.flows_evicted += 1;
        self.end_flow(
            cx,
            tunnels,
            oldest,
            "let go for a newer flow: no local port or descriptor was free",
        );
        if no_port { open().map_err(|_| error) } else { Err(error) }
    }
}

/// A socket to the first address with a route. The lack of a local port is reported before other
/// errors, because the operator can fix it.
fn connected_to_one_of(addresses: &[SocketAddr]) -> io::Result<OwnedFd> {
    let (mut last, mut no_port) = (None, None);
    for &address in addresses {
        match datagram::connected(address) {
            Err(error) if net::is_out_of_ports(&error, address) => no_port = Some(error),
            Err(error) => last = Some(error),
            opened => return opened,
        }
    }
    Err(no_port.or(last).unwrap_or_else(|| io::Error::other("no address")))
}
