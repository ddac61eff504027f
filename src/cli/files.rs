//! `+=FILE`: options and parameters kept in files.
//!
//! One option or parameter a line; blank lines and lines that begin with `#` are skipped; a
//! file may name others, which are looked for beside it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::error::{Failure, Problem, plain, quoted};
use super::words::{Word, WordOrigin};
use crate::limits::{PARAM_FILE_BYTES, PARAM_FILE_DEPTH, PARAM_TOTAL_BYTES};

/// Where parameter files come from: the disk, or a table in a test.
pub trait Files {
    /// Reads a file, at most `bytes_max` bytes of it.
    ///
    /// # Errors
    /// The system's, of opening and reading it.
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>>;

    /// One name for each file, so that a loop is detected however its path is written.
    fn identity(&self, path: &Path) -> PathBuf;
}

/// The files of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(bytes_max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn identity(&self, path: &Path) -> PathBuf {
        // A pipe of the shell (`+=<(...)`) has no path of its own; as written it is unique.
        path.canonicalize().unwrap_or_else(|_| path.to_owned())
    }
}

/// Replaces each `+=FILE` by the words of the file, recursively.
///
/// # Errors
/// A file that cannot be read, is not text, is too long, nested too deep or names itself (the
/// message shows by which way); a quote without its partner.
pub fn expand(words: Vec<Word>, files: &dyn Files) -> Result<Vec<Word>, Failure> {
    expand_beside(None, words, files).map_err(|problem| Failure::new(problem.to_string()))
}

/// As [`expand`]; files are looked for in the folder `beside`, if there is one.
///
/// # Errors
/// The same, naming the word.
pub(crate) fn expand_beside(
    beside: Option<PathBuf>,
    words: Vec<Word>,
    files: &dyn Files,
) -> Result<Vec<Word>, Problem> {
    let bytes_left = PARAM_TOTAL_BYTES;
    let mut expansion =
        Expansion { files, beside, open: Vec::new(), bytes_left, words: Vec::new() };
    for word in words {
        expansion.add(word)?;
    }
    Ok(expansion.words)
}

struct Expansion<'f> {
    files: &'f dyn Files,
    /// Where files are looked for that no file names.
    beside: Option<PathBuf>,
    /// The files being read, outermost first: identity, and the path as it was named.
    open: Vec<(PathBuf, PathBuf)>,
    bytes_left: u64,
    words: Vec<Word>,
}

impl Expansion<'_> {
    fn add(&mut self, word: Word) -> Result<(), Problem> {
        match word.text.strip_prefix("+=") {
            Some(name) => {
                let name = PathBuf::from(name);
                self.include(&word, &name)
            }
            None => {
                self.words.push(word);
                Ok(())
            }
        }
    }

    fn include(&mut self, word: &Word, name: &Path) -> Result<(), Problem> {
        let fail = |what: String, remedy: &str| Problem::new(what, remedy).in_word(word);
        if name.as_os_str().is_empty() {
            return Err(fail("no file is named".into(), "write +=FILE"));
        }
        let beside = match self.open.last() {
            Some((_, path)) => path.parent(),
            None => self.beside.as_deref(),
        };
        let path = beside.map_or_else(|| name.to_owned(), |folder| folder.join(name));
        let identity = self.files.identity(&path);
        if let Some(first) = self.open.iter().position(|(open, _)| *open == identity) {
            let mut chain: Vec<_> =
                self.open[first..].iter().map(|(_, p)| plain(&p.to_string_lossy())).collect();
            chain.push(plain(&path.to_string_lossy()));
            return Err(fail(
                format!("the file includes itself: {}", chain.join(" -> ")),
                "take this line out",
            ));
        }
        if self.open.len() == PARAM_FILE_DEPTH {
            return Err(fail(
                format!("files are nested deeper than {PARAM_FILE_DEPTH}"),
                "put the parameters into fewer files",
            ));
        }
        let bytes_max = PARAM_FILE_BYTES.min(self.bytes_left);
        let bytes = self.files.read(&path, bytes_max + 1).map_err(|error| {
            fail(
                format!("cannot read {}: {error}", quoted(&path.to_string_lossy())),
                "check the path: inside a file it is relative to that file",
            )
        })?;
        if bytes.len() as u64 > bytes_max {
            return Err(fail(
                format!("more than {bytes_max} bytes of parameters"),
                "name a parameter file, one option or parameter a line",
            ));
        }
        self.bytes_left -= bytes.len() as u64;
        self.open.push((identity, path.clone()));
        self.lines(&path, &bytes)?;
        self.open.pop();
        Ok(())
    }

    fn lines(&mut self, path: &Path, bytes: &[u8]) -> Result<(), Problem> {
        // Some editors begin a file with a byte order mark.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        for (index, line) in bytes.split(|&b| b == b'\n').enumerate() {
            let text = String::from_utf8_lossy(line);
            let origin = WordOrigin::File { path: path.to_owned(), line: index + 1 };
            let mut word = Word { text: text.trim().to_owned(), origin };
            if word.text.is_empty() || word.text.starts_with('#') {
                continue;
            }
            if std::str::from_utf8(line).is_err() || word.text.contains('\0') {
                let problem =
                    Problem::new("the line is not text", "write parameter files in UTF-8");
                return Err(problem.in_word(&word));
            }
            word.text = unquote(&word)?;
            self.add(word)?;
        }
        Ok(())
    }
}

