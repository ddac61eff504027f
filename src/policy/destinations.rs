//! The destinations that proxies may reach: `PERMIT=`, and addresses that are refused by default.
//!
//! A tunnel must not become a hole. Services of the exit's own machine listen on loopback so that
//! no other host can use them, and link-local addresses often lead to more, as the metadata services
//! of clouds do, which hand out the machine's credentials. So these are refused unless a `PERMIT=`
//! names them. Ports where peers are accepted, here or at the process that this one dials, are refused
//! even then: a proxy's client that came in there would be a peer, in this machine's name.
//! The decision is made on an address, never on a name, for each address before it is connected to.
//! So it does not matter if a name resolves to another address the next time.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use crate::cli::hostlist::ClientName;
use crate::cli::plan::{Caller, Permit, Proxy};
use crate::limits::DIALLED_ADDRESSES_MAX;

/// Rules on destinations of proxies.
#[derive(Debug, Clone)]
pub struct Destinations {
    permits: Vec<Permit>,
    /// Addresses on which this process listens.
    own: Vec<SocketAddr>,
    /// Those of them where it accepts peers.
    receptors: Vec<SocketAddr>,
    /// Addresses at which this process has looked for its peer, the latest last.
    dialled: VecDeque<SocketAddr>,
}

/// Why an address is refused by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Unless a rule names it.
    Named(&'static str),
    /// In any case.
    Never(&'static str),
}

/// The client of a proxy.
#[derive(Debug, Clone)]
pub struct Asker {
    /// Its address and entrance, as exits see it.
    pub caller: Caller,
    /// Its name, if it was looked up and verified.
    pub name: Option<String>,
    /// The rules of the exit that asks, which replace those of the process. `None`: it has none of
    /// its own.
    pub permits: Option<Rc<[Permit]>>,
}

impl Destinations {
    /// Rules of the process, the addresses on which it listens, and those of them at which it accepts
    /// peers.
    pub fn new(
        permits: Vec<Permit>,
        own: Vec<SocketAddr>,
        receptors: Vec<SocketAddr>,
    ) -> Destinations {
        Destinations { permits, own, receptors, dialled: VecDeque::new() }
    }

    /// This process listens at this address from now on, for clients.
    pub fn opened(&mut self, address: SocketAddr) {
        self.own.push(address);
    }

    /// It does not any more.
    pub fn closed(&mut self, address: SocketAddr) {
        if let Some(at) = self.own.iter().position(|&own| own == address) {
            self.own.swap_remove(at);
        }
    }

    /// This process dials its peer at these addresses. Those before are remembered, since the peer may
    /// have several, and its name another one each time.
    pub fn dials(&mut self, addresses: &[SocketAddr]) {
        for &address in addresses {
            self.dialled.retain(|&before| before != address);
            if self.dialled.len() == DIALLED_ADDRESSES_MAX {
                self.dialled.pop_front();
            }
            self.dialled.push_back(address);
        }
    }

    /// Whether the decision depends on the client's name, which was not looked up yet. `own`: the
    /// rules of the exit, as of [`Asker::permits`].
    pub fn want_name(
        &self,
        proxy: Proxy,
        own: Option<&[Permit]>,
        caller: &Caller,
        name: ClientName<'_>,
    ) -> bool {
        self.of(proxy, own).any(|permit| permit.sources.verdict(caller, name).is_none())
    }

    /// The rules that apply to an exit.
    fn all<'a>(&'a self, own: Option<&'a [Permit]>) -> &'a [Permit] {
        own.unwrap_or(&self.permits)
    }

    /// The rules that apply to a proxy.
    fn of<'a>(
        &'a self,
        proxy: Proxy,
        own: Option<&'a [Permit]>,
    ) -> impl Iterator<Item = &'a Permit> {
        self.all(own).iter().filter(move |permit| permit.is_of(proxy))
    }

    /// Whether the client may reach an address. `name` is the destination as the client named it
    /// and as it was resolved to that address; patterns of names in a list of destinations are
    /// matched against it. `is_ours` tells whether an address belongs to this machine.
    ///
    /// # Errors
    /// The reason for the refusal, for the client and the log.
    pub fn may(
        &self,
        proxy: Proxy,
        destination: SocketAddr,
        name: &str,
        asker: &Asker,
        is_ours: impl Fn(IpAddr) -> bool,
    ) -> Result<(), String> {
        let kind = self.refused_kind(meant(destination.ip()), destination.port(), is_ours);
        self.judge(proxy, destination, name, asker, kind)
    }

    /// Whether a server may be connected to that port of the client's own host (FTP's active mode).
    /// As [`Destinations::may`]; in addition, a client on this machine has to be named whatever its
    /// address is, because services here are not meant for servers elsewhere.
    ///
    /// # Errors
    /// The reason for the refusal, for the server's side and the log.
    pub fn may_call(
        &self,
        proxy: Proxy,
        client: SocketAddr,
        asker: &Asker,
        is_ours: impl Fn(IpAddr) -> bool,
    ) -> Result<(), String> {
        let ip = meant(client.ip());
        let kind = self.refused_kind(ip, client.port(), &is_ours);
        let kind = kind.or_else(|| is_ours(ip).then_some(Kind::Named("this machine")));
        self.judge(proxy, client, &client.ip().to_string(), asker, kind)
    }

    /// `kind`: why the address is refused by default.
    fn judge(
        &self,
        proxy: Proxy,
        destination: SocketAddr,
        name: &str,
        asker: &Asker,
        kind: Option<Kind>,
    ) -> Result<(), String> {
        let meant = meant(destination.ip());
        let (said, called) = match name.parse::<IpAddr>() {
            Ok(_) => (destination.to_string(), ClientName::None),
            Err(_) => (format!("{name} ({destination})"), ClientName::Is(name)),
        };
        let asked =
            |ip: IpAddr| Caller { client: Some(ip), entrance_port: Some(destination.port()) };
        let own_name = asker.name.as_deref().map_or(ClientName::None, ClientName::Is);
        let is_for =
            |permit: &&Permit| permit.sources.verdict(&asker.caller, own_name) == Some(true);
        let permits = || self.of(proxy, asker.permits.as_deref()).filter(is_for);
        if let Some(Kind::Never(kind)) = kind {
            return Err(format!("{said} is {kind}, which no proxy reaches"));
        }
        if let Some(Kind::Named(kind)) = kind {
            let named =
                permits().any(|permit| permit.destinations.singles_out(&asked(meant), called));
            return match named {
                true => Ok(()),
                false => {
                    Err(format!("{said} is {kind}, and no PERMIT= names it for {}", proxy.word()))
                }
            };
        }
        let permitted = self.all(asker.permits.as_deref()).is_empty()
            || permits()
                .any(|permit| permit.destinations.verdict(&asked(meant), called) == Some(true));
        match permitted {
            true => Ok(()),
            false => Err(format!("no PERMIT= for {} to {said}", proxy.word())),
        }
    }

    /// The addresses of a name that may be reached, see [`Self::may`].
    ///
    /// # Errors
    /// The reason, if none may.
    pub fn permitted(
        &self,
        proxy: Proxy,
        mut addresses: Vec<SocketAddr>,
        name: &str,
        asker: &Asker,
        is_ours: impl Fn(IpAddr) -> bool,
    ) -> Result<Vec<SocketAddr>, String> {
        let mut denied = None;
        addresses.retain(|&address| {
            let may = self.may(proxy, address, name, asker, &is_ours);
            may.map_err(|why| denied = Some(why)).is_ok()
        });
        match denied {
            Some(why) if addresses.is_empty() => Err(why),
            _ => Ok(addresses),
        }
    }

    /// Whether this process listens on that address. `is_ours` as for [`Self::may`].
    pub fn is_own(&self, address: SocketAddr, is_ours: impl Fn(IpAddr) -> bool) -> bool {
        is_among(&self.own, address, is_ours)
    }

    /// Whether a peer is accepted at that address, as far as this process knows. A peer that is dialled
    /// on this machine may be reached by any of its addresses.
    pub fn leads_to_a_peer(&self, address: SocketAddr, is_ours: impl Fn(IpAddr) -> bool) -> bool {
        let (ip, port) = (meant(address.ip()), address.port());
        let is_dialled = self.dialled.iter().any(|dialled| {
            let at = dialled.ip().to_canonical();
            dialled.port() == port && (at == ip || (is_ours(at) && is_ours(ip)))
        });
        is_dialled || is_among(&self.receptors, address, is_ours)
    }

    /// The addresses of a plain relay's server without its own ports: a connection to one of those
    /// would cause another one, until no room is left.
    ///
    /// # Errors
    /// No address is left.
    pub fn but_own(
        &self,
        mut addresses: Vec<SocketAddr>,
        is_ours: impl Fn(IpAddr) -> bool,
    ) -> Result<Vec<SocketAddr>, String> {
        let own = addresses.extract_if(.., |address| self.is_own(*address, &is_ours)).last();
        match own {
            Some(own) if addresses.is_empty() => {
                Err(format!("{own} is a port of this very process"))
            }
            _ => Ok(addresses),
        }
    }

    /// Why the address is refused by default, if it is.
    fn refused_kind(
        &self,
        ip: IpAddr,
        port: u16,
        is_ours: impl Fn(IpAddr) -> bool,
    ) -> Option<Kind> {
        let address = SocketAddr::new(ip, port);
        if self.leads_to_a_peer(address, &is_ours) {
            return Some(Kind::Never("where a peer is accepted"));
        }
        let is_own = || self.is_own(address, &is_ours);
        kind(ip).or_else(|| is_own().then_some("a port of this relay")).map(Kind::Named)
    }
}

