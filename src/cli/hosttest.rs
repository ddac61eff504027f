//! One element of a host list: the condition that it sets for a caller.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use super::address;
use super::error::{Problem, plain, quoted};
use super::localnet;
use super::plan::Caller;
use super::{number, suggest};

/// Looks up the addresses of a name. Called while the command line is read, never later.
pub type Lookup<'a> = dyn FnMut(&str) -> io::Result<Vec<IpAddr>> + 'a;

/// The condition of an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HostTest {
    /// `*`: nothing.
    Everybody,
    /// `.localnet`: that it is this machine or a neighbour.
    LocalNet,
    /// `-Pport`: that the stream came in by this port of the peer.
    EntrancePort(u16),
    /// An address with its mask: `(address & mask, mask)`.
    Network4(u32, u32),
    /// The same for IPv6.
    Network6(u128, u128),
    /// Four places, each a range of numbers.
    Pattern4([(u8, u8); 4]),
    /// A name and the addresses it had at start.
    Name(String, Vec<IpAddr>),
    /// The client's own name matches.
    NamePattern(NamePattern),
}

/// A name with a `*` at one end, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NamePattern {
    /// `host*`
    Begins(String),
    /// `*host`
    Ends(String),
    /// `*.dom`: all below it, and `dom` itself.
    Domain(String),
}

impl NamePattern {
    fn matches(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        match self {
            NamePattern::Begins(begin) => name.starts_with(begin),
            NamePattern::Ends(end) => name.ends_with(end),
            NamePattern::Domain(domain) => {
                let below = name.strip_suffix(domain.as_str());
                below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
            }
        }
    }
}

impl HostTest {
    /// Reads an element without its `!`.
    pub(crate) fn parse(text: &str, lookup: &mut Lookup<'_>) -> Result<Self, Problem> {
        if text == "*" {
            return Ok(HostTest::Everybody);
        }
        if text.eq_ignore_ascii_case(localnet::WORD) {
            return Ok(HostTest::LocalNet);
        }
        if let Some(port) = text.strip_prefix("-P") {
            return entrance_port(port);
        }
        let (host, mask) = match text.split_once('/') {
            Some((host, mask)) => (host, Some(mask)),
            None => (text, None),
        };
        if let Some(problem) = originals_own(host, mask) {
            return Err(problem);
        }
        match (address::literal(host), mask) {
            (Some(address), mask) => network(address, mask),
            (None, Some(mask)) => Err(Problem::new(
                format!("the mask {} needs an address before it", quoted(&format!("/{mask}"))),
                "write the network as an address, as in 192.168.0.0/24",
            )),
            (None, None) => match pattern4(host)? {
                Some(pattern) => Ok(pattern),
                None => name(host, lookup),
            },
        }
    }

    /// True when the caller is one that the element speaks of. A client without a readable
    /// address is met by `*` and `-Pport` only, one without a name by no pattern of names.
    pub(crate) fn matches(&self, caller: &Caller, name: Option<&str>) -> bool {
        // A dual-stack listener reports IPv4 clients as ::ffff:a.b.c.d.
        let client = caller.client.map(|address| address.to_canonical());
        match (self, client) {
            (HostTest::Everybody, _) => true,
            (HostTest::LocalNet, Some(client)) => localnet::holds(client),
            (HostTest::EntrancePort(port), _) => caller.entrance_port == Some(*port),
            (HostTest::Network4(network, mask), Some(IpAddr::V4(client))) => {
                client.to_bits() & mask == *network
            }
            (HostTest::Network6(network, mask), Some(IpAddr::V6(client))) => {
                client.to_bits() & mask == *network
            }
            (HostTest::Pattern4(places), Some(IpAddr::V4(client))) => places
                .iter()
                .zip(client.octets())
                .all(|((low, high), n)| (*low..=*high).contains(&n)),
            (HostTest::Name(_, addresses), Some(client)) => addresses.contains(&client),
            (HostTest::NamePattern(pattern), Some(_)) => {
                name.is_some_and(|name| pattern.matches(name))
            }
            _ => false,
        }
    }
}

impl HostTest {
    /// Whether it names certain addresses, and not all of a family. A pattern of names does not: the
    /// owner of a name that matches may give it any address.
    pub(crate) fn is_narrow(&self) -> bool {
        match self {
            HostTest::Everybody
            | HostTest::EntrancePort(_)
            | HostTest::NamePattern(_)
            | HostTest::Network4(_, 0)
            | HostTest::Network6(_, 0) => false,
            HostTest::Pattern4(places) => places.iter().any(|&place| place != (0, 255)),
            _ => true,
        }
    }
}

