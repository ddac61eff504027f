//! Lines of a telnet client (RFC 854): commands and options are removed, and line editing is applied.

use crate::limits::TELNET_LINE_BYTES;

// Commands of RFC 854 and RFC 1184 (end of file).
const END_OF_FILE: u8 = 236;
const SUBNEGOTIATION_END: u8 = 240;
const ARE_YOU_THERE: u8 = 246;
const INTERRUPT: u8 = 244;
const ERASE_CHARACTER: u8 = 247;
const ERASE_LINE: u8 = 248;
const SUBNEGOTIATION: u8 = 250;
const WILL: u8 = 251;
const WONT: u8 = 252;
const DO: u8 = 253;
const DONT: u8 = 254;
const IAC: u8 = 255;

// Sent for these keys by clients without line editing.
const CONTROL_C: u8 = 0x03;
const CONTROL_D: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const CONTROL_U: u8 = 0x15;
const CONTROL_W: u8 = 0x17;
const DELETE: u8 = 0x7f;

/// Input of the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A line, edited, without its end.
    Line(Vec<u8>),
    /// A line of more than [`TELNET_LINE_BYTES`].
    TooLong,
    /// It wants to end.
    Ends,
    /// It offered or requested an option: send this. Its own refusals are not answered, so that two
    /// refusing sides do not loop.
    Refuse([u8; 3]),
    /// ARE YOU THERE.
    AreYouThere,
}

/// Keeps the line that is being typed.
#[derive(Debug, Default)]
pub(super) struct Reader {
    state: State,
    line: Vec<u8>,
    too_long: bool,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Text,
    /// Behind CR, which never comes alone: LF or NUL follows.
    Return,
    /// Behind IAC.
    Command,
    /// Behind IAC and one of WILL, WONT, DO and DONT.
    Option(u8),
    Subnegotiation,
    /// Behind IAC within a subnegotiation.
    SubnegotiationCommand,
}

impl Reader {
    /// Consumes bytes until there is input; returns their number, and the input.
    pub(super) fn take(&mut self, bytes: &[u8]) -> (usize, Option<Heard>) {
        for (before, &byte) in bytes.iter().enumerate() {
            if let State::Return = self.state {
                self.state = State::Text;
                // Broken clients send CR alone: then this byte belongs to the next line.
                let taken = before + usize::from(matches!(byte, b'\n' | 0));
                return (taken, Some(self.line_ends()));
            }
            if let Some(heard) = self.take_one(byte) {
                return (before + 1, Some(heard));
            }
        }
        (bytes.len(), None)
    }

    fn take_one(&mut self, byte: u8) -> Option<Heard> {
        match (self.state, byte) {
            (State::Text, IAC) => self.state = State::Command,
            (State::Text | State::Return, _) => return self.typed(byte),
            (State::Command, SUBNEGOTIATION) => self.state = State::Subnegotiation,
            (State::Command, WILL | WONT | DO | DONT) => self.state = State::Option(byte),
            (State::Command, _) => {
                self.state = State::Text;
                return self.command(byte);
            }
            (State::Option(verb), option) => {
                self.state = State::Text;
                return match verb {
                    WILL => Some(Heard::Refuse([IAC, DONT, option])),
                    DO => Some(Heard::Refuse([IAC, WONT, option])),
                    _ => None,
                };
            }
            (State::Subnegotiation, IAC) => self.state = State::SubnegotiationCommand,
            (State::SubnegotiationCommand, SUBNEGOTIATION_END) => self.state = State::Text,
            (State::Subnegotiation | State::SubnegotiationCommand, _) => {
                self.state = State::Subnegotiation;
            }
        }
        None
    }

    fn command(&mut self, command: u8) -> Option<Heard> {
        match command {
            IAC => self.put(IAC),
            ERASE_CHARACTER => self.erase_character(),
            ERASE_LINE | INTERRUPT => self.erase_line(),
            ARE_YOU_THERE => return Some(Heard::AreYouThere),
            END_OF_FILE => return Some(Heard::Ends),
            // The others have no meaning for lines.
            _ => {}
        }
        None
    }

    fn typed(&mut self, byte: u8) -> Option<Heard> {
        match byte {
            b'\n' => return Some(self.line_ends()),
            b'\r' => self.state = State::Return,
            0 => {}
            CONTROL_D if self.line.is_empty() && !self.too_long => return Some(Heard::Ends),
            BACKSPACE | DELETE => self.erase_character(),
            CONTROL_U | CONTROL_C => self.erase_line(),
            CONTROL_W => self.erase_word(),
            _ => self.put(byte),
        }
        None
    }

