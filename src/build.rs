//! The build script: puts the commit into `--version` of a release build.
//!
//! Not the time: the same source makes the same program. A build for tests has no commit, or each
//! commit would build all of it anew.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Who builds from an archive without git can say which commit it is.
const VARIABLE: &str = "SOCKMUX_URING_COMMIT";

/// So much of a commit's name is shown.
const DIGITS: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = if is_release { commit() } else { None };
    let shown = commit.map(|commit| format!(" ({})", &commit[..DIGITS])).unwrap_or_default();
    println!("cargo::rustc-env=SOCKMUX_URING_COMMIT_SHOWN={shown}");
}

/// By the variable, by git, or as a crate's package has it.
fn commit() -> Option<String> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?);
    let is_commit =
        |text: &String| text.len() >= DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let given = env::var(VARIABLE).ok().filter(is_commit);
    given.or_else(|| of_git(&root)).or_else(|| of_package(&root)).filter(is_commit)
}

fn of_git(root: &Path) -> Option<String> {
    // Else it is unpacked within another repository.
    let top = PathBuf::from(git(root, &["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != root.canonicalize().ok()? {
        return None;
    }
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(root, &["rev-parse", "--git-path", name]) {
            println!("cargo::rerun-if-changed={}", root.join(path).display());
        }
    }
    git(root, &["rev-parse", "HEAD"])
}

fn git(root: &Path, words: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(root).args(words).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// `cargo package` writes `.cargo_vcs_info.json`, with `"sha1": "..."`.
fn of_package(root: &Path) -> Option<String> {
    let text = fs::read_to_string(root.join(".cargo_vcs_info.json")).ok()?;
    let (_, behind) = text.split_once("\"sha1\"")?;
    behind.split('"').nth(1).map(str::to_owned)
}
