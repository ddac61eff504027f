//! Fingerprints of public keys, as ssh writes them.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::error::{Problem, quoted};

/// The text in front of the digest.
const PREFIX: &str = "SHA256:";

/// The SHA-256 of a public key (its SubjectPublicKeyInfo, RFC 5280).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Reads `SHA256:base64`.
    ///
    /// # Errors
    /// Any other text.
    pub(crate) fn parse(text: &str) -> Result<Fingerprint, Problem> {
        let digest = text.strip_prefix(PREFIX).map(|digest| digest.trim_end_matches('='));
        let bytes = digest.and_then(|digest| STANDARD_NO_PAD.decode(digest).ok());
        match bytes.and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => Ok(Fingerprint(bytes)),
            None => Err(Problem::new(
                format!("{} is not a fingerprint", quoted(text)),
                "write SHA256: and 43 characters, as `sockmux-uring keygen` prints it at the other \
                 end",
            )),
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD_NO_PAD.encode(self.0))
    }
}

/// As it is displayed.
impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read() {
        let text = "SHA256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
        let fingerprint = Fingerprint::parse(text).unwrap();
        assert_eq!(fingerprint.0, std::array::from_fn(|at| at as u8));
        assert_eq!(fingerprint.to_string(), text);
        assert_eq!(Fingerprint::parse(&format!("{text}=")), Ok(fingerprint));
    }

    #[test]
    fn other_texts_are_refused() {
        let text = "SHA256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
        for wrong in
            [&text[..text.len() - 1], &text[7..], "SHA256:", "MD5:00:11", &text.replace('A', "-")]
        {
            let message = Fingerprint::parse(wrong).unwrap_err().to_string();
            assert!(message.contains("is not a fingerprint; write SHA256:"), "{message}");
        }
    }
}
