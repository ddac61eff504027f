//! A server's answer: its form towards the client, and whether both connections are kept.

use std::borrow::Cow;

use httparse::{EMPTY_HEADER, ParserConfig, Response, Status};

use super::body::Framing;
use super::fields::{BadFields, Fields, Length, write_field, write_length, write_via};
use super::request::Terms;
use super::scan::NoHead;
use crate::limits::HTTP_FIELDS_MAX;

/// A server's answer.
#[derive(Debug)]
pub(super) enum Answered {
    /// An answer before the answer, as the client gets it: nothing, if it knows no such thing.
    Interim(Option<Vec<u8>>),
    /// The other protocol begins behind this.
    Switched(Vec<u8>),
    Final(Final),
}

/// The answer, as the client gets it.
#[derive(Debug)]
pub(super) struct Final {
    pub(super) head: Vec<u8>,
    pub(super) body: Framing,
    /// Whether the client may send further requests on this connection, as the answer announces.
    pub(super) keeps_client: bool,
    /// Whether the server's connection may carry further requests.
    pub(super) keeps_server: bool,
}

/// Whether an answer may begin so.
pub(super) fn begins(at: usize, byte: u8) -> bool {
    b"HTTP/1.".get(at).is_none_or(|&expected| byte == expected)
}

/// Reads a whole head; an error is a sentence about the server.
pub(super) fn read(head: &[u8], terms: Terms, via: &str) -> Result<Answered, Cow<'static, str>> {
    let mut fields = [EMPTY_HEADER; HTTP_FIELDS_MAX];
    let mut response = Response::new(&mut fields);
    let mut parser = ParserConfig::default();
    // RFC 9112 section 5.1: a proxy takes the blanks away and does not refuse.
    parser.allow_spaces_after_header_name_in_responses(true);
    let parsed = parser
        .parse_response(&mut response, head)
        .map_err(|error| format!("the server's answer is malformed: {error}"))?;
    // The end of the head was found before, and must be the same here.
    let (Status::Complete(end), Some(minor), Some(code @ 100..)) =
        (parsed, response.version, response.code)
    else {
        return Err("the server's answer has no status".into());
    };
    if end != head.len() {
        return Err("the server's answer is malformed: an empty line in its head".into());
    }
    let reason = response.reason.unwrap_or_default();
    let fields = Fields::new(response.headers, minor).map_err(|why| match why {
        BadFields::Coding => "the server's answer has a transfer coding beside chunked".into(),
        BadFields::Wrong(why) => Cow::from(format!("the server's answer is malformed: {why}")),
    })?;
    let mut head = format!("HTTP/1.1 {code} {reason}\r\n").into_bytes();
    fields.pass_on(&[], &mut head);
    if code == 101 {
        let Some(to) = fields.upgrade().filter(|_| terms.may_upgrade) else {
            return Err("the server changes to another protocol, for which nobody asked".into());
        };
        write_via(minor, via, &mut head);
        write_field("Connection", b"upgrade", &mut head);
        write_field("Upgrade", &to, &mut head);
        head.extend_from_slice(b"\r\n");
        return Ok(Answered::Switched(head));
    }
    if code < 200 {
        write_via(minor, via, &mut head);
        head.extend_from_slice(b"\r\n");
        return Ok(Answered::Interim((!terms.old_client).then_some(head)));
    }
    let body = match fields.length {
        // RFC 9112 section 6.3: regardless of the fields.
        _ if terms.head_only || matches!(code, 204 | 304) => Framing::Length(0),
        Length::Bytes(bytes) => Framing::Length(bytes),
        Length::Chunked if terms.old_client => Framing::Unchunked,
        Length::Chunked => Framing::Chunked,
        Length::Unsaid => Framing::UntilEnd,
    };
    let ends_with_connection = matches!(body, Framing::UntilEnd | Framing::Unchunked);
    let keeps_client = terms.keeps_client && !ends_with_connection;
    let server_stays =
        if minor == 0 { fields.has_option("keep-alive") } else { !fields.has_option("close") };
    match fields.length {
        // RFC 9110 section 8.6, and what no client of HTTP/1.0 knows.
        Length::Bytes(_) if code == 204 => {}
        Length::Chunked if body != Framing::Chunked => {}
        length => write_length(length, &mut head),
    }
    write_via(minor, via, &mut head);
    if !keeps_client {
        write_field("Connection", b"close", &mut head);
    }
    head.extend_from_slice(b"\r\n");
    let keeps_server = server_stays && terms.keeps_client && body != Framing::UntilEnd;
    Ok(Answered::Final(Final { head, body, keeps_client, keeps_server }))
}

/// The reason for bytes that are no head.
pub(super) fn no_head(why: NoHead) -> &'static str {
    match why {
        NoHead::Strange => "the server does not answer in HTTP",
        NoHead::BareLf | NoHead::BareCr => {
            "the head of the server's answer has a CR that ends no line"
        }
        NoHead::TooLong => "the head of the server's answer is too long",
    }
}