/// Hosts and masks of the original that are not addresses: `.` is the host that it runs on, `-` and
/// `.o` the interface of a client's connection or of the route to it, and the mask `/.` or `/@` the
/// network of the address by its class.
fn originals_own(host: &str, mask: Option<&str>) -> Option<Problem> {
    let meant = match host {
        "." => "this host",
        "-" => "the interface that the client came in by",
        ".o" => "the interface that leads to the client",
        _ => {
            let mask = mask.filter(|mask| mask.starts_with(['.', '@']) && !host.is_empty())?;
            return Some(Problem::new(
                format!("the mask {} meant the network by the class of its address", quoted(&format!("/{mask}"))),
                match address::literal(host) {
                    Some(IpAddr::V4(v4)) => {
                        let bits = class_bits(v4);
                        format!("write its bits, as in {v4}/{bits}, or .localnet for the networks of this machine")
                    }
                    _ => "write its bits, as in 192.168.1.0/24 or 2001:db8::/32, or .localnet for the \
                          networks of this machine"
                        .to_owned(),
                },
            ));
        }
    };
    let whole = match mask {
        Some(mask) => quoted(&format!("{host}/{mask}")),
        None => quoted(host),
    };
    Some(match mask {
        Some(_) => Problem::new(
            format!("{whole} meant the network of {meant}"),
            "write .localnet for this machine and all networks of its interfaces, or the network, \
             as in 192.168.1.0/24",
        ),
        None => Problem::new(
            format!("{whole} meant {meant}"),
            "write its address, as in 127.0.0.1,192.168.1.5, or .localnet for this machine and the \
             networks of its interfaces",
        ),
    })
}

/// The bits of the network by the class of an address (A, B, C), as it was before masks.
fn class_bits(address: Ipv4Addr) -> u32 {
    match address.octets()[0] {
        0..128 => 8,
        128..192 => 16,
        _ => 24,
    }
}

/// `-Pport` or `-Phost:port`. Only the port is compared: the host is the peer's own name for
/// one of its addresses, which cannot be verified here.
fn entrance_port(text: &str) -> Result<HostTest, Problem> {
    if let Some(port) = text.strip_suffix("/udp") {
        return Err(Problem::new(
            "a host list takes the number of the peer's entrance alone",
            format!("write -P{}: the exit itself is for UDP", plain(port)),
        ));
    }
    let port = match address::split_host(text)? {
        (port, None) => port,
        (_, Some(port)) => port,
    };
    match address::port(port)? {
        0 => Err(Problem::new("no stream comes in by port 0", "give the peer's entrance port")),
        port => Ok(HostTest::EntrancePort(port)),
    }
}

/// An address with or without mask.
fn network(address: IpAddr, mask: Option<&str>) -> Result<HostTest, Problem> {
    let all = if address.is_ipv4() { 32 } else { 128 };
    let (mut bits, mut dotted) = (all, None);
    if let Some(mask) = mask {
        match parse_mask(mask)? {
            Mask::Bits(given) if given <= all => bits = given,
            Mask::Dotted(mask4) if address.is_ipv4() => dotted = Some(mask4),
            _ => {
                return Err(Problem::new(
                    format!("the mask {} does not fit {address}", quoted(&format!("/{mask}"))),
                    format!("give /0 to /{all}"),
                ));
            }
        }
    }
    // ::ffff:10.0.0.0/104 means the IPv4 network 10.0.0.0/8, for that is how callers are compared.
    let (address, bits) = match address.to_canonical() {
        IpAddr::V4(v4) if all == 32 => (IpAddr::V4(v4), bits),
        IpAddr::V4(v4) if bits >= 96 => (IpAddr::V4(v4), bits - 96),
        _ => (address, bits),
    };
    Ok(match address {
        IpAddr::V4(v4) => {
            let mask = dotted.unwrap_or_else(|| u32::MAX.checked_shl(32 - bits).unwrap_or(0));
            HostTest::Network4(v4.to_bits() & mask, mask)
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            HostTest::Network6(v6.to_bits() & mask, mask)
        }
    })
}

enum Mask {
    Bits(u32),
    Dotted(u32),
}

