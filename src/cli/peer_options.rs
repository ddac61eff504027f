//! The options of a peer, behind its key in the peers file: what it may do here.
//!
//! ```text
//! hostY SHA256:... streams=100 exits=http,10.0.0.5:5432 entrances=8022 listen=8000-8100,9000
//! ```

use std::ops::RangeInclusive;

use super::error::{Problem, plain, quoted};
use super::exit::{self, ExitWords};
use super::plan::{Exit, KnownPeer, PeerOptions, PortRanges, Proxy};
use super::{number, suggest};
use crate::limits::PEER_LIST_MAX;

/// All options.
pub(super) const NAMES: [&str; 4] = ["streams", "exits", "entrances", "listen"];

/// In place of a list: nothing.
const NONE: &str = "none";

/// Most notices about options. A file may have thousands of lines with the same slip.
const NOTICES_MAX: usize = 8;

/// Reads the words behind a key.
///
/// # Errors
/// A word without `=`, an option that does not exist or is given twice, a value that is none.
pub(super) fn parse<'w>(words: impl Iterator<Item = &'w str>) -> Result<PeerOptions, Problem> {
    let (mut options, mut given) = (PeerOptions::default(), Vec::new());
    for word in words {
        let Some((name, value)) = word.split_once('=') else {
            return Err(Problem::new(
                format!("{} is not understood behind the fingerprint", quoted(word)),
                format!(
                    "options are NAME=VALUE ({}), their lists have no blanks, and comments stand \
                     behind #",
                    NAMES.join(", ")
                ),
            ));
        };
        if !NAMES.contains(&name) {
            return Err(Problem::new(
                format!("{} is no option of a peer", quoted(name)),
                match suggest::nearest(name, NAMES) {
                    Some(near) => format!("did you mean `{near}`? {}", known()),
                    None => known(),
                },
            ));
        }
        if given.contains(&name) {
            return Err(Problem::new(format!("{name}= is given twice"), "keep one of the two"));
        }
        given.push(name);
        match name {
            "streams" => options.streams = Some(streams(value)?),
            "exits" => options.exits = Some(list(name, value, exit_name)?),
            "entrances" => options.entrances = Some(ports(name, value)?),
            _ => options.listen = ports(name, value)?,
        }
    }
    Ok(options)
}

fn known() -> String {
    format!("there are {}", NAMES.map(|name| format!("{name}=")).join(", "))
}

/// The elements of a list: those between commas, each by `read`. None for `none`, and for nothing.
fn list<T>(
    name: &str,
    value: &str,
    read: impl Fn(&str) -> Result<T, Problem>,
) -> Result<Vec<T>, Problem> {
    if value.is_empty() || value == NONE {
        return Ok(Vec::new());
    }
    let elements: Vec<&str> = value.split(',').collect();
    if elements.len() > PEER_LIST_MAX {
        return Err(Problem::new(
            format!("{name}= has {} elements", elements.len()),
            format!("give at most {PEER_LIST_MAX}, as ranges where that can be"),
        ));
    }
    elements.into_iter().map(read).collect()
}

fn streams(value: &str) -> Result<u32, Problem> {
    match number::whole(value) {
        Some(streams) if streams > 0 => Ok(streams),
        _ => Err(Problem::new(
            format!("{} in streams= is not a number of streams", quoted(value)),
            format!("give 1 or more, as in streams=100; exits={NONE} lets it open none"),
        )),
    }
}

/// What an exit is called: a proxy by its word, `exec`, or a place as in `DEST=`.
fn exit_name(element: &str) -> Result<String, Problem> {
    if let Some(proxy) = Proxy::of_word(element) {
        return Ok(proxy.word().to_owned());
    }
    if element == "exec" {
        return Ok(element.to_owned());
    }
    match exit::of_dest(element) {
        Ok(ExitWords { way, proxy_header: None, clients: None, .. }) => Ok(way.name()),
        _ => Err(Problem::new(
            format!("{} in exits= is not what an exit is called", quoted(element)),
            format!(
                "name proxies by their words (http, socks), commands by exec, others by their places \
                 as in DEST=, such as 10.0.0.5:5432 or unix:/run/x; or write exits={NONE}"
            ),
        )),
    }
}

