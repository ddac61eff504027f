//! Fuzz target: a session with any frames and any local operations, in any order. The engine keeps
//! its contract; the peer does not.

use std::time::Duration;

use sockmux_uring::limits::{
    DATAGRAM_QUEUE_BYTES, LINK_ACK_BYTES, LINK_ACK_RUNS_BYTES, LINK_ACK_RUNS_MICROS,
    WINDOW_BUDGET_BYTES,
};
use sockmux_uring::session::{
    Ended, Event, Moment, OpenError, Session, SessionConfig, Sink, StreamKey, Transmit,
};
use sockmux_uring::wire::v03::{Encoder, Offer};
use sockmux_uring::wire::{DecodeStep, Decoder, Protocol, Transport};

use super::bytes::Bytes;
use super::choice::Choice;

mod entrances;
mod feed;
mod ports;

/// Maximum operations of a run, and streams that it opens.
const OPERATIONS_MAX: usize = 2_000;
const LOCALS_MAX: usize = 300;

/// The state of a local socket that the contract concerns.
#[derive(Debug)]
struct Local {
    key: StreamKey,
    /// The exit was reached; an opener needs none.
    settled: bool,
    datagrams: bool,
    waiting: u64,
    ready: u64,
    eof: bool,
    /// Reset or refused: the session reports no more events of it.
    gone: bool,
    ended: bool,
}

struct Engine {
    session: Session,
    decoder: Decoder,
    /// The protocol that the session sends, and the one that it is fed. Between the peer's two HELLOOK
    /// the one may be 1 and the other 0.3.
    protocol: Protocol,
    fed_protocol: Protocol,
    /// Stream numbers of the session in SockMux 1.
    numbers: Vec<u32>,
    locals: Vec<Local>,
    now: Moment,
    fed: usize,
    sent: usize,
    pings: usize,
    ports: ports::Ports,
    entrances: entrances::Entrances,
    /// The tunnel has broken.
    over: bool,
}

/// Runs the operations of the bytes, then drains and ends the session.
pub(crate) fn run(data: &[u8]) {
    let mut choice = Bytes(data);
    let newest = choice.below(2) as u8;
    let config = config(newest, &mut choice);
    let mut engine = Engine {
        decoder: Decoder::new(config.offer.map_or(0, |offer| offer.newest)),
        session: Session::new(config, Moment(0)),
        protocol: Protocol::V03,
        fed_protocol: Protocol::V03,
        numbers: Vec::new(),
        locals: Vec::new(),
        now: Moment(0),
        fed: 0,
        sent: 0,
        pings: 0,
        ports: ports::Ports::default(),
        entrances: entrances::Entrances::of(data),
        over: false,
    };
    if choice.below(4) != 3 {
        engine.hello(newest, &mut choice);
    }
    let mut operations = 0;
    while !choice.0.is_empty() && !engine.over && operations < OPERATIONS_MAX {
        engine.operation(&mut choice);
        engine.check();
        operations += 1;
    }
    engine.drain();
}

fn config(newest: u8, choice: &mut impl Choice) -> SessionConfig {
    let window_bytes = choice.pick(&[512 << 10, 0, 64 << 10, u32::MAX]);
    let half_close = choice.below(4) != 3;
    let streams_max = choice.pick(&[8_192, 0, 3]);
    let offer = Offer {
        newest,
        half_close,
        datagrams: true,
        checked_line: false,
        ports: true,
        entrances: true,
        window_bytes,
        streams_max,
    };
    SessionConfig {
        packet_bytes: choice.pick(&[16_384, 129, 600]),
        first_data: choice.below(2) == 0,
        offer: (choice.below(3) != 2).then_some(offer),
        hello_timeout: (choice.below(4) != 3).then_some(Duration::from_secs(15)),
        keepalive: (choice.below(4) != 3).then_some(Duration::from_secs(30)),
        linger: (choice.below(4) != 3).then_some(Duration::from_millis(choice.below(40_000))),
        ..SessionConfig::default()
    }
}

/// Streams that carry datagrams, where the protocol does not announce it.
fn carries_datagrams(user: u64) -> bool {
    user % 4 == 3
}

