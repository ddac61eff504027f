//! Where operators ask the process.

use std::path::{Path, PathBuf};

/// `--control`, and what the environment says without it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Control {
    /// Where the environment says, if it does.
    #[default]
    Auto,
    /// Nowhere.
    No,
    /// At this socket, or the process does not start.
    At(PathBuf),
    /// In the directory of the service, if that can be.
    OfService(PathBuf),
    /// In the directory of the user's processes, if that can be.
    OfUser(PathBuf),
}

impl Control {
    /// The socket, if there is to be one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Control::Auto | Control::No => None,
            Control::At(path) | Control::OfService(path) | Control::OfUser(path) => Some(path),
        }
    }
}
