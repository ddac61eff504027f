//! `SERVER=`: the persistent connection, exits, and the plain relay.

use super::address;
use super::carrier::{self, Carrier};
use super::error::{Problem, plain, quoted};
use super::exit::{self, ExitWords};
use super::options;
use super::plan::{ExitKind, Proxy, Target, Transport};
use super::protocol;
use super::quotes;

/// A parsed `SERVER=` parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Server {
    /// `sockmux`: be the receptor; its address is that of `-P`.
    Receptor,
    /// `sockmux://host:port`: be the connector.
    Connector(Target),
    /// `sockmux:comm@DEVICE` and others: a link other than TCP.
    Carrier(Carrier),
    /// `proto://host,-in`: an exit.
    Exit(ExitWords),
    /// `tcprelay://host:port` or `udprelay://host:port`: be a plain relay, with the entrance of `-P`.
    Relay(ExitKind, Transport),
    /// `proto` or `ftp://host`: be a proxy, with the entrance of `-P`.
    Proxy(ExitWords),
}

const CONNECTOR_REMEDY: &str = "write SERVER=sockmux://host:port";

/// Reads the words of an option list. `Some` is the server that it names, as an exit.
pub(crate) type ListReader<'r> = dyn FnMut(Vec<String>) -> Result<Option<ExitWords>, Problem> + 'r;

/// Reads the value of `SERVER=`; an option list is given to `list`.
///
/// # Errors
/// Invalid values, and forms of the original that are not supported.
pub(crate) fn parse_server(value: &str, list: &mut ListReader<'_>) -> Result<Server, Problem> {
    if value == "sockmux" {
        return Ok(Server::Receptor);
    }
    if let Some(address) = value.strip_prefix("sockmux://") {
        return connector(address).map(Server::Connector);
    }
    if let Some(device) = value.strip_prefix("sockmux:") {
        return carrier::parse(device).map(Server::Carrier);
    }
    if let Some(command) = value.strip_prefix("exec:") {
        // To the last one: a command line may contain anything.
        let Some((command, rest)) = command.rsplit_once(",-in") else {
            return Err(Problem::new(
                "a command is run for streams of the peer only",
                format!("write SERVER=\"{},-in\"", plain(value)),
            ));
        };
        let (clients, named) = behind_in(rest, list)?;
        if named.is_some() {
            return Err(two_servers("a command"));
        }
        return exit::of_command(command, clients).map(Server::Exit);
    }
    let Some((url, rest)) = value.split_once(",-in") else {
        return match value.split_once("://") {
            Some((protocol @ ("tcprelay" | "udprelay"), server)) if !server.contains(',') => {
                relay(protocol, server)
            }
            _ => own_proxy(value).unwrap_or_else(|| Err(not_an_exit(value))),
        };
    };
    let (clients, named) = behind_in(rest, list)?;
    let Some((protocol, server)) = url.split_once("://") else {
        return match named {
            Some(named) => at_named(url, named, clients),
            None => proxy(url, clients),
        }
        .map(Server::Exit);
    };
    if named.is_some() {
        return Err(two_servers("a server"));
    }
    let protocol = protocol::word(protocol)?;
    if protocol == "sockmux" {
        return Err(Problem::new(
            "sockmux is the persistent connection and no exit",
            "write SERVER=sockmux://host:port without ,-in",
        ));
    }
    if matches!(server, "" | "/") {
        return Err(no_host(&protocol));
    }
    exit::of_server(protocol, server, clients).map(Server::Exit)
}

/// A plain relay, which leads to one server and carries its data unchanged.
fn relay(protocol: &str, server: &str) -> Result<Server, Problem> {
    let example = format!("write SERVER={protocol}://host:port, or make it an exit by ,-in");
    if matches!(server, "" | "/") {
        return Err(no_host(protocol));
    }
    let (server, given) = options::split(server);
    if let Some(given) = given {
        let what = format!("a plain relay has no options ({})", quoted(given));
        return Err(Problem::new(what, example));
    }
    let (way, transport) = exit::way_to(protocol, server)?;
    Ok(Server::Relay(way, transport))
}

