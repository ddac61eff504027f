//! Errors of the command line, and their messages.

use std::fmt;

use super::secrets::without_secrets;
use super::words::Word;

/// Longest piece of the user's text repeated in a message, in characters. Enough to recognise
/// any real parameter; a file given by mistake must not flood the terminal.
const QUOTED_CHARS: usize = 160;

/// An error in one value, and its remedy. Both are always present: a message without a remedy sends the
/// user to the manual.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {remedy}")]
pub struct Problem {
    /// The error, naming the offending piece.
    what: String,
    /// The text to write instead.
    remedy: String,
}

impl Problem {
    /// A problem from its two halves, each a clause without a full stop.
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Problem { what: what.into(), remedy: remedy.into() }
    }

    /// The same for an invalid word inside of another one.
    pub(crate) fn in_word(self, word: &Word) -> Self {
        Problem { what: format!("{word}: {}", self.what), remedy: self.remedy }
    }

    /// The same for a line of a file.
    pub(crate) fn in_line(self, number: usize) -> Self {
        Problem { what: format!("line {number}: {}", self.what), remedy: self.remedy }
    }

    /// The same inside of a file.
    pub(crate) fn of_file(self, name: &str) -> Self {
        Problem { what: format!("{}: {}", plain(name), self.what), remedy: self.remedy }
    }

    /// Something that the original has and this version has not, with the nearest thing that
    /// works.
    pub fn unsupported(what: impl fmt::Display, nearest: impl Into<String>) -> Self {
        Problem::new(format!("{what} is not supported in this version"), nearest)
    }
}

/// A command line that cannot be run. The message is for stderr: it names the word (with its file and
/// line), the error and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    message: String,
}

impl Failure {
    /// Exit code of the process when its command line is wrong.
    pub const EXIT_CODE: u8 = 2;

    /// A failure of the command line as a whole.
    pub fn new(message: impl Into<String>) -> Self {
        Failure { message: message.into() }
    }

    /// A problem with one word.
    pub fn at(word: &Word, problem: &Problem) -> Self {
        Failure { message: format!("{word}: {problem}") }
    }

    /// The text for stderr, without an `error:` in front and without a line end.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// The user's text made fit for a terminal and a log: passwords left out, control characters
/// escaped, the end of a very long one cut.
pub(crate) fn plain(text: &str) -> String {
    let text = without_secrets(text);
    let mut plain = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == QUOTED_CHARS {
            plain.push_str("...");
            break;
        }
        if c.is_control() {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
    }
    plain
}

/// [`plain`] text between back quotes, for the middle of a sentence.
pub(crate) fn quoted(text: &str) -> String {
    format!("`{}`", plain(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_the_user_cannot_drive_the_terminal() {
        assert_eq!(quoted("a\x1b[2Jb\n"), "`a\\u{1b}[2Jb\\n`");
        assert_eq!(plain(&"x".repeat(500)).len(), QUOTED_CHARS + 3);
        assert_eq!(plain("größe"), "größe");
    }
}
