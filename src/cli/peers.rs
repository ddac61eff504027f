//! The peers file: whose keys are known. Like `authorized_keys`, a key a line, and behind it what its
//! holder may do here.
//!
//! ```text
//! # NAME FINGERPRINT OPTIONS
//! hostY  SHA256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8  listen=8000-8100
//! ```

use std::sync::Arc;

use super::error::{Failure, Problem, plain, quoted};
use super::fingerprint::Fingerprint;
use super::peer_options;
use super::plan::{Encryption, KnownPeer, Proof};
use crate::limits::{PEER_NAME_CHARS, PEERS_MAX};

/// Reads the text of a peers file. A name may stand on several lines, with a key each, so that a
/// key can be replaced while the old one still counts. Options are those of a key.
///
/// # Errors
/// `line N: ...` of the first line that is none of these: blank, `#` comment, name and fingerprint with
/// options.
pub fn parse(text: &str) -> Result<Vec<KnownPeer>, Problem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut peers: Vec<KnownPeer> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        // Names, fingerprints and options have no `#`.
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        let peer = match words.next() {
            Some(fingerprint) => named(first, fingerprint).and_then(|peer| {
                Ok(KnownPeer { options: Arc::new(peer_options::parse(words)?), ..peer })
            }),
            None => Err(Problem::new(
                format!("{} stands alone", quoted(first)),
                "write NAME FINGERPRINT, as in hostY SHA256:...",
            )),
        };
        let peer = peer.and_then(|peer| distinct(&peers, &peer).map(|()| peer));
        peers.push(peer.map_err(|problem| problem.in_line(index + 1))?);
    }
    Ok(peers)
}

/// A peer by name and fingerprint.
pub(super) fn named(name: &str, fingerprint: &str) -> Result<KnownPeer, Problem> {
    let name = Some(self::name(name)?);
    let fingerprint = Fingerprint::parse(fingerprint)?;
    Ok(KnownPeer { name, fingerprint, options: Arc::default() })
}

/// The name of a peer: fit for a log, a host list and a file.
pub(super) fn name(text: &str) -> Result<String, Problem> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if (1..=PEER_NAME_CHARS).contains(&text.len()) && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    Err(Problem::new(
        format!("{} is not a name for a peer", quoted(text)),
        format!("take 1 to {PEER_NAME_CHARS} letters, digits, dots, dashes and underscores"),
    ))
}

/// The clients of an exit as written, without the elements `peer=NAME`, and their names.
///
/// # Errors
/// A name that is none, and one behind `!`.
pub(super) fn of_exit(clients: Option<String>) -> Result<(Option<String>, Vec<String>), Problem> {
    let Some(clients) = clients else { return Ok((None, Vec::new())) };
    let (mut names, mut others) = (Vec::new(), Vec::new());
    for element in clients.split(',') {
        match element.trim().strip_prefix("peer=") {
            Some(name) => names.push(self::name(name)?),
            None if element.trim().starts_with("!peer=") => {
                return Err(Problem::new(
                    format!("{} shuts out a peer", quoted(element.trim())),
                    "name the peers that may use the exit, as in peer=hostY",
                ));
            }
            None => others.push(element),
        }
    }
    let others = (!others.is_empty()).then(|| others.join(","));
    Ok((others, names))
}

/// Exits and entrances for certain peers, against the peers that there can be. Each has its source and
/// the names.
///
/// # Errors
/// Nothing gives peers names. A name of no known key is worth a notice: its key may come later.
pub(super) fn check<'p>(
    places: impl IntoIterator<Item = (&'p str, &'p [String])>,
    encryption: Option<&Encryption>,
    notices: &mut Vec<String>,
) -> Result<(), Failure> {
    let each = |(source, names): (&'p str, &'p [String])| names.iter().map(move |n| (source, n));
    let mut before = None;
    for (source, name) in places.into_iter().flat_map(each) {
        // A range is a place for each of its ports.
        if before.replace((source, name)) == Some((source, name)) {
            continue;
        }
        let source = plain(source);
        let encryption = match encryption {
            Some(encryption) if matches!(encryption.proof, Proof::Key { .. }) => encryption,
            _ => {
                return Err(Failure::new(format!(
                    "{source}: peer={name}: peers have no names here; add \
                     TLSCONF=peer:{name}=SHA256:..., the fingerprint of that peer's key"
                )));
            }
        };
        let Encryption { peers, listed, authority, .. } = encryption;
        let is_it = |peer: &KnownPeer| peer.name.as_ref() == Some(name);
        if authority.is_none() && !peers.iter().chain(listed).any(is_it) {
            notices.push(format!("{source}: no key of a peer {name} is known now"));
        }
    }
    Ok(())
}

