//! The login before a server is connected: `USER name@host[:port]` names it, and the proxy itself
//! answers all other commands.

use super::command::Command;
use crate::proxy_proto::{Target, host};

/// Where FTP servers listen.
const FTP_PORT: u16 = 21;

/// Most characters of a command that are quoted in an error about it.
const SHOWN_CHARS: usize = 40;

/// The argument of a login.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Login {
    /// For the server.
    pub(super) name: Vec<u8>,
    pub(super) target: Target,
}

/// Parses the argument of USER; an error is a sentence. The last `@` separates the host: names of users
/// may contain one.
pub(super) fn parse(argument: &[u8]) -> Result<Login, String> {
    let Some(at) = argument.iter().rposition(|&byte| byte == b'@') else {
        return Err("Say USER name@host or USER name@host:port".into());
    };
    let (name, server) = (&argument[..at], &argument[at + 1..]);
    if name.is_empty() {
        return Err("No name stands before the @".into());
    }
    let server = String::from_utf8_lossy(server);
    let (named, port) = host::split_port(&server);
    let host =
        host::parse(named.as_bytes()).ok_or_else(|| format!("{} is not a host", shown(named)))?;
    let port = match port {
        None => FTP_PORT,
        Some(port) => host::port(port).ok_or_else(|| format!("{} is not a port", shown(port)))?,
    };
    Ok(Login { name: name.to_vec(), target: Target { host, port } })
}

/// The answer to anything but USER, AUTH and QUIT.
pub(super) fn answer(command: &Command) -> &'static str {
    match &command.verb[..] {
        "NOOP" => "200 Done",
        "HELP" => "214 Say USER name@host or USER name@host:port",
        "PASS" | "ACCT" => "503 Say USER name@host first",
        _ => "530 Say USER name@host first",
    }
}

fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(SHOWN_CHARS).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_hosts() {
        for (argument, name, host, port) in [
            ("me@host", "me", "host", 21),
            ("me@host:2121", "me", "host", 2121),
            ("me@home@host", "me@home", "host", 21),
            ("me@::1", "me", "::1", 21),
            ("me@[::1]:7", "me", "::1", 7),
            ("@@h", "@", "h", 21),
        ] {
            let target = Target { host: host.into(), port };
            let login = Login { name: name.into(), target };
            assert_eq!(parse(argument.as_bytes()), Ok(login), "{argument}");
        }
        for (argument, why) in [
            ("me", "Say USER name@host or USER name@host:port"),
            ("", "Say USER name@host or USER name@host:port"),
            ("@host", "No name stands before the @"),
            ("me@", "\"\" is not a host"),
            ("me@a b", "\"a b\" is not a host"),
            ("me@h\x1b[2J", "\"h\\u{1b}[2J\" is not a host"),
            ("me@h:0", "\"0\" is not a port"),
            ("me@127.1", "\"127.1\" is not a host"),
        ] {
            assert_eq!(parse(argument.as_bytes()), Err(why.into()), "{argument}");
        }
    }
}
