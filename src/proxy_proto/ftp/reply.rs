//! Replies of servers (RFC 959, section 4.2): their last lines, and lists of features.

use super::line::without_end;

/// The role of a line in the server's replies.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The first of several lines.
    First(u16),
    /// Another one, not the last.
    Within(u16),
    /// The last, or the only one.
    Last(u16),
    /// No part of a reply.
    Stray,
}

/// Keeps which reply of several lines has begun.
#[derive(Debug, Default)]
pub(super) struct Replies {
    begun: Option<u16>,
}

impl Replies {
    pub(super) fn read(&mut self, line: &[u8]) -> Part {
        match (self.begun, code(line)) {
            (Some(begun), Some((code, true))) if code == begun => {
                self.begun = None;
                Part::Last(code)
            }
            (Some(begun), _) => Part::Within(begun),
            (None, Some((code, true))) => Part::Last(code),
            (None, Some((code, false))) => {
                self.begun = Some(code);
                Part::First(code)
            }
            (None, None) => Part::Stray,
        }
    }
}

/// The code that a line begins with, and whether it may be a reply's last.
fn code(line: &[u8]) -> Option<(u16, bool)> {
    let (digits, behind) = without_end(line).split_at_checked(3)?;
    if !digits.iter().all(u8::is_ascii_digit) || !(b'1'..=b'6').contains(&digits[0]) {
        return None;
    }
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match behind.first() {
        None | Some(b' ') => Some((code, true)),
        Some(b'-') => Some((code, false)),
        Some(_) => None,
    }
}

/// The text of a line behind its code.
pub(super) fn text(line: &[u8]) -> &[u8] {
    without_end(line).get(4..).unwrap_or_default()
}

/// Whether it may be a late reply to a transfer, and is never one about a port: 225 and 226 report an open
/// or closed data connection, 426 an aborted one.
pub(super) fn is_of_a_transfer(code: u16) -> bool {
    matches!(code, 225 | 226 | 426)
}

/// Whether a line of a list of features (RFC 2389) names one that does not pass here.
pub(super) fn is_feature_kept_back(line: &[u8]) -> bool {
    let feature = match code(line) {
        Some((211, _)) => text(line),
        _ => without_end(line),
    };
    let words = feature.split(|byte| !byte.is_ascii_alphanumeric());
    let word = words.into_iter().find(|word| !word.is_empty()).unwrap_or_default();
    let word = word.to_ascii_uppercase();
    super::KEPT_BACK.iter().any(|verb| verb.as_bytes() == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_one_line_and_of_several() {
        let mut replies = Replies::default();
        for (line, part) in [
            (&b"220 hello\r\n"[..], Part::Last(220)),
            (b"220\r\n", Part::Last(220)),
            (b"230-a\n", Part::First(230)),
            (b"230-b\r\n", Part::Within(230)),
            (b"231 c\r\n", Part::Within(230)),
            (b" 230 d\r\n", Part::Within(230)),
            (b"2300\r\n", Part::Within(230)),
            (b"230 e\r\n", Part::Last(230)),
            (b"hello\r\n", Part::Stray),
            (b"22\r\n", Part::Stray),
            (b"2201 x\r\n", Part::Stray),
            (b"020 x\r\n", Part::Stray),
            (b"720 x\r\n", Part::Stray),
            (b"\r\n", Part::Stray),
            (b"150-\r\n", Part::First(150)),
            (b"150\r\n", Part::Last(150)),
        ] {
            assert_eq!(replies.read(line), part, "{line:?}");
        }
    }

    #[test]
    fn features_that_do_not_pass() {
        for line in [" AUTH TLS", "auth ssl;TLS", "211-AUTH TLS", " PBSZ", " PROT", "\tCCC", "TLS"]
        {
            assert!(is_feature_kept_back(format!("{line}\r\n").as_bytes()), "{line}");
        }
        for line in [" EPSV", " MLST type*;size*;", " AUTHOR", "211 End", "", " REST STREAM", " -"]
        {
            assert!(!is_feature_kept_back(format!("{line}\r\n").as_bytes()), "{line}");
        }
    }
}