/// `SERVER=proto` and `SERVER=ftp://host`, also with `:-:clients` behind: a proxy for clients of `-P`.
/// `None` for other values.
fn own_proxy(value: &str) -> Option<Result<Server, Problem>> {
    let (url, clients) = match value.split_once(":-:") {
        Some((url, clients)) => (url, Some(clients.to_owned())),
        None => (value, None),
    };
    let words = match url.split_once("://") {
        Some((protocol, "" | "/")) if protocol.eq_ignore_ascii_case("ftp") => {
            Err(no_host(protocol))
        }
        Some((protocol, server)) if protocol.eq_ignore_ascii_case("ftp") => {
            exit::of_server("ftp".to_owned(), server, clients)
        }
        None if Proxy::of_word(&url.to_ascii_lowercase()).is_some() => proxy(url, clients),
        _ => return None,
    };
    Some(words.map(Server::Proxy))
}

/// The text after `sockmux://`: `host:port`.
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
    if let (tcp, Transport::Udp) = exit::split_transport(text) {
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

/// `SERVER=proto,-in`: a proxy.
fn proxy(url: &str, clients: Option<String>) -> Result<ExitWords, Problem> {
    let word = protocol::word(url).map_err(|_| no_host(url))?;
    let proxy = Proxy::of_word(&word).ok_or_else(|| no_host(url))?;
    Ok(ExitWords {
        protocol: proxy.word().to_owned(),
        way: ExitKind::Proxy(proxy),
        proxy_header: None,
        clients,
    })
}

/// A server is missing, and there is no such proxy.
fn no_host(url: &str) -> Problem {
    match protocol::word(url) {
        Ok(protocol) if Proxy::of_word(&protocol).is_some() => Problem::new(
            format!("{} names no server", quoted(&format!("{protocol}://"))),
            format!("write SERVER={protocol}://host,-in, or SERVER={protocol},-in for a proxy"),
        ),
        Ok(protocol) => Problem::unsupported(
            format!("a proxy ({} without a server)", quoted(&format!("{protocol},-in"))),
            format!(
                "name the server, as in SERVER={protocol}://host,-in; the proxies are socks,-in \
                 http,-in telnet,-in and ftp,-in"
            ),
        ),
        Err(_) => Problem::new(
            format!("{} names no protocol", quoted(url)),
            format!("write SERVER=tcprelay://{},-in", plain(url)),
        ),
    }
}

/// `SERVER=proto,-in(SERVER=proto://server)`: as if the server stood before `,-in`.
fn at_named(url: &str, named: ExitWords, clients: Option<String>) -> Result<ExitWords, Problem> {
    let word = protocol::word(url)?;
    let of = |word: &str| Proxy::of_word(word);
    let meet = |one: Proxy| of(&named.protocol).is_some_and(|other| one.meets(other));
    if word != named.protocol && !of(&word).is_some_and(meet) {
        return Err(Problem::new(
            format!(
                "the exit is for {word}, and its option list names a {} server",
                named.protocol
            ),
            "write the same protocol at both places",
        ));
    }
    Ok(ExitWords { clients, ..named })
}

fn two_servers(what: &str) -> Problem {
    Problem::new(
        format!("the option list names a server, and the exit leads to {what} already"),
        "leave one of them out",
    )
}

/// The text after `,-in`: the clients, and the server that an option list names.
fn behind_in(
    rest: &str,
    list: &mut ListReader<'_>,
) -> Result<(Option<String>, Option<ExitWords>), Problem> {
    let (named, rest) = if rest.starts_with('(') {
        let (words, rest) = quotes::parenthesised(rest)?;
        (list(words)?, rest)
    } else {
        (None, rest)
    };
    if rest.is_empty() {
        return Ok((None, named));
    }
    match rest.strip_prefix(":-:") {
        Some(clients) => Ok((Some(clients.to_owned()), named)),
        None => Err(Problem::new(
            format!("{} is not understood behind ,-in", quoted(rest)),
            "only (option list) and :-: and a host list may follow, as in ,-in(+=FILE), \
             ,-in:-:192.168.0.0/16 or ,-in:-:-P8023",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::tests::{exit, ftp, of, same_port, udp_exit, with};
    use crate::cli::plan::{ProxyHeader, Transport};

    #[test]
    fn every_form_of_server() {
        let connector = |host: &str| Server::Connector(Target { host: host.into(), port: 9000 });
        let proxy =
            |word: &str, proxy, clients: Option<&str>| of(word, ExitKind::Proxy(proxy), clients);
        let relay = |transport| {
            let target = Target { host: "h".into(), port: 7 };
            Server::Relay(ExitKind::Server { target, transport }, transport)
        };
        let same_port_relay = |offset, transport| {
            Server::Relay(ExitKind::SamePort { host: "h".into(), offset, transport }, transport)
        };
        for (value, wanted) in [
            ("sockmux", Server::Receptor),
            ("sockmux://hostX:9000", connector("hostX")),
            ("sockmux://hostX:9000/", connector("hostX")),
            ("sockmux://[::1]:9000", connector("::1")),
            ("sockmux://__1:9000", connector("::1")),
            ("socks,-in", Server::Exit(proxy("socks", Proxy::Socks, None))),
            ("SOCKS5,-in", Server::Exit(proxy("socks5", Proxy::Socks5, None))),
            ("socks4,-in", Server::Exit(proxy("socks4", Proxy::Socks4, None))),
            ("http,-in:-:-P80", Server::Exit(proxy("http", Proxy::Http, Some("-P80")))),
            ("telnet,-in", Server::Exit(proxy("telnet", Proxy::Telnet, None))),
            ("ftp,-in:-:-P21", Server::Exit(proxy("ftp", Proxy::Ftp, Some("-P21")))),
            ("ftp://hostX,-in", Server::Exit(ftp("hostX", 21))),
            ("FTP://[::1]:2121/,-in", Server::Exit(ftp("::1", 2121))),
            ("ftps://hostX,-in", Server::Exit(exit("ftps", "hostX", 990, None))),
            ("tcprelay://hostX:21,-in", Server::Exit(exit("tcprelay", "hostX", 21, None))),
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
            ("telnet://h:-,-in", Server::Exit(same_port("telnet", 0, Transport::Tcp))),
            ("dns://h:+9/udp,-in", Server::Exit(same_port("dns", 9, Transport::Udp))),
            (
                "http://h:8/?proxy=v2,-in:-:-P80",
                Server::Exit(with(ProxyHeader::V2, exit("http", "h", 8, Some("-P80")))),
            ),
            ("exec:cat,-in", Server::Exit(of("exec", ExitKind::Command("cat".into()), None))),
            (
                "exec:a ',-in' | b://c,-in:-:-P80",
                Server::Exit(of(
                    "exec",
                    ExitKind::Command("a ',-in' | b://c".into()),
                    Some("-P80"),
                )),
            ),
            ("tcprelay://h:7", relay(Transport::Tcp)),
            ("udprelay://h:7", relay(Transport::Udp)),
            ("udprelay://h:7/udp/", relay(Transport::Udp)),
            ("http", Server::Proxy(proxy("http", Proxy::Http, None))),
            ("SOCKS4:-:-P80", Server::Proxy(proxy("socks4", Proxy::Socks4, Some("-P80")))),
            ("ftp://h:2121/", Server::Proxy(ftp("h", 2121))),
            ("tcprelay://h:-/", same_port_relay(0, Transport::Tcp)),
            ("tcprelay://h:+1000", same_port_relay(1000, Transport::Tcp)),
            ("udprelay://h:-1000/udp/", same_port_relay(-1000, Transport::Udp)),
        ] {
            let mut none = |_| unreachable!("no option list");
            assert_eq!(parse_server(value, &mut none).as_ref(), Ok(&wanted), "{value}");
        }
    }
}