/// `24`, `255.255.0.0` or `FFFF0000`: eight characters are hexadecimal, fewer are a count.
fn parse_mask(text: &str) -> Result<Mask, Problem> {
    let bad = || {
        Problem::new(
            format!("{} is not a mask", quoted(&format!("/{text}"))),
            "write it as /24, /255.255.255.0 or /FFFFFF00",
        )
    };
    if text.len() <= 3 && !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map(Mask::Bits).map_err(|_| bad());
    }
    let hex = text.strip_prefix("0x").unwrap_or(text);
    let mask = if hex.len() == 8 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        u32::from_str_radix(hex, 16).map_err(|_| bad())?
    } else {
        text.parse::<Ipv4Addr>().map_err(|_| bad())?.to_bits()
    };
    // A hole in a mask is a slip (225 for 255, or the inverse mask of routers) that would admit hosts
    // unintentionally.
    if mask.leading_ones() + mask.trailing_zeros() < 32 {
        return Err(Problem::new(
            format!("the mask {} has a hole", quoted(&format!("/{text}"))),
            "write its ones first, as in /24, or use a pattern, as in 192.168.*.1",
        ));
    }
    Ok(Mask::Dotted(mask))
}

/// An IPv4 pattern: a number, `*` or `[a-b]` in each of four places; a `*` at the end stands
/// for all places that follow. `None` when the text is not meant as one.
fn pattern4(text: &str) -> Result<Option<HostTest>, Problem> {
    let numeric = |c: char| c.is_ascii_digit() || matches!(c, '.' | '*' | '[' | ']' | '-');
    if !text.contains(['*', '[']) || !text.chars().all(numeric) {
        return Ok(None);
    }
    let bad = || {
        Problem::new(
            format!("{} is not an address pattern", quoted(text)),
            "give four places, each a number, * or [low-high], as in 192.168.[0-31].*",
        )
    };
    let mut places = [(0, 255); 4];
    let written: Vec<&str> = text.split('.').collect();
    let open_end = written.last() == Some(&"*");
    if written.len() > 4 || (written.len() < 4 && !open_end) {
        return Err(bad());
    }
    for (place, written) in places.iter_mut().zip(written) {
        *place = match written.strip_prefix('[').map(|w| w.strip_suffix(']')) {
            _ if written == "*" => (0, 255),
            None => {
                let number = number::whole(written).ok_or_else(bad)?;
                (number, number)
            }
            Some(range) => {
                let (low, high) = range.and_then(|r| r.split_once('-')).ok_or_else(bad)?;
                let (low, high) =
                    (number::whole(low).ok_or_else(bad)?, number::whole(high).ok_or_else(bad)?);
                if low > high {
                    return Err(bad());
                }
                (low, high)
            }
        };
    }
    Ok(Some(HostTest::Pattern4(places)))
}

/// A name with a `*` at one end.
fn name_pattern(text: &str) -> Result<HostTest, Problem> {
    let bad = || {
        Problem::new(
            format!("{} is not a name pattern", quoted(text)),
            "write a name with one * before or after it, as in *.example.org or mail*",
        )
    };
    let lower = text.to_ascii_lowercase();
    let pattern = if let Some(begin) = lower.strip_suffix('*') {
        address::host(begin).map_err(|_| bad())?;
        NamePattern::Begins(begin.to_owned())
    } else {
        let end = lower.strip_prefix('*').ok_or_else(bad)?;
        let domain = end.strip_prefix('.');
        // The part behind the * may begin with a hyphen, which a name may not.
        address::host(domain.unwrap_or(end.trim_start_matches('-'))).map_err(|_| bad())?;
        match domain {
            Some(domain) => NamePattern::Domain(domain.to_owned()),
            None => NamePattern::Ends(end.to_owned()),
        }
    };
    Ok(HostTest::NamePattern(pattern))
}

/// A plain name, looked up forward once and compared by address: the reverse name of a client
/// is chosen by the owner of its address.
fn name(text: &str, lookup: &mut Lookup<'_>) -> Result<HostTest, Problem> {
    if text.contains('*') {
        return name_pattern(text);
    }
    if text.starts_with('.') && suggest::nearest(text, [localnet::WORD]).is_some() {
        return Err(Problem::new(
            format!("{} is not a host", quoted(text)),
            "did you mean `.localnet`?",
        ));
    }
    if text.starts_with('.') {
        return Err(Problem::new(
            format!("{} is not a host", quoted(text)),
            format!("write *{} for all below it and the name itself", plain(text)),
        ));
    }
    let name = address::host(text)?;
    let remedy = "correct the name or give its address";
    let addresses = lookup(&name).map_err(|error| {
        Problem::new(format!("the host {} cannot be looked up: {error}", quoted(text)), remedy)
    })?;
    if addresses.is_empty() {
        return Err(Problem::new(format!("the host {} has no address", quoted(text)), remedy));
    }
    let addresses = addresses.into_iter().map(|address| address.to_canonical()).collect();
    Ok(HostTest::Name(name, addresses))
}
