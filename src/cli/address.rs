//! Hosts and ports as the user writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::error::{Problem, quoted};
use super::number;

/// Longest host name: RFC 1035 section 2.3.4 allows 255 bytes on the wire, 253 as text.
const NAME_BYTES_MAX: usize = 253;

/// How an IPv6 address is written where a port follows.
const BRACKETS: &str = "write an IPv6 address in brackets, as in [::1]:9000";

/// A literal address: IPv4, IPv6, IPv6 in brackets, or IPv6 with the original's `_` for `:`.
pub(crate) fn literal(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    match bare {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text
            .parse::<IpAddr>()
            .ok()
            .or_else(|| text.replace('_', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6)),
    }
}

/// A host without its port: a literal address (given back without brackets, `_` turned into
/// `:`) or a name that could be looked up. A zone (`%eth0`) is kept.
pub(crate) fn host(text: &str) -> Result<String, Problem> {
    if let Some(address) = literal(text) {
        return Ok(address.to_string());
    }
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']').unwrap_or(inner);
        return match inner.split_once('%') {
            Some((address, zone)) if address.parse::<Ipv6Addr>().is_ok() && is_name(zone) => {
                Ok(inner.to_owned())
            }
            _ => Err(Problem::new(
                format!("{} is not an IPv6 address", quoted(text)),
                "brackets hold an IPv6 address, as in [2001:db8::1]:9000",
            )),
        };
    }
    if text.contains(':') {
        return Err(Problem::new(format!("{} is not a host", quoted(text)), BRACKETS));
    }
    if text.contains('@') {
        return Err(Problem::new(
            format!("{} has a user name in it", quoted(text)),
            "give the host alone: a user name has no meaning to a relay",
        ));
    }
    if !is_name(text) {
        return Err(Problem::new(
            format!("{} is not a host", quoted(text)),
            "give a name or an address, as in 127.0.0.1",
        ));
    }
    // `1.2.3` and `300.1.1.1` would go to the resolver, which reads some of them as addresses
    // that the user did not mean.
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(Problem::new(
            format!("{} is not an IPv4 address", quoted(text)),
            "give four numbers of 0 to 255, as in 127.0.0.1",
        ));
    }
    Ok(text.to_owned())
}

/// True when the text may be a host name: letters of any script, digits, `-`, `_` and `.`.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= NAME_BYTES_MAX
        && !text.starts_with(['-', '.'])
        && !text.contains("..")
        && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// Splits `host:rest` behind the host: `(host as written, Some(rest))`, or `None` for the rest
/// when there is no `:` behind the host.
pub(crate) fn split_host(text: &str) -> Result<(&str, Option<&str>), Problem> {
    if text.starts_with('[') {
        let Some(end) = text.find(']') else {
            return Err(Problem::new(format!("{} has no closing ]", quoted(text)), BRACKETS));
        };
        let (host, rest) = text.split_at(end + 1);
        return match rest.strip_prefix(':') {
            Some(rest) => Ok((host, Some(rest))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(Problem::new(
                format!("{} stands between ] and the port", quoted(rest)),
                BRACKETS,
            )),
        };
    }
    // `::1:9000` is ambiguous: it is an address as well.
    if text.starts_with("::") || text.parse::<Ipv6Addr>().is_ok() {
        return Err(Problem::new(
            format!("in {} it cannot be seen where the address ends", quoted(text)),
            BRACKETS,
        ));
    }
    match text.split_once(':') {
        Some((host, rest)) => Ok((host, Some(rest))),
        None => Ok((text, None)),
    }
}

/// A port number, 0 included: whether 0 has a meaning is up to the caller.
pub(crate) fn port(text: &str) -> Result<u16, Problem> {
    number::whole(text).ok_or_else(|| {
        Problem::new(format!("{} is not a port", quoted(text)), "give a number from 1 to 65535")
    })
}

/// A port to connect to: never 0.
pub(crate) fn remote_port(text: &str) -> Result<u16, Problem> {
    match port(text)? {
        0 => Err(Problem::new(
            "nothing can be reached at port 0",
            "give the port that the server listens on, 1 to 65535",
        )),
        port => Ok(port),
    }
}

/// `host:port`, an IPv6 address in brackets; `*` for every address.
pub(crate) fn show(host: Option<&str>, port: impl std::fmt::Display) -> String {
    match host {
        None => format!("*:{port}"),
        Some(host) if host.contains(':') => format!("[{host}]:{port}"),
        Some(host) => format!("{host}:{port}"),
    }
}

/// True when two local hosts cannot listen on one port: the same host, or one of them takes in
/// the other. Names are compared as written, for they are looked up only at start.
pub(crate) fn overlap(a: Option<&str>, b: Option<&str>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return true };
    if a.eq_ignore_ascii_case(b) {
        return true;
    }
    let takes_in = |any: &str, host: &str| match (any.parse(), host.parse()) {
        (Ok(IpAddr::V4(any)), Ok(IpAddr::V4(_))) => any == Ipv4Addr::UNSPECIFIED,
        (Ok(IpAddr::V6(any)), Ok(IpAddr::V6(_))) => any == Ipv6Addr::UNSPECIFIED,
        _ => false,
    };
    takes_in(a, b) || takes_in(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_in_every_form() {
        for (written, read) in [
            ("hostX", "hostX"),
            ("my_host.example", "my_host.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("__1", "::1"),
            ("2001_db8__7", "2001:db8::7"),
            ("[fe80::1%eth0]", "fe80::1%eth0"),
            ("büro", "büro"),
        ] {
            assert_eq!(host(written).as_deref(), Ok(read), "{written}");
        }
        for bad in
            ["", "a b", "1.2.3", "300.1.1.1", "[1.2.3.4]", "[::1", "a/b", "-x", "u@h", "a..b"]
        {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_port_is_found_behind_the_host() {
        assert_eq!(split_host("[::1]:80"), Ok(("[::1]", Some("80"))));
        assert_eq!(split_host("h:80:x"), Ok(("h", Some("80:x"))));
        assert_eq!(split_host(":80"), Ok(("", Some("80"))));
        assert_eq!(split_host("[::1]"), Ok(("[::1]", None)));
        for bad in ["::1:80", "2001:db8::1", "[::1", "[::1]80"] {
            assert!(split_host(bad).unwrap_err().to_string().contains("brackets"), "{bad}");
        }
    }

    #[test]
    fn ports_are_numbers_only() {
        assert_eq!(port("0"), Ok(0));
        assert_eq!(port("65535"), Ok(65535));
        for bad in ["", "65536", "-1", "+1", " 1", "1a", "99999999999999999999"] {
            assert!(port(bad).is_err(), "{bad}");
        }
        assert!(remote_port("0").is_err());
    }

    #[test]
    fn listeners_that_exclude_each_other() {
        assert!(overlap(None, Some("127.0.0.1")));
        assert!(overlap(Some("0.0.0.0"), Some("127.0.0.1")));
        assert!(overlap(Some("LocalHost"), Some("localhost")));
        assert!(!overlap(Some("0.0.0.0"), Some("::1")));
        assert!(!overlap(Some("127.0.0.1"), Some("127.0.0.2")));
    }
}
