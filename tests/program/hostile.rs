//! Peers that send as much as they can of what costs something. What they get is their own share of the
//! receptor's time: a bystander's tunnel goes on.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::testkit::datagrams::{Client, DatagramServer};
use crate::testkit::net::{check_echo, connect, free_port, read_to_end_of};
use crate::testkit::peer::{self, Peer};
use crate::testkit::peer_v1::{Frame, OPEN_HEAD, PeerV1, SENDERS, kind};
use crate::testkit::protocol::Protocol;
use crate::testkit::servers::Server;
use crate::testkit::tunnel::{Tunnel, start_receptor};
use crate::testkit::{DEADLINE, eventually};

/// A debug build on a busy machine answers in much less; without shares of a turn, one answer took
/// seconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// The transport of a flow, in an OPEN.
const UDP: u8 = 1;

/// Sends `bytes` again and again until told to stop, and takes whatever comes.
fn flood(stream: TcpStream, bytes: &[u8], is_over: &AtomicBool) {
    let mut taken = stream.try_clone().expect("a second handle");
    thread::scope(|scope| {
        scope.spawn(|| read_to_end_of(&mut taken, DEADLINE));
        while !is_over.load(Ordering::Relaxed) && (&stream).write_all(bytes).is_ok() {}
        // Makes the reader end, whatever the receptor still has to send.
        let _ = stream.shutdown(Shutdown::Both);
    });
}

