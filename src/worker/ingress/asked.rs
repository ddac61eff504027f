//! Entrances that a peer has asked for (`PORT=...?at=peer` there): opened where the peers file permits
//! that, and for clients of that peer alone.
//!
//! They are listeners as others are: `RELIABLE=` judges their clients, and these wait while the tunnel
//! has no room. They end with the tunnel. A newer connection of the same key takes its ports over, so
//! that a peer whose link is frozen has them back before the old tunnel's end is noticed.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use tracing::{debug, info, warn};

use crate::cli::plan::{TlsSide, Transport};
use crate::io::datagram;
use crate::io::driver::Driver;
use crate::io::net;
use crate::limits::{ASKED_ENTRANCES_MAX, LISTENERS_MAX};
use crate::session::EntranceAnswer;
use crate::worker::context::log_limit::Class;
use crate::worker::context::{Cx, Drain};
use crate::worker::datagram::Datagrams;
use crate::worker::datagram::datagrams::DatagramPort;
use crate::worker::ingress::Ingress;
use crate::worker::ingress::listeners::Listener;
use crate::worker::message::PortName;
use crate::worker::stream::Streams;
use crate::worker::table::{Key, Table};

/// Why an entrance ends, where its peer can still be told.
const TAKEN_OVER: &str = "a newer connection of the same key has asked for its port";

/// What peers have asked for, by their tunnels.
#[derive(Debug)]
pub(super) struct AskedEntrances {
    of_tunnel: HashMap<Key, Asker>,
    /// The tunnels that have some at this port, as often as they have one there.
    at_port: HashMap<u16, Vec<Key>>,
    /// Entrances for datagrams, by the keys of their names.
    datagrams: Table<SocketAddr>,
}

/// What one peer has asked for.
#[derive(Debug, Default)]
struct Asker {
    open: Vec<OpenEntrance>,
    /// Those that were refused: what is asked for again and again is logged once. At most
    /// [`ASKED_ENTRANCES_MAX`].
    refused: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct OpenEntrance {
    /// The peer's number of it.
    request: u32,
    socket: EntranceSocket,
    address: SocketAddr,
}

/// Where the clients of an entrance come in.
#[derive(Debug, Clone, Copy)]
enum EntranceSocket {
    /// Among the listeners.
    Listener(Key),
    /// [`PortName::Given`] of the datagram plane.
    Datagrams(Key),
}

impl AskedEntrances {
    pub(super) fn new() -> AskedEntrances {
        let (of_tunnel, at_port) = (HashMap::new(), HashMap::new());
        AskedEntrances { of_tunnel, at_port, datagrams: Table::new(LISTENERS_MAX) }
    }

    fn add(&mut self, tunnel: Key, entrance: OpenEntrance) {
        self.at_port.entry(entrance.address.port()).or_default().push(tunnel);
        let asker = self.of_tunnel.entry(tunnel).or_default();
        asker.refused.retain(|&request| request != entrance.request);
        asker.open.push(entrance);
    }

    /// One was refused. `false`: as it was before.
    fn note_refusal(&mut self, tunnel: Key, request: u32) -> bool {
        let refused = &mut self.of_tunnel.entry(tunnel).or_default().refused;
        let is_news = !refused.contains(&request);
        if is_news && refused.len() < ASKED_ENTRANCES_MAX {
            refused.push(request);
        }
        is_news
    }

    /// Other tunnels that have an entrance at this port.
    fn others_at(&self, port: u16, than: Key) -> Vec<Key> {
        let all = self.at_port.get(&port).into_iter().flatten();
        all.copied().filter(|&tunnel| tunnel != than).collect()
    }

    /// Removes the entrances of a tunnel at this port.
    fn remove_at(&mut self, tunnel: Key, (transport, port): (Transport, u16)) -> Vec<OpenEntrance> {
        let Some(asker) = self.of_tunnel.get_mut(&tunnel) else { return Vec::new() };
        let is_it = |entrance: &mut OpenEntrance| {
            entrance.address.port() == port && entrance.transport() == transport
        };
        let removed: Vec<OpenEntrance> = asker.open.extract_if(.., is_it).collect();
        removed.iter().for_each(|_| self.leave(tunnel, port));
        removed
    }

    /// Removes all that a tunnel has.
    fn remove_all(&mut self, tunnel: Key) -> Vec<OpenEntrance> {
        let open = self.of_tunnel.remove(&tunnel).unwrap_or_default().open;
        for entrance in &open {
            self.leave(tunnel, entrance.address.port());
        }
        open
    }

