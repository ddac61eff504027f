//! A client's request: its target, and its form towards the server.

use httparse::{EMPTY_HEADER, Error, Request, Status as Parsed};

use super::HttpConfig;
use super::address::{is_host, resource, tunnel};
use super::authorization;
use super::body::Framing;
use super::fault::{Fault, Status};
use super::fields::{BadFields, Fields, Length, is_token, write_field, write_length, write_via};
use super::scan::NoHead;
use crate::limits::HTTP_FIELDS_MAX;
use crate::proxy_proto::Target;

/// Methods that do no more when they are done twice: RFC 9110 section 9.2.2.
const IDEMPOTENT: [&str; 6] = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"];

/// A parsed request.
pub(super) enum Asked {
    /// CONNECT.
    Tunnel(Target),
    Resource(Forwarded),
}

/// A request on its way to its server.
pub(super) struct Forwarded {
    pub(super) target: Target,
    /// As the server gets it.
    pub(super) head: Vec<u8>,
    pub(super) body: Framing,
    /// Whether it may be sent again to a server that closed without an answer.
    pub(super) is_repeatable: bool,
    pub(super) terms: Terms,
}

/// Properties of the request that its answer depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// HEAD: no answer has a body.
    pub(super) head_only: bool,
    /// The client's version is HTTP/1.0: no chunks, no answers before the answer.
    pub(super) old_client: bool,
    /// The client would go on with another protocol.
    pub(super) may_upgrade: bool,
    /// The client may send further requests on this connection.
    pub(super) keeps_client: bool,
}

/// Whether a request may begin so: with a method.
pub(super) fn begins(at: usize, byte: u8) -> bool {
    at > 0 || is_token(byte)
}

/// Whether an answer to this head has no content, even if the head is faulty: RFC 9110 section 9.3.2.
pub(super) fn is_for_head(head: &[u8]) -> bool {
    head.starts_with(b"HEAD ")
}

/// Reads a whole head.
pub(super) fn read(head: &[u8], config: &HttpConfig) -> Result<Asked, Fault> {
    let mut fields = [EMPTY_HEADER; HTTP_FIELDS_MAX];
    let mut request = Request::new(&mut fields);
    let parsed = request.parse(head).map_err(|error| not_parsed(error, head))?;
    let line = (request.method, request.path, request.version);
    // The end of the head was found before, and must be the same here.
    let (Parsed::Complete(end), (Some(method), Some(uri), Some(minor))) = (parsed, line) else {
        return Err(Fault::bad("the request has no whole head"));
    };
    if end != head.len() {
        return Err(Fault::bad("the request's head has an empty line"));
    }
    let fields = Fields::new(request.headers, minor).map_err(bad_fields)?;
    check_host(&fields, minor, method)?;
    if let Some(users) = &config.users {
        authorization::check(&fields, users)?;
    }
    if method == "CONNECT" {
        // RFC 9110 section 9.3.6: such a body has no meaning, so its end is undefined.
        return match fields.length {
            Length::Unsaid | Length::Bytes(0) => Ok(Asked::Tunnel(tunnel(uri)?)),
            _ => Err(Fault::bad("CONNECT has no body")),
        };
    }
    let resource = resource(uri, method)?;
    let hops = hops(&fields, method)?;
    let old_client = minor == 0;
    let upgrade = fields.upgrade().filter(|to| !old_client && !names_h2c(to));
    let terms = Terms {
        head_only: method == "HEAD",
        old_client,
        may_upgrade: upgrade.is_some(),
        // RFC 9112 section C.2.2: to a client of HTTP/1.0 a proxy does not keep a connection.
        keeps_client: !old_client && !fields.has_option("close"),
    };
    let mut head = format!("{method} {} HTTP/1.1\r\n", resource.path).into_bytes();
    write_field("Host", resource.authority.as_bytes(), &mut head);
    // RFC 9110 section 10.1.1: of HTTP/1.0 the expectation is not heard.
    let but = if old_client {
        &["host", "max-forwards", "expect"][..]
    } else {
        &["host", "max-forwards"]
    };
    fields.pass_on(but, &mut head);
    if let Some(hops) = hops {
        write_field("Max-Forwards", &hops, &mut head);
    }
    write_length(fields.length, &mut head);
    write_via(minor, &config.via, &mut head);
    match &upgrade {
        Some(to) => {
            write_field("Connection", b"upgrade", &mut head);
            write_field("Upgrade", to, &mut head);
        }
        None if !terms.keeps_client => write_field("Connection", b"close", &mut head),
        None => {}
    }
    head.extend_from_slice(b"\r\n");
    let body = match fields.length {
        Length::Unsaid => Framing::Length(0),
        Length::Bytes(bytes) => Framing::Length(bytes),
        Length::Chunked => Framing::Chunked,
    };
    let is_repeatable = body == Framing::Length(0) && IDEMPOTENT.contains(&method);
    Ok(Asked::Resource(Forwarded { target: resource.target, head, body, is_repeatable, terms }))
}

