//! Fuzz target: the decoder reads what the encoder has written.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use sockmux_uring::limits::DATAGRAM_BYTES_MAX;
use sockmux_uring::wire::v1::{CONTROL_BYTES_MAX, DATA_BYTES_MAX, FIRST_BYTES_MAX};
use sockmux_uring::wire::v03::{Encoder, Offer, PAYLOAD_BYTES_MAX};
use sockmux_uring::wire::{
    self, CloseKind, EntranceState, Frame, Protocol, Relation, Route, StreamRef, Transport, v1,
};

use super::bytes::Bytes;
use super::choice::Choice;
use super::reading::{HELLO_PACKETS, hello, read};

fn address(choice: &mut impl Choice) -> SocketAddr {
    let port = choice.below(65_536) as u16;
    if choice.below(2) == 0 {
        SocketAddr::new(Ipv4Addr::from(choice.below(1 << 32) as u32).into(), port)
    } else {
        // Mapped addresses are written as the IPv4 addresses they stand for.
        let segments = [0x2001_u16; 8].map(|first| first ^ choice.below(65_536) as u16 & 0x0fff);
        SocketAddr::new(Ipv6Addr::from(segments).into(), port)
    }
}

fn id(choice: &mut impl Choice) -> u16 {
    let id = choice.below(65_536) as u16;
    if id == 255 { 2 } else { id }
}

fn text(choice: &mut impl Choice, most: u64) -> String {
    let length = choice.below(most + 1);
    (0..length).map(|_| char::from(b'!' + choice.below(90) as u8)).collect()
}

/// One packet of the encoder, with payload, and the frame expected from the decoder.
fn packet(choice: &mut impl Choice, out: &mut Vec<u8>, payload: &mut Vec<u8>) -> String {
    let (from, to) = (id(choice), id(choice));
    let frame = match choice.below(14) {
        0 => said_hello(choice, out),
        1 => {
            let ids = (choice.below(65_536) as u16, choice.below(65_536) as u16);
            Encoder.hello_ok(out, ids, &text(choice, 300));
            Frame::HelloOk { ids }
        }
        2 => {
            let size = 129 + choice.below(16_384 - 128) as u16;
            Encoder.packet_size(out, size);
            Frame::PacketSize(size)
        }
        3 => {
            Encoder.first_data(out);
            Frame::FirstData
        }
        4 => connect(choice, out, from),
        5 => connected(choice, out, from, to),
        6 => {
            let bytes = choice.below(u64::from(PAYLOAD_BYTES_MAX) + 1) as u32;
            Encoder.data(out, from, to, bytes);
            Frame::Data { to: StreamRef::Ours(u32::from(to)), bytes }
        }
        7 => {
            let bytes = choice.below(u64::MAX);
            Encoder.consumed(out, from, to, bytes);
            Frame::Consumed { to: StreamRef::Ours(u32::from(to)), bytes }
        }
        8 => {
            let bytes = choice.below(100) as u32;
            Encoder.urgent(out, from, to, bytes);
            Frame::Urgent { to: StreamRef::Ours(u32::from(to)), bytes }
        }
        9 => {
            Encoder.urgent_taken(out, from, to, choice.below(1_000));
            Frame::UrgentTaken
        }
        10 => return close(choice, out, from, to),
        11 => {
            Encoder.closed(out, from, to);
            Frame::Closed { from: Some(u32::from(from)), to: StreamRef::Ours(u32::from(to)) }
        }
        12 => {
            let text = text(choice, 100);
            Encoder.ping(out, text.as_bytes());
            return format!("{:?}", Frame::Ping { ids: (255, 255), payload: text.as_bytes() });
        }
        _ => {
            let text = text(choice, 100);
            Encoder.pong(out, (from, to), text.as_bytes());
            return format!("{:?}", Frame::Pong { payload: text.as_bytes() });
        }
    };
    with_payload(frame, out, payload)
}

/// Appends the payload that a frame announces. Returns the frame as text.
fn with_payload(frame: Frame<'_>, out: &mut Vec<u8>, payload: &mut Vec<u8>) -> String {
    let behind: Vec<u8> = (0..frame.payload_bytes()).map(|n| n as u8).collect();
    out.extend_from_slice(&behind);
    payload.extend_from_slice(&behind);
    format!("{frame:?}")
}

fn said_hello(choice: &mut impl Choice, out: &mut Vec<u8>) -> Frame<'static> {
    let offer = (choice.below(2) == 1).then(|| Offer {
        newest: choice.below(256) as u8,
        half_close: choice.pick(&[false, true]),
        datagrams: choice.pick(&[false, true]),
        checked_line: false,
        ports: false,
        entrances: false,
        window_bytes: choice.below(1 << 32) as u32,
        streams_max: choice.below(1 << 32) as u32,
    });
    let text = text(choice, 300);
    Encoder.hello(out, &text, offer, None);
    Frame::Hello { ids: (255, 255), offer, lane: None }
}

