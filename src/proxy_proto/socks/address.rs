//! Addresses with a port, as SOCKS 5 has them in requests, replies and datagrams (RFC 1928
//! section 5): their kind, the address, the port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::BufMut;

const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// A host as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Host<'b> {
    Address(IpAddr),
    /// Any bytes, up to 255.
    Text(&'b [u8]),
}

/// A kind of address that RFC 1928 does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OtherKind(pub(super) u8);

/// Reads the host, the port, and how many bytes both have, from the kind on; `None` while they are
/// not whole.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(Host<'_>, u16, usize)>, OtherKind> {
    let Some((&kind, rest)) = bytes.split_first() else { return Ok(None) };
    let whole = match kind {
        IPV4 => rest.split_first_chunk::<4>().map(|(octets, rest)| {
            let address = Ipv4Addr::from(*octets);
            (Host::Address(address.into()), rest)
        }),
        IPV6 => rest.split_first_chunk::<16>().map(|(octets, rest)| {
            let address = Ipv6Addr::from(*octets);
            (Host::Address(address.into()), rest)
        }),
        NAME => rest
            .split_first()
            .and_then(|(&length, rest)| rest.split_at_checked(usize::from(length)))
            .map(|(name, rest)| (Host::Text(name), rest)),
        other => return Err(OtherKind(other)),
    };
    let Some((host, [high, low, behind @ ..])) = whole else { return Ok(None) };
    let port = u16::from_be_bytes([*high, *low]);
    Ok(Some((host, port, bytes.len() - behind.len())))
}

/// Adds an address as [`read`] reads it. An IPv4 address in the form of an IPv6 one becomes the
/// former.
pub(super) fn write(address: SocketAddr, out: &mut Vec<u8>) {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => {
            out.put_u8(IPV4);
            out.put_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            out.put_u8(IPV6);
            out.put_slice(&v6.octets());
        }
    }
    out.put_u16(address.port());
}
