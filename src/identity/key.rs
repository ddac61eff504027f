//! Private keys: read, made, and derived from a secret.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer,
};
use rustls::sign::{CertifiedKey, SigningKey};
use zeroize::{Zeroize, Zeroizing};

use super::{IdentityError, certificate, file, provider};
use crate::cli::plan::{Fingerprint, Proof, TlsSide};
use crate::limits::{SECRET_CHARS_MAX, SECRET_CHARS_MIN, SECRET_DISTINCT_MIN};

/// An Ed25519 private key as PKCS#8 has it, before its 32 bytes (RFC 8410 section 7).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// The bytes that an Ed25519 key is made of.
pub(super) type Seed = Zeroizing<[u8; 32]>;

/// How this end proves who it is, and by a shared secret the peer too.
pub(super) struct OwnKey {
    /// Key and certificates.
    pub(super) certified: CertifiedKey,
    /// Of the key.
    pub(super) fingerprint: Fingerprint,
    /// The only peer that there can be.
    pub(super) only_peer: Option<Fingerprint>,
}

/// Reads key and certificates, or derives them.
///
/// # Errors
/// A file that cannot be used, by its name.
pub(super) fn load(proof: &Proof, side: TlsSide) -> Result<OwnKey, IdentityError> {
    match proof {
        Proof::Key { key, certificate } => of_file(key, certificate.as_deref()),
        Proof::Secret(path) => {
            let path = file::locate(path);
            let text = file::read_private(&path, "secret")?;
            let secret = check_secret(&text)
                .map_err(|what| IdentityError::Secret { file: path.display().to_string(), what })?;
            of_secret(secret, side)
        }
    }
}

fn of_file(key: &Path, chain: Option<&Path>) -> Result<OwnKey, IdentityError> {
    let path = file::locate(key);
    let shown = path.display().to_string();
    let wrong = |why: String| IdentityError::Key {
        file: shown.clone(),
        why,
        remedy: "take a key that `sockmux-uring keygen` makes, or another PEM file with a private \
                 key (PKCS#8)",
    };
    let pem = file::read_private(&path, "key")?;
    let der = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| wrong(error.to_string()))?;
    let signing = signing_key(der).map_err(|error| wrong(error.to_string()))?;
    let Some(chain) = chain else {
        return self_signed(signing, &shown);
    };
    let chain_path = file::locate(chain);
    let chain_shown = chain_path.display().to_string();
    let unusable = |what: String| IdentityError::File {
        item: "cert",
        what: format!("{chain_shown}: {what}"),
        remedy: "name a PEM file with the certificate of the key, then those up to its authority"
            .to_owned(),
    };
    let pem = file::read(&chain_path, "cert")?;
    let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let certified = CertifiedKey::new(chain.map_err(|error| unusable(error.to_string()))?, signing);
    certified.keys_match().map_err(|error| {
        unusable(match error {
            rustls::Error::InconsistentKeys(_) => format!("it is not for the key in {shown}"),
            error => error.to_string(),
        })
    })?;
    let spki = certified.key.public_key().ok_or_else(|| wrong("no public key in it".to_owned()))?;
    let fingerprint = fingerprint(&spki);
    Ok(OwnKey { certified, fingerprint, only_peer: None })
}

fn self_signed(key: Arc<dyn SigningKey>, file: &str) -> Result<OwnKey, IdentityError> {
    let certificate = certificate::self_signed(&*key, file)?;
    let fingerprint =
        super::verifier::fingerprint_of(&certificate).map_err(|error| IdentityError::Key {
            file: file.to_owned(),
            why: error.to_string(),
            remedy: "take a key that `sockmux-uring keygen` makes",
        })?;
    let certified = CertifiedKey::new(vec![certificate], key);
    Ok(OwnKey { certified, fingerprint, only_peer: None })
}

fn signing_key(der: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, rustls::Error> {
    provider::provider().key_provider.load_private_key(der)
}

/// Of a SubjectPublicKeyInfo.
pub(super) fn fingerprint(spki: &SubjectPublicKeyInfoDer<'_>) -> Fingerprint {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, spki);
    // SHA-256 has as many bytes.
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    Fingerprint(bytes)
}

/// The private key of a seed.
pub(super) fn pkcs8(seed: &Seed) -> PrivatePkcs8KeyDer<'static> {
    let mut der = Vec::with_capacity(PKCS8_PREFIX.len() + seed.len());
    der.extend(PKCS8_PREFIX);
    der.extend(seed.iter());
    der.into()
}

/// The fingerprint of a seed's key.
pub(super) fn fingerprint_of_seed(seed: &Seed) -> Result<Fingerprint, IdentityError> {
    Ok(of_seed(seed)?.fingerprint)
}

fn of_seed(seed: &Seed) -> Result<OwnKey, IdentityError> {
    let signing = signing_key(pkcs8(seed).into()).map_err(|error| IdentityError::Crypto {
        what: "an Ed25519 key cannot be used",
        why: error.to_string(),
    })?;
    self_signed(signing, "the key")
}

/// The secret in the text of a file, if it is one that cannot be guessed.
pub(super) fn check_secret(text: &[u8]) -> Result<&[u8], String> {
    let secret = text.trim_ascii();
    if !secret.iter().all(u8::is_ascii_graphic) {
        return Err("it has blanks or other characters than letters, digits and signs".to_owned());
    }
    if secret.len() < SECRET_CHARS_MIN || secret.len() > SECRET_CHARS_MAX {
        return Err(format!("it has {} characters, and should have 43", secret.len()));
    }
    let mut seen = [false; 256];
    secret.iter().for_each(|&byte| seen[usize::from(byte)] = true);
    let distinct = seen.iter().filter(|seen| **seen).count();
    seen.zeroize();
    if distinct < SECRET_DISTINCT_MIN {
        return Err("it repeats the same few characters".to_owned());
    }
    Ok(secret)
}

/// The key of one side of a shared secret, and whose key the other side's has to be.
pub(super) fn of_secret(secret: &[u8], side: TlsSide) -> Result<OwnKey, IdentityError> {
    let (own, other) = match side {
        TlsSide::Dials => (TlsSide::Dials, TlsSide::Accepts),
        TlsSide::Accepts => (TlsSide::Accepts, TlsSide::Dials),
    };
    let only_peer = Some(fingerprint_of_seed(&derive(secret, other)?)?);
    Ok(OwnKey { only_peer, ..of_seed(&derive(secret, own)?)? })
}

/// A seed has 32 bytes.
struct SeedLength;

impl KeyType for SeedLength {
    fn len(&self) -> usize {
        32
    }
}

/// HKDF-SHA256 (RFC 5869): a seed for each side, so that neither end can be answered by a copy of
/// its own messages.
fn derive(secret: &[u8], side: TlsSide) -> Result<Seed, IdentityError> {
    let info: &[u8] = match side {
        TlsSide::Dials => b"sockmux secret 1 dials",
        TlsSide::Accepts => b"sockmux secret 1 listens",
    };
    let mut seed = Zeroizing::new([0; 32]);
    let prk = Salt::new(HKDF_SHA256, b"sockmux-uring").extract(secret);
    prk.expand(&[info], SeedLength)
        .and_then(|okm| okm.fill(&mut *seed))
        .map_err(|_| IdentityError::Crypto { what: "HKDF", why: "it failed".to_owned() })?;
    Ok(seed)
}