/// A bystander's answers come in time while a peer floods the receptor with `bytes`, and the connector
/// has not noticed.
fn is_bearable(what: &str, tunnel: &Tunnel, peer: TcpStream, bytes: &[u8]) {
    let bystander = connect(tunnel.entrance());
    check_echo(&bystander, 1, 1_000);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| flood(peer, bytes, &is_over));
        for seed in 0..20 {
            let began = Instant::now();
            check_echo(&bystander, seed, 1_000);
            let time = began.elapsed();
            if time > PATIENCE {
                is_over.store(true, Ordering::Relaxed);
                panic!("{what}: an answer took {time:?}");
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(tunnel.connector.count("tunnel down"), 0, "{what}");
}

#[test]
fn small_frames_without_end_cost_their_sender_alone() {
    let server = Server::echo();
    let tunnel = Tunnel::to(Protocol::V1, server.address());
    for (what, frame) in [
        ("pings", Frame::new(kind::PING, 0, b"12345678")),
        ("data of nobody", Frame::new(kind::DATA, 5, b"x")),
        ("credit for nobody", Frame::new(kind::CREDIT, 5, &[0, 0, 0, 1])),
        ("ends of nothing", Frame::new(kind::END, 5, b"")),
        ("resets of nothing", Frame::new(kind::RESET, 5, b"\0\x01")),
        ("ports not needed", Frame::new(kind::UNLISTEN, 5, &[0, 0, 0, 1])),
    ] {
        let peer = PeerV1::join(tunnel.address).0.stream;
        is_bearable(what, &tunnel, peer, &frame.bytes().repeat(4_000));
    }
}

#[test]
fn small_packets_without_end_cost_their_sender_alone() {
    let server = Server::echo();
    let tunnel = Tunnel::to(Protocol::V1, server.address());
    for (what, packet) in [
        ("options", peer::Frame::new(peer::kind::SET_OPTION, 0xFF, 0xFF, b"\x03\x40\0")),
        ("packets of no kind", peer::Frame::new(0x77, 3, 3, b"")),
        ("data of nobody", peer::Frame::new(peer::kind::SEND, 9, 9, b"x")),
        ("answers to no close", peer::Frame::new(peer::kind::CLOSED, 9, 9, b"")),
    ] {
        let peer = Peer::join(tunnel.address).stream;
        is_bearable(what, &tunnel, peer, &packet.bytes().repeat(4_000));
    }
}

/// Opens and resets of so many streams, in so many slots.
fn opened_and_reset(pairs: u32, slots: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for pair in 0..pairs {
        let number = ((pair / slots) << 20) | (pair % slots);
        for (kind, payload) in [(kind::OPEN, &OPEN_HEAD[..]), (kind::RESET, b"\0\x01")] {
            let frame = Frame { kind, flags: SENDERS, stream: number, payload: payload.to_vec() };
            bytes.extend(frame.bytes());
        }
    }
    bytes
}

/// Cancelled connects keep their sockets until the kernel has let go of them.
#[test]
fn streams_opened_and_reset_at_once_hold_no_descriptors() {
    const PAIRS: u32 = 3_000;
    let server = Server::echo();
    let tunnel = Tunnel::to(Protocol::V1, server.address());
    let bystander = connect(tunnel.entrance());
    let peer = PeerV1::join(tunnel.address);
    let mut most = 0;
    let before = tunnel.receptor.descriptors();
    thread::scope(|scope| {
        let (mut taken, sent) = (
            peer.0.stream.try_clone().expect("a second handle"),
            peer.0.stream.try_clone().expect("a third"),
        );
        scope.spawn(move || read_to_end_of(&mut taken, DEADLINE));
        let sender = scope.spawn(move || (&sent).write_all(&opened_and_reset(PAIRS, 500)));
        for seed in 0.. {
            let began = Instant::now();
            check_echo(&bystander, seed, 1_000);
            assert!(began.elapsed() < PATIENCE, "an answer took {:?}", began.elapsed());
            most = most.max(tunnel.receptor.descriptors());
            if sender.is_finished() {
                break;
            }
        }
        sender.join().expect("no panic").expect("all is sent");
        peer.0.stream.shutdown(Shutdown::Write).expect("sending can end");
    });
    assert!(most < before + 300, "{most} descriptors, {before} before");
    // What was received last is dealt with before the end of the connection.
    tunnel.receptor.wait_for_reason("tunnel down");
    assert_eq!(tunnel.connector.count("tunnel down"), 0);
}

/// A connect that was cancelled counts within the limits until its socket is closed, which none of these is
/// before all of them were opened.
#[test]
fn streams_whose_connects_were_cancelled_count() {
    let server = Server::echo();
    let words = [format!("DEST={}", server.address()), String::from("MAXIMA=conpch:5")];
    let receptor = start_receptor("127.0.0.1:0", &words);
    let mut peer = PeerV1::join(receptor.address_of("receptor listening"));
    receptor.wait_for("tunnel up");
    peer.0.stream.write_all(&opened_and_reset(20, 20)).expect("sent");
    let refused = receptor.wait_for("stream refused");
    let reason = refused["reason"].as_str().expect("a reason");
    assert!(reason.contains("MAXIMA=conpch:5"), "{refused}");
    // Then there is room again.
    let mut number = 100;
    let is_served = || {
        number += 2;
        peer.send(&Frame::new(kind::OPEN, number, &[&OPEN_HEAD[..], b"x"].concat()));
        // An echo, or a refusal.
        let is_last = |frame: &Frame| matches!(frame.kind, kind::DATA | kind::RESET);
        let frames = std::iter::from_fn(|| peer.receive());
        let answer = frames.filter(|frame| frame.stream == number).find(is_last);
        answer.expect("the tunnel is up").kind == kind::DATA
    };
    assert!(eventually(DEADLINE, is_served));
}

/// More than a turn takes, and the end of the connection behind it: an open in it still finds its exit.
#[test]
fn what_was_sent_before_the_end_of_the_connection_is_served() {
    let nobody = free_port([127, 0, 0, 3].into());
    let tunnel = Tunnel::to(Protocol::V1, nobody);
    let mut peer = PeerV1::join(tunnel.address);
    let mut bytes = Frame::new(kind::DATA, 5, b"x").bytes().repeat(20_000);
    bytes.extend(Frame::new(kind::DATA, 7, b"wrong by one flag").bytes());
    bytes.extend([0xFF; 12]);
    peer.0.stream.write_all(&bytes).expect("sent");
    peer.0.stream.shutdown(Shutdown::Write).expect("sending can end");
    read_to_end_of(&mut peer.0.stream, DEADLINE);
    // Not "the peer closed the connection", which stands behind it.
    let down = tunnel.receptor.wait_for("tunnel down");
    let reason = down["reason"].as_str().expect("a reason");
    assert!(reason.contains("first byte 0xff"), "{reason}");
}

/// An open of a flow of datagrams.
fn flow(number: u32) -> Vec<u8> {
    let mut head = OPEN_HEAD.to_vec();
    head[0] = UDP;
    Frame { kind: kind::OPEN, flags: SENDERS, stream: number, payload: head }.bytes()
}

/// All that the peer has sent was dealt with.
fn is_through(peer: &mut PeerV1) {
    peer.send(&Frame::new(kind::PING, 0, b"last"));
    let pong = std::iter::from_fn(|| peer.receive()).find(|frame| frame.kind == kind::PONG);
    assert!(pong.is_some(), "the tunnel is up");
}

/// One table has the flows of all tunnels.
#[test]
fn flows_without_end_push_out_those_of_their_sender_alone() {
    const TABLE: u32 = 8;
    // Says where each datagram came from: the socket of the flow.
    let server = DatagramServer::start("127.0.0.1:0", |socket, _, from| {
        let _ = socket.send_to(from.to_string().as_bytes(), from);
    });
    let exit = [format!("DEST={}/udp", server.address()), format!("SOXCONF=udpflows:{TABLE}")];
    let tunnel = Tunnel::start(Protocol::V1, &exit, &["PORT=127.0.0.1:0/udp"]);
    let clients = [(); 2].map(|()| Client::of(tunnel.entrance()));
    let ask = |client: &Client| {
        client.send(b"?");
        client.receive()
    };
    let before = clients.each_ref().map(ask);
    let mut peer = PeerV1::join(tunnel.address);
    peer.0.stream.write_all(&(0..10 * TABLE).flat_map(flow).collect::<Vec<_>>()).expect("sent");
    is_through(&mut peer);
    assert_eq!(clients.each_ref().map(ask), before, "flows of another tunnel have ended");
}

/// What was received of a peer's opens waits for their turn, and meanwhile nothing more is received: the buffers
/// are there for the others.
#[test]
fn opens_that_wait_leave_receive_buffers_to_others() {
    /// Some 280 turns of them.
    const PAIRS: u32 = 6_000;
    const LAST: &[u8; 8] = &[0xA7; 8];
    let words = [format!("DEST={}", free_port([127, 0, 0, 1].into())), "-v".to_owned()];
    let mut receptor = start_receptor("127.0.0.1:0", &words);
    let peer = PeerV1::join(receptor.address_of("receptor listening")).0.stream;
    let is_over = thread::scope(|scope| {
        scope.spawn(|| {
            let last = Frame::new(kind::PING, 0, LAST).bytes();
            [opened_and_reset(PAIRS, 1_000), last]
                .iter()
                .all(|bytes| (&peer).write_all(bytes).is_ok())
        });
        let (mut taken, mut heard) = (BufReader::new(&peer), Vec::new());
        while taken.read_until(LAST[0], &mut heard).is_ok_and(|bytes| bytes > 0) {
            if heard.ends_with(LAST) {
                return true;
            }
        }
        false
    });
    assert!(is_over, "{}", receptor.log_text());
    receptor.terminate();
    receptor.wait_exit(DEADLINE);
    let counts = receptor.wait_for("driver counts");
    // One more in each turn, it was.
    assert!(counts["receives"].as_u64().is_some_and(|times| times < 60), "{counts}");
}
