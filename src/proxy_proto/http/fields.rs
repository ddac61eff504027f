//! The fields of a head: those that delimit the body, those for one hop only (RFC 9110 section 7.6.1),
//! and those that are passed on.

use httparse::Header;

use crate::limits::HTTP_FIELDS_MAX;

/// For this hop only, besides those that `Connection` names; or rewritten from their parsed values.
/// Without `TE` no server sends unrequested trailers, and `HTTP2-Settings` belongs to an upgrade that is
/// not passed on.
const NOT_PASSED: [&str; 12] = [
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// How long a body is by its head's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Unsaid,
    Bytes(u64),
    Chunked,
}

/// Why the fields cannot be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadFields {
    /// A transfer coding beside chunked.
    Coding,
    /// Anything else.
    Wrong(&'static str),
}

/// The fields of one head.
pub(super) struct Fields<'a> {
    all: &'a [Header<'a>],
    /// The value of `Connection`: options of this hop, and names of fields for this hop.
    options: Vec<&'a [u8]>,
    pub(super) length: Length,
}

impl<'a> Fields<'a> {
    /// `minor` is that of the message's version, HTTP/1.0 or HTTP/1.1.
    pub(super) fn new(all: &'a [Header<'a>], minor: u8) -> Result<Self, BadFields> {
        let mut options = Vec::new();
        for option in list(values(all, "connection")).filter(|option| !option.is_empty()) {
            if options.len() == HTTP_FIELDS_MAX {
                return Err(BadFields::Wrong("Connection names too many fields"));
            }
            options.push(option);
        }
        Ok(Fields { all, options, length: length(all, minor)? })
    }

    pub(super) fn values(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        values(self.all, name)
    }

    /// Whether `Connection` has this option.
    pub(super) fn has_option(&self, word: &str) -> bool {
        self.options.iter().any(|option| option.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// The protocol that the sender offers to upgrade to, if it means this hop.
    pub(super) fn upgrade(&self) -> Option<Vec<u8>> {
        let protocols: Vec<&[u8]> = self.values("upgrade").collect();
        (self.has_option("upgrade") && !protocols.is_empty()).then(|| protocols.join(&b", "[..]))
    }

    /// Writes the fields that are passed on: none for this hop, none in `but`, and none that delimits the
    /// body.
    pub(super) fn pass_on(&self, but: &[&str], out: &mut Vec<u8>) {
        for field in self.all {
            let is = |name: &&str| field.name.eq_ignore_ascii_case(name);
            if !NOT_PASSED.iter().any(is) && !but.iter().any(is) && !self.has_option(field.name) {
                write_field(field.name, field.value, out);
            }
        }
    }
}

pub(super) fn write_field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// The length as it goes on.
pub(super) fn write_length(length: Length, out: &mut Vec<u8>) {
    match length {
        Length::Unsaid => {}
        Length::Bytes(bytes) => write_field("Content-Length", bytes.to_string().as_bytes(), out),
        Length::Chunked => write_field("Transfer-Encoding", b"chunked", out),
    }
}

/// `Via` of RFC 9110 section 7.6.3: the version of the received message, and its receiver.
pub(super) fn write_via(minor: u8, via: &str, out: &mut Vec<u8>) {
    write_field("Via", format!("1.{minor} {via}").as_bytes(), out);
}

/// Whether a byte is valid in a field's name: RFC 9110 section 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a byte is valid in a field's value: RFC 9110 section 5.5.
pub(super) fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

fn values<'a>(all: &'a [Header<'a>], name: &'static str) -> impl Iterator<Item = &'a [u8]> {
    all.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}

/// The elements of a list, which may be spread over several fields; empty ones too.
fn list<'a>(values: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    values.flat_map(|value| value.split(|&byte| byte == b',')).map(<[u8]>::trim_ascii)
}

