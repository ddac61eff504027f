//! Keys that are known by their fingerprints.

use std::sync::Arc;

use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CipherSuite, NamedGroup, ProtocolVersion};
use sockmux_uring::cli::keygen::{Keygen, Made};
use sockmux_uring::identity::keygen;
use sockmux_uring::tls::settings::Role;

use super::{Keys, exists, meet, shake};

const NO_KEY: &str = "the peer does not have the key of the certificate that it shows";

/// Two ends that know each other.
fn pair() -> (Keys, String, String) {
    let keys = Keys::new();
    let (x, y) = (keys.make("x.key"), keys.make("y.key"));
    (keys, format!("key:@/x.key,peer:hostY={y}"), format!("key:@/y.key,peer:{x}"))
}

#[test]
fn two_that_know_each_other_meet() {
    let (keys, x, y) = pair();
    let (x, y) = (keys.accepts(&x), keys.dials(&y));
    let [receptor, connector] = meet(&y, &x);
    assert_eq!((receptor.name, &*receptor.fingerprint), (None, x.own_fingerprint()));
    assert_eq!(connector.to_string(), format!("hostY ({})", y.own_fingerprint()));
    assert_eq!(connector.name.as_deref(), Some("hostY"));
}

#[test]
fn the_newest_protocol_with_the_cheapest_cipher_and_the_strongest_exchange() {
    let (keys, x, y) = pair();
    let handshake = shake(keys.dials(&y).role(), keys.accepts(&x).role());
    for end in &handshake.ends {
        assert_eq!(end.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        let exchange = end.negotiated_key_exchange_group().expect("one").name();
        assert_eq!(exchange, NamedGroup::X25519MLKEM768);
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("aes") {
            let suite = end.negotiated_cipher_suite().expect("one").suite();
            assert_eq!(suite, CipherSuite::TLS13_AES_128_GCM_SHA256);
        }
    }
}

#[test]
fn a_stranger_is_refused_with_the_words_that_let_it_in() {
    let (keys, x, y) = pair();
    let stranger = keys.make("z.key");
    let conf = y.replace("y.key", "z.key");
    let [dials, accepts] = shake(keys.dials(&conf).role(), keys.accepts(&x).role()).refusals();
    assert!(accepts.contains(&format!("the peer's key {stranger} is not known here")), "{accepts}");
    assert!(accepts.contains(&format!("add TLSCONF=peer:{stranger}")), "{accepts}");
    assert!(dials.contains("CertificateUnknown"), "{dials}");

    let conf = x.replace("x.key", "z.key");
    let [dials, accepts] = shake(keys.dials(&y).role(), keys.accepts(&conf).role()).refusals();
    assert!(dials.contains(&format!("add TLSCONF=peer:{stranger}")), "{dials}");
    assert!(accepts.contains("CertificateUnknown"), "{accepts}");
}

/// A certificate is public: whoever shows it has to sign with its key.
#[test]
fn a_known_certificate_without_its_key_is_refused() {
    let (keys, x, y) = pair();
    let (x, y) = (keys.accepts(&x), keys.dials(&y));
    let honest = shake(y.role(), x.role());
    let [of_x, of_y] = [0, 1].map(|end: usize| {
        let chain = honest.ends[end].peer_certificates().expect("both show one");
        chain.iter().map(|certificate| certificate.clone().into_owned()).collect::<Vec<_>>()
    });
    keys.make("thief.key");
    let thief = std::fs::read(keys.path("thief.key")).expect("a key");
    let stolen = |chain| {
        use rustls::pki_types::pem::PemObject;
        let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(&thief).expect("a key");
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = provider.key_provider.load_private_key(key).expect("a key");
        Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)))
    };
    let Role::Client { config, name } = y.role().clone() else { panic!("y dials") };
    let mut config = (*config).clone();
    config.client_auth_cert_resolver = stolen(of_y);
    let thief = Role::Client { config: Arc::new(config), name };
    let refusals = shake(&thief, x.role()).refusals();
    assert!(refusals[1].contains(NO_KEY), "{refusals:?}");

    let Role::Server { config } = x.role().clone() else { panic!("x accepts") };
    let mut config = (*config).clone();
    config.cert_resolver = stolen(of_x);
    let refusals = shake(y.role(), &Role::Server { config: Arc::new(config) }).refusals();
    assert!(refusals[0].contains(NO_KEY), "{refusals:?}");
}

#[test]
fn a_peer_without_a_certificate_is_refused() {
    let (keys, x, y) = pair();
    let (x, y) = (keys.accepts(&x), keys.dials(&y));
    let Role::Client { config, name } = y.role().clone() else { panic!("y dials") };
    let mut config = (*config).clone();
    #[derive(Debug)]
    struct Nothing;
    impl rustls::client::ResolvesClientCert for Nothing {
        fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            None
        }
        fn has_certs(&self) -> bool {
            false
        }
    }
    config.client_auth_cert_resolver = Arc::new(Nothing);
    let silent = Role::Client { config: Arc::new(config), name };
    let refusals = shake(&silent, x.role()).refusals();
    assert!(refusals[1].contains("peer sent no certificates"), "{refusals:?}");
}

#[test]
fn a_key_is_made_once() {
    let keys = Keys::new();
    let fingerprint = keys.make("x.key");
    let before = std::fs::read(keys.path("x.key")).expect("a key");
    let keygen = Keygen { path: keys.path("x.key").into(), what: Made::Key };
    let message = keygen::make(&keygen).expect_err("it is there").to_string();
    assert!(message.contains(&fingerprint) && message.contains("is there already"), "{message}");
    assert_eq!(std::fs::read(keys.path("x.key")).expect("a key"), before);
    let keygen = Keygen { path: keys.path("none/x.key").into(), what: Made::Key };
    let message = keygen::make(&keygen).expect_err("no folder").to_string();
    assert!(message.contains("cannot make"), "{message}");
    assert_ne!(keys.make("y.key"), fingerprint);
}

#[test]
fn files_that_have_no_usable_key_are_named() {
    let keys = Keys::new();
    keys.write_private("text.key", "nothing");
    let load = |conf: &str| match keys.load(&["-P1", "DEST=h:1"], conf) {
        Ok(_) => panic!("{conf} is taken"),
        Err(error) => error.to_string(),
    };
    let fingerprint = keys.make("x.key");
    let peer = format!("peer:{fingerprint}");
    let message = load(&format!("key:@/text.key,{peer}"));
    assert!(message.contains("text.key") && message.contains("sockmux-uring keygen"), "{message}");
    let message = load(&format!("key:@/none.key,{peer}"));
    assert!(message.contains("none.key") && message.contains("sockmux-uring keygen"), "{message}");
    assert!(!exists(&keys.path("none.key")));
    let rsa_like = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    keys.write_private("ec.key", &rsa_like.serialize_pem());
    let message = load(&format!("key:@/ec.key,{peer}"));
    assert!(message.contains("it is no Ed25519 key, and no certificate"), "{message}");
}
