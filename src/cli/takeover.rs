//! `--takeover PATH`: where one process takes over from another.

use std::path::PathBuf;

use super::error::{Problem, quoted};
use super::plan::{LinkPlan, Plan};
use super::unix;

/// Reads the value, for this plan.
///
/// # Errors
/// It is no path of a Unix socket, or the persistent connection is one that two processes cannot have.
pub(crate) fn path(value: &str, plan: &Plan) -> Result<PathBuf, Problem> {
    let path = unix::path(value).map_err(|problem| problem.of_file("--takeover"))?;
    if plan.unix_entrances.iter().any(|entrance| entrance.path == path) {
        return Err(Problem::new(
            format!("--takeover {}: clients come in by that socket (PORT=unix:)", quoted(value)),
            "take another path for one of the two",
        ));
    }
    if plan.maxima.services.is_some() {
        return Err(Problem::new(
            "--takeover: MAXIMA=service counts the clients of one process",
            "leave one of the two out",
        ));
    }
    let link = match plan.link {
        LinkPlan::Device(_) => "a device or a pair of FIFOs (SERVER=sockmux:comm...@)",
        LinkPlan::Command(_) => "a command (SERVER=sockmux:proc@)",
        LinkPlan::Stdio => "our standard input and output (-Fsockmux)",
        LinkPlan::Listen(_)
        | LinkPlan::Connect(_)
        | LinkPlan::Relay { .. }
        | LinkPlan::Loopback => return Ok(path),
    };
    Err(Problem::new(
        format!("--takeover: the persistent connection is {link}, which only one process can have"),
        "leave --takeover out, and start the new process when the old one has ended: clients of the \
         other end wait for it (TIMEOUT=hold)",
    ))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::io;

    use crate::cli::files::Disk;
    use crate::cli::invocation::{self, Command};
    use crate::cli::show;

    fn check(words: &[&str]) -> Result<String, String> {
        let words = ["sockmux-uring", "--check"].iter().chain(words).map(OsString::from);
        let mut lookup = |_: &str| Err(io::Error::other("no such name"));
        let invocation = invocation::parse(words, &Disk, &mut lookup);
        match invocation.map_err(|failure| failure.to_string())?.command {
            Command::Check(plan) => Ok(show::plan(&plan)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_path_is_shown_and_may_be_in_a_file() {
        for words in [
            &["-P9000", "PORT=1", "--takeover", "/run/a"][..],
            &["SERVER=sockmux://h:9000", "PORT=1", "--takeover=/run/a"],
            &["-P9000", "SERVER=tcprelay://h:1", "--takeover", "/run/a"],
            &["-P9000", "SERVER=http", "--takeover", "/run/a"],
        ] {
            let text = check(words).unwrap();
            assert!(text.contains("takeover    by /run/a: from the process that"), "{text}");
            assert!(text.contains("to remove Unix sockets"), "{text}");
        }
        assert!(!check(&["-P9000", "PORT=1"]).unwrap().contains("takeover"));
    }

    #[test]
    fn what_only_one_process_can_have_is_refused_by_name() {
        for (link, piece) in [
            (&["SERVER=sockmux:comm@/dev/ttyS0"][..], "a device or a pair of FIFOs"),
            (&["SERVER=sockmux:commin@a", "SERVER=sockmux:commout@b"], "a pair of FIFOs"),
            (&["SERVER=sockmux:proc@cat"], "a command"),
            (&["-Fsockmux"], "standard input and output"),
            (&["-P9000", "MAXIMA=service:1"], "MAXIMA=service"),
            (&["-P9000", "PORT=unix:/run/a"], "clients come in by that socket"),
        ] {
            let words = [link, &["DEST=127.0.0.1:1", "--takeover", "/run/a"]].concat();
            let message = check(&words).unwrap_err();
            assert!(message.contains("--takeover"), "{message}");
            assert!(message.contains(piece) && message.contains("; "), "{message}");
        }
        let message = check(&["-P9000", "PORT=1", "--takeover", "@a"]).unwrap_err();
        assert!(message.contains("abstract"), "{message}");
    }
}
