//! `PERMIT=protoList:dstHostList:srcHostList`: destinations of proxies and their clients; and clients of
//! exits and plain relays that lead to one server.

use super::error::{Problem, plain, quoted};
use super::hostlist::{HostList, Lookup};
use super::plan::{Exit, ExitKind, Permit, Proxy};
use super::protocol;
use super::suggest;
use crate::limits::PERMITS_MAX;

const REMEDY: &str = "write PERMIT=protoList:dstHostList:srcHostList, as in \
                      PERMIT=socks,http:192.168.0.0/16:* (IPv6 in brackets)";

/// Reads the value of `PERMIT=`. In the list of destinations `-Pport` means the port there.
///
/// # Errors
/// A value that has not three parts, an unknown protocol, an invalid host list.
pub(crate) fn parse(value: &str, source: &str, lookup: &mut Lookup<'_>) -> Result<Permit, Problem> {
    let parts = value.split_once(':').and_then(|(protocols, hosts)| {
        let (destinations, sources) = split_list(hosts)?;
        Some((protocols, destinations, sources))
    });
    let Some((protocols, destinations, sources)) = parts else {
        return Err(Problem::new(format!("{} has not three parts", quoted(value)), REMEDY));
    };
    let (protocols, relays) = protocol_list(protocols)?;
    Ok(Permit {
        protocols,
        relays,
        destinations: HostList::parse(destinations, lookup)?,
        sources: HostList::parse(sources, lookup)?,
        source: source.to_owned(),
    })
}

/// There are as many as there may be.
pub(crate) fn too_many() -> Problem {
    Problem::new(
        format!("there are {PERMITS_MAX} PERMITs already"),
        "combine some of them: their lists may have any length",
    )
}

