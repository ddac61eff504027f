//! Rules for the text of the tree: lengths of files and functions, directions of imports, words, and
//! references in documents.
//!
//! Each rule reports file and line. The rules are line scanners that rely on rustfmt's layout, which
//! `cargo fmt --check` guarantees; so they see functions inside of macros, too.

use std::fs;
use std::path::Path;

mod imports;
mod lengths;
mod log_events;
mod planes;
mod references;
mod rooms;
mod words;

/// A file of the tree.
struct Source {
    /// From the root of the repository, with slashes.
    path: String,
    text: String,
}

impl Source {
    /// A source of tests of the rules.
    #[cfg(test)]
    fn sample(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    fn finding(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

/// All files below `path`, a file or a folder, whose names end with `end`.
fn sources(path: &str, end: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    collect(root, &root.join(path), end, &mut found);
    assert!(!found.is_empty(), "{path} has no file that ends with {end}");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(root: &Path, path: &Path, end: &str, found: &mut Vec<Source>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            collect(root, &entry.unwrap().path(), end, found);
        }
    } else if path.to_string_lossy().ends_with(end) {
        let name = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
        found.push(Source { path: name, text: fs::read_to_string(path).unwrap() });
    }
}

fn documents() -> Vec<Source> {
    let mut documents = sources("docs", ".md");
    documents.extend(sources("README.md", ".md"));
    documents
}

#[track_caller]
fn none(findings: &[String], rule: &str) {
    assert!(findings.is_empty(), "{rule}:\n{}", findings.join("\n"));
}

#[test]
fn files_and_functions_are_short() {
    let sources = sources("src", ".rs").into_iter().chain(sources("tests", ".rs"));
    let findings: Vec<_> = sources.flat_map(|source| lengths::findings(&source)).collect();
    none(&findings, "split by concern");
}

#[test]
fn rooms_import_only_what_is_below_them() {
    let findings: Vec<_> = sources("src", ".rs").iter().flat_map(rooms::findings).collect();
    none(&findings, "rooms of src/ import only those that tests/style/rooms.rs lists for them");
}

#[test]
fn planes_of_the_worker_import_no_others_than_those_listed() {
    let sources = sources("src/worker", ".rs");
    none(
        &planes::findings(&sources),
        "planes talk by effects, returned values, and what the caller hands them; the imports in \
         tests/style/planes.rs are what is left",
    );
}

#[test]
fn old_names_and_idioms_do_not_come_back() {
    let sources = sources("src", ".rs").into_iter().chain(documents());
    let findings: Vec<_> = sources.flat_map(|source| words::findings(&source)).collect();
    none(&findings, "use the names and terms of docs/architecture.md");
}

#[test]
fn documents_name_what_exists() {
    let findings: Vec<_> = documents().iter().flat_map(references::findings).collect();
    none(&findings, "files (from the root or from src/) and modules that documents name");
}

#[test]
fn the_page_of_log_events_has_them_all() {
    let page = sources(log_events::PAGE, ".md").remove(0);
    none(&log_events::findings(&sources("src", ".rs"), &page), "list it in docs/log-events.md");
}
