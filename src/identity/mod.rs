//! Keys and identity: this end's key, and whose keys are let in.
//!
//! ```text
//! plan -> key file, or secret -> key and certificate -+
//!      -> peers, peers file, authority -> verifier ---+-> tls::settings
//! ```
//!
//! Files are read here, and random bytes drawn; nothing is logged, and no private key is shown.

mod certificate;
mod file;
mod key;
pub mod keygen;
mod known;
mod provider;
mod verifier;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use webpki::EndEntityCert;

use self::key::OwnKey;
use self::known::Known;
use self::verifier::{Anchors, Verifier};
use crate::cli::plan::{Authority, Encryption, KnownPeer, TlsSide};
use crate::limits::RECORD_BYTES;
use crate::tls::settings::{ALPN, Role, Settings};

/// Keys cannot be used. Layer: set-up; scope: the process.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be used.
    #[error("{}: {what}; {remedy}", named(item))]
    File {
        /// The item of `TLSCONF=` that names it.
        item: &'static str,
        /// The file, and the reason.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// A file has no key that can be used.
    #[error("TLSCONF=key: {file}: {why}; {remedy}")]
    Key {
        /// The file.
        file: String,
        /// The reason.
        why: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A file has no secret that can be used. The secret is not repeated.
    #[error(
        "TLSCONF=secret: the secret in {file} is refused: {what}; make one that cannot be guessed: \
         sockmux-uring keygen --secret"
    )]
    Secret {
        /// The file.
        file: String,
        /// The reason.
        what: String,
    },
    /// A name for certificates is none.
    #[error("TLSCONF=name:{name}: it is neither the name of a host nor an address; name one")]
    Name {
        /// The name.
        name: String,
    },
    /// Cryptography fails.
    #[error("{what}: {why}")]
    Crypto {
        /// What fails.
        what: &'static str,
        /// The reason.
        why: String,
    },
}

fn named(item: &str) -> String {
    match item {
        "keygen" => item.to_owned(),
        item => format!("TLSCONF={item}"),
    }
}

/// Reads the files that encryption needs.
///
/// # Errors
/// [`IdentityError`], naming the file and the remedy.
pub fn load(encryption: &Encryption) -> Result<Settings, IdentityError> {
    let Encryption { side, proof, peers, peers_file, authority, rekey_bytes, .. } = encryption;
    let provider = provider::provider();
    let OwnKey { certified, fingerprint, only_peer } = key::load(proof, *side)?;
    let mut pinned = peers.clone();
    pinned.extend(only_peer.map(|fingerprint| KnownPeer {
        name: None,
        fingerprint,
        options: Arc::default(),
    }));
    let verifier = Arc::new(Verifier {
        known: Known::new(pinned, peers_file.clone()),
        anchors: authority.as_ref().map(anchors).transpose()?,
        by_secret: only_peer.is_some(),
        side: *side,
        algorithms: provider.signature_verification_algorithms,
    });
    let own = Arc::new(SingleCertAndKey::from(certified));
    let failed = |error: rustls::Error| IdentityError::Crypto {
        what: "TLS cannot be set up",
        why: error.to_string(),
    };
    let role = match side {
        TlsSide::Dials => {
            let builder = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&TLS13])
                .map_err(failed)?;
            let mut config = builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
                .with_client_cert_resolver(own);
            config.resumption = Resumption::disabled();
            config.alpn_protocols = vec![ALPN.to_vec()];
            config.enable_secret_extraction = true;
            // The name is for servers of several certificates, and readable on the way.
            config.enable_sni = verifier.anchors.is_some();
            Role::Client { config: Arc::new(config), name: peer_name(&verifier)? }
        }
        TlsSide::Accepts => {
            let mut config = ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&TLS13])
                .map_err(failed)?
                .with_client_cert_verifier(Arc::clone(&verifier) as _)
                .with_cert_resolver(own);
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            config.alpn_protocols = vec![ALPN.to_vec()];
            config.enable_secret_extraction = true;
            Role::Server { config: Arc::new(config) }
        }
    };
    let settings = Settings::new(role, fingerprint.to_string(), verifier);
    Ok(match rekey_bytes {
        Some(bytes) => settings.with_records_per_key(bytes / RECORD_BYTES),
        None => settings,
    })
}

/// The name of the peer that this end dials. Where its key is known, its name is not compared.
fn peer_name(verifier: &Verifier) -> Result<ServerName<'static>, IdentityError> {
    let named = verifier.anchors.as_ref().and_then(|anchors| anchors.names.first().cloned());
    named.map_or_else(|| server_name("sockmux"), Ok)
}

fn server_name(name: &str) -> Result<ServerName<'static>, IdentityError> {
    ServerName::try_from(name.to_owned()).map_err(|_| IdentityError::Name { name: name.to_owned() })
}

fn anchors(authority: &Authority) -> Result<Anchors, IdentityError> {
    let (mut roots, mut certificates) = (Vec::new(), Vec::new());
    for name in &authority.certificates {
        let path: PathBuf = file::locate(name);
        let unusable = |why: String| IdentityError::File {
            item: "ca",
            what: format!("{}: {why}", path.display()),
            remedy: "name a PEM file with the certificates of the authority".to_owned(),
        };
        let pem = file::read(&path, "ca")?;
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            let anchor = webpki::anchor_from_trusted_cert(&certificate)
                .map_err(|error| unusable(error.to_string()))?;
            roots.push(anchor.to_owned());
            // Its dates are read in each handshake.
            EndEntityCert::try_from(&certificate).map_err(|error| unusable(error.to_string()))?;
            certificates.push(certificate);
        }
        if roots.len() == before {
            return Err(unusable("there is no certificate in it".to_owned()));
        }
    }
    let names = authority.names.iter().map(|name| server_name(name));
    Ok(Anchors { roots, certificates, names: names.collect::<Result<_, _>>()? })
}
