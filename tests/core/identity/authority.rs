//! Certificates of an authority.

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};

use super::{Keys, meet, shake};

/// An authority that signs certificates into the folder.
struct Authority<'k> {
    keys: &'k Keys,
    params: CertificateParams,
    issuer: Issuer<'static, KeyPair>,
}

impl<'k> Authority<'k> {
    /// Writes the authority's certificate as `name.pem`.
    fn new(keys: &'k Keys, name: &str) -> Authority<'k> {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let issuer = Issuer::new(params.clone(), key);
        let authority = Authority { keys, params, issuer };
        authority.is_dated(name, |_| {});
        authority
    }

    /// Writes its own certificate with other dates as `name.pem`.
    fn is_dated(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> String {
        let mut params = self.params.clone();
        change(&mut params);
        let pem = params.self_signed(self.issuer.key()).expect("a certificate").pem();
        self.keys.write(&format!("{name}.pem"), &pem);
        pem
    }

    /// Writes `name.key` and `name.pem`, for both sides of a handshake.
    fn signs(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        self.keys.write(&format!("{name}.pem"), &certificate.pem());
        self.keys.write_private(&format!("{name}.key"), &key.serialize_pem());
    }
}

/// The items for an end that shows a certificate and takes those of an authority.
fn with(own: &str, authority: &str) -> String {
    format!("key:@/{own}.key,cert:@/{own}.pem,ca:@/{authority}.pem")
}

#[test]
fn a_certificate_lets_in_and_names_the_peer() {
    let keys = Keys::new();
    let authority = Authority::new(&keys, "ca");
    authority.signs("hub.example", |_| {});
    authority.signs("spoke.example", |_| {});
    let accepts = keys.accepts(&with("hub.example", "ca"));
    let [hub, spoke] = meet(&keys.dials(&with("spoke.example", "ca")), &accepts);
    assert_eq!(hub.name.as_deref(), Some("hub.example"));
    assert_eq!(spoke.name.as_deref(), Some("spoke.example"));

    // A list of names narrows.
    let narrow =
        keys.accepts(&(with("hub.example", "ca") + ",name:other.example,name:spoke.example"));
    meet(&keys.dials(&with("spoke.example", "ca")), &narrow);
    let narrow = keys.accepts(&(with("hub.example", "ca") + ",name:other.example"));
    let refusals = shake(keys.dials(&with("spoke.example", "ca")).role(), narrow.role()).refusals();
    let wanted =
        "not valid for name \"other.example\"; certificate is only valid for spoke.example";
    assert!(refusals[1].contains(wanted), "{refusals:?}");
    assert!(refusals[0].contains("BadCertificate"), "{refusals:?}");

    // The dialling end compares the host that it dials.
    authority.signs("elsewhere.example", |_| {});
    let elsewhere = keys.accepts(&with("elsewhere.example", "ca"));
    let refusals =
        shake(keys.dials(&with("spoke.example", "ca")).role(), elsewhere.role()).refusals();
    assert!(refusals[0].contains("not valid for name"), "{refusals:?}");
}

#[test]
fn certificates_that_do_not_count_are_refused_by_the_reason() {
    let keys = Keys::new();
    let (authority, other) = (Authority::new(&keys, "ca"), Authority::new(&keys, "other"));
    authority.signs("hub.example", |_| {});
    let accepts = keys.accepts(&with("hub.example", "ca"));
    let refused = |own: &str| {
        let dials = keys.dials(&with(own, "ca"));
        shake(dials.role(), accepts.role()).refusals()
    };
    authority.signs("expired", |params| params.not_after = date_time_ymd(2001, 1, 1));
    let [dials, accepts_by] = refused("expired");
    assert!(accepts_by.contains("certificate expired"), "{accepts_by}");
    assert!(dials.contains("CertificateExpired"), "{dials}");

    authority.signs("early", |params| params.not_before = date_time_ymd(4000, 1, 1));
    assert!(refused("early")[1].contains("not valid yet"), "{:?}", refused("early"));

    authority.signs("server", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let refusals = refused("server");
    assert!(refusals[1].contains("is not one for clients"), "{refusals:?}");

    // Nothing is known of its key either.
    other.signs("foreign", |_| {});
    let refusals = refused("foreign");
    assert!(
        refusals[1].contains("is not known here; to let it in, add TLSCONF=peer:"),
        "{refusals:?}"
    );

    // A certificate for another key.
    authority.signs("leaf", |_| {});
    let leaf = std::fs::read_to_string(keys.path("leaf.pem")).expect("a certificate");
    keys.write("chain.pem", &format!("{leaf}{leaf}"));
    keys.make("plain.key");
    let mixed = "key:@/plain.key,cert:@/chain.pem,ca:@/ca.pem";
    let error = keys.load(&["-P1", "DEST=h:1"], mixed).err().expect("keys differ").to_string();
    assert!(error.contains("it is not for the key in"), "{error}");
}

/// What they sign may be in time and yet not count any more.
#[test]
fn an_authority_counts_as_long_as_its_own_certificate_does() {
    let keys = Keys::new();
    let authority = Authority::new(&keys, "ca");
    authority.signs("hub.example", |_| {});
    authority.signs("spoke.example", |_| {});
    let old = authority.is_dated("old", |params| params.not_after = date_time_ymd(2001, 1, 1));
    authority.is_dated("young", |params| params.not_before = date_time_ymd(4000, 1, 1));
    let end = |name: &str, authority: &str| with(&format!("{name}.example"), authority);
    for (ca, wanted) in [("old", "expired"), ("young", "is not valid yet")] {
        let (hub, spoke) = (keys.accepts(&end("hub", ca)), keys.dials(&end("spoke", "ca")));
        let [at_spoke, at_hub] = shake(spoke.role(), hub.role()).refusals();
        let wanted = format!("the certificate of the authority (TLSCONF=ca:) {wanted}");
        assert!(at_hub.contains(&wanted), "{at_hub}");
        assert!(at_spoke.contains("CertificateUnknown"), "{at_spoke}");
        let (hub, spoke) = (keys.accepts(&end("hub", "ca")), keys.dials(&end("spoke", ca)));
        let [at_spoke, at_hub] = shake(spoke.role(), hub.role()).refusals();
        assert!(at_spoke.contains(&wanted), "{at_spoke}");
        assert!(at_hub.contains("CertificateUnknown"), "{at_hub}");
    }
    // The one that replaces it stands beside it, of the same key.
    let now = std::fs::read_to_string(keys.path("ca.pem")).expect("a certificate");
    for both in [[&old, &now], [&now, &old]] {
        keys.write("both.pem", &both.map(String::as_str).concat());
        meet(&keys.dials(&end("spoke", "both")), &keys.accepts(&end("hub", "both")));
    }
}

/// Validity dates are of the authority's; a known key counts by itself.
#[test]
fn a_known_key_counts_whatever_its_certificate_says() {
    let keys = Keys::new();
    let authority = Authority::new(&keys, "ca");
    authority.signs("hub.example", |_| {});
    authority.signs("expired", |params| params.not_after = date_time_ymd(2001, 1, 1));
    let dials = keys.dials(&with("expired", "ca"));
    let pinned = format!("{},peer:old={}", with("hub.example", "ca"), dials.own_fingerprint());
    let [_, old] = meet(&dials, &keys.accepts(&pinned));
    assert_eq!(old.name.as_deref(), Some("old"));
}

#[test]
fn files_without_certificates_are_named() {
    let keys = Keys::new();
    keys.make("x.key");
    keys.write("empty.pem", "# nothing\n");
    keys.write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    for (file, wanted) in [
        ("empty.pem", "there is no certificate in it"),
        ("broken.pem", "broken.pem"),
        ("none.pem", "cannot read"),
    ] {
        let conf = format!("key:@/x.key,ca:@/{file}");
        let message = keys.load(&["-P1", "DEST=h:1"], &conf).err().expect(file).to_string();
        assert!(message.starts_with("TLSCONF=ca: ") && message.contains(wanted), "{message}");
    }
    let message = keys.load(&["-P1", "DEST=h:1"], "key:@/x.key,cert:@/empty.pem,ca:@/empty.pem");
    let message = message.err().expect("no certificate").to_string();
    assert!(message.starts_with("TLSCONF=cert: "), "{message}");
}