/// Whether an address leads to one of these listeners.
fn is_among(
    listeners: &[SocketAddr],
    address: SocketAddr,
    is_ours: impl Fn(IpAddr) -> bool,
) -> bool {
    let (ip, port) = (meant(address.ip()), address.port());
    listeners.iter().any(|own| {
        let at = own.ip().to_canonical();
        own.port() == port && (at == ip || (at.is_unspecified() && is_ours(ip)))
    })
}

/// Whether it is a metadata service of a cloud, of those that are not link-local.
fn is_metadata(ip: IpAddr) -> bool {
    match ip {
        // Alibaba, Azure, and Oracle's older one.
        IpAddr::V4(v4) => {
            matches!(v4.octets(), [100, 100, 100, 200] | [168, 63, 129, 16] | [192, 0, 0, 192])
        }
        IpAddr::V6(v6) => matches!(
            v6.segments(),
            // Amazon, a network of services: metadata, credentials of containers, names, time.
            [0xfd00, 0xec2, ..]
                // Google.
                | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]
                // Oracle.
                | [0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe]
                // Linode.
                | [0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1]
                // Scaleway.
                | [0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42]
        ),
    }
}

/// The kind of the address, if it is not one of a host elsewhere.
fn kind(ip: IpAddr) -> Option<&'static str> {
    match ip {
        // The whole of 0.0.0.0/8 is "this network" (RFC 791); connecting to 0.0.0.0 leads to
        // ourselves.
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("unspecified"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        IpAddr::V4(v4) if v4.is_link_local() => Some("link-local"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("link-local"),
        ip if ip.is_loopback() => Some("loopback"),
        ip if ip.is_unspecified() => Some("unspecified"),
        ip if ip.is_multicast() => Some("multicast"),
        ip if is_metadata(ip) => Some("the metadata service of a cloud"),
        _ => None,
    }
}

/// The IPv4 address that an IPv6 address stands for, if any: a translator or the kernel itself
/// would lead there.
fn meant(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let places = v6.segments();
    let at = |first: usize| {
        let bits = u32::from(places[first]) << 16 | u32::from(places[first + 1]);
        IpAddr::V4(Ipv4Addr::from_bits(bits))
    };
    match places {
        _ if v6 == Ipv6Addr::UNSPECIFIED || v6 == Ipv6Addr::LOCALHOST => ip,
        // Mapped, compatible (both RFC 4291) and translated (RFC 2765).
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => at(6),
        // NAT64: the well-known prefix (RFC 6052), and the one for local use (RFC 8215) as it is
        // laid out with a prefix of 96 bits.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => at(6),
        // 6to4 (RFC 3056).
        [0x2002, ..] => at(1),
        _ => ip,
    }
}

#[cfg(test)]
mod tests;
