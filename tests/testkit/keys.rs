//! Keys and secrets for the ends of encrypted tunnels, made by the program.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::program::command;

/// Files of keys, in a directory that is removed on drop.
pub struct Keys {
    dir: TempDir,
}

impl Keys {
    /// None yet.
    pub fn new() -> Keys {
        let dir = tempfile::Builder::new().prefix("sockmux-uring-").tempdir();
        Keys { dir: dir.expect("a temporary directory") }
    }

    /// The file of this name.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a key of this name; returns its fingerprint.
    pub fn make(&self, name: &str) -> String {
        self.keygen(&["keygen"], name)
    }

    /// Makes a secret of this name; returns the words that take it.
    pub fn secret(&self, name: &str) -> String {
        self.keygen(&["keygen", "--secret"], name);
        format!("TLSCONF=secret:{}", self.path(name).display())
    }

    fn keygen(&self, words: &[&str], name: &str) -> String {
        let made = command().args(words).arg(self.path(name)).output().expect("the binary starts");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8_lossy(&made.stdout).trim_end().to_owned()
    }

    /// The words by which an end has the key of this name, and lets in one peer.
    pub fn words(&self, own: &str, peer: &str) -> String {
        format!("TLSCONF=key:{},peer:{peer}", self.path(own).display())
    }

    /// The words by which an end has the key of this name, and lets in the peers of a file with these
    /// lines.
    pub fn listing(&self, own: &str, lines: &str) -> String {
        let file = self.path(&format!("{own}.peers"));
        std::fs::write(&file, lines).expect("a file");
        format!("TLSCONF=key:{},peers:{}", self.path(own).display(), file.display())
    }

    /// Lets other users find the files, each with its own mode.
    pub fn let_others_in(&self) {
        let mode = Permissions::from_mode(0o755);
        std::fs::set_permissions(self.dir.path(), mode).expect("a mode");
    }
}
