//! A receptor and a peer that speaks SockMux 0.3 strangely, wrongly, or not to the end.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use support::net::{Ended, bounded, check_new_echo, connect, read_to_end_of};
use support::pattern::Pattern;
use support::peer::{Frame, NO_ID, Peer, hello, kind};
use support::program::Program;
use support::protocol::Protocol;
use support::servers::Server;
use support::tunnel::{start_connector, start_receptor};
use support::{DEADLINE, eventually};

/// The most payload of one 0.3 frame: packet size less header.
const PAYLOAD_BYTES_MAX: usize = 16384 - 8;

/// What the original says when it opens a stream.
const CONNECT_TEXT: &[u8] = b"98304 127.0.0.1:40000 127.0.0.1:9023\0";

/// An echo server and a receptor that leads to it.
fn receptor() -> (Server, Program, SocketAddr) {
    let server = Server::echo();
    let receptor = start_receptor("127.0.0.1:0", &[format!("DEST={}", server.address())]);
    let address = receptor.address_of("receptor listening");
    (server, receptor, address)
}

/// Opens stream `id` and gives the id that the receptor chose for it.
fn open(peer: &mut Peer, id: u16) -> u16 {
    peer.send(&Frame::new(kind::CONNECT, id, NO_ID, CONNECT_TEXT));
    let connected = peer.receive_kind(kind::CONNECTED);
    assert_eq!(connected.receiver, id);
    connected.sender
}

/// Sends `bytes` after the hello and panics unless the receptor closes and says why, and still
/// serves others.
fn ends_the_tunnel(bytes: &[u8]) {
    let (_server, receptor, address) = receptor();
    let mut peer = Peer::join(address);
    receptor.wait_for("tunnel up");
    peer.stream.write_all(bytes).expect("the receptor takes it");
    read_to_end_of(&mut peer.stream, DEADLINE);
    receptor.wait_for_reason("tunnel down");
    Peer::join(address).check_alive(b"still here");
}

/// Sends `frames` after the hello and panics unless the tunnel goes on as if nothing had been.
fn is_passed_over(frames: &[Frame]) {
    let (_server, receptor, address) = receptor();
    let mut peer = Peer::join(address);
    let theirs = open(&mut peer, 7);
    for frame in frames {
        peer.send(frame);
    }
    peer.check_alive(b"after it");
    peer.send(&Frame::new(kind::SEND, 7, theirs, b"through"));
    assert_eq!(peer.receive_kind(kind::SEND).payload, b"through");
    assert_eq!(receptor.count("tunnel down"), 0);
}

#[test]
fn byte_by_byte_is_understood() {
    let (_server, _receptor, address) = receptor();
    let mut peer = Peer { stream: connect(address) };
    let frames = [
        hello(kind::HELLO),
        hello(kind::HELLO_OK),
        hello(kind::HELLO_OK),
        Frame::new(kind::CONNECT, 7, NO_ID, &[CONNECT_TEXT, b"first"].concat()),
    ];
    for byte in frames.iter().flat_map(Frame::bytes) {
        peer.stream.write_all(&[byte]).expect("a byte is sent");
    }
    peer.receive_kind(kind::CONNECTED);
    assert_eq!(peer.receive_kind(kind::SEND).payload, b"first");
}

#[test]
fn a_second_hello_ends_the_tunnel() {
    ends_the_tunnel(&hello(kind::HELLO).bytes());
}

#[test]
fn a_payload_over_the_packet_size_ends_the_tunnel() {
    ends_the_tunnel(&Frame::new(kind::SEND, 7, 7, &[0; PAYLOAD_BYTES_MAX + 1]).bytes());
    ends_the_tunnel(&Frame::new(kind::ECHO, 0, 0, &[0; 65535]).bytes());
}

#[test]
fn an_end_within_a_frame_ends_the_tunnel() {
    let (_server, receptor, address) = receptor();
    let mut peer = Peer::join(address);
    peer.stream.write_all(&hello(kind::ECHO).bytes()[..11]).expect("half a frame is sent");
    drop(peer);
    receptor.wait_for_reason("tunnel down");
    Peer::join(address).check_alive(b"still here");
}

#[test]
fn types_that_nobody_knows_are_passed_over() {
    let unknown = [0x00, 0x03, 0x04, 0x05, 0x0B, 0x0D, 0x0E, 0x0F, 0x7F, 0xFF];
    is_passed_over(&unknown.map(|kind| Frame::new(kind, 7, 7, b"whatever\0")));
}

#[test]
fn options_that_nobody_knows_are_passed_over() {
    let cipher_offer = [&[1_u8][..], &[0xAB; 135]].concat();
    is_passed_over(&[
        Frame::new(kind::SET_OPTION, 0, 0, &[0x40; 21]),
        Frame::new(kind::SET_OPTION, 0, 0, &cipher_offer),
        Frame::new(kind::SET_OPTION, 0, 0, b""),
        Frame::new(kind::SET_OPTION, 0, 0, b"\x03"),
    ]);
}

#[test]
fn frames_for_streams_that_are_not_there_are_passed_over() {
    is_passed_over(&[
        Frame::new(kind::SEND, 9, 200, b"to nobody"),
        Frame::new(kind::SENT, 9, 200, b"9\0"),
        Frame::new(kind::CONNECTED, 9, 200, CONNECT_TEXT),
        Frame::new(kind::CLOSED, 9, 200, b"OK closed\0"),
        Frame::new(kind::SEND, 9, 0xFFFF, b"to nobody"),
    ]);
}

