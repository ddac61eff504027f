//! Hosts as the clients of proxies name them.

use std::net::{IpAddr, Ipv6Addr};

/// Longest host name as text: RFC 1035 section 2.3.4 leaves 253 of 255 bytes.
const NAME_BYTES_MAX: usize = 253;

/// A host as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Host<'t> {
    /// Never an IPv4 address in the form of an IPv6 one.
    Address(IpAddr),
    /// One that may be looked up.
    Name(&'t str),
}

/// The host that a client named, as [`Target`](super::Target) has it; see [`read`].
pub(super) fn parse(text: &[u8]) -> Option<String> {
    Some(match read(text)? {
        Host::Address(address) => address.to_string(),
        Host::Name(name) => name.to_owned(),
    })
}

/// The host that a client named: a literal address (IPv6 with or without brackets; an IPv4 address
/// that is written as an IPv6 one becomes the former), or a name that may be looked up.
///
/// `None` is anything else. A text that ends in a number without being an address (`127.1`, `0x7f000001`,
/// `2130706433`) is refused too: resolvers parse it as an address that is not apparent.
pub(super) fn read(text: &[u8]) -> Option<Host<'_>> {
    let text = std::str::from_utf8(text).ok()?;
    if let Some(inner) = text.strip_prefix('[') {
        let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some(Host::Address(IpAddr::from(address).to_canonical()));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(Host::Address(address.to_canonical()));
    }
    // A dot at its end marks a fully qualified name.
    let name = text.strip_suffix('.').unwrap_or(text);
    let proper = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with('-')
        && name.split('.').all(|label| !label.is_empty())
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'));
    let last = name.rsplit('.').next().unwrap_or(name);
    (proper && !is_number(last)).then_some(Host::Name(text))
}

/// An address as [`Target`](super::Target) has it.
pub(super) fn address_text(address: IpAddr) -> String {
    address.to_canonical().to_string()
}

/// Splits `host:port`; an IPv6 address has to be in brackets before a port.
pub(super) fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if host.ends_with(']') || !host.contains(':') => (host, Some(port)),
        _ => (text, None),
    }
}

/// A port to connect to, in digits.
pub(super) fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|&port| digits && port != 0)
}

/// As inet_aton(3) reads numbers: decimal, octal or hexadecimal.
fn is_number(label: &str) -> bool {
    let hexadecimal = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    match hexadecimal {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => label.bytes().all(|b| b.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_in_every_form() {
        for (named, host) in [
            ("example.org", "example.org"),
            ("example.org.", "example.org."),
            ("my_host", "my_host"),
            ("büro", "büro"),
            ("0x7g", "0x7g"),
            ("1.2.3.example", "1.2.3.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "::1"),
            ("[2001:DB8::7]", "2001:db8::7"),
            ("::ffff:127.0.0.1", "127.0.0.1"),
        ] {
            assert_eq!(parse(named.as_bytes()).as_deref(), Some(host), "{named}");
        }
        for bad in [
            "",
            ".",
            "a b",
            "a\0b",
            "a\x1b[2J",
            "a\n",
            "a..b",
            ".a",
            "-x",
            "u@h",
            "a/b",
            "h:80",
            "127.1",
            "300.1.1.1",
            "1.2.3.4.",
            "0x7f000001",
            "a.0X7f",
            "a.0x",
            "2130706433",
            "[127.0.0.1]",
            "[::1",
            "::1]",
            "fe80::1%eth0",
            "[]",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(parse(b"a\xff"), None);
        assert_eq!(parse(&[b'a'; 254]), None);
        assert!(parse(&[b'a'; 253]).is_some());
    }

    #[test]
    fn ports_are_digits_and_not_0() {
        assert_eq!(port("23"), Some(23));
        assert_eq!(port("65535"), Some(65535));
        for bad in ["", "0", "65536", "+23", "-1", "2 3", "telnet", "99999999999999999999"] {
            assert_eq!(port(bad), None, "{bad:?}");
        }
    }
}
