//! Unix sockets: `PORT=unix:PATH[?options]` and `DEST=unix:PATH[?options]`.

use std::path::PathBuf;

use super::error::{Problem, quoted};
use super::options;
use super::peers;
use super::plan::UnixEntrance;

/// Options of an entrance behind `?`.
pub(super) const OPTIONS: [&str; 3] = ["proxy", "mode", "peer"];

/// Longest path of a Unix socket, in bytes: `sun_path` of unix(7) has 108, one for the zero behind
/// it.
const PATH_BYTES_MAX: usize = 107;

/// Default of `?mode=`: only the user of the process may connect, since all clients of an entrance act
/// with the rights of that process.
const MODE: u32 = 0o600;

/// An entrance, from the text after `unix:`.
pub(crate) fn entrance(text: &str) -> Result<UnixEntrance, Problem> {
    let (place, given) = options::split(text);
    let mut entrance =
        UnixEntrance { path: path(place)?, mode: MODE, proxy_header: false, peers: Vec::new() };
    for (name, value) in options::each(given, &OPTIONS)? {
        match name {
            "proxy" => entrance.proxy_header = accepts_header(value)?,
            "peer" => entrance.peers.push(peers::name(value)?),
            _ => entrance.mode = mode(value)?,
        }
    }
    Ok(entrance)
}

/// The path of a socket.
pub(crate) fn path(text: &str) -> Result<PathBuf, Problem> {
    let problem = |what: String, remedy| Err(Problem::new(what, remedy));
    let example = "give the path of the socket, as in unix:/run/service.sock";
    match text {
        "" => problem("no Unix socket is named".to_owned(), example),
        _ if text.starts_with(['@', '\0']) => problem(
            format!("{} is an abstract name, which every user may connect to", quoted(text)),
            example,
        ),
        _ if text.contains('\0') => problem("there is a zero byte in the path".to_owned(), example),
        _ if text.contains(',') => problem(
            format!("{} has a comma in it", quoted(text)),
            "give each Unix socket a parameter of its own, and none a comma in its path",
        ),
        _ if text.len() > PATH_BYTES_MAX => problem(
            format!("{} is {} bytes long", quoted(text), text.len()),
            "the path of a Unix socket has 107 at most: take a shorter one, or a relative one",
        ),
        _ => Ok(PathBuf::from(text)),
    }
}

/// `proxy=accept` of an entrance.
pub(crate) fn accepts_header(value: &str) -> Result<bool, Problem> {
    if value == "accept" {
        return Ok(true);
    }
    Err(Problem::new(
        format!("{} is nothing that proxy can be at an entrance", quoted(value)),
        "write proxy=accept: either version is taken, and each client has to send one",
    ))
}

/// Octal, as chmod(1) takes it.
fn mode(text: &str) -> Result<u32, Problem> {
    let octal = matches!(text.len(), 3 | 4) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if octal && mode <= 0o777 => Ok(mode),
        _ => Err(Problem::new(
            format!("{} is not a mode", quoted(text)),
            "give it in octal, as in mode=0660 for the user and the group of the process",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entrances() {
        let path_and = |path: &str, peers: &[&str]| UnixEntrance {
            path: path.into(),
            mode: 0o600,
            proxy_header: false,
            peers: peers.iter().map(|&peer| peer.to_owned()).collect(),
        };
        let plain = path_and("/run/x", &[]);
        let with = |mode, proxy_header| UnixEntrance { mode, proxy_header, ..plain.clone() };
        for (text, wanted) in [
            ("/run/x", plain.clone()),
            ("/run/x?mode=0660", with(0o660, false)),
            ("/run/x?mode=777&proxy=accept", with(0o777, true)),
            ("x y", path_and("x y", &[])),
            ("/run/x?peer=a", path_and("/run/x", &["a"])),
        ] {
            assert_eq!(entrance(text).as_ref(), Ok(&wanted), "{text}");
        }
        let long = "x".repeat(PATH_BYTES_MAX + 1);
        assert!(path(&long[1..]).is_ok());
        for (text, piece) in [
            ("", "no Unix socket"),
            ("@x", "abstract"),
            ("/a\0b", "zero byte"),
            ("/a,9023", "comma"),
            (&long, "108 bytes long"),
            ("/x?mode=0888", "not a mode"),
            ("/x?mode=1777", "not a mode"),
            ("/x?mode=+77", "not a mode"),
            ("/x?proxy=v1", "proxy=accept"),
            ("/x?mod=0600", "did you mean `mode`?"),
            ("/x?proxy", "has no value"),
            ("/x?", "has no value"),
            ("/x?mode=600&mode=600", "given twice"),
        ] {
            let said = entrance(text).unwrap_err().to_string();
            assert!(said.contains(piece), "{text}: {said}");
        }
    }
}
