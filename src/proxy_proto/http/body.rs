//! Bodies on their way through: where they end, and nothing of them is kept.

use super::fields::{is_text, is_token};
use crate::limits::{HTTP_EXTENSION_BYTES, PROXY_HEAD_BYTES};

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// After so many bytes.
    Length(u64),
    /// With its last chunk, and its trailers.
    Chunked,
    /// Chunked by its sender; the receiver gets the contents of the chunks, up to the end of the
    /// connection.
    Unchunked,
    /// With the connection.
    UntilEnd,
}

/// Fields that are not allowed in trailers (RFC 9110 section 6.5.1): those that delimit or route a
/// message, or are for one hop.
const NEVER_TRAILERS: [&[u8]; 8] = [
    b"connection",
    b"content-length",
    b"host",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"proxy-authorization",
];

/// The fault in a body that is chunked.
pub(super) type BadChunks = &'static str;

/// A body that is being passed.
#[derive(Debug)]
pub(super) struct Body {
    at: At,
    /// Of the chunk's first line: the number of digits, their value, and the length of the extension.
    digits: u32,
    size_bytes: u64,
    extension_bytes: usize,
    /// The trailer that is being read; only a whole one goes on.
    line: Vec<u8>,
    /// All trailers together.
    trailer_bytes: usize,
    chunks_pass: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// So many bytes of a body with a length.
    Bytes(u64),
    Size,
    /// Blanks behind the size.
    Blank,
    Extension,
    SizeLf,
    /// So many bytes of a chunk.
    Chunk(u64),
    ChunkCr,
    ChunkLf,
    Trailer,
    UntilEnd,
    Ended,
}

