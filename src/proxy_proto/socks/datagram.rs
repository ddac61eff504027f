//! The header of each datagram that passes a port of UDP ASSOCIATE (RFC 1928 section 7): two
//! reserved bytes, the number of a fragment, and where the datagram goes to or came from.

use std::fmt;
use std::net::SocketAddr;

use super::address::{self, Host, OtherKind};
use crate::proxy_proto::host;

/// The longest header: reserved bytes, fragment and kind (4), a name with its length (256), a port.
pub const HEADER_BYTES_MAX: usize = 4 + 256 + 2;

/// Reserved bytes and fragment.
const BEFORE_ADDRESS_BYTES: usize = 3;

/// Where a datagram goes to. The port is never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatagramTarget<'d> {
    /// An address, never an IPv4 one in the form of an IPv6 one.
    Address(SocketAddr),
    /// A name that may be looked up, and a port.
    Name(&'d str, u16),
}

/// Why a datagram is not sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// The datagram ends in its header.
    Short,
    /// It is a fragment; support of these is optional.
    Fragment,
    /// It has an address of this kind, which is none.
    Kind(u8),
    /// Its host is none that could be looked up.
    Host,
    /// Its port is 0.
    Port,
}

/// As a clause for the log.
impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::Short => f.write_str("the datagram ends in its header"),
            HeaderError::Fragment => f.write_str("fragments are not supported"),
            HeaderError::Kind(kind) => write!(f, "addresses of kind {kind} are not supported"),
            HeaderError::Host => f.write_str("what should be a host's name is none"),
            HeaderError::Port => f.write_str("port 0 cannot be sent to"),
        }
    }
}

/// Parses a datagram's destination and the length of its header. The reserved bytes are ignored.
///
/// # Errors
/// The reason why it cannot be passed on.
pub fn read(datagram: &[u8]) -> Result<(DatagramTarget<'_>, usize), HeaderError> {
    let (&[_, _, fragment], rest) =
        datagram.split_first_chunk::<BEFORE_ADDRESS_BYTES>().ok_or(HeaderError::Short)?;
    if fragment != 0 {
        return Err(HeaderError::Fragment);
    }
    let (host, port, address_bytes) = address::read(rest)
        .map_err(|OtherKind(kind)| HeaderError::Kind(kind))?
        .ok_or(HeaderError::Short)?;
    if port == 0 {
        return Err(HeaderError::Port);
    }
    let to = match host {
        Host::Address(address) => {
            DatagramTarget::Address(SocketAddr::new(address.to_canonical(), port))
        }
        Host::Text(text) => match host::read(text).ok_or(HeaderError::Host)? {
            host::Host::Address(address) => DatagramTarget::Address(SocketAddr::new(address, port)),
            host::Host::Name(name) => DatagramTarget::Name(name, port),
        },
    };
    Ok((to, BEFORE_ADDRESS_BYTES + address_bytes))
}

/// Adds the header of a datagram that came from this address.
pub fn write(from: SocketAddr, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; BEFORE_ADDRESS_BYTES]);
    address::write(from, out);
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::proxy_proto::socks::socks_datagram;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn headers_in_every_form() {
        let v6 = [&b"\0\0\0\x04\x20\x01\x0d\xb8"[..], &[0; 11], b"\x01\0\x35data"].concat();
        let mapped = [&b"\0\0\0\x04"[..], &[0; 10], b"\xff\xff\x0a\0\0\x01\0\x35"].concat();
        let name = "n".repeat(250);
        let long = [&b"\0\0\0\x03\xfa"[..], name.as_bytes(), b"\0\x35"].concat();
        for (datagram, to, header_bytes) in [
            (
                &b"\0\0\0\x01\x0a\0\0\x01\x01\x02data"[..],
                DatagramTarget::Address(address("10.0.0.1:258")),
                10,
            ),
            (
                b"\x01\x02\0\x01\x0a\0\0\x01\0\x35",
                DatagramTarget::Address(address("10.0.0.1:53")),
                10,
            ),
            (&v6, DatagramTarget::Address(address("[2001:db8::1]:53")), 22),
            (&mapped, DatagramTarget::Address(address("10.0.0.1:53")), 22),
            (b"\0\0\0\x03\x0bexample.org\0\x35", DatagramTarget::Name("example.org", 53), 18),
            (
                b"\0\0\0\x03\x0810.0.0.1\0\x35data",
                DatagramTarget::Address(address("10.0.0.1:53")),
                15,
            ),
            (b"\0\0\0\x03\x05[::1]\0\x35data", DatagramTarget::Address(address("[::1]:53")), 12),
            (&long, DatagramTarget::Name(&name, 53), 257),
        ] {
            assert_eq!(read(datagram), Ok((to, header_bytes)), "{datagram:?}");
            for cut in 0..header_bytes {
                assert_eq!(
                    read(&datagram[..cut]),
                    Err(HeaderError::Short),
                    "{datagram:?} cut at {cut}"
                );
            }
        }
        for (datagram, why) in [
            (&b"\0\0\x01\x01\x0a\0\0\x01\x01\x02data"[..], HeaderError::Fragment),
            (b"\0\0\x80", HeaderError::Fragment),
            (b"\0\0\0\x02\x0a\0\0\x01\x01\x02data", HeaderError::Kind(2)),
            (b"\0\0\0\x01\x0a\0\0\x01\0\0data", HeaderError::Port),
            (b"\0\0\0\x03\0\0\x35", HeaderError::Host),
            (b"\0\0\0\x03\x05127.1\0\x35", HeaderError::Host),
            (b"\0\0\0\x03\x02a\xff\0\x35", HeaderError::Host),
        ] {
            assert_eq!(read(datagram), Err(why), "{datagram:?}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for (from, header) in [
            ("10.0.0.1:258", &b"\0\0\0\x01\x0a\0\0\x01\x01\x02"[..]),
            ("[::ffff:10.0.0.1]:258", b"\0\0\0\x01\x0a\0\0\x01\x01\x02"),
            ("[::1]:53", b"\0\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x35"),
        ] {
            let mut out = Vec::new();
            write(address(from), &mut out);
            assert_eq!(out, header);
        }
    }

    proptest! {
        #[test]
        fn any_datagram(data in vec(any::<u8>(), 0..300)) {
            socks_datagram::run(&data);
        }

        #[test]
        fn any_address(
            kind in 0..5u8,
            length in 0..8u8,
            name in "[a-z0-9.:\\[\\]-]{0,8}",
            rest in vec(any::<u8>(), 0..24),
        ) {
            let address = if kind == 3 { [&[length], name.as_bytes()].concat() } else { rest };
            socks_datagram::run(&[&[0, 0, 0, kind], &address[..], &[0, 53]].concat());
        }
    }
}
