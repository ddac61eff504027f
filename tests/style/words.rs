//! Retired names and idioms of code, comments, texts and documents.

use super::Source;

/// Whole words, case-sensitive, each with its replacement.
const NAMES: &[(&str, &str)] = &[
    ("LocalTable", "Conns"),
    ("Locals", "Conns"),
    ("heres", "expected connections"),
    ("Kit", "Buffers"),
    ("watch_local", "arm_readable"),
    ("guard_local", "arm_error_watch"),
    ("Pace", "ReadMode"),
    ("judge_pace", "update_read_mode"),
    ("calm_down", "demote"),
    ("feed_starved", "retry_buffer_waiters"),
    ("patience_over", "deadline_expired"),
    ("take_in", "dispatch"),
    ("do_events", "handle_events"),
    ("pass_out", "pipe_to_link"),
    ("pass_in", "link_to_pipe"),
    ("Knocking", "ConnectingUnix"),
    ("proxied", "upstream"),
    ("gathering", "coalesce"),
    ("told_bytes", "reported_bytes"),
    ("somebody_types", "is_interactive"),
    ("crumb", "small fragment"),
    ("deaf", "write_failed"),
    ("Came", "AcceptedConn or ReadTally"),
];

/// Phrases, in any case.
const PHRASES: &[(&str, &str)] = &[
    ("whoever is told", "the receiver, by its name"),
    ("who is told", "the receiver, by its name"),
    ("is said to whoever", "is sent to, with the receiver's name"),
    ("nothing was sent to", "unexpected source"),
    ("accepts nobody in time", "connect timed out"),
    ("sent what is no sockmux", "is not speaking SockMux"),
    ("does not let it in", "rejected by"),
    ("says nothing new", "carries nothing new"),
    ("knows nothing of", "is independent of"),
];

pub(super) fn findings(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for (at, line) in source.text.lines().enumerate() {
        let names = NAMES.iter().filter(|(name, _)| has_word(line, name));
        let lower = line.to_lowercase();
        let phrases = PHRASES.iter().filter(|(phrase, _)| has_word(&lower, phrase));
        for (word, better) in names.chain(phrases) {
            findings.push(source.finding(at + 1, &format!("`{word}`: write {better}")));
        }
    }
    findings
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let (before, behind) = (&line[..at], &line[at + word.len()..]);
        !before.ends_with(is_part) && !behind.starts_with(is_part)
    })
}

#[test]
fn each_word_and_phrase_is_found() {
    for (name, _) in NAMES.iter().chain(PHRASES) {
        let found = findings(&Source::sample("docs/a.md", &format!("a\nb {name}, c\n")));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("docs/a.md:2: `"), "{found:?}");
        let longer = format!("x{name}\n{name}_y");
        assert!(findings(&Source::sample("docs/a.md", &longer)).is_empty());
    }
}
