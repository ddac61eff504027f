//! Words: the smallest pieces of a command line, each with the place where it was written.

use std::fmt;
use std::path::PathBuf;

use super::error::plain;

/// Where a word was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WordOrigin {
    /// In the arguments of the process, or in an option list, which is itself part of a word.
    Arguments,
    /// In a parameter file.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
    },
}

/// One option or parameter as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The text, without quotes that a file put around a value.
    pub text: String,
    /// Its place.
    pub origin: WordOrigin,
}

impl Word {
    /// A word given as an argument.
    pub fn argument(text: impl Into<String>) -> Self {
        Word { text: text.into(), origin: WordOrigin::Arguments }
    }

    /// Whether it is not from a file.
    pub(crate) fn is_argument(&self) -> bool {
        self.origin == WordOrigin::Arguments
    }
}

/// As it begins a message: `FILE:line: text`, or the text alone for an argument.
impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let WordOrigin::File { path, line } = &self.origin {
            write!(f, "{}:{line}: ", plain(&path.to_string_lossy()))?;
        }
        f.write_str(&plain(&self.text))
    }
}

/// A word of the user's as it is typed at a shell: between quotes where it needs them.
pub(crate) fn shell(text: &str) -> String {
    let safe = |c: char| c.is_alphanumeric() || "-_=:/.,@%+[]".contains(c);
    match plain(text) {
        text if text.chars().all(safe) => text,
        text => format!("'{}'", text.replace('\'', "'\\''")),
    }
}
