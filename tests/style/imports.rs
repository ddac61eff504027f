//! Names of other modules in a file of src/: paths that begin with `crate`, `super` or `self`, in
//! `use` items and elsewhere. Comments and test modules are left out.

use super::Source;

/// A path that a file names, from the root of the crate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) line: usize,
    pub(super) path: Vec<String>,
}

/// The module that a file of src/ is; `None` of tests.
pub(super) fn module_of(path: &str) -> Option<Vec<&str>> {
    let mut parts: Vec<_> = path.strip_prefix("src/")?.strip_suffix(".rs")?.split('/').collect();
    if parts.contains(&"tests") {
        return None;
    }
    parts.pop_if(|last| ["mod", "lib", "main"].contains(last));
    Some(parts)
}

pub(super) fn imports(source: &Source) -> Vec<Import> {
    let Some(module) = module_of(&source.path) else { return Vec::new() };
    let code = code(&source.text);
    let mut reader = Reader { code: code.as_bytes(), at: 0, line: 1, found: Vec::new() };
    reader.read();
    let from_root = |Import { line, path }| Import { line, path: resolve(&module, path) };
    reader.found.into_iter().map(from_root).collect()
}

/// The text without comments and test modules, line for line.
fn code(text: &str) -> String {
    let mut code = String::new();
    let (mut may_begin, mut in_tests) = (false, false);
    for line in text.lines() {
        in_tests |= may_begin && line.starts_with("mod ") && line.ends_with('{');
        if !in_tests {
            code.push_str(line.split("//").next().unwrap_or_default());
        }
        in_tests &= line != "}";
        may_begin = line == "#[cfg(test)]";
        code.push('\n');
    }
    code
}

fn resolve(module: &[&str], path: Vec<String>) -> Vec<String> {
    let mut base: Vec<String> = module.iter().map(|&name| name.to_owned()).collect();
    let mut names = path.into_iter().peekable();
    while let Some(name) = names.next_if(|name| ["crate", "super", "self"].contains(&&name[..])) {
        match &name[..] {
            "crate" => base.clear(),
            "super" => drop(base.pop()),
            _ => {}
        }
    }
    base.extend(names);
    base
}

struct Reader<'a> {
    code: &'a [u8],
    at: usize,
    line: usize,
    found: Vec<Import>,
}

impl Reader<'_> {
    fn read(&mut self) {
        while self.at < self.code.len() {
            let (start, word) = (self.at, self.word());
            let is_first = start == 0 || self.code[start - 1] != b':';
            if is_first && ["crate", "super", "self"].contains(&&word[..]) && self.passes("::") {
                self.tree(vec![word]);
            } else if word.is_empty() {
                self.step();
            }
        }
    }

    /// The part behind `prefix::`: a name, or a group of trees.
    fn tree(&mut self, mut prefix: Vec<String>) {
        let line = self.line;
        if !self.passes("{") {
            let word = self.word();
            if !word.is_empty() {
                prefix.push(word);
            }
            if self.passes("::") {
                return self.tree(prefix);
            }
            return self.found.push(Import { line, path: prefix });
        }
        loop {
            self.skip_spaces();
            if self.at >= self.code.len() || self.passes("}") {
                return;
            }
            self.tree(prefix.clone());
            // Also past `as other_name`, and the star of a glob.
            while self.at < self.code.len() && !matches!(self.code[self.at], b',' | b'}') {
                self.step();
            }
            self.passes(",");
        }
    }

    fn word(&mut self) -> String {
        let is_part = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        let rest = &self.code[self.at..];
        let len = rest.iter().position(|b| !is_part(b)).unwrap_or(rest.len());
        self.at += len;
        String::from_utf8_lossy(&rest[..len]).into_owned()
    }

    fn passes(&mut self, text: &str) -> bool {
        let is_next = self.code[self.at..].starts_with(text.as_bytes());
        if is_next {
            self.at += text.len();
        }
        is_next
    }

    fn step(&mut self) {
        self.line += usize::from(self.code[self.at] == b'\n');
        self.at += 1;
    }

    fn skip_spaces(&mut self) {
        while self.code.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.step();
        }
    }
}

#[test]
fn paths_are_found_in_use_items_and_elsewhere() {
    let text = "\
//! See [`crate::comment`].
use crate::io::{
    driver::{self, Driver as D},
    net,
};
use super::super::tunnel::*;
use std::io;
pub(in crate::worker) fn a() { b(self::c::D, x::super_::y) }
#[cfg(test)]
mod tests {
    use crate::process::Relay;
}
fn d() { crate::link::e() }
";
    let found: Vec<_> = imports(&Source::sample("src/worker/stream/read.rs", text))
        .iter()
        .map(|import| (import.line, import.path.join("::")))
        .collect();
    let wanted = [
        (3, "io::driver::self"),
        (3, "io::driver::Driver"),
        (4, "io::net"),
        (6, "worker::tunnel"),
        (8, "worker"),
        (8, "worker::stream::read::c::D"),
        (13, "link::e"),
    ];
    assert_eq!(found, wanted.map(|(line, path)| (line, path.to_owned())));
    assert!(imports(&Source::sample("src/worker/waiters/tests.rs", text)).is_empty());
    assert_eq!(module_of("src/worker/mod.rs"), Some(vec!["worker"]));
}
