//! Two FIFOs that join two programs.

use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use super::program::Program;
use super::protocol::Protocol;

/// The FIFOs, in a directory that is removed on drop.
pub struct Fifos {
    dir: TempDir,
}

impl Fifos {
    /// New ones, not opened by any process.
    pub fn new() -> Fifos {
        let dir = tempfile::Builder::new().prefix("sockmux-uring-").tempdir();
        let fifos = Fifos { dir: dir.expect("a temporary directory") };
        for path in fifos.paths() {
            make(&path);
        }
        fifos
    }

    /// From the first end to the second, and back.
    pub fn paths(&self) -> [PathBuf; 2] {
        ["there", "back"].map(|name| self.dir.path().join(name))
    }

    /// The words that give them to the first end.
    pub fn first(&self) -> [String; 2] {
        let [there, back] = self.paths();
        words(&back, &there)
    }

    /// The words that give them to the second.
    pub fn second(&self) -> [String; 2] {
        let [there, back] = self.paths();
        words(&there, &back)
    }

    /// Starts the first end with these words beside them.
    pub fn start_first(&self, more: &[&str]) -> Program {
        start(&self.first(), more)
    }

    /// The same for the second.
    pub fn start_second(&self, more: &[&str]) -> Program {
        start(&self.second(), more)
    }

    /// Starts both and waits until the tunnel is up; it has to speak `protocol`.
    pub fn join(&self, protocol: Protocol, first: &[&str], second: &[&str]) -> [Program; 2] {
        let words = protocol.words();
        let words = |more: &[&str]| -> Vec<String> {
            more.iter().map(|&word| word.to_owned()).chain(words.clone()).collect()
        };
        let (first, second) = (words(first), words(second));
        let first = start(&self.first(), &first);
        let second = start(&self.second(), &second);
        for program in [&first, &second] {
            assert_eq!(program.wait_for("tunnel up")["protocol"], protocol.name());
        }
        [first, second]
    }
}

/// The words for one end.
fn words(input: &Path, output: &Path) -> [String; 2] {
    [
        format!("SERVER=sockmux:commin@{}", input.display()),
        format!("SERVER=sockmux:commout@{}", output.display()),
    ]
}

fn start<S: AsRef<str>>(fifos: &[String; 2], more: &[S]) -> Program {
    let mut all = fifos.to_vec();
    all.extend(more.iter().map(|word| word.as_ref().to_owned()));
    Program::start(&all)
}

/// Makes a FIFO.
pub fn make(path: &Path) {
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, path, FileType::Fifo, mode, 0).expect("a FIFO can be made");
}
