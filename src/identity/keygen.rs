//! `sockmux-uring keygen`.

use std::io;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use zeroize::Zeroizing;

use super::IdentityError;
use super::file;
use super::key::{self, Seed};
use crate::cli::keygen::{Keygen, Made};
use crate::cli::plan::Proof;
use crate::cli::plan::TlsSide;

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeKey {
    /// For standard output: the fingerprint of the key. A secret has none.
    pub fingerprint: Option<String>,
    /// For people: what was made, and what to do with it at the other end.
    pub next: String,
}

/// Makes a key or a secret, in a file of its own.
///
/// # Errors
/// A file that is there already, or cannot be made; no random bytes.
pub fn make(keygen: &Keygen) -> Result<MadeKey, IdentityError> {
    let shown = keygen.path.display();
    let seed = random()?;
    match keygen.what {
        Made::Key => {
            let fingerprint = key::fingerprint_of_seed(&seed)?.to_string();
            create(&keygen.path, &pem(&seed))?;
            let next = format!(
                "{shown} is this end's key, and stays here; at the other end add \
                 TLSCONF=peer:{fingerprint}"
            );
            Ok(MadeKey { fingerprint: Some(fingerprint), next })
        }
        Made::Secret => {
            let mut line = Zeroizing::new(STANDARD_NO_PAD.encode(*seed));
            line.push('\n');
            create(&keygen.path, line.as_bytes())?;
            let next = format!(
                "{shown} is the secret of both ends; copy it to the other one by a way that nobody \
                 else can read, such as scp -p, and add TLSCONF=secret:{shown} at both"
            );
            Ok(MadeKey { fingerprint: None, next })
        }
    }
}

fn random() -> Result<Seed, IdentityError> {
    let mut seed = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(&mut *seed).map_err(|_| IdentityError::Crypto {
        what: "the system gives no random bytes",
        why: "getrandom failed".to_owned(),
    })?;
    Ok(seed)
}

fn create(path: &Path, content: &[u8]) -> Result<(), IdentityError> {
    file::create_private(path, content).map_err(|error| {
        let shown = path.display();
        let (what, remedy) = match error.kind() {
            io::ErrorKind::AlreadyExists => (
                match own_fingerprint(path) {
                    Some(fingerprint) => {
                        format!("{shown} is there already, with the fingerprint {fingerprint}")
                    }
                    None => format!("{shown} is there already"),
                },
                "use it, or name another file".to_owned(),
            ),
            _ => (format!("cannot make {shown}: {error}"), "take another folder".to_owned()),
        };
        IdentityError::File { item: "keygen", what, remedy }
    })
}

/// Of the key that is in a file already.
fn own_fingerprint(path: &Path) -> Option<String> {
    let proof = Proof::Key { key: path.to_owned(), certificate: None };
    Some(key::load(&proof, TlsSide::Dials).ok()?.fingerprint.to_string())
}

/// The file of a key, as `openssl genpkey -algorithm ed25519` writes it.
fn pem(seed: &Seed) -> Zeroizing<Vec<u8>> {
    let mut key = key::pkcs8(seed);
    let body = Zeroizing::new(STANDARD.encode(key.secret_pkcs8_der()));
    zeroize::Zeroize::zeroize(&mut key);
    let lines = ["-----BEGIN PRIVATE KEY-----\n", &body, "\n-----END PRIVATE KEY-----\n"];
    let mut text = Zeroizing::new(Vec::with_capacity(lines.iter().map(|line| line.len()).sum()));
    lines.iter().for_each(|line| text.extend(line.as_bytes()));
    text
}
