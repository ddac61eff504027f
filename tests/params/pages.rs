//! Every command line that README.md and the pages of `docs/` show is one that the program takes.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use sockmux_uring::cli::files::Files;
use sockmux_uring::cli::invocation;

/// A key that may be anybody's.
const FINGERPRINT: &str = "SHA256:qlvSv1UT5BYrRZKqWgEdxDppW4Jakkbj2Q8AwuVDsy0";

/// The peers of the pages.
const PEERS: [&str; 5] = ["hostV", "hostY", "hostZ", "siteA", "siteB"];

/// A file of peers has these; any other one parameter.
struct AnyFile;

impl Files for AnyFile {
    fn read(&self, path: &Path, _bytes_max: u64) -> io::Result<Vec<u8>> {
        if !path.to_string_lossy().ends_with("peers") {
            return Ok(b"TIMEOUT=ask:10\n".to_vec());
        }
        // No two have the same key.
        let key = |name: &str| FINGERPRINT.replace("5BYrR", name);
        Ok(PEERS.map(|name| format!("{name} {}\n", key(name))).concat().into_bytes())
    }
    fn identity(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }
}

fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "md") {
            found.push(path);
        }
    }
}

/// The lines that are typed in the consoles of a page, without their prompts; those that end in `\` with
/// what follows.
fn typed(page: &str) -> Vec<String> {
    let (mut lines, mut is_console) = (Vec::new(), false);
    let mut rest = page.lines();
    while let Some(line) = rest.next() {
        if line.starts_with("```") {
            is_console = line == "```console";
            continue;
        }
        let Some((prompt, typed)) = line.split_once("$ ").filter(|_| is_console) else { continue };
        if !prompt.chars().all(|c| c.is_ascii_alphanumeric()) {
            continue;
        }
        let mut typed = typed.to_owned();
        while let Some(begun) = typed.strip_suffix('\\') {
            typed = format!("{begun} {}", rest.next().expect("the line goes on").trim_start());
        }
        lines.push(typed);
    }
    lines
}

/// The words that a shell makes of a line: blanks part them but in quotes, and `#` begins a comment.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, '#' | '&') if word.is_none() => return words,
            _ => word.get_or_insert_default().push(c),
        }
    }
    assert_eq!(quote, None, "{line}: a quote is open");
    words.extend(word);
    words
}

/// What stands for something of the reader's own.
fn filled_in(word: &str) -> String {
    let known = word.replace("SHA256:...", FINGERPRINT);
    match known.split_once("SHA256:fingerprint-of-") {
        Some((before, _)) => format!("{before}{FINGERPRINT}"),
        None => known,
    }
}

#[test]
fn every_command_line_of_a_page_is_taken() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = vec![root.join("README.md")];
    pages(&root.join("docs"), &mut all);
    let (mut taken, mut refused) = (0, Vec::new());
    for page in all {
        let text = fs::read_to_string(&page).expect("a page");
        for line in typed(&text) {
            let Some(("sockmux-uring", rest)) = line.split_once(' ') else { continue };
            let args = words(rest).into_iter().map(|word| filled_in(&word));
            let args = std::iter::once("sockmux-uring".to_owned()).chain(args).map(OsString::from);
            let mut look_up =
                |_: &str| -> io::Result<Vec<IpAddr>> { Ok(vec![[10, 1, 1, 1].into()]) };
            match invocation::parse(args, &AnyFile, &mut look_up) {
                Ok(_) => taken += 1,
                Err(failure) => refused.push(format!("{}: {line}\n  {failure}", page.display())),
            }
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(taken >= 60, "{taken} command lines were found");
}

#[test]
fn lines_and_words_are_those_of_a_shell() {
    let page =
        "```console\nX$ a \"b c\" \\\n   d'e'f  # g\n$ h &\nno line\n```\n$ not in a console\n";
    let lines = typed(page);
    assert_eq!(lines.len(), 2);
    assert_eq!(words(&lines[0]), ["a", "b c", "def"]);
    assert_eq!(words(&lines[1]), ["h"]);
}

/// The book has every page, and its table of contents no other.
#[test]
fn the_book_has_every_page() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let summary = fs::read_to_string(docs.join("SUMMARY.md")).expect("docs/SUMMARY.md");
    let listed = summary.lines().filter_map(|line| line.split_once("](")?.1.strip_suffix(')'));
    let mut listed: Vec<PathBuf> = listed.map(|page| docs.join(page)).collect();
    let mut all = Vec::new();
    pages(&docs, &mut all);
    all.retain(|page| !page.ends_with("SUMMARY.md"));
    listed.sort();
    all.sort();
    assert_eq!(listed, all);
}

/// The anchor that a heading has: its letters and digits in lower case, blanks as hyphens.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|&c| c.is_alphanumeric() || " -_".contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Whether the page has it. Of headings that are alike the second one's ends in `-1`, and so on.
fn has_anchor(page: &Path, wanted: &str) -> bool {
    let text = fs::read_to_string(page).unwrap_or_default();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchors: Vec<String> = headings.map(|line| anchor(line.trim_start_matches('#'))).collect();
    anchors.iter().enumerate().any(|(at, own)| {
        match anchors[..at].iter().filter(|other| *other == own).count() {
            0 => own == wanted,
            before => format!("{own}-{before}") == wanted,
        }
    })
}

#[test]
fn every_link_of_a_page_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = ["README.md", "perf/README.md", "fuzz/README.md", "CHANGELOG.md"]
        .map(|page| root.join(page))
        .to_vec();
    pages(&root.join("docs"), &mut all);
    let (mut good, mut bad) = (0, Vec::new());
    for page in all {
        let text = fs::read_to_string(&page).expect("a page");
        let folder = page.parent().expect("a folder");
        for link in text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)) {
            if link.contains("://") {
                continue;
            }
            let (file, wanted) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { folder.join(file) };
            match target.exists() && (wanted.is_empty() || has_anchor(&target, wanted)) {
                true => good += 1,
                false => bad.push(format!("{}: {link}", page.display())),
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    assert!(good >= 100, "{good} links were found");
}
