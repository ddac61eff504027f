//! The test vectors of `docs/protocol.md`: written by the encoder and read by the decoder.

use std::collections::BTreeMap;

use sockmux_uring::session::{Moment, Session, SessionConfig};
use sockmux_uring::wire::v03::{self, Encoder, Offer};
use sockmux_uring::wire::{
    self, CloseKind, DecodeStep, Frame, Protocol, Route, StreamRef, Transport, v1,
};

/// The fenced block, by name.
fn vectors() -> BTreeMap<String, String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md");
    let text = std::fs::read_to_string(path).expect("docs/protocol.md");
    let (_, block) = text.split_once("```vectors\n").expect("a block of vectors");
    let (block, _) = block.split_once("```").expect("its end");
    let line = |line: &str| {
        let (name, hex) = line.split_once(": ").expect("name: hex");
        (name.to_owned(), hex.to_owned())
    };
    block.lines().map(line).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What each vector is: the frame that it reads as, and how it is written.
fn cases() -> Vec<(&'static str, Frame<'static>, Vec<u8>)> {
    let mut cases = Vec::new();
    let mut case = |name, frame, write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        cases.push((name, frame, out));
    };
    let at = |text: &str| text.parse().expect("an address");
    let offer = Offer {
        newest: 0,
        half_close: true,
        datagrams: true,
        checked_line: false,
        ports: false,
        window_bytes: 524_288,
        streams_max: 8_192,
    };
    let e = Encoder;
    let none = (255, 255);
    case("hello", Frame::Hello { ids: none, offer: None }, &|out| {
        e.hello(out, "20260102-030405.060708 abc", None);
    });
    case("hello_with_offer", Frame::Hello { ids: none, offer: Some(offer) }, &|out| {
        e.hello(out, "20260102-030405.060708 a", Some(offer));
    });
    case("hello_ok", Frame::HelloOk { ids: (0x1234, 0xabcd) }, &|out| {
        e.hello_ok(out, (0x1234, 0xabcd), "20260102-030405.060708 a");
    });
    case("packet_size", Frame::PacketSize(16_384), &|out| e.packet_size(out, 16_384));
    case("first_data", Frame::FirstData, &|out| e.first_data(out));
    case("going_away", Frame::GoingAway { reason: b"drain" }, &|out| e.going_away(out, "drain"));
    let (client, entrance) = (at("127.0.0.1:40000"), at("127.0.0.1:7000"));
    let open = |from, client, entrance, first_bytes| Frame::Open {
        from: Some(from),
        client: Some(client),
        entrance: Some(entrance),
        transport: None,
        first_bytes,
    };
    case("connect", open(3, client, entrance, 5), &|out| {
        e.connect(out, 3, client, entrance, 5);
        out.extend_from_slice(b"hello");
    });
    let (client, entrance) = (at("[2001:db8::7]:443"), at("0.0.0.0:0"));
    case("connect_ipv6", open(4, client, entrance, 0), &|out| {
        e.connect(out, 4, client, entrance, 0);
    });
    let opened = Frame::Opened { from: Some(2), to: StreamRef::Ours(3), first_bytes: 0 };
    case("connected", opened, &|out| {
        e.connected(out, 2, 3, at("127.0.0.1:7001"), at("127.0.0.1:55522"), 0);
    });
    case("send", Frame::Data { to: StreamRef::Ours(2), bytes: 3 }, &|out| {
        e.data(out, 3, 2, 3);
        out.extend_from_slice(b"abc");
    });
    case("end_of_data", Frame::Data { to: StreamRef::Ours(2), bytes: 0 }, &|out| {
        e.data(out, 3, 2, 0)
    });
    case("sent", Frame::Consumed { to: StreamRef::Ours(3), bytes: 16_376 }, &|out| {
        e.consumed(out, 2, 3, 16_376)
    });
    case("urgent", Frame::Urgent { to: StreamRef::Ours(2), bytes: 1 }, &|out| {
        e.urgent(out, 3, 2, 1);
        out.push(b'!');
    });
    case("urgent_taken", Frame::UrgentTaken, &|out| e.urgent_taken(out, 2, 3, 1));
    let close =
        |from, to, reason, kind| Frame::Close { from, to: StreamRef::Ours(to), reason, kind };
    case("close", close(Some(3), 2, b"", CloseKind::Orderly), &|out| {
        e.close(out, Some(3), 2, "DO close");
    });
    case("close_reset", close(Some(3), 2, b"reset", CloseKind::Reset), &|out| {
        e.close(out, Some(3), 2, "#reset");
    });
    case("refusal_original", close(None, 3, b"No server", CloseKind::Refused), &|out| {
        e.close(out, None, 3, "No server");
    });
    case("refusal", close(None, 3, b"no exit", CloseKind::Refused), &|out| {
        e.close(out, None, 3, "#no exit");
    });
    case("not_taken", close(None, 3, b"no exit", CloseKind::NotTaken), &|out| {
        e.not_taken(out, 3, "no exit");
    });
    case("closed", Frame::Closed { from: Some(2), to: StreamRef::Ours(3) }, &|out| {
        e.closed(out, 2, 3)
    });
    case("closed_refusal", Frame::Closed { from: Some(3), to: StreamRef::None }, &|out| {
        e.closed(out, 3, 255)
    });
    case("echo", Frame::Ping { ids: none, payload: b"74353842\0" }, &|out| {
        e.ping(out, b"74353842\0");
    });
    case("echo_ok", Frame::Pong { payload: b"74353842\0" }, &|out| {
        e.pong(out, none, b"74353842\0");
    });
    cases
}

