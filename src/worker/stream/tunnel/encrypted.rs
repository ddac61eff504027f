//! Tunnels over encrypted links: [`super::tls`] is the transform between session and link.
//! [`super::link_read`] and [`super::link_write`] call this module for such lanes, [`super::serial`] for
//! serial lines.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, HandshakeType, OtherError};
use tracing::debug;

use crate::cli::plan::Proof;
use crate::io::driver::{Driver, Gather};
use crate::io::lookout::Lookout;
use crate::tls::dates;
use crate::tls::record::RecordError;
use crate::tls::settings::Settings;
use crate::worker::context::Cx;
use crate::worker::stream::tunnel::tls::{Step, Tls, TlsError};
use crate::worker::stream::{Flows, Streams};
use crate::worker::table::Key;

impl Streams {
    /// Passes received data to the session, as far as other planes let it.
    pub(in crate::worker::stream) fn take_from_tls<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        key: Key,
    ) {
        loop {
            let Some(tunnel) = self.tunnels.get_mut(key) else { return };
            if tunnel.is_held_up() {
                return;
            }
            let (Some(tls), Some(settings)) =
                (tunnel.lane.transform.tls_mut(), cx.encryption.as_deref())
            else {
                return;
            };
            if let Some(chunk) = tls.take_opened() {
                if !self.receive_chunk(cx, flows, key, chunk) {
                    return;
                }
                continue;
            }
            match tls.step(settings, &mut cx.buffers) {
                Ok(Step::Again) => {}
                Ok(Step::Waits) if tunnel.lane.input_ended => return self.link_ended(cx, key),
                Ok(Step::Waits) => return,
                Ok(Step::NoBuffer) => return self.tunnels.wait_for_pool(cx, key),
                Ok(Step::Looks) => return self.await_look(cx, key),
                Ok(Step::Secured) => {
                    debug!(tunnel = key.number(), peer = %tunnel.lane.link, "handshake done");
                }
                Ok(Step::Closed) => return self.link_ended(cx, key),
                Err(error) => return self.tls_failed(cx, key, &error),
            }
        }
    }

    /// The peers file has to be looked at before the peer's key is judged: asks for that, once, and
    /// does not read the link meanwhile.
    fn await_look<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key) {
        let Some(tls) = self.tls_mut(key) else { return };
        if !tls.look_mut().begin(cx.now) {
            return;
        }
        let nobody = || io::Error::other("there is nobody to look");
        match cx.lookout.as_mut().ok_or_else(nobody).and_then(Lookout::ask) {
            Ok(number) => {
                self.tunnels.lookers.insert(key, number);
                if let Some(tunnel) = self.tunnels.get_mut(key) {
                    tunnel.lane.reading.cancel(&mut cx.driver);
                }
            }
            Err(error) => {
                debug!(tunnel = key.number(), %error, "cannot look at the peers file");
                tls.look_mut().end(false);
                self.tunnels.mark(key);
            }
        }
    }

    /// A look at the peers file is over: who has waited for it goes on when tunnels are flushed.
    pub(in crate::worker) fn peers_looked_at(&mut self, ended: u64) {
        while let Some((&key, &number)) = self.tunnels.lookers.front()
            && number <= ended
        {
            self.tunnels.lookers.pop_front();
            if let Some(tls) = self.tls_mut(key) {
                tls.look_mut().end(true);
            }
            self.tunnels.mark(key);
        }
    }

    /// Seals the next batch of frames; also returns whether it contains large runs of datagrams.
    /// Before them comes what TLS itself has to send.
    pub(in crate::worker::stream) fn sealed_batch<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        flows: &mut impl Flows,
        key: Key,
    ) -> (Box<Gather>, bool) {
        let (mut sealed, mut has_runs) = (cx.buffers.take_gather(), false);
        let Some(tls) = self.tls_mut(key) else { return (sealed, false) };
        if tls.write_control(&mut cx.buffers, &mut sealed) && tls.takes_frames() {
            let mut plain = match tls.unsealed.take() {
                Some(rest) => rest,
                None => {
                    let (batch, of_batch) = self.make_batch(cx, flows, key);
                    has_runs = of_batch;
                    batch
                }
            };
            let Some(tls) = self.tls_mut(key) else { return (sealed, false) };
            let result = tls.seal(&mut cx.buffers, &mut plain, &mut sealed);
            if plain.is_empty() {
                cx.buffers.give_back(plain);
            } else {
                tls.unsealed = Some(plain);
            }
            if let Err(error) = result {
                sealed.clear();
                self.tls_failed(cx, key, &error);
                return (sealed, false);
            }
        }
        if sealed.is_empty() && self.tls_mut(key).is_some_and(|tls| !tls.is_settled()) {
            self.tunnels.wait_for_pool(cx, key);
        }
        (sealed, has_runs)
    }

    fn tls_mut(&mut self, key: Key) -> Option<&mut Tls> {
        self.tunnels.get_mut(key)?.lane.transform.tls_mut()
    }

    /// Ends a tunnel whose encryption has failed, and tells the peer why.
    fn tls_failed<D: Driver>(&mut self, cx: &mut Cx<D>, key: Key, error: &TlsError) {
        if let Some(tls) = self.tls_mut(key) {
            tls.say_end(Some(error));
        }
        let plan = cx.plan.encryption.as_ref();
        let by_secret = plan.is_some_and(|plan| matches!(plan.proof, Proof::Secret(_)));
        let own = cx.encryption.as_deref().map_or("", Settings::own_fingerprint);
        let reason = explain(error, (!by_secret).then_some(own));
        self.drop_tunnel(cx, key, &reason);
    }
}

