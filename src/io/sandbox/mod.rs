//! What the process gives up once its ports are open and its engine runs, before it accepts anybody:
//! its user, core dumps, and whatever its plan does not need. Nothing of it can be had again.
//!
//! What an engine does on the process's behalf is restricted in its own place: the ring of
//! [`uring`](super::uring) runs the operations of the driver and no others.

mod calls;
mod files;
mod user;

use nix::errno::Errno;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::cli::fence::{Fence, Needs};
use crate::cli::plan::RunAs;

/// Something to be done once, by another thread.
pub type Errand = Box<dyn FnOnce() + Send>;

/// The process cannot give up what it was told to. Layer: engine; scope: the process.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The system knows no such user or group.
    #[error(
        "--user {run_as}: there is no such {what}; name one that the system knows (`getent passwd`, \
         `getent group`), or give numbers"
    )]
    NoSuch {
        /// As given.
        run_as: RunAs,
        /// A user or a group.
        what: &'static str,
    },
    /// The number of no known user, without a group.
    #[error(
        "--user {run_as}: no entry says which group that number has; write --user {run_as}:GROUP"
    )]
    GroupNeeded {
        /// As given.
        run_as: RunAs,
    },
    /// The system refuses.
    #[error(
        "--user {run_as}: {}; start the process as root, or leave --user out and let the service \
         manager start it as that user", .error.desc()
    )]
    User {
        /// As given.
        run_as: RunAs,
        /// The reason.
        error: Errno,
    },
    /// A capability that does not go with the user would lead back.
    #[error(
        "--user {run_as}: the process could become root again; start it as root without securebits, \
         or leave --user out and let the service manager start it as that user"
    )]
    StaysRoot {
        /// As given.
        run_as: RunAs,
    },
    /// What was demanded cannot be had.
    #[error("--sandbox on: {lacking}; leave --sandbox out, and the process does without")]
    Lacking {
        /// What is not there, and why.
        lacking: String,
    },
}

/// Makes the process another user's, with all groups of that user.
///
/// # Errors
/// There is no such user, or the process may not.
pub fn become_user(run_as: &RunAs) -> Result<(), SandboxError> {
    user::become_user(run_as)
}

/// Puts the fence around the process, for all its threads: those that run already are reached by the
/// kernel, and where that cannot, by `on_other_threads`, which hands each of them what it is given.
///
/// What is not there is left out and told.
pub fn put_up(fence: &Fence, on_other_threads: impl Fn(Errand)) -> Vec<String> {
    let mut lacking = Vec::new();
    let mut tell = |what: &str, done: Result<(), String>| {
        lacking.extend(done.err().map(|why| format!("{what} ({why})")));
    };
    if *fence != Fence::Open {
        let done = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        tell("core dumps are not off", done.map_err(|error| error.to_string()));
    }
    match fence {
        Fence::Open | Fence::Dumps => {}
        Fence::Wide => tell("system calls are not restricted", calls::wide()),
        Fence::Narrow(needs) => match unknown_module(needs) {
            Some(module) => {
                tell("files and system calls are not restricted", Err(module));
            }
            None => {
                tell(
                    "files are not restricted by Landlock",
                    files::narrow(needs, on_other_threads),
                );
                tell("system calls are not restricted", calls::narrow(needs));
            }
        },
    }
    lacking
}

/// A module of the resolver may need anything.
fn unknown_module(needs: &Needs) -> Option<String> {
    let module = needs.names.then(files::unknown_module)??;
    Some(format!("/etc/nsswitch.conf has names looked up by {module}, which may need anything"))
}
