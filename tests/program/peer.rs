//! A receptor and a peer that speaks SockMux 0.3 strangely, wrongly, or not to the end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::testkit::net::{check_new_echo, connect, is_turned_away, read_to_end_of, reset};
use crate::testkit::original::{Manners, Original, Service};
use crate::testkit::pattern::Pattern;
use crate::testkit::peer::{Frame, NO_ID, Peer, hello, kind};
use crate::testkit::program::Program;
use crate::testkit::protocol::Protocol;
use crate::testkit::servers::Server;
use crate::testkit::tunnel::{start_connector, start_receptor};
use crate::testkit::{DEADLINE, eventually};

/// The most payload of one 0.3 frame: packet size less header.
const PAYLOAD_BYTES_MAX: usize = 16384 - 8;

/// Streams that end by a CLOSE of each side, and clients at once.
const CROSSINGS: usize = 5_000;
const AT_ONCE: usize = 10;

/// Does this by as many threads as there are clients at once.
fn at_once(each: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        (0..AT_ONCE).for_each(|_| drop(scope.spawn(&each)));
    });
}

/// The original's text when it opens a stream.
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

/// Sends `bytes` after the hello and panics unless the receptor closes, logs the reason, and still serves
/// others.
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
    // The original sets its packet size.
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
    let before = receptor.sockets();
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
        // The receptor may have closed before it has read all, as it should.
        let _ = stream.write_all(&bytes);
    }
    check_new_echo(connector.address_of("entrance listening"), 1, 1 << 20);
    assert_eq!(connector.count("tunnel down"), 0);
    // Not all of them are logged one by one.
    let quiet = || receptor.sockets() <= before;
    assert!(eventually(DEADLINE, quiet), "some tunnels of peers that left are still up");
    assert!(server.served() >= 1);
}

/// A receptor with an entrance, and an original that has joined it.
fn entrance(manners: Manners, words: &[&str]) -> (Program, Original, SocketAddr) {
    let words: Vec<&str> = ["PORT=127.0.0.1:0"].iter().chain(words).copied().collect();
    let receptor = start_receptor("127.0.0.1:0", &words);
    let original = Original::connect(receptor.address_of("receptor listening"), manners);
    receptor.wait_for("tunnel up");
    let address = receptor.address_of("entrance listening");
    (receptor, original, address)
}

/// A connector with an entrance, which has dialled an original.
fn entrance_of_connector(manners: Manners) -> (Program, Original, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let receptor = listener.local_addr().expect("an address");
    let words = [format!("SERVER=sockmux://{receptor}"), "PORT=127.0.0.1:0".to_owned()];
    let connector = Program::start(&words);
    let original = Original::accept(&listener, manners);
    connector.wait_for("tunnel up");
    let address = connector.address_of("entrance listening");
    (connector, original, address)
}

/// Asks once and hears the answer.
fn ping(client: &mut TcpStream) {
    client.write_all(b"PING\r\n").expect("a client is heard");
    let mut answer = [0; 7];
    client.read_exact(&mut answer).expect("a client is answered");
    assert_eq!(&answer, b"+PONG\r\n");
}

/// An original breaks its tunnel a few streams beyond: the client that would be one too many waits
/// until there is room, or for as long as clients wait for a tunnel.
#[test]
fn an_original_peer_is_given_sixty_streams_and_the_next_clients_wait() {
    let manners = Manners::of(Service::Pong);
    let (receptor, original, address) = entrance(manners, &[]);
    let mut clients: Vec<TcpStream> = (0..65).map(|_| connect(address)).collect();
    clients[..60].iter_mut().for_each(ping);
    assert_eq!(original.most_streams(), 60);
    // Each that leaves makes room for the next.
    for next in 60..65 {
        reset(clients.remove(0));
        ping(&mut clients[next - (next - 59)]);
    }
    clients.iter_mut().for_each(ping);
    assert_eq!(original.most_streams(), 60);
    assert_eq!(receptor.count("stream refused") + receptor.count("tunnel down"), 0);
    original.check();
}

#[test]
fn a_client_that_finds_no_room_for_as_long_as_clients_wait_is_reset() {
    let (receptor, original, address) = entrance(Manners::of(Service::Pong), &["TIMEOUT=hold:1"]);
    let mut clients: Vec<TcpStream> = (0..60).map(|_| connect(address)).collect();
    clients.iter_mut().for_each(ping);
    is_turned_away(address);
    let said = receptor.wait_for_reason("stream refused");
    assert!(said.contains("60 streams"), "{said}");
    clients.iter_mut().for_each(ping);
    // There is room again.
    reset(clients.remove(0));
    original.wait_ended(1);
    ping(&mut connect(address));
    original.check();
}

/// Streams at the end of which both sides have sent CLOSE: 253 of them used up all there were.
#[test]
fn streams_of_our_clients_end_by_crossing_close_and_the_last_is_served_as_the_first() {
    let manners = Manners { crosses: true, ..Manners::of(Service::Pong) };
    for (ours, original, address) in [entrance(manners, &[]), entrance_of_connector(manners)] {
        at_once(|| {
            for _ in 0..CROSSINGS / AT_ONCE {
                let mut client = connect(address);
                ping(&mut client);
                reset(client);
            }
        });
        original.wait_ended(CROSSINGS);
        ping(&mut connect(address));
        assert_eq!(ours.count("stream refused") + ours.count("tunnel down"), 0);
        original.check();
    }
}