/// RFC 9112 section 6.3, without its tolerance of faulty senders: contradictory lengths of a body are a
/// fault.
fn length(all: &[Header<'_>], minor: u8) -> Result<Length, BadFields> {
    let mut bytes = None;
    for value in list(values(all, "content-length")) {
        let told = decimal(value).ok_or(BadFields::Wrong("Content-Length is no number"))?;
        if bytes.is_some_and(|before| before != told) {
            return Err(BadFields::Wrong("there are several Content-Lengths"));
        }
        bytes = Some(told);
    }
    let mut codings = list(values(all, "transfer-encoding")).peekable();
    if codings.peek().is_none() {
        return Ok(bytes.map_or(Length::Unsaid, Length::Bytes));
    }
    if bytes.is_some() {
        return Err(BadFields::Wrong("there are both Content-Length and Transfer-Encoding"));
    }
    if minor == 0 {
        return Err(BadFields::Wrong("HTTP/1.0 has no Transfer-Encoding"));
    }
    let mut others = 0;
    while let Some(coding) = codings.next() {
        let is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        match (is_chunked, codings.peek()) {
            (true, None) => break,
            (false, Some(_)) if !coding.is_empty() => others += 1,
            _ => {
                let why = "Transfer-Encoding does not end with chunked, or has it twice";
                return Err(BadFields::Wrong(why));
            }
        }
    }
    if others == 0 { Ok(Length::Chunked) } else { Err(BadFields::Coding) }
}

/// Digits only: no sign, and nothing that overflows.
fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        use BadFields::{Coding, Wrong};
        let several = Err(Wrong("there are several Content-Lengths"));
        let number = Err(Wrong("Content-Length is no number"));
        let last = Err(Wrong("Transfer-Encoding does not end with chunked, or has it twice"));
        let both = Err(Wrong("there are both Content-Length and Transfer-Encoding"));
        let bytes = |bytes| Ok(Length::Bytes(bytes));
        for (head, found) in [
            ("Other: 5\r\n", Ok(Length::Unsaid)),
            ("content-LENGTH: 5\r\n", bytes(5)),
            ("Content-Length: 5, 5\r\nContent-Length: 05\r\n", bytes(5)),
            ("Content-Length: 18446744073709551615\r\n", bytes(u64::MAX)),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", several),
            ("Content-Length: 5, 6\r\n", several),
            ("Content-Length: 18446744073709551616\r\n", number),
            ("Content-Length: +5\r\n", number),
            ("Content-Length: -5\r\n", number),
            ("Content-Length: 0x5\r\n", number),
            ("Content-Length: 5 5\r\n", number),
            ("Content-Length: \r\n", number),
            ("Content-Length: 5,\r\n", number),
            ("Transfer-Encoding: chunked\r\n", Ok(Length::Chunked)),
            ("transfer-encoding: \tCHUNKED \r\n", Ok(Length::Chunked)),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(Coding)),
            ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", Err(Coding)),
            ("Transfer-Encoding: chunked, gzip\r\n", last),
            ("Transfer-Encoding: chunked, chunked\r\n", last),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", last),
            ("Transfer-Encoding: identity\r\n", last),
            ("Transfer-Encoding: xchunked\r\n", last),
            ("Transfer-Encoding: \"chunked\"\r\n", last),
            ("Transfer-Encoding: chunked;q=1\r\n", last),
            ("Transfer-Encoding: \r\n", last),
            ("Transfer-Encoding: ,chunked\r\n", last),
            ("Transfer-Encoding: chunked,\r\n", last),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", both),
            ("Transfer-Encoding: identity\r\nContent-Length: 5\r\n", both),
        ] {
            let text = format!("{head}\r\n");
            let mut fields = [httparse::EMPTY_HEADER; 4];
            let read = httparse::parse_headers(text.as_bytes(), &mut fields).expect("fields");
            let (_, all) = read.unwrap();
            assert_eq!(length(all, 1), found, "{head}");
            if head.starts_with("Transfer") {
                assert!(length(all, 0).is_err(), "{head}");
            }
        }
    }
}
