//! Files and modules that documents name exist.

use std::fs;
use std::path::{Path, PathBuf};

use super::Source;

pub(super) fn findings(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for (at, line) in source.text.lines().enumerate() {
        // The texts between the first tick and the second, the third and the fourth, ...
        for name in line.split('`').skip(1).step_by(2).filter(|name| !exists(name)) {
            findings.push(source.finding(at + 1, &format!("there is no {name}")));
        }
    }
    findings
}

/// Whether a file or module exists, or it names neither.
fn exists(name: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_/.:".contains(c);
    if !name.chars().all(is_plain) {
        return true;
    }
    if name.ends_with(".rs") && name.contains('/') {
        return root.join(name).exists() || root.join("src").join(name).exists();
    }
    let mut parts = name.split("::").peekable();
    let mut place = root.join("src");
    // Of other crates, or of a type.
    if !name.contains("::") || !parts.peek().is_some_and(|room| place.join(room).is_dir()) {
        return true;
    }
    while let Some(inner) = parts.peek().map(|part| place.join(part)) {
        if !inner.is_dir() && !inner.with_extension("rs").exists() {
            break;
        }
        place = inner;
        parts.next();
    }
    let text = text_of(&place);
    parts.next().is_none_or(|item| text.contains(item))
}

/// Of a module, by its path without an ending.
fn text_of(module: &Path) -> String {
    let files: [PathBuf; 2] = [module.with_extension("rs"), module.join("mod.rs")];
    files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect()
}

#[test]
fn what_does_not_exist_is_found() {
    for (name, wanted) in [
        ("src/lib.rs", true),
        ("worker/turn.rs", true),
        ("worker/none.rs", false),
        ("tests/style/main.rs", true),
        ("session::window", true),
        ("session::Config", true),
        ("session::nothing_of_the_kind", false),
        ("worker::turn::finish_turn", true),
        ("worker::turn::nothing_of_the_kind", false),
        ("std::nothing", true),
        ("a line of text", true),
    ] {
        assert_eq!(exists(name), wanted, "{name}");
    }
    let found = findings(&Source::sample("docs/a.md", "`io`\nsee `io/no.rs`, `io/net.rs`\n"));
    assert_eq!(found, ["docs/a.md:2: there is no io/no.rs"]);
}
