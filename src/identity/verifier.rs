//! Who may come: one verifier for both sides of the handshake. A peer is let in by its known key,
//! else by a certificate of the authority; in either case it has to prove by a signature over this
//! very handshake that it has the key.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::key;
use super::known::Known;
use crate::cli::plan::{Fingerprint, TlsSide};
use crate::tls::dates;
use crate::tls::settings::{Peer, Peers};

/// Why a key is not let in, as a sentence for the log.
#[derive(Debug)]
pub(super) struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// An authority, and whom it may certify.
pub(super) struct Anchors {
    pub(super) roots: Vec<TrustAnchor<'static>>,
    /// The certificates of these, in the same order: an anchor has no dates.
    pub(super) certificates: Vec<CertificateDer<'static>>,
    /// The certificate has to be valid for one of these. Empty: for any.
    pub(super) names: Vec<ServerName<'static>>,
}

/// Decides about peers.
pub(super) struct Verifier {
    pub(super) known: Known,
    pub(super) anchors: Option<Anchors>,
    /// This end derives both keys from a secret.
    pub(super) by_secret: bool,
    /// The side of this end; the peer's certificate is for the other one.
    pub(super) side: TlsSide,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

/// Without keys, which are public, and long.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("side", &self.side).finish_non_exhaustive()
    }
}

/// The fingerprint of the key in a certificate.
pub(super) fn fingerprint_of(certificate: &CertificateDer<'_>) -> Result<Fingerprint, Error> {
    Ok(key::fingerprint(&parse(certificate)?.subject_public_key_info()))
}

fn parse<'c>(certificate: &'c CertificateDer<'c>) -> Result<EndEntityCert<'c>, Error> {
    EndEntityCert::try_from(certificate).map_err(|_| CertificateError::BadEncoding.into())
}

impl Verifier {
    /// Whether the holder of this certificate's key may come. That the peer is its holder is checked
    /// by its signature.
    fn admit(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let certificate = parse(end_entity)?;
        let fingerprint = key::fingerprint(&certificate.subject_public_key_info());
        if self.known.find(fingerprint).is_some() {
            return Ok(());
        }
        let Some(anchors) = &self.anchors else { return Err(self.unknown(fingerprint)) };
        let usage = match self.side {
            TlsSide::Dials => KeyUsage::server_auth(),
            TlsSide::Accepts => KeyUsage::client_auth(),
        };
        let is_late = Cell::new(false);
        let is_in_time = |path: &VerifiedPath<'_>| {
            let result = self.is_in_time(anchors, path.anchor(), now);
            is_late.set(result.is_err());
            result
        };
        let path = certificate.verify_for_usage(
            self.algorithms.all,
            &anchors.roots,
            intermediates,
            now,
            usage,
            None,
            Some(&is_in_time),
        );
        match path.map(drop) {
            Err(webpki::Error::UnknownIssuer) => Err(self.unknown(fingerprint)),
            Err(error) if is_late.get() => Err(of_authority(error).into()),
            Err(error) => Err(self.certificate_error(error).into()),
            Ok(()) => is_for(&certificate, &anchors.names),
        }
    }

    /// Whether the authority's own certificate counts now, which is not asked of an anchor. Of a
    /// certificate the dates are judged first; that this one is not a peer's does not matter.
    fn is_in_time(
        &self,
        anchors: &Anchors,
        anchor: &TrustAnchor<'_>,
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let is_it = |root: &TrustAnchor<'_>| std::ptr::eq(root, anchor);
        let at = anchors.roots.iter().position(is_it).ok_or(webpki::Error::UnknownIssuer)?;
        let certificate = EndEntityCert::try_from(&anchors.certificates[at])?;
        let usage = KeyUsage::server_auth();
        match certificate.verify_for_usage(self.algorithms.all, &[], &[], now, usage, None, None) {
            Err(
                error @ (webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. }),
            ) => Err(error),
            _ => Ok(()),
        }
    }

    fn unknown(&self, fingerprint: Fingerprint) -> Error {
        let sentence = match self.by_secret {
            true => "the peer has another secret: the files of TLSCONF=secret: differ".to_owned(),
            false => {
                let way_in = self.known.way_in(fingerprint);
                format!("the peer's key {fingerprint} is not known here; {way_in}")
            }
        };
        refused(sentence).into()
    }

    /// Those that have an alert of their own, so that the peer is told which.
    fn certificate_error(&self, error: webpki::Error) -> CertificateError {
        use webpki::Error as E;
        match error {
            E::CertExpired { time, not_after } => {
                CertificateError::ExpiredContext { time, not_after }
            }
            E::CertNotValidYet { time, not_before } => {
                CertificateError::NotValidYetContext { time, not_before }
            }
            E::RequiredEkuNotFoundContext(_) => refused(match self.side {
                TlsSide::Dials => "the peer's certificate is not one for servers",
                TlsSide::Accepts => "the peer's certificate is not one for clients",
            }),
            error => refused(format!("the peer's certificate does not count: {error}")),
        }
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let valid = verify_tls13_signature(message, certificate, signature, &self.algorithms);
        // Whatever the reason, it is no proof.
        let reason = "the peer does not have the key of the certificate that it shows";
        valid.map_err(|_| refused(reason).into())
    }
}

