//! The control socket's protocol: one line asks, one answer comes, in JSON, and the connection ends.
//!
//! ```text
//! operator                         process
//! status\n                    ->
//!                             <-   {"status":{...}}\n
//! streams\n                   ->
//!                             <-   {"streams":[{...},...]}\n
//! kill tunnel:3\n             ->
//!                             <-   {"done":"..."}\n
//! anything else\n             ->
//!                             <-   {"error":"..."}\n
//! ```
//!
//! [`Request`] is what is asked for, [`status`] what is told, [`text`] how that is shown to people. What
//! the thread of the socket asks the worker for, a page at a time, is [`page`].

pub mod page;
pub mod status;
pub mod text;

use std::fmt;

use serde::{Deserialize, Serialize};

use self::status::{Status, StreamRow};

/// The name of the socket in the directory of a service (`$RUNTIME_DIRECTORY`).
pub const SOCKET: &str = "control";

/// The directory of the sockets of one user (below `$XDG_RUNTIME_DIR`), each named by its process.
pub const DIRECTORY: &str = "sockmux-uring";

/// What the process is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The process, its tunnels, entrances and totals.
    Status,
    /// Each stream.
    Streams,
    /// To end something.
    Kill(Target),
    /// To drain, as by SIGTERM.
    Drain,
}

/// What is to be ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A tunnel, by its number in the log.
    Tunnel(u32),
    /// A stream, by its number in the log.
    Stream(u32),
    /// All tunnels of a peer, by its name or its key.
    Peer(String),
}

/// As it is sent.
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Status => f.write_str("status"),
            Request::Streams => f.write_str("streams"),
            Request::Kill(target) => write!(f, "kill {target}"),
            Request::Drain => f.write_str("drain"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tunnel(number) => write!(f, "tunnel:{number}"),
            Target::Stream(number) => write!(f, "stream:{number}"),
            Target::Peer(name) => write!(f, "peer:{name}"),
        }
    }
}

impl Request {
    /// Reads a request, without its line end.
    ///
    /// # Errors
    /// What is wrong, and what there is.
    pub fn parse(line: &str) -> Result<Request, String> {
        match line.trim_end_matches('\r').split_once(' ') {
            Some(("kill", target)) => Ok(Request::Kill(Target::parse(target)?)),
            None if line.trim_end() == "status" => Ok(Request::Status),
            None if line.trim_end() == "streams" => Ok(Request::Streams),
            None if line.trim_end() == "drain" => Ok(Request::Drain),
            _ => Err(format!(
                "{line:?} is no request; there are status, streams, drain, kill tunnel:N, kill stream:N and \
                 kill peer:NAME"
            )),
        }
    }
}

impl Target {
    /// Reads what is to be ended.
    ///
    /// # Errors
    /// What is wrong, and what there is.
    pub fn parse(text: &str) -> Result<Target, String> {
        let target = match text.split_once(':') {
            Some(("tunnel", number)) => number.parse().ok().map(Target::Tunnel),
            Some(("stream", number)) => number.parse().ok().map(Target::Stream),
            Some(("peer", name)) if !name.is_empty() && !name.contains(['\n', '\r']) => {
                Some(Target::Peer(name.to_owned()))
            }
            _ => None,
        };
        target.ok_or_else(|| {
            format!("kill: {text:?} is not understood; write tunnel:N, stream:N or peer:NAME")
        })
    }
}

/// What the process answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Streams`].
    Streams(Vec<StreamRow>),
    /// What was done.
    Done(String),
    /// Why nothing was done.
    Error(String),
}

/// The JSON of an answer, for programs: the status itself, an array of streams, or `{"done":...}`. It ends
/// with a line end.
pub fn json(answer: &Answer) -> String {
    let text = match answer {
        Answer::Status(status) => serde_json::to_string(status),
        Answer::Streams(rows) => serde_json::to_string(rows),
        Answer::Done(_) | Answer::Error(_) => serde_json::to_string(answer),
    };
    // Numbers, texts and lists of them can be written.
    text.unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_are_written() {
        for request in [
            Request::Status,
            Request::Streams,
            Request::Drain,
            Request::Kill(Target::Tunnel(7)),
            Request::Kill(Target::Stream(8)),
            Request::Kill(Target::Peer("SHA256:a b".to_owned())),
        ] {
            assert_eq!(Request::parse(&request.to_string()).as_ref(), Ok(&request));
        }
        assert_eq!(Request::parse("status\r"), Ok(Request::Status));
    }

    #[test]
    fn what_is_no_request_is_refused_with_what_there_is() {
        for line in ["", "Status", "status all", "kill", "kill all", "kill tunnel:x", "kill peer:"]
        {
            let error = Request::parse(line).unwrap_err();
            assert!(error.contains("; ") && error.contains("peer:NAME"), "{error}");
        }
    }
}
