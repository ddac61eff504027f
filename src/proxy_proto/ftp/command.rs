//! Commands of clients (RFC 959, section 5.3), in the one form in which servers receive them.
//!
//! Servers differ in their treatment of blanks, of telnet bytes and of a lone CR in a line. Commands are
//! therefore rewritten from the parsed form: a `PORT` that only the server recognises would direct a data
//! connection to any address that the client chooses.

use super::line::without_end;

// Commands of telnet (RFC 854) that come without a word of their own: from NOP to GA.
const NO_OPERATION: u8 = 241;
const DATA_MARK: u8 = 242;
const GO_AHEAD: u8 = 249;
const SUBNEGOTIATION: u8 = 250;
const WILL: u8 = 251;
const DONT: u8 = 254;
const IAC: u8 = 255;

/// A command.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Command {
    /// The telnet commands before it: `IAC IP IAC DM` interrupts the server (RFC 959, section 4.1.3).
    signals: Vec<u8>,
    /// Its word, in capitals.
    pub(super) verb: String,
    /// The rest, without blanks at both ends.
    pub(super) argument: Vec<u8>,
    /// All of it, as the client wrote it.
    text: Vec<u8>,
}

impl Command {
    /// As servers get it.
    pub(super) fn to_server(&self) -> Vec<u8> {
        [&self.signals[..], &self.text, b"\r\n"].concat()
    }
}

/// Parses a line, its end included. `None` if it is no command, such as an empty line, or one with CR or
/// NUL in it.
pub(super) fn parse(line: &[u8]) -> Option<Command> {
    let (signals, text) = split_telnet(without_end(line));
    if text.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return None;
    }
    let text = text[blanks_before(&text)..].to_vec();
    let verb_bytes = text.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    let (verb, argument) = text.split_at(verb_bytes);
    // Blanks at the end may belong to names of files: the line that is passed on keeps them.
    let argument = argument[blanks_before(argument)..].trim_ascii_end().to_vec();
    let ends = matches!(text.get(verb_bytes), None | Some(b' ' | b'\t'));
    let verb = String::from_utf8_lossy(verb).to_ascii_uppercase();
    (ends && !verb.is_empty()).then_some(Command { signals, verb, argument, text })
}

fn blanks_before(text: &[u8]) -> usize {
    text.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()
}

/// The telnet commands before a line's first byte, and the line without any. `IAC IAC` is unchanged, and
/// so is `IAC` before a byte that is no command: names of files may contain it.
fn split_telnet(line: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut signals, mut text) = (Vec::new(), Vec::with_capacity(line.len()));
    let mut rest = line;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        match (byte, behind.first().copied()) {
            (IAC, Some(IAC)) => {
                text.extend([IAC, IAC]);
                rest = &behind[1..];
            }
            (IAC, Some(WILL..=DONT)) => rest = behind.get(2..).unwrap_or_default(),
            (IAC, Some(command @ NO_OPERATION..=GO_AHEAD)) => {
                if text.is_empty() {
                    signals.extend([IAC, command]);
                }
                rest = &behind[1..];
            }
            (IAC, Some(SUBNEGOTIATION)) => rest = &behind[1..],
            // Sent as urgent data, its DM has left the stream.
            (IAC, Some(_)) if text.is_empty() => signals.extend([IAC, DATA_MARK]),
            _ => text.push(byte),
        }
    }
    (signals, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_in_every_form() {
        for (line, verb, argument, passed) in [
            (&b"QUIT\r\n"[..], "QUIT", &b""[..], &b"QUIT\r\n"[..]),
            (b"quit\n", "QUIT", b"", b"quit\r\n"),
            (b"retr a b \r\n", "RETR", b"a b", b"retr a b \r\n"),
            (b" \tPORT\t 1,2 \r\n", "PORT", b"1,2", b"PORT\t 1,2 \r\n"),
            (b"XSHA256 f\n", "XSHA256", b"f", b"XSHA256 f\r\n"),
            (b"\xff\xf4\xff\xf2ABOR\r\n", "ABOR", b"", b"\xff\xf4\xff\xf2ABOR\r\n"),
            (b"\xff\xf4\xffABOR\r\n", "ABOR", b"", b"\xff\xf4\xff\xf2ABOR\r\n"),
            (b"\xff\xfb\x01PO\xff\xf1RT 1\r\n", "PORT", b"1", b"PORT 1\r\n"),
            (b"\xff\xfb\n", "", b"", b""),
            (b"CWD \xff\xffa\xffb\n", "CWD", b"\xff\xffa\xffb", b"CWD \xff\xffa\xffb\r\n"),
        ] {
            let command = parse(line);
            if verb.is_empty() {
                assert_eq!(command, None);
                continue;
            }
            let command = command.unwrap_or_else(|| panic!("{line:?}"));
            assert_eq!((&command.verb[..], &command.argument[..]), (verb, argument));
            assert_eq!(command.to_server(), passed, "{line:?}");
        }
    }

    #[test]
    fn what_servers_could_read_otherwise_is_no_command() {
        for line in [
            &b"\r\n"[..],
            b" \r\n",
            b"STOR a\rPORT 1\r\n",
            b"STOR a\0\r\n",
            b"QUIT\r\r\n",
            b"PO\xff\xffRT 1\r\n",
            b"PO\xffxRT 1\r\n",
            b"PORT\x0b1\r\n",
            b"\x0bPORT 1\r\n",
            b"P@SW\r\n",
            b"\xff\xff\r\n",
            b"\x16\x03\x01\x02\n",
        ] {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }
}