/// The reason shown to the user. `own_key`: the fingerprint of this end's key, unless that is from a secret.
fn explain(error: &TlsError, own_key: Option<&str>) -> String {
    match error {
        TlsError::Handshake(Error::AlertReceived(alert))
        | TlsError::Record(RecordError::Alert(alert)) => explain_alert(*alert, own_key),
        TlsError::Handshake(Error::InvalidCertificate(why)) => match why {
            // The verifier's own words.
            CertificateError::Other(OtherError(reason)) => reason.to_string(),
            CertificateError::ExpiredContext { time, not_after } => format!(
                "{PEERS_CERTIFICATE} expired {} ago {CLOCK}: the peer needs a new one",
                dates::between(*not_after, *time)
            ),
            CertificateError::NotValidYetContext { time, not_before } => format!(
                "{PEERS_CERTIFICATE} is not valid yet, for another {} {CLOCK}",
                dates::between(*time, *not_before)
            ),
            why => format!("TLS handshake: {}", Error::InvalidCertificate(why.clone())),
        },
        TlsError::Handshake(Error::NoCertificatesPresented) => {
            String::from("the peer showed no certificate, so it has no key that could be let in")
        }
        TlsError::Handshake(Error::DecryptError) => String::from(
            "what the peer sent cannot be read with the keys of this handshake: it was changed on \
             the way, or is another handshake's, played again",
        ),
        TlsError::Handshake(Error::InappropriateHandshakeMessage {
            got_type: HandshakeType::ClientHello,
            ..
        }) => String::from(
            "the peer begins the TLS handshake, too: one end has STLS=fsv, the other STLS=fcl",
        ),
        TlsError::Handshake(Error::PeerIncompatible(what)) => format!(
            "the peer's TLS has too little in common with that of this end, which is TLS 1.3 alone \
             ({what:?})"
        ),
        TlsError::Handshake(error) => format!("TLS handshake: {error}"),
        error => error.to_string(),
    }
}

const PEERS_CERTIFICATE: &str = "the peer's certificate, or one between it and its authority,";
const CLOCK: &str = "by the clock of this host";

/// The reason where the peer has said why.
fn explain_alert(alert: AlertDescription, own_key: Option<&str>) -> String {
    match alert {
        AlertDescription::CertificateExpired => format!(
            "the peer refuses the certificate of this end, which has expired by the peer's clock: \
             this end needs a new one (TLS alert {alert:?})"
        ),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRequired
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => match own_key {
            Some(own) => format!(
                "the peer does not let in the key of this end, {own}: its log says how it would \
                 (TLS alert {alert:?})"
            ),
            None => format!(
                "the peer has another secret: the files of TLSCONF=secret: differ (TLS alert \
                 {alert:?})"
            ),
        },
        AlertDescription::NoApplicationProtocol => {
            String::from("the peer's TLS is for something else than sockmux")
        }
        AlertDescription::UnexpectedMessage => String::from(
            "the peer did not understand this end's TLS (alert UnexpectedMessage): does it begin \
             the handshake too? One end has STLS=fsv, the other STLS=fcl",
        ),
        AlertDescription::BadRecordMac => String::from(
            "the peer cannot read what this end sent (TLS alert BadRecordMac): it was changed on the way",
        ),
        _ => format!("the peer ended TLS (alert {alert:?})"),
    }
}
