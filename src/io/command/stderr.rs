//! What a command writes to its standard error, as lines for the log.

use std::fmt;

use crate::limits::COMMAND_LINE_BYTES;

/// Cuts what was read into lines.
#[derive(Debug)]
pub(super) struct Lines {
    /// The line that has not ended yet, as far as it is kept.
    line: Vec<u8>,
    /// More of that line came than is kept.
    cut: bool,
}

impl Lines {
    pub(super) fn new() -> Lines {
        Lines { line: Vec::with_capacity(COMMAND_LINE_BYTES), cut: false }
    }

    /// What was read; each line that it ends goes to `tell`.
    pub(super) fn add(&mut self, bytes: &[u8], tell: &mut impl FnMut(Line<'_>)) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let (piece, ends) = match piece.strip_suffix(b"\n") {
                Some(piece) => (piece, true),
                None => (piece, false),
            };
            let room = COMMAND_LINE_BYTES - self.line.len();
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            self.cut |= piece.len() > room;
            if ends {
                self.end_line(tell);
            }
        }
    }

    /// Nothing more comes: tells the line that has not ended.
    pub(super) fn finish(&mut self, tell: &mut impl FnMut(Line<'_>)) {
        if !self.line.is_empty() {
            self.end_line(tell);
        }
    }

    fn end_line(&mut self, tell: &mut impl FnMut(Line<'_>)) {
        let bytes = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        tell(Line { bytes, cut: self.cut });
        self.line.clear();
        self.cut = false;
    }
}

/// A line of a command, as it is logged: text as it is, what is none or would drive a terminal as
/// `\x1b` or `\u{9b}`.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    bytes: &'a [u8],
    cut: bool,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;

        for chunk in self.bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\t' => f.write_char(' ')?,
                    c if c.is_ascii_control() => write!(f, "\\x{:02x}", c as u8)?,
                    c if c.is_control() => write!(f, "{}", c.escape_unicode())?,
                    c => f.write_char(c)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        match self.cut {
            true => f.write_str(" ... (the rest of the line is left out)"),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds the pieces, and tells what came of them.
    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut told) = (Lines::new(), Vec::new());
        let mut tell = |line: Line<'_>| told.push(line.to_string());
        pieces.iter().for_each(|piece| lines.add(piece, &mut tell));
        lines.finish(&mut tell);
        told
    }

    #[test]
    fn lines_are_cut_wherever_the_reads_end() {
        assert_eq!(
            lines(&[b"one\ntwo\r\nth", b"ree\n", b"\nfo", b"ur"]),
            ["one", "two", "three", "", "four"]
        );
        assert_eq!(lines(&[]), [""; 0]);
    }

    #[test]
    fn what_is_no_text_is_shown() {
        assert_eq!(
            lines(&[b"a\x1b[2J\tb\xff\xc3\xa9\x00\x9b\n"]),
            ["a\\x1b[2J b\\xff\u{e9}\\x00\\x9b"]
        );
        assert_eq!(lines(&["\u{9b}2J".as_bytes()]), ["\\u{9b}2J"]);
    }

    #[test]
    fn the_rest_of_a_long_line_is_left_out() {
        let long = vec![b'x'; 3 * COMMAND_LINE_BYTES / 2];
        let told = lines(&[&long, &long, b"\nshort\n", &long[..COMMAND_LINE_BYTES]]);
        assert_eq!(told.len(), 3);
        let end = " ... (the rest of the line is left out)";
        assert_eq!(told[0].len(), COMMAND_LINE_BYTES + end.len());
        assert!(told[0].ends_with(end));
        assert_eq!((&*told[1], told[2].len()), ("short", COMMAND_LINE_BYTES));
    }
}
