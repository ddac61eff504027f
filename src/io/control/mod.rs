//! The control socket: a Unix socket by which an operator asks a running process ([`crate::control`]).
//!
//! A thread serves it (`desk`), so that the loop waits for nobody, and asks the worker a page at a time.
//! [`client`] is the operator's side.

pub mod client;
pub(crate) mod desk;

use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::cli::plan::Control;
use crate::io::unix::{self, SocketFile};

/// Only our own user may connect; root may anyway.
const MODE: u32 = 0o600;

/// The process cannot be asked. Layer: engine; scope: the process.
#[derive(Debug, thiserror::Error)]
#[error("--control {path}: cannot listen there: {error}; {remedy}")]
pub struct ControlError {
    path: String,
    error: io::Error,
    remedy: &'static str,
}

/// Where operators come to.
#[derive(Debug)]
pub(crate) struct Place {
    listener: OwnedFd,
    file: SocketFile,
}

/// Listens where the plan says. `replaces`: what listens there is the process that this one takes over
/// from. `None`: nothing is to listen, or it cannot, where nobody has asked for it; that is `told`.
///
/// # Errors
/// It cannot listen where the command line says.
pub(crate) fn listen(
    control: &Control,
    replaces: bool,
    told: &mut Vec<String>,
) -> Result<Option<Place>, ControlError> {
    let Some(path) = control.path() else { return Ok(None) };
    if let Control::OfUser(path) = control
        && let Some(directory) = path.parent()
    {
        // Where it cannot be made, neither can the socket, which says why.
        let _ = DirBuilder::new().mode(0o700).create(directory);
    }
    let listened = match unix::listen(path, MODE) {
        Err(error) if replaces && error.kind() == io::ErrorKind::AddrInUse => {
            unix::listen_instead(path, MODE)
        }
        listened => listened,
    };
    match listened {
        Ok((listener, file)) => Ok(Some(Place { listener, file })),
        Err(error) if matches!(control, Control::At(_)) => {
            let remedy = remedy(&error);
            Err(ControlError { path: path.display().to_string(), error, remedy })
        }
        Err(error) => {
            let path = path.display();
            told.push(format!(
                "no control socket at {path}: {error}; --control PATH names another"
            ));
            Ok(None)
        }
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "make its directory first",
        io::ErrorKind::AddrInUse => {
            "another process listens there: take another path, or stop that one"
        }
        io::ErrorKind::AlreadyExists => "it is no socket: take another path",
        io::ErrorKind::PermissionDenied => {
            "take a path in a directory that our user may write to, or --control no"
        }
        _ => "take another path, or --control no",
    }
}

/// For `sockmux-uring status` and the like: whether a process listens at a path.
pub(crate) fn is_served(path: &Path) -> bool {
    unix::connect(path).is_ok()
}