impl Engine {
    fn hello(&mut self, newest: u8, choice: &mut impl Choice) {
        let mut bytes = Vec::new();
        let offer = SessionConfig::default().offer.filter(|_| choice.below(2) == 0);
        let packet_bytes = choice.pick(&[16_384, 129, 512]);
        // Occasionally an older native peer.
        let datagrams = packet_bytes != 129;
        let offer = offer.map(|offer| Offer {
            newest,
            datagrams,
            ports: datagrams,
            entrances: datagrams,
            ..offer
        });
        Encoder.hello(&mut bytes, "20260101-000000.000000 fuzz", offer, None);
        Encoder.hello_ok(&mut bytes, (0, 0), "20260101-000000.000000 fuzz");
        self.read(&bytes);
        bytes.clear();
        if self.protocol == Protocol::V1 && choice.below(8) != 7 {
            Encoder.hello_ok(&mut bytes, (0, 0), "20260101-000000.000000 fuzz");
            self.fed_protocol = Protocol::V1;
        } else {
            Encoder.packet_size(&mut bytes, packet_bytes);
            Encoder.first_data(&mut bytes);
        }
        self.read(&bytes);
    }

    fn operation(&mut self, choice: &mut impl Choice) {
        let chosen = choice.below(self.locals.len().max(1) as u64) as usize;
        match choice.below(24) {
            0..=5 => self.feed(choice),
            6 => self.transmit(1 + choice.below(20) as usize),
            7 => self.open(),
            8 => {
                let step = choice.pick(&[1_000, 30_000, 1_100_000, 40_000_000]);
                self.now = self.now.after(Duration::from_micros(step));
                self.tick();
            }
            9 if choice.below(16) == 15 => self.session.refuse_new("draining"),
            18 if self.entrances.are_used => self.feed_entrances(choice),
            19 if self.entrances.are_used => self.entrance_operation(choice),
            20 | 21 if self.fed_protocol == Protocol::V1 => self.feed_ports(choice),
            22 | 23 if chosen < self.locals.len() => self.port_operation(chosen, choice),
            _ if chosen < self.locals.len() => self.local_operation(chosen, choice),
            _ => self.open(),
        }
        self.take_events();
    }

    fn open(&mut self) {
        let at = "10.0.0.1:80".parse().expect("an address");
        let user = self.locals.len() as u64;
        if self.locals.len() >= LOCALS_MAX {
            return;
        }
        let datagrams = carries_datagrams(user);
        let opened = match (datagrams, user.is_multiple_of(3)) {
            (true, false) => self.session.open_datagrams(user, at, at),
            (true, true) => self.session.open_datagrams_tentatively(user, at, at),
            (false, false) => self.session.open(user, at, at),
            (false, true) => self.session.open_tentatively(user, at, at),
        };
        match opened {
            Ok(key) => self.begin(key, true, datagrams),
            Err(OpenError::NoDatagrams) => assert!(datagrams && self.protocol == Protocol::V1),
            Err(_) => {}
        }
    }

    fn begin(&mut self, key: StreamKey, settled: bool, datagrams: bool) {
        let (waiting, ready) = (0, 0);
        let (eof, gone, ended) = (false, false, false);
        self.locals.push(Local { key, settled, datagrams, waiting, ready, eof, gone, ended });
    }

    fn local_operation(&mut self, n: usize, choice: &mut impl Choice) {
        let local = &mut self.locals[n];
        let key = local.key;
        let what = choice.below(8);
        if local.ended {
            return self.use_stale_key(key, what);
        }
        if local.gone {
            return;
        }
        if !local.settled {
            local.settled = true;
            let at = "[::1]:80".parse().expect("an address");
            if what < 6 {
                return self.session.accept(key, at, at);
            }
            local.gone = true;
            local.ended = true;
            if what == 6 {
                self.session.refuse(key, "nothing is here", choice.below(2) == 1);
            } else {
                assert!(!self.session.local_reset(key, "gave up"));
            }
            return;
        }
        match what {
            0 | 1 | 4..=6 if local.datagrams => self.datagrams_ready(n, what, choice),
            0 | 1 if !local.eof && self.session.may_read(key) => {
                let bytes = 1 + choice.below(65_536);
                local.ready += bytes;
                self.session.data_ready(key, bytes);
            }
            2 | 3 if local.waiting > 0 => {
                let bytes = 1 + choice.below(local.waiting);
                local.waiting -= bytes;
                self.session.consumed(key, bytes, self.now);
            }
            4 => self.session.urgent(key, b'!'),
            5 | 6 => {
                local.eof = true;
                self.session.data_end(key, self.now);
            }
            7 => {
                local.gone = true;
                local.waiting = 0;
                // Every other one, so that saved inputs keep their meaning.
                let keep = match n % 2 {
                    0 => self.session.local_reset(key, "reset by the fuzzer"),
                    _ => self.session.local_broken(key, "broken by the fuzzer"),
                };
                if !keep {
                    local.ready = 0;
                }
            }
            _ => {}
        }
    }

