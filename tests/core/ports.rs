//! Remote forwards: requests, answers and checks of a session.

use std::net::SocketAddr;

use sockmux_uring::limits::PORTS_PER_STREAM;
use sockmux_uring::session::{
    Ended, Event, OpenError, Related, Session, SessionConfig, StreamKey, TunnelError,
};
use sockmux_uring::wire::v03::Offer;
use sockmux_uring::wire::{self, CloseKind, DecodeStep, Decoder, Frame, StreamRef, Transport};

use crate::testkit::pure::lone::{START, frames, ours, sent, up};

const OPEN: u8 = 0x01;
const DATA: u8 = 0x03;
const RESET: u8 = 0x05;
const LISTEN: u8 = 0x0d;
const LISTENING: u8 = 0x0e;
const UNLISTEN: u8 = 0x0f;
const BESIDE: u8 = 0x10;

/// The peer's first stream: slot 0, generation 1. Ours has the same number.
const FIRST: u32 = 1 << 20;
const SECOND: u32 = 1 << 20 | 1;

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn pair() -> (SocketAddr, SocketAddr) {
    (at("192.0.2.1:40000"), at("[2001:db8::7]:20"))
}

fn events(session: &mut Session) -> Vec<Event> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

fn take(session: &mut Session, frame: Frame<'_>) -> Vec<Event> {
    session.on_frame(frame, START).expect("a frame that may come");
    events(session)
}

/// An exit: a session whose peer has begun a stream, number [`FIRST`], user 7.
fn exit() -> (Session, StreamKey) {
    let mut session = up(ours(1), ours(1).offer);
    events(&mut session);
    let (client, entrance) = (None, None);
    let (from, transport) = (Some(FIRST), Some(Transport::Tcp));
    let open = Frame::Open { from, client, entrance, transport, first_bytes: 0 };
    let [Event::Incoming { key, related: None, .. }] = take(&mut session, open)[..] else {
        panic!("a stream comes in");
    };
    session.attach(key, 7);
    session.accept(key, pair().0, pair().1);
    sent(&mut session);
    (session, key)
}

/// An entrance: a session that has begun a stream, number [`FIRST`], user 7.
fn entrance() -> (Session, StreamKey) {
    let mut session = up(ours(1), ours(1).offer);
    let key = session.open(7, pair().0, pair().1).expect("a stream");
    events(&mut session);
    assert_eq!(sent(&mut session), [OPEN]);
    (session, key)
}

fn listen(request: u32) -> Frame<'static> {
    Frame::Listen { to: StreamRef::Ours(FIRST), request, transport: Transport::Tcp }
}

fn unlisten(request: u32) -> Frame<'static> {
    Frame::Unlisten { to: StreamRef::Ours(FIRST), request }
}

fn listening(request: u32, result: Result<SocketAddr, &[u8]>) -> Frame<'_> {
    Frame::Listening { to: StreamRef::Theirs(FIRST), request, result }
}

fn related(from: u32, what: wire::Relation) -> Frame<'static> {
    let (client, entrance) = (Some(pair().0), Some(pair().1));
    Frame::Related { from, transport: Transport::Tcp, what, client, entrance }
}

fn asked(request: u32) -> Event {
    Event::PortAsked { user: 7, request, transport: Transport::Tcp }
}

