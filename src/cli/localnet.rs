//! `.localnet`: this machine and the networks of its own interfaces, as they are now.

use std::cell::RefCell;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;

use crate::limits::LOCALNET_MILLIS;

/// The word in host lists.
pub(crate) const WORD: &str = ".localnet";

/// An address and its mask, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    V4(u32, u32),
    V6(u128, u128),
}

impl Network {
    fn of(address: IpAddr, mask: IpAddr) -> Option<Network> {
        match (address, mask) {
            (IpAddr::V4(address), IpAddr::V4(mask)) => {
                Some(Network::V4(address.to_bits() & mask.to_bits(), mask.to_bits()))
            }
            (IpAddr::V6(address), IpAddr::V6(mask)) => {
                Some(Network::V6(address.to_bits() & mask.to_bits(), mask.to_bits()))
            }
            _ => None,
        }
        // The network of some tunnel interfaces is every address, which makes no host a neighbour.
        .filter(|network| !matches!(network, Network::V4(_, 0) | Network::V6(_, 0)))
    }

    fn holds(self, address: IpAddr) -> bool {
        match (self, address) {
            (Network::V4(network, mask), IpAddr::V4(address)) => {
                address.to_bits() & mask == network
            }
            (Network::V6(network, mask), IpAddr::V6(address)) => {
                address.to_bits() & mask == network
            }
            _ => false,
        }
    }
}

/// As in a host list: `192.0.2.0/24`.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Network::V4(network, mask) => {
                write!(f, "{}/{}", Ipv4Addr::from_bits(network), mask.leading_ones())
            }
            Network::V6(network, mask) => {
                write!(f, "{}/{}", Ipv6Addr::from_bits(network), mask.leading_ones())
            }
        }
    }
}

/// The last result.
struct Found {
    at: Instant,
    networks: Vec<Network>,
}

thread_local! {
    /// Cached, so that a flood of clients does not query the kernel for each.
    static FOUND: RefCell<Option<Found>> = const { RefCell::new(None) };
}

/// Whether an address, IPv4 as such, is of this machine or of a network that an interface is in.
pub(crate) fn holds(address: IpAddr) -> bool {
    if address.is_loopback() {
        return true;
    }
    FOUND.with_borrow_mut(|found| {
        let now = Instant::now();
        let fresh = Duration::from_millis(LOCALNET_MILLIS);
        let found = match found {
            Some(found) if now.saturating_duration_since(found.at) < fresh => found,
            _ => found.insert(Found { at: now, networks: networks() }),
        };
        found.networks.iter().any(|network| network.holds(address))
    })
}

/// The networks that it stands for now, each once, as in a host list.
pub(crate) fn shown() -> String {
    let mut all: Vec<String> = Vec::new();
    for network in networks().iter().map(Network::to_string) {
        if !all.contains(&network) {
            all.push(network);
        }
    }
    all.join(", ")
}

/// The networks of the interfaces that are up; none if the query fails. One that is down has its
/// addresses still, but no neighbours: who has an address of its network comes from elsewhere.
fn networks() -> Vec<Network> {
    let interfaces = getifaddrs().into_iter().flatten();
    interfaces
        .filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|interface| Network::of(ip(&interface.address?)?, ip(&interface.netmask?)?))
        .collect()
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_what_their_masks_say() {
        let of = |address: &str, mask: &str| {
            Network::of(address.parse().unwrap(), mask.parse().unwrap())
        };
        let holds = |network: Option<Network>, address: &str| {
            network.is_some_and(|network| network.holds(address.parse().unwrap()))
        };
        let v4 = of("10.1.2.3", "255.255.0.0");
        assert_eq!(
            ["10.1.9.9", "10.2.0.1", "::ffff:a01:909"].map(|a| holds(v4, a)),
            [true, false, false]
        );
        let v6 = of("2001:db8::7", "ffff:ffff:ffff:ffff::");
        assert_eq!(["2001:db8::1:1", "2001:db8:0:1::1"].map(|a| holds(v6, a)), [true, false]);
        assert_eq!((of("10.1.2.3", "0.0.0.0"), of("fe80::1", "::")), (None, None));
        let shown = [v4, v6].map(|network| network.unwrap().to_string());
        assert_eq!(shown, ["10.1.0.0/16", "2001:db8::/64"]);
    }
}
