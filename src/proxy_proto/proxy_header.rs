//! The PROXY protocol: a header before the first byte of a connection, by which a balancer or relay
//! identifies the client. Format: "The PROXY protocol, versions 1 & 2" (proxy-protocol.txt of
//! HAProxy).
//!
//! Both versions are written and read. Reading is strict where a lenient reader could be made to
//! see another client than the sender meant: one blank between words, plain decimal ports, lengths
//! that fit the family.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf, BufMut};

use crate::cli::plan::ProxyHeader;
use crate::limits::PROXY_HEADER_BYTES;

/// Start of version 1 (section 2.1).
const BEGIN_1: &[u8] = b"PROXY ";

/// Longest line of version 1, its CR LF included (section 2.1).
const LINE_BYTES_MAX: usize = 107;

/// Start of version 2 (section 2.2).
const BEGIN_2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Fixed part of version 2: the start, version and command, family and transport, and the number of
/// bytes that follow.
const FIXED_BYTES: usize = 16;

/// Version 2 with the command LOCAL: the sender itself is the client.
const LOCAL: u8 = 0x20;
/// Version 2 with the command PROXY.
const PROXY: u8 = 0x21;

/// Family and transport of TCP over IPv4, whose addresses are 12 bytes: two of 4, two ports of 2.
const TCP4: u8 = 0x11;
/// The same over IPv6: two addresses of 16, two ports of 2.
const TCP6: u8 = 0x21;

/// Content of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// The connection is from this client, to that server.
    Client {
        /// The client's address.
        source: SocketAddr,
        /// The address that the client connected to.
        destination: SocketAddr,
    },
    /// The connection is the sender's own, such as a health check.
    Own,
    /// The connection is from a client that the sender cannot name.
    Unknown,
}

/// Result of reading the first bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// All of them belong to an incomplete header.
    More,
    /// A header.
    Header {
        /// Its length; the bytes behind it belong to the stream.
        len_bytes: usize,
        /// Its content.
        said: Said,
    },
}

/// The first bytes of a connection are no header. Layer: exits and entrances; scope: one
/// connection; caused by its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no PROXY header: {0}")]
pub struct NoHeader(&'static str);

/// Reads the header at the start of a connection.
///
/// # Errors
/// The bytes cannot become a header, or only one longer than [`PROXY_HEADER_BYTES`].
pub fn read(bytes: &[u8]) -> Result<Read, NoHeader> {
    let begins = |wanted: &[u8]| {
        let both = bytes.len().min(wanted.len());
        bytes[..both] == wanted[..both]
    };
    match (begins(BEGIN_1), begins(BEGIN_2)) {
        (true, _) => read_line(bytes),
        (_, true) => read_binary(bytes),
        _ => Err(NoHeader("it begins as neither version does")),
    }
}

/// Version 1: `PROXY TCP4 source destination port port`, CR LF.
fn read_line(bytes: &[u8]) -> Result<Read, NoHeader> {
    let window = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = window.iter().position(|&b| b == b'\n') else {
        return match window.len() {
            LINE_BYTES_MAX => Err(NoHeader("the line of version 1 has no end")),
            _ => Ok(Read::More),
        };
    };
    let Some(line) = window[..end].strip_suffix(b"\r") else {
        return Err(NoHeader("the line of version 1 ends without CR"));
    };
    let words = line.strip_prefix(BEGIN_1).ok_or(NoHeader("the line of version 1 is cut"))?;
    let said = line_says(words)?;
    Ok(Read::Header { len_bytes: end + 1, said })
}

fn line_says(words: &[u8]) -> Result<Said, NoHeader> {
    // Everything after UNKNOWN is to be ignored.
    if words == b"UNKNOWN" || words.starts_with(b"UNKNOWN ") {
        return Ok(Said::Unknown);
    }
    let words =
        std::str::from_utf8(words).map_err(|_| NoHeader("it has bytes that are no text"))?;
    let mut words = words.split(' ');
    let mut next = || words.next().ok_or(NoHeader("an address or a port is missing"));
    let family = next()?;
    let (source, destination) = (address(family, next()?)?, address(family, next()?)?);
    let (source_port, destination_port) = (port(next()?)?, port(next()?)?);
    if words.next().is_some() {
        return Err(NoHeader("something follows the second port"));
    }
    Ok(Said::Client {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    })
}

fn address(family: &str, text: &str) -> Result<IpAddr, NoHeader> {
    let read = match family {
        "TCP4" => text.parse().ok().map(IpAddr::V4),
        "TCP6" => text.parse().ok().map(IpAddr::V6),
        _ => return Err(NoHeader("the family is none of TCP4, TCP6, UNKNOWN")),
    };
    read.ok_or(NoHeader("an address is none of its family"))
}

/// A number without sign and without zeros before it (section 2.1).
fn port(text: &str) -> Result<u16, NoHeader> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).ok_or(NoHeader("a port is no number up to 65535"))
}