impl Body {
    pub(super) fn new(framing: Framing) -> Self {
        let at = match framing {
            Framing::Length(0) => At::Ended,
            Framing::Length(bytes) => At::Bytes(bytes),
            Framing::Chunked | Framing::Unchunked => At::Size,
            Framing::UntilEnd => At::UntilEnd,
        };
        Body {
            at,
            digits: 0,
            size_bytes: 0,
            extension_bytes: 0,
            line: Vec::new(),
            trailer_bytes: 0,
            chunks_pass: framing == Framing::Chunked,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.at == At::Ended
    }

    /// Whether the end of the connection is this body's end.
    pub(super) fn ends_with_connection(&self) -> bool {
        self.at == At::UntilEnd
    }

    /// Consumes bytes of the body, returns their number, and appends those that are passed on to `out`.
    /// Chunks keep their sizes; their extensions are dropped (RFC 9112 section 7.1.1).
    pub(super) fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, BadChunks> {
        let mut used = 0;
        while used < bytes.len() && self.at != At::Ended {
            let rest = &bytes[used..];
            used += match self.at {
                At::Bytes(left) => {
                    let (taken, left) = take(rest, left, out);
                    self.at = if left == 0 { At::Ended } else { At::Bytes(left) };
                    taken
                }
                At::Chunk(left) => {
                    let (taken, left) = take(rest, left, out);
                    self.at = if left == 0 { At::ChunkCr } else { At::Chunk(left) };
                    taken
                }
                At::UntilEnd => take(rest, u64::MAX, out).0,
                _ => {
                    self.frame(rest[0], out)?;
                    1
                }
            };
        }
        Ok(used)
    }

    /// A byte between the contents of chunks.
    fn frame(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<(), BadChunks> {
        self.at = match (self.at, byte) {
            (At::Size, _) if byte.is_ascii_hexdigit() => {
                // 16 digits are 64 bits.
                if self.digits == 16 {
                    return Err("a chunk is too large");
                }
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                self.digits += 1;
                self.size_bytes = self.size_bytes << 4 | u64::from(digit);
                At::Size
            }
            (At::Size, _) if self.digits == 0 => return Err("a chunk has no size"),
            (At::Size | At::Blank, b' ' | b'\t') | (At::Extension, _) if is_text(byte) => {
                self.extension_bytes += 1;
                if self.extension_bytes > HTTP_EXTENSION_BYTES {
                    return Err("a chunk's extension is too long");
                }
                if self.at == At::Extension { At::Extension } else { At::Blank }
            }
            (At::Size | At::Blank, b';') => At::Extension,
            (At::Size | At::Blank | At::Extension, b'\r') => At::SizeLf,
            (At::Size | At::Blank, _) => return Err("a chunk's size is no number"),
            (At::Extension, _) => return Err("a chunk's extension has a control character"),
            (At::SizeLf, b'\n') => self.sized(out),
            (At::ChunkCr, b'\r') => At::ChunkLf,
            (At::ChunkLf, b'\n') => {
                if self.chunks_pass {
                    out.extend_from_slice(b"\r\n");
                }
                At::Size
            }
            (At::Trailer, _) => return self.trailer(byte, out),
            _ => return Err("a chunk does not end with CRLF where it must"),
        };
        Ok(())
    }

    /// The first line of a chunk is whole.
    fn sized(&mut self, out: &mut Vec<u8>) -> At {
        let size_bytes = std::mem::take(&mut self.size_bytes);
        self.digits = 0;
        self.extension_bytes = 0;
        if self.chunks_pass {
            out.extend_from_slice(format!("{size_bytes:x}\r\n").as_bytes());
        }
        if size_bytes == 0 { At::Trailer } else { At::Chunk(size_bytes) }
    }

    fn trailer(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<(), BadChunks> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > PROXY_HEAD_BYTES {
            return Err("the trailers are too long");
        }
        let behind_cr = self.line.last() == Some(&b'\r');
        if behind_cr != (byte == b'\n') {
            return Err("a trailer does not end with CRLF");
        }
        self.line.push(byte);
        if byte == b'\n' {
            let line = std::mem::take(&mut self.line);
            let text = &line[..line.len() - 2];
            if text.is_empty() {
                self.at = At::Ended;
            } else if !is_trailer(text) {
                return Err("a trailer is no field, or one that cannot be a trailer");
            }
            if self.chunks_pass {
                out.extend_from_slice(&line);
            }
        }
        Ok(())
    }
}

/// Passes up to `left` bytes; how many, and how many are left then.
fn take(bytes: &[u8], left: u64, out: &mut Vec<u8>) -> (usize, u64) {
    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    out.extend_from_slice(&bytes[..taken]);
    (taken, left - taken as u64)
}

fn is_trailer(line: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|&byte| byte == b':') else { return false };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    !name.is_empty()
        && name.iter().all(|&byte| is_token(byte))
        && value.iter().all(|&byte| is_text(byte))
        && !NEVER_TRAILERS.iter().any(|never| name.eq_ignore_ascii_case(never))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of a body that are passed on, the number consumed, and how it ended.
    fn passed(
        framing: Framing,
        bytes: &[u8],
        piece: usize,
    ) -> (String, usize, Result<bool, BadChunks>) {
        let mut body = Body::new(framing);
        let mut out = Vec::new();
        let mut used = 0;
        for piece in bytes.chunks(piece) {
            match body.pass(piece, &mut out) {
                Ok(more) => used += more,
                Err(why) => return (String::from_utf8_lossy(&out).into(), used, Err(why)),
            }
            if body.has_ended() {
                break;
            }
        }
        (String::from_utf8_lossy(&out).into(), used, Ok(body.has_ended()))
    }

    #[test]
    fn bodies_end_where_they_say() {
        let chunked = "5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n";
        let passes = "5\r\nhello\r\na\r\n0123456789\r\n0\r\n\r\n";
        let trailers = "1 ;a=\"b\"\r\nx\r\n000\r\nA: b\r\nC:\r\n\r\n";
        for (framing, bytes, out, left, ended) in [
            (Framing::Length(0), "more", "", 4, true),
            (Framing::Length(3), "abcd", "abc", 1, true),
            (Framing::Length(5), "abcd", "abcd", 0, false),
            (Framing::UntilEnd, "abcd", "abcd", 0, false),
            (Framing::Chunked, chunked, passes, 0, true),
            (Framing::Unchunked, chunked, "hello0123456789", 0, true),
            (Framing::Chunked, trailers, "1\r\nx\r\n0\r\nA: b\r\nC:\r\n\r\n", 0, true),
            (Framing::Unchunked, trailers, "x", 0, true),
            (Framing::Chunked, "0\r\n\r\nGET", "0\r\n\r\n", 3, true),
            (Framing::Chunked, "0\r\n\r", "0\r\n", 0, false),
            (Framing::Chunked, "FFFFFFFFFFFFFFFF\r\nx", "ffffffffffffffff\r\nx", 0, false),
        ] {
            for piece in [1, 2, 3, 100] {
                let (got, used, end) = passed(framing, bytes.as_bytes(), piece);
                assert_eq!(got, out, "{bytes:?} by {piece}");
                assert_eq!(end, Ok(ended), "{bytes:?} by {piece}");
                if piece == 1 || piece == 100 {
                    assert_eq!(bytes.len() - used, left, "{bytes:?} by {piece}");
                }
            }
        }
    }

    #[test]
    fn chunks_that_are_none() {
        let crlf = "a chunk does not end with CRLF where it must";
        let number = "a chunk's size is no number";
        let trailer = "a trailer is no field, or one that cannot be a trailer";
        for (bytes, why) in [
            ("\r\n", "a chunk has no size"),
            ("-1\r\n", "a chunk has no size"),
            (" 1\r\n", "a chunk has no size"),
            (";a\r\n", "a chunk has no size"),
            ("0x5\r\n", number),
            ("5 5\r\n", number),
            ("5\n", number),
            ("5 \n", number),
            ("5\0\r\n", number),
            ("10000000000000000\r\n", "a chunk is too large"),
            ("00000000000000005\r\n", "a chunk is too large"),
            ("5;a\nb", "a chunk's extension has a control character"),
            ("5;a\0", "a chunk's extension has a control character"),
            ("5\rx", crlf),
            ("5;a\r\r\n", crlf),
            ("1\r\nab", crlf),
            ("1\r\na\n", crlf),
            ("1\r\na\rb", crlf),
            ("0\r\nA: b\n", "a trailer does not end with CRLF"),
            ("0\r\n\n", "a trailer does not end with CRLF"),
            ("0\r\nA: b\rc", "a trailer does not end with CRLF"),
            ("0\r\nA\r\n", trailer),
            ("0\r\n: b\r\n", trailer),
            ("0\r\nA : b\r\n", trailer),
            ("0\r\nA: b\r\n c\r\n", trailer),
            ("0\r\nA: b\0\r\n", trailer),
            ("0\r\nContent-Length: 5\r\n", trailer),
            ("0\r\ntransfer-encoding: chunked\r\n", trailer),
        ] {
            let whole = passed(Framing::Chunked, bytes.as_bytes(), 100);
            assert_eq!(whole.2, Err(why), "{bytes:?}");
            let single = passed(Framing::Chunked, bytes.as_bytes(), 1);
            assert_eq!((single.0, single.2), (whole.0, whole.2), "{bytes:?} by 1");
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let extension = |bytes| format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(bytes));
        let fits = extension(HTTP_EXTENSION_BYTES);
        assert_eq!(passed(Framing::Chunked, fits.as_bytes(), 100).2, Ok(true));
        let long = extension(HTTP_EXTENSION_BYTES + 1);
        let end = passed(Framing::Chunked, long.as_bytes(), 100).2;
        assert_eq!(end, Err("a chunk's extension is too long"));
        let trailers = format!("0\r\n{}\r\n", "A: b\r\n".repeat(PROXY_HEAD_BYTES / 6));
        let end = passed(Framing::Chunked, trailers.as_bytes(), 100).2;
        assert_eq!(end, Ok(true));
        let long = format!("0\r\n{}", "A: b\r\n".repeat(PROXY_HEAD_BYTES / 6 + 1));
        let end = passed(Framing::Chunked, long.as_bytes(), 100).2;
        assert_eq!(end, Err("the trailers are too long"));
    }
}