fn connect(choice: &mut impl Choice, out: &mut Vec<u8>, from: u16) -> Frame<'static> {
    let (client, entrance) = (address(choice), address(choice));
    let room = PAYLOAD_BYTES_MAX - Encoder.open_text_bytes(client, entrance);
    let first_bytes = choice.below(u64::from(room) + 1) as u32;
    Encoder.connect(out, from, client, entrance, first_bytes);
    let (client, entrance) = (Some(client), Some(entrance));
    Frame::Open { from: Some(u32::from(from)), client, entrance, transport: None, first_bytes }
}

fn connected(choice: &mut impl Choice, out: &mut Vec<u8>, from: u16, to: u16) -> Frame<'static> {
    let (server, own) = (address(choice), address(choice));
    let first_bytes = choice.below(2_000) as u32;
    Encoder.connected(out, from, to, server, own, first_bytes);
    let to = StreamRef::Ours(u32::from(to));
    Frame::Opened { from: Some(u32::from(from)), to, first_bytes }
}

fn close(choice: &mut impl Choice, out: &mut Vec<u8>, from: u16, to: u16) -> String {
    let said = text(choice, 200);
    let said = said.trim_start_matches('#');
    let (own, text, reason, kind) = match choice.below(4) {
        0 => (Some(from), String::from("DO close"), "", CloseKind::Orderly),
        1 => (None, String::from("No server"), "No server", CloseKind::Refused),
        2 if !said.is_empty() => (None, format!("#{said}"), said, CloseKind::Refused),
        3 if !said.is_empty() => (Some(from), format!("#{said}"), said, CloseKind::Reset),
        _ => (Some(from), String::from("#"), "", CloseKind::Orderly),
    };
    Encoder.close(out, own, to, &text);
    format!(
        "{:?}",
        Frame::Close {
            from: own.map(u32::from),
            to: StreamRef::Ours(u32::from(to)),
            reason: reason.as_bytes(),
            kind
        }
    )
}

fn below_2_32(choice: &mut impl Choice) -> u32 {
    choice.below(1 << 32) as u32
}

fn transport(choice: &mut impl Choice) -> Transport {
    choice.pick(&[Transport::Tcp, Transport::Udp])
}

/// A frame of SockMux 1 that opens a stream.
fn open_v1(choice: &mut impl Choice, out: &mut Vec<u8>, number: u32) -> Frame<'static> {
    let e = wire::Encoder(Protocol::V1);
    let (client, entrance) = (address(choice), address(choice));
    let first_bytes = choice.below(u64::from(FIRST_BYTES_MAX) + 1) as u32;
    let route = Route { id: number, peer_id: 0, opener: true };
    let transport = transport(choice);
    let first_bytes = if transport == Transport::Udp { 0 } else { first_bytes };
    e.open(out, route, transport, (client, entrance), first_bytes);
    let (client, entrance) = (Some(client), Some(entrance));
    let transport = Some(transport);
    Frame::Open { from: Some(number), client, entrance, transport, first_bytes }
}

fn close_v1(choice: &mut impl Choice, out: &mut Vec<u8>, route: Route, to: StreamRef) -> String {
    let e = wire::Encoder(Protocol::V1);
    let number = if route.opener { route.id } else { route.peer_id };
    let reason = text(choice, u64::from(CONTROL_BYTES_MAX) - 2);
    let (to, kind) = match choice.below(3) {
        0 => {
            e.close(out, route, Some(&reason));
            (to, CloseKind::Reset)
        }
        1 => {
            e.refuse(out, number, &reason);
            (StreamRef::Ours(number), CloseKind::Refused)
        }
        _ => {
            e.not_taken(out, number, &reason);
            (StreamRef::Ours(number), CloseKind::NotTaken)
        }
    };
    let reason = reason.as_bytes();
    format!("{:?}", Frame::Close { from: None, to, reason, kind })
}

fn listening(choice: &mut impl Choice, out: &mut Vec<u8>, route: Route, to: StreamRef) -> String {
    let request = below_2_32(choice);
    let reason = text(choice, 512 - 24);
    let at = address(choice);
    let is_there = choice.below(2) == 1;
    v1::listening(out, route, request, if is_there { Ok(at) } else { Err(&reason) });
    let result = if is_there { Ok(at) } else { Err(reason.as_bytes()) };
    format!("{:?}", Frame::Listening { to, request, result })
}

fn related(choice: &mut impl Choice, out: &mut Vec<u8>, number: u32) -> Frame<'static> {
    let (client, entrance) = (address(choice), address(choice));
    let control = below_2_32(choice);
    let (transport, what) = if choice.below(2) == 0 {
        (transport(choice), Relation::Port { control, request: below_2_32(choice) })
    } else {
        let port = choice.below(65_536) as u16;
        (Transport::Tcp, Relation::Call { control, port })
    };
    v1::related(out, Route::ours(number), transport, what, (client, entrance));
    let (client, entrance) = (Some(client), Some(entrance));
    Frame::Related { from: number, transport, what, client, entrance }
}