/// A key has one name, and there are not too many keys.
pub(super) fn distinct(peers: &[KnownPeer], peer: &KnownPeer) -> Result<(), Problem> {
    if peers.iter().any(|other| other.fingerprint == peer.fingerprint) {
        return Err(Problem::new(
            format!("{} is there already", peer.fingerprint),
            "leave one of them out: a key has one name",
        ));
    }
    if peers.len() == PEERS_MAX {
        return Err(Problem::new(
            format!("there are more than {PEERS_MAX} peers"),
            "use certificates of an authority of your own (TLSCONF=ca:FILE)",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "SHA256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    const OTHER: &str = "SHA256:AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

    #[test]
    fn names_keys_and_comments() {
        let text = format!("\u{feff}# all\n\n  hostY\t{KEY} # of Y\r\nhostY {OTHER}");
        let peers = parse(&text).unwrap();
        let shown: Vec<_> =
            peers.iter().map(|peer| (peer.name.as_deref(), peer.fingerprint.to_string())).collect();
        assert_eq!(shown, [(Some("hostY"), KEY.to_owned()), (Some("hostY"), OTHER.to_owned())]);
        assert_eq!(parse(""), Ok(Vec::new()));
    }

    #[test]
    fn options_are_those_of_a_key() {
        let text = format!("hostY {KEY} listen=80 # more\nhostY {OTHER}");
        let peers = parse(&text).unwrap();
        let listen: Vec<_> = peers.iter().map(|peer| peer.options.listen.to_string()).collect();
        assert_eq!(listen, ["80", ""]);
    }

    #[test]
    fn the_peers_of_an_exit_are_told_from_its_clients() {
        let read = |clients: &str| of_exit(Some(clients.to_owned()));
        let found = |others: Option<&str>, names: &[&str]| {
            Ok((others.map(str::to_owned), names.iter().map(|&name| name.to_owned()).collect()))
        };
        assert_eq!(read("peer=hostY"), found(None, &["hostY"]));
        assert_eq!(
            read("-P80, peer=a,!10.0.0.1,peer=b"),
            found(Some("-P80,!10.0.0.1"), &["a", "b"])
        );
        assert_eq!(read("*"), found(Some("*"), &[]));
        assert_eq!(read(""), found(Some(""), &[]));
        assert_eq!(of_exit(None), found(None, &[]));
        for (wrong, wanted) in [("peer=", "`` is not a name"), ("!peer=a", "shuts out a peer")] {
            let message = read(wrong).unwrap_err().to_string();
            assert!(message.contains(wanted), "{message}");
        }
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (line, wanted) in [
            (KEY.to_owned(), "line 2: `SHA256:AAE"),
            (format!("a/b {KEY}"), "line 2: `a/b` is not a name for a peer; take 1 to"),
            (format!("{} {KEY}", "n".repeat(PEER_NAME_CHARS + 1)), "is not a name for a peer"),
            (format!("{KEY} hostY"), "is not a name for a peer"),
            ("hostY SHA256:AAE".to_owned(), "line 2: `SHA256:AAE` is not a fingerprint"),
            (format!("hostY {KEY} exit=1"), "line 2: `exit` is no option of a peer; "),
            (format!("a {KEY}\nb {KEY}"), "line 3: SHA256:AAECAw"),
            // Which of the two would hold?
            (format!("a {KEY} listen=80\na {KEY}"), "line 3: SHA256:AAECAw"),
        ] {
            let message = parse(&format!("# first\n{line}\n")).unwrap_err().to_string();
            assert!(message.contains(wanted), "{line}: {message}");
        }
        let many: String = (0..=PEERS_MAX)
            .map(|n| {
                let mut digest = [0; 32];
                digest[..8].copy_from_slice(&(n as u64).to_be_bytes());
                format!("n {}\n", Fingerprint(digest))
            })
            .collect();
        let message = parse(&many).unwrap_err().to_string();
        assert!(message.contains("more than"), "{message}");
    }
}
