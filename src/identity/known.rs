//! Whose keys are known: those of the command line, and those of the peers file.
//!
//! Like `authorized_keys` the file counts as it is when a peer comes, so a line that is added or taken
//! out counts for the next handshake. What is judged by is a copy in memory, since a file system may
//! hang: somebody else is to look at the file before, for as long as that takes.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::cli::peers;
use crate::cli::plan::{Fingerprint, KnownPeer};
use crate::limits::{PEERS_FILE_BYTES, PEERS_LOOK_SECS};

/// Known keys.
pub(super) struct Known {
    pinned: Vec<KnownPeer>,
    file: Option<PeersFile>,
}

/// The peers file, and the copy of it.
struct PeersFile {
    path: PathBuf,
    /// Locked for as long as it takes to search or replace it, never while the file is looked at.
    copy: Mutex<FileCopy>,
}

/// Device, inode, size and time of change.
type Stamp = (u64, u64, u64, i64, i64);

/// The file as it was looked at last.
#[derive(Default)]
struct FileCopy {
    /// `None`: it was not there, or was never looked at.
    stamp: Option<Stamp>,
    peers: Vec<KnownPeer>,
    /// Why it could not be read.
    error: Option<String>,
    /// The last look has not ended in time, so that nobody knows what the file says.
    is_late: bool,
}

impl Known {
    pub(super) fn new(pinned: Vec<KnownPeer>, file: Option<PathBuf>) -> Known {
        let file = file.map(|path| PeersFile { path, copy: Mutex::default() });
        Known { pinned, file }
    }

    /// The peer with this key.
    pub(super) fn find(&self, fingerprint: Fingerprint) -> Option<KnownPeer> {
        let is_it = |peer: &&KnownPeer| peer.fingerprint == fingerprint;
        if let Some(peer) = self.pinned.iter().find(is_it) {
            return Some(peer.clone());
        }
        let copy = self.file.as_ref()?.copy();
        if copy.is_late {
            return None;
        }
        copy.peers.iter().find(is_it).cloned()
    }

    /// How to let a key in, for the log.
    pub(super) fn way_in(&self, fingerprint: Fingerprint) -> String {
        let Some(file) = &self.file else {
            return format!("to let it in, add TLSCONF=peer:{fingerprint}");
        };
        let (path, copy) = (file.path.display(), file.copy());
        match &copy.error {
            _ if copy.is_late => {
                format!("{path} cannot be read: it took more than {PEERS_LOOK_SECS} s")
            }
            Some(error) => format!("{path} cannot be read: {error}"),
            None => format!("to let it in, add this line to {path}: NAME {fingerprint}"),
        }
    }

    /// Whether there is a peers file.
    pub(super) fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// Looks at the peers file, and reads it if it has changed. That may take any time.
    pub(super) fn look(&self) {
        if let Some(file) = &self.file {
            file.look();
        }
    }

    /// A look has not ended in time: keys of the file do not count until it has.
    pub(super) fn look_is_late(&self) {
        if let Some(file) = &self.file {
            file.copy().is_late = true;
        }
    }
}

impl PeersFile {
    fn copy(&self) -> MutexGuard<'_, FileCopy> {
        // A panic cannot leave it half changed.
        self.copy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) {
        // Opening a FIFO would wait for a writer.
        let file = fs::metadata(&self.path).ok().filter(fs::Metadata::is_file);
        let stamp =
            file.map(|file| (file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()));
        if stamp == self.copy().stamp {
            self.copy().is_late = false;
            return;
        }
        let read = stamp.map(|_| self.peers());
        let mut copy = self.copy();
        copy.stamp = stamp;
        copy.is_late = false;
        match read {
            None => (copy.peers, copy.error) = (Vec::new(), None),
            Some(Ok(peers)) => (copy.peers, copy.error) = (peers, None),
            // It is being edited, and the peers from before go on to count.
            Some(Err(error)) => copy.error = Some(error),
        }
    }

    fn peers(&self) -> Result<Vec<KnownPeer>, String> {
        let text = self.text().map_err(|error| error.to_string())?;
        peers::parse(&text).map_err(|problem| problem.to_string())
    }

    fn text(&self) -> io::Result<String> {
        let mut bytes = Vec::new();
        fs::File::open(&self.path)?.take(PEERS_FILE_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > PEERS_FILE_BYTES {
            return Err(io::Error::other(format!("it has more than {PEERS_FILE_BYTES} bytes")));
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
