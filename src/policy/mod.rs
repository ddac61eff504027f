//! Policy: which exit a stream takes, which destinations proxies may reach, how many streams
//! may exist at once, and how much memory all may take.

use std::net::{IpAddr, Ipv6Addr};

pub mod ceilings;
pub mod connection_limits;
pub mod destinations;
pub mod routing;
pub mod wrong_passwords;

/// What counts as one address where addresses are limited: of IPv6 a network of 64 bits, since that is
/// what a host is given. Those without a known address are one.
pub(crate) fn source_of(address: Option<IpAddr>) -> IpAddr {
    match address.map(|address| address.to_canonical()) {
        Some(IpAddr::V6(v6)) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        Some(v4) => v4,
        None => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_is_one_address_and_so_are_all_without_one() {
        let source = |text: &str| source_of(Some(text.parse().expect("an address")));
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:0:0:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_eq!(source_of(None), source_of(None));
    }
}
