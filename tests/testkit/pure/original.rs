//! A model of the original as the peer of one session. It is as strict as the original: it frees a
//! stream without an answer when a CLOSE crosses its own, reuses ids at once, and breaks its tunnel
//! when there are too many streams. It panics at frames that the original would not survive or would
//! assign to another stream.

use std::collections::{BTreeMap, VecDeque};

use sockmux_uring::session::{Ended, Event, Moment, Session, Sink, StreamKey, Transmit};
use sockmux_uring::wire::v03::Encoder;
use sockmux_uring::wire::{DecodeStep, Decoder, Frame, StreamRef};

use super::lone::{START, ours, up};

/// Most streams of a connector with one port; one more breaks its tunnel.
const STREAMS_MAX: usize = 61;

/// The original uses the ids below for itself.
const FIRST_ID: u32 = 2;

/// No id.
const NO_ID: u16 = 255;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It has sent CONNECT.
    Connecting,
    Open,
    /// It has sent CLOSE.
    Closing,
}

#[derive(Debug, Clone, Copy)]
struct Theirs {
    /// Our id, once known to the original.
    ours: Option<u32>,
    state: State,
}

/// The session of a tunnel, the original, and the packets in flight between them.
pub(crate) struct Pair {
    pub(crate) session: Session,
    pub(crate) now: Moment,
    decoder: Decoder,
    streams: BTreeMap<u32, Theirs>,
    to_original: VecDeque<Vec<u8>>,
    to_session: VecDeque<Vec<u8>>,
    /// Streams opened by the original that wait for our exit.
    pub(crate) incoming: VecDeque<StreamKey>,
    /// How our streams have ended, with the engine's numbers.
    pub(crate) ended: Vec<(u64, Ended)>,
    /// Total bytes sent to the original.
    pub(crate) received_bytes: u64,
    next_user: u64,
}

fn address() -> std::net::SocketAddr {
    "127.0.0.1:1".parse().expect("an address")
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}

impl Pair {
    /// Exchanges the hello.
    pub(crate) fn new() -> Pair {
        Pair {
            session: up(ours(1), None),
            now: START,
            decoder: Decoder::new(0),
            streams: BTreeMap::new(),
            to_original: VecDeque::new(),
            to_session: VecDeque::new(),
            incoming: VecDeque::new(),
            ended: Vec::new(),
            received_bytes: 0,
            next_user: 0,
        }
    }

    /// Number of its streams.
    pub(crate) fn theirs(&self) -> usize {
        self.streams.len()
    }

    /// Opens a stream for a client of ours. `None`: there is no room.
    pub(crate) fn open(&mut self) -> Option<StreamKey> {
        let room = self.session.has_room();
        self.next_user += 1;
        let opened = self.session.open(self.next_user, address(), address());
        assert_eq!(room, opened.is_ok(), "has_room says what open does");
        opened.ok()
    }

    /// Opens a stream for a client of the original; returns its id.
    pub(crate) fn connect(&mut self) -> u32 {
        let id = self.insert(Theirs { ours: None, state: State::Connecting });
        self.to_session.push_back(encoded(|out| {
            Encoder.connect(out, id as u16, address(), address(), 0);
        }));
        id
    }

    fn insert(&mut self, stream: Theirs) -> u32 {
        assert!(self.streams.len() < STREAMS_MAX, "its tunnel breaks");
        let id = (FIRST_ID..).find(|id| !self.streams.contains_key(id)).expect("a free id");
        self.streams.insert(id, stream);
        id
    }

