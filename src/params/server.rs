//! `SERVER=` and `DEST=`: the persistent connection, exits, and the plain relay.

use super::address;
use super::carrier::{self, Carrier};
use super::error::{Problem, plain, quoted};
use super::plan::{Target, Transport, Way};
use super::protocol;

/// What a `SERVER=` parameter asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Server {
    /// `sockmux`: be the receptor; the address is said by `-P`.
    Receptor,
    /// `sockmux://host:port`: be the connector.
    Connector(Target),
    /// `sockmux:comm@DEVICE` and its like: what else carries the persistent connection.
    Carrier(Carrier),
    /// `proto://host,-in`: an exit.
    Exit(ExitWords),
    /// `tcprelay://host:port` or `udprelay://host:port`: be a plain relay; where clients come in is
    /// said by `-P`.
    Relay(Target, Transport),
}

/// An exit as written; the host list is still text, for reading it may need look-ups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExitWords {
    /// Protocol word in lower case.
    pub protocol: String,
    /// Where it leads: a server is UDP for `udprelay` and for `/udp` behind the port, else TCP.
    pub way: Way,
    /// Who may use it, if anything was said.
    pub clients: Option<String>,
}

const CONNECTOR_REMEDY: &str = "write SERVER=sockmux://host:port";

/// Reads the value of `SERVER=`.
///
/// # Errors
/// What cannot be read, and forms of the original that are not supported.
pub(crate) fn parse_server(value: &str) -> Result<Server, Problem> {
    if value == "sockmux" {
        return Ok(Server::Receptor);
    }
    if let Some(address) = value.strip_prefix("sockmux://") {
        return connector(address).map(Server::Connector);
    }
    if let Some(device) = value.strip_prefix("sockmux:") {
        return carrier::parse(device).map(Server::Carrier);
    }
    let Some((url, rest)) = value.split_once(",-in") else {
        return match value.split_once("://") {
            Some((protocol @ ("tcprelay" | "udprelay"), server)) if !server.contains(',') => {
                target_of(protocol, server).map(|(target, over)| Server::Relay(target, over))
            }
            _ => Err(not_an_exit(value)),
        };
    };
    let clients = clients_of(rest)?;
    let Some((protocol, server)) = url.split_once("://") else { return Err(no_host(url)) };
    let protocol = protocol::word(protocol)?;
    if protocol == "sockmux" {
        return Err(Problem::new(
            "sockmux is the persistent connection and no exit",
            "write SERVER=sockmux://host:port without ,-in",
        ));
    }
    let (target, transport) = target_of(&protocol, server)?;
    let way = Way::Server { target, transport };
    Ok(Server::Exit(ExitWords { protocol, way, clients }))
}

/// What follows `proto://`: `host[:port][/udp]`. Any protocol may be spoken over UDP, and its
/// standard port is the same there; `tcprelay` and `udprelay` say themselves what they are.
fn target_of(protocol: &str, server: &str) -> Result<(Target, Transport), Problem> {
    let server = server.strip_suffix('/').unwrap_or(server);
    if server.is_empty() {
        return Err(no_host(protocol));
    }
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
    let port = match port {
        Some(port) => address::remote_port(port)?,
        None => protocol::standard_port(protocol)?,
    };
    Ok((Target { host, port }, transport))
}

/// Reads the value of `DEST=`: `host:port[/udp][:srcHostList]`, also with `:-:srcHostList` as behind
/// `,-in`.
///
/// # Errors
/// What cannot be read, and forms of the original that are not supported.
pub(crate) fn parse_dest(value: &str) -> Result<ExitWords, Problem> {
    let remedy = "write DEST=host:port, as in DEST=127.0.0.1:5432";
    if value.starts_with("unix:") {
        return Err(Problem::unsupported("an exit to a Unix socket", "give DEST=host:port"));
    }
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
    let (port, clients) = match rest.split_once(':') {
        Some((port, clients)) => (port, Some(clients.strip_prefix("-:").unwrap_or(clients))),
        None => (rest, None),
    };
    let (port, transport) = split_transport(port);
    let protocol = match transport {
        Transport::Tcp => "tcprelay",
        Transport::Udp => "udprelay",
    };
    if port.contains([',', '-']) {
        return Err(Problem::new(
            format!("{} is more than one port", quoted(port)),
            "an exit leads to one: write a DEST= for each, as in DEST=host:80:-P8080",
        ));
    }
    let port = address::remote_port(port)?;
    let way = Way::Server { target: Target { host, port }, transport };
    Ok(ExitWords { protocol: protocol.to_owned(), way, clients: clients.map(str::to_owned) })
}

/// What follows `sockmux://`: `host:port`.
pub(crate) fn connector(text: &str) -> Result<Target, Problem> {
    let text = text.strip_suffix('/').unwrap_or(text);
    if let Some((_, option)) = text.split_once(',') {
        return Err(Problem::new(
            format!(
                "{} has no meaning for the persistent connection",
                quoted(&format!(",{option}"))
            ),
            CONNECTOR_REMEDY,
        ));
    }
    if let (tcp, Transport::Udp) = split_transport(text) {
        return Err(Problem::new(
            "the persistent connection is never UDP",
            format!("leave /udp out: SERVER=sockmux://{}", plain(tcp)),
        ));
    }
    let (host, port) = address::split_host(text)?;
    if host.is_empty() {
        return Err(Problem::new("no host to connect to is named", CONNECTOR_REMEDY));
    }
    let host = address::host(host)?;
    let Some(port) = port else {
        return Err(Problem::new(
            format!("{} has no port", quoted(text)),
            format!("sockmux has no standard port: write SERVER=sockmux://{}:port", plain(text)),
        ));
    };
    Ok(Target { host, port: address::remote_port(port)? })
}