fn entrance(choice: &mut impl Choice, out: &mut Vec<u8>, request: u32) -> String {
    let (at, transport) = (address(choice), transport(choice));
    let reason = text(choice, 512 - 28);
    let state = match choice.below(5) {
        0 => {
            v1::entrance(out, request, transport, at);
            return format!("{:?}", Frame::Entrance { request, transport, at });
        }
        1 => EntranceState::Open(at),
        2 => EntranceState::Refused(reason.as_bytes()),
        3 => EntranceState::NotNow(reason.as_bytes()),
        _ => EntranceState::Closed(reason.as_bytes()),
    };
    v1::entrance_state(out, request, state);
    format!("{:?}", Frame::EntranceState { request, state })
}

/// One frame of SockMux 1, as [`packet`].
fn frame_v1(choice: &mut impl Choice, out: &mut Vec<u8>, payload: &mut Vec<u8>) -> String {
    let e = wire::Encoder(Protocol::V1);
    let number = below_2_32(choice);
    let opener = choice.below(2) == 1;
    let (id, peer_id) = if opener { (number, 9) } else { (9, number) };
    let route = Route { id, peer_id, opener };
    let to = if opener { StreamRef::Theirs(number) } else { StreamRef::Ours(number) };
    let frame = match choice.below(15) {
        0 => open_v1(choice, out, number),
        1 => {
            e.opened(out, route, (address(choice), address(choice)), 0);
            Frame::Opened { from: None, to, first_bytes: 0 }
        }
        2 => {
            let most = choice.pick(&[u64::from(DATA_BYTES_MAX), 100, 5_000]);
            let bytes = 1 + choice.below(most) as u32;
            e.data(out, route, bytes);
            Frame::Data { to, bytes }
        }
        3 => {
            let bytes = choice.below(1 << 32);
            e.consumed(out, route, bytes);
            Frame::Consumed { to, bytes }
        }
        4 => {
            e.end(out, route);
            Frame::End { to }
        }
        5 => {
            e.urgent(out, route);
            Frame::Urgent { to, bytes: 1 }
        }
        6 => return close_v1(choice, out, route, to),
        7 => {
            let size_bytes = choice.below(u64::from(DATAGRAM_BYTES_MAX) + 1) as u32;
            let more_bytes = choice.below(u64::from(DATAGRAM_BYTES_MAX - size_bytes) + 1) as u32;
            let bytes = if size_bytes == 0 { 0 } else { size_bytes + more_bytes };
            e.datagrams(out, route, size_bytes, bytes);
            Frame::Datagrams { to, size_bytes, bytes }
        }
        8 => {
            e.datagrams(out, route, 0, 0);
            Frame::Datagrams { to, size_bytes: 0, bytes: 0 }
        }
        9 => {
            let text = text(choice, u64::from(CONTROL_BYTES_MAX));
            e.ping(out, text.as_bytes());
            return format!("{:?}", Frame::Ping { ids: (0, 0), payload: text.as_bytes() });
        }
        10 => {
            let (request, transport) = (below_2_32(choice), transport(choice));
            v1::listen(out, route, request, transport);
            Frame::Listen { to, request, transport }
        }
        11 => return listening(choice, out, route, to),
        12 if number & 3 == 3 => return entrance(choice, out, number),
        12 => {
            let request = below_2_32(choice);
            v1::unlisten(out, route, request);
            Frame::Unlisten { to, request }
        }
        13 => related(choice, out, number),
        _ => {
            let text = text(choice, u64::from(CONTROL_BYTES_MAX));
            e.pong(out, (1, 2), text.as_bytes());
            return format!("{:?}", Frame::Pong { payload: text.as_bytes() });
        }
    };
    with_payload(frame, out, payload)
}

/// Encoded frames are decoded to equal frames, in any pieces. The first byte selects the protocol.
pub(crate) fn run(data: &[u8]) {
    let mut choice = Bytes(data);
    let newest = choice.below(2) as u8;
    let piece = 1 + choice.below(2_000) as usize;
    let (mut bytes, mut payload) = (hello(newest), Vec::new());
    let (mut frames, _, _) = read(newest, [&bytes[..]].into_iter());
    assert_eq!(frames.len(), usize::from(newest) * HELLO_PACKETS);
    while !choice.0.is_empty() && frames.len() < 200 {
        frames.push(match newest {
            0 => packet(&mut choice, &mut bytes, &mut payload),
            _ => frame_v1(&mut choice, &mut bytes, &mut payload),
        });
    }
    let expected = (frames, payload, Ok(()));
    assert_eq!(read(newest, [&bytes[..]].into_iter()), expected);
    assert_eq!(read(newest, bytes.chunks(piece)), expected, "in pieces of {piece}");
}
