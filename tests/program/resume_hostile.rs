//! Connections that take up a tunnel and may not, or do so again and again.

use crate::testkit::peer_v1::{Frame, OPEN_HEAD, PeerV1, kind};
use crate::testkit::program::Program;
use crate::testkit::servers::Server;
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
    let address = receptor.address_of("receptor listening");
    let (mut peer, said) = PeerV1::join_saying(&lane(None), address);
    assert_eq!(said.len(), NEW_BYTES, "it takes part, and takes up nothing");
    peer.send(&Frame::new(kind::OPEN, 1, &[OPEN_HEAD.as_slice(), b"hello"].concat()));
    assert_eq!(peer.receive_data(1, 5), b"hello");
    (receptor, peer, said[ISSUED].to_vec())
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
        let (mut claimant, said) = PeerV1::join_saying(&lane(Some((name, position))), address);
        assert_eq!(said.len(), NEW_BYTES, "nothing is taken up");
        receptor.wait_for_event(reason, 1, |event| {
            event["message"] == "a connection may not take up the tunnel"
                && event["reason"] == reason
        });
        claimant.check_alive(b"a new one");
        peer.check_alive(b"unharmed");
    }
    // One that there never was.
    let (mut claimant, said) = PeerV1::join_saying(&lane(Some((&[9; 24], 0))), address);
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
        let (mut next, said) = PeerV1::join_saying(&lane(Some((&issued, 0))), address);
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
