//! Parsing of exits: `DEST=` and `SERVER=...,-in`.

use super::address;
use super::error::{Problem, plain, quoted};
use super::options;
use super::plan::{ExitKind, ProxyHeader, Target, Transport};
use super::protocol;
use super::unix;

/// Options behind `?`.
pub(super) const OPTIONS: [&str; 1] = ["proxy"];

/// An exit as written; the host list is still text, for reading it may need look-ups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExitWords {
    /// Protocol word in lower case.
    pub protocol: String,
    /// Where it leads: a server is UDP for `udprelay` and for `/udp` behind the port, else TCP.
    pub way: ExitKind,
    /// `?proxy=`.
    pub proxy_header: Option<ProxyHeader>,
    /// The clients that may use it, if given.
    pub clients: Option<String>,
}

/// `SERVER=proto://server,-in`; `clients` is the text behind it.
pub(crate) fn of_server(
    protocol: String,
    server: &str,
    clients: Option<String>,
) -> Result<ExitWords, Problem> {
    let (server, given) = options::split(server);
    let (way, transport) = way_to(&protocol, server)?;
    let proxy_header = header(given, transport)?;
    let way = if protocol == "ftp" { to_ftp(way, server, given)? } else { way };
    Ok(ExitWords { protocol, way, proxy_header, clients })
}

/// An FTP server, whose data connections are relayed too. Refuses the forms where that is impossible.
fn to_ftp(way: ExitKind, server: &str, given: Option<&str>) -> Result<ExitKind, Problem> {
    let remedy = |instead: &str| {
        let why = "it passes the commands alone, and data connections are not forwarded";
        format!("leave it out, or write SERVER=tcprelay://{instead},-in: {why}")
    };
    if let Some(given) = given {
        return Err(Problem::new(
            format!("ftp:// takes no options ({})", quoted(given)),
            remedy(&format!("host:21?{}", plain(given))),
        ));
    }
    match way {
        ExitKind::Server { target, transport: Transport::Tcp } => Ok(ExitKind::Ftp(target)),
        ExitKind::Server { .. } => Err(Problem::new("FTP is never UDP", "leave /udp out")),
        _ => Err(Problem::new("the port of ftp:// is one of the server's", remedy(&plain(server)))),
    }
}

/// `exec:command`; `clients` is the text behind `,-in`.
pub(crate) fn of_command(command: &str, clients: Option<String>) -> Result<ExitWords, Problem> {
    let example = "write it between exec: and ,-in, as in SERVER=\"exec:/usr/sbin/in.ftpd,-in\"";
    if command.trim().is_empty() {
        return Err(Problem::new("no command is given", example));
    }
    if command.contains('\0') {
        return Err(Problem::new("there is a zero byte in the command", example));
    }
    let way = ExitKind::Command(command.to_owned());
    Ok(ExitWords { protocol: "exec".to_owned(), way, proxy_header: None, clients })
}

/// The text after `proto://`: `host[:port][/udp]`. Any protocol may be spoken over UDP, and its standard
/// port is the same there; `tcprelay` and `udprelay` name their transport themselves.
pub(crate) fn way_to(protocol: &str, server: &str) -> Result<(ExitKind, Transport), Problem> {
    let server = server.strip_suffix('/').unwrap_or(server);
    let (server, transport) = split_transport(server);
    let transport = match (protocol, transport) {
        ("tcprelay", Transport::Udp) => {
            return Err(Problem::new(
                "tcprelay carries no UDP",
                format!("write udprelay://{} or leave /udp out", plain(server)),
            ));
        }
        ("udprelay", _) => Transport::Udp,
        (_, transport) => transport,
    };
    if let Some((_, path)) = server.split_once('/') {
        return Err(Problem::new(
            format!("the path {} has no meaning to a relay", quoted(&format!("/{path}"))),
            "give host and port only",
        ));
    }
    let (host, port) = address::split_host(server)?;
    let host = address::host(host)?;
    let way = match port {
        Some(port) => way_at(host, port, transport)?,
        None => {
            let target = Target { host, port: protocol::standard_port(protocol)? };
            ExitKind::Server { target, transport }
        }
    };
    Ok((way, transport))
}