/// Lists that name what is not there, a sentence each: the exits and the ports of entrances may have
/// been others when the file was written.
pub(super) fn notices(
    listed: &[KnownPeer],
    exits: &[Exit],
    entrances: impl Iterator<Item = u16>,
) -> Vec<String> {
    let entrances: Vec<u16> = entrances.collect();
    // The kernel chooses one that is not known yet.
    let all_known = !entrances.contains(&0);
    let mut notices: Vec<String> = Vec::new();
    for KnownPeer { name, options, .. } in listed {
        let no_exit = |name: &&String| exits.iter().all(|exit| exit.name != **name);
        let wrong = options.exits.iter().flatten().filter(no_exit);
        let wrong = wrong.map(|exit| format!("exits={}: no exit here is called so", plain(exit)));
        let no_port = |range: &&RangeInclusive<u16>| {
            all_known && !entrances.iter().any(|port| range.contains(port))
        };
        let ranges = options.entrances.iter().flat_map(|ports| &ports.0).filter(no_port);
        let ranges = ranges.map(|range| {
            format!(
                "entrances={}: no entrance here has such a port",
                PortRanges(vec![range.clone()])
            )
        });
        for what in wrong.chain(ranges) {
            if notices.len() == NOTICES_MAX {
                return notices;
            }
            let who = name.as_deref().unwrap_or_default();
            notices.push(format!("peers file: {who}: {what}"));
        }
    }
    notices
}

/// The notices about exits behind one that takes everything: they are used where peers have exits of
/// their own.
pub(super) fn never_used(listed: &[KnownPeer], notices: Vec<String>) -> Vec<String> {
    let all_have_all = listed.iter().all(|peer| peer.options.exits.is_none());
    if all_have_all { notices } else { Vec::new() }
}

