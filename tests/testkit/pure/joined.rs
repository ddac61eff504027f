//! Two sessions joined by a link with a bandwidth and a delay, in virtual time. Heads of frames are
//! sent as bytes, payload as a count, so a gigabyte takes a moment.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use sockmux_uring::limits::READ_AHEAD_BYTES;
use sockmux_uring::session::{Event, Moment, Session, Sink, StreamKey, Transmit};
use sockmux_uring::wire::{DecodeStep, Decoder, Frame};

use super::lone::{START, ours};

/// A frame on the link.
struct Sent {
    head: Vec<u8>,
    payload_bytes: u64,
}

/// One direction of the link: frames queue for its bandwidth, then take its delay.
pub(crate) struct Link {
    bytes_per_sec: u64,
    one_way: Duration,
    free_at: Moment,
    on_the_way: VecDeque<(Moment, Sent)>,
}

impl Link {
    pub(crate) fn new(bytes_per_sec: u64, one_way: Duration) -> Link {
        Link { bytes_per_sec, one_way, free_at: START, on_the_way: VecDeque::new() }
    }

    fn send(&mut self, sent: Sent, now: Moment) {
        let bytes = sent.head.len() as u64 + sent.payload_bytes;
        let micros = bytes * 1_000_000 / self.bytes_per_sec;
        self.free_at = self.free_at.max(now).after(Duration::from_micros(micros));
        self.on_the_way.push_back((self.free_at.after(self.one_way), sent));
    }

    fn arrived(&mut self, now: Moment) -> Option<Sent> {
        let due = self.on_the_way.front().is_some_and(|(at, _)| *at <= now);
        due.then(|| self.on_the_way.pop_front()).flatten().map(|(_, sent)| sent)
    }

    /// The next arrival.
    pub(crate) fn next(&self) -> Option<Moment> {
        Some(self.on_the_way.front()?.0)
    }
}

/// One session, with sockets that accept delivered data at once if they are read.
pub(crate) struct End {
    pub(crate) session: Session,
    decoder: Decoder,
    pub(crate) keys: Vec<StreamKey>,
    /// Bytes received and not read, by stream.
    pub(crate) waiting: Vec<u64>,
    /// Streams that are read.
    reads: fn(usize) -> bool,
    pub(crate) delivered_bytes: u64,
    /// Streams whose peer has ended its data, until they are taken.
    pub(crate) ended: Vec<usize>,
    /// Frames received, by kind.
    pub(crate) frames: BTreeMap<&'static str, u64>,
    /// Bytes of those frames, except payload of streams.
    pub(crate) head_bytes: u64,
}

impl End {
    pub(crate) fn new(reads: fn(usize) -> bool) -> End {
        End {
            session: Session::new(ours(1), START),
            decoder: Decoder::new(1),
            keys: Vec::new(),
            waiting: Vec::new(),
            reads,
            delivered_bytes: 0,
            ended: Vec::new(),
            frames: BTreeMap::new(),
            head_bytes: 0,
        }
    }

    /// Opens one more stream.
    pub(crate) fn open(&mut self) {
        let at = "127.0.0.1:1".parse().expect("an address");
        let user = self.keys.len() as u64;
        self.keys.push(self.session.open(user, at, at).expect("a stream"));
        self.waiting.push(0);
    }

    /// Receives the frames that have arrived by now. Returns whether there were any.
    pub(crate) fn receive(&mut self, link: &mut Link, now: Moment) -> bool {
        let mut any = false;
        while let Some(sent) = link.arrived(now) {
            self.receive_frame(&sent, now);
            any = true;
        }
        any
    }

    fn receive_frame(&mut self, sent: &Sent, now: Moment) {
        self.session.received(now);
        self.head_bytes += sent.head.len() as u64;
        let (mut input, mut sink) = (&sent.head[..], Sink::Discard);
        loop {
            let (n, step) = self.decoder.step(input).expect("SockMux");
            match step {
                DecodeStep::Frame(frame) => {
                    *self.frames.entry(kind(&frame)).or_default() += 1;
                    sink = self.session.on_frame(frame, now).expect("no error");
                }
                DecodeStep::Payload => panic!("payload among the bytes of a head"),
                DecodeStep::More => break,
            }
            input = &input[n..];
            self.handle_events();
        }
        if sent.payload_bytes > 0 {
            self.decoder.payload_passed(sent.payload_bytes as u32);
            let Sink::Stream(key) = sink else { panic!("payload of no stream") };
            let user = self.session.user_of(key).expect("a stream") as usize;
            self.delivered_bytes += sent.payload_bytes;
            self.waiting[user] += sent.payload_bytes;
        }
    }

    fn handle_events(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Incoming { key, .. } => {
                    let at = "127.0.0.1:1".parse().expect("an address");
                    self.session.attach(key, self.keys.len() as u64);
                    self.session.accept(key, at, at);
                    self.keys.push(key);
                    self.waiting.push(0);
                }
                Event::EndOfData { user } => self.ended.push(user as usize),
                _ => {}
            }
        }
    }

    /// Reads all data of the streams that are read.
    pub(crate) fn take(&mut self, now: Moment) {
        for user in 0..self.waiting.len() {
            if (self.reads)(user) {
                self.take_of(user, now);
            }
        }
    }

    /// Reads the data of a stream; returns its size.
    pub(crate) fn take_of(&mut self, user: usize, now: Moment) -> u64 {
        let bytes = std::mem::take(&mut self.waiting[user]);
        if bytes > 0 {
            self.session.consumed(self.keys[user], bytes, now);
        }
        bytes
    }

    /// Returns whether any frame was sent.
    pub(crate) fn transmit(&mut self, link: &mut Link, now: Moment) -> bool {
        let mut any = false;
        let mut head = Vec::new();
        while let Some(transmit) = self.session.poll_transmit(&mut head, true) {
            let payload_bytes = match transmit {
                Transmit::Data { bytes, .. } => bytes,
                _ => 0,
            };
            link.send(Sent { head: std::mem::take(&mut head), payload_bytes }, now);
            any = true;
        }
        // Streams that the sent frame has ended.
        self.handle_events();
        any
    }

    /// Every stream always has more to send.
    pub(crate) fn write(&mut self) {
        for &key in &self.keys {
            while self.session.may_read(key) {
                self.session.data_ready(key, READ_AHEAD_BYTES);
            }
        }
    }

    pub(crate) fn window_bytes(&self, stream: usize) -> u64 {
        self.session.windows(self.keys[stream]).expect("a stream").window_bytes
    }
}

/// The name of a frame kind in docs/protocol.md.
fn kind(frame: &Frame<'_>) -> &'static str {
    match frame {
        Frame::Open { .. } => "OPEN",
        Frame::Opened { .. } => "OPENED",
        Frame::Data { .. } => "DATA",
        Frame::End { .. } => "END",
        Frame::Consumed { .. } => "CREDIT",
        Frame::Close { .. } => "RESET",
        Frame::Ping { .. } => "PING",
        Frame::Pong { .. } => "PONG",
        Frame::LaneTaken { .. } => "LANE_TAKEN",
        Frame::LaneRead { .. } => "LANE_READ",
        _ => "other",
    }
}