#[test]
fn streams_of_its_clients_end_by_crossing_close_and_the_last_is_served_as_the_first() {
    let server = Server::start("127.0.0.1:0", |mut stream| {
        stream.read_exact(&mut [0; 4])?;
        stream.write_all(b"bye")
    });
    let exit = format!("DEST={}", server.address());
    let manners = Manners { crosses: true, ..Manners::of(Service::Sink) };
    let receptor = start_receptor("127.0.0.1:0", &[&exit]);
    let to_receptor = Original::connect(receptor.address_of("receptor listening"), manners);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let connector = Program::start(&[&format!("SERVER=sockmux://{address}"), &exit]);
    let of_connector = Original::accept(&listener, manners);
    for (ours, original) in [(receptor, to_receptor), (connector, of_connector)] {
        original.wait_up();
        at_once(|| {
            for _ in 0..CROSSINGS / AT_ONCE {
                let client = original.open(b"quit");
                assert_eq!(original.heard(client, 3), b"bye");
            }
        });
        original.wait_ended(CROSSINGS);
        assert_eq!(ours.count("stream refused") + ours.count("tunnel down"), 0);
        original.check();
    }
}

/// Its client leaves before our exit has reached its server: the client's data arrives all the same.
#[test]
fn what_a_client_of_an_original_said_before_it_left_is_delivered() {
    let (heard, hears) = std::sync::mpsc::channel();
    let server = Server::start("127.0.0.1:0", move |mut stream| {
        let mut line = String::new();
        stream.read_to_string(&mut line)?;
        heard.send(line).map_err(std::io::Error::other)
    });
    let receptor = start_receptor("127.0.0.1:0", &[format!("DEST={}", server.address())]);
    let mut peer = Peer::join(receptor.address_of("receptor listening"));
    let frames = [
        Frame::new(kind::CONNECT, 7, NO_ID, &[CONNECT_TEXT, b"one line\n"].concat()),
        Frame::new(kind::CLOSE, 7, NO_ID, b"DO close\0"),
    ];
    // By one write, so that the receptor reads both before it has connected.
    peer.stream.write_all(&frames.each_ref().map(Frame::bytes).concat()).expect("sent");
    let closed = peer.receive_kind(kind::CLOSED);
    assert_eq!((closed.sender, closed.receiver), (NO_ID, 7));
    assert_eq!(hears.recv_timeout(DEADLINE).expect("a line"), "one line\n");
    peer.check_alive(b"after it");
    assert_eq!(receptor.count("stream refused"), 0);
}

/// Like `redis-cli`: a request, its answer, and a close. CLOSE is held back each time, and there are slots
/// for all.
#[test]
fn short_conversations_that_the_client_closes_are_all_answered() {
    let manners = Manners::of(Service::Pong);
    for (ours, original, address) in [entrance(manners, &[]), entrance_of_connector(manners)] {
        at_once(|| (0..2_000 / AT_ONCE).for_each(|_| ping(&mut connect(address))));
        assert_eq!(ours.count("stream refused") + ours.count("tunnel down"), 0);
        original.check();
    }
}

/// Clients that send a line, expect no answer and close at once.
#[test]
fn lines_of_clients_that_close_at_once_are_all_delivered() {
    let lines = std::env::var("SOCKMUX_TEST_LINES").map_or(300, |n| n.parse().expect("a number"));
    let (receptor, original, address) = entrance(Manners::of(Service::Sink), &[]);
    let began = Instant::now();
    for n in 0..lines {
        let mut client = connect(address);
        client.write_all(b"a line\n").expect("a client is heard");
        drop(client);
        let due = began + n as u32 * Duration::from_millis(20);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    original.wait_lines(lines);
    assert_eq!(receptor.count("stream refused") + receptor.count("tunnel down"), 0);
    assert!(original.most_streams() <= 60);
    original.check();
}

/// How long the stream of a client that hears its answer and closes at once is held: for half a second,
/// so that an answer under way may pause.
#[test]
fn the_stream_of_a_client_that_closes_at_once_ends_half_a_second_later() {
    let (_receptor, original, address) = entrance(Manners::of(Service::Pong), &[]);
    ping(&mut connect(address));
    let closed = Instant::now();
    original.wait_ended(1);
    let held = closed.elapsed();
    println!("held for {held:?}");
    assert!(held > Duration::from_millis(400) && held < Duration::from_secs(2), "{held:?}");
}

/// Its Nagle waits for our acknowledgement: it sends SENT, and holds back the echo behind it.
#[test]
fn a_keystroke_does_not_wait_for_a_delayed_acknowledgement() {
    let (_receptor, original, address) = entrance(Manners::of(Service::Echo), &[]);
    let mut client = connect(address);
    let mut waits: Vec<Duration> = (0..31)
        .map(|_| {
            let began = Instant::now();
            client.write_all(b"x").expect("a client is heard");
            client.read_exact(&mut [0]).expect("a client is answered");
            began.elapsed()
        })
        .collect();
    waits.sort();
    println!("keystrokes echoed in {:?} to {:?}", waits[0], waits[30]);
    assert!(waits[15] < Duration::from_millis(20), "{waits:?}");
    original.check();
}