#[test]
fn a_close_for_a_stream_that_is_not_there_is_answered() {
    let (_server, _receptor, address) = receptor();
    let mut peer = Peer::join(address);
    peer.send(&Frame::new(kind::CLOSE, 9, 200, b"DO close\0"));
    assert_eq!(peer.receive_kind(kind::CLOSED).receiver, 9);
}

#[test]
fn a_peer_that_acknowledges_nothing_gets_no_more_than_the_window() {
    let source =
        Server::start("127.0.0.1:0", |mut stream| Pattern::new(4).send(&mut stream, 4 << 20));
    let receptor = start_receptor("127.0.0.1:0", &[format!("DEST={}", source.address())]);
    let mut peer = Peer::join(receptor.address_of("receptor listening"));
    // The original asks for its packet size.
    peer.send(&Frame::new(kind::SET_OPTION, 0, 0, &[3, 0x40, 0]));
    peer.send(&Frame::new(kind::CONNECT, 7, NO_ID, CONNECT_TEXT));
    let connected = peer.receive_kind(kind::CONNECTED);
    let first_data = connected.payload.iter().position(|byte| *byte == 0).expect("a NUL") + 1;
    let mut pattern = Pattern::new(4);
    pattern.check(&connected.payload[first_data..]);

    // Until it has been silent for a while; then once more after an acknowledgement.
    let mut window_bytes = 5 * PAYLOAD_BYTES_MAX;
    for _ in 0..2 {
        peer.stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout can be set");
        let mut got = 0;
        while let Some(frame) = peer.receive() {
            if frame.kind == kind::SEND {
                pattern.check(&frame.payload);
                got += frame.payload.len();
            }
        }
        assert!(got > 0 && got <= window_bytes, "{got} bytes of {window_bytes}");
        peer.send(&Frame::new(kind::SENT, 7, connected.sender, format!("{got}\0").as_bytes()));
        window_bytes = 5 * PAYLOAD_BYTES_MAX;
    }
}

#[test]
fn random_bytes_end_a_tunnel_and_nothing_else() {
    let (server, receptor, address) = receptor();
    let connector = start_connector(Protocol::V1, address, &["PORT=127.0.0.1:0"]);
    connector.wait_for("tunnel up");
    for seed in 0..60 {
        // Before the hello, and after it; whole frames with random insides as well.
        let mut bytes = Pattern::new(seed).take(2000 + seed as usize * 13);
        let mut stream = match seed % 3 {
            0 => connect(address),
            1 => Peer::join(address).stream,
            _ => {
                let frames = bytes.chunks(20).map(|chunk| {
                    let id = |at: usize| u16::from(chunk[at % chunk.len()] % 80);
                    Frame::new(chunk[0] % 0x50, id(1), id(2), &chunk[chunk.len() / 2..]).bytes()
                });
                bytes = frames.flatten().collect();
                Peer::join(address).stream
            }
        };
        // The receptor may have closed before it has taken all: that is what it is meant to do.
        let _ = stream.write_all(&bytes);
    }
    check_new_echo(connector.address_of("entrance listening"), 1, 1 << 20);
    assert_eq!(connector.count("tunnel down"), 0);
    let quiet = || receptor.count("tunnel down") + 1 >= receptor.count("tunnel up");
    assert!(eventually(DEADLINE, quiet), "some tunnels of peers that left are still up");
    assert!(server.served() >= 1);
}

/// An original breaks its tunnel a few streams beyond: the client that would be one too many is
/// told, and the sixty go on.
#[test]
fn an_original_peer_is_given_sixty_streams_and_the_next_client_is_refused() {
    let receptor = start_receptor("127.0.0.1:0", &["PORT=127.0.0.1:0"]);
    let mut peer = Peer::join(receptor.address_of("receptor listening"));
    let entrance = receptor.address_of("entrance listening");
    let mut streams = Vec::new();
    for id in 300..360 {
        let client = connect(entrance);
        let opened = peer.receive_kind(kind::CONNECT);
        assert!(opened.sender <= 254, "an original cuts id {}", opened.sender);
        peer.send(&Frame::new(kind::CONNECTED, id, opened.sender, CONNECT_TEXT));
        streams.push((client, id, opened.sender));
    }
    let refused = TcpStream::connect_timeout(&entrance, DEADLINE);
    assert!(
        refused.map_or(true, |one| read_to_end_of(&mut bounded(one), DEADLINE) == Ended::Reset)
    );
    let said = receptor.wait_for_reason("stream refused");
    assert!(said.contains("60 streams"), "{said}");

    for (client, id, theirs) in &mut streams {
        client.write_all(b"question").expect("a client is heard");
        assert_eq!(peer.receive_kind(kind::SEND).receiver, *id);
        peer.send(&Frame::new(kind::SEND, *id, *theirs, b"answer"));
        let mut answer = [0; 6];
        client.read_exact(&mut answer).expect("a client is answered");
        assert_eq!(&answer, b"answer");
    }
    assert_eq!(receptor.count("tunnel down"), 0);
}
