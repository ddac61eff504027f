//! What handshakes are made with: this end's role, and who judges the peer's key.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ServerConfig};

use crate::cli::plan::PeerOptions;
use crate::limits::RECORDS_PER_KEY;

/// The protocol above, which both ends have to name: a key that is also used for something else opens
/// no tunnel, and a tunnel's key nothing else.
pub const ALPN: &[u8] = b"sockmux";

/// Which end of the handshake this process is.
#[derive(Clone)]
pub enum Role {
    /// It begins the handshake.
    Client {
        /// With its key and verifier.
        config: Arc<ClientConfig>,
        /// The name that the peer's certificate is looked up for, where it is one of an authority.
        name: ServerName<'static>,
    },
    /// It waits for it.
    Server {
        /// With its key and verifier.
        config: Arc<ServerConfig>,
    },
}

/// Names the peer that a verifier has let in.
///
/// Peers may stand in a file, of which a copy is judged by. It is to be looked at before each peer is
/// judged, by whoever can wait.
pub trait Peers: Send + Sync {
    /// Whether there is such a file.
    fn has_file(&self) -> bool;

    /// Looks at the file, for as long as that takes.
    fn look(&self);

    /// A look has not ended in time: the file lets nobody in until it has.
    fn look_is_late(&self);

    /// Who presents this chain, the peer's own certificate first.
    ///
    /// # Errors
    /// It is not let in any more.
    fn identify(&self, chain: &[CertificateDer<'_>]) -> Result<Peer, String>;
}

/// A peer whose key was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Of its public key: `SHA256:` and base64.
    pub fingerprint: String,
    /// As it is called here.
    pub name: Option<String>,
    /// What it may do here, as that was when it came.
    pub options: Arc<PeerOptions>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({})", self.fingerprint),
            None => f.write_str(&self.fingerprint),
        }
    }
}

/// What all handshakes of this process are made with.
pub struct Settings {
    role: Role,
    own_fingerprint: String,
    peers: Arc<dyn Peers>,
    records_per_key: u64,
}

impl Settings {
    /// `own_fingerprint`: of the key that the configuration presents.
    pub fn new(role: Role, own_fingerprint: String, peers: Arc<dyn Peers>) -> Settings {
        Settings { role, own_fingerprint, peers, records_per_key: RECORDS_PER_KEY }
    }

    /// Takes a new key after so many records.
    pub fn with_records_per_key(self, records: u64) -> Settings {
        Settings { records_per_key: records.clamp(1, RECORDS_PER_KEY), ..self }
    }

    /// Sent records after which a new key is taken.
    pub fn records_per_key(&self) -> u64 {
        self.records_per_key
    }

    /// Which end this process is.
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// The fingerprint of this end's key.
    pub fn own_fingerprint(&self) -> &str {
        &self.own_fingerprint
    }

    /// Who is let in.
    pub fn peers(&self) -> &Arc<dyn Peers> {
        &self.peers
    }

    /// Who presents this chain, behind a handshake.
    ///
    /// # Errors
    /// It is not let in any more.
    pub fn peer(&self, chain: &[CertificateDer<'_>]) -> Result<Peer, String> {
        self.peers.identify(chain)
    }
}