    fn put(&mut self, byte: u8) {
        if self.line.len() < TELNET_LINE_BYTES {
            self.line.push(byte);
        } else {
            self.too_long = true;
        }
    }

    /// Of a line that is too long the end is not known: only all of it can be erased.
    fn erase_character(&mut self) {
        let continues = |byte| byte & 0xc0 == 0x80;
        while !self.too_long && self.line.pop().is_some_and(continues) {}
    }

    fn erase_word(&mut self) {
        if !self.too_long {
            let blank = |byte: &u8| byte.is_ascii_whitespace();
            let word_end = self.line.iter().rposition(|byte| !blank(byte)).map_or(0, |at| at + 1);
            let word_start = self.line[..word_end].iter().rposition(blank).map_or(0, |at| at + 1);
            self.line.truncate(word_start);
        }
    }

    fn erase_line(&mut self) {
        self.line.clear();
        self.too_long = false;
    }

    fn line_ends(&mut self) -> Heard {
        let line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.too_long) { Heard::TooLong } else { Heard::Line(line) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(bytes: &[u8]) -> Vec<Heard> {
        let mut reader = Reader::default();
        let (mut heard, mut rest) = (Vec::new(), bytes);
        while !rest.is_empty() {
            let (taken, one) = reader.take(rest);
            heard.extend(one);
            rest = &rest[taken..];
        }
        heard
    }

    fn line(text: &str) -> Heard {
        Heard::Line(text.into())
    }

    #[test]
    fn lines_end_in_every_way() {
        let lines = heard(b"a\r\nb\r\0c\nd\re\r\n\r\n\n\r\r\n");
        let expected = ["a", "b", "c", "d", "e", "", "", "", ""].map(line);
        assert_eq!(lines, expected);
    }

    #[test]
    fn what_was_typed_is_edited() {
        for (typed, edited) in [
            ("hosx\x08t", "host"),
            ("hosx\x7ft", "host"),
            ("\x08\x7fhost", "host"),
            ("bü\x7fy", "by"),
            ("wrong\x15host", "host"),
            ("wrong\x03host", "host"),
            ("host wrong  \x1723", "host 23"),
            ("wrong\x17host", "host"),
            (" \x17host", "host"),
            ("ho\0st", "host"),
            ("x\x04", "x\x04"),
        ] {
            assert_eq!(heard(format!("{typed}\r\n").as_bytes()), [line(edited)], "{typed:?}");
        }
        assert_eq!(heard(b"hosx\xff\xf7t\r\n"), [line("host")]);
        assert_eq!(heard(b"wrong\xff\xf8host\r\n"), [line("host")]);
        assert_eq!(heard(b"wrong\xff\xf4host\r\n"), [line("host")]);
        assert_eq!(heard(b"\x04"), [Heard::Ends]);
        assert_eq!(heard(b"\xff\xec"), [Heard::Ends]);
    }

    #[test]
    fn commands_are_taken_out() {
        assert_eq!(heard(b"ho\xff\xf1st\r\n"), [line("host")]);
        assert_eq!(heard(b"a\xff\xffb\n"), [Heard::Line(b"a\xffb".into())]);
        assert_eq!(heard(b"ho\xff\xf6st\n"), [Heard::AreYouThere, line("host")]);
        // A window's size with a doubled 255 and a newline in it.
        let subnegotiation = b"ho\xff\xfa\x1f\0\xff\xff\0\n\xff\xf0st\n";
        assert_eq!(heard(subnegotiation), [line("host")]);
        // One that never ends holds nothing.
        assert_eq!(heard(&[b"\xff\xfa\x18", [b'x'; 99_999].as_slice()].concat()), []);
    }

    #[test]
    fn what_is_asked_is_refused_and_what_is_refused_is_not_answered() {
        for option in [0, 1, 3, 24, 240, 255] {
            let asked = [IAC, WILL, option, IAC, DO, option, IAC, WONT, option, IAC, DONT, option];
            let refused = [[IAC, DONT, option], [IAC, WONT, option]].map(Heard::Refuse);
            assert_eq!(heard(&asked), refused);
        }
    }

    #[test]
    fn long_lines_end() {
        let long = vec![b'x'; TELNET_LINE_BYTES];
        assert_eq!(heard(&[&long, &b"\n"[..]].concat()), [Heard::Line(long.clone())]);
        assert_eq!(heard(&[&long, &b"y\x7f\x17\n"[..]].concat()), [Heard::TooLong]);
        assert_eq!(heard(&[&long, &b"y\x15host\n"[..]].concat()), [line("host")]);
        assert_eq!(heard(&[&long, &b"y\nhost\n"[..]].concat()), [Heard::TooLong, line("host")]);
    }
}