/// `host:port`; `-`, `+NUMBER` and `-NUMBER` count from the port that the client came in by.
fn way_at(host: String, port: &str, transport: Transport) -> Result<ExitKind, Problem> {
    let offset = match (port, port.split_at_checked(1)) {
        ("-", _) => Some(0),
        (_, Some(("+", number))) => Some(i32::from(address::port(number)?)),
        (_, Some(("-", number))) => Some(-i32::from(address::port(number)?)),
        _ => None,
    };
    Ok(match offset {
        Some(offset) => ExitKind::SamePort { host, offset, transport },
        None => ExitKind::Server {
            target: Target { host, port: address::remote_port(port)? },
            transport,
        },
    })
}

/// Reads the value of `DEST=`: `host:port[/udp][?options][:srcHostList]` or
/// `unix:path[?options][:srcHostList]`, also with `:-:srcHostList` as behind `,-in`.
///
/// # Errors
/// Invalid values, and forms of the original that are not supported.
pub(crate) fn of_dest(value: &str) -> Result<ExitWords, Problem> {
    if let Some(socket) = value.strip_prefix("unix:") {
        return of_unix(socket);
    }
    let remedy = "write DEST=host:port, as in DEST=127.0.0.1:5432";
    if let Some((protocol, _)) = value.split_once("://") {
        return Err(Problem::new(
            format!("DEST takes no protocol ({})", quoted(protocol)),
            format!("write DEST=host:port or SERVER={},-in", plain(value)),
        ));
    }
    let (host, rest) = address::split_host(value)?;
    let Some(rest) = rest else {
        let what = if address::port(host).is_ok() {
            format!("{} names no host", quoted(host))
        } else {
            format!("{} has no port", quoted(host))
        };
        return Err(Problem::new(what, remedy));
    };
    if host.is_empty() {
        return Err(Problem::new("no host is named", remedy));
    }
    let host = address::host(host)?;
    let (port, clients) = split_clients(rest);
    let (port, given) = options::split(port);
    let (port, transport) = split_transport(port);
    let protocol = transport.relay_word();
    if port.contains(',') || port.get(1..).is_some_and(|port| port.contains('-')) {
        return Err(Problem::new(
            format!("{} is more than one port", quoted(port)),
            "an exit leads to one: write a DEST= for each, as in DEST=host:80:-P8080, or \
             DEST=host:- for the port that the client came in by",
        ));
    }
    let way = way_at(host, port, transport)?;
    let proxy_header = header(given, transport)?;
    Ok(ExitWords { protocol: protocol.to_owned(), way, proxy_header, clients })
}

/// The text after `unix:`.
fn of_unix(text: &str) -> Result<ExitWords, Problem> {
    let (socket, clients) = split_clients(text);
    let (path, given) = options::split(socket);
    let way = ExitKind::Unix(unix::path(path)?);
    let proxy_header = header(given, Transport::Tcp)?;
    Ok(ExitWords { protocol: "unix".to_owned(), way, proxy_header, clients })
}

/// The text before the `:` of a host list, and the list.
fn split_clients(text: &str) -> (&str, Option<String>) {
    match text.split_once(':') {
        Some((text, list)) => (text, Some(list.strip_prefix("-:").unwrap_or(list).to_owned())),
        None => (text, None),
    }
}

/// `proxy=v1` or `proxy=v2`.
fn header(given: Option<&str>, transport: Transport) -> Result<Option<ProxyHeader>, Problem> {
    let mut header = None;
    for (_, value) in options::each(given, &OPTIONS)? {
        header = Some(match value {
            "v1" => ProxyHeader::V1,
            "v2" => ProxyHeader::V2,
            _ => {
                return Err(Problem::new(
                    format!("{} is nothing that proxy can be at an exit", quoted(value)),
                    "write proxy=v1 or proxy=v2, as the server takes it",
                ));
            }
        });
    }
    if header.is_some() && transport == Transport::Udp {
        return Err(Problem::new(
            "a PROXY header stands before a stream, and UDP has none",
            "leave ?proxy= out",
        ));
    }
    Ok(header)
}