#[test]
fn an_exit_asks_and_is_answered() {
    let (mut session, key) = exit();
    assert!(session.peer_opens_ports());
    session.ask_port(key, 1, Transport::Tcp).expect("asked");
    session.ask_port(key, 2, Transport::Udp).expect("asked");
    let to = StreamRef::Ours(FIRST);
    let listen = |request, transport| format!("{:?}", Frame::Listen { to, request, transport });
    assert_eq!(frames(&mut session), [listen(1, Transport::Tcp), listen(2, Transport::Udp)]);
    let given = |request, result| [Event::PortGiven { user: 7, request, result }];
    let address = pair().1;
    let refused = take(&mut session, listening(2, Err(b"none free")));
    assert_eq!(refused, given(2, Err(String::from("none free"))));
    assert_eq!(take(&mut session, listening(1, Ok(address))), given(1, Ok(address)));
    let what = wire::Relation::Port { control: FIRST, request: 1 };
    let came = take(&mut session, related(SECOND, what));
    let [Event::Incoming { key, client, entrance, transport, related }] = came[..] else {
        panic!("{came:?}");
    };
    assert_eq!((client, entrance), (Some(pair().0), Some(pair().1)));
    assert_eq!(transport, Some(Transport::Tcp));
    assert_eq!(related, Some(Related::Port { user: 7, request: 1 }));
    session.attach(key, 8);
    assert_eq!(session.stream_count(), 2);
    // From here on it is a stream as any other.
    let data = Frame::Data { to: StreamRef::Theirs(SECOND), bytes: 10 };
    session.on_frame(data, START).expect("data");
    assert_eq!(session.windows(key).expect("a stream").backlog_bytes, 10);
}

#[test]
fn an_entrance_is_asked_and_answers() {
    let (mut session, key) = entrance();
    assert_eq!(take(&mut session, listen(1)), [asked(1)]);
    assert_eq!(take(&mut session, listen(2)), [asked(2)]);
    let address = at("192.0.2.9:50000");
    session.answer_port(key, 2, Ok(address));
    session.answer_port(key, 1, Err("none\nfree"));
    let to = StreamRef::Theirs(FIRST);
    let answer = |request, result| format!("{:?}", Frame::Listening { to, request, result });
    let answers = [answer(2, Ok(address)), answer(1, Err(b"nonefree"))];
    assert_eq!(frames(&mut session), answers);
    session.answer_port(key, 2, Ok(address));
    assert!(sent(&mut session).is_empty(), "an answer is said once");
    let new = session.open_related(8, (key, 2), pair(), Transport::Tcp).expect("a stream");
    session.data_ready(new, 100);
    let mut out = Vec::new();
    session.poll_transmit(&mut out, true).expect("BESIDE");
    let mut decoder = sockmux_uring::wire::v1::Decoder::new();
    let (used, step) = decoder.step(&out).expect("a frame");
    let what = wire::Relation::Port { control: FIRST, request: 2 };
    assert_eq!((used, step), (out.len(), DecodeStep::Frame(related(SECOND, what))));
    assert_eq!(sent(&mut session), [DATA], "it follows at once, but not within");
}

#[test]
fn an_exit_has_a_client_called() {
    let (mut session, key) = exit();
    let new = session.call(8, (key, 2_000), pair()).expect("a stream");
    let what = wire::Relation::Call { control: FIRST, port: 2_000 };
    assert_eq!(frames(&mut session), [format!("{:?}", related(FIRST | 1, what))]);
    let refused = CloseKind::Refused;
    let to = StreamRef::Ours(SECOND);
    let reset = Frame::Close { from: None, to, reason: b"not permitted", kind: refused };
    let how = Ended::Refused(String::from("not permitted"));
    assert_eq!(take(&mut session, reset), [Event::Ended { user: 8, how }]);
    assert_eq!(session.user_of(new), None);

    let (mut session, _) = entrance();
    let came = take(&mut session, related(SECOND, what));
    let [Event::Incoming { related, .. }] = came[..] else { panic!("{came:?}") };
    assert_eq!(related, Some(Related::Call { user: 7, port: 2_000 }));
}

/// A peer may guess its number.
#[test]
fn what_is_asked_before_a_stream_beside_another_is_told_of_is_not_forgotten() {
    let (mut session, key) = entrance();
    let new = session.open_related(8, (key, 1), pair(), Transport::Tcp).expect("a stream");
    let (to, request, transport) = (StreamRef::Ours(SECOND), 5, Transport::Tcp);
    let asked = take(&mut session, Frame::Listen { to, request, transport });
    assert_eq!(asked, [Event::PortAsked { user: 8, request, transport }]);
    assert_eq!(sent(&mut session), [BESIDE]);
    session.answer_port(new, request, Err("none"));
    assert_eq!(sent(&mut session), [LISTENING]);
}

