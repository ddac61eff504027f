//! The test vectors of `docs/protocol.md`: written by the encoder and read by the decoder.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use sockmux_uring::session::{Moment, Session, SessionConfig};
use sockmux_uring::wire::v03::{self, Encoder, LaneHello, LaneName, Offer, TakeUp};
use sockmux_uring::wire::{
    self, CloseKind, DecodeStep, EntranceState, Frame, Protocol, Route, StreamRef, Transport, v1,
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
#[derive(Default)]
struct Cases(Vec<(&'static str, Frame<'static>, Vec<u8>)>);

impl Cases {
    fn add(&mut self, name: &'static str, frame: Frame<'static>, write: &dyn Fn(&mut Vec<u8>)) {
        let mut out = Vec::new();
        write(&mut out);
        self.0.push((name, frame, out));
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// The ids of a frame that is about no stream.
const NO_IDS: (u16, u16) = (255, 255);

fn hellos(cases: &mut Cases) {
    let e = Encoder;
    let offer = Offer {
        newest: 0,
        half_close: true,
        datagrams: true,
        checked_line: false,
        ports: false,
        entrances: false,
        window_bytes: 524_288,
        streams_max: 8_192,
    };
    cases.add("hello", Frame::Hello { ids: NO_IDS, offer: None, lane: None }, &|out| {
        e.hello(out, "20260102-030405.060708 abc", None, None);
    });
    cases.add(
        "hello_with_offer",
        Frame::Hello { ids: NO_IDS, offer: Some(offer), lane: None },
        &|out| {
            e.hello(out, "20260102-030405.060708 a", Some(offer), None);
        },
    );
    let own = LaneName { number: 0x0102_0304_0506_0708, secret: *b"0123456789abcdef" };
    let lane = LaneName { number: 9, secret: *b"ghijklmnopqrstuv" };
    let again = TakeUp { lane, position: 819_200 };
    for (name, again) in [("hello_with_lane", None), ("hello_takes_up", Some(again))] {
        let lane = Some(LaneHello { own, again });
        let hello = Frame::Hello { ids: NO_IDS, offer: Some(offer), lane };
        cases.add(name, hello, &|out| e.hello(out, "a", Some(offer), lane.as_ref()));
    }
    cases.add("hello_ok", Frame::HelloOk { ids: (0x1234, 0xabcd) }, &|out| {
        e.hello_ok(out, (0x1234, 0xabcd), "20260102-030405.060708 a");
    });
    cases.add("packet_size", Frame::PacketSize(16_384), &|out| e.packet_size(out, 16_384));
    cases.add("first_data", Frame::FirstData, &|out| e.first_data(out));
    cases.add("going_away", Frame::GoingAway { reason: b"drain" }, &|out| {
        e.going_away(out, "drain")
    });
}

fn streams(cases: &mut Cases) {
    let e = Encoder;
    let (client, entrance) = (at("127.0.0.1:40000"), at("127.0.0.1:7000"));
    let open = |from, client, entrance, first_bytes| Frame::Open {
        from: Some(from),
        client: Some(client),
        entrance: Some(entrance),
        transport: None,
        first_bytes,
    };
    cases.add("connect", open(3, client, entrance, 5), &|out| {
        e.connect(out, 3, client, entrance, 5);
        out.extend_from_slice(b"hello");
    });
    let (client, entrance) = (at("[2001:db8::7]:443"), at("0.0.0.0:0"));
    cases.add("connect_ipv6", open(4, client, entrance, 0), &|out| {
        e.connect(out, 4, client, entrance, 0);
    });
    let opened = Frame::Opened { from: Some(2), to: StreamRef::Ours(3), first_bytes: 0 };
    cases.add("connected", opened, &|out| {
        e.connected(out, 2, 3, at("127.0.0.1:7001"), at("127.0.0.1:55522"), 0);
    });
    cases.add("send", Frame::Data { to: StreamRef::Ours(2), bytes: 3 }, &|out| {
        e.data(out, 3, 2, 3);
        out.extend_from_slice(b"abc");
    });
    cases.add("end_of_data", Frame::Data { to: StreamRef::Ours(2), bytes: 0 }, &|out| {
        e.data(out, 3, 2, 0)
    });
    cases.add("sent", Frame::Consumed { to: StreamRef::Ours(3), bytes: 16_376 }, &|out| {
        e.consumed(out, 2, 3, 16_376)
    });
    cases.add("urgent", Frame::Urgent { to: StreamRef::Ours(2), bytes: 1 }, &|out| {
        e.urgent(out, 3, 2, 1);
        out.push(b'!');
    });
    cases.add("urgent_taken", Frame::UrgentTaken, &|out| e.urgent_taken(out, 2, 3, 1));
}

fn ends(cases: &mut Cases) {
    let e = Encoder;
    let close =
        |from, to, reason, kind| Frame::Close { from, to: StreamRef::Ours(to), reason, kind };
    cases.add("close", close(Some(3), 2, b"", CloseKind::Orderly), &|out| {
        e.close(out, Some(3), 2, "DO close");
    });
    cases.add("close_reset", close(Some(3), 2, b"reset", CloseKind::Reset), &|out| {
        e.close(out, Some(3), 2, "#reset");
    });
    cases.add("refusal_original", close(None, 3, b"No server", CloseKind::Refused), &|out| {
        e.close(out, None, 3, "No server");
    });
    cases.add("refusal", close(None, 3, b"no exit", CloseKind::Refused), &|out| {
        e.close(out, None, 3, "#no exit");
    });
    cases.add("not_taken", close(None, 3, b"no exit", CloseKind::NotTaken), &|out| {
        e.not_taken(out, 3, "no exit");
    });
    cases.add("closed", Frame::Closed { from: Some(2), to: StreamRef::Ours(3) }, &|out| {
        e.closed(out, 2, 3)
    });
    cases.add("closed_refusal", Frame::Closed { from: Some(3), to: StreamRef::None }, &|out| {
        e.closed(out, 3, 255)
    });
}

fn echoes(cases: &mut Cases) {
    let e = Encoder;
    cases.add("echo", Frame::Ping { ids: NO_IDS, payload: b"74353842\0" }, &|out| {
        e.ping(out, b"74353842\0");
    });
    cases.add("echo_ok", Frame::Pong { payload: b"74353842\0" }, &|out| {
        e.pong(out, NO_IDS, b"74353842\0");
    });
}

/// Slot 3, generation 1.
const NUMBER: u32 = 0x0010_0003;

/// A stream as its opener and as the other side write it.
const OPENER: Route = Route { id: NUMBER, peer_id: 0, opener: true };
const OTHER: Route = Route { id: 9, peer_id: NUMBER, opener: false };
const THEIRS: StreamRef = StreamRef::Theirs(NUMBER);
const OURS: StreamRef = StreamRef::Ours(NUMBER);

const V1: wire::Encoder = wire::Encoder(Protocol::V1);

fn opens_v1(cases: &mut Cases) {
    let (client, entrance) = (at("127.0.0.1:40000"), at("[2001:db8::7]:443"));
    let open = |transport, client, first_bytes| Frame::Open {
        from: Some(NUMBER),
        client,
        entrance: Some(entrance),
        transport: Some(transport),
        first_bytes,
    };
    let (tcp, udp) = (Transport::Tcp, Transport::Udp);
    cases.add("v1_open", open(tcp, Some(client), 5), &|out| {
        V1.open(out, OPENER, tcp, (client, entrance), 5);
        out.extend_from_slice(b"hello");
    });
    cases.add("v1_open_datagrams", open(udp, Some(client), 0), &|out| {
        V1.open(out, OPENER, udp, (client, entrance), 0);
    });
    cases.add("v1_open_unknown_client", open(tcp, None, 0), &|out| {
        V1.open(out, OPENER, tcp, (client, entrance), 0);
        // The family of the client's address; the rest of it is not read.
        out[16] = 0;
    });
    cases.add("v1_opened", Frame::Opened { from: None, to: OURS, first_bytes: 0 }, &|out| {
        V1.opened(out, OTHER, (at("127.0.0.1:7001"), at("127.0.0.1:55522")), 0);
    });
}

fn streams_v1(cases: &mut Cases) {
    cases.add("v1_data", Frame::Data { to: THEIRS, bytes: 3 }, &|out| {
        V1.data(out, OPENER, 3);
        out.extend_from_slice(b"abc");
    });
    cases.add("v1_data_of_the_exit", Frame::Data { to: OURS, bytes: 3 }, &|out| {
        V1.data(out, OTHER, 3);
        out.extend_from_slice(b"abc");
    });
    let run = |to, size_bytes, bytes| Frame::Datagrams { to, size_bytes, bytes };
    cases.add("v1_datagrams", run(THEIRS, 3, 8), &|out| {
        V1.datagrams(out, OPENER, 3, 8);
        out.extend_from_slice(b"onetwo.3");
    });
    cases.add("v1_datagrams_empty", run(OURS, 0, 0), &|out| V1.datagrams(out, OTHER, 0, 0));
    cases.add("v1_end", Frame::End { to: THEIRS }, &|out| V1.end(out, OPENER));
    let reset = |to, reason, kind| Frame::Close { from: None, to, reason, kind };
    cases.add("v1_reset", reset(THEIRS, b"reset", CloseKind::Reset), &|out| {
        V1.close(out, OPENER, Some("reset"));
    });
    cases.add("v1_refusal", reset(OURS, b"no exit", CloseKind::Refused), &|out| {
        V1.refuse(out, NUMBER, "no exit");
    });
    cases.add("v1_not_taken", reset(OURS, b"no exit", CloseKind::NotTaken), &|out| {
        V1.not_taken(out, NUMBER, "no exit");
    });
    cases.add("v1_credit", Frame::Consumed { to: OURS, bytes: 131_072 }, &|out| {
        V1.consumed(out, OTHER, 131_072);
    });
    cases.add("v1_urgent", Frame::Urgent { to: THEIRS, bytes: 1 }, &|out| {
        V1.urgent(out, OPENER);
        out.push(b'!');
    });
}

fn ports_v1(cases: &mut Cases) {
    let (tcp, udp) = (Transport::Tcp, Transport::Udp);
    let at_port = at("192.0.2.9:50000");
    let (to, request) = (OURS, 7);
    cases.add("v1_listen", Frame::Listen { to, request, transport: udp }, &|out| {
        v1::listen(out, OTHER, request, udp);
    });
    let listening = |result| Frame::Listening { to: THEIRS, request, result };
    cases.add("v1_listening", listening(Ok(at_port)), &|out| {
        v1::listening(out, OPENER, request, Ok(at_port));
    });
    cases.add("v1_listening_refused", listening(Err(b"no port is free")), &|out| {
        v1::listening(out, OPENER, request, Err("no port is free"));
    });
    cases.add("v1_unlisten", Frame::Unlisten { to, request }, &|out| {
        v1::unlisten(out, OTHER, request)
    });
    let new = Route::ours(0x0010_0004);
    let related = |what, client, entrance| {
        let (from, transport) = (new.id, tcp);
        let (client, entrance) = (Some(client), Some(entrance));
        Frame::Related { from, transport, what, client, entrance }
    };
    let what = wire::Relation::Port { control: NUMBER, request };
    cases.add("v1_beside", related(what, at("127.0.0.1:40000"), at_port), &|out| {
        v1::related(out, new, tcp, what, (at("127.0.0.1:40000"), at_port));
    });
    let what = wire::Relation::Call { control: NUMBER, port: 2_000 };
    let (server, own) = (at("[2001:db8::7]:20"), at("[2001:db8::1]:50001"));
    cases.add("v1_call", related(what, server, own), &|out| {
        v1::related(out, new, tcp, what, (server, own));
    });
}

fn entrances_v1(cases: &mut Cases) {
    let (request, transport) = (7, Transport::Tcp);
    let (at_port, everywhere) = (at("192.0.2.9:8022"), at("[::]:8022"));
    cases.add("v1_entrance", Frame::Entrance { request, transport, at: everywhere }, &|out| {
        v1::entrance(out, request, transport, everywhere);
    });
    for (name, state) in [
        ("v1_entrance_open", EntranceState::Open(at_port)),
        ("v1_entrance_refused", EntranceState::Refused(b"not permitted")),
        ("v1_entrance_not_now", EntranceState::NotNow(b"in use")),
        ("v1_entrance_closed", EntranceState::Closed(b"taken over")),
    ] {
        cases.add(name, Frame::EntranceState { request, state }, &|out| {
            v1::entrance_state(out, request, state);
        });
    }
}

fn links_v1(cases: &mut Cases) {
    cases.add("v1_ping", Frame::Ping { ids: (0, 0), payload: b"74353842\0" }, &|out| {
        V1.ping(out, b"74353842\0");
    });
    cases.add("v1_pong", Frame::Pong { payload: b"74353842\0" }, &|out| {
        V1.pong(out, (0, 0), b"74353842\0");
    });
    cases.add("v1_lane_taken", Frame::LaneTaken { total_bytes: 819_200 }, &lane_taken);
    cases.add("v1_lane_read", Frame::LaneRead { position: 1_048_596 }, &lane_read);
    cases.add("v1_going_away", Frame::GoingAway { reason: b"shutting down" }, &|out| {
        going_away(out, "shutting down");
    });
}

/// Only a session writes this one: half a megabyte and more has come, in frames of 200 KiB.
/// LANE_READ of a session that has read a frame of so many bytes in all.
fn lane_read(out: &mut Vec<u8>) {
    let lane = |number| LaneHello { own: LaneName { number, ..LaneName::default() }, again: None };
    let mut session =
        Session::new(SessionConfig { lane: Some(lane(1)), ..SessionConfig::default() }, Moment(0));
    let offer = SessionConfig::default().offer;
    let hello = Frame::Hello { ids: (0, 0), offer, lane: Some(lane(2)) };
    session.on_frame(hello, Moment(0)).expect("a hello");
    session.on_frame(Frame::HelloOk { ids: (0, 0) }, Moment(0)).expect("its answer");
    while session.poll_transmit(&mut Vec::new(), true).is_some() {}
    session.read(1_048_596, Moment(0));
    session.poll_transmit(out, true).expect("a report");
}

fn lane_taken(out: &mut Vec<u8>) {
    let now = Moment(0);
    let mut session = Session::new(SessionConfig::default(), now);
    let offer = SessionConfig::default().offer;
    session.on_frame(Frame::Hello { ids: (0, 0), offer, lane: None }, now).expect("a hello");
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
    session.on_frame(Frame::Hello { ids: (0, 0), offer, lane: None }, now).expect("a hello");
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
    let (mut cases, mut cases_v1) = (Cases::default(), Cases::default());
    for add in [hellos, streams, ends, echoes] {
        add(&mut cases);
    }
    for add in [opens_v1, streams_v1, ports_v1, entrances_v1, links_v1] {
        add(&mut cases_v1);
    }
    for (name, frame, written) in cases.0 {
        let documented = vectors.remove(name).unwrap_or_else(|| panic!("{name} is not there"));
        assert_eq!(hex(&written), documented, "{name}");
        let mut decoder = v03::Decoder::new();
        let (used, step) = decoder.step(&written).expect("a packet");
        assert_eq!(step, DecodeStep::Frame(frame), "{name}");
        assert_eq!(written.len() - used, frame.payload_bytes() as usize, "{name}");
    }
    for (name, frame, written) in cases_v1.0 {
        let documented = vectors.remove(name).unwrap_or_else(|| panic!("{name} is not there"));
        assert_eq!(hex(&written), documented, "{name}");
        let mut decoder = v1::Decoder::new();
        let (used, step) = decoder.step(&written).expect("a frame");
        assert_eq!(step, DecodeStep::Frame(frame), "{name}");
        assert_eq!(written.len() - used, frame.payload_bytes() as usize, "{name}");
    }
    assert!(vectors.is_empty(), "not tried: {vectors:?}");
}
