//! The peers file counts as it is when a peer comes.

use sockmux_uring::tls::settings::Settings;

use super::{Keys, meet, shake};

#[test]
fn lines_that_are_added_and_taken_out_count_at_the_next_handshake() {
    let keys = Keys::new();
    let (x, y) = (keys.make("x.key"), keys.make("y.key"));
    keys.write("peers", "# nobody yet\n");
    let accepts = keys.accepts("key:@/x.key,peers:@/peers");
    let dials = keys.dials(&format!("key:@/y.key,peer:hub={x}"));
    let shake = |dials: &Settings| {
        accepts.peers().look();
        shake(dials.role(), accepts.role())
    };
    let meet = || {
        accepts.peers().look();
        meet(&dials, &accepts)
    };
    let refused = || shake(&dials).refusals()[1].clone();
    let line = refused();
    let path = keys.path("peers");
    assert!(line.contains(&format!("add this line to {path}: NAME {y}")), "{line}");

    keys.write("peers", &format!("hostY {y} listen=8000-8100 # added\n"));
    let [hub, connector] = meet();
    assert_eq!((hub.name.as_deref(), connector.name.as_deref()), (Some("hub"), Some("hostY")));
    let listen = [hub, connector].map(|peer| peer.options.listen.to_string());
    assert_eq!(listen, ["", "8000-8100"], "a key of the command line has no options");

    // Somebody is editing it: who was known goes on to be, and a stranger's line says why.
    keys.write("peers", "hostY SHA256:half\n");
    meet();
    keys.make("z.key");
    let stranger = keys.dials(&format!("key:@/z.key,peer:hub={x}"));
    let line = shake(&stranger).refusals()[1].clone();
    assert!(line.contains("cannot be read: line 1: `SHA256:half` is not a fingerprint"), "{line}");

    keys.write("peers", "# nobody any more\n");
    assert!(refused().contains("is not known here"));
    keys.write("peers", &format!("hostY {y}\n"));
    let handshake = shake(&dials);
    std::fs::remove_file(keys.path("peers")).expect("the file");
    assert!(refused().contains("is not known here"));
    // It went between the signature and the question.
    let chain = handshake.ends[1].peer_certificates().expect("one");
    let gone = accepts.peer(chain).expect_err("nobody is known");
    assert!(gone.contains(&y) && gone.contains("not known any more"), "{gone}");
}

/// Who knows what it says now? Keys of the command line count as ever.
#[test]
fn a_file_that_is_not_looked_at_in_time_lets_nobody_in_until_it_is() {
    let keys = Keys::new();
    let (x, y, z) = (keys.make("x.key"), keys.make("y.key"), keys.make("z.key"));
    keys.write("peers", &format!("hostY {y}\n"));
    let accepts = keys.accepts(&format!("key:@/x.key,peer:hostZ={z},peers:@/peers"));
    let [of_y, of_z] = ["y", "z"].map(|key| keys.dials(&format!("key:@/{key}.key,peer:hub={x}")));
    accepts.peers().look();
    meet(&of_y, &accepts);
    accepts.peers().look_is_late();
    let line = shake(of_y.role(), accepts.role()).refusals()[1].clone();
    let wanted =
        format!("is not known here; {} cannot be read: it took more than 3 s", keys.path("peers"));
    assert!(line.contains(&wanted), "{line}");
    meet(&of_z, &accepts);
    accepts.peers().look();
    meet(&of_y, &accepts);
}