#[test]
fn datagrams_come_in_beside_a_stream() {
    let (mut session, key) = entrance();
    let new = session.open_related(8, (key, 1), pair(), Transport::Udp).expect("a stream");
    let queued = session.datagrams_ready(new, 10, 100, START);
    assert!(queued.taken);
    assert_eq!(sent(&mut session), [BESIDE, 0x0c]);
    let (mut session, _) = exit();
    let what = wire::Relation::Port { control: FIRST, request: 1 };
    let (client, entrance) = (Some(pair().0), Some(pair().1));
    let frame = Frame::Related { from: SECOND, transport: Transport::Udp, what, client, entrance };
    let came = take(&mut session, frame);
    let [Event::Incoming { key, transport, .. }] = came[..] else { panic!("{came:?}") };
    assert_eq!(transport, Some(Transport::Udp));
    session.attach_datagrams(key, 8);
    let run = Frame::Datagrams { to: StreamRef::Theirs(SECOND), size_bytes: 10, bytes: 100 };
    session.on_frame(run, START).expect("datagrams");
    assert_eq!(session.counters().payload_bytes_in, 100);
}

#[test]
fn a_port_that_is_closed_before_its_answer_is_answered_all_the_same() {
    let (mut session, key) = entrance();
    take(&mut session, listen(1));
    let closed = || [Event::PortClosed { user: 7, request: 1 }];
    assert_eq!(take(&mut session, unlisten(1)), closed());
    assert_eq!(sent(&mut session), [LISTENING]);
    session.answer_port(key, 1, Ok(pair().0));
    assert!(sent(&mut session).is_empty(), "that was not asked any more");
    assert_eq!(take(&mut session, listen(1)), [asked(1)]);
    session.answer_port(key, 1, Ok(pair().0));
    assert_eq!(sent(&mut session), [LISTENING]);
    assert_eq!(take(&mut session, unlisten(1)), closed());
    assert!(sent(&mut session).is_empty());
    // The engine ignores one that it did not request.
    assert_eq!(take(&mut session, unlisten(1)), closed());
}

#[test]
fn an_answer_is_not_taken_for_that_of_the_same_number_again() {
    let (mut session, key) = exit();
    session.ask_port(key, 1, Transport::Tcp).expect("asked");
    session.close_port(key, 1);
    session.ask_port(key, 1, Transport::Tcp).expect("asked again");
    assert_eq!(sent(&mut session), [LISTEN, UNLISTEN, LISTEN]);
    let what = wire::Relation::Port { control: FIRST, request: 1 };
    assert!(take(&mut session, listening(1, Ok(pair().0))).is_empty(), "of the first one");
    assert!(take(&mut session, related(SECOND, what)).is_empty(), "of the first one");
    assert_eq!(sent(&mut session), [RESET]);
    let given = Event::PortGiven { user: 7, request: 1, result: Ok(pair().1) };
    assert_eq!(take(&mut session, listening(1, Ok(pair().1))), [given]);
    assert_eq!(take(&mut session, related(SECOND, what)).len(), 1);
    assert_eq!(session.counters().unsuited_frames, 0);
}

#[test]
fn an_answer_that_was_not_asked_for_is_dropped() {
    let (mut session, _) = exit();
    assert!(take(&mut session, listening(1, Ok(pair().0))).is_empty());
    assert_eq!(session.counters().unsuited_frames, 1);
}