/// A host list and the text behind the `:` that ends it, which is the first outside of brackets and
/// not part of a `-Phost:port`.
fn split_list(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' => depth -= 1,
            b':' if depth == 0 => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

/// Proxies, where `None` is all of them and everything else; and other words.
fn protocol_list(text: &str) -> Result<(Option<Vec<Proxy>>, Vec<String>), Problem> {
    let (mut proxies, mut relays) = (Vec::new(), Vec::new());
    for word in text.split(',').map(str::trim) {
        let lower = word.to_ascii_lowercase();
        match Proxy::of_word(&lower) {
            _ if lower == "*" => return Ok((None, Vec::new())),
            Some(proxy) => proxies.push(proxy),
            None if protocol::is_known(&lower) || OTHERS.contains(&&lower[..]) => {
                relays.push(lower);
            }
            None => {
                let nearest = suggest::nearest(word, ["socks", "http", "telnet", "ftp"]);
                let or = nearest.map(|word| format!("; did you mean `{}`?", plain(word)));
                return Err(Problem::new(
                    format!("{} is not a protocol of proxies or exits", quoted(word)),
                    format!(
                        "give socks, http, telnet, ftp, * or the word of an exit, which is \
                         tcprelay for DEST={}",
                        or.unwrap_or_default()
                    ),
                ));
            }
        }
    }
    Ok((Some(proxies), relays))
}

/// Words of exits without a standard port.
pub(super) const OTHERS: [&str; 2] = ["exec", "unix"];

/// Finds a `PERMIT=` that would have no effect. It may have been meant to shut clients out, so it is an
/// error. `exits` has the protocol words of exits that lead to one server.
///
/// # Errors
/// The index of the permit, and the reason.
pub(crate) fn check(
    permits: &[Permit],
    exits: &[Exit],
    has_entrances: bool,
) -> Result<(), (usize, Problem)> {
    // With any `PERMIT=` a proxy reaches only what one of them permits: each has an effect.
    if exits.iter().any(|exit| matches!(exit.way, ExitKind::Proxy(_))) {
        return Ok(());
    }
    for (place, permit) in permits.iter().enumerate() {
        // The destinations of FTP's active mode are checked at the client's entrance. A list of clients
        // alone is about connecting clients.
        let is_lock = permit.protocols.is_none()
            && permit.destinations.permits_everybody()
            && !permit.sources.permits_everybody();
        let is_for_calls = has_entrances && permit.is_of(Proxy::Ftp) && !is_lock;
        let is_for_exits = exits.iter().any(|exit| permit.is_of_word(&exit.protocol));
        if !is_for_calls && !is_for_exits {
            let what = "it has no effect: it applies to no exit of this process";
            let remedy = "limit clients by RELIABLE=hosts, or name the protocol of an exit, \
                          as in PERMIT=tcprelay:*:hosts for DEST=";
            return Err((place, Problem::new(what, remedy)));
        }
    }
    Ok(())
}

/// The same for a plain relay of this protocol.
///
/// # Errors
/// As of [`check`].
pub(crate) fn check_relay(permits: &[Permit], protocol: &str) -> Result<(), (usize, Problem)> {
    match permits.iter().position(|permit| !permit.is_of_word(protocol)) {
        None => Ok(()),
        Some(place) => {
            let what = "it has no effect: it does not apply to the plain relay";
            let remedy = format!("write PERMIT={protocol}:*:hosts, or RELIABLE=hosts");
            Err((place, Problem::new(what, remedy)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<Permit, Problem> {
        parse(value, "", &mut |_| Err(std::io::Error::other("no such name")))
    }

    #[test]
    fn three_lists() {
        for (value, protocols, destinations, sources) in [
            ("*:*:*", None, "*", "*"),
            ("socks:10.0.0.0/8,!10.0.0.1:*", Some(vec![Proxy::Socks]), "10.0.0.0/8,!10.0.0.1", "*"),
            (
                "http,SOCKS5:[::1],__1:[fe80::]/10",
                Some(vec![Proxy::Http, Proxy::Socks5]),
                "[::1],__1",
                "[fe80::]/10",
            ),
            ("FTP:10.0.0.1,-P21:*", Some(vec![Proxy::Ftp]), "10.0.0.1,-P21", "*"),
            ("telnet,*:-P23:-P127.0.0.1:8023", None, "-P23", "-P127.0.0.1:8023"),
        ] {
            let permit = read(value).unwrap_or_else(|problem| panic!("{value}: {problem}"));
            assert_eq!(permit.protocols, protocols, "{value}");
            assert_eq!(permit.destinations.to_string(), destinations, "{value}");
            assert_eq!(permit.sources.to_string(), sources, "{value}");
            assert_eq!(permit.relays, [""; 0], "{value}");
        }
        let permit = read("TCPrelay,socks4,exec,redis:*:10.0.0.1").expect("words of exits");
        assert_eq!(permit.relays, ["tcprelay", "exec", "redis"]);
        assert_eq!(permit.protocols, Some(vec![Proxy::Socks4]));
        for (word, wanted) in [
            ("tcprelay", true),
            ("udprelay", false),
            ("socks4", true),
            ("socks", true),
            ("socks5", false),
            ("http", false),
        ] {
            assert_eq!(permit.is_of_word(word), wanted, "{word}");
        }
    }

    #[test]
    fn faults_name_the_part() {
        for (value, wanted) in [
            ("", "`` has not three parts"),
            ("socks", "has not three parts"),
            ("socks:*", "has not three parts"),
            ("socks:[::1", "has not three parts"),
            ("sock:*:*", "did you mean `socks`?"),
            ("gofer:*:*", "`gofer` is not a protocol"),
            (":*:*", "`` is not a protocol"),
            ("*::*", "an empty host"),
            ("*:*:", "an empty host"),
            ("*:10.0.0.1/33:*", "`/33` does not fit"),
            ("*:nowhere:*", "`nowhere` cannot be looked up"),
            ("*:::1:*", "an empty host"),
        ] {
            let message = read(value).map(|permit| permit.source).unwrap_err().to_string();
            assert!(message.contains(wanted), "{value}: {message}");
        }
    }
}