    /// A tunnel has one entrance less at this port.
    fn leave(&mut self, tunnel: Key, port: u16) {
        let Some(tunnels) = self.at_port.get_mut(&port) else { return };
        if let Some(at) = tunnels.iter().position(|&other| other == tunnel) {
            tunnels.swap_remove(at);
        }
        if tunnels.is_empty() {
            self.at_port.remove(&port);
        }
    }
}

/// An entrance that is not opened.
enum Refusal {
    /// However often it is asked for.
    Refused(String),
    NotNow(String),
    /// The peers file does not permit this port.
    NotPermitted(u16),
}

impl Ingress {
    /// The peer asks for an entrance.
    pub(in crate::worker) fn entrance_asked<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        tunnel: Key,
        (request, transport, at): (u32, Transport, SocketAddr),
    ) {
        let opened = may_be_opened(cx, streams, tunnel, at.port());
        let opened = opened.and_then(|()| {
            self.take_over(cx, streams, datagrams, tunnel, (transport, at.port()));
            let (socket, address) =
                self.open_asked(cx, streams, datagrams, tunnel, (transport, at))?;
            cx.destinations.opened(address);
            self.asked.add(tunnel, OpenEntrance { request, socket, address });
            Ok(address)
        });
        let name = streams.tunnels().peer_of(tunnel).name;
        let number = tunnel.number();
        let answer = match opened {
            Ok(address) => {
                let entrance = shown(address, transport);
                if cx.may_log(Class::Tunnel) {
                    info!(tunnel = number, name, entrance, "entrance opened for a peer");
                } else {
                    debug!(tunnel = number, name, entrance, "entrance opened for a peer");
                }
                EntranceAnswer::Open(address)
            }
            Err(refusal) => {
                let (reason, to_permit, answer) = refusal.told();
                if self.asked.note_refusal(tunnel, request) && cx.may_log(Class::Refusal) {
                    let entrance = shown(at, transport);
                    warn!(
                        tunnel = number,
                        name, entrance, reason, to_permit, "entrance refused to a peer"
                    );
                }
                answer
            }
        };
        streams.tunnels_mut().answer_entrance(tunnel, request, answer);
    }

    /// Closes what older tunnels of the same key have at a port.
    fn take_over<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        tunnel: Key,
        (transport, port): (Transport, u16),
    ) {
        for other in self.asked.others_at(port, tunnel) {
            if !streams.tunnels().have_same_key(tunnel, other) {
                continue;
            }
            for entrance in self.asked.remove_at(other, (transport, port)) {
                self.close_asked(cx, streams, datagrams, (other, entrance), TAKEN_OVER);
                let answer = EntranceAnswer::Closed(TAKEN_OVER.to_owned());
                streams.tunnels_mut().answer_entrance(other, entrance.request, answer);
            }
        }
    }

    fn open_asked<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        tunnel: Key,
        (transport, at): (Transport, SocketAddr),
    ) -> Result<(EntranceSocket, SocketAddr), Refusal> {
        let open = match transport {
            Transport::Tcp => net::listen,
            Transport::Udp => datagram::bind,
        };
        let opened = match (self.reserve.take(transport, at), at.ip()) {
            (Some(fd), _) => Ok(fd),
            (None, IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => net::everywhere(at.port(), open),
            (None, _) => open(at),
        };
        let fd = opened.map_err(|error| Refusal::NotNow(why_not_opened(&error)))?;
        let too_many = || Refusal::NotNow("too many ports are open".to_owned());
        if transport == Transport::Udp {
            let port = DatagramPort::asked_by(fd, tunnel);
            let address = port.address();
            let key = self.asked.datagrams.insert(address).ok_or_else(too_many)?;
            datagrams.open_asked(cx, PortName::Given(key), port);
            return Ok((EntranceSocket::Datagrams(key), address));
        }
        cx.congestion.set_before(&fd);
        let listener = Listener::asked_by(fd, tunnel);
        let address = listener.address();
        let key = self.listeners.insert(listener).ok_or_else(too_many)?;
        if self.may_take_clients(cx, streams)
            && let Some(listener) = self.listeners.get_mut(key)
        {
            listener.start_accepting(cx, key, !streams.has_room_for_many());
        }
        Ok((EntranceSocket::Listener(key), address))
    }

    /// A tunnel has ended, or its peer takes no more streams: its entrances are closed.
    pub(in crate::worker) fn close_entrances_of<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        tunnel: Key,
    ) {
        for entrance in self.asked.remove_all(tunnel) {
            let reason = "its peer is gone, or going away";
            self.close_asked(cx, streams, datagrams, (tunnel, entrance), reason);
        }
    }

    /// Closes the socket of an entrance. Clients in the queue of a listener are reset: the peer cannot be
    /// reached.
    fn close_asked<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        datagrams: &mut Datagrams,
        (tunnel, entrance): (Key, OpenEntrance),
        reason: &str,
    ) {
        match entrance.socket {
            EntranceSocket::Listener(key) => {
                // A drain may have closed it.
                if let Some(listener) = self.listeners.remove(key) {
                    net::shut_down(&listener.fd);
                    cx.driver.cancel_all(&listener.fd);
                }
            }
            EntranceSocket::Datagrams(key) => {
                self.asked.datagrams.remove(key);
                datagrams.close_asked(cx, streams.tunnels_mut(), PortName::Given(key));
            }
        }
        cx.destinations.closed(entrance.address);
        let (tunnel, entrance) = (tunnel.number(), shown(entrance.address, entrance.transport()));
        if cx.may_log(Class::Tunnel) {
            info!(tunnel, entrance, reason, "entrance of a peer closed");
        } else {
            debug!(tunnel, entrance, reason, "entrance of a peer closed");
        }
    }
}

