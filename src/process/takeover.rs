//! `--takeover`: the old process's sockets at the start, and a place for the next one to come to.

use std::os::unix::net::UnixStream;
use std::path::Path;

use super::SetupError;
use crate::cli::plan::{LinkPlan, Plan};
use crate::io::inherited::{Inherited, Reserved};
use crate::io::takeover::desk::Desk;
use crate::io::takeover::successor::{self, Place, Succession};
use crate::io::unix::SocketFile;

/// What is left to do while the relay runs.
type Finished = (Desk, Vec<Reserved>, Option<Succession>);

/// What is under way until the relay runs. If it never does, the old process goes on.
pub(super) struct Takeover {
    place: Place,
    /// The numbers of the sockets that the plan has asked for.
    taken: Vec<u16>,
    /// Those of them that peers have asked for.
    reserved: Vec<Reserved>,
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
        Ok(Some(Takeover { place, taken: Vec::new(), reserved: Vec::new() }))
    }

    /// The plan has taken what it asks for; its peers may ask for others.
    pub(super) fn all_opened(&mut self, plan: &Plan, inherited: &mut Inherited) {
        if matches!(plan.link, LinkPlan::Listen(_)) && plan.encryption.is_some() {
            self.reserved = inherited.take_asked();
        }
        self.taken = inherited.taken().to_vec();
    }

    /// The file of a Unix socket that was handed over.
    pub(super) fn file(&self, path: &Path) -> Option<SocketFile> {
        self.place.predecessor.as_ref().map(|predecessor| predecessor.file(path))
    }

    /// Whether there is a process to take over from.
    pub(super) fn has_predecessor(&self) -> bool {
        self.place.predecessor.is_some()
    }

    /// Everything else has succeeded: the old process accepts no more from here on.
    /// A connector has to have its tunnel first, if the old one has one.
    pub(super) fn finish(self, link: &LinkPlan, wake: UnixStream) -> Result<Finished, SetupError> {
        let Place { listener, file, predecessor } = self.place;
        let what = "cannot start the thread of --takeover";
        let failed = |error| SetupError::Process { what, error };
        let own_wake = wake.try_clone().map_err(failed)?;
        let desk = Desk::open(listener, file, wake).map_err(failed)?;
        let succession = match predecessor {
            Some(predecessor) if predecessor.has_tunnel && matches!(link, LinkPlan::Connect(_)) => {
                Some(Succession::new(predecessor, self.taken, own_wake))
            }
            Some(predecessor) => {
                predecessor.ready(&self.taken)?;
                None
            }
            None => None,
        };
        Ok((desk, self.reserved, succession))
    }
}
