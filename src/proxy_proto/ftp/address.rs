//! Addresses of data connections, as commands and replies have them: six numbers in RFC 959, text
//! between delimiters in RFC 2428.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// An error in the argument of EPRT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It cannot be read.
    Syntax,
    /// It is of a protocol other than IPv4 (1) and IPv6 (2).
    Protocol,
}

/// Reads the argument of PORT.
pub(super) fn of_port(argument: &[u8]) -> Option<SocketAddr> {
    match six_numbers(argument)? {
        (address, []) => Some(address),
        _ => None,
    }
}

/// Reads the argument of EPRT.
pub(super) fn of_eprt(argument: &[u8]) -> Result<SocketAddr, Fault> {
    let (protocol, host, port) = between_delimiters(argument).ok_or(Fault::Syntax)?;
    let ip: IpAddr = match protocol {
        "1" => host.parse().map(IpAddr::V4).map_err(|_| Fault::Syntax)?,
        "2" => host.parse().map(IpAddr::V6).map_err(|_| Fault::Syntax)?,
        _ => return Err(Fault::Protocol),
    };
    let port = number(port.as_bytes()).ok_or(Fault::Syntax)?;
    Ok(SocketAddr::new(ip, port))
}

/// The port in the text of 227. The text around the six numbers is ignored: some servers omit the
/// brackets, and clients have always looked for digits (RFC 1123, section 4.1.2.6).
pub(super) fn port_of_227(text: &[u8]) -> Option<u16> {
    let begins =
        |at: &usize| text[*at].is_ascii_digit() && (*at == 0 || !text[*at - 1].is_ascii_digit());
    let mut found = (0..text.len()).filter(begins).filter_map(|at| six_numbers(&text[at..]));
    found.next().map(|(address, _)| address.port())
}

/// The port in the text of 229: `(|||port|)`.
pub(super) fn port_of_229(text: &[u8]) -> Option<u16> {
    let open = text.iter().position(|&byte| byte == b'(')?;
    let close = text.iter().rposition(|&byte| byte == b')')?;
    let (_, _, port) = between_delimiters(text.get(open + 1..close)?)?;
    number(port.as_bytes())
}

/// The address as PORT and 227 have it.
pub(super) fn as_numbers(ip: Ipv4Addr, port: u16) -> String {
    let [a, b, c, d] = ip.octets();
    let [high, low] = port.to_be_bytes();
    format!("{a},{b},{c},{d},{high},{low}")
}

/// The command that names an address to a server.
pub(super) fn command(address: SocketAddr) -> String {
    let port = address.port();
    match address.ip() {
        IpAddr::V4(ip) => format!("PORT {}\r\n", as_numbers(ip, port)),
        IpAddr::V6(ip) => format!("EPRT |2|{ip}|{port}|\r\n"),
    }
}

/// Six numbers with commas between them, and the rest.
fn six_numbers(text: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let mut numbers = [0; 6];
    let mut rest = text;
    for (at, place) in numbers.iter_mut().enumerate() {
        if at > 0 {
            rest = rest.strip_prefix(b",")?.trim_ascii_start();
        }
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        *place = u8::try_from(number(&rest[..digits])?).ok()?;
        rest = &rest[digits..];
    }
    let [a, b, c, d, high, low] = numbers;
    let port = u16::from_be_bytes([high, low]);
    Some((SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), port), rest))
}

/// Three fields, each between two of the same printable character.
fn between_delimiters(text: &[u8]) -> Option<(&str, &str, &str)> {
    let text = std::str::from_utf8(text).ok()?;
    let delimiter = text.chars().next().filter(|c| c.is_ascii_graphic())?;
    let mut fields = text[1..].split(delimiter);
    match (fields.next(), fields.next(), fields.next(), fields.next(), fields.next()) {
        (Some(protocol), Some(host), Some(port), Some(""), None) => Some((protocol, host, port)),
        _ => None,
    }
}

/// Digits only: no sign, no blanks.
fn number(digits: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(digits).ok()?;
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn arguments_of_port() {
        assert_eq!(of_port(b"192,0,2,1,4,1"), Some(address("192.0.2.1:1025")));
        assert_eq!(of_port(b"1, 2, 3, 4, 255, 255"), Some(address("1.2.3.4:65535")));
        for bad in
            ["", "1,2,3,4,5", "1,2,3,4,5,6,7", "256,2,3,4,5,6", "1,2,3,4,5,6 ", "+1,2,3,4,5,6"]
                .into_iter()
                .chain(["1,,3,4,5,6", "1.2.3.4,5,6", "1,2,3,4,5,-6", "99999999999,2,3,4,5,6"])
        {
            assert_eq!(of_port(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn arguments_of_eprt() {
        assert_eq!(of_eprt(b"|1|192.0.2.1|1025|"), Ok(address("192.0.2.1:1025")));
        assert_eq!(of_eprt(b"!2!2001:db8::1!1025!"), Ok(address("[2001:db8::1]:1025")));
        for bad in ["", "|", "|1|192.0.2.1|1025", "|1|::1|1025|", "|2|1.2.3.4|1|", "|1|h|1|"]
            .into_iter()
            .chain([
                "|1|1.2.3.4|65536|",
                "|1|1.2.3.4|+1|",
                "|1|1.2.3.4||",
                "|1|1.2.3.4|1|x",
                " 1 1",
            ])
        {
            assert_eq!(of_eprt(bad.as_bytes()), Err(Fault::Syntax), "{bad}");
        }
        assert_eq!(of_eprt(b"|3|x|1|"), Err(Fault::Protocol));
        assert_eq!(of_eprt(b"\xff1\xff"), Err(Fault::Syntax));
    }

    #[test]
    fn ports_in_replies() {
        for (text, port) in [
            ("Entering Passive Mode (127,0,0,1,200,13).", Some(51213)),
            ("Entering Passive Mode. 127,0,0,1,200,13", Some(51213)),
            ("=127,0,0,1,200,13", Some(51213)),
            ("127,0,0,1,200,13", Some(51213)),
            ("Mode 2 of 2,3 (10, 0, 0, 1, 4, 0) ok", Some(1024)),
            ("Entering Passive Mode (127,0,0,1,256,13)", None),
            ("Entering Passive Mode (127,0,0,1,200)", None),
            ("Entering Passive Mode", None),
            ("", None),
        ] {
            assert_eq!(port_of_227(text.as_bytes()), port, "{text}");
        }
        for (text, port) in [
            ("Entering Extended Passive Mode (|||6446|)", Some(6446)),
            ("(!!!6446!).", Some(6446)),
            ("ok (|1|192.0.2.1|6446|)", Some(6446)),
            ("(|||6446)", None),
            ("(|||66446|)", None),
            ("||6446|", None),
            (")(", None),
            ("", None),
        ] {
            assert_eq!(port_of_229(text.as_bytes()), port, "{text}");
        }
    }

    #[test]
    fn commands_for_servers() {
        assert_eq!(command(address("192.0.2.1:1025")), "PORT 192,0,2,1,4,1\r\n");
        assert_eq!(command(address("[2001:db8::1]:1025")), "EPRT |2|2001:db8::1|1025|\r\n");
    }
}
