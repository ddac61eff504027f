//! Whose keys are known: those of the command line, and those of the peers file as it is now.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::cli::peers;
use crate::cli::plan::{Fingerprint, KnownPeer};
use crate::limits::PEERS_FILE_BYTES;

/// Known keys.
pub(super) struct Known {
    pinned: Vec<KnownPeer>,
    file: Option<PeersFile>,
}

/// The peers file. Like `authorized_keys` it is looked at whenever a peer comes, so a line that is
/// added or taken out counts for the next handshake.
struct PeersFile {
    path: PathBuf,
    last: Mutex<LastRead>,
}

/// The file as it was read last.
#[derive(Default)]
struct LastRead {
    /// Device, inode, size and time of change. `None`: it was not there.
    stamp: Option<(u64, u64, u64, i64, i64)>,
    peers: Vec<KnownPeer>,
    /// Why it could not be read.
    error: Option<String>,
}

impl Known {
    pub(super) fn new(pinned: Vec<KnownPeer>, file: Option<PathBuf>) -> Known {
        let file = file.map(|path| PeersFile { path, last: Mutex::default() });
        Known { pinned, file }
    }

    /// The peer with this key.
    pub(super) fn find(&self, fingerprint: Fingerprint) -> Option<KnownPeer> {
        let is_it = |peer: &&KnownPeer| peer.fingerprint == fingerprint;
        if let Some(peer) = self.pinned.iter().find(is_it) {
            return Some(peer.clone());
        }
        let file = self.file.as_ref()?;
        file.with_current(|last| last.peers.iter().find(is_it).cloned())
    }

    /// How to let a key in, for the log.
    pub(super) fn way_in(&self, fingerprint: Fingerprint) -> String {
        let Some(file) = &self.file else {
            return format!("to let it in, add TLSCONF=peer:{fingerprint}");
        };
        let path = file.path.display();
        match file.with_current(|last| last.error.clone()) {
            Some(error) => format!("{path} cannot be read: {error}"),
            None => format!("to let it in, add this line to {path}: NAME {fingerprint}"),
        }
    }
}

impl PeersFile {
    /// Calls `look` with the content as it is now.
    fn with_current<T>(&self, look: impl FnOnce(&LastRead) -> T) -> T {
        // A panic cannot leave it half changed: it is replaced as a whole.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // Opening a FIFO would wait for a writer.
        let file = fs::metadata(&self.path).ok().filter(fs::Metadata::is_file);
        let stamp =
            file.map(|file| (file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()));
        if stamp != last.stamp {
            *last = self.read(stamp, std::mem::take(&mut last.peers));
        }
        look(&last)
    }

    /// Reads it anew. A file that is gone lists nobody; one with a wrong line is being edited, and
    /// the peers from before go on to count.
    fn read(&self, stamp: Option<(u64, u64, u64, i64, i64)>, before: Vec<KnownPeer>) -> LastRead {
        if stamp.is_none() {
            return LastRead::default();
        }
        match self
            .text()
            .map_err(|error| error.to_string())
            .and_then(|text| peers::parse(&text).map_err(|problem| problem.to_string()))
        {
            Ok(peers) => LastRead { stamp, peers, error: None },
            Err(error) => LastRead { stamp, peers: before, error: Some(error) },
        }
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
