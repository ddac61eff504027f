//! Connections that take up a tunnel and may not, or do so again and again.

use std::net::TcpStream;

use crate::testkit::keys::Keys;
use crate::testkit::net::connect;
use crate::testkit::openssl::connect_inside_tls;
use crate::testkit::peer_v1::{Frame, OPEN_HEAD, PeerV1, kind};
use crate::testkit::program::Program;
use crate::testkit::servers::Server;
use crate::testkit::skip::needs;
use crate::testkit::tunnel::start_receptor;

/// What the scripted peer issues for its tunnel: a number and a secret.
const OWN: [u8; 24] = *b"\0\0\0\0\0\0\0\x07fedcba9876543210";

/// Where the parts of what a receptor says of lanes are.
const ISSUED: std::ops::Range<usize> = 4..28;
const NEW_BYTES: usize = 28;
const AGAIN_BYTES: usize = 60;

/// What is said of lanes: this tunnel's own name, and which one is taken up from where.
fn lane(again: Option<(&[u8], u64)>) -> Vec<u8> {
    let mut said = [b"LANE".as_slice(), &OWN].concat();
    if let Some((name, position)) = again {
        said.extend(name);
        said.extend(position.to_be_bytes());
    }
    said
}

/// A receptor, and a peer with a stream that has an echo; also what the receptor has issued.
fn tunnel(server: &Server) -> (Program, PeerV1, Vec<u8>) {
    let receptor = start_receptor("127.0.0.1:0", &[format!("DEST={}", server.address())]);
    let stream = connect(receptor.address_of("receptor listening"));
    let (peer, issued) = begin(stream);
    (receptor, peer, issued)
}

/// The peer of such a tunnel over this connection, and what the receptor has issued.
fn begin(stream: TcpStream) -> (PeerV1, Vec<u8>) {
    let (mut peer, said) = PeerV1::join_saying(&lane(None), stream);
    assert_eq!(said.len(), NEW_BYTES, "it takes part, and takes up nothing");
    peer.send(&Frame::new(kind::OPEN, 1, &[OPEN_HEAD.as_slice(), b"hello"].concat()));
    assert_eq!(peer.receive_data(1, 5), b"hello");
    (peer, said[ISSUED].to_vec())
}

#[test]
fn whoever_may_not_take_a_tunnel_up_gets_a_new_one_and_the_tunnel_goes_on() {
    let server = Server::echo();
    let (receptor, mut peer, issued) = tunnel(&server);
    let address = receptor.address_of("receptor listening");
    let guessed = [&issued[..8], [0x55; 16].as_slice()].concat();
    for (name, position, reason) in [
        (&guessed, 0, "the secret is another one"),
        (&issued, u64::MAX, "it names a position that was never sent, or that the peer has passed"),
        (&issued, 1 << 40, "it names a position that was never sent, or that the peer has passed"),
    ] {
        let (mut claimant, said) =
            PeerV1::join_saying(&lane(Some((name, position))), connect(address));
        assert_eq!(said.len(), NEW_BYTES, "nothing is taken up");
        receptor.wait_for_event(reason, 1, |event| {
            event["message"] == "a connection may not take up the tunnel"
                && event["reason"] == reason
        });
        claimant.check_alive(b"a new one");
        peer.check_alive(b"unharmed");
    }
    // One that there never was.
    let (mut claimant, said) = PeerV1::join_saying(&lane(Some((&[9; 24], 0))), connect(address));
    assert_eq!(said.len(), NEW_BYTES);
    claimant.check_alive(b"a new one");
    peer.send(&Frame::new(kind::DATA, 1, b"still"));
    assert_eq!(peer.receive_data(1, 5), b"still");
    assert_eq!(server.served(), 1);
}

