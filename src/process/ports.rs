//! Opening the ports of a plan, but for those that were inherited.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;

use super::SetupError;
use super::remedy::{remedy, unix_remedy};
use crate::cli::plan::{Bind, Entrance, LinkPlan, Plan, Target, Transport, UnixEntrance};
use crate::io::congestion::CongestionPolicy;
use crate::io::datagram;
use crate::io::inherited::{Inherited, Taken};
use crate::io::net;
use crate::io::resolver::look_up;
use crate::io::unix::{self, SocketFile};
use crate::worker::{DatagramPort, Listener, Origin, Purpose};

/// Opens all ports of a plan. `handed_over` is the file of a Unix socket that the old process has made.
pub(super) fn open(
    plan: &Plan,
    inherited: &mut Inherited,
    congestion: &CongestionPolicy,
    handed_over: impl Fn(&Path) -> Option<SocketFile>,
) -> Result<(Vec<Listener>, Vec<DatagramPort>), SetupError> {
    let (mut listeners, mut ports) = (Vec::new(), Vec::new());
    let ports_of_v4 = PortsOfV4::of(plan);
    let mut open = |bind: &Bind, transport, parameter, purpose, options| match transport {
        Transport::Tcp => open_port(
            bind,
            parameter,
            ports_of_v4.opening(bind, transport),
            inherited,
            |fd, origin| {
                listeners.push(Listener::new(fd, purpose, origin).with_options(options));
            },
        ),
        Transport::Udp => {
            open_port(bind, parameter, ports_of_v4.opening(bind, transport), inherited, |fd, _| {
                ports.push(DatagramPort::new(fd, purpose).with_peers(options.1));
            })
        }
    };
    match &plan.link {
        LinkPlan::Listen(binds) => {
            for bind in binds {
                open(bind, Transport::Tcp, "-P", Purpose::Receptor, (false, &[]))?;
            }
        }
        LinkPlan::Relay { binds, transport, .. } => {
            for bind in binds {
                open(bind, *transport, "-P", Purpose::Relay, (false, &[]))?;
            }
        }
        LinkPlan::Connect(_)
        | LinkPlan::Device(_)
        | LinkPlan::Command(_)
        | LinkPlan::Stdio
        | LinkPlan::Loopback => {}
    }
    let parameter = if plan.link == LinkPlan::Loopback { "-P" } else { "PORT=" };
    for entrance in &plan.entrances {
        let Entrance { bind, transport, proxy_header, peers } = entrance;
        open(bind, *transport, parameter, Purpose::Entrance, (*proxy_header, peers))?;
    }
    for listener in &listeners {
        congestion.set_before(listener.socket());
    }
    for entrance in &plan.unix_entrances {
        listeners.push(open_unix(entrance, inherited, &handed_over)?);
    }
    Ok((listeners, ports))
}

/// How to open ports of one transport.
struct PortOpener {
    transport: Transport,
    /// Suffix of the port in messages.
    suffix: &'static str,
    at: fn(SocketAddr) -> io::Result<OwnedFd>,
}

const TCP: PortOpener = PortOpener { transport: Transport::Tcp, suffix: "", at: net::listen };
const TCP_V6: PortOpener = PortOpener { transport: Transport::Tcp, suffix: "", at: net::listen_v6 };
const UDP: PortOpener =
    PortOpener { transport: Transport::Udp, suffix: "/udp", at: datagram::bind };
const UDP_V6: PortOpener =
    PortOpener { transport: Transport::Udp, suffix: "/udp", at: datagram::bind_v6 };

/// Ports for which the plan has a separate IPv4 socket: an IPv6 wildcard socket of these ports
/// excludes IPv4.
struct PortsOfV4(Vec<(Transport, u16)>);

