//! No file over 500 lines, no function over 70.

use super::Source;

const FILE_LINES_MAX: usize = 500;

/// From the line with `fn` to the closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// Qualifiers before `fn`.
const QUALIFIERS: [&str; 7] = ["pub", "const", "async", "unsafe", "extern", "\"C\"", "default"];

pub(super) fn findings(source: &Source) -> Vec<String> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut findings = Vec::new();
    if lines.len() > FILE_LINES_MAX {
        let what = format!("{} lines, at most {FILE_LINES_MAX} are allowed", lines.len());
        findings.push(source.finding(FILE_LINES_MAX + 1, &what));
    }
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let count = function_lines(&lines[at..]);
        if count > FUNCTION_LINES_MAX {
            let what =
                format!("fn {name} has {count} lines, at most {FUNCTION_LINES_MAX} are allowed");
            findings.push(source.finding(at + 1, &what));
        }
    }
    findings
}

/// The name, if a function begins on this line.
fn function_name(line: &str) -> Option<&str> {
    let code = line.trim_start();
    let at = if code.starts_with("fn ") { 0 } else { code.find(" fn ")? + 1 };
    let is_qualifier =
        |word: &str| QUALIFIERS.contains(&word) || word.starts_with("pub(") || word.ends_with(')');
    if !code[..at].split_whitespace().all(is_qualifier) {
        return None;
    }
    let name = &code[at + "fn ".len()..];
    Some(&name[..name.find(['(', '<'])?])
}

/// Lines of the function that begins on the first one. Its last line is the first that begins with a
/// closing brace at the same depth, or, without a body, a semicolon.
fn function_lines(lines: &[&str]) -> usize {
    if lines[0].ends_with(['}', ';']) {
        return 1;
    }
    let indent = &lines[0][..lines[0].len() - lines[0].trim_start().len()];
    let is_last = |line: &&str| match line.strip_prefix(indent) {
        Some(rest) => rest.starts_with('}') || (rest.starts_with(')') && rest.ends_with(';')),
        None => false,
    };
    lines[1..].iter().position(is_last).map_or(1, |at| at + 2)
}

#[test]
fn a_long_file_is_found() {
    let text = "//\n".repeat(FILE_LINES_MAX);
    assert!(findings(&Source::sample("src/a.rs", &text)).is_empty());
    let found = findings(&Source::sample("src/a.rs", &(text + "//\n")));
    assert_eq!(found, ["src/a.rs:501: 501 lines, at most 500 are allowed"]);
}

#[test]
fn a_long_function_is_found_wherever_it_stands() {
    for head in [
        "fn long() {",
        "    pub(in crate::worker) const unsafe fn long<D: Driver>(&mut self) {",
        "    fn long(\n        &mut self,\n    ) -> u8 {",
        "    pub fn long<D>()\n    where\n        D: Driver,\n    {",
    ] {
        let indent = &head[..head.len() - head.trim_start().len()];
        let function = |lines: usize| {
            let body = lines - head.lines().count() - 1;
            format!("macro! {{\n{head}\n{}{indent}}}\n}}\n", "\n".repeat(body))
        };
        assert!(findings(&Source::sample("a.rs", &function(70))).is_empty(), "{head}");
        let found = findings(&Source::sample("a.rs", &function(71)));
        assert_eq!(found, ["a.rs:2: fn long has 71 lines, at most 70 are allowed"], "{head}");
    }
}

#[test]
fn functions_without_a_body_and_words_that_begin_none_have_no_length() {
    let text = "fn a(\n    b: u8,\n) -> u8;\nfn c() {}\nlet is_fn = x; // a fn b(\n";
    let text = format!("{text}{}}}\n", "\n".repeat(100));
    assert!(findings(&Source::sample("a.rs", &text)).is_empty());
}