/// Each time all that the peer has not acknowledged comes again, and the connection before ends.
#[test]
fn a_tunnel_that_is_taken_up_again_and_again_goes_on() {
    let server = Server::echo();
    let (receptor, mut peer, issued) = tunnel(&server);
    let address = receptor.address_of("receptor listening");
    for round in 0..20u8 {
        let (mut next, said) = PeerV1::join_saying(&lane(Some((&issued, 0))), connect(address));
        assert_eq!((said.len(), &said[NEW_BYTES..NEW_BYTES + 24]), (AGAIN_BYTES, &OWN[..]));
        while peer.receive().is_some() {}
        assert_eq!(next.receive_data(1, 5), b"hello");
        for before in 0..round {
            assert_eq!(next.receive_data(1, 1), [before]);
        }
        next.send(&Frame::new(kind::DATA, 1, &[round]));
        assert_eq!(next.receive_data(1, 1), [round]);
        peer = next;
    }
    peer.check_alive(b"at the end");
    assert_eq!((server.served(), receptor.count("tunnel down")), (1, 0));
}

/// Whoever comes second has it; neither harms it.
#[test]
fn of_two_that_take_a_tunnel_up_at_once_one_has_it() {
    let server = Server::echo();
    let (receptor, mut peer, issued) = tunnel(&server);
    let address = receptor.address_of("receptor listening");
    for round in 0..20u8 {
        let claim = lane(Some((&issued, 0)));
        let claimants = [connect(address), connect(address)];
        let claimants = claimants.map(|stream| PeerV1::say(&claim, stream));
        let heard = claimants.into_iter().filter_map(|claimant| Some(claimant.hear()?.0));
        let mut left: Vec<PeerV1> = heard.collect();
        // The other one had it for a moment at most, and is at its end.
        let each = (0..).zip(&mut left);
        let own: Vec<bool> = each.map(|(at, claimant)| claimant.is_heard(&[round, at])).collect();
        assert_eq!(own.iter().filter(|has| **has).count(), 1, "round {round}: {own:?}");
        assert!(!peer.is_heard(b"before"), "nor has whoever had it before");
        let which = own.iter().position(|has| *has).expect("one has it");
        peer = left.swap_remove(which);
        peer.send(&Frame::new(kind::DATA, 1, &[round]));
        assert_eq!(peer.receive_data(1, 1), [round]);
    }
    assert_eq!((server.served(), receptor.count("tunnel down")), (1, 0));
}

/// What was issued is not enough, even for a peer that is let in.
#[test]
fn a_peer_with_another_key_may_not_take_a_tunnel_up() {
    needs!("openssl");
    let (keys, server) = (Keys::new(), Server::echo());
    keys.make("hub");
    let listed = ["spoke", "other"].map(|name| format!("{name} {}\n", keys.make(name)));
    let words = [format!("DEST={}", server.address()), keys.listing("hub", &listed.concat())];
    let receptor = start_receptor("127.0.0.1:0", &words);
    let address = receptor.address_of("receptor listening");
    let (mut peer, issued) = begin(connect_inside_tls(&keys, "spoke", address));
    let claim = lane(Some((&issued, 0)));
    let stream = connect_inside_tls(&keys, "other", address);
    let (mut claimant, said) = PeerV1::join_saying(&claim, stream);
    assert_eq!(said.len(), NEW_BYTES, "nothing is taken up");
    let refused = receptor.wait_for("a connection may not take up the tunnel");
    assert_eq!(refused["reason"], "the peer has another key", "{refused}");
    claimant.check_alive(b"a tunnel of its own");
    peer.check_alive(b"unharmed");
    // With the key it is enough.
    let stream = connect_inside_tls(&keys, "spoke", address);
    let (mut next, said) = PeerV1::join_saying(&claim, stream);
    assert_eq!((said.len(), &said[NEW_BYTES..NEW_BYTES + 24]), (AGAIN_BYTES, &OWN[..]));
    assert_eq!(next.receive_data(1, 5), b"hello");
    next.send(&Frame::new(kind::DATA, 1, b"still"));
    assert_eq!(next.receive_data(1, 5), b"still");
    assert_eq!(server.served(), 1);
}
