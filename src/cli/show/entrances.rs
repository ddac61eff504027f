//! Where clients come in.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::plain_long;
use crate::cli::address;
use crate::cli::plan::{Bind, Entrance, LinkPlan, Plan, Transport, UnixEntrance, WhileDown};
use crate::cli::portlist::suffix;

/// Those of a plan with a persistent connection.
pub(super) fn all(plan: &Plan) -> Vec<String> {
    let sockets = plan.unix_entrances.iter().map(unix_entrance);
    let mut lines: Vec<_> =
        runs(&plan.entrances).into_iter().chain(sockets).chain(at_peer(plan)).collect();
    if !lines.is_empty() && plan.link != LinkPlan::Loopback {
        lines.extend(while_down(plan.soxconf.down).map(str::to_owned));
    }
    lines
}

/// What they do while no tunnel is up, but for the default.
fn while_down(down: WhileDown) -> Option<&'static str> {
    match down {
        WhileDown::Hold => None,
        WhileDown::Refuse => Some("while no tunnel is up: clients are reset"),
        WhileDown::Close => {
            Some("while no tunnel is up: TCP ports are closed, clients of other sockets are reset")
        }
    }
}

/// Those of a plain relay.
pub(super) fn of_relay(binds: &[Bind], transport: Transport) -> Vec<String> {
    let entrance = |bind: &Bind| Entrance {
        bind: bind.clone(),
        transport,
        proxy_header: false,
        peers: Vec::new(),
    };
    runs(&binds.iter().map(entrance).collect::<Vec<_>>())
}

/// Those that the peer is asked for.
fn at_peer(plan: &Plan) -> Vec<String> {
    let entrance = |(transport, at): &(Transport, SocketAddr)| Entrance {
        bind: Bind { host: host_of(at.ip()), port: at.port() },
        transport: *transport,
        proxy_header: false,
        peers: Vec::new(),
    };
    let asked: Vec<_> = plan.entrances_at_peer.iter().map(entrance).collect();
    let line = |ports| format!("{ports} at the peer, if its peers file permits that to this key");
    runs(&asked).into_iter().map(line).collect()
}

/// As it is written in `PORT=`.
fn host_of(ip: IpAddr) -> Option<String> {
    (ip != IpAddr::V6(Ipv6Addr::UNSPECIFIED)).then(|| ip.to_string())
}

/// One line for each run of ports that follow each other.
fn runs(all: &[Entrance]) -> Vec<String> {
    let follows = |a: &Entrance, b: &Entrance| {
        a.bind.host == b.bind.host
            && a.transport == b.transport
            && a.proxy_header == b.proxy_header
            && a.peers == b.peers
            && a.bind.port != 0
            && a.bind.port.checked_add(1) == Some(b.bind.port)
    };
    let line = |run: &[Entrance]| {
        let (first, last) = (&run[0], &run[run.len() - 1]);
        let host = first.bind.host.as_deref();
        let ports = match (first.bind.port, last.bind.port) {
            (0, _) => address::show(host, "0 (the kernel chooses)"),
            (first, last) if first == last => address::show(host, first),
            (first, last) => address::show(host, format_args!("{first}-{last}")),
        };
        let (header, to) = (behind_header(first.proxy_header), to_peers(&first.peers));
        format!("{ports}{}{header}{to}", suffix(first.transport))
    };
    all.chunk_by(follows).map(line).collect()
}

fn unix_entrance(entrance: &UnixEntrance) -> String {
    let UnixEntrance { path, mode, proxy_header, peers } = entrance;
    let path = plain_long(&path.display().to_string());
    format!("unix:{path} (mode {mode:04o}){}{}", behind_header(*proxy_header), to_peers(peers))
}

fn behind_header(proxy_header: bool) -> &'static str {
    if proxy_header { ", each client behind a PROXY header" } else { "" }
}

/// The peers of an entrance.
fn to_peers(peers: &[String]) -> String {
    if peers.is_empty() { String::new() } else { format!(", to peer {}", peers.join(", ")) }
}
