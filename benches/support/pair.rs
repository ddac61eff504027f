//! Two sessions joined back to back, without sockets or payload: the costs of the pure core.

use std::net::{Ipv4Addr, SocketAddr};

use sockmux_uring::session::{Event, Moment, Session, SessionConfig, Sink, StreamKey, Transmit};
use sockmux_uring::wire::v03::PACKET_BYTES_MAX;
use sockmux_uring::wire::{DecodeStep, Decoder};

const NOW: Moment = Moment(0);

/// One end.
struct Side {
    session: Session,
    decoder: Decoder,
    /// Where payload of the last frame goes.
    sink: Sink,
}

/// Two ends and the bytes in flight between them.
pub(crate) struct Pair {
    near: Side,
    far: Side,
    head: Vec<u8>,
    payload: Vec<u8>,
    keys: Vec<StreamKey>,
}

impl Pair {
    /// Two of ours past their hello, with this many streams open from the near side.
    pub(crate) fn with_streams(streams: u64) -> Pair {
        let mut pair = Pair {
            near: Side::new(),
            far: Side::new(),
            head: Vec::new(),
            payload: vec![0; usize::from(PACKET_BYTES_MAX)],
            keys: Vec::new(),
        };
        pair.settle();
        let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        for user in 0..streams {
            let key = pair.near.session.open(user, nobody, nobody);
            pair.keys.push(key.expect("far fewer than the peer takes"));
        }
        pair.settle();
        pair
    }

    /// Every stream of the near side sends `bytes`, which the far side consumes at once. Returns when
    /// neither side has more to send.
    pub(crate) fn send_on_each(&mut self, bytes: u64) {
        for key in &self.keys {
            self.near.session.data_ready(*key, bytes);
        }
        self.settle();
    }

    fn settle(&mut self) {
        let Pair { near, far, head, payload, .. } = self;
        while near.transmit(far, head, payload) | far.transmit(near, head, payload) {}
    }
}

impl Side {
    fn new() -> Side {
        Side {
            session: Session::new(SessionConfig::default(), NOW),
            decoder: Decoder::new(1),
            sink: Sink::Discard,
        }
    }

    /// Everything that waits here goes to `peer`; whether that was anything.
    fn transmit(&mut self, peer: &mut Side, head: &mut Vec<u8>, payload: &[u8]) -> bool {
        let mut any = false;
        loop {
            head.clear();
            let Some(transmit) = self.session.poll_transmit(head, any) else { return any };
            any = true;
            peer.receive(head);
            if let Transmit::Data { bytes, .. } = transmit {
                peer.receive(&payload[..bytes as usize]);
            }
        }
    }

    fn receive(&mut self, mut input: &[u8]) {
        loop {
            let (consumed, step) = self.decoder.step(input).expect("a session's own frames");
            input = &input[consumed..];
            match step {
                DecodeStep::Frame(frame) => {
                    self.sink = self.session.on_frame(frame, NOW).expect("a session's own frames");
                    self.react();
                }
                DecodeStep::Payload => {
                    if let Sink::Stream(key) = self.sink {
                        self.session.consumed(key, consumed as u64, NOW);
                    }
                }
                DecodeStep::More => return,
            }
        }
    }

    /// Handles events as an engine: here every stream is accepted.
    fn react(&mut self) {
        while let Some(event) = self.session.poll_event() {
            if let Event::Incoming { key, .. } = event {
                let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 2));
                self.session.attach(key, 0);
                self.session.accept(key, nobody, nobody);
            }
        }
    }
}