#[test]
fn a_refusal_without_a_reason_is_told_with_one() {
    let (mut session, key) = exit();
    session.ask_port(key, 1, Transport::Tcp).expect("asked");
    let given = take(&mut session, listening(1, Err(b"")));
    let [Event::PortGiven { result: Err(why), .. }] = &given[..] else { panic!("{given:?}") };
    assert!(!why.is_empty());
    session.ask_port(key, 2, Transport::Tcp).expect("asked");
    let given = take(&mut session, listening(2, Err(&[0xff; 400])));
    let [Event::PortGiven { result: Err(why), .. }] = &given[..] else { panic!("{given:?}") };
    assert_eq!(why.chars().count(), 200);
}

#[test]
fn few_ports_of_a_stream_are_asked_for_at_once() {
    let limit = PORTS_PER_STREAM;
    let (mut session, key) = exit();
    for request in 0..limit as u32 {
        session.ask_port(key, request, Transport::Tcp).expect("asked");
    }
    let too_many = Err(OpenError::TooManyPorts { limit });
    assert_eq!(session.ask_port(key, 9, Transport::Tcp), too_many);
    // The peer has still to answer.
    session.close_port(key, 0);
    assert_eq!(session.ask_port(key, 9, Transport::Tcp), too_many);
    take(&mut session, listening(0, Err(b"closed")));
    session.ask_port(key, 9, Transport::Tcp).expect("asked");

    let (mut session, _) = entrance();
    for request in 0..limit as u32 {
        take(&mut session, listen(request));
    }
    assert_eq!(session.on_frame(listen(9), START), Err(TunnelError::TooManyPorts { limit }));
}

#[test]
fn a_number_that_is_being_asked_for_is_refused() {
    let (mut session, key) = entrance();
    take(&mut session, listen(1));
    assert!(take(&mut session, listen(1)).is_empty());
    assert_eq!(sent(&mut session), [LISTENING]);
    session.answer_port(key, 1, Ok(pair().0));
    assert_eq!(sent(&mut session), [LISTENING]);
}

#[test]
fn what_crosses_the_end_of_its_stream_is_thrown_away() {
    let (mut session, key) = entrance();
    session.local_reset(key, "gone");
    // Its RESET waits to be sent.
    assert!(take(&mut session, listen(1)).is_empty());
    assert_eq!(session.open_related(8, (key, 1), pair(), Transport::Tcp), Err(OpenError::NoPorts));
    let call = wire::Relation::Call { control: FIRST, port: 2_000 };
    assert!(take(&mut session, related(SECOND, call)).is_empty());
    assert_eq!(sent(&mut session), [RESET, RESET], "the refusal, and the end of the first");
    events(&mut session);
    assert!(take(&mut session, listen(1)).is_empty());
    assert!(take(&mut session, unlisten(1)).is_empty());
    assert_eq!(session.counters().unknown_ids, 2);
    assert!(take(&mut session, related(SECOND, call)).is_empty());
    let reset = Frame::Close {
        from: None,
        to: StreamRef::Ours(SECOND),
        reason: b"the stream that it belongs to is over",
        kind: CloseKind::Refused,
    };
    assert_eq!(frames(&mut session), [format!("{reset:?}")]);
    assert_eq!(session.stream_count(), 0);

    let (mut session, key) = exit();
    session.ask_port(key, 1, Transport::Tcp).expect("asked");
    session.local_reset(key, "gone");
    sent(&mut session);
    events(&mut session);
    assert!(take(&mut session, listening(1, Ok(pair().0))).is_empty());
    let port = wire::Relation::Port { control: FIRST, request: 1 };
    assert!(take(&mut session, related(SECOND, port)).is_empty());
    assert_eq!(sent(&mut session), [RESET]);
    assert_eq!(session.ask_port(key, 2, Transport::Tcp), Err(OpenError::NoPorts));
    assert_eq!(session.call(8, (key, 2_000), pair()), Err(OpenError::NoPorts));
    session.close_port(key, 1);
    assert!(sent(&mut session).is_empty());
}

