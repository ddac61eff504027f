//! Finding the end of a head, before it is parsed.
//!
//! RFC 9112 section 2.2 lets a recipient accept a bare LF as a line's end, and httparse does. In a
//! request, the party before us may have read it otherwise, which is how requests are smuggled:
//! there a line ends with CRLF and nothing else. In an answer a bare LF is accepted, as clients
//! accept it and some servers send it: its head is rewritten, so no party behind sees another one,
//! and the requests are ours, one after another.

use std::ops::Range;

use crate::limits::PROXY_HEAD_BYTES;

/// Why bytes cannot become a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoHead {
    /// It does not start like one.
    Strange,
    BareLf,
    BareCr,
    /// Longer than [`PROXY_HEAD_BYTES`].
    TooLong,
}

/// The end of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineEnd {
    /// CRLF and nothing else: requests.
    Crlf,
    /// Also a bare LF: answers.
    LfToo,
}

/// Valid starts of a head: whether a byte is possible at an offset.
pub(super) type Begins = fn(usize, u8) -> bool;

/// Progress of the search.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Start of the head, after empty lines, which RFC 9112 section 2.2 wants ignored.
    start: usize,
    next: usize,
}

impl Scan {
    /// The range of the head with its empty line, once it is complete. `bytes` are those of the
    /// last call, and more.
    pub(super) fn find(
        &mut self,
        bytes: &[u8],
        begins: Begins,
        line_end: LineEnd,
    ) -> Result<Option<Range<usize>>, NoHead> {
        while let Some(&byte) = bytes.get(self.next) {
            let at = self.next;
            if at >= PROXY_HEAD_BYTES {
                return Err(NoHead::TooLong);
            }
            let behind_cr = at > 0 && bytes[at - 1] == b'\r';
            match byte {
                b'\n' if !behind_cr && line_end == LineEnd::Crlf => return Err(NoHead::BareLf),
                b'\n' => {
                    let line = at - usize::from(behind_cr);
                    if line == self.start {
                        self.start = at + 1;
                    } else if bytes[line - 1] == b'\n' {
                        return Ok(Some(self.start..at + 1));
                    }
                }
                _ if behind_cr => return Err(NoHead::BareCr),
                // The first line may still be empty.
                b'\r' if at == self.start => {}
                _ if !begins(at - self.start, byte) => return Err(NoHead::Strange),
                _ => {}
            }
            self.next += 1;
        }
        Ok(None)
    }

    /// Whether a part of a head was found.
    pub(super) fn has_begun(&self) -> bool {
        self.next > self.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anything(_: usize, _: u8) -> bool {
        true
    }

    #[test]
    fn heads_end_with_an_empty_line() {
        for (bytes, found) in [
            (&b""[..], Ok(None)),
            (b"a\r\n", Ok(None)),
            (b"a\r\n\r\n", Ok(Some(0..5))),
            (b"a\r\nb\r\n\r\nrest\n", Ok(Some(0..8))),
            (b"\r\n\r\na\r\n\r\n", Ok(Some(4..9))),
            (b"\r\n\r\n", Ok(None)),
            (b"a\n", Err(NoHead::BareLf)),
            (b"\n", Err(NoHead::BareLf)),
            (b"a\r\n\n", Err(NoHead::BareLf)),
            (b"a\r\r\n", Err(NoHead::BareCr)),
            (b"a\rb", Err(NoHead::BareCr)),
            (b"\rb", Err(NoHead::BareCr)),
        ] {
            assert_eq!(Scan::default().find(bytes, anything, LineEnd::Crlf), found, "{bytes:?}");
            let mut scan = Scan::default();
            let piecewise = (0..=bytes.len())
                .find_map(|end| scan.find(&bytes[..end], anything, LineEnd::Crlf).transpose());
            assert_eq!(piecewise.transpose(), found, "{bytes:?} in pieces");
        }
    }

    #[test]
    fn an_lf_alone_may_end_a_line() {
        for (bytes, found) in [
            (&b"a\n"[..], Ok(None)),
            (b"a\n\n", Ok(Some(0..3))),
            (b"a\nb\n\nrest\n", Ok(Some(0..5))),
            (b"a\r\nb\n\r\n", Ok(Some(0..7))),
            (b"a\nb\r\n\n", Ok(Some(0..6))),
            (b"\n\r\n\na\n\n", Ok(Some(4..7))),
            (b"\n\n", Ok(None)),
            (b"a\r\nb\r\n\r\n", Ok(Some(0..8))),
            (b"a\r\r\n", Err(NoHead::BareCr)),
            (b"a\rb", Err(NoHead::BareCr)),
        ] {
            assert_eq!(Scan::default().find(bytes, anything, LineEnd::LfToo), found, "{bytes:?}");
            let mut scan = Scan::default();
            let mut find = |end| scan.find(&bytes[..end], anything, LineEnd::LfToo).transpose();
            let piecewise = (0..=bytes.len()).find_map(&mut find);
            assert_eq!(piecewise.transpose(), found, "{bytes:?} in pieces");
        }
    }

    #[test]
    fn a_head_has_a_largest_size() {
        let mut bytes = vec![b'a'; PROXY_HEAD_BYTES - 4];
        bytes.extend_from_slice(b"\r\n\r\n");
        let whole = Ok(Some(0..PROXY_HEAD_BYTES));
        assert_eq!(Scan::default().find(&bytes, anything, LineEnd::Crlf), whole);
        bytes.insert(0, b'a');
        assert_eq!(Scan::default().find(&bytes, anything, LineEnd::Crlf), Err(NoHead::TooLong));
    }
}
