//! A receptor and a peer that speaks SockMux 1 wrongly, or to the letter.

use std::io::Write;
use std::net::SocketAddr;

use crate::testkit::DEADLINE;
use crate::testkit::net::{free_port, read_to_end_of};
use crate::testkit::peer::Peer;
use crate::testkit::peer_v1::{Frame, OPEN_HEAD, PeerV1, SENDERS, header, kind};
use crate::testkit::program::Program;
use crate::testkit::servers::Server;
use crate::testkit::tunnel::start_receptor;

/// Stream numbers as the connector's side gives them.
const STREAM: u32 = 2;

fn receptor(destination: SocketAddr) -> (Program, SocketAddr) {
    let receptor = start_receptor("127.0.0.1:0", &[format!("DEST={destination}")]);
    let address = receptor.address_of("receptor listening");
    (receptor, address)
}

fn open(peer: &mut PeerV1, stream: u32, first: &[u8]) {
    peer.send(&Frame::new(kind::OPEN, stream, &[&OPEN_HEAD, first].concat()));
}

/// Sends `bytes` behind the hello and an open stream, and panics unless the receptor closes, logs the
/// reason, and still serves others, in either protocol.
fn ends_the_tunnel(bytes: &[u8]) {
    let server = Server::echo();
    let (receptor, address) = receptor(server.address());
    let mut peer = PeerV1::join(address);
    receptor.wait_for("tunnel up");
    open(&mut peer, STREAM, b"x");
    assert_eq!(peer.receive_data(STREAM, 1), b"x");
    peer.0.stream.write_all(bytes).expect("the receptor takes it");
    read_to_end_of(&mut peer.0.stream, DEADLINE);
    let down = receptor.wait_for_reason("tunnel down");
    // Else it has borne them, and given the peer up for its silence.
    assert!(!down.contains("nothing came from the peer"), "{down}");
    PeerV1::join(address).check_alive(b"still here");
    Peer::join(address).check_alive(b"here too");
}

#[test]
fn bytes_that_are_no_frame() {
    ends_the_tunnel(b"GET / HTTP/1.0\r\n\r\n");
    // A frame of 0.3 is none either, once SockMux 1 was agreed on.
    ends_the_tunnel(&[3, 9, 0, 255, 0, 255, 0, 0]);
}

#[test]
fn headers_that_cannot_be() {
    ends_the_tunnel(&header(0x7F, 0, 0, 0));
    ends_the_tunnel(&header(kind::DATA, SENDERS, STREAM, (1 << 20) + 1));
    ends_the_tunnel(&header(kind::DATA, SENDERS, STREAM, 0));
    ends_the_tunnel(&header(kind::PING, 0, 0, u32::MAX));
    ends_the_tunnel(&header(kind::OPEN, SENDERS, STREAM + 2, 1 << 20));
    ends_the_tunnel(&header(kind::END, 0x8000, STREAM, 0));
}

#[test]
fn a_peer_that_goes_away_twice() {
    ends_the_tunnel(&Frame::new(kind::GOING_AWAY, 0, b"bye").bytes().repeat(2));
}

#[test]
fn a_number_that_is_taken() {
    let again = Frame::new(kind::OPEN, STREAM, &OPEN_HEAD);
    ends_the_tunnel(&again.bytes());
}

#[test]
fn more_than_the_window() {
    // A server that reads nothing, so that data beyond the window has nowhere to go.
    let server = Server::start("127.0.0.1:0", |stream| {
        stream.set_read_timeout(None)?;
        stream.peek(&mut [0])?;
        std::thread::park_timeout(DEADLINE);
        Ok(())
    });
    let (receptor, address) = receptor(server.address());
    let mut peer = PeerV1::join(address);
    open(&mut peer, STREAM, b"");
    let data = Frame::new(kind::DATA, STREAM, &vec![0; 1 << 20]).bytes();
    // Fails at some point: the receptor has closed by then.
    while peer.0.stream.write_all(&data).is_ok() {}
    receptor.wait_for_reason("tunnel down");
    PeerV1::join(address).check_alive(b"still here");
}