/// The peer is not to blame, so it is not told that its own certificate has expired.
fn of_authority(error: webpki::Error) -> CertificateError {
    const CERTIFICATE: &str = "the certificate of the authority (TLSCONF=ca:)";
    const CLOCK: &str = "by the clock of this host";
    refused(match error {
        webpki::Error::CertExpired { time, not_after } => {
            let ago = dates::between(not_after, time);
            format!("{CERTIFICATE} expired {ago} ago {CLOCK}: name the one that replaces it")
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            let left = dates::between(time, not_before);
            format!("{CERTIFICATE} is not valid yet, for another {left} {CLOCK}")
        }
        error => format!("{CERTIFICATE} does not count: {error}"),
    })
}

fn refused(sentence: impl Into<String>) -> CertificateError {
    CertificateError::Other(OtherError(Arc::new(Refused(sentence.into()))))
}

/// Whether a certificate is for one of these names, if there are any.
fn is_for(certificate: &EndEntityCert<'_>, names: &[ServerName<'static>]) -> Result<(), Error> {
    let is_for = |name| certificate.verify_is_valid_for_subject_name(name).is_ok();
    match names.first() {
        Some(first) if !names.iter().any(is_for) => {
            let presented = certificate.valid_dns_names().map(str::to_owned).collect();
            let expected = first.clone();
            Err(CertificateError::NotValidForNameContext { expected, presented }.into())
        }
        _ => Ok(()),
    }
}

/// The name of a peer by its certificate: one of those that are let in, else the first that there is.
fn name_in(certificate: &EndEntityCert<'_>, names: &[ServerName<'_>]) -> Option<String> {
    let is_for =
        |name: &&ServerName<'_>| certificate.verify_is_valid_for_subject_name(name).is_ok();
    match names.iter().find(is_for) {
        Some(name) => Some(name.to_str().into_owned()),
        None => certificate.valid_dns_names().next().map(str::to_owned),
    }
}

impl Peers for Verifier {
    fn has_file(&self) -> bool {
        self.known.has_file()
    }

    fn look(&self) {
        self.known.look();
    }

    fn look_is_late(&self) {
        self.known.look_is_late();
    }

    fn identify(&self, chain: &[CertificateDer<'_>]) -> Result<Peer, String> {
        let certificate = chain.first().ok_or("the peer has shown no certificate")?;
        let certificate = parse(certificate).map_err(|error| error.to_string())?;
        let fingerprint = key::fingerprint(&certificate.subject_public_key_info());
        let (name, options) = match self.known.find(fingerprint) {
            Some(peer) => (peer.name, peer.options),
            None => match &self.anchors {
                Some(anchors) => (name_in(&certificate, &anchors.names), Arc::default()),
                None => return Err(format!("the peer's key {fingerprint} is not known any more")),
            },
        };
        Ok(Peer { fingerprint: fingerprint.to_string(), name, options })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        // Compared with the names of the plan, of which it is the first.
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.admit(end_entity, intermediates, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    /// None: the peer has one key to show.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.admit(end_entity, intermediates, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
