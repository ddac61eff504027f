//! The request in a line.

use crate::proxy_proto::{Target, host};

/// Where telnet servers listen.
const TELNET_PORT: u16 = 23;

/// Most characters of a line that are quoted in an error about it.
const SHOWN_CHARS: usize = 40;

/// The request in a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// It is empty.
    Nothing,
    /// To end.
    Quit,
    Connect(Target),
}

/// Parses `host`, `host port`, `host:port`, `quit` and `exit`; an error is a sentence that is safe for a
/// terminal.
pub(super) fn parse(line: &[u8]) -> Result<Request, String> {
    let text = String::from_utf8_lossy(line);
    let mut words = text.split_ascii_whitespace();
    let (named, port) = match (words.next(), words.next(), words.next()) {
        (None, ..) => return Ok(Request::Nothing),
        (Some("quit" | "exit"), None, _) => return Ok(Request::Quit),
        (Some(one), None, _) => host::split_port(one),
        (Some(host), port, None) => (host, port),
        _ => return Err(format!("{} is more than a host and a port", shown(&text))),
    };
    let host = host::parse(named.as_bytes())
        .ok_or_else(|| format!("{} is not a host; say: host, or: host port", shown(named)))?;
    let port = match port {
        None => TELNET_PORT,
        Some(port) => host::port(port)
            .ok_or_else(|| format!("{} is not a port; say a number, 1 to 65535", shown(port)))?,
    };
    Ok(Request::Connect(Target { host, port }))
}

fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(SHOWN_CHARS).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_and_without_a_port() {
        for (line, host, port) in [
            ("host", "host", 23),
            ("  host\t", "host", 23),
            ("host 2323", "host", 2323),
            ("host:2323", "host", 2323),
            ("127.0.0.1 7", "127.0.0.1", 7),
            ("::1", "::1", 23),
            ("::1 7", "::1", 7),
            ("[::1]", "::1", 23),
            ("[::1]:7", "::1", 7),
            ("quit 7", "quit", 7),
        ] {
            let target = Target { host: host.into(), port };
            assert_eq!(parse(line.as_bytes()), Ok(Request::Connect(target)), "{line}");
        }
        for (line, request) in [
            ("", Request::Nothing),
            (" \t ", Request::Nothing),
            ("quit", Request::Quit),
            (" exit ", Request::Quit),
        ] {
            assert_eq!(parse(line.as_bytes()), Ok(request), "{line:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_control_characters() {
        for (line, why) in [
            (&b"a b c"[..], r#""a b c" is more than a host and a port"#),
            (b"u@h", r#""u@h" is not a host; say: host, or: host port"#),
            (b"h\x1b[2J", r#""h\u{1b}[2J" is not a host; say: host, or: host port"#),
            (b"h\xff", "\"h\u{fffd}\" is not a host; say: host, or: host port"),
            (b":23", r#""" is not a host; say: host, or: host port"#),
            (b"host 0", r#""0" is not a port; say a number, 1 to 65535"#),
            (b"host:", r#""" is not a port; say a number, 1 to 65535"#),
        ] {
            assert_eq!(parse(line), Err(why.into()));
        }
        let long = parse(&[b'/'; 500]).unwrap_err();
        assert!(long.len() < 100, "{long}");
    }
}
