//! Directions between the rooms of src/: each imports only what is below it.

use super::Source;
use super::imports::{imports, module_of};

/// The rooms, from the bottom up, each with those that it may import. Rooms of one floor do not import
/// each other. To allow an import means to move a room to another floor: docs/architecture.md describes
/// what each room depends on.
const ROOMS: [(&str, &[&str]); 18] = [
    ("build", &[]),
    ("limits", &[]),
    ("control", &["limits"]),
    ("narrow", &[]),
    ("wire", &["limits", "narrow"]),
    ("link", &["limits"]),
    ("cli", &["control", "limits", "wire"]),
    ("tls", &["cli", "limits", "narrow"]),
    ("session", &["limits", "narrow", "wire"]),
    ("serial_line", &["limits", "narrow", "session", "wire"]),
    ("policy", &["cli", "limits", "wire"]),
    ("proxy_proto", &["cli", "limits", "wire"]),
    ("io", &["cli", "control", "limits", "narrow", "wire"]),
    ("observe", &["cli", "limits"]),
    ("identity", &["cli", "limits", "tls"]),
    (
        "worker",
        &[
            "cli",
            "control",
            "io",
            "limits",
            "link",
            "narrow",
            "observe",
            "policy",
            "proxy_proto",
            "serial_line",
            "session",
            "tls",
            "wire",
        ],
    ),
    (
        "process",
        &[
            "cli", "control", "identity", "io", "limits", "observe", "policy", "tls", "wire",
            "worker",
        ],
    ),
    ("demo", &["cli", "limits", "observe", "process"]),
];

pub(super) fn findings(source: &Source) -> Vec<String> {
    // lib.rs and main.rs are above all rooms.
    let Some(&room) = module_of(&source.path).as_deref().and_then(<[_]>::first) else {
        return Vec::new();
    };
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![source.finding(1, &format!("{room} is no room of tests/style/rooms.rs"))];
    };
    let imports = imports(source);
    let others = imports.iter().filter_map(|import| Some((import.line, &import.path.first()?[..])));
    others
        .filter(|(_, other)| *other != room && !allowed.contains(other))
        .map(|(line, other)| source.finding(line, &format!("{room} may not import {other}")))
        .collect()
}

#[test]
fn imports_of_what_is_above_or_beside_are_found() {
    for (path, text, wanted) in [
        ("src/io/net.rs", "use crate::worker::Worker;", "io may not import worker"),
        ("src/cli/plan/mod.rs", "\nfn a() { crate::io::b() }", "cli may not import io"),
        ("src/session/mod.rs", "use super::proxy_proto::{a, b};", "may not import proxy_proto"),
        ("src/news/mod.rs", "", "news is no room"),
    ] {
        let found = findings(&Source::sample(path, text));
        assert!(found[0].contains(wanted), "{found:?}");
        assert!(found[0].starts_with(&format!("{path}:{}: ", text.lines().count().max(1))));
    }
    let fine = "use crate::wire::Frame;\nuse super::stream::Stream;\nuse crate::limits;";
    assert!(findings(&Source::sample("src/session/close.rs", fine)).is_empty());
}

#[test]
fn rooms_stand_above_those_that_they_import() {
    for (at, (room, allowed)) in ROOMS.iter().enumerate() {
        let below: Vec<_> = ROOMS[..at].iter().map(|(name, _)| name).collect();
        assert!(allowed.iter().all(|other| below.contains(&other)), "{room} imports upwards");
    }
}
