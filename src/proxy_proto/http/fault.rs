//! Answers of the proxy itself: why a request was not served.

use std::borrow::Cow;

use crate::proxy_proto::{ProxyStep, Unreached};

/// The statuses that the proxy gives, as RFC 9110 section 15 and RFC 6585 section 5 have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    BadRequest,
    Forbidden,
    AuthenticationRequired,
    /// The same to the client.
    WrongPassword,
    RequestTimeout,
    ContentTooLarge,
    FieldsTooLarge,
    NotImplemented,
    BadGateway,
    GatewayTimeout,
    VersionNotSupported,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Status::BadRequest => "400 Bad Request",
            Status::Forbidden => "403 Forbidden",
            Status::AuthenticationRequired | Status::WrongPassword => {
                "407 Proxy Authentication Required"
            }
            Status::RequestTimeout => "408 Request Timeout",
            Status::ContentTooLarge => "413 Content Too Large",
            Status::FieldsTooLarge => "431 Request Header Fields Too Large",
            Status::NotImplemented => "501 Not Implemented",
            Status::BadGateway => "502 Bad Gateway",
            Status::GatewayTimeout => "504 Gateway Timeout",
            Status::VersionNotSupported => "505 HTTP Version Not Supported",
        }
    }
}

/// Why a request is not served: a status, and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) status: Status,
    pub(super) why: Cow<'static, str>,
}

impl Fault {
    pub(super) fn new(status: Status, why: impl Into<Cow<'static, str>>) -> Self {
        Fault { status, why: why.into() }
    }

    pub(super) fn bad(why: impl Into<Cow<'static, str>>) -> Self {
        Fault::new(Status::BadRequest, why)
    }

    /// Of a server's making.
    pub(super) fn gateway(why: impl Into<Cow<'static, str>>) -> Self {
        Fault::new(Status::BadGateway, why)
    }

    /// For the log and the engine.
    pub(super) fn note(self) -> ProxyStep {
        let why = self.why.into_owned();
        match self.status {
            Status::WrongPassword => ProxyStep::WrongPassword(why),
            _ => ProxyStep::Note(why),
        }
    }

    /// Fields that the status requires: RFC 9110 section 11.7.1, RFC 7617 section 2.
    fn fields(&self) -> &'static str {
        match self.status {
            Status::AuthenticationRequired | Status::WrongPassword => {
                "Proxy-Authenticate: Basic realm=\"sockmux-uring\", charset=\"UTF-8\"\r\n"
            }
            _ => "",
        }
    }

    /// The whole answer, after which the connection is closed. Plain text, which browsers must not
    /// interpret otherwise: the client's request may be quoted in it.
    pub(super) fn answer(&self, with_content: bool) -> Vec<u8> {
        let line = self.status.line();
        let content =
            format!("{line}\n\n{}\n\nThis is the HTTP proxy of sockmux-uring.\n", self.why);
        let mut answer = format!(
            "HTTP/1.1 {line}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             X-Content-Type-Options: nosniff\r\n{}Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.fields(),
            content.len()
        );
        if with_content {
            answer.push_str(&content);
        }
        answer.into_bytes()
    }
}

/// A server that was not reached.
impl From<Unreached> for Fault {
    fn from(unreached: Unreached) -> Self {
        let (status, why) = match unreached {
            Unreached::NotPermitted(why) => (Status::Forbidden, why),
            Unreached::TimedOut(why) => (Status::GatewayTimeout, why),
            Unreached::NameNotFound(why) | Unreached::Refused(why) | Unreached::Other(why) => {
                (Status::BadGateway, why)
            }
        };
        Fault::new(status, why)
    }
}