/// Whether a peer may have this entrance now.
fn may_be_opened<D: Driver>(
    cx: &Cx<D>,
    streams: &Streams,
    tunnel: Key,
    port: u16,
) -> Result<(), Refusal> {
    let side = cx.plan.encryption.as_ref().map(|encryption| encryption.side);
    if side == Some(TlsSide::Dials) {
        let reason = "entrances are opened by the end that accepts the persistent connection";
        return Err(Refusal::Refused(reason.to_owned()));
    }
    if !streams.tunnels().get(tunnel).is_some_and(|tunnel| tunnel.may_listen(port)) {
        return Err(Refusal::NotPermitted(port));
    }
    if cx.drain != Drain::No || !streams.tunnels().up().contains(&tunnel) {
        return Err(Refusal::NotNow("one of the two ends is going away".to_owned()));
    }
    Ok(())
}

impl OpenEntrance {
    fn transport(&self) -> Transport {
        match self.socket {
            EntranceSocket::Listener(_) => Transport::Tcp,
            EntranceSocket::Datagrams(_) => Transport::Udp,
        }
    }
}

impl Refusal {
    /// The reason and what would permit it, for the log here, and the answer to the peer.
    fn told(self) -> (String, Option<String>, EntranceAnswer) {
        match self {
            Refusal::Refused(reason) => (reason.clone(), None, EntranceAnswer::Refused(reason)),
            Refusal::NotNow(reason) => (reason.clone(), None, EntranceAnswer::NotNow(reason)),
            Refusal::NotPermitted(port) => {
                let reason = "not permitted to this peer by the peers file".to_owned();
                let answer = format!(
                    "not permitted: there is no listen={port} behind this end's key in the other \
                     end's peers file"
                );
                (reason, Some(format!("listen={port}")), EntranceAnswer::Refused(answer))
            }
        }
    }
}

/// Why an entrance cannot be opened, with what would help.
fn why_not_opened(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("{error}: another program has the port there, or another peer")
        }
        io::ErrorKind::PermissionDenied => format!(
            "{error}: ports below 1024 need the capability CAP_NET_BIND_SERVICE there, which \
             --user gives up"
        ),
        io::ErrorKind::AddrNotAvailable => format!("{error}: no address of the other end's host"),
        _ => error.to_string(),
    }
}

/// The address of an entrance, for the log.
pub(super) fn shown(at: SocketAddr, transport: Transport) -> String {
    match transport {
        Transport::Tcp => at.to_string(),
        Transport::Udp => format!("{at}/udp"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entrance(request: u32, port: u16, of: fn(Key) -> EntranceSocket) -> OpenEntrance {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        OpenEntrance { request, socket: of(Key::NONE), address }
    }

    #[test]
    fn they_are_found_by_tunnel_and_by_port() {
        let [one, other] = [7, 8].map(Key::unpack);
        let mut asked = AskedEntrances::new();
        asked.add(one, entrance(1, 80, EntranceSocket::Listener));
        asked.add(one, entrance(2, 80, EntranceSocket::Datagrams));
        asked.add(one, entrance(3, 81, EntranceSocket::Listener));
        asked.add(other, entrance(1, 80, EntranceSocket::Listener));
        assert_eq!((asked.others_at(80, one), asked.others_at(81, one)), (vec![other], vec![]));
        let requests = |removed: Vec<OpenEntrance>| -> Vec<u32> {
            removed.iter().map(|entrance| entrance.request).collect()
        };
        assert_eq!(requests(asked.remove_at(one, (Transport::Tcp, 80))), [1]);
        assert_eq!(asked.others_at(80, other), [one], "it has one for datagrams there");
        assert_eq!(requests(asked.remove_all(one)), [2, 3]);
        assert_eq!(asked.others_at(80, Key::NONE), [other]);
        assert_eq!(requests(asked.remove_all(other)), [1]);
        assert!(asked.of_tunnel.is_empty() && asked.at_port.is_empty());
    }

    #[test]
    fn what_is_refused_again_is_no_news() {
        let tunnel = Key::unpack(7);
        let mut asked = AskedEntrances::new();
        assert!(asked.note_refusal(tunnel, 1) && !asked.note_refusal(tunnel, 1));
        asked.add(tunnel, entrance(1, 80, EntranceSocket::Listener));
        assert!(asked.note_refusal(tunnel, 1), "it was open in between");
        for request in 0..100 {
            asked.note_refusal(tunnel, request);
        }
        assert_eq!(asked.of_tunnel[&tunnel].refused.len(), ASKED_ENTRANCES_MAX);
        asked.remove_all(tunnel);
        assert!(asked.of_tunnel.is_empty());
    }
}