    /// Ids of the original, lowest first.
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.streams.keys().copied().collect()
    }

    /// Ends the original's local side of a stream, unless it has ended.
    pub(crate) fn close(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.state == State::Closing {
            return;
        }
        stream.state = State::Closing;
        let to = stream.ours.map_or(NO_ID, |id| id as u16);
        self.to_session.push_back(encoded(|out| {
            Encoder.close(out, Some(id as u16), to, "DO close");
        }));
    }

    /// Sends so many bytes from the original's local side of a stream, if its window permits.
    pub(crate) fn say(&mut self, id: u32, bytes: u32) {
        let Some(Theirs { ours: Some(ours), state: State::Open }) = self.streams.get(&id) else {
            return;
        };
        let ours = *ours as u16;
        self.to_session.push_back(encoded(|out| {
            Encoder.data(out, id as u16, ours, bytes);
            out.resize(out.len() + bytes as usize, 7);
        }));
    }

    /// Puts the packets of the session in flight.
    pub(crate) fn transmit(&mut self) {
        let mut head = Vec::new();
        while let Some(transmit) = self.session.poll_transmit(&mut head, true) {
            if let Transmit::Data { bytes, .. } = transmit {
                head.resize(head.len() + bytes as usize, 7);
            }
            self.to_original.push_back(std::mem::take(&mut head));
        }
        self.take_events();
    }

    /// The original reads the next packet in flight, if any.
    pub(crate) fn original_reads(&mut self) -> bool {
        let Some(packet) = self.to_original.pop_front() else { return false };
        let mut answers = Vec::new();
        let mut decoder = std::mem::replace(&mut self.decoder, Decoder::new(0));
        let mut rest = &packet[..];
        loop {
            let (taken, step) = decoder.step(rest).expect("a packet");
            match step {
                DecodeStep::Frame(frame) => self.original_takes(frame, &mut answers),
                DecodeStep::Payload => self.received_bytes += taken as u64,
                DecodeStep::More => break,
            }
            rest = &rest[taken..];
        }
        self.decoder = decoder;
        self.to_session.extend(answers);
        true
    }

    fn original_takes(&mut self, frame: Frame<'_>, answers: &mut Vec<Vec<u8>>) {
        match frame {
            Frame::Open { from, .. } => {
                let used = self.streams.values().any(|stream| stream.ours == from);
                assert!(!used, "our id {from:?} is in use with it");
                let id = self.insert(Theirs { ours: from, state: State::Open });
                let to = from.expect("an id") as u16;
                answers.push(encoded(|out| {
                    Encoder.connected(out, id as u16, to, address(), address(), 0);
                }));
            }
            Frame::Opened { from, to: StreamRef::Ours(id), .. } => {
                if let Some(stream) = self.streams.get_mut(&id)
                    && stream.state == State::Connecting
                {
                    *stream = Theirs { ours: from, state: State::Open };
                }
            }
            Frame::Data { to: StreamRef::Ours(id), bytes } => {
                if let Some(Theirs { ours: Some(ours), state: State::Open }) = self.streams.get(&id)
                {
                    answers.push(encoded(|out| {
                        Encoder.consumed(out, id as u16, *ours as u16, u64::from(bytes));
                    }));
                }
            }
            Frame::Close { from, to: StreamRef::Ours(id), .. } => {
                let answer = encoded(|out| {
                    let to = from.map_or(NO_ID, |from| from as u16);
                    Encoder.closed(out, id as u16, to);
                });
                match self.streams.remove(&id) {
                    Some(Theirs { state: State::Closing, .. }) => {}
                    Some(_) => answers.push(answer),
                    None => panic!("CLOSE for {id}, which may be another stream's soon"),
                }
            }
            Frame::Closed { to: StreamRef::Ours(id), .. } => match self.streams.remove(&id) {
                Some(Theirs { state: State::Closing, .. }) => {}
                other => panic!("CLOSED meets {other:?}"),
            },
            Frame::Closed { .. } => panic!("CLOSED for no stream"),
            _ => {}
        }
    }

    /// The session reads the next packet in flight, if any.
    pub(crate) fn session_reads(&mut self) -> bool {
        let Some(packet) = self.to_session.pop_front() else { return false };
        let mut decoder = Decoder::new(0);
        let mut rest = &packet[..];
        let mut sink = Sink::Discard;
        loop {
            let (taken, step) = decoder.step(rest).expect("a packet");
            match step {
                DecodeStep::Frame(frame) => {
                    sink = self.session.on_frame(frame, self.now).expect("an honest peer");
                    self.take_events();
                }
                // Local sockets accept all data at once.
                DecodeStep::Payload => {
                    if let Sink::Stream(key) = sink {
                        self.session.consumed(key, taken as u64, self.now);
                    }
                }
                DecodeStep::More => break,
            }
            rest = &rest[taken..];
        }
        true
    }

    fn take_events(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Incoming { key, .. } => {
                    self.next_user += 1;
                    self.session.attach(key, self.next_user);
                    self.incoming.push_back(key);
                }
                Event::Ended { user, how } => self.ended.push((user, how)),
                _ => {}
            }
        }
    }

    /// Accepts the stream that has waited for its exit longest.
    pub(crate) fn accept(&mut self) {
        if let Some(key) = self.incoming.pop_front()
            && self.session.user_of(key).is_some()
        {
            self.session.accept(key, address(), address());
        }
    }

    /// Refuses the stream that has waited for its exit longest.
    pub(crate) fn refuse(&mut self) {
        if let Some(key) = self.incoming.pop_front()
            && self.session.user_of(key).is_some()
        {
            self.session.refuse(key, "no exit", false);
        }
    }

    /// Delivers all packets in flight.
    pub(crate) fn settle(&mut self) {
        loop {
            self.transmit();
            let any = self.original_reads() | self.session_reads();
            if !any && self.to_original.is_empty() && self.to_session.is_empty() {
                self.transmit();
                if self.to_original.is_empty() {
                    return;
                }
            }
        }
    }

    /// Advances the session's clock until no CLOSE is held back.
    pub(crate) fn wait(&mut self, micros: u64) {
        self.now = Moment(self.now.0 + micros);
        self.session.received(self.now);
        self.session.on_time(self.now).expect("still up");
        self.transmit();
    }
}
