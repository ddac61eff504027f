//! A secret that both ends share.

use sockmux_uring::cli::keygen::{Keygen, Made};
use sockmux_uring::identity::keygen;

use super::{Keys, meet, shake};

/// A generated secret, and its text.
fn secret() -> (Keys, String) {
    let keys = Keys::new();
    let keygen = Keygen { path: keys.path("secret").into(), what: Made::Secret };
    let made = keygen::make(&keygen).expect("a new secret");
    assert_eq!(made.fingerprint, None);
    let text = std::fs::read_to_string(keys.path("secret")).expect("a secret");
    assert_eq!(text.trim_end().len(), 43);
    assert!(!made.next.contains(text.trim_end()), "{}", made.next);
    (keys, text)
}

#[test]
fn the_same_secret_completes_and_one_character_less_does_not() {
    let (keys, text) = secret();
    let (dials, accepts) = (keys.dials("secret:@/secret"), keys.accepts("secret:@/secret"));
    let [receptor, connector] = meet(&dials, &accepts);
    assert_eq!(receptor.fingerprint, accepts.own_fingerprint());
    assert_eq!(connector.fingerprint, dials.own_fingerprint());
    // Each side has a key of its own, so that none can be answered by a copy of itself.
    assert_ne!(receptor.fingerprint, connector.fingerprint);

    keys.write_private("less", &text[..42]);
    let refusals = shake(keys.dials("secret:@/less").role(), accepts.role()).refusals();
    assert!(refusals[0].contains("the peer has another secret"), "{refusals:?}");
    // Without a line end it is the same.
    keys.write_private("bare", text.trim_end());
    meet(&keys.dials("secret:@/bare"), &accepts);
}

#[test]
fn what_can_be_guessed_is_refused_and_never_repeated() {
    let keys = Keys::new();
    for (text, wanted) in [
        ("hunter2", "it has 7 characters, and should have 43"),
        ("0123456789abcdef0123456789abcde", "it has 31 characters"),
        ("correct horse battery staple correct horse", "it has blanks"),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "it repeats the same few characters"),
        ("", "it has 0 characters"),
        ("größtesgeheimnisderweltgeschichte", "other characters than letters"),
    ] {
        keys.write_private("secret", text);
        let error = keys.load(&["-P1", "DEST=h:1"], "secret:@/secret").err().expect(text);
        let message = error.to_string();
        assert!(message.contains(wanted) && message.contains("keygen --secret"), "{message}");
        assert!(text.is_empty() || !message.contains(text), "{message}");
    }
    keys.write_private("secret", &"x".repeat(2000));
    assert!(keys.load(&["-P1", "DEST=h:1"], "secret:@/secret").is_err());
}