/// The same for SockMux 1.
fn cases_v1() -> Vec<(&'static str, Frame<'static>, Vec<u8>)> {
    let mut cases = Vec::new();
    let mut case = |name, frame, write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        cases.push((name, frame, out));
    };
    let at = |text: &str| text.parse().expect("an address");
    let e = wire::Encoder(Protocol::V1);
    // Slot 3, generation 1, as its opener and as the other side write it.
    let number = 0x0010_0003;
    let opener = Route { id: number, peer_id: 0, opener: true };
    let other = Route { id: 9, peer_id: number, opener: false };
    let (theirs, ours) = (StreamRef::Theirs(number), StreamRef::Ours(number));
    let (client, entrance) = (at("127.0.0.1:40000"), at("[2001:db8::7]:443"));
    let open = |transport, client, first_bytes| Frame::Open {
        from: Some(number),
        client,
        entrance: Some(entrance),
        transport: Some(transport),
        first_bytes,
    };
    let (tcp, udp) = (Transport::Tcp, Transport::Udp);
    case("v1_open", open(tcp, Some(client), 5), &|out| {
        e.open(out, opener, tcp, (client, entrance), 5);
        out.extend_from_slice(b"hello");
    });
    case("v1_open_datagrams", open(udp, Some(client), 0), &|out| {
        e.open(out, opener, udp, (client, entrance), 0);
    });
    case("v1_open_unknown_client", open(tcp, None, 0), &|out| {
        e.open(out, opener, tcp, (client, entrance), 0);
        // The family of the client's address; the rest of it is not read.
        out[16] = 0;
    });
    case("v1_opened", Frame::Opened { from: None, to: ours, first_bytes: 0 }, &|out| {
        e.opened(out, other, (at("127.0.0.1:7001"), at("127.0.0.1:55522")), 0);
    });
    case("v1_data", Frame::Data { to: theirs, bytes: 3 }, &|out| {
        e.data(out, opener, 3);
        out.extend_from_slice(b"abc");
    });
    case("v1_data_of_the_exit", Frame::Data { to: ours, bytes: 3 }, &|out| {
        e.data(out, other, 3);
        out.extend_from_slice(b"abc");
    });
    let run = |to, size_bytes, bytes| Frame::Datagrams { to, size_bytes, bytes };
    case("v1_datagrams", run(theirs, 3, 8), &|out| {
        e.datagrams(out, opener, 3, 8);
        out.extend_from_slice(b"onetwo.3");
    });
    case("v1_datagrams_empty", run(ours, 0, 0), &|out| e.datagrams(out, other, 0, 0));
    case("v1_end", Frame::End { to: theirs }, &|out| e.end(out, opener));
    let reset = |to, reason, kind| Frame::Close { from: None, to, reason, kind };
    case("v1_reset", reset(theirs, b"reset", CloseKind::Reset), &|out| {
        e.close(out, opener, Some("reset"));
    });
    case("v1_refusal", reset(ours, b"no exit", CloseKind::Refused), &|out| {
        e.refuse(out, number, "no exit");
    });
    case("v1_not_taken", reset(ours, b"no exit", CloseKind::NotTaken), &|out| {
        e.not_taken(out, number, "no exit");
    });
    case("v1_credit", Frame::Consumed { to: ours, bytes: 131_072 }, &|out| {
        e.consumed(out, other, 131_072);
    });
    case("v1_urgent", Frame::Urgent { to: theirs, bytes: 1 }, &|out| {
        e.urgent(out, opener);
        out.push(b'!');
    });
    case("v1_ping", Frame::Ping { ids: (0, 0), payload: b"74353842\0" }, &|out| {
        e.ping(out, b"74353842\0");
    });
    case("v1_pong", Frame::Pong { payload: b"74353842\0" }, &|out| {
        e.pong(out, (0, 0), b"74353842\0");
    });
    let at_port = at("192.0.2.9:50000");
    let (to, request) = (ours, 7);
    case("v1_listen", Frame::Listen { to, request, transport: udp }, &|out| {
        v1::listen(out, other, request, udp);
    });
    let listening = |result| Frame::Listening { to: theirs, request, result };
    case("v1_listening", listening(Ok(at_port)), &|out| {
        v1::listening(out, opener, request, Ok(at_port));
    });
    case("v1_listening_refused", listening(Err(b"no port is free")), &|out| {
        v1::listening(out, opener, request, Err("no port is free"));
    });
    case("v1_unlisten", Frame::Unlisten { to, request }, &|out| v1::unlisten(out, other, request));
    let new = Route::ours(0x0010_0004);
    let related = |what, client, entrance| {
        let (from, transport) = (new.id, tcp);
        let (client, entrance) = (Some(client), Some(entrance));
        Frame::Related { from, transport, what, client, entrance }
    };
    let what = wire::Relation::Port { control: number, request };
    case("v1_beside", related(what, client, at_port), &|out| {
        v1::related(out, new, tcp, what, (client, at_port));
    });
    let what = wire::Relation::Call { control: number, port: 2_000 };
    let (server, own) = (at("[2001:db8::7]:20"), at("[2001:db8::1]:50001"));
    case("v1_call", related(what, server, own), &|out| {
        v1::related(out, new, tcp, what, (server, own));
    });
    case("v1_lane_taken", Frame::LaneTaken { total_bytes: 819_200 }, &lane_taken);
    case("v1_going_away", Frame::GoingAway { reason: b"shutting down" }, &|out| {
        going_away(out, "shutting down");
    });
    cases
}

