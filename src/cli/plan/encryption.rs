//! The part of the plan that is about encryption and the identity of peers.

use std::path::PathBuf;

use super::peer::KnownPeer;

/// TLS on the persistent connection. Holds names of files only, no key and no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// The side of the handshake that this end takes.
    pub side: TlsSide,
    /// How this end proves who it is.
    pub proof: Proof,
    /// Peers named on the command line.
    pub peers: Vec<KnownPeer>,
    /// The file with further peers, which is read again when it has changed.
    pub peers_file: Option<PathBuf>,
    /// The peers that it listed when the command line was read, for `--check`.
    pub listed: Vec<KnownPeer>,
    /// The authority whose certificates let a peer in.
    pub authority: Option<Authority>,
    /// Bytes sent after which a new key is taken, if given.
    pub rekey_bytes: Option<u64>,
}

/// A side of the TLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsSide {
    /// `STLS=fsv`, towards the server: begins the handshake.
    Dials,
    /// `STLS=fcl`, towards the client: answers it.
    Accepts,
}

/// How this end proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// `key:` and `cert:`. A key without a certificate is known by its fingerprint.
    Key {
        /// The file with the private key.
        key: PathBuf,
        /// The file with the certificate and those between it and its authority.
        certificate: Option<PathBuf>,
    },
    /// `secret:`: both ends have the same secret, from which the keys of both are derived.
    Secret(PathBuf),
}

/// `ca:` and `name:`: an authority of certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The files with its certificates.
    pub certificates: Vec<PathBuf>,
    /// The peer's certificate has to be valid for one of these names or addresses. Empty, at the
    /// accepting side only: any certificate of the authority will do.
    pub names: Vec<String>,
}
