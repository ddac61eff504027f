//! Parsing of the client's messages. Every reader returns `None` while the message is incomplete,
//! and an error as soon as it shows, so that the result does not depend on how the bytes are split.

use std::net::{IpAddr, Ipv4Addr};

use super::address::{self, Host, OtherKind};
use super::reply::Reply;
use crate::limits::SOCKS_TEXT_BYTES;
use crate::proxy_proto::{Target, host};

/// Commands of both versions.
const CONNECT: u8 = 1;
const BIND: u8 = 2;
/// UDP ASSOCIATE, of version 5.
const ASSOCIATE: u8 = 3;

/// The client's request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    Connect(Target),
    /// The host that will connect; the port may be 0 for unknown.
    Bind(Target),
    /// The address that the client will send from is ignored: the entrance accepts the client's own
    /// address and no other.
    Associate,
    /// Another command.
    Other(u8),
}

/// User and password of the client.
pub(super) struct Password<'b> {
    pub(super) user: &'b [u8],
    pub(super) password: &'b [u8],
}

/// An invalid message.
#[derive(Debug)]
pub(super) struct Fault {
    /// The reply to the client.
    pub(super) reply: Reply,
    /// For the log.
    pub(super) why: String,
}

/// The parsed value and its length in bytes, once it is complete.
type Whole<T> = Result<Option<(T, usize)>, Fault>;

/// The offered methods (RFC 1928 section 3), after a byte 5.
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

/// A request of version 5 (RFC 1928 section 4). Its reserved byte is ignored.
pub(super) fn five(bytes: &[u8]) -> Whole<Request> {
    match bytes {
        [] => return Ok(None),
        [5, ..] => {}
        [version, ..] => return Err(fault(format!("a request of version {version}"))),
    }
    let Some((&[_, command, _], rest)) = bytes.split_first_chunk() else { return Ok(None) };
    let read = address::read(rest).map_err(|OtherKind(kind)| Fault {
        reply: Reply::AddressKindNotSupported,
        why: format!("addresses of kind {kind} are not supported"),
    })?;
    let Some((host, port, address_bytes)) = read else { return Ok(None) };
    let request = match command {
        CONNECT => connect(self::host(host)?, port)?,
        BIND => bind(host, port)?,
        ASSOCIATE => Request::Associate,
        other => Request::Other(other),
    };
    Ok(Some((request, 3 + address_bytes)))
}

/// A request of version 4, or of 4a: with an address of 0.0.0.1 to 0.0.0.255, and the host's name
/// after the user's.
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
    let host = name.map_or(Host::Address(Ipv4Addr::new(a, b, c, d).into()), Host::Text);
    let port = u16::from_be_bytes([high, low]);
    let request = match command {
        CONNECT => connect(self::host(host)?, port)?,
        BIND => bind(host, port)?,
        other => Request::Other(other),
    };
    Ok(Some((request, whole_bytes)))
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

fn host(host: Host<'_>) -> Result<String, Fault> {
    match host {
        Host::Address(address) => Ok(host::address_text(address)),
        Host::Text(text) => host::parse(text)
            .ok_or_else(|| fault(format!("{:?} is not a host", String::from_utf8_lossy(text)))),
    }
}

fn connect(host: String, port: u16) -> Result<Request, Fault> {
    match port {
        0 => Err(fault(format!("port 0 of {host} cannot be connected to"))),
        port => Ok(Request::Connect(Target { host, port })),
    }
}

/// Only the host that the client has named may connect: otherwise the port would be open to strangers.
/// The port is that of the server which the client is connected to already; clients that do not know
/// it send 0.
fn bind(host: Host<'_>, port: u16) -> Result<Request, Fault> {
    let is_empty = matches!(host, Host::Text([]));
    let host = if is_empty { String::new() } else { self::host(host)? };
    if is_empty || host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified()) {
        let why = "BIND needs the host that will connect".to_owned();
        return Err(Fault { reply: Reply::NotAllowed, why });
    }
    Ok(Request::Bind(Target { host, port }))
}

fn fault(why: String) -> Fault {
    Fault { reply: Reply::Failure, why }
}