/// Only a session writes this one: half a megabyte and more has come, in frames of 200 KiB.
fn lane_taken(out: &mut Vec<u8>) {
    let now = Moment(0);
    let mut session = Session::new(SessionConfig::default(), now);
    let offer = SessionConfig::default().offer;
    session.on_frame(Frame::Hello { ids: (0, 0), offer }, now).expect("a hello");
    session.on_frame(Frame::HelloOk { ids: (0, 0) }, now).expect("its answer");
    let mut before = Vec::new();
    for _ in 0..4 {
        while session.poll_transmit(&mut before, false).is_some() {}
        // It counts whoever the payload was for, nobody included.
        let frame = Frame::Data { to: StreamRef::Ours(9), bytes: 204_800 };
        session.on_frame(frame, now).expect("a frame for nobody");
    }
    while session.poll_transmit(out, false).is_some() {}
}

/// Only a session writes this one.
fn going_away(out: &mut Vec<u8>, reason: &'static str) {
    let now = Moment(0);
    let mut session = Session::new(SessionConfig::default(), now);
    let offer = SessionConfig::default().offer;
    session.on_frame(Frame::Hello { ids: (0, 0), offer }, now).expect("a hello");
    session.on_frame(Frame::HelloOk { ids: (0, 0) }, now).expect("its answer");
    let mut before = Vec::new();
    while session.poll_transmit(&mut before, false).is_some() {}
    session.refuse_new(reason);
    session.refuse_new("a second word is not said");
    // Behind it comes the ping whose answer shows that the peer knows.
    assert!(session.poll_transmit(out, false).is_some());
    assert!(session.poll_transmit(&mut before, false).is_some());
}

#[test]
fn the_code_writes_and_reads_the_vectors_of_the_document() {
    let mut vectors = vectors();
    for (name, frame, written) in cases() {
        let documented = vectors.remove(name).unwrap_or_else(|| panic!("{name} is not there"));
        assert_eq!(hex(&written), documented, "{name}");
        let mut decoder = v03::Decoder::new();
        let (used, step) = decoder.step(&written).expect("a packet");
        assert_eq!(step, DecodeStep::Frame(frame), "{name}");
        assert_eq!(written.len() - used, frame.payload_bytes() as usize, "{name}");
    }
    for (name, frame, written) in cases_v1() {
        let documented = vectors.remove(name).unwrap_or_else(|| panic!("{name} is not there"));
        assert_eq!(hex(&written), documented, "{name}");
        let mut decoder = v1::Decoder::new();
        let (used, step) = decoder.step(&written).expect("a frame");
        assert_eq!(step, DecodeStep::Frame(frame), "{name}");
        assert_eq!(written.len() - used, frame.payload_bytes() as usize, "{name}");
    }
    assert!(vectors.is_empty(), "not tried: {vectors:?}");
}
