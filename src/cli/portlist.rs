//! Port lists: `port[,port]*`, port = `[host:]number[-number][/udp][?option[&option]*]`.

use std::collections::HashMap;
use std::fmt;

use super::address;
use super::at_peer;
use super::error::{Problem, plain, quoted};
use super::options;
use super::peers;
use super::plan::{Bind, Entrance, Transport};
use super::unix;
use super::words::Word;
use crate::limits::ENTRANCES_MAX;

/// Options behind `?`.
pub(super) const OPTIONS: [&str; 3] = ["proxy", "peer", "at"];

/// One item of a port list: a port or an ascending range of ports on one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortItem {
    /// Local address or name; `None` is every address.
    pub host: Option<String>,
    /// First port; 0 (the kernel chooses) only as a single port.
    pub first: u16,
    /// Last port, not below the first.
    pub last: u16,
    /// TCP, or UDP for `/udp`.
    pub transport: Transport,
    /// `?proxy=accept`.
    pub proxy_header: bool,
    /// `?peer=NAME`.
    pub peers: Vec<String>,
    /// `?at=peer`: it is opened at the other end.
    pub at_peer: bool,
}

impl PortItem {
    fn parse(text: &str) -> Result<Self, Problem> {
        if text.starts_with("unix:") {
            return Err(Problem::new(
                format!("the Unix socket {} stands where only ports do", quoted(text)),
                format!("write PORT={} for an entrance, with nothing beside it", plain(text)),
            ));
        }
        let (text, given) = options::split(text);
        let (ports, transport) = match text.split_once('/') {
            None => (text, Transport::Tcp),
            Some((ports, "udp")) => (ports, Transport::Udp),
            Some((_, other)) => {
                return Err(Problem::new(
                    format!("{} behind the port is not known", quoted(&format!("/{other}"))),
                    "only /udp may follow; TCP has no suffix",
                ));
            }
        };
        let PortOptions { proxy_header, peers, at_peer } = port_options(given, transport)?;
        let (host, numbers) = match address::split_host(ports)? {
            (host, Some(numbers)) => (host, numbers),
            (numbers, None) => ("", numbers),
        };
        if numbers.contains(':') {
            return Err(Problem::new(
                format!("{} is not host:port", quoted(ports)),
                "write an IPv6 address in brackets, as in [::1]:9000",
            ));
        }
        let host = match host {
            "" | "*" => None,
            host => Some(address::host(host)?),
        };
        let (first, last) = match numbers.split_once('-') {
            None => {
                let port = address::port(numbers)?;
                (port, port)
            }
            Some((first, last)) => (address::port(first)?, address::port(last)?),
        };
        if first == 0 && numbers != "0" {
            return Err(Problem::new(
                format!("port 0 in the range {}", quoted(numbers)),
                "begin the range at 1, or give 0 alone to let the kernel choose a port",
            ));
        }
        if first > last {
            return Err(Problem::new(
                format!("the range {} runs backwards", quoted(numbers)),
                format!("write {last}-{first}"),
            ));
        }
        Ok(PortItem { host, first, last, transport, proxy_header, peers, at_peer })
    }

    /// The number of its ports.
    fn count(&self) -> usize {
        usize::from(self.last - self.first) + 1
    }
}

/// As it would be written, with an IPv6 host in brackets.
impl fmt::Display for PortItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            if host.contains(':') {
                write!(f, "[{host}]:")?;
            } else {
                write!(f, "{host}:")?;
            }
        }
        write!(f, "{}", self.first)?;
        if self.last != self.first {
            write!(f, "-{}", self.last)?;
        }
        f.write_str(suffix(self.transport))?;
        let accepts = self.proxy_header.then(|| ACCEPTS.to_owned());
        let peers = self.peers.iter().map(|peer| format!("peer={peer}"));
        let at_peer = self.at_peer.then(|| AT_PEER.to_owned());
        for (index, option) in accepts.into_iter().chain(peers).chain(at_peer).enumerate() {
            write!(f, "{}{option}", if index == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

/// A whole port list, as `PORT=` and `-P` take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortList(
    /// The items in the order given, at least one.
    pub Vec<PortItem>,
);

impl PortList {
    /// Reads a port list.
    ///
    /// # Errors
    /// An item that is not a port, a range that is empty or runs backwards, more than
    /// [`ENTRANCES_MAX`] ports, or two items that want the same port.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let mut items = Vec::new();
        let mut count = 0;
        for item in text.split(',') {
            if item.is_empty() {
                return Err(Problem::new(
                    format!("an empty port in the list {}", quoted(text)),
                    "give port[,port]..., as in 9023 or 9023,9080-9089",
                ));
            }
            let item = PortItem::parse(item)?;
            count += item.count();
            items.push(item);
        }
        if count > ENTRANCES_MAX {
            return Err(too_many(count));
        }
        let list = PortList(items);
        for entrances in [list.entrances(), list.at_peer().collect()] {
            if let Some((one, other)) = first_clash(&entrances) {
                let [one, other] = [one, other].map(|index| show_entrance(&entrances[index]));
                return Err(Problem::new(
                    format!("{one} and {other} are the same port"),
                    "leave one of them out",
                ));
            }
        }
        Ok(list)
    }

    /// Every single port of the list that is opened at this end.
    pub fn entrances(&self) -> Vec<Entrance> {
        self.opened(false).collect()
    }

    /// Every single port of the list that is opened at the other end.
    pub fn at_peer(&self) -> impl Iterator<Item = Entrance> {
        self.opened(true)
    }

    fn opened(&self, at_peer: bool) -> impl Iterator<Item = Entrance> {
        let each = |item: &PortItem| {
            let PortItem { host, transport, proxy_header, peers, .. } = item.clone();
            (item.first..=item.last).map(move |port| {
                let bind = Bind { host: host.clone(), port };
                Entrance { bind, transport, proxy_header, peers: peers.clone() }
            })
        };
        self.0.iter().filter(move |item| item.at_peer == at_peer).flat_map(each)
    }
}

