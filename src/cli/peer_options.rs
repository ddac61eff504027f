//! The options of a peer, behind its key in the peers file: what it may do here.
//!
//! ```text
//! hostY SHA256:... listen=8000-8100,9000
//! ```

use std::ops::RangeInclusive;

use super::error::{Problem, quoted};
use super::plan::{PeerOptions, PortRanges};
use super::suggest;
use crate::limits::PEER_LIST_MAX;

/// All options.
const NAMES: [&str; 1] = ["listen"];

/// In place of a list: nothing.
const NONE: &str = "none";

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
            return Err(Problem::new(format!("{name}= is given twice"), "make one list of both"));
        }
        given.push(name);
        options.listen = ports(name, value)?;
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
    let port = |text: &str| {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|&port: &u16| digits && port > 0)
    };
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
    fn wrong_options_are_named_with_those_that_there_are() {
        let many = format!("listen={}", vec!["80"; PEER_LIST_MAX + 1].join(","));
        let few = format!("listen={}", vec!["80"; PEER_LIST_MAX].join(","));
        assert_eq!(read(&few).unwrap().listen.0.len(), PEER_LIST_MAX);
        for (text, wanted) in [
            (
                "lsten=80",
                "`lsten` is no option of a peer; did you mean `listen`? there are listen=",
            ),
            ("port=80", "`port` is no option of a peer; there are listen="),
            ("Listen=80", "`Listen` is no option of a peer; did you mean `listen`?"),
            ("listen=80 listen=81", "listen= is given twice; make one list of both"),
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