impl PortsOfV4 {
    fn of(plan: &Plan) -> PortsOfV4 {
        let (binds, transport) = match &plan.link {
            LinkPlan::Listen(binds) => (binds.as_slice(), Transport::Tcp),
            LinkPlan::Relay { binds, transport, .. } => (binds.as_slice(), *transport),
            _ => (&[][..], Transport::Tcp),
        };
        let link = binds.iter().map(|bind| (transport, bind));
        let entrances = plan.entrances.iter().map(|entrance| (entrance.transport, &entrance.bind));
        let is_v4 = |bind: &Bind| bind.host.as_ref().is_some_and(|h| h.parse::<Ipv4Addr>().is_ok());
        let all = link.chain(entrances).filter(|(_, bind)| bind.port != 0 && is_v4(bind));
        PortsOfV4(all.map(|(transport, bind)| (transport, bind.port)).collect())
    }

    /// How to open such a port.
    fn opening(&self, bind: &Bind, transport: Transport) -> &'static PortOpener {
        let every_v6 = |host: &str| host.parse() == Ok(Ipv6Addr::UNSPECIFIED);
        let shared =
            bind.host.as_deref().is_some_and(every_v6) && self.0.contains(&(transport, bind.port));
        match (transport, shared) {
            (Transport::Tcp, false) => &TCP,
            (Transport::Tcp, true) => &TCP_V6,
            (Transport::Udp, false) => &UDP,
            (Transport::Udp, true) => &UDP_V6,
        }
    }
}

/// Opens a port, unless it was inherited.
fn open_port(
    bind: &Bind,
    parameter: &'static str,
    opening: &PortOpener,
    inherited: &mut Inherited,
    mut opened: impl FnMut(OwnedFd, Origin),
) -> Result<(), SetupError> {
    let failed = |address: String, error: io::Error| SetupError::Listen {
        address: address + opening.suffix,
        parameter,
        remedy: remedy(&error),
        error,
    };
    let Some(host) = &bind.host else {
        let everywhere = |address: SocketAddr| address.ip().is_unspecified();
        let open = inherited
            .take(opening.transport, |address| everywhere(address) && address.port() == bind.port);
        if open.is_empty() {
            let socket = net::patiently(|| net::everywhere(bind.port, opening.at))
                .map_err(|error| failed(format!("*:{}", bind.port), error))?;
            opened(socket, Origin::Own);
        }
        for Taken { fd, is_ours } in open {
            opened(fd, origin(is_ours));
        }
        return Ok(());
    };
    let target = Target { host: host.clone(), port: bind.port };
    let addresses = look_up(&target).map_err(|error| SetupError::Name {
        host: host.clone(),
        parameter,
        error,
    })?;
    // A name with addresses of both families listens on each; with port 0, all use the first one's
    // port.
    let mut port = bind.port;
    for mut address in addresses {
        address.set_port(port);
        let open = inherited.take(opening.transport, |open| open == address).pop();
        if let Some(Taken { fd, is_ours }) = open {
            opened(fd, origin(is_ours));
            continue;
        }
        let socket = net::patiently(|| (opening.at)(address))
            .map_err(|error| failed(address.to_string(), error))?;
        port = net::local_address(&socket).port();
        opened(socket, Origin::Own);
    }
    Ok(())
}

fn origin(is_ours: bool) -> Origin {
    match is_ours {
        true => Origin::Own,
        false => Origin::Inherited,
    }
}

/// Opens the socket of an entrance, unless it was inherited.
fn open_unix(
    entrance: &UnixEntrance,
    inherited: &mut Inherited,
    handed_over: &impl Fn(&Path) -> Option<SocketFile>,
) -> Result<Listener, SetupError> {
    let UnixEntrance { path, mode, proxy_header, peers } = entrance;
    let (fd, file) = match inherited.take_unix(path) {
        Some(Taken { fd, is_ours: true }) => (fd, handed_over(path)),
        Some(Taken { fd, is_ours: false }) => (fd, None),
        None => {
            let (fd, file) = net::patiently(|| unix::listen(path, *mode)).map_err(|error| {
                let remedy = unix_remedy(&error);
                let address = format!("unix:{}", path.display());
                SetupError::Listen { address, parameter: "PORT=", error, remedy }
            })?;
            (fd, Some(file))
        }
    };
    Ok(Listener::unix(fd, path.clone(), file).with_options((*proxy_header, peers)))
}