/// As it would be written.
impl fmt::Display for PortList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            item.fmt(f)?;
        }
        Ok(())
    }
}

/// The option of an entrance that accepts PROXY headers.
const ACCEPTS: &str = "proxy=accept";

/// The option of an entrance that is opened at the other end.
const AT_PEER: &str = "at=peer";

/// What stands behind the `?` of a port.
#[derive(Default)]
struct PortOptions {
    proxy_header: bool,
    peers: Vec<String>,
    at_peer: bool,
}

fn port_options(given: Option<&str>, transport: Transport) -> Result<PortOptions, Problem> {
    let mut of_port = PortOptions::default();
    for (name, value) in options::each(given, &OPTIONS)? {
        match name {
            "proxy" => of_port.proxy_header = unix::accepts_header(value)?,
            "peer" => of_port.peers.push(peers::name(value)?),
            _ => of_port.at_peer = at_peer::is_meant(value)?,
        }
    }
    if of_port.proxy_header && transport == Transport::Udp {
        return Err(Problem::new(
            "a PROXY header stands before a stream, and UDP has none",
            "leave ?proxy=accept out",
        ));
    }
    Ok(of_port)
}

/// The ports of `-P`.
pub(crate) fn of_p(word: &Word, value: &str) -> Result<Vec<Entrance>, Problem> {
    if options::split(value).0.contains('=') {
        let remedy = format!("did you mean `{}`?", word.text.trim_start_matches('-'));
        return Err(Problem::new("-P takes [host]:port", remedy));
    }
    let list = PortList::parse(value)?;
    match list.0.iter().find(|item| item.at_peer) {
        None => Ok(list.entrances()),
        Some(item) => Err(at_peer::not_by_p(item)),
    }
}

/// Adds the ports of one word to those of the words before it.
pub(crate) fn add(
    all: &mut Vec<(Entrance, Word)>,
    list: Vec<Entrance>,
    word: &Word,
) -> Result<(), Problem> {
    if all.len() + list.len() > ENTRANCES_MAX {
        return Err(too_many(all.len() + list.len()));
    }
    all.extend(list.into_iter().map(|entrance| (entrance, word.clone())));
    Ok(())
}

/// The problem of more ports than one process opens.
pub(crate) fn too_many(count: usize) -> Problem {
    Problem::new(
        format!("{count} ports are more than one process opens ({ENTRANCES_MAX})"),
        "give a smaller range or spread it over several processes",
    )
}

/// The first two entrances that cannot listen both, as their places in the sequence.
pub(crate) fn first_clash<'e>(
    entrances: impl IntoIterator<Item = &'e Entrance>,
) -> Option<(usize, usize)> {
    let mut by_port: HashMap<(Transport, u16), Vec<(usize, &Bind)>> = HashMap::new();
    for (index, Entrance { bind, transport, .. }) in entrances.into_iter().enumerate() {
        if bind.port == 0 {
            continue;
        }
        let others = by_port.entry((*transport, bind.port)).or_default();
        if let Some((other, _)) = others.iter().find(|(_, other)| other.clashes(bind)) {
            return Some((*other, index));
        }
        others.push((index, bind));
    }
    None
}

impl Bind {
    /// True when the two cannot both be listened on by one process.
    pub(crate) fn clashes(&self, other: &Bind) -> bool {
        self.port == other.port
            && self.port != 0
            && address::overlap(self.host.as_deref(), other.host.as_deref())
    }
}

