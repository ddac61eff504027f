//! `PORT=...?at=peer`.

use sockmux_uring::cli::plan::Transport;
use sockmux_uring::cli::show;

use crate::one_file::{refused, run};

const KEY: &str = "TLSCONF=peer:SHA256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
const CONNECTOR: [&str; 3] = ["SERVER=sockmux://hub:9000", "DEST=127.0.0.1:22", KEY];

fn with(word: &str) -> Vec<&str> {
    [&CONNECTOR[..], &[word]].concat()
}

#[test]
fn ports_at_the_peer_stand_beside_ports_at_this_end() {
    let words = "PORT=8022?at=peer,127.0.0.1:8023-8024?at=peer,[::1]:8022/udp?at=peer,8022";
    let plan = run(&with(words));
    let (tcp, udp) = (Transport::Tcp, Transport::Udp);
    let wanted =
        [(tcp, "[::]:8022"), (tcp, "127.0.0.1:8023"), (tcp, "127.0.0.1:8024"), (udp, "[::1]:8022")];
    let wanted = wanted.map(|(transport, at)| (transport, at.parse().expect("an address")));
    assert_eq!(plan.entrances_at_peer, wanted);
    assert_eq!(plan.entrances.len(), 1);
    let shown = show::plan(&plan);
    let behind = "at the peer, if its peers file permits that to this key";
    let wanted = format!(
        "entrances   *:8022\n            *:8022 {behind}\n            \
         127.0.0.1:8023-8024 {behind}\n            [::1]:8022/udp {behind}\n"
    );
    assert!(shown.contains(&wanted), "{shown}");
}

/// Its peers may ask for entrances, so it needs none of its own.
#[test]
fn a_receptor_with_a_peers_file_needs_nothing_else() {
    assert!(run(&["-P9000", "TLSCONF=peers:p"]).entrances.is_empty());
    assert!(run(&["-P9000", "STLS=fcl"]).exits.is_empty());
    for words in [
        &["-P9000", KEY][..],
        &["-P9000", "TLSCONF=secret:s"],
        &["-P9000", "TLSCONF=ca:c"],
        &["SERVER=sockmux://hub:9000", "TLSCONF=peers:p"],
    ] {
        let message = refused(words);
        assert!(message.contains("nothing would ever flow"), "{words:?}: {message}");
    }
}

#[test]
fn what_cannot_be_is_refused_with_what_can() {
    for (words, wanted) in [
        (&["PORT=8022?at=hub"][..], "write at=peer for an entrance at the other end"),
        (&["PORT=8022?at=peer&proxy=accept"], "a PROXY header at *:8022 of the peer"),
        (&["PORT=8022?peer=a&at=peer"], "leave peer=a out"),
        (&["PORT=0?at=peer"], "name a port that the receptor permits"),
        (&["PORT=hub:8022?at=peer"], "give an address of the receptor's host"),
        (&["PORT=8022?at=peer,8022?at=peer"], "are the same port"),
        (&["PORT=8022?at=peer", "PORT=127.0.0.1:8022?at=peer"], "are the same port"),
        (&["PORT=8000-8064?at=peer"], "65 entrances at the peer"),
        (&["PORT=8022?at=peer", "SOXCONF=protocol:0.3"], "leave SOXCONF=protocol:0.3 out"),
    ] {
        let message = refused(&[&CONNECTOR[..], words].concat());
        assert!(message.contains(wanted), "{words:?}: {message}");
    }
    let asks = "PORT=8022?at=peer";
    for (words, wanted) in [
        (&["SERVER=sockmux://hub:9000", "DEST=h:22"][..], "add TLSCONF=peer:SHA256:..."),
        (
            &["SERVER=sockmux://hub:9000", "DEST=h:22", "TLSCONF=secret:s"],
            "in place of TLSCONF=secret:",
        ),
        (&["-P9000", "DEST=h:22", KEY], "?peer=NAME leads it to that peer"),
        (&["SERVER=sockmux://hub:9000", KEY], "add DEST=host:port"),
        (&["-P80", "SERVER=tcprelay://h:80"], "leave PORT=8022?at=peer out"),
        (&["-P80", "SERVER=http"], "leave PORT=8022?at=peer out"),
    ] {
        let message = refused(&[words, &[asks]].concat());
        assert!(message.contains(wanted), "{words:?}: {message}");
    }
    let message = refused(&["-P9000?at=peer", "DEST=h:22"]);
    assert!(message.contains("write PORT=9000?at=peer"), "{message}");
}
