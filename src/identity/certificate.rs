//! The certificate around a key that is known by its fingerprint: fields of fixed values, since
//! nobody reads any but the key, and a signature, since X.509 has one.

use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;
use rustls::sign::SigningKey;

use super::IdentityError;

/// The part of an Ed25519 SubjectPublicKeyInfo before the key's 32 bytes (RFC 8410 section 4).
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// AlgorithmIdentifier of Ed25519 (RFC 8410 section 3).
const ED25519: [u8; 7] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];

/// Version 3, and a serial number.
const VERSION_AND_SERIAL: [u8; 8] = [0xa0, 0x03, 0x02, 0x01, 0x02, 0x02, 0x01, 0x01];

/// Issuer and subject: the common name `sockmux`.
const NAME: &[u8] = b"\x30\x12\x31\x10\x30\x0e\x06\x03\x55\x04\x03\x0c\x07sockmux";

/// From 1970 to no well-defined end (RFC 5280 section 4.1.2.5): a key that is known by its
/// fingerprint counts until it is taken out of the list.
const VALIDITY: &[u8] = b"\x30\x20\x17\x0d700101000000Z\x18\x0f99991231235959Z";

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// A certificate of the key, signed by itself. The same key always has the same one.
///
/// # Errors
/// Keys of another kind than Ed25519.
pub(super) fn self_signed(
    key: &dyn SigningKey,
    file: &str,
) -> Result<CertificateDer<'static>, IdentityError> {
    let not_ed25519 = || IdentityError::Key {
        file: file.to_owned(),
        why: "it is no Ed25519 key, and no certificate is given for it".to_owned(),
        remedy: "add TLSCONF=cert:FILE, or take a key that `sockmux-uring keygen` makes",
    };
    let spki = key.public_key().ok_or_else(not_ed25519)?;
    let signer = key.choose_scheme(&[SignatureScheme::ED25519]).ok_or_else(not_ed25519)?;
    if !spki.starts_with(&SPKI_PREFIX) {
        return Err(not_ed25519());
    }
    let fields = [&VERSION_AND_SERIAL[..], &ED25519, NAME, VALIDITY, NAME, &spki];
    let to_be_signed = tagged(SEQUENCE, &fields.concat());
    let signature = signer.sign(&to_be_signed).map_err(|_| not_ed25519())?;
    // A bit string begins with the number of unused bits.
    let signature = tagged(BIT_STRING, &[&[0][..], &signature].concat());
    Ok(tagged(SEQUENCE, &[&to_be_signed[..], &ED25519, &signature].concat()).into())
}

/// Tag, length and content in DER. The certificate has a few hundred bytes.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match u8::try_from(content.len()) {
        Ok(length @ ..0x80) => bytes.push(length),
        Ok(length) => bytes.extend([0x81, length]),
        Err(_) => {
            bytes.push(0x82);
            bytes.extend(u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    bytes.extend(content);
    bytes
}
