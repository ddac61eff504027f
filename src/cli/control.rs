//! `--control`, and the words by which an operator asks a process: `status`, `streams`, `kill`, `drain`.

use std::ffi::OsString;
use std::path::PathBuf;

use super::error::{Failure, Problem, quoted};
use super::plan::{Control, Plan};
use super::unix;
use crate::control::{DIRECTORY, Request, SOCKET, Target};

/// The first words of such command lines.
const WORDS: [&str; 4] = ["status", "streams", "kill", "drain"];

/// What a running process is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asking {
    /// The request.
    pub request: Request,
    /// Its control socket, unless the environment leads there.
    pub path: Option<PathBuf>,
    /// To print the answer as JSON.
    pub json: bool,
}

/// Whether a command line that begins with this word asks a process.
pub(super) fn is_asking(word: &str) -> bool {
    WORDS.contains(&word)
}

/// Reads such a command line.
///
/// # Errors
/// Words that are not understood.
pub(super) fn parse(words: &[String]) -> Result<Asking, Failure> {
    let (mut path, mut json, mut targets) = (None, false, Vec::new());
    let (command, rest) =
        words.split_first().map_or(("", words), |(first, rest)| (&first[..], rest));
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--json" => json = true,
            "--control" => path = Some(rest.next().ok_or_else(|| misuse(command, word))?),
            _ if word.starts_with("--control=") => path = Some(word),
            _ if command == "kill" && targets.is_empty() && !word.starts_with('-') => {
                targets.push(Target::parse(word).map_err(Failure::new)?);
            }
            other => return Err(misuse(command, other)),
        }
    }
    let request = match (command, targets.pop()) {
        ("status", _) => Request::Status,
        ("streams", _) => Request::Streams,
        ("drain", _) => Request::Drain,
        (_, Some(target)) => Request::Kill(target),
        (_, None) => return Err(misuse(command, "")),
    };
    let path = path.map(|path| path.strip_prefix("--control=").unwrap_or(path));
    Ok(Asking { request, path: path.map(PathBuf::from), json })
}

fn misuse(command: &str, word: &str) -> Failure {
    let what = if word.is_empty() {
        "it is not said what".to_owned()
    } else {
        quoted(word).to_string() + " is not understood"
    };
    let usage = match command {
        "kill" => "kill tunnel:N|stream:N|peer:NAME [--control PATH] [--json]".to_owned(),
        _ => format!("{command} [--control PATH] [--json]"),
    };
    Failure::new(format!("{command}: {what}; write sockmux-uring {usage}"))
}

/// Reads the value of `--control`, for this plan.
///
/// # Errors
/// It is no path of a Unix socket, or another socket's.
pub(super) fn place(value: &str, plan: &Plan) -> Result<Control, Problem> {
    if value == "no" {
        return Ok(Control::No);
    }
    let path = unix::path(value).map_err(|problem| problem.of_file("--control"))?;
    let is_entrance = plan.unix_entrances.iter().any(|entrance| entrance.path == path);
    if is_entrance || plan.takeover.as_ref() == Some(&path) {
        let other = if is_entrance { "PORT=unix:" } else { "--takeover" };
        return Err(Problem::new(
            format!("--control {}: {other} has that socket, too", quoted(value)),
            "take another path for one of the two",
        ));
    }
    Ok(Control::At(path))
}

impl Control {
    /// What the environment of the process `pid` adds, unless the command line says where.
    #[must_use]
    pub fn in_environment(self, variable: impl Fn(&str) -> Option<OsString>, pid: u32) -> Control {
        if self != Control::Auto {
            return self;
        }
        if let Some(directory) = directory_of_service(&variable) {
            return Control::OfService(directory.join(SOCKET));
        }
        match variable("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty()) {
            Some(directory) => {
                Control::OfUser(PathBuf::from(directory).join(DIRECTORY).join(pid.to_string()))
            }
            None => Control::Auto,
        }
    }
}

/// `$RUNTIME_DIRECTORY`, the first of them, which a service manager makes for a service.
pub(crate) fn directory_of_service(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let directories = variable("RUNTIME_DIRECTORY")?.into_string().ok()?;
    let first = directories.split(':').next().filter(|first| !first.is_empty())?;
    Some(PathBuf::from(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn requests_are_read() {
        let asked = |line: &str| parse(&words(line)).unwrap();
        let of = |request, path: Option<&str>, json| Asking {
            request,
            path: path.map(PathBuf::from),
            json,
        };
        assert_eq!(asked("status"), of(Request::Status, None, false));
        assert_eq!(asked("streams --json"), of(Request::Streams, None, true));
        assert_eq!(asked("drain --control /a"), of(Request::Drain, Some("/a"), false));
        let kill = Request::Kill(Target::Stream(7));
        assert_eq!(asked("kill --control=/a stream:7"), of(kill, Some("/a"), false));
        for line in ["status all", "kill", "kill all", "kill stream:1 stream:2", "status --control"]
        {
            let error = parse(&words(line)).unwrap_err().to_string();
            assert!(error.contains("; write "), "{error}");
        }
    }

    #[test]
    fn the_environment_counts_where_the_command_line_says_nothing() {
        let found = |control: Control, service: &str, user: &str| {
            let variable = |name: &str| match name {
                "RUNTIME_DIRECTORY" => Some(OsString::from(service)).filter(|s| !s.is_empty()),
                _ => Some(OsString::from(user)).filter(|s| !s.is_empty()),
            };
            control.in_environment(variable, 7)
        };
        let own = Control::At(PathBuf::from("/own"));
        assert_eq!(found(own.clone(), "/run/a", "/run/user/1"), own);
        assert_eq!(found(Control::No, "/run/a", "/run/user/1"), Control::No);
        let of_service = Control::OfService(PathBuf::from("/run/a/control"));
        assert_eq!(found(Control::Auto, "/run/a:/run/b", "/run/user/1"), of_service);
        let of_user = Control::OfUser(PathBuf::from("/run/user/1/sockmux-uring/7"));
        assert_eq!(found(Control::Auto, "", "/run/user/1"), of_user);
        assert_eq!(found(Control::Auto, "", ""), Control::Auto);
    }
}
