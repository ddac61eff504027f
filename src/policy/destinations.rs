//! The destinations that proxies may reach: `PERMIT=`, and addresses that are refused by default.
//!
//! A tunnel must not become a hole. Services of the exit's own machine listen on loopback so that
//! no other host can use them, and link-local addresses often lead to more (the metadata service of
//! a cloud). So these are refused unless a `PERMIT=` names them. The decision is made on an
//! address, never on a name, for each address before it is connected to. So it does not matter if a
//! name resolves to another address the next time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use crate::cli::hostlist::ClientName;
use crate::cli::plan::{Caller, Permit, Proxy};

/// Rules on destinations of proxies.
#[derive(Debug, Clone)]
pub struct Destinations {
    permits: Vec<Permit>,
    /// Addresses on which this process listens.
    own: Vec<SocketAddr>,
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
    /// Rules of the process, and the addresses on which it listens.
    pub fn new(permits: Vec<Permit>, own: Vec<SocketAddr>) -> Destinations {
        Destinations { permits, own }
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
        let kind = kind.or_else(|| is_ours(ip).then_some("this machine"));
        self.judge(proxy, client, &client.ip().to_string(), asker, kind)
    }

    /// `kind`: why the address has to be named.
    fn judge(
        &self,
        proxy: Proxy,
        destination: SocketAddr,
        name: &str,
        asker: &Asker,
        kind: Option<&'static str>,
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
        if let Some(kind) = kind {
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
        let (ip, port) = (meant(address.ip()), address.port());
        self.own.iter().any(|own| {
            let at = own.ip().to_canonical();
            own.port() == port && (at == ip || (at.is_unspecified() && is_ours(ip)))
        })
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

    /// Why the address has to be named, if it has to.
    fn refused_kind(
        &self,
        ip: IpAddr,
        port: u16,
        is_ours: impl Fn(IpAddr) -> bool,
    ) -> Option<&'static str> {
        let is_own = || self.is_own(SocketAddr::new(ip, port), is_ours);
        kind(ip).or_else(|| is_own().then_some("a port of this relay"))
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
mod tests {
    use super::*;
    use crate::cli::hostlist::HostList;

    fn permit(protocols: Option<Vec<Proxy>>, destinations: &str, sources: &str) -> Permit {
        let list = |text| HostList::parse(text, &mut |_| unreachable!()).unwrap();
        let (destinations, sources) = (list(destinations), list(sources));
        let (relays, source) = (Vec::new(), String::new());
        Permit { protocols, relays, destinations, sources, source }
    }

    fn access(permits: Vec<Permit>) -> Destinations {
        let own = ["0.0.0.0:9000", "[::]:9001", "192.0.2.7:9002"].map(|at| at.parse().unwrap());
        Destinations::new(permits, own.to_vec())
    }

    fn ask(access: &Destinations, destination: &str, client: &str) -> Result<(), String> {
        let caller = Caller { client: client.parse().ok(), entrance_port: Some(1080) };
        let ours: [IpAddr; 2] = ["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        let destination = destination.parse().unwrap();
        let asker = Asker { caller, name: None, permits: None };
        access.may(Proxy::Socks, destination, "name", &asker, |ip| ours.contains(&ip))
    }

    #[test]
    fn what_is_nobody_elses_is_refused_unless_it_is_named() {
        let cases = [
            ("127.0.0.1:80", "loopback"),
            ("127.255.0.9:80", "loopback"),
            ("[::1]:80", "loopback"),
            ("0.0.0.0:80", "unspecified"),
            ("0.1.2.3:80", "unspecified"),
            ("[::]:80", "unspecified"),
            ("169.254.169.254:80", "link-local"),
            ("[fe80::1]:80", "link-local"),
            ("[febf::1]:80", "link-local"),
            ("224.0.0.1:80", "multicast"),
            ("239.1.1.1:80", "multicast"),
            ("[ff02::1]:80", "multicast"),
            ("255.255.255.255:80", "broadcast"),
            // IPv4 addresses inside IPv6 ones.
            ("[::ffff:127.0.0.1]:80", "loopback"),
            ("[::127.0.0.1]:80", "loopback"),
            ("[::ffff:0:127.0.0.1]:80", "loopback"),
            ("[::ffff:0.0.0.0]:80", "unspecified"),
            ("[64:ff9b::127.0.0.1]:80", "loopback"),
            ("[64:ff9b::169.254.169.254]:80", "link-local"),
            ("[64:ff9b:1::127.0.0.1]:80", "loopback"),
            ("[2002:7f00:1::1]:80", "loopback"),
            ("[::ffff:224.0.0.1]:80", "multicast"),
            // Our own ports, on every address.
            ("192.0.2.7:9000", "a port of this relay"),
            ("192.0.2.7:9001", "a port of this relay"),
            ("192.0.2.7:9002", "a port of this relay"),
            ("[::ffff:192.0.2.7]:9002", "a port of this relay"),
            ("[2001:db8::7]:9001", "a port of this relay"),
        ];
        let (none, wide) = (access(vec![]), access(vec![permit(None, "*,0.0.0.0/0,::/0", "*")]));
        for (destination, kind) in cases {
            for access in [&none, &wide] {
                let why = ask(access, destination, "10.0.0.1").unwrap_err();
                assert!(why.contains(kind), "{destination}: {why}");
            }
            let meant = meant(destination.parse::<SocketAddr>().unwrap().ip());
            let named = access(vec![permit(None, &meant.to_string(), "*")]);
            assert_eq!(ask(&named, destination, "10.0.0.1"), Ok(()), "{destination}");
        }
    }

    #[test]
    fn a_client_on_this_machine_is_called_only_if_it_is_named() {
        let named = || permit(None, "192.0.2.7", "*");
        for (permits, client, wanted) in [
            (vec![], "10.0.0.1:2000", true),
            (vec![], "127.0.0.1:2000", false),
            (vec![], "192.0.2.7:2000", false),
            (vec![], "[::ffff:192.0.2.7]:2000", false),
            (vec![permit(None, "*", "*")], "192.0.2.7:2000", false),
            (vec![named()], "192.0.2.7:2000", true),
            (vec![named()], "10.0.0.1:2000", false),
        ] {
            let access = access(permits);
            let client: SocketAddr = client.parse().unwrap();
            let caller = Caller { client: Some(client.ip()), entrance_port: Some(21) };
            let asker = Asker { caller, name: None, permits: None };
            let ours: IpAddr = "192.0.2.7".parse().unwrap();
            let may = access.may_call(Proxy::Socks, client, &asker, |ip| ip == ours);
            assert_eq!(may.is_ok(), wanted, "{client}: {may:?}");
        }
    }

    #[test]
    fn of_a_name_s_addresses_those_that_may_be_reached_are_left() {
        let access = access(vec![]);
        let caller = Caller { client: None, entrance_port: None };
        let asker = Asker { caller, name: None, permits: None };
        let permitted = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|at| at.parse().unwrap()).collect();
            access.permitted(Proxy::Socks, addresses, "name", &asker, |_| false)
        };
        let left = permitted(&["127.0.0.1:80", "10.0.0.1:80", "[::1]:80"]);
        assert_eq!(left, Ok(vec!["10.0.0.1:80".parse().unwrap()]));
        assert!(permitted(&["127.0.0.1:80", "[::1]:80"]).unwrap_err().contains("loopback"));
        let is_own = |at: &str| access.is_own(at.parse().unwrap(), |ip| ip.is_loopback());
        assert!(is_own("127.0.0.1:9000") && is_own("[::ffff:192.0.2.7]:9002"));
        assert!(!is_own("192.0.2.9:9000") && !is_own("127.0.0.1:80"));
    }

    #[test]
    fn all_else_may_be_reached_without_a_permit() {
        let access = access(vec![]);
        for destination in [
            "10.0.0.1:80",
            "93.184.216.34:443",
            "[2001:db8::1]:80",
            "[::ffff:10.0.0.1]:80",
            "[64:ff9b::10.0.0.1]:80",
            "[2002:a00:1::1]:80",
            // Our addresses with other ports, and our port on another address.
            "192.0.2.7:80",
            "192.0.2.8:9000",
            "192.0.2.8:9002",
        ] {
            assert_eq!(ask(&access, destination, "unknown"), Ok(()), "{destination}");
        }
    }

    #[test]
    fn with_permits_only_what_one_of_them_says() {
        let access = access(vec![
            permit(Some(vec![Proxy::Http]), "*", "*"),
            permit(Some(vec![Proxy::Http, Proxy::Socks]), "10.0.0.0/8,!10.9.0.0/16", "*"),
            permit(None, "127.0.0.1,!-P22", "192.168.1.0/24"),
            permit(None, "-P443", "-P1080,!192.168.1.9"),
        ]);
        for (destination, client, wanted) in [
            ("10.0.0.1:80", "10.1.1.1", true),
            ("[::ffff:10.0.0.1]:80", "10.1.1.1", true),
            ("10.9.0.1:80", "10.1.1.1", false),
            ("11.0.0.1:80", "10.1.1.1", false),
            ("127.0.0.1:80", "192.168.1.1", true),
            ("127.0.0.1:22", "192.168.1.1", false),
            ("127.0.0.1:80", "192.168.2.1", false),
            ("127.0.0.1:80", "unknown", false),
            ("127.0.0.2:80", "192.168.1.1", false),
            ("11.0.0.1:443", "192.168.1.1", true),
            ("11.0.0.1:443", "192.168.1.9", false),
            // A port alone names no address.
            ("127.0.0.1:443", "192.168.2.1", false),
        ] {
            let may = ask(&access, destination, client);
            assert_eq!(may.is_ok(), wanted, "{destination} for {client}: {may:?}");
        }
        let why = ask(&access, "11.0.0.1:80", "10.1.1.1").unwrap_err();
        assert_eq!(why, "no PERMIT= for socks to name (11.0.0.1:80)");
    }

    #[test]
    fn an_exits_own_permits_stand_in_place_of_the_processs() {
        let access = access(vec![permit(None, "10.0.0.0/8,127.0.0.1", "*")]);
        let own = permit(Some(vec![Proxy::Socks]), "11.0.0.1,127.0.0.2", "*.org");
        let caller = Caller { client: "10.0.0.1".parse().ok(), entrance_port: Some(1080) };
        for (permits, reached) in [
            (None, ["10.0.0.1:80", "127.0.0.1:80"]),
            (Some(Rc::from([own])), ["11.0.0.1:80", "127.0.0.2:80"]),
        ] {
            let has_own = permits.is_some();
            let asker = Asker { caller, name: Some("pc.org".into()), permits };
            for at in ["10.0.0.1:80", "127.0.0.1:80", "11.0.0.1:80", "127.0.0.2:80"] {
                let may = access.may(Proxy::Socks, at.parse().unwrap(), at, &asker, |_| false);
                assert_eq!(may.is_ok(), reached.contains(&at), "{at}, own: {has_own}: {may:?}");
            }
            let own = asker.permits.as_deref();
            let wanted = access.want_name(Proxy::Socks, own, &caller, ClientName::Unasked);
            assert_eq!(wanted, has_own);
        }
    }

    #[test]
    fn patterns_mean_the_name_that_was_asked_for_and_the_client_s_own() {
        let by_name = access(vec![permit(None, "*.example.org", "*")]);
        let caller = Caller { client: "10.0.0.1".parse().ok(), entrance_port: Some(1080) };
        let nobody = Asker { caller, name: None, permits: None };
        let may = |access: &Destinations, asker: &Asker, name: &str, at: &str| {
            access.may(Proxy::Socks, at.parse().unwrap(), name, asker, |_| false).is_ok()
        };
        for (name, at, wanted) in [
            ("www.example.org", "11.0.0.1:80", true),
            ("www.example.com", "11.0.0.1:80", false),
            ("11.0.0.1", "11.0.0.1:80", false),
            // A name that resolves to loopback.
            ("www.example.org", "127.0.0.1:80", false),
        ] {
            assert_eq!(may(&by_name, &nobody, name, at), wanted, "{name} at {at}");
        }
        let for_named = access(vec![permit(Some(vec![Proxy::Socks]), "*", "*.example.org")]);
        for (proxy, name, wanted) in [
            (Proxy::Socks, ClientName::Unasked, true),
            (Proxy::Socks, ClientName::None, false),
            (Proxy::Http, ClientName::Unasked, false),
        ] {
            assert_eq!(
                for_named.want_name(proxy, None, &caller, name),
                wanted,
                "{proxy:?} {name:?}"
            );
        }
        let named = Asker { caller, name: Some("pc.example.org".into()), permits: None };
        for (asker, wanted) in [(named, true), (nobody, false)] {
            assert_eq!(may(&for_named, &asker, "11.0.0.1", "11.0.0.1:80"), wanted, "{asker:?}");
        }
    }
}
