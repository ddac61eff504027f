//! `PERMIT=protoList:dstHostList:srcHostList`: what proxies may reach, and for whom.

use super::error::{Problem, plain, quoted};
use super::hostlist::{HostList, Lookup};
use super::plan::{Permit, Proxy};
use super::suggest;
use crate::limits::PERMITS_MAX;

const REMEDY: &str = "write PERMIT=protoList:dstHostList:srcHostList, as in \
                      PERMIT=socks,http:192.168.0.0/16:* (IPv6 in brackets)";

/// Reads the value of `PERMIT=`. In the list of destinations `-Pport` means the port there.
///
/// # Errors
/// What is not of three parts, a word that is no proxy's, a host list that cannot be read.
pub(crate) fn parse(value: &str, source: &str, lookup: &mut Lookup<'_>) -> Result<Permit, Problem> {
    let parts = value.split_once(':').and_then(|(protocols, hosts)| {
        let (destinations, sources) = split_list(hosts)?;
        Some((protocols, destinations, sources))
    });
    let Some((protocols, destinations, sources)) = parts else {
        return Err(Problem::new(format!("{} has not three parts", quoted(value)), REMEDY));
    };
    Ok(Permit {
        protocols: protocol_list(protocols)?,
        destinations: HostList::parse(destinations, lookup)?,
        sources: HostList::parse(sources, lookup)?,
        source: source.to_owned(),
    })
}

/// There are as many as there may be.
pub(crate) fn too_many() -> Problem {
    Problem::new(
        format!("there are {PERMITS_MAX} PERMITs already"),
        "say more in one: its lists may have any length",
    )
}

/// A host list and what is behind the `:` that ends it, which is the first outside of brackets and
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

/// `None` is every proxy.
fn protocol_list(text: &str) -> Result<Option<Vec<Proxy>>, Problem> {
    let mut list = Vec::new();
    for word in text.split(',').map(str::trim) {
        match (word, Proxy::of_word(&word.to_ascii_lowercase())) {
            ("*", _) => return Ok(None),
            (_, Some(proxy)) => list.push(proxy),
            (word, None) => {
                let nearest = suggest::nearest(word, ["socks", "http", "telnet", "ftp"]);
                let or = nearest.map(|word| format!("; did you mean `{}`?", plain(word)));
                return Err(Problem::new(
                    format!("{} is no proxy's protocol", quoted(word)),
                    format!("give socks, http, telnet, ftp or *{}", or.unwrap_or_default()),
                ));
            }
        }
    }
    Ok(Some(list))
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
                Some(vec![Proxy::Http, Proxy::Socks]),
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
            ("gopher:*:*", "`gopher` is no proxy's protocol"),
            (":*:*", "`` is no proxy's protocol"),
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
