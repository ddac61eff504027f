//! Datagrams of SOCKS: an exit requests a port of the other end, which is played by hand, and sends
//! datagrams from it to the destinations in their headers.

use std::net::{SocketAddr, UdpSocket};

use crate::testkit::datagrams::DatagramServer;
use crate::testkit::entrance::{
    BESIDES, CONTROL, Entrance, TCP, UDP, socks_request, v4, with_header,
};
use crate::testkit::peer_v1::{DATAGRAMS, Frame, HALF_CLOSE, PeerV1, kind};

#[test]
fn datagrams_go_where_each_says_and_answers_say_where_they_are_from() {
    let servers = [DatagramServer::echo(), DatagramServer::echo()];
    let [one, other] = [&servers[0], &servers[1]].map(DatagramServer::address);
    let mut entrance = Entrance::start(&["SERVER=socks,-in", "PERMIT=socks:127.0.0.1:*"]);
    let request = entrance.associate();
    let [flow, second, _] = BESIDES;
    entrance.come(flow, request, UDP);
    let run = [with_header(one, b"1"), with_header(other, b"2"), with_header(one, b"3")];
    entrance.send(flow, &run);
    let mut got = [(); 3].map(|()| entrance.receive(flow));
    got.sort();
    let mut wanted = run;
    wanted.sort();
    assert_eq!(got, wanted);
    // Another port of the client's, one after the other.
    entrance.come(second, request, UDP);
    for payload in [&b""[..], &[7; 1400], &[8; 65_000]] {
        entrance.send(second, &[with_header(one, payload)]);
        assert!(entrance.receive(second) == with_header(one, payload), "{} bytes", payload.len());
    }
    // By name: several wait for it at once.
    let port = other.port().to_be_bytes();
    let named = |payload: &[u8]| [b"\0\0\0\x03\x09localhost", &port[..], payload].concat();
    entrance.send(flow, &[named(b"4"), named(b"5")]);
    for payload in [b"4", b"5"] {
        assert_eq!(entrance.receive(flow), with_header(other, payload));
    }
}

#[test]
fn only_those_who_were_sent_to_are_heard() {
    let server = DatagramServer::start("127.0.0.1:0", |socket, _, client| {
        let _ = socket.send_to(client.to_string().as_bytes(), client);
    });
    let mut entrance = Entrance::start(&["SERVER=socks,-in", "PERMIT=socks:127.0.0.1:*"]);
    let request = entrance.associate();
    let flow = BESIDES[0];
    entrance.come(flow, request, UDP);
    entrance.send(flow, &[with_header(server.address(), b"where am I?")]);
    let answer = entrance.receive(flow);
    let at = std::str::from_utf8(&answer[10..]).expect("an address");
    let at: SocketAddr = at.parse().expect("an address");
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    stranger.send_to(b"unasked for", at).expect("sent");
    entrance.send(flow, &[with_header(server.address(), b"and now?")]);
    assert_eq!(entrance.receive(flow), answer);
}

#[test]
fn what_is_not_permitted_or_not_there_ends_nothing() {
    let (echo, forbidden) = (DatagramServer::echo(), DatagramServer::echo_on("127.0.0.2:0"));
    let nobody = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let nobody = nobody.expect("an address");
    let mut entrance = Entrance::start(&["SERVER=socks,-in", "PERMIT=socks:127.0.0.1:*"]);
    let request = entrance.associate();
    let flow = BESIDES[0];
    entrance.come(flow, request, UDP);
    let mut fragment = with_header(echo.address(), b"x");
    fragment[2] = 1;
    let unknown = b"\0\0\0\x03\x0cnone.invalid\0\x35hello".to_vec();
    for bad in [
        with_header(forbidden.address(), b"x"),
        with_header(forbidden.address(), b"y"),
        with_header(nobody, b"x"),
        fragment,
        unknown,
        b"\0\0\0".to_vec(),
    ] {
        entrance.send(flow, &[bad]);
        entrance.send(flow, &[with_header(echo.address(), b"still here")]);
        assert_eq!(entrance.receive(flow), with_header(echo.address(), b"still here"));
    }
    assert_eq!(forbidden.came(), 0);
    let reason = entrance.exit.wait_for_reason("datagrams not passed on by the proxy");
    assert!(reason.contains("loopback"), "{reason}");
    // Once for the two that were not permitted, and perhaps for the name.
    assert!(entrance.exit.count("datagrams not passed on by the proxy") <= 2);
}

#[test]
fn flows_end_with_the_stream_that_asked_for_their_port() {
    for end in [Frame::new(kind::END, CONTROL, b""), Frame::new(kind::RESET, CONTROL, b"\0\x01")] {
        let mut entrance = Entrance::start(&["SERVER=socks,-in", "PERMIT=socks:127.0.0.1:*"]);
        let request = entrance.associate();
        entrance.come(BESIDES[0], request, UDP);
        entrance.peer.send(&end);
        let (_, reason) = entrance.reset_of(BESIDES[0]);
        assert!(reason.contains("has ended"), "{reason}");
        entrance.come(BESIDES[1], request, UDP);
        assert_eq!(entrance.reset_of(BESIDES[1]).0, 2);
        entrance.peer.check_alive(b"after it");
    }
}

#[test]
fn who_comes_by_no_port_or_one_of_the_other_kind_is_refused() {
    let mut entrance = Entrance::start(&["SERVER=socks,-in", "PERMIT=socks:127.0.0.1:*"]);
    let request = entrance.associate();
    let wrong = (u32::from_be_bytes(request) ^ 1).to_be_bytes();
    let [first, second, third] = BESIDES;
    entrance.come(first, wrong, UDP);
    let (code, reason) = entrance.reset_of(first);
    assert!(code == 2 && reason.contains("closed"), "{code} {reason}");
    entrance.come(second, request, TCP);
    let (code, reason) = entrance.reset_of(second);
    assert!(code == 2 && reason.contains("other kind"), "{code} {reason}");
    let echo = DatagramServer::echo();
    entrance.come(third, request, UDP);
    entrance.send(third, &[with_header(echo.address(), b"x")]);
    assert_eq!(entrance.receive(third), with_header(echo.address(), b"x"));
}

#[test]
fn a_client_of_a_peer_without_ports_hears_no() {
    let mut entrance = Entrance::join(&["SERVER=socks,-in"], |exit| {
        PeerV1::join_offering(HALF_CLOSE | DATAGRAMS, exit)
    });
    entrance.open(&[&[5, 1, 0][..], &socks_request(3, v4("0.0.0.0:0".parse().unwrap()))].concat());
    let answer = entrance.peer.receive_data(CONTROL, 12);
    assert!(answer[..3] == [5, 0, 5] && answer[3] != 0, "{answer:?}");
    entrance.peer.check_alive(b"after it");
}
