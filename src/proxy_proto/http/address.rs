//! The target of a request: RFC 9112 section 3.2.

use super::fault::{Fault, Status};
use crate::proxy_proto::{Target, host};

/// Port of `http://` without one: RFC 9110 section 4.2.1.
const HTTP_PORT: u16 = 80;

/// The target of a request that is passed on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resource<'a> {
    pub(super) target: Target,
    /// Host, and port if there is one, as written: the value of `Host` towards the server.
    pub(super) authority: &'a str,
    /// Path and query, for the server's request line.
    pub(super) path: String,
}

/// Of CONNECT: `host:port`.
pub(super) fn tunnel(text: &str) -> Result<Target, Fault> {
    authority(text, None).ok_or_else(|| {
        Fault::bad("CONNECT takes host:port, an IPv6 address in brackets: CONNECT example.org:443")
    })
}

/// Of any other method: `http://[user@]host[:port]/path?query[#fragment]`. The fragment is the client's
/// own (RFC 9110 section 4.2.5), and user and password belong in `Authorization` (section 4.2.4):
/// neither is passed on.
pub(super) fn resource<'a>(uri: &'a str, method: &str) -> Result<Resource<'a>, Fault> {
    if uri.starts_with('/') || uri == "*" {
        return Err(Fault::bad(
            "This is a proxy and no web server: it is asked for whole addresses \
             (GET http://example.org/) or with CONNECT. Set it as the proxy of your program.",
        ));
    }
    let Some((scheme, rest)) = uri.split_once("://") else {
        return Err(Fault::bad("the request's address is none: http://host/path is needed"));
    };
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(Fault::new(
            Status::NotImplemented,
            "only http:// addresses are asked for here; for https:// and all else use CONNECT",
        ));
    }
    let rest = rest.split_once('#').map_or(rest, |(rest, _fragment)| rest);
    let (named, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let Some(named) = without_user(named) else {
        return Err(Fault::bad("the request's address has a user's name in it that is none"));
    };
    let Some(target) = authority(named, Some(HTTP_PORT)) else {
        return Err(Fault::bad("the request's address has no host, or one that cannot be"));
    };
    let path = match path {
        // RFC 9112 section 3.2.4.
        "" if method == "OPTIONS" => "*".to_owned(),
        _ if path.starts_with('/') => path.to_owned(),
        _ => format!("/{path}"),
    };
    Ok(Resource { target, authority: named.trim_end_matches(':'), path })
}

/// Whether a field `Host` is valid; its value has no effect (RFC 9112 section 3.2.2).
pub(super) fn is_host(value: &[u8]) -> bool {
    let text = std::str::from_utf8(value);
    let is_named = |text| authority(text, Some(HTTP_PORT)).is_some();
    text.is_ok_and(|text| text.is_empty() || without_user(text).is_some_and(is_named))
}

/// The text without a leading `user:password@`. `None` if that has bytes that RFC 3986 (section 3.2.1)
/// does not allow: another parser might find another host.
fn without_user(text: &str) -> Option<&str> {
    let Some((user, named)) = text.split_once('@') else { return Some(text) };
    let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:%".contains(&byte);
    user.bytes().all(may_stand).then_some(named)
}

/// `host[:port]`; letters in lower case, so that one server has one name.
fn authority(text: &str, default_port: Option<u16>) -> Option<Target> {
    let (named, port) = match text.rsplit_once(':') {
        Some((named, port)) if !port.ends_with(']') => (named, port),
        _ => (text, ""),
    };
    // An address with colons and without brackets could end anywhere.
    if named.contains(':') && !named.starts_with('[') {
        return None;
    }
    let port = if port.is_empty() { default_port? } else { host::port(port)? };
    let host = host::parse(named.as_bytes())?.to_ascii_lowercase();
    Some(Target { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_asked_for() {
        for (uri, method, host, port, authority, path) in [
            ("http://h/", "GET", "h", 80, "h", "/"),
            ("http://h", "GET", "h", 80, "h", "/"),
            ("HTTP://H.Example:8080/a?b", "GET", "h.example", 8080, "H.Example:8080", "/a?b"),
            ("http://h:/", "GET", "h", 80, "h", "/"),
            ("http://h?q", "GET", "h", 80, "h", "/?q"),
            ("http://h/a@b:c://d", "GET", "h", 80, "h", "/a@b:c://d"),
            ("http://[::1]/", "GET", "::1", 80, "[::1]", "/"),
            ("http://[2001:DB8::1]:81", "GET", "2001:db8::1", 81, "[2001:DB8::1]:81", "/"),
            ("http://h", "OPTIONS", "h", 80, "h", "*"),
            ("http://h?", "OPTIONS", "h", 80, "h", "/?"),
            ("http://h/a#f", "GET", "h", 80, "h", "/a"),
            ("http://h#f/?@:1", "GET", "h", 80, "h", "/"),
            ("http://h?q#", "GET", "h", 80, "h", "/?q"),
            ("http://h#f", "OPTIONS", "h", 80, "h", "*"),
            ("http://u@h/", "GET", "h", 80, "h", "/"),
            ("http://u:p%40@h:81/a@b#f", "GET", "h", 81, "h:81", "/a@b"),
            ("http://u:@[::1]:81/", "GET", "::1", 81, "[::1]:81", "/"),
            ("http://@h/", "GET", "h", 80, "h", "/"),
        ] {
            let target = Target { host: host.into(), port };
            let expected = Resource { target, authority, path: path.into() };
            assert_eq!(resource(uri, method), Ok(expected), "{uri}");
        }
    }

    #[test]
    fn addresses_that_are_refused() {
        use Status::{BadRequest, NotImplemented};
        for (uri, status) in [
            ("/", BadRequest),
            ("*", BadRequest),
            ("h", BadRequest),
            ("h:80", BadRequest),
            ("http:/h/", BadRequest),
            ("http://", BadRequest),
            ("http:///a", BadRequest),
            ("http://:80/", BadRequest),
            ("http://h:0/", BadRequest),
            ("http://h:65536/", BadRequest),
            ("http://h:+80/", BadRequest),
            ("http://h:80:80/", BadRequest),
            ("http://::1/", BadRequest),
            ("http://[::1/", BadRequest),
            ("http://[::1]x/", BadRequest),
            ("http://u@v@h/", BadRequest),
            ("http://u@", BadRequest),
            ("http://u@:80/", BadRequest),
            ("http://u[@h/", BadRequest),
            ("http://#@h/", BadRequest),
            ("http://h\\@other/", BadRequest),
            ("http://127.1/", BadRequest),
            ("http://a%2eb/", BadRequest),
            ("https://h/", NotImplemented),
            ("ftp://h/", NotImplemented),
        ] {
            let fault = resource(uri, "GET").expect_err(uri);
            assert_eq!(fault.status, status, "{uri}");
        }
    }

    #[test]
    fn tunnels() {
        for (text, found) in [
            ("h:443", Some(("h", 443))),
            ("H.:22", Some(("h.", 22))),
            ("[::1]:443", Some(("::1", 443))),
            ("127.0.0.1:1", Some(("127.0.0.1", 1))),
            ("h", None),
            ("h:", None),
            (":443", None),
            ("h:0", None),
            ("h:https", None),
            ("[::1]", None),
            ("::1:443", None),
            ("u@h:443", None),
            ("http://h:443", None),
            ("h:443/", None),
            ("/", None),
        ] {
            let target = found.map(|(host, port)| Target { host: host.into(), port });
            assert_eq!(tunnel(text).ok(), target, "{text}");
        }
    }
}
