//! Why an encrypted link ends.

use rustls::AlertDescription;

use crate::tls::record::RecordError;

/// Ends the link. Layer: TLS; scope: the link.
#[derive(Debug, thiserror::Error)]
pub(in crate::worker::stream::tunnel) enum TlsError {
    /// Caused by the peer, or by what this end makes of its key.
    #[error("{0}")]
    Handshake(rustls::Error),
    /// Caused by the peer.
    #[error("the handshake took more than {secs} s")]
    Timeout {
        /// Its time.
        secs: u64,
    },
    /// Caused by the peer, or by one of the two command lines.
    #[error(
        "nothing of TLS came from the peer in {secs} s: one end begins the handshake (STLS=fsv), the \
         other one answers it (STLS=fcl)"
    )]
    Unheard {
        /// The time that it had.
        secs: u64,
    },
    /// Caused by the peer, or by the command line here.
    #[error(
        "the peer speaks plaintext, and this end is encrypted: give the peer STLS= and TLSCONF=, \
         or this end neither"
    )]
    Plaintext,
    /// Caused by the peer, which has named none or another one.
    #[error("the peer's TLS is for something else: it has not agreed to the protocol sockmux")]
    OtherProtocol,
    /// Caused by this end, whose list of peers has changed.
    #[error("{0}")]
    NotKnown(String),
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl TlsError {
    /// What the library says of a handshake.
    pub(super) fn of_handshake(error: rustls::Error) -> TlsError {
        match error {
            rustls::Error::NoApplicationProtocol => TlsError::OtherProtocol,
            error => TlsError::Handshake(error),
        }
    }

    /// What the peer is told, where records can be sealed. `None`: it knows, or was told in plaintext.
    pub(super) fn alert(&self) -> Option<AlertDescription> {
        match self {
            TlsError::Record(error) => error.alert(),
            TlsError::NotKnown(_) => Some(AlertDescription::AccessDenied),
            TlsError::OtherProtocol => Some(AlertDescription::NoApplicationProtocol),
            // Those of a handshake are in the outbox already.
            TlsError::Handshake(_)
            | TlsError::Timeout { .. }
            | TlsError::Unheard { .. }
            | TlsError::Plaintext => None,
        }
    }
}