    /// Delivers a run of any size, or an empty datagram.
    fn datagrams_ready(&mut self, n: usize, what: u64, choice: &mut impl Choice) {
        let bytes = choice.below(if what < 2 { 65_508 } else { 400 }) as u32;
        let size_bytes = bytes.div_ceil(1 + what as u32);
        let local = &mut self.locals[n];
        let queued = self.session.datagrams_ready(local.key, size_bytes, bytes, self.now);
        assert!(queued.dropped_bytes <= local.ready, "{queued:?} of {local:?}");
        local.ready -= queued.dropped_bytes;
        if queued.taken {
            local.ready += u64::from(bytes);
        } else {
            assert!(queued.dropped > 0 && (!queued.too_big || self.protocol == Protocol::V03));
        }
    }

    /// Operations with the key of an ended stream have no effect.
    fn use_stale_key(&mut self, key: StreamKey, what: u64) {
        let at = "10.0.0.1:80".parse().expect("an address");
        let before = self.session.counters().stale_keys;
        match what {
            0 => self.session.attach(key, 0),
            1 => self.session.accept(key, at, at),
            2 => self.session.refuse(key, "late", false),
            3 => {
                let queued = self.session.datagrams_ready(key, 10, 100, self.now);
                assert!(!queued.taken && queued.dropped == 10);
            }
            4 => self.session.consumed(key, 100, self.now),
            5 => self.session.data_end(key, self.now),
            6 => assert!(!self.session.local_reset(key, "late")),
            _ => {
                assert!(!self.session.may_read(key));
                return self.session.urgent(key, 1);
            }
        }
        assert_eq!(self.session.counters().stale_keys, before + 1);
    }

