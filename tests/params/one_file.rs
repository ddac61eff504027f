//! Command lines read with one parameter file beside them.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use sockmux_uring::cli::files::Files;
use sockmux_uring::cli::invocation::{self, Command};
use sockmux_uring::cli::plan::Plan;

/// One file with this text, under any name.
pub(crate) struct OneFile<'t>(pub(crate) &'t str);

impl Files for OneFile<'_> {
    fn read(&self, _path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        Ok(self.0.bytes().take(bytes_max as usize).collect())
    }
    fn identity(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }
}

/// The plan of a command line that is right and needs no name looked up.
pub(crate) fn run_with(args: &[&str], file: &str) -> Plan {
    let words = ["sockmux-uring"].iter().chain(args).map(OsString::from);
    match invocation::parse(words, &OneFile(file), &mut |_| unreachable!()) {
        Ok(invocation) => match invocation.command {
            Command::Run(plan) => plan,
            other => panic!("{args:?}: {other:?}"),
        },
        Err(failure) => panic!("{args:?}: {failure}"),
    }
}

/// The same without a file.
pub(crate) fn run(args: &[&str]) -> Plan {
    run_with(args, "")
}

/// Why a command line is refused.
pub(crate) fn refused(args: &[&str]) -> String {
    let words = ["sockmux-uring"].iter().chain(args).map(OsString::from);
    invocation::parse(words, &OneFile(""), &mut |_| unreachable!())
        .expect_err("refused")
        .to_string()
}