#[test]
fn frames_of_streams_that_are_not_there_change_nothing() {
    let server = Server::echo();
    let (_receptor, address) = receptor(server.address());
    let mut peer = PeerV1::join(address);
    for stream in [STREAM, 0x7FFF_FFFE] {
        for frame in [
            Frame::new(kind::DATA, stream, &[7; 100_000]),
            Frame::new(kind::END, stream, b""),
            Frame::new(kind::RESET, stream, b"\0\x01gone"),
            Frame::new(kind::CREDIT, stream, &[0, 0, 1, 0]),
        ] {
            peer.send(&frame);
            peer.send(&Frame { flags: 0, ..frame });
        }
    }
    peer.check_alive(b"after it");
    open(&mut peer, STREAM, b"first");
    assert_eq!(peer.receive_data(STREAM, 5), b"first");
}

#[test]
fn data_behind_the_open_needs_no_answer_and_both_ends_of_data_end_the_stream() {
    let server = Server::echo();
    let (_receptor, address) = receptor(server.address());
    let mut peer = PeerV1::join(address);
    // Everything at once, before the receptor has sent a byte.
    let mut all = Vec::new();
    all.extend(Frame::new(kind::OPEN, STREAM, &[&OPEN_HEAD[..], b"first, "].concat()).bytes());
    all.extend(Frame::new(kind::DATA, STREAM, b"second").bytes());
    all.extend(Frame::new(kind::END, STREAM, b"").bytes());
    peer.0.stream.write_all(&all).expect("the receptor takes it");
    assert_eq!(peer.receive_kind(kind::OPENED).stream, STREAM);
    assert_eq!(peer.receive_data(STREAM, 13), b"first, second");
    assert_eq!(peer.receive_kind(kind::END).stream, STREAM);
    peer.check_alive(b"after it");
}

#[test]
fn a_refused_open_says_why() {
    let nobody = free_port([127, 0, 0, 2].into());
    let (_receptor, address) = receptor(nobody);
    let mut peer = PeerV1::join(address);
    open(&mut peer, STREAM, b"lost");
    let refusal = peer.receive_kind(kind::RESET);
    assert_eq!(refusal.payload[..2], [0, 2], "the code of a refusal");
    let reason = String::from_utf8_lossy(&refusal.payload[2..]);
    assert!(reason.contains("refused"), "{reason}");
}

#[test]
fn one_that_drains_says_so_and_finishes_what_is_open() {
    let server = Server::echo();
    let (mut receptor, address) = receptor(server.address());
    let mut peer = PeerV1::join(address);
    open(&mut peer, STREAM, b"a");
    assert_eq!(peer.receive_data(STREAM, 1), b"a");
    receptor.terminate();
    peer.receive_kind(kind::GOING_AWAY);
    let farewell = peer.receive_kind(kind::PING);
    // As far as the receptor knows, it was opened before this peer knew.
    open(&mut peer, STREAM + 2, b"c");
    assert_eq!(peer.receive_data(STREAM + 2, 1), b"c");
    peer.send(&Frame { kind: kind::PONG, ..farewell });
    open(&mut peer, STREAM + 4, b"too late");
    assert_eq!(peer.receive_kind(kind::RESET).stream, STREAM + 4);
    peer.send(&Frame::new(kind::RESET, STREAM + 2, b"\0\x01gone"));
    peer.send(&Frame::new(kind::DATA, STREAM, b"b"));
    assert_eq!(peer.receive_data(STREAM, 1), b"b");
    peer.send(&Frame::new(kind::END, STREAM, b""));
    assert_eq!(peer.receive_kind(kind::END).stream, STREAM);
    assert_eq!(peer.receive(), None);
    drop(peer);
    assert_eq!(receptor.wait_exit(DEADLINE).code(), Some(0));
}
