//! The test vectors of `docs/protocol.md`: written by the encoder and read by the decoder.

use std::collections::BTreeMap;

use sockmux_uring::wire::v03::{Decoder, Encoder, Offer};
use sockmux_uring::wire::{CloseKind, Frame, Name, Step};

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
    let offer = Offer { newest: 0, half_close: true, window_bytes: 524_288, streams_max: 8_192 };
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
    let (client, entrance) = (at("127.0.0.1:40000"), at("127.0.0.1:7000"));
    let open = |from, client, entrance, first_bytes| Frame::Open {
        from: Some(from),
        client: Some(client),
        entrance: Some(entrance),
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
    let opened = Frame::Opened { from: Some(2), to: Name::Ours(3), first_bytes: 0 };
    case("connected", opened, &|out| {
        e.connected(out, 2, 3, at("127.0.0.1:7001"), at("127.0.0.1:55522"), 0);
    });
    case("send", Frame::Data { to: Name::Ours(2), bytes: 3 }, &|out| {
        e.data(out, 3, 2, 3);
        out.extend_from_slice(b"abc");
    });
    case("end_of_data", Frame::Data { to: Name::Ours(2), bytes: 0 }, &|out| e.data(out, 3, 2, 0));
    case("sent", Frame::Taken { to: Name::Ours(3), bytes: 16_376 }, &|out| {
        e.taken(out, 2, 3, 16_376)
    });
    case("urgent", Frame::Urgent { to: Name::Ours(2), bytes: 1 }, &|out| {
        e.urgent(out, 3, 2, 1);
        out.push(b'!');
    });
    case("urgent_taken", Frame::UrgentTaken, &|out| e.urgent_taken(out, 2, 3, 1));
    let close = |from, to, reason, kind| Frame::Close { from, to: Name::Ours(to), reason, kind };
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
    case("closed", Frame::Closed { to: Name::Ours(3) }, &|out| e.closed(out, 2, 3));
    case("closed_refusal", Frame::Closed { to: Name::None }, &|out| e.closed(out, 3, 255));
    case("echo", Frame::Ping { ids: none, payload: b"74353842\0" }, &|out| {
        e.ping(out, b"74353842\0");
    });
    case("echo_ok", Frame::Pong { payload: b"74353842\0" }, &|out| {
        e.pong(out, none, b"74353842\0");
    });
    cases
}

#[test]
fn the_code_writes_and_reads_the_vectors_of_the_document() {
    let mut vectors = vectors();
    for (name, frame, written) in cases() {
        let documented = vectors.remove(name).unwrap_or_else(|| panic!("{name} is not there"));
        assert_eq!(hex(&written), documented, "{name}");
        let mut decoder = Decoder::new();
        let (used, step) = decoder.step(&written).expect("a packet");
        assert_eq!(step, Step::Frame(frame), "{name}");
        assert_eq!(written.len() - used, frame.payload_bytes() as usize, "{name}");
    }
    assert!(vectors.is_empty(), "not tried: {vectors:?}");
}
