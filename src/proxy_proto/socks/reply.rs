//! Encoding of the proxy's replies.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::address;
use crate::cli::plan::Proxy;
use crate::proxy_proto::Unreached;

/// Method of RFC 1928 section 3: no authentication.
pub(super) const NO_AUTHENTICATION: u8 = 0;
/// Method of RFC 1928 section 3: user and password (RFC 1929).
pub(super) const USER_PASSWORD: u8 = 2;
/// RFC 1928 section 3: none of the methods is acceptable.
pub(super) const NO_METHOD: u8 = 0xff;

/// Version of SOCKS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// 4 and 4a.
    Four,
    Five,
}

impl Version {
    /// Its word in `PERMIT=` and `AUTHORIZER=`.
    pub(super) fn proxy(self) -> Proxy {
        match self {
            Version::Four => Proxy::Socks4,
            Version::Five => Proxy::Socks5,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Version::Four { "4" } else { "5" })
    }
}

/// Result of a request: the numbers of RFC 1928 section 6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    Granted = 0,
    Failure = 1,
    NotAllowed = 2,
    HostUnreachable = 4,
    ConnectionRefused = 5,
    /// Its text is "TTL expired", which servers commonly use for a connect that timed out.
    TimedOut = 6,
    CommandNotSupported = 7,
    AddressKindNotSupported = 8,
}

impl From<&Unreached> for Reply {
    fn from(unreached: &Unreached) -> Self {
        match unreached {
            Unreached::NotPermitted(_) => Reply::NotAllowed,
            Unreached::NameNotFound(_) => Reply::HostUnreachable,
            Unreached::Refused(_) => Reply::ConnectionRefused,
            Unreached::TimedOut(_) => Reply::TimedOut,
            Unreached::Other(_) => Reply::Failure,
        }
    }
}

/// The selected method.
pub(super) fn method(method: u8) -> Vec<u8> {
    vec![5, method]
}

/// Whether user and password are accepted; 1 is the version of RFC 1929.
pub(super) fn password(known: bool) -> Vec<u8> {
    vec![1, u8::from(!known)]
}

/// The reply to a request, with its address if there is one: ours towards the server, that of an
/// opened port, or that of the host that connected to one.
pub(super) fn request(version: Version, reply: Reply, address: Option<SocketAddr>) -> Vec<u8> {
    let none = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let address = address.unwrap_or(none);
    match version {
        Version::Four => {
            // 90 is "granted", 91 "rejected or failed"; there is no room for an IPv6 address.
            let code = if reply == Reply::Granted { 90 } else { 91 };
            let octets = match address.ip().to_canonical() {
                IpAddr::V4(address) => address.octets(),
                IpAddr::V6(_) => [0; 4],
            };
            [&[0, code], &address.port().to_be_bytes()[..], &octets].concat()
        }
        Version::Five => {
            let mut said = vec![5, reply as u8, 0];
            address::write(address, &mut said);
            said
        }
    }
}

/// The reply to a request of version 4 where users must authenticate: 93 is "client and user do not
/// belong together".
pub(super) fn no_such_user() -> Vec<u8> {
    vec![0, 93, 0, 0, 0, 0, 0, 0]
}
