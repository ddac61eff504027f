//! A single session that is fed frame by frame.

use sockmux_uring::session::{Moment, Session, SessionConfig};
use sockmux_uring::wire::v03::{LaneHello, LaneName, Offer, SECRET_BYTES};
use sockmux_uring::wire::{DecodeStep, Frame, v1};

/// The time at which a test begins.
pub(crate) const START: Moment = Moment(1_000);

/// The configuration of a native session with this newest protocol; 0 is 0.3.
pub(crate) fn ours(newest: u8) -> SessionConfig {
    let config = SessionConfig::default();
    SessionConfig { offer: config.offer.map(|offer| Offer { newest, ..offer }), ..config }
}

/// What an end has issued for a lane.
pub(crate) fn lane_name(number: u8) -> LaneName {
    LaneName { number: number.into(), secret: [number; SECRET_BYTES] }
}

/// The configuration of a session of SockMux 1 that outlives its connection, and is never silent too long.
pub(crate) fn with_lane(own: u8) -> SessionConfig {
    let lane = LaneHello { own: lane_name(own), again: None };
    SessionConfig { lane: Some(lane), keepalive: None, ..ours(1) }
}

/// A session of lane 1 whose hello is done, with a peer that takes part and calls it 2. What it had to send is
/// not taken yet.
pub(crate) fn up_with_lane() -> Session {
    let mut session = Session::new(with_lane(1), START);
    let lane = Some(LaneHello { own: lane_name(2), again: None });
    let hello = Frame::Hello { ids: (0, 0), offer: ours(1).offer, lane };
    session.on_frame(hello, START).expect("a hello");
    session.on_frame(Frame::HelloOk { ids: (0, 0) }, START).expect("its answer");
    session
}

/// A session whose hello is done, with a peer of this offer.
pub(crate) fn up(config: SessionConfig, peer: Option<Offer>) -> Session {
    let mut session = Session::new(config, START);
    session
        .on_frame(Frame::Hello { ids: (0, 0), offer: peer, lane: None }, START)
        .expect("a hello");
    session.on_frame(Frame::HelloOk { ids: (0, 0) }, START).expect("its answer");
    session.on_frame(Frame::PacketSize(16_384), START).expect("an option");
    sent(&mut session);
    session
}

/// Type bytes of all frames that the session has to send now.
pub(crate) fn sent(session: &mut Session) -> Vec<u8> {
    let mut kinds = Vec::new();
    let mut head = Vec::new();
    while session.poll_transmit(&mut head, true).is_some() {
        kinds.push(head[1]);
        head.clear();
    }
    kinds
}

/// All frames of SockMux 1 that the session has to send now, as a peer reads them.
pub(crate) fn frames(session: &mut Session) -> Vec<String> {
    let mut out = Vec::new();
    while session.poll_transmit(&mut out, true).is_some() {}
    let mut decoder = v1::Decoder::new();
    let (mut rest, mut frames) = (&out[..], Vec::new());
    while let (n, DecodeStep::Frame(frame)) = decoder.step(rest).expect("frames") {
        frames.push(format!("{frame:?}"));
        rest = &rest[n..];
    }
    frames
}