/// `8000-8100,9000`.
fn ports(name: &str, value: &str) -> Result<PortRanges, Problem> {
    list(name, value, |element| {
        range(element).ok_or_else(|| {
            Problem::new(
                format!("{} in {name}= is neither a port nor a range of ports", quoted(element)),
                format!("give ports of 1 to 65535, as in {name}=8000-8100,9000, or {name}={NONE}"),
            )
        })
    })
    .map(PortRanges)
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let port = |text: &str| number::whole(text).filter(|&port: &u16| port > 0);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<PeerOptions, Problem> {
        parse(text.split_whitespace())
    }

    #[test]
    fn ports_that_a_peer_may_ask_for() {
        let listen = |text: &str| read(text).unwrap().listen;
        assert_eq!(listen("listen=8000-8100,9000"), PortRanges(vec![8000..=8100, 9000..=9000]));
        assert_eq!(listen("listen=1-65535"), PortRanges(vec![1..=65_535]));
        for none in ["", "listen=", "listen=none"] {
            assert!(listen(none).is_empty(), "{none}");
        }
        let ports = listen("listen=8000-8100,9000,7-7");
        assert_eq!(ports.to_string(), "8000-8100,9000,7");
        let in_it = [7999, 8000, 8100, 8101, 9000, 7].map(|port| ports.contains(port));
        assert_eq!(in_it, [false, true, true, false, true, true]);
    }

    #[test]
    fn streams_exits_and_entrances() {
        let options = read("streams=7 exits=http,10.0.0.5:5432 entrances=8022").unwrap();
        assert_eq!(options.streams, Some(7));
        assert_eq!(options.exits, Some(vec!["http".to_owned(), "10.0.0.5:5432".to_owned()]));
        assert_eq!(options.entrances, Some(PortRanges(vec![8022..=8022])));
        let nothing = PeerOptions {
            exits: Some(Vec::new()),
            entrances: Some(PortRanges::default()),
            ..PeerOptions::default()
        };
        for none in ["exits=none entrances=none", "entrances= exits="] {
            assert_eq!(read(none).as_ref(), Ok(&nothing), "{none}");
        }
        assert_eq!(read(""), Ok(PeerOptions::default()));
        assert!(nothing.has_entrance(80) != PeerOptions::default().has_entrance(80));
    }

    /// As the exits of the plan are, however they are written.
    #[test]
    fn exits_have_one_name_each() {
        for (written, wanted) in [
            ("socks5", "socks5"),
            ("exec", "exec"),
            ("hostT:111", "hostT:111"),
            ("[::1]:53/udp", "[::1]:53/udp"),
            ("__1:53", "[::1]:53"),
            ("h:-", "h:-"),
            ("h:+1000/udp", "h:+1000/udp"),
            ("h:-8000", "h:-8000"),
            ("unix:/run/x", "unix:/run/x"),
        ] {
            let exits = read(&format!("exits={written}")).unwrap().exits;
            assert_eq!(exits, Some(vec![wanted.to_owned()]), "{written}");
            if let Ok(ExitWords { way, .. }) = exit::of_dest(written) {
                assert_eq!(way.name(), wanted);
            }
        }
    }

    #[test]
    fn wrong_options_are_named_with_those_that_there_are() {
        let many = format!("listen={}", vec!["80"; PEER_LIST_MAX + 1].join(","));
        let few = format!("listen={}", vec!["80"; PEER_LIST_MAX].join(","));
        assert_eq!(read(&few).unwrap().listen.0.len(), PEER_LIST_MAX);
        for (text, wanted) in [
            (
                "exit=http",
                "`exit` is no option of a peer; did you mean `exits`? there are streams=, exits=, \
                 entrances=, listen=",
            ),
            ("elephant=80", "`elephant` is no option of a peer; there are streams=, exits="),
            ("streams=0", "`0` in streams= is not a number of streams; give 1 or more"),
            ("streams=", "`` in streams= is not a number"),
            ("streams=+5", "`+5` in streams= is not a number"),
            ("streams=5000000000", "`5000000000` in streams= is not"),
            ("streams=1,2", "`1,2` in streams= is not"),
            ("streams=none", "`none` in streams= is not"),
            ("exits=http exits=socks", "exits= is given twice; keep one of the two"),
            ("exits=gopher", "`gopher` in exits= is not what an exit is called; name proxies by"),
            ("exits=http://h:80", "`http://h:80` in exits= is not"),
            ("exits=h", "`h` in exits= is not"),
            ("exits=h:1:10.0.0.0/8", "`h:1:10.0.0.0/8` in exits= is not"),
            ("exits=h:1?proxy=v1", "`h:1?proxy=v1` in exits= is not"),
            ("exits=http,,socks", "`` in exits= is not"),
            ("exits=none,http", "`none` in exits= is not"),
            ("entrances=h:80", "`h:80` in entrances= is neither a port nor a range of ports"),
            ("Listen=80", "`Listen` is no option of a peer; did you mean `listen`?"),
            ("listen=80 listen=81", "listen= is given twice; keep one of the two"),
            ("hostY", "`hostY` is not understood behind the fingerprint; options are NAME=VALUE"),
            ("listen=80, 81", "`` in listen= is neither a port nor a range of ports"),
            ("listen=0", "`0` in listen= is neither a port nor a range of ports; give ports of 1"),
            ("listen=0-9", "`0-9` in listen= is neither"),
            ("listen=65536", "`65536` in listen= is neither"),
            ("listen=9-8", "`9-8` in listen= is neither"),
            ("listen=8-", "`8-` in listen= is neither"),
            ("listen=+8", "`+8` in listen= is neither"),
            ("listen=h:80", "`h:80` in listen= is neither"),
            ("listen=80,none", "`none` in listen= is neither"),
            (&many, "listen= has 65 elements; give at most 64"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(wanted), "{text}: {message}");
        }
    }
}