/// Exactly one in HTTP/1.1 (RFC 9112 section 3.2), and never two. CONNECT names its server in the first
/// line, and its head is not passed on, so a missing Host cannot mislead another party.
fn check_host(fields: &Fields<'_>, minor: u8, method: &str) -> Result<(), Fault> {
    let mut hosts = fields.values("host");
    match (hosts.next(), hosts.next()) {
        (None, _) if minor == 0 || method == "CONNECT" => Ok(()),
        (None, _) => Err(Fault::bad("the request has no Host")),
        (Some(_), Some(_)) => Err(Fault::bad("the request has several Hosts")),
        (Some(host), None) if is_host(host) => Ok(()),
        (Some(_), None) => Err(Fault::bad("the request's Host is none")),
    }
}

/// `Max-Forwards` for the next hop: RFC 9110 section 7.6.2. For other methods it goes on as it is.
fn hops(fields: &Fields<'_>, method: &str) -> Result<Option<Vec<u8>>, Fault> {
    let Some(value) = fields.values("max-forwards").next() else { return Ok(None) };
    if method != "OPTIONS" && method != "TRACE" {
        return Ok(Some(value.to_vec()));
    }
    let digits =
        std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match digits.and_then(|text| text.parse::<u64>().ok()) {
        None => Err(Fault::bad("Max-Forwards is no number")),
        Some(0) => Err(Fault::new(
            Status::NotImplemented,
            format!("Max-Forwards ends here, and the proxy itself has no answer to {method}"),
        )),
        Some(hops) => Ok(Some((hops - 1).to_string().into_bytes())),
    }
}

/// HTTP/2 in clear text needs more than a change of protocol, and RFC 9113 has given it up.
fn names_h2c(protocols: &[u8]) -> bool {
    protocols
        .split(|&byte| byte == b',')
        .any(|protocol| protocol.trim_ascii().eq_ignore_ascii_case(b"h2c"))
}

/// The fault of bytes that are no head.
pub(super) fn no_head(why: NoHead) -> Fault {
    match why {
        NoHead::Strange => Fault::bad("what was sent does not begin like HTTP; is it TLS?"),
        NoHead::BareLf => Fault::bad("a line of the request ends with LF and not with CRLF"),
        NoHead::BareCr => Fault::bad("the request's head has a CR that ends no line"),
        NoHead::TooLong => Fault::new(Status::FieldsTooLarge, "the request's head is too long"),
    }
}

fn bad_fields(why: BadFields) -> Fault {
    match why {
        BadFields::Coding => Fault::new(
            Status::NotImplemented,
            "no Transfer-Encoding but chunked is understood here",
        ),
        BadFields::Wrong(why) => Fault::bad(why),
    }
}

fn not_parsed(error: Error, head: &[u8]) -> Fault {
    match error {
        Error::Version if names_other_version(head) => {
            Fault::new(Status::VersionNotSupported, "HTTP/1.1 and HTTP/1.0 are spoken here")
        }
        Error::TooManyHeaders => {
            Fault::new(Status::FieldsTooLarge, "the request's head has too many fields")
        }
        Error::HeaderName => Fault::bad(
            "a field's name is none: is there a space before a colon, or a line that was folded?",
        ),
        Error::HeaderValue => Fault::bad("a field's value has a control character"),
        Error::NewLine | Error::Status | Error::Token | Error::Version => {
            Fault::bad("the request's first line is no METHOD ADDRESS HTTP/1.1")
        }
    }
}

/// Whether the first line is a request's but for its version.
fn names_other_version(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').take(4).collect();
    matches!(words[..], [_, _, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}