/// Version 2.
fn read_binary(bytes: &[u8]) -> Result<Read, NoHeader> {
    let Some(fixed) = bytes.first_chunk::<FIXED_BYTES>() else { return Ok(Read::More) };
    let [.., command, family, len_high, len_low] = *fixed;
    if !matches!(command, LOCAL | PROXY) {
        return Err(NoHeader("neither version 2 nor a command of it"));
    }
    let len_bytes = FIXED_BYTES + usize::from(u16::from_be_bytes([len_high, len_low]));
    if len_bytes > PROXY_HEADER_BYTES {
        return Err(NoHeader("it says that it is longer than is taken"));
    }
    let Some(body) = bytes.get(FIXED_BYTES..len_bytes) else { return Ok(Read::More) };
    let said = match (command, family) {
        (LOCAL, _) => Said::Own,
        (_, TCP4) => {
            let cut = NoHeader("its length does not hold two IPv4 addresses");
            let mut fields = body.get(..12).ok_or(cut)?;
            let mut address = || Ipv4Addr::from(fields.get_u32()).into();
            client((address(), address()), fields)
        }
        (_, TCP6) => {
            let cut = NoHeader("its length does not hold two IPv6 addresses");
            let mut fields = body.get(..36).ok_or(cut)?;
            let mut address = || Ipv6Addr::from(fields.get_u128()).into();
            client((address(), address()), fields)
        }
        // Unspecified, a Unix socket, UDP, or of a later version: no client that could be named
        // here.
        _ => Said::Unknown,
    };
    // The data after the addresses (TLVs) is not needed by a relay.
    Ok(Read::Header { len_bytes, said })
}

/// `ports` are two of 2 bytes.
fn client((source, destination): (IpAddr, IpAddr), mut ports: &[u8]) -> Said {
    Said::Client {
        source: SocketAddr::new(source, ports.get_u16()),
        destination: SocketAddr::new(destination, ports.get_u16()),
    }
}

/// Writes the header for a client that connected to `entrance`. If an address is unknown (or
/// unspecified), the header has no addresses: `UNKNOWN`, or the command LOCAL.
pub fn write(
    version: ProxyHeader,
    client: Option<SocketAddr>,
    entrance: Option<SocketAddr>,
) -> Vec<u8> {
    let known = |address: Option<SocketAddr>| address.filter(|a| !a.ip().is_unspecified());
    let both = known(client).zip(known(entrance)).map(|(client, entrance)| {
        let ips = (client.ip().to_canonical(), entrance.ip().to_canonical());
        (one_family(ips), (client.port(), entrance.port()))
    });
    match version {
        ProxyHeader::V1 => write_line(both),
        ProxyHeader::V2 => write_binary(both),
    }
}