/// Removes the double quotes of `NAME="value"`, as a shell does, since lines are copied from scripts
/// into files.
fn unquote(word: &Word) -> Result<String, Problem> {
    let Some((name, value)) = word.text.split_once('=') else { return Ok(word.text.clone()) };
    let Some(inner) = value.strip_prefix('"') else { return Ok(word.text.clone()) };
    match inner.strip_suffix('"') {
        Some(inner) => Ok(format!("{name}={inner}")),
        None => {
            let remedy = "end the value with \" or leave both out";
            Err(Problem::new("the quote is not closed", remedy).in_word(word))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Files in memory; `identity` takes out `.` parts, as the disk would.
    struct Table(HashMap<&'static str, Vec<u8>>);

    impl Files for Table {
        fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
            let path = self.identity(path);
            let bytes = self.0.get(path.to_str().unwrap()).ok_or(io::ErrorKind::NotFound)?;
            Ok(bytes[..bytes.len().min(bytes_max as usize)].to_vec())
        }

        fn identity(&self, path: &Path) -> PathBuf {
            path.components().filter(|c| c.as_os_str() != ".").collect()
        }
    }

    fn run(files: &[(&'static str, &[u8])], first: &str) -> Result<Vec<Word>, Failure> {
        let table = Table(files.iter().map(|(name, text)| (*name, text.to_vec())).collect());
        expand(vec![Word::argument(first)], &table)
    }

    fn message(files: &[(&'static str, &[u8])], first: &str) -> String {
        run(files, first).unwrap_err().to_string()
    }

    #[test]
    fn lines_become_words_with_their_place() {
        let words = run(
            &[(
                "conf/a",
                b"\xef\xbb\xbf# comment\r\n\r\n  PORT=1 \r\nSERVER=\"telnet://hostX,-in\"\n-P:9000",
            )],
            "+=conf/a",
        )
        .unwrap();
        let shown: Vec<_> = words.iter().map(Word::to_string).collect();
        assert_eq!(
            shown,
            ["conf/a:3: PORT=1", "conf/a:4: SERVER=telnet://hostX,-in", "conf/a:5: -P:9000"]
        );
    }

    #[test]
    fn a_file_is_looked_for_beside_the_one_that_names_it() {
        let words = run(
            &[("d/a", b"+=\"sub/b\"\nPORT=3"), ("d/sub/b", b"PORT=1\n+=c"), ("d/sub/c", b"PORT=2")],
            "+=d/a",
        )
        .unwrap();
        let texts: Vec<_> = words.iter().map(|w| w.text.as_str()).collect();
        assert_eq!(texts, ["PORT=1", "PORT=2", "PORT=3"]);
    }

    #[test]
    fn one_file_may_be_named_twice_but_not_by_itself() {
        assert_eq!(run(&[("a", b"+=b\n+=b"), ("b", b"-v")], "+=a").unwrap().len(), 2);
        let message = message(&[("a", b"\n+=b"), ("b", b"+=./a")], "+=a");
        assert!(message.starts_with("b:1: +=./a: "), "{message}");
        assert!(message.contains("a -> b -> ./a"), "{message}");
    }

    #[test]
    fn faults_name_the_file_and_line() {
        for (file, wanted) in [
            (&b"\n+=nowhere"[..], "a:2: +=nowhere: cannot read `nowhere`"),
            (b"+=", "a:1: +=: no file is named"),
            (b"PORT=\"1", "a:1: PORT=\"1: the quote is not closed"),
            (b"PORT=\"", "a:1: PORT=\": the quote is not closed"),
            (b"PORT=\xff", "the line is not text"),
            (b"PORT=\0", "the line is not text"),
        ] {
            let message = message(&[("a", file)], "+=a");
            assert!(message.contains(wanted), "{message}");
        }
    }

    #[test]
    fn size_and_depth_are_bounded() {
        let long = vec![b'#'; PARAM_FILE_BYTES as usize + 1];
        assert!(message(&[("a", &long)], "+=a").contains("bytes of parameters"));

        // Each file twice as much as the next: the sum must be bounded, not only each file.
        let twice = b"+=b\n".repeat(1000);
        let filler = vec![b'#'; PARAM_FILE_BYTES as usize / 10];
        assert!(message(&[("a", &twice), ("b", &filler)], "+=a").contains("bytes of parameters"));

        struct Endless;
        impl Files for Endless {
            fn read(&self, path: &Path, _: u64) -> io::Result<Vec<u8>> {
                Ok(format!("+={}x", path.display()).into_bytes())
            }
            fn identity(&self, path: &Path) -> PathBuf {
                path.to_owned()
            }
        }
        let error = expand(vec![Word::argument("+=x")], &Endless).unwrap_err();
        assert!(error.to_string().contains("nested deeper"), "{error}");
    }
}
