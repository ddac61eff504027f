//! What can be wrong with the command line, and how it is said.

use std::fmt;

use super::words::Word;

/// Longest piece of the user's text repeated in a message, in characters. Enough to recognise
/// any real parameter; a file given by mistake must not flood the terminal.
const QUOTED_CHARS: usize = 160;

/// What is wrong with one value, and what to write instead. Both are always there: a message
/// without a remedy leaves the user to read the manual.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {remedy}")]
pub struct Problem {
    /// What is wrong, naming the offending piece.
    what: String,
    /// What to write instead.
    remedy: String,
}

impl Problem {
    /// A problem from its two halves, each a clause without a full stop.
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Problem { what: what.into(), remedy: remedy.into() }
    }

    /// The same, where the word that is wrong stands inside of another.
    pub(crate) fn in_word(self, word: &Word) -> Self {
        Problem { what: format!("{word}: {}", self.what), remedy: self.remedy }
    }

    /// Something that the original has and this version has not, with the nearest thing that
    /// works.
    pub fn unsupported(what: impl fmt::Display, nearest: impl Into<String>) -> Self {
        Problem::new(format!("{what} is not supported in this version"), nearest)
    }
}

/// A command line that cannot be run. The message is one for stderr: it names the word (and the
/// file and line it stands in), says what is wrong and what to write instead.
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

/// The user's text made fit for a terminal and a log: control characters escaped, the end of a
/// very long one cut.
pub(crate) fn plain(text: &str) -> String {
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