/// Two addresses of one family.
enum Family {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

/// The header has one family for both: where they differ, IPv6 holds either.
fn one_family(ips: (IpAddr, IpAddr)) -> Family {
    let wide = |ip| match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    match ips {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Family::V4(source, destination),
        (source, destination) => Family::V6(wide(source), wide(destination)),
    }
}

fn write_line(both: Option<(Family, (u16, u16))>) -> Vec<u8> {
    let mut line = String::with_capacity(LINE_BYTES_MAX);
    // Writing to a string cannot fail.
    let _ = match both {
        None => write!(line, "PROXY UNKNOWN\r\n"),
        Some((Family::V4(source, destination), (from, to))) => {
            write!(line, "PROXY TCP4 {source} {destination} {from} {to}\r\n")
        }
        Some((Family::V6(source, destination), (from, to))) => {
            write!(line, "PROXY TCP6 {source} {destination} {from} {to}\r\n")
        }
    };
    line.into_bytes()
}

fn write_binary(both: Option<(Family, (u16, u16))>) -> Vec<u8> {
    let mut header = Vec::with_capacity(FIXED_BYTES + 36);
    header.put_slice(BEGIN_2);
    let Some((family, (from, to))) = both else {
        header.put_slice(&[LOCAL, 0, 0, 0]);
        return header;
    };
    match family {
        Family::V4(source, destination) => {
            header.put_slice(&[PROXY, TCP4, 0, 12]);
            header.put_slice(&source.octets());
            header.put_slice(&destination.octets());
        }
        Family::V6(source, destination) => {
            header.put_slice(&[PROXY, TCP6, 0, 36]);
            header.put_slice(&source.octets());
            header.put_slice(&destination.octets());
        }
    }
    header.put_u16(from);
    header.put_u16(to);
    header
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn said(bytes: &[u8]) -> Result<Said, &'static str> {
        match read(bytes) {
            Ok(Read::Header { len_bytes, said }) => {
                assert_eq!(len_bytes, bytes.len());
                Ok(said)
            }
            Ok(Read::More) => Err("more"),
            Err(NoHeader(why)) => Err(why),
        }
    }

    fn binary(command: u8, family: u8, len_bytes: u16, body: &[u8]) -> Vec<u8> {
        let mut header = BEGIN_2.to_vec();
        header.extend([command, family]);
        header.extend(len_bytes.to_be_bytes());
        header.extend(body);
        header
    }