/// The text without `/udp` at its end, and the transport.
pub(crate) fn split_transport(text: &str) -> (&str, Transport) {
    match text.strip_suffix("/udp") {
        Some(text) => (text, Transport::Udp),
        None => (text, Transport::Tcp),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn exit(protocol: &str, host: &str, port: u16, clients: Option<&str>) -> ExitWords {
        let target = Target { host: host.into(), port };
        of(protocol, ExitKind::Server { target, transport: Transport::Tcp }, clients)
    }

    pub(crate) fn ftp(host: &str, port: u16) -> ExitWords {
        of("ftp", ExitKind::Ftp(Target { host: host.into(), port }), None)
    }

    pub(crate) fn udp_exit(
        protocol: &str,
        host: &str,
        port: u16,
        clients: Option<&str>,
    ) -> ExitWords {
        let target = Target { host: host.into(), port };
        of(protocol, ExitKind::Server { target, transport: Transport::Udp }, clients)
    }

    pub(crate) fn of(protocol: &str, way: ExitKind, clients: Option<&str>) -> ExitWords {
        let clients = clients.map(str::to_owned);
        ExitWords { protocol: protocol.into(), way, proxy_header: None, clients }
    }

    pub(crate) fn same_port(protocol: &str, offset: i32, transport: Transport) -> ExitWords {
        of(protocol, ExitKind::SamePort { host: "h".into(), offset, transport }, None)
    }

    pub(crate) fn with(version: ProxyHeader, words: ExitWords) -> ExitWords {
        ExitWords { proxy_header: Some(version), ..words }
    }

    #[test]
    fn every_form_of_dest() {
        use ProxyHeader::{V1, V2};
        let unix = |path: &str, clients| of("unix", ExitKind::Unix(path.into()), clients);
        for (value, wanted) in [
            ("hostT:111", exit("tcprelay", "hostT", 111, None)),
            ("[::1]:111", exit("tcprelay", "::1", 111, None)),
            ("__1:111", exit("tcprelay", "::1", 111, None)),
            ("h:1:10.0.0.0/8,!10.0.0.1", exit("tcprelay", "h", 1, Some("10.0.0.0/8,!10.0.0.1"))),
            ("h:1:-P80", exit("tcprelay", "h", 1, Some("-P80"))),
            ("h:1:-:-P80", exit("tcprelay", "h", 1, Some("-P80"))),
            ("h:1:[::1]", exit("tcprelay", "h", 1, Some("[::1]"))),
            ("[::1]:1:::1", exit("tcprelay", "::1", 1, Some("::1"))),
            ("h:1:-P[::1]:80", exit("tcprelay", "h", 1, Some("-P[::1]:80"))),
            ("hostU:53/udp", udp_exit("udprelay", "hostU", 53, None)),
            ("[::1]:53/udp:-:-P53", udp_exit("udprelay", "::1", 53, Some("-P53"))),
            ("h:53/udp:10.0.0.0/8", udp_exit("udprelay", "h", 53, Some("10.0.0.0/8"))),
            ("h:-", same_port("tcprelay", 0, Transport::Tcp)),
            ("h:+1000", same_port("tcprelay", 1000, Transport::Tcp)),
            ("h:-8000", same_port("tcprelay", -8000, Transport::Tcp)),
            ("h:-/udp", same_port("udprelay", 0, Transport::Udp)),
            ("h:1?proxy=v1", with(V1, exit("tcprelay", "h", 1, None))),
            ("h:1?proxy=v2:-:-P80", with(V2, exit("tcprelay", "h", 1, Some("-P80")))),
            ("h:-?proxy=v1", with(V1, same_port("tcprelay", 0, Transport::Tcp))),
            ("unix:/run/x", unix("/run/x", None)),
            ("unix:/run/x:10.0.0.0/8", unix("/run/x", Some("10.0.0.0/8"))),
            ("unix:/run/x?proxy=v2:-:-P80", with(V2, unix("/run/x", Some("-P80")))),
        ] {
            assert_eq!(of_dest(value).as_ref(), Ok(&wanted), "{value}");
        }
    }
}
