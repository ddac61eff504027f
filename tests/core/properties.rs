//! Properties of the codec and of the session, for any input. The fuzz targets use the same functions;
//! here proptest makes the bytes and shrinks failures.

use proptest::collection::vec;
use proptest::prelude::*;
use sockmux_uring::wire::v03::Encoder;

use crate::testkit::pure::{
    decode_target, lane_target, proxy_header_target, roundtrip_target, session_target,
};

/// Bytes that look like packets often enough to get past the first header.
fn packet_like() -> impl Strategy<Value = Vec<u8>> {
    let kinds = prop::sample::select(vec![
        0x00_u8, 0x01, 0x41, 0x02, 0x42, 0x06, 0x46, 0x07, 0x47, 0x08, 0x48, 0x09, 0x49, 0x0a,
        0x0c, 0x0d, 0xff,
    ]);
    let packet = (kinds, any::<u32>(), vec(any::<u8>(), 0..80), 0..20_u16).prop_map(
        |(kind, ids, payload, wrong)| {
            let mut out = vec![3, kind];
            out.extend_from_slice(&ids.to_be_bytes());
            // A length that is wrong now and then.
            let length = payload.len() as u16 + if wrong < 2 { wrong * 9_000 } else { 0 };
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&payload);
            out
        },
    );
    vec(packet, 0..12).prop_map(|packets| packets.concat())
}

/// Bytes that look like frames of SockMux 1.
fn frame_like() -> impl Strategy<Value = Vec<u8>> {
    let frame = (0..12_u8, any::<u32>(), vec(any::<u8>(), 0..80), 0..40_u16, 0..40_u32).prop_map(
        |(kind, number, payload, flags, wrong)| {
            let mut out = vec![0xb1, kind];
            // Flags and a length that are wrong now and then.
            out.extend_from_slice(&(if flags < 38 { flags % 2 } else { flags }).to_be_bytes());
            out.extend_from_slice(&number.to_be_bytes());
            let payload = &payload[..if matches!(kind, 4) { 0 } else { payload.len() }];
            let length = payload.len() as u32 + if wrong < 2 { wrong * 9_000_000 } else { 0 };
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(payload);
            out
        },
    );
    vec(frame, 0..12).prop_map(|frames| frames.concat())
}

/// Bytes that begin as one of the versions does, or as none.
fn proxy_header_like() -> impl Strategy<Value = Vec<u8>> {
    let line = "PROXY (TCP4|TCP6|UNKNOWN)?[0-9a-f.: ]{0,100}\r?\n?[a-z]{0,9}";
    let command = prop::sample::select(vec![0x20_u8, 0x21, 0x22]);
    let family = prop::sample::select(vec![0x00_u8, 0x11, 0x21, 0x31, 0xff]);
    let binary = (command, family, 0..60_u8, vec(any::<u8>(), 0..60)).prop_map(
        |(command, family, length, tail)| {
            let begin = b"\r\n\r\n\0\r\nQUIT\n";
            [&begin[..], &[command, family, 0, length], &tail].concat()
        },
    );
    prop_oneof![line.prop_map(String::into_bytes), binary, vec(any::<u8>(), 0..64)]
}

/// Preceded by the bytes that select the protocol and the pieces.
fn in_pieces(
    newest: impl Strategy<Value = u8>,
    bytes: impl Strategy<Value = Vec<u8>>,
) -> impl Strategy<Value = Vec<u8>> {
    (newest, any::<u8>(), bytes)
        .prop_map(|(newest, piece, bytes)| [vec![newest, piece], bytes].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_to_an_end(data in in_pieces(0..2_u8, vec(any::<u8>(), 0..600))) {
        decode_target::run(&data);
    }

    #[test]
    fn anything_like_packets_is_read_to_an_end(data in in_pieces(Just(0), packet_like())) {
        decode_target::run(&data);
    }

    #[test]
    fn anything_like_frames_is_read_to_an_end(data in in_pieces(Just(1), frame_like())) {
        decode_target::run(&data);
    }

    #[test]
    fn anything_like_a_proxy_header_is_read(cut in any::<u8>(), bytes in proxy_header_like()) {
        proxy_header_target::run(&[vec![cut], bytes].concat());
    }

    #[test]
    fn what_is_encoded_is_read_as_what_was_meant(data in vec(any::<u8>(), 0..400)) {
        roundtrip_target::run(&data);
    }

    #[test]
    fn a_session_bears_any_peer(data in vec(any::<u8>(), 0..2_000)) {
        session_target::run(&data);
    }

    #[test]
    fn a_lane_bears_any_peer_and_any_break(data in vec(any::<u8>(), 0..1_000)) {
        lane_target::run(&data);
    }

    /// Both have offered that, and all else that is chosen first is the usual.
    #[test]
    fn a_session_bears_any_peer_that_asks_for_entrances(data in vec(any::<u8>(), 0..1_000)) {
        session_target::run(&[&[0xc1][..], &[0; 15], &data].concat());
    }
}

/// A session that has input and no output buffers no more than it was asked for.
#[test]
fn a_flood_of_pings_is_bounded() {
    use sockmux_uring::session::{Moment, Session, SessionConfig};
    use sockmux_uring::wire::Frame;
    let mut session = Session::new(SessionConfig::default(), Moment(0));
    let now = Moment(1);
    session.on_frame(Frame::Hello { ids: (0, 0), offer: None, lane: None }, now).expect("a hello");
    session.on_frame(Frame::HelloOk { ids: (0, 0) }, now).expect("its answer");
    for _ in 0..10_000 {
        session
            .on_frame(Frame::Ping { ids: (255, 255), payload: &[7; 16_376] }, now)
            .expect("a ping");
    }
    assert!(session.control_backlog() < 20);
    let mut head = Vec::new();
    while session.poll_transmit(&mut head, false).is_some() {}
    let mut pong = Vec::new();
    Encoder.pong(&mut pong, (255, 255), &[7; 16_376]);
    assert!(head.windows(8).filter(|window| *window == &pong[..8]).count() <= 8);
    // Once they are out there is room again.
    session.on_frame(Frame::Ping { ids: (1, 2), payload: b"again" }, now).expect("a ping");
    assert_eq!(session.control_backlog(), 1);
}