#[test]
fn a_stream_that_the_engine_does_not_know_has_none_beside_it() {
    let mut session = up(ours(1), ours(1).offer);
    events(&mut session);
    let (from, transport) = (Some(FIRST), Some(Transport::Tcp));
    let open = Frame::Open { from, client: None, entrance: None, transport, first_bytes: 0 };
    assert_eq!(take(&mut session, open).len(), 1);
    let port = wire::Relation::Port { control: FIRST, request: 1 };
    assert!(take(&mut session, related(SECOND, port)).is_empty());
    assert_eq!(sent(&mut session), [RESET]);
}

#[test]
fn numbers_of_streams_beside_others_are_those_of_all() {
    let (mut session, _) = exit();
    let port = wire::Relation::Port { control: FIRST, request: 1 };
    let taken = TunnelError::BadNumber { number: FIRST };
    assert_eq!(session.on_frame(related(FIRST, port), START), Err(taken));
    // Also where it would be refused: that would end the stream that has the number.
    let (mut session, _) = exit();
    let over = wire::Relation::Port { control: 99, request: 1 };
    let taken = TunnelError::BadNumber { number: FIRST };
    assert_eq!(session.on_frame(related(FIRST, over), START), Err(taken));
    // No slot as large as this.
    let (mut session, _) = exit();
    assert!(take(&mut session, related(1 << 20 | 20_000, port)).is_empty());
    assert_eq!(sent(&mut session), [RESET]);
}

/// The ends that may request and answer.
#[test]
fn the_wrong_side_ends_the_tunnel() {
    let request = 1;
    for frame in [
        Frame::Listen { to: StreamRef::Theirs(FIRST), request, transport: Transport::Tcp },
        Frame::Unlisten { to: StreamRef::Theirs(FIRST), request },
    ] {
        let (mut session, _) = exit();
        assert_eq!(session.on_frame(frame, START), Err(TunnelError::PortsReversed));
    }
    let (mut session, key) = entrance();
    let frame = Frame::Listening { to: StreamRef::Ours(FIRST), request, result: Ok(pair().0) };
    assert_eq!(session.on_frame(frame, START), Err(TunnelError::PortsReversed));
    // Nor can our own engine mix them up.
    assert_eq!(session.ask_port(key, 1, Transport::Tcp), Err(OpenError::NoPorts));
    assert_eq!(session.call(8, (key, 2_000), pair()), Err(OpenError::NoPorts));
    let (mut session, key) = exit();
    assert_eq!(session.open_related(8, (key, 1), pair(), Transport::Tcp), Err(OpenError::NoPorts));
    session.answer_port(key, 1, Ok(pair().0));
    assert!(sent(&mut session).is_empty());
}

#[test]
fn without_an_offer_of_both_there_are_no_ports() {
    let without = |newest: u8| {
        let config = ours(newest);
        SessionConfig { offer: config.offer.map(|offer| Offer { ports: false, ..offer }), ..config }
    };
    let call = wire::Relation::Call { control: FIRST, port: 2_000 };
    let port = wire::Relation::Port { control: FIRST, request: 1 };
    for (config, peer) in [(without(1), ours(1).offer), (ours(1), without(1).offer)] {
        for frame in [
            listen(1),
            unlisten(1),
            listening(1, Ok(pair().0)),
            related(SECOND, call),
            related(SECOND, port),
        ] {
            let mut session = up(config.clone(), peer);
            let key = session.open(7, pair().0, pair().1).expect("a stream");
            assert!(!session.peer_opens_ports());
            let opened = session.open_related(8, (key, 1), pair(), Transport::Tcp);
            assert_eq!(opened, Err(OpenError::NoPorts));
            assert_eq!(session.on_frame(frame, START), Err(TunnelError::PortsNotAgreed));
        }
    }
    // 0.3 has none, regardless of the offer.
    let mut session = up(ours(0), ours(1).offer);
    let key = session.open(7, pair().0, pair().1).expect("a stream");
    assert!(!session.peer_opens_ports());
    let opened = session.open_related(8, (key, 1), pair(), Transport::Tcp);
    assert_eq!(opened, Err(OpenError::NoPorts));
}