    fn read(&mut self, mut input: &[u8]) {
        self.session.received(self.now);
        let mut sink = Sink::Discard;
        loop {
            let step = self.decoder.step(input);
            let (n, step) = step.expect("what the encoder writes can be read");
            match step {
                DecodeStep::Frame(frame) => {
                    self.fed += 1;
                    match self.session.on_frame(frame, self.now) {
                        Ok(to) => sink = to,
                        Err(_) => {
                            self.over = true;
                            return;
                        }
                    }
                    self.take_events();
                }
                DecodeStep::Payload => {
                    if let Sink::Stream(key) | Sink::Urgent(key) | Sink::Datagrams { key, .. } =
                        sink
                    {
                        let local = self.locals.iter_mut().find(|l| l.key == key && !l.ended);
                        let local = local.expect("payload for a stream that lives");
                        assert!(!local.gone, "payload for a socket that is gone");
                        match sink {
                            Sink::Stream(_) => local.waiting += n as u64,
                            Sink::Urgent(_) => assert!(!local.datagrams),
                            _ => assert!(local.datagrams),
                        }
                    }
                }
                DecodeStep::More => return,
            }
            input = &input[n..];
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Up { protocol, .. } => {
                    assert!(self.session.is_up());
                    self.protocol = protocol;
                }
                Event::GoingAway => assert!(self.session.peer_is_ours()),
                Event::TakeUp { .. } | Event::Doubted => unreachable!("no lane is offered here"),
                Event::PortAsked { .. } | Event::PortClosed { .. } | Event::PortGiven { .. } => {
                    self.port_event(&event);
                }
                Event::EntranceAsked { .. } | Event::EntranceAnswered { .. } => {
                    self.entrance_event(&event);
                }
                Event::Incoming { key, transport, related, .. } => {
                    self.check_related(related);
                    let user = self.locals.len() as u64;
                    if self.locals.len() < LOCALS_MAX {
                        let datagrams = match transport {
                            Some(transport) => transport == Transport::Udp,
                            None => carries_datagrams(user),
                        };
                        match datagrams {
                            true => self.session.attach_datagrams(key, user),
                            false => self.session.attach(key, user),
                        }
                        self.begin(key, false, datagrams);
                    } else {
                        self.session.refuse(key, "enough", false);
                    }
                }
                Event::Opened { user } | Event::EndOfData { user } | Event::ReadMore { user } => {
                    let local = &self.locals[user as usize];
                    assert!(!local.datagrams || matches!(event, Event::Opened { .. }), "{event:?}");
                    assert!(!local.gone && !local.ended, "{event:?} for {local:?}");
                }
                Event::Ended { user, how } => {
                    let local = &mut self.locals[user as usize];
                    assert!(!local.ended, "a stream ended twice");
                    if let Ended::NotTaken { runs, .. } = how {
                        let given_back: u64 = runs.iter().map(|&(_, bytes)| u64::from(bytes)).sum();
                        assert!(given_back <= local.ready, "{given_back} bytes of {local:?}");
                    }
                    local.ended = true;
                }
            }
        }
    }

    fn transmit(&mut self, most: usize) {
        let mut head = Vec::new();
        for _ in 0..most {
            head.clear();
            let Some(transmit) = self.session.poll_transmit(&mut head, self.sent.is_multiple_of(2))
            else {
                return;
            };
            self.sent += 1;
            let (declared, header_bytes) = match head[0] {
                3 => (u64::from(u16::from_be_bytes([head[6], head[7]])), 8),
                _ => {
                    let word = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];
                    if head[1] == 0x01 || head[1] == 0x10 {
                        self.numbers.push(u32::from_be_bytes(word(4)));
                    }
                    (u64::from(u32::from_be_bytes(word(8))), 12)
                }
            };
            let behind = match transmit {
                Transmit::Control | Transmit::Unkept => 0,
                Transmit::Urgent { .. } => 1,
                Transmit::Data { key, user, bytes } => {
                    let local = &mut self.locals[user as usize];
                    assert!(local.key == key && !local.ended && bytes > 0);
                    assert!(bytes <= local.ready, "{bytes} bytes of {local:?}");
                    local.ready -= bytes;
                    bytes
                }
                Transmit::Datagrams { key, user, bytes } => {
                    let local = &mut self.locals[user as usize];
                    assert!(local.key == key && !local.ended && local.datagrams);
                    assert!(bytes <= local.ready, "{bytes} bytes of {local:?}");
                    local.ready -= bytes;
                    bytes
                }
            };
            assert_eq!(declared, head.len() as u64 - header_bytes + behind, "a head that lies");
        }
    }

    fn tick(&mut self) {
        let Some(at) = self.session.next_timeout().filter(|&at| at <= self.now) else { return };
        assert!(at <= self.now);
        if self.session.on_time(self.now).is_err() {
            self.over = true;
            return;
        }
        self.pings += 1;
        let next = self.session.next_timeout();
        assert!(next.is_none_or(|at| at > self.now), "a timer that does not move");
    }

    fn check(&self) {
        // Queued frames follow from received frames and from our own timers.
        let said = self.ports.said + self.entrances.said;
        let bound = 2 * self.fed + self.pings + self.locals.len() + said + 4;
        assert!(self.session.control_backlog() <= bound);
        let alive = self.locals.iter().filter(|local| !local.ended).count();
        assert_eq!(self.session.stream_count(), alive);
        // A broken tunnel has no obligations.
        let over = self.over;
        for local in self.locals.iter().filter(|local| !over && !local.ended && !local.gone) {
            let Some(w) = self.session.windows(local.key) else { continue };
            assert_eq!(w.backlog_bytes, local.waiting);
            let parts = w.allowance_bytes + w.backlog_bytes + w.unreported_bytes;
            assert!(self.protocol == Protocol::V03 || parts == w.window_bytes, "{w:?}");
        }
        assert!(self.session.extra_window_bytes() <= WINDOW_BUDGET_BYTES);
        let waiting = |local: &&Local| local.datagrams && !local.ended && !local.gone;
        let held_bytes: u64 = self.locals.iter().filter(waiting).map(|local| local.ready).sum();
        let cost_bytes = self.session.datagram_cost_bytes();
        assert!((held_bytes..=DATAGRAM_QUEUE_BYTES).contains(&cost_bytes));
        let link = self.session.link_counts();
        // Many unreported bytes are reported soon.
        let soon = self.now.after(Duration::from_micros(LINK_ACK_RUNS_MICROS));
        let most_bytes = match link.report_at {
            Some(at) if at <= soon => LINK_ACK_RUNS_BYTES,
            _ => LINK_ACK_BYTES,
        };
        let told = link.received_bytes - link.reported_bytes < most_bytes;
        assert!(link.consumed_bytes <= link.sent_bytes && told, "{link:?}");
        let counters = self.session.counters();
        let v1 = self.protocol == Protocol::V1;
        assert!(!v1 || link.sent_bytes == counters.payload_bytes_out, "{link:?}");
        let read_bytes = counters.payload_bytes_in + counters.discarded_bytes;
        assert!(!v1 || self.over || link.received_bytes <= read_bytes, "{link:?}");
        let counters = self.session.counters();
        assert!(counters.frames_out == self.sent as u64);
        assert!(counters.opened + counters.accepted >= self.session.stream_count() as u64);
    }

    /// Sends all that can be sent, and checks that each stream that has not ended is known.
    fn drain(mut self) {
        if !self.over {
            self.transmit(usize::MAX);
            self.take_events();
            self.check();
            assert_eq!(self.session.control_backlog(), 0);
            assert!(self.session.poll_event().is_none());
        } else {
            self.take_events();
        }
        for (user, local) in self.locals.iter().enumerate() {
            let expected = (!local.ended).then_some(user as u64);
            assert_eq!(self.session.user_of(local.key), expected);
        }
    }
}