    #[test]
    fn lines_of_version_1() {
        let v4 = Said::Client { source: at("192.0.2.1:56324"), destination: at("192.0.2.2:443") };
        let v6 = Said::Client { source: at("[2001:db8::1]:5"), destination: at("[::1]:65535") };
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
        assert_eq!(longest.len(), LINE_BYTES_MAX);
        for (line, wanted) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", Ok(v4)),
            ("PROXY TCP6 2001:db8::1 ::1 5 65535\r\n", Ok(v6)),
            ("PROXY TCP6 2001:0db8:0:0:0:0:0:1 ::1 5 65535\r\n", Ok(v6)),
            ("PROXY UNKNOWN\r\n", Ok(Said::Unknown)),
            ("PROXY UNKNOWN ffff::1 ? 70000 \u{e4}\r\n", Ok(Said::Unknown)),
            (&longest, Ok(Said::Unknown)),
            ("", Err("more")),
            ("PROX", Err("more")),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r", Err("more")),
            ("GET / HTTP/1.0\r\n", Err("it begins as neither version does")),
            ("proxy UNKNOWN\r\n", Err("it begins as neither version does")),
            (&longest.replacen('x', "xx", 1), Err("the line of version 1 has no end")),
            (
                "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\n",
                Err("the line of version 1 ends without CR"),
            ),
            ("PROXY UNKNOWNS\r\n", Err("an address or a port is missing")),
            ("PROXY \r\n", Err("an address or a port is missing")),
            ("PROXY TCP4\r\n", Err("an address or a port is missing")),
            (
                "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
                Err("the family is none of TCP4, TCP6, UNKNOWN"),
            ),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", Err("an address or a port is missing")),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", Err("something follows the second port")),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", Err("something follows the second port")),
            ("PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n", Err("an address is none of its family")),
            ("PROXY TCP4 ::1 ::2 1 2\r\n", Err("an address is none of its family")),
            ("PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", Err("an address is none of its family")),
            ("PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", Err("an address is none of its family")),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", Err("a port is no number up to 65535")),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", Err("a port is no number up to 65535")),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n", Err("a port is no number up to 65535")),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1\t2\r\n", Err("a port is no number up to 65535")),
        ] {
            assert_eq!(said(line.as_bytes()), wanted, "{line:?}");
        }
        assert_eq!(said(b"PROXY TCP4 \xff\r\n"), Err("it has bytes that are no text"));
    }

    #[test]
    fn headers_of_version_2() {
        let body4 = [192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 0x04, 0x01, 0xbb];
        let v4 = Said::Client { source: at("192.0.2.1:56324"), destination: at("192.0.2.2:443") };
        let tlv = [&body4[..], &[0x04, 0, 1, 9]].concat();
        for (header, wanted) in [
            (binary(PROXY, TCP4, 12, &body4), Ok(v4)),
            (binary(PROXY, TCP4, 16, &tlv), Ok(v4)),
            (binary(LOCAL, 0, 0, &[]), Ok(Said::Own)),
            (binary(LOCAL, TCP4, 12, &body4), Ok(Said::Own)),
            (binary(PROXY, 0, 3, b"abc"), Ok(Said::Unknown)),
            (binary(PROXY, 0x31, 216, &[1; 216]), Ok(Said::Unknown)),
            (binary(PROXY, 0x12, 12, &body4), Ok(Said::Unknown)),
            (binary(PROXY, TCP4, 12, &body4[..11]), Err("more")),
            (
                binary(PROXY, TCP4, 11, &body4[..11]),
                Err("its length does not hold two IPv4 addresses"),
            ),
            (binary(PROXY, TCP6, 35, &[1; 35]), Err("its length does not hold two IPv6 addresses")),
            (binary(0x22, TCP4, 12, &body4), Err("neither version 2 nor a command of it")),
            (binary(0x11, TCP4, 12, &body4), Err("neither version 2 nor a command of it")),
            (binary(PROXY, TCP4, 0xffff, &[]), Err("it says that it is longer than is taken")),
            (b"\r\n\r\n\0\r\nQUIT".to_vec(), Err("more")),
            (b"\r\n\r\n\0\r\nQUIt\n".to_vec(), Err("it begins as neither version does")),
        ] {
            assert_eq!(said(&header), wanted, "{header:x?}");
        }
    }

    #[test]
    fn who_is_not_known_is_said_to_be_so() {
        let (client, entrance) = (Some(at("192.0.2.1:1")), Some(at("192.0.2.2:2")));
        let nobody = Some(crate::wire::NO_ADDRESS);
        for (client, entrance) in
            [(None, entrance), (client, None), (nobody, entrance), (client, nobody)]
        {
            assert_eq!(write(ProxyHeader::V1, client, entrance), b"PROXY UNKNOWN\r\n");
            assert_eq!(said(&write(ProxyHeader::V2, client, entrance)), Ok(Said::Own));
        }
    }

    #[test]
    fn families_that_differ_are_written_as_ipv6() {
        let line = write(ProxyHeader::V1, Some(at("[2001:db8::1]:1")), Some(at("192.0.2.2:2")));
        assert_eq!(line, b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.2 1 2\r\n");
        let mapped = (Some(at("[::ffff:192.0.2.1]:1")), Some(at("192.0.2.2:2")));
        let line = write(ProxyHeader::V1, mapped.0, mapped.1);
        assert_eq!(line, b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
    }

    fn any_address() -> impl Strategy<Value = SocketAddr> {
        let ip = prop_oneof![
            (1_u32..).prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
            (1_u128 << 64..).prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
        ];
        (ip, any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            client in any_address(), entrance in any_address(), second in any::<bool>()
        ) {
            let version = if second { ProxyHeader::V2 } else { ProxyHeader::V1 };
            let mut bytes = write(version, Some(client), Some(entrance));
            for cut in 0..bytes.len() {
                prop_assert_eq!(read(&bytes[..cut]), Ok(Read::More));
            }
            let len_bytes = bytes.len();
            bytes.extend(b"what follows");
            let Ok(Read::Header { len_bytes: read_bytes, said: Said::Client { source, destination } }) =
                read(&bytes) else { panic!("{bytes:?}") };
            prop_assert_eq!(read_bytes, len_bytes);
            let canonical = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
            prop_assert_eq!((canonical(source), canonical(destination)), (client, entrance));
        }
    }
}