/// A transfer may need one more connection to come to its end.
#[test]
fn who_goes_away_still_takes_streams_beside_those_that_go_on() {
    let (mut session, _) = exit();
    session.refuse_new("going away");
    let port = wire::Relation::Port { control: FIRST, request: 1 };
    assert_eq!(take(&mut session, related(SECOND, port)).len(), 1);
    session.on_frame(Frame::Pong { payload: b"farewell" }, START).expect("it knows");
    assert!(!session.is_leaving());
    assert_eq!(take(&mut session, related(SECOND + 1, port)).len(), 1);
    sent(&mut session);
    let (from, transport) = (Some(SECOND + 2), Some(Transport::Tcp));
    let open = Frame::Open { from, client: None, entrance: None, transport, first_bytes: 0 };
    assert!(take(&mut session, open).is_empty(), "by itself none is let in any more");
    assert_eq!(sent(&mut session), [RESET]);

    let (mut session, key) = entrance();
    take(&mut session, Frame::GoingAway { reason: b"going away" });
    assert_eq!(session.open(8, pair().0, pair().1), Err(OpenError::GoingAway));
    session.open_related(8, (key, 1), pair(), Transport::Tcp).expect("a stream");
    let (mut session, key) = exit();
    take(&mut session, Frame::GoingAway { reason: b"going away" });
    session.call(8, (key, 2_000), pair()).expect("a stream");
}

/// Both ends, frame by frame over bytes: FTP in passive mode as it passes here.
#[test]
fn two_sessions_agree() {
    let (mut here, mut there) = (Session::new(ours(1), START), Session::new(ours(1), START));
    let mut decoders = (Decoder::new(1), Decoder::new(1));
    let mut run = |here: &mut Session, there: &mut Session| {
        let carry = |from: &mut Session, to: &mut Session, decoder: &mut Decoder| {
            let mut out = Vec::new();
            while from.poll_transmit(&mut out, true).is_some() {}
            let mut rest = &out[..];
            while let (n, DecodeStep::Frame(frame)) = decoder.step(rest).expect("frames") {
                to.on_frame(frame, START).expect("what the other may say");
                rest = &rest[n..];
            }
            !out.is_empty()
        };
        while carry(here, there, &mut decoders.0) | carry(there, here, &mut decoders.1) {}
        (events(here), events(there))
    };
    run(&mut here, &mut there);
    let control = here.open(1, pair().0, pair().1).expect("a stream");
    let (_, came) = run(&mut here, &mut there);
    let [Event::Incoming { key: exit, .. }] = came[..] else { panic!("{came:?}") };
    there.attach(exit, 2);
    there.ask_port(exit, 0, Transport::Tcp).expect("asked");
    let (asked, _) = run(&mut here, &mut there);
    let transport = Transport::Tcp;
    assert_eq!(asked, [Event::PortAsked { user: 1, request: 0, transport }]);
    here.answer_port(control, 0, Ok(pair().1));
    here.open_related(3, (control, 0), pair(), transport).expect("a stream");
    let (_, came) = run(&mut here, &mut there);
    let [given, Event::Incoming { key, related, .. }] = &came[..] else { panic!("{came:?}") };
    assert_eq!(*given, Event::PortGiven { user: 2, request: 0, result: Ok(pair().1) });
    assert_eq!(*related, Some(Related::Port { user: 2, request: 0 }));
    there.attach(*key, 4);
    there.accept(*key, pair().0, pair().1);
    assert_eq!(run(&mut here, &mut there).0, [Event::Opened { user: 3 }]);
    there.close_port(exit, 0);
    let (closed, _) = run(&mut here, &mut there);
    assert_eq!(closed, [Event::PortClosed { user: 1, request: 0 }]);
    // It outlives the stream that it came in beside.
    here.local_reset(control, "gone");
    run(&mut here, &mut there);
    assert_eq!((here.stream_count(), there.stream_count()), (1, 1));
}