/// A listening address for a message: `*:9000`, `[::1]:9000`.
pub(crate) fn show_bind(bind: &Bind) -> String {
    address::show(bind.host.as_deref(), bind.port)
}

/// The same with its transport: `*:9000`, `[::1]:53/udp`.
pub(crate) fn show_entrance(Entrance { bind, transport, .. }: &Entrance) -> String {
    show_bind(bind) + suffix(*transport)
}

/// The suffix of a port for this transport.
pub(crate) fn suffix(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "",
        Transport::Udp => "/udp",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> Result<Vec<String>, String> {
        let list = PortList::parse(text).map_err(|p| p.to_string())?;
        Ok(list.entrances().iter().map(show_entrance).collect())
    }

    #[test]
    fn every_form_of_a_port() {
        for (text, wanted) in [
            ("9023", &["*:9023"][..]),
            (":9023", &["*:9023"]),
            ("*:9023", &["*:9023"]),
            ("0", &["*:0"]),
            ("0,0", &["*:0", "*:0"]),
            ("hostX:111", &["hostX:111"]),
            ("127.0.0.1:80,[::1]:80", &["127.0.0.1:80", "[::1]:80"]),
            ("__1:80", &["[::1]:80"]),
            ("8023,8080", &["*:8023", "*:8080"]),
            ("10-12", &["*:10", "*:11", "*:12"]),
            ("h:10-11/udp", &["h:10/udp", "h:11/udp"]),
            ("53,53/udp", &["*:53", "*:53/udp"]),
            ("65535", &["*:65535"]),
            ("65534-65535", &["*:65534", "*:65535"]),
            ("7-7", &["*:7"]),
            ("7,7-8?at=peer", &["*:7"]),
        ] {
            assert_eq!(
                shown(text).as_deref(),
                Ok(&wanted.iter().map(|s| s.to_string()).collect::<Vec<_>>()[..]),
                "{text}"
            );
        }
    }

    #[test]
    fn faults_name_the_piece() {
        for (text, piece) in [
            ("", "empty port"),
            ("1,,2", "empty port"),
            ("1,", "empty port"),
            ("abc", "`abc` is not a port"),
            ("65536", "`65536` is not a port"),
            ("0-3", "port 0 in the range"),
            ("12-10", "write 10-12"),
            ("1-", "`` is not a port"),
            ("1-2-3", "`2-3` is not a port"),
            ("1/tcp", "`/tcp`"),
            ("::1:80", "brackets"),
            ("a:b:80", "brackets"),
            ("1-65535", "65535 ports"),
            ("80,80", "*:80 and *:80"),
            ("80,h:80", "*:80 and h:80"),
            ("53,53/udp,h:53/udp", "*:53/udp and h:53/udp are the same port"),
            ("53/udp?proxy=accept", "UDP has none"),
            ("53?proxy=v1", "write proxy=accept"),
            ("53?prox=accept", "did you mean `proxy`?"),
            ("53?at=me", "write at=peer"),
            ("53?at=peer,h:53?at=peer", "*:53 and h:53 are the same port"),
            ("53?", "has no value"),
            ("80,unix:/x", "write PORT=unix:/x"),
            ("78-82,127.0.0.1:80", "*:80 and 127.0.0.1:80"),
        ] {
            let message = shown(text).unwrap_err();
            assert!(message.contains(piece), "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn printing_and_reading_are_inverse(
            items in proptest::collection::vec(
                (0..5_usize, 1_u16..=65_000, 0_u16..20, 0..4_u8), 1..8)
        ) {
            let hosts = [None, Some("127.0.0.1"), Some("::1"), Some("fe80::7"), Some("host-x.lan")];
            let list = PortList(items.into_iter().map(|(host, first, more, kind)| PortItem {
                host: hosts[host].map(str::to_owned),
                first,
                last: first + more,
                transport: if kind == 1 { Transport::Udp } else { Transport::Tcp },
                proxy_header: kind == 2,
                peers: vec!["a".to_owned(); usize::from(kind == 1 || kind == 2)],
                at_peer: kind == 3,
            }).collect());
            match PortList::parse(&list.to_string()) {
                Ok(read) => prop_assert_eq!(read, list),
                Err(problem) => prop_assert!(problem.to_string().contains("are the same port")),
            }
        }

        #[test]
        fn no_text_panics(text in "[0-9a-f:,\\-\\[\\]_*/udp?=x]{0,40}") {
            if let Ok(list) = PortList::parse(&text) {
                prop_assert_eq!(PortList::parse(&list.to_string()), Ok(list));
            }
        }
    }
}
