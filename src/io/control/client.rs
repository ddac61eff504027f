//! The operator's side: finds a process, asks it, and gives its answer back.

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::is_served;
use crate::control::{Answer, DIRECTORY, Request, SOCKET};
use crate::io::unix;
use crate::limits::{CONTROL_ANSWER_BYTES_MAX, CONTROL_ANSWER_MILLIS, CONTROL_PAGE_MILLIS};

/// The process was not asked, or has not answered. Layer: the operator's program.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No place is known.
    #[error(
        "neither RUNTIME_DIRECTORY nor XDG_RUNTIME_DIR is set; name the socket of the process by \
         --control PATH, as it was started with"
    )]
    NoPlace,
    /// None of the user's processes has one.
    #[error(
        "no process has a control socket in {0}; name it by --control PATH, as the process was \
         started with"
    )]
    Nobody(String),
    /// Several processes have one.
    #[error("{} processes can be asked; name one: {}", .0.len(), .0.join(", "))]
    Several(Vec<String>),
    /// It cannot be connected to.
    #[error("{path}: {error}; {remedy}")]
    Connect {
        /// The socket.
        path: String,
        /// What the system says.
        error: io::Error,
        /// The remedy.
        remedy: &'static str,
    },
    /// It has not answered whole.
    #[error("{path}: the process has not answered: {error}; ask again")]
    NoAnswer {
        /// The socket.
        path: String,
        /// Why.
        error: io::Error,
    },
}

/// Asks the process at `path`, or where the environment says.
///
/// # Errors
/// [`AskError`].
pub fn ask(path: Option<&Path>, request: &Request) -> Result<Answer, AskError> {
    let path = path.map_or_else(find, |path| Ok(path.to_owned()))?;
    let shown = path.display().to_string();
    let socket = unix::connect(&path).map_err(|error| {
        let remedy = remedy(&error);
        AskError::Connect { path: shown.clone(), error, remedy }
    })?;
    exchange(socket.into(), request).map_err(|error| AskError::NoAnswer { path: shown, error })
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "no process listens there: give the path that it was started with (--control PATH)"
        }
        io::ErrorKind::PermissionDenied => "ask as the user of the process, or as root",
        io::ErrorKind::WouldBlock => "the process does not accept: ask again",
        _ => "give the path that the process was started with (--control PATH)",
    }
}

fn exchange(mut socket: UnixStream, request: &Request) -> io::Result<Answer> {
    let patience = Duration::from_millis(CONTROL_ANSWER_MILLIS + CONTROL_PAGE_MILLIS);
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(patience))?;
    socket.set_write_timeout(Some(patience))?;
    socket.write_all(format!("{request}\n").as_bytes())?;
    let mut line = Vec::new();
    socket.take(CONTROL_ANSWER_BYTES_MAX).read_to_end(&mut line)?;
    Ok(serde_json::from_slice(&line)?)
}

/// The one process that the environment leads to.
fn find() -> Result<PathBuf, AskError> {
    if let Some(directory) = crate::cli::control::directory_of_service(|name| env::var_os(name)) {
        return Ok(directory.join(SOCKET));
    }
    let directory = env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty());
    let directory = PathBuf::from(directory.ok_or(AskError::NoPlace)?).join(DIRECTORY);
    let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
    let mut served: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| is_served(path)).collect();
    served.sort();
    match &served[..] {
        [] => Err(AskError::Nobody(directory.display().to_string())),
        [one] => Ok(one.clone()),
        all => {
            let each = all.iter().map(|path| format!("--control {}", path.display()));
            Err(AskError::Several(each.collect()))
        }
    }
}
