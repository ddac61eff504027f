//! `--takeover`: the old process's sockets at the start, and a place for the next one to come to.

use std::os::unix::net::UnixStream;
use std::path::Path;

use super::SetupError;
use crate::io::inherited::Inherited;
use crate::io::takeover::desk::Desk;
use crate::io::takeover::successor::{self, Place};
use crate::io::unix::SocketFile;

/// What is under way until the relay runs. If it never does, the old process goes on.
pub(super) struct Takeover {
    place: Place,
    /// The numbers of the sockets that the plan has asked for.
    pub(super) taken: Vec<u16>,
}

impl Takeover {
    /// Has the sockets of the process that listens at `path` added to those that are inherited.
    pub(super) fn begin(
        path: Option<&Path>,
        inherited: &mut Inherited,
    ) -> Result<Option<Takeover>, SetupError> {
        let Some(path) = path else { return Ok(None) };
        let (place, handed) = successor::begin(path)?;
        inherited.add(handed);
        Ok(Some(Takeover { place, taken: Vec::new() }))
    }

    /// The file of a Unix socket that was handed over.
    pub(super) fn file(&self, path: &Path) -> Option<SocketFile> {
        self.place.predecessor.as_ref().map(|predecessor| predecessor.file(path))
    }

    /// Everything else has succeeded: the old process accepts no more from here on.
    pub(super) fn finish(self, wake: UnixStream) -> Result<Desk, SetupError> {
        let Place { listener, file, predecessor } = self.place;
        let what = "cannot start the thread of --takeover";
        let desk = Desk::open(listener, file, wake);
        let desk = desk.map_err(|error| SetupError::Process { what, error })?;
        if let Some(predecessor) = predecessor {
            predecessor.ready(&self.taken)?;
        }
        Ok(desk)
    }
}