/// A `SERVER=` without `,-in`.
fn not_an_exit(value: &str) -> Problem {
    let remedy =
        format!("write SERVER={},-in to make it an exit for streams of the peer", plain(value));
    match value.split_once("://") {
        Some((protocol, _)) if protocol::is_known(protocol) && !value.contains(',') => {
            Problem::unsupported(format!("a {protocol} server of its own"), remedy)
        }
        _ if value.contains(',') => Problem::new(
            format!("{} has an option that is not known", quoted(value)),
            "only ,-in may follow the server, as in SERVER=telnet://host,-in",
        ),
        _ => Problem::new(
            format!("{} is not a server", quoted(value)),
            "write SERVER=sockmux, SERVER=sockmux://host:port, SERVER=proto://host:port,-in, \
             SERVER=tcprelay://host:port or SERVER=udprelay://host:port",
        ),
    }
}

/// `SERVER=proto,-in`, which would be a proxy.
fn no_host(url: &str) -> Problem {
    match protocol::word(url) {
        Ok(protocol) => Problem::unsupported(
            format!("a proxy ({} without a server)", quoted(&format!("{protocol},-in"))),
            format!("name the server, as in SERVER={protocol}://host,-in"),
        ),
        Err(_) => Problem::new(
            format!("{} names no protocol", quoted(url)),
            format!("write SERVER=tcprelay://{},-in", plain(url)),
        ),
    }
}

/// What follows `,-in`.
fn clients_of(rest: &str) -> Result<Option<String>, Problem> {
    if rest.is_empty() {
        return Ok(None);
    }
    if rest.starts_with('(') {
        return Err(Problem::unsupported(
            "an option list behind ,-in",
            "leave it out: the exit connects to the server itself",
        ));
    }
    match rest.strip_prefix(":-:") {
        Some(clients) => Ok(Some(clients.to_owned())),
        None => Err(Problem::new(
            format!("{} is not understood behind ,-in", quoted(rest)),
            "only :-: and a host list may follow, as in ,-in:-:192.168.0.0/16 or ,-in:-:-P8023",
        )),
    }
}

/// Text without `/udp` at its end, and what that says.
fn split_transport(text: &str) -> (&str, Transport) {
    match text.strip_suffix("/udp") {
        Some(text) => (text, Transport::Udp),
        None => (text, Transport::Tcp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(protocol: &str, host: &str, port: u16, clients: Option<&str>) -> ExitWords {
        let target = Target { host: host.into(), port };
        of(protocol, Way::Server { target, transport: Transport::Tcp }, clients)
    }

    fn udp_exit(protocol: &str, host: &str, port: u16, clients: Option<&str>) -> ExitWords {
        let target = Target { host: host.into(), port };
        of(protocol, Way::Server { target, transport: Transport::Udp }, clients)
    }

    fn of(protocol: &str, way: Way, clients: Option<&str>) -> ExitWords {
        let clients = clients.map(str::to_owned);
        ExitWords { protocol: protocol.into(), way, clients }
    }

    #[test]
    fn every_form_of_server() {
        let connector = |host: &str| Server::Connector(Target { host: host.into(), port: 9000 });
        let relay = |transport| Server::Relay(Target { host: "h".into(), port: 7 }, transport);
        for (value, wanted) in [
            ("sockmux", Server::Receptor),
            ("sockmux://hostX:9000", connector("hostX")),
            ("sockmux://hostX:9000/", connector("hostX")),
            ("sockmux://[::1]:9000", connector("::1")),
            ("sockmux://__1:9000", connector("::1")),
            ("telnet://hostX,-in", Server::Exit(exit("telnet", "hostX", 23, None))),
            ("HTTP://hostX/,-in", Server::Exit(exit("http", "hostX", 80, None))),
            ("http://[::1],-in", Server::Exit(exit("http", "::1", 80, None))),
            ("own://h:7,-in", Server::Exit(exit("own", "h", 7, None))),
            ("tcprelay://[::1]:7,-in:-:*", Server::Exit(exit("tcprelay", "::1", 7, Some("*")))),
            ("telnet://h,-in:-:-P8023", Server::Exit(exit("telnet", "h", 23, Some("-P8023")))),
            ("udprelay://h:7,-in", Server::Exit(udp_exit("udprelay", "h", 7, None))),
            ("udprelay://h:7/udp,-in", Server::Exit(udp_exit("udprelay", "h", 7, None))),
            ("UDPrelay://[::1]:7,-in:-:*", Server::Exit(udp_exit("udprelay", "::1", 7, Some("*")))),
            ("dns://h:54/udp,-in", Server::Exit(udp_exit("dns", "h", 54, None))),
            ("dns://h/udp,-in", Server::Exit(udp_exit("dns", "h", 53, None))),
            ("dns://h,-in", Server::Exit(exit("dns", "h", 53, None))),
            ("tcprelay://h:7", relay(Transport::Tcp)),
            ("udprelay://h:7", relay(Transport::Udp)),
            ("udprelay://h:7/udp/", relay(Transport::Udp)),
        ] {
            assert_eq!(parse_server(value).as_ref(), Ok(&wanted), "{value}");
        }
    }

    #[test]
    fn every_form_of_dest() {
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
        ] {
            assert_eq!(parse_dest(value).as_ref(), Ok(&wanted), "{value}");
        }
    }
}
