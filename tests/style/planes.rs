//! Planes of the worker: which imports which, what of them is visible, and where `Worker` itself is.

use std::collections::{BTreeMap, BTreeSet};

use super::Source;
use super::imports::{imports, module_of};

/// The rooms of src/worker/ that own state.
const PLANES: [&str; 7] =
    ["connector", "datagram", "forward", "ingress", "proxy", "relay", "stream"];

/// What knows all planes.
const HALL: [&str; 3] = ["dispatch", "sim", "turn"];

/// The floors of planes: what each imports of others. It calls those; what it needs of any other is
/// handed to it by [`HALL`], returned, or an `Effect`, and a type that two of them share has a file
/// beside them.
///
/// To allow an import means to put a plane above another one: docs/architecture.md says why each is
/// where it is.
const ALLOWED: &[Room] = &[
    ("datagram", &["stream"]),
    ("forward", &["datagram", "stream"]),
    ("ingress", &["datagram", "stream"]),
    ("proxy", &["stream"]),
    ("stream", &["connector"]),
];

/// Files with methods of `Worker`: its making and its run, and [`HALL`].
const WORKER_FILES_MAX: usize = 3;

/// A room, and what it imports.
type Room = (&'static str, &'static [&'static str]);

pub(super) fn findings(sources: &[Source]) -> Vec<String> {
    let mut findings = check(sources, ALLOWED);
    findings.extend(circles(sources));
    findings.extend(sources.iter().flat_map(visible_fields));
    findings.extend(files_of_worker(sources));
    findings
}

/// The room of a file. `None`: it knows all of them.
fn room_of(source: &Source) -> Option<String> {
    let module = module_of(&source.path).unwrap_or_default();
    let &[_, room, ..] = &module[..] else { return None };
    (!HALL.contains(&room)).then(|| room.to_owned())
}

fn check(sources: &[Source], allowed: &[Room]) -> Vec<String> {
    let (mut findings, mut needed) = (BTreeSet::new(), BTreeSet::new());
    for source in sources {
        let Some(room) = room_of(source) else { continue };
        for import in imports(source) {
            let [worker, other, ..] = &import.path[..] else { continue };
            let is_plane = PLANES.contains(&&other[..]) || other == "Worker";
            if worker != "worker" || *other == room || !is_plane {
                continue;
            }
            if allowed.iter().any(|(from, to)| *from == room && to.contains(&&other[..])) {
                needed.insert((room.clone(), other.clone()));
            } else {
                let what = format!("worker::{room} may not import {other}");
                findings.insert(source.finding(import.line, &what));
            }
        }
    }
    let pairs = allowed.iter().flat_map(|(from, to)| to.iter().map(move |to| (*from, *to)));
    let gone = pairs.filter(|(from, to)| !needed.contains(&((*from).to_owned(), (*to).to_owned())));
    let gone = gone.map(|(from, to)| {
        format!(
            "worker::{from} does not import {to} any more: delete that in tests/style/planes.rs"
        )
    });
    findings.into_iter().chain(gone).collect()
}

/// Rooms that import each other, by way of others or at once.
fn circles(sources: &[Source]) -> Vec<String> {
    let mut below: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources {
        let Some(room) = room_of(source) else { continue };
        let rooms = imports(source).into_iter().filter_map(|import| match &import.path[..] {
            [worker, other, ..] if worker == "worker" => Some(other.clone()),
            _ => None,
        });
        below.entry(room).or_default().extend(rooms);
    }
    // Takes away the rooms that import none of those left, until none can be.
    loop {
        let is_left = |room: &String| below.contains_key(room);
        let lowest: Vec<String> = below
            .iter()
            .filter(|(room, others)| !others.iter().any(|other| other != *room && is_left(other)))
            .map(|(room, _)| room.clone())
            .collect();
        if lowest.is_empty() {
            break;
        }
        below.retain(|room, _| !lowest.contains(room));
    }
    let left: Vec<&str> = below.keys().map(String::as_str).collect();
    match left[..] {
        [] => Vec::new(),
        _ => vec![format!("in a circle of imports, or above one: {}", left.join(", "))],
    }
}

/// Fields of a plane that are visible outside of it.
fn visible_fields(source: &Source) -> Vec<String> {
    let is_plane = room_of(source).is_some_and(|room| PLANES.contains(&&room[..]));
    let lines = source.text.lines().zip(1..).filter(|_| is_plane);
    let visible = lines.filter(|(line, _)| {
        let rest = ["pub ", "pub(crate) ", "pub(in crate::worker) "]
            .iter()
            .find_map(|visible| line.trim_start().strip_prefix(visible));
        let name = rest.and_then(|rest| rest.split_once(": ")).map(|(name, _)| name);
        name.is_some_and(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    });
    visible.map(|(_, line)| source.finding(line, "a field of a plane is visible outside")).collect()
}

/// Files with methods of `Worker`, if there are too many.
fn files_of_worker(sources: &[Source]) -> Vec<String> {
    let is_method = |line: &str| line.starts_with("impl") && line.contains(" Worker<D> {");
    let files = sources.iter().filter(|source| source.text.lines().any(is_method));
    let files: Vec<&str> = files.map(|source| &source.path[..]).collect();
    if files.len() <= WORKER_FILES_MAX {
        return Vec::new();
    }
    vec![format!("methods of Worker stand in {} files: {}", files.len(), files.join(", "))]
}

#[test]
fn a_new_import_is_found_and_one_that_is_gone() {
    let text = "use super::Key;\nuse super::super::stream::Streams;\nuse crate::worker::proxy::A;";
    let sample = [Source::sample("src/worker/relay/pair.rs", text)];
    let found = check(&sample, &[("relay", &["proxy", "connector"])]);
    let wanted = [
        "src/worker/relay/pair.rs:2: worker::relay may not import stream",
        "worker::relay does not import connector any more: delete that in tests/style/planes.rs",
    ];
    assert_eq!(found, wanted);
    let hall = [Source::sample("src/worker/dispatch.rs", text)];
    assert!(check(&hall, &[]).is_empty());
    let method = [Source::sample("src/worker/relay/mod.rs", "use super::{Key, Worker};")];
    assert_eq!(check(&method, &[]).len(), 1);
}

#[test]
fn circles_are_found_whatever_they_consist_of() {
    let file = |room: &str, text: &str| Source::sample(&format!("src/worker/{room}.rs"), text);
    let mut sources = vec![
        file("proxy", "use crate::worker::stream::Streams;\nuse super::table::Key;"),
        file("stream", "use super::context::Cx;"),
        file("context", "use super::waiters::Waiters;\nuse super::table::Key;"),
        file("waiters", "use super::table::Key;"),
        file("table", ""),
        file("dispatch", "use super::proxy::Proxies;"),
    ];
    assert!(circles(&sources).is_empty());
    sources.push(file("table", "use super::stream::Streams;"));
    let wanted = "in a circle of imports, or above one: context, proxy, stream, table, waiters";
    assert_eq!(circles(&sources), [wanted]);
}

#[test]
fn fields_that_others_see_and_too_many_files_of_the_worker_are_found() {
    let text = "\
struct A {
    pub(super) one: u8,
    pub(in crate::worker) two: u8,
    three: u8,
}
pub(in crate::worker) fn four(five: u8) {}
pub(in crate::worker) const SIX: u8 = 6;
";
    let found = visible_fields(&Source::sample("src/worker/proxy/mod.rs", text));
    assert_eq!(found, ["src/worker/proxy/mod.rs:3: a field of a plane is visible outside"]);
    assert!(visible_fields(&Source::sample("src/worker/message.rs", text)).is_empty());
    let sample = |number| {
        let path = format!("src/worker/{number}.rs");
        Source::sample(&path, "impl<D: Driver> Worker<D> {\n}\n")
    };
    assert!(files_of_worker(&[1, 2, 3].map(sample)).is_empty());
    assert_eq!(files_of_worker(&[1, 2, 3, 4].map(sample)).len(), 1);
}
