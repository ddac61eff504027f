//! What the client says, from bytes. Every reader gives `None` while the message is not whole, and
//! a fault as soon as it shows, so that it makes no difference in which pieces the bytes come.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::reply::Reply;
use crate::endpoint::proxy::{Target, host};
use crate::limits::SOCKS_TEXT_BYTES;

/// The command CONNECT, in both versions; 2 is BIND, and 3, in version 5, UDP ASSOCIATE.
const CONNECT: u8 = 1;

/// What the client asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    Connect(Target),
    /// Another command.
    Other(u8),
}

/// Who the client says it is.
pub(super) struct Password<'b> {
    pub(super) user: &'b [u8],
    pub(super) password: &'b [u8],
}

/// What is wrong with a message.
#[derive(Debug)]
pub(super) struct Fault {
    /// What the client is told.
    pub(super) reply: Reply,
    /// For the log.
    pub(super) why: String,
}

/// What was read and the bytes that it had, once it is whole.
type Whole<T> = Result<Option<(T, usize)>, Fault>;

/// The methods that are offered (RFC 1928 section 3), behind a byte 5.
pub(super) fn methods(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = 2 + usize::from(*bytes.get(1)?);
    Some((bytes.get(2..end)?, end))
}

/// User and password (RFC 1929 section 2).
pub(super) fn password(bytes: &[u8]) -> Whole<Password<'_>> {
    match bytes.first() {
        None => return Ok(None),
        Some(1) => {}
        Some(version) => {
            return Err(fault(format!("{version} is no version of its password message")));
        }
    }
    let text = |at: usize| {
        let end = at + 1 + usize::from(*bytes.get(at)?);
        Some((bytes.get(at + 1..end)?, end))
    };
    let both = || {
        let (user, end) = text(1)?;
        let (password, end) = text(end)?;
        Some((Password { user, password }, end))
    };
    Ok(both())
}

/// A request of version 5 (RFC 1928 section 4). What stands in its reserved byte is ignored.
pub(super) fn five(bytes: &[u8]) -> Whole<Request> {
    match bytes {
        [] => return Ok(None),
        [5, ..] => {}
        [version, ..] => return Err(fault(format!("a request of version {version}"))),
    }
    let &[_, command, _, kind, ref rest @ ..] = bytes else { return Ok(None) };
    let address_bytes = match kind {
        1 => 4,
        4 => 16,
        3 => match rest.first() {
            Some(&length) => 1 + usize::from(length),
            None => return Ok(None),
        },
        other => {
            let why = format!("addresses of kind {other} are not supported");
            return Err(Fault { reply: Reply::AddressKindNotSupported, why });
        }
    };
    let Some((address, [high, low, ..])) = rest.split_at_checked(address_bytes) else {
        return Ok(None);
    };
    let whole_bytes = 4 + address_bytes + 2;
    if command != CONNECT {
        return Ok(Some((Request::Other(command), whole_bytes)));
    }
    let host = match (<[u8; 4]>::try_from(address), <[u8; 16]>::try_from(address)) {
        (Ok(octets), _) if kind == 1 => host::address_text(Ipv4Addr::from(octets).into()),
        (_, Ok(octets)) if kind == 4 => host::address_text(Ipv6Addr::from(octets).into()),
        _ => named(&address[1..])?,
    };
    connect(host, [*high, *low], whole_bytes)
}

/// A request of version 4, or of 4a: with an address of 0.0.0.1 to 0.0.0.255, and the host's name
/// behind the user's.
pub(super) fn four(bytes: &[u8]) -> Whole<Request> {
    let &[_, command, high, low, a, b, c, d, ref rest @ ..] = bytes else { return Ok(None) };
    let Some(user_bytes) = text_bytes(rest, "user's")? else { return Ok(None) };
    let mut whole_bytes = 8 + user_bytes + 1;
    let name = if [a, b, c] == [0; 3] && d != 0 {
        let rest = &bytes[whole_bytes..];
        let Some(name_bytes) = text_bytes(rest, "host's")? else { return Ok(None) };
        whole_bytes += name_bytes + 1;
        Some(&rest[..name_bytes])
    } else {
        None
    };
    if command != CONNECT {
        return Ok(Some((Request::Other(command), whole_bytes)));
    }
    let host = match name {
        Some(name) => named(name)?,
        None => host::address_text(Ipv4Addr::new(a, b, c, d).into()),
    };
    connect(host, [high, low], whole_bytes)
}

/// The bytes of a text before its NUL.
fn text_bytes(bytes: &[u8], whose: &str) -> Result<Option<usize>, Fault> {
    match bytes.iter().take(SOCKS_TEXT_BYTES + 1).position(|&byte| byte == 0) {
        None if bytes.len() > SOCKS_TEXT_BYTES => {
            Err(fault(format!("the {whose} name is longer than {SOCKS_TEXT_BYTES} bytes")))
        }
        found => Ok(found),
    }
}

fn named(name: &[u8]) -> Result<String, Fault> {
    host::parse(name)
        .ok_or_else(|| fault(format!("{:?} is not a host", String::from_utf8_lossy(name))))
}

fn connect(host: String, port: [u8; 2], whole_bytes: usize) -> Whole<Request> {
    match u16::from_be_bytes(port) {
        0 => Err(fault(format!("port 0 of {host} cannot be connected to"))),
        port => Ok(Some((Request::Connect(Target { host, port }), whole_bytes))),
    }
}

fn fault(why: String) -> Fault {
    Fault { reply: Reply::Failure, why }
}
