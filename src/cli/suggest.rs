//! "Did you mean": the known word nearest to a mistyped one.

use super::build::NAMES;
use super::error::plain;
use super::exit;
use super::portlist::PortList;

/// The known word that `typed` was probably meant to be, if one is near enough: the same but for
/// case, the beginning of just one, or one or two slips of the keyboard away.
pub(crate) fn nearest<'k>(
    typed: &str,
    known: impl IntoIterator<Item = &'k str>,
) -> Option<&'k str> {
    let typed = typed.to_lowercase();
    // In a word of three letters two slips would turn anything into anything.
    let slips_max = if typed.chars().count() <= 3 { 1 } else { 2 };
    let mut best: Option<(usize, &str)> = None;
    for word in known {
        let lower = word.to_lowercase();
        let slips = if typed.len() >= 3 && (lower.starts_with(&typed) || typed.starts_with(&lower))
        {
            1
        } else {
            strsim::damerau_levenshtein(&typed, &lower)
        };
        if slips <= slips_max && best.is_none_or(|(least, _)| slips < least) {
            best = Some((slips, word));
        }
    }
    best.map(|(_, word)| word)
}

/// The remedy for an unknown word: the nearest known one if there is one, else all of them.
pub(crate) fn remedy(typed: &str, known: &[&str]) -> String {
    match nearest(typed, known.iter().copied()) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("known are {}", known.join(", ")),
    }
}

/// The remedy for a word without `=`: what it was probably meant to be.
pub(crate) fn for_bare_word(text: &str) -> String {
    let text = plain(text);
    let numbers = text.replace("/udp", "");
    if PortList::parse(&text).is_ok() && !numbers.contains(|c: char| c.is_ascii_alphabetic()) {
        if numbers != text {
            return format!("write PORT={text} for an entrance");
        }
        format!(
            "write PORT={text} for an entrance, or -P{text} to accept the persistent connection"
        )
    } else if text.starts_with("sockmux") || text.contains("://") {
        format!("did you mean `SERVER={text}`?")
    } else if exit::of_dest(&text).is_ok() {
        format!("did you mean `DEST={text}`?")
    } else if let Some(word) =
        nearest(&text, ["demo", "keygen", "status", "streams", "drain", "kill"])
    {
        format!("did you mean `sockmux-uring {word}`?")
    } else {
        match nearest(&text, NAMES) {
            Some(name) => format!("did you mean `{name}=...`?"),
            None => format!("known names are {}, and +=FILE", NAMES.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let names = ["SERVER", "PORT", "DEST", "TIMEOUT", "SOXCONF"];
        for (typed, meant) in [
            ("SEVER", "SERVER"),
            ("server", "SERVER"),
            ("SERVRE", "SERVER"),
            ("PORTS", "PORT"),
            ("PROT", "PORT"),
            ("TIME", "TIMEOUT"),
            ("SOCKCONF", "SOXCONF"),
        ] {
            assert_eq!(nearest(typed, names), Some(meant), "{typed}");
        }
        assert_eq!(nearest("ELEPHANT", names), None);
        assert_eq!(nearest("XY", names), None);
        assert_eq!(nearest("", names), None);
    }
}
