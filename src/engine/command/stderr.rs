//! What a command says on its standard error, as lines for the log.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::limits::{COMMAND_LINE_BYTES, COMMAND_LINES_A_SECOND};

/// The second that lines are counted in.
const SECOND: Duration = Duration::from_secs(1);

/// Cuts what was read into lines, and keeps back what is too many of them.
#[derive(Debug)]
pub(super) struct Lines {
    /// The line that has not ended yet, as far as it is kept.
    line: Vec<u8>,
    /// More of that line came than is kept.
    cut: bool,
    /// The line as it is logged: here, so that no line allocates one.
    text: String,
    /// When the current second of counting began.
    since: Option<Instant>,
    told: u32,
    kept_back: u64,
}

impl Lines {
    pub(super) fn new() -> Lines {
        Lines {
            line: Vec::with_capacity(COMMAND_LINE_BYTES),
            cut: false,
            text: String::new(),
            since: None,
            told: 0,
            kept_back: 0,
        }
    }

    /// What was read at `now`; each line that it ends goes to `tell`.
    pub(super) fn add(&mut self, bytes: &[u8], now: Instant, tell: &mut impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let (piece, ends) = match piece.strip_suffix(b"\n") {
                Some(piece) => (piece, true),
                None => (piece, false),
            };
            let room = COMMAND_LINE_BYTES - self.line.len();
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            self.cut |= piece.len() > room;
            if ends {
                self.end_line(now, tell);
            }
        }
    }

    /// Nothing more comes: tells the line that has not ended, and of those that were kept back.
    pub(super) fn finish(&mut self, now: Instant, tell: &mut impl FnMut(&str)) {
        if !self.line.is_empty() {
            self.end_line(now, tell);
        }
        self.tell_kept_back(tell);
    }

    /// When [`Lines::tell_late`] has something to tell, if anything is kept back.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.filter(|_| self.kept_back > 0).map(|since| since + SECOND)
    }

    /// Tells of lines that were kept back, once their second is over.
    pub(super) fn tell_late(&mut self, now: Instant, tell: &mut impl FnMut(&str)) {
        if self.due().is_some_and(|due| due <= now) {
            self.tell_kept_back(tell);
        }
    }

    fn end_line(&mut self, now: Instant, tell: &mut impl FnMut(&str)) {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= SECOND) {
            self.tell_kept_back(tell);
            (self.since, self.told) = (Some(now), 0);
        }
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        if self.told < COMMAND_LINES_A_SECOND {
            self.told += 1;
            self.text.clear();
            escape(line, &mut self.text);
            if self.cut {
                self.text.push_str(" ... (the rest of the line is left out)");
            }
            tell(&self.text);
        } else {
            self.kept_back += 1;
        }
        self.line.clear();
        self.cut = false;
    }

    fn tell_kept_back(&mut self, tell: &mut impl FnMut(&str)) {
        match std::mem::take(&mut self.kept_back) {
            0 => {}
            lines => {
                self.text.clear();
                let _ = write!(self.text, "... ({lines} more lines in one second are left out)");
                tell(&self.text);
            }
        }
    }
}

/// Text as it is, what is none or would drive a terminal as `\x1b` or `\u{9b}`.
fn escape(bytes: &[u8], text: &mut String) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\t' => text.push(' '),
                c if c.is_ascii_control() => push_byte(c as u8, text),
                c if c.is_control() => text.extend(c.escape_unicode()),
                c => text.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| push_byte(*byte, text));
    }
}

fn push_byte(byte: u8, text: &mut String) {
    // Writing to a string cannot fail.
    let _ = write!(text, "\\x{byte:02x}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds the pieces, all at one time, and tells what came of them.
    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, now, mut told) = (Lines::new(), Instant::now(), Vec::new());
        let mut tell = |line: &str| told.push(line.to_owned());
        pieces.iter().for_each(|piece| lines.add(piece, now, &mut tell));
        lines.finish(now, &mut tell);
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

    #[test]
    fn too_many_lines_are_counted() {
        let (mut lines, began, mut told) = (Lines::new(), Instant::now(), Vec::new());
        let mut tell = |line: &str| told.push(line.to_owned());
        let most = COMMAND_LINES_A_SECOND as usize;
        lines.add(&b"x\n".repeat(most + 7), began, &mut tell);
        assert_eq!(lines.due(), Some(began + SECOND));
        lines.tell_late(began + SECOND / 2, &mut tell);
        assert!(lines.due().is_some());
        lines.tell_late(began + SECOND, &mut tell);
        assert_eq!(lines.due(), None);
        // In the next second lines are told again.
        lines.add(&b"y\n".repeat(most + 1), began + SECOND, &mut tell);
        lines.add(b"z\n", began + 2 * SECOND, &mut tell);
        let left_out = |n| format!("... ({n} more lines in one second are left out)");
        assert_eq!(told.len(), most + 1 + most + 2);
        assert_eq!(told[most], left_out(7));
        assert_eq!(told[2 * most + 1..], [left_out(1), "z".to_owned()]);
    }
}
