//! Lines of one side, kept until they are whole and it is their turn.

use crate::limits::FTP_LINE_BYTES;

/// A line was longer than [`FTP_LINE_BYTES`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Received and not yet parsed bytes of one side.
#[derive(Debug, Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    /// So many of them are done with.
    taken: usize,
}

impl Lines {
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole line with its end, as it came.
    pub(super) fn next(&mut self) -> Option<Result<Vec<u8>, TooLong>> {
        let rest = &self.bytes[self.taken..];
        let first = &rest[..rest.len().min(FTP_LINE_BYTES)];
        match first.iter().position(|&byte| byte == b'\n') {
            Some(at) => {
                let line = rest[..=at].to_vec();
                self.taken += line.len();
                Some(Ok(line))
            }
            None if first.len() == FTP_LINE_BYTES => Some(Err(TooLong)),
            None => None,
        }
    }

    /// Bytes that are still here.
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.len() - self.taken
    }
}

/// A line without its end, which is LF with or without one CR before it.
pub(super) fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_come_out_as_they_came() {
        let mut lines = Lines::default();
        lines.put(b"a\r\n\nb\n c");
        let mut taken = Vec::new();
        taken.extend(std::iter::from_fn(|| lines.next()));
        assert_eq!(taken, [Ok(b"a\r\n".to_vec()), Ok(b"\n".to_vec()), Ok(b"b\n".to_vec())]);
        assert_eq!(lines.held_bytes(), 2);
        lines.put(b"d\r");
        assert_eq!(lines.next(), None);
        lines.put(b"\n");
        assert_eq!(lines.next(), Some(Ok(b" cd\r\n".to_vec())));
        assert_eq!(lines.held_bytes(), 0);
    }

    #[test]
    fn the_longest_line() {
        for (long, fits) in [(FTP_LINE_BYTES - 1, true), (FTP_LINE_BYTES, false)] {
            let mut lines = Lines::default();
            lines.put(&vec![b'x'; long]);
            lines.put(b"\n");
            assert_eq!(lines.next().is_some_and(|line| line.is_ok()), fits);
        }
        assert_eq!(without_end(b"a\r\r\n"), b"a\r");
        assert_eq!(without_end(b"a\n"), b"a");
    }
}
