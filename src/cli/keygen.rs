//! `sockmux-uring keygen`: makes a key, or a shared secret.

use std::path::PathBuf;

use super::encryption::KEY_FILE;
use super::error::{Failure, quoted};

/// The first word of such a command line.
pub(super) const WORD: &str = "keygen";

/// The file of a secret, unless one is named.
pub const SECRET_FILE: &str = "sockmux.secret";

/// What to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keygen {
    /// The file, which must not be there.
    pub path: PathBuf,
    /// Its content.
    pub what: Made,
}

/// What is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// The private key of one end.
    Key,
    /// A secret that both ends share.
    Secret,
}

/// Reads the words behind `keygen`.
///
/// # Errors
/// Other words than `--secret` and one file.
pub(super) fn parse(words: &[String]) -> Result<Keygen, Failure> {
    let (mut what, mut path) = (Made::Key, None);
    for word in words {
        match word.as_str() {
            "--secret" => what = Made::Secret,
            file if !file.starts_with('-') && !file.contains('=') && path.is_none() => {
                path = Some(PathBuf::from(file));
            }
            other => {
                return Err(Failure::new(format!(
                    "keygen: {} is not understood; write sockmux-uring keygen [--secret] [FILE]",
                    quoted(other)
                )));
            }
        }
    }
    let usual = match what {
        Made::Key => KEY_FILE,
        Made::Secret => SECRET_FILE,
    };
    Ok(Keygen { path: path.unwrap_or_else(|| PathBuf::from(usual)), what })
}
