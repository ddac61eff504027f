//! Imports between the planes of the worker, and from what all of them use.

use std::collections::BTreeSet;

use super::Source;
use super::imports::{imports, module_of};

/// The rooms of src/worker/ that own state.
const PLANES: [&str; 9] =
    ["connector", "datagram", "dialer", "forward", "ingress", "proxy", "relay", "stream", "tunnel"];

/// What knows all planes.
const HALL: [&str; 4] = ["deadlines", "dispatch", "sim", "turn"];

/// What each room imports of others today: of planes, and of `Worker`, which stands for methods that
/// are still the worker's. None is to be added: what a plane needs of another one is handed to it by
/// the caller, returned, or an `Effect`, and a type that two of them share has a file beside them.
///
/// To remove one: move what is imported, or turn the call into one of those three; then delete the
/// name here, which the test asks for.
const ALLOWED: &[Room] = &[
    ("connector", &["dialer"]),
    ("context", &["dialer"]),
    ("counts", &["Worker"]),
    ("datagram", &["tunnel"]),
    ("forward", &["Worker", "datagram", "dialer", "ingress", "stream"]),
    ("ingress", &["Worker", "datagram", "forward", "relay", "stream"]),
    ("proxy", &["Worker", "dialer", "ingress", "stream"]),
    ("relay", &["dialer"]),
    ("signals", &["Worker"]),
    ("stream", &["Worker", "dialer", "ingress", "proxy", "tunnel"]),
    ("tunnel", &["Worker", "stream"]),
    ("waiters", &["Worker", "relay"]),
];

/// A room, and what it imports.
type Room = (&'static str, &'static [&'static str]);

pub(super) fn findings(sources: &[Source]) -> Vec<String> {
    check(sources, ALLOWED)
}

fn check(sources: &[Source], allowed: &[Room]) -> Vec<String> {
    let (mut findings, mut needed) = (BTreeSet::new(), BTreeSet::new());
    for source in sources {
        let module = module_of(&source.path).unwrap_or_default();
        let &[_, room, ..] = &module[..] else { continue };
        if HALL.contains(&room) {
            continue;
        }
        for import in imports(source) {
            let [worker, other, ..] = &import.path[..] else { continue };
            let is_plane = PLANES.contains(&&other[..]) || other == "Worker";
            if worker != "worker" || other == room || !is_plane {
                continue;
            }
            if allowed.iter().any(|(from, to)| *from == room && to.contains(&&other[..])) {
                needed.insert((room.to_owned(), other.clone()));
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

#[test]
fn a_new_import_is_found_and_one_that_is_gone() {
    let text = "use super::Key;\nuse super::super::tunnel::Tunnels;\nuse crate::worker::stream::A;";
    let sample = [Source::sample("src/worker/relay/pair.rs", text)];
    let found = check(&sample, &[("relay", &["stream", "dialer"])]);
    let wanted = [
        "src/worker/relay/pair.rs:2: worker::relay may not import tunnel",
        "worker::relay does not import dialer any more: delete that in tests/style/planes.rs",
    ];
    assert_eq!(found, wanted);
    let hall = [Source::sample("src/worker/dispatch.rs", text)];
    assert!(check(&hall, &[]).is_empty());
    let method = [Source::sample("src/worker/relay/mod.rs", "use super::{Key, Worker};")];
    assert_eq!(check(&method, &[]).len(), 1);
}
