//! A session that plays one side of a recording, against the recorded packets of the other.

use std::collections::HashMap;
use std::net::SocketAddr;

use sockmux_uring::session::{
    Ended, Event, Moment, Session, SessionConfig, Sink, StreamKey, Transmit, TunnelError,
};
use sockmux_uring::wire::{DecodeStep, Decoder, Protocol};

use crate::testkit::recording::{NO_ID, Packet, kind};

/// A local socket: the data it has to send, and the events it has received.
#[derive(Debug, Default)]
pub(crate) struct Local {
    key: Option<StreamKey>,
    to_say: Vec<u8>,
    /// Bytes that did not fit into CONNECT.
    pub(crate) said_later: usize,
    pub(crate) heard: Vec<u8>,
    pub(crate) heard_urgent: Vec<u8>,
    taken: usize,
    pub(crate) opened: bool,
    pub(crate) ended: Option<Ended>,
}

/// The session and its local sockets; ids of the recording are translated both ways.
pub(crate) struct Player {
    pub(crate) session: Session,
    decoder: Decoder,
    sink: Sink,
    pub(crate) now: Moment,
    /// All packets sent by the session, with the ids of the recording.
    pub(crate) sent: Vec<Packet>,
    pub(crate) locals: Vec<Local>,
    /// Streams by the id of our side in the recording, and the translation of that id.
    by_recorded: HashMap<u16, usize>,
    ours: HashMap<u16, u16>,
    recorded: HashMap<u16, u16>,
    /// Streams that wait for an exit, by the peer's id.
    incoming: HashMap<u16, usize>,
    /// The recording's id of the stream being opened.
    beginning: Option<u16>,
    /// A new read starts at every n-th byte; 0: whole packets.
    piece: usize,
    /// The streams carry datagrams.
    datagrams: bool,
}

/// Reason for ending a stream of datagrams.
pub(crate) const IDLE: &str = "idle";

impl Player {
    pub(crate) fn new(config: SessionConfig, now: Moment, piece: usize) -> Player {
        let mut player = Player {
            decoder: Decoder::new(config.offer.map_or(0, |offer| offer.newest)),
            session: Session::new(config, now),
            sink: Sink::Discard,
            now,
            sent: Vec::new(),
            locals: Vec::new(),
            by_recorded: HashMap::new(),
            ours: HashMap::new(),
            recorded: HashMap::new(),
            incoming: HashMap::new(),
            beginning: None,
            piece,
            datagrams: false,
        };
        player.pump();
        player
    }

    /// Makes all further streams carry datagrams.
    pub(crate) fn set_datagrams(&mut self) {
        self.datagrams = true;
    }

    /// Advances the clock, and runs each timer of the session on the way.
    pub(crate) fn advance(&mut self, to: Moment) -> Result<(), TunnelError> {
        while let Some(at) = self.session.next_timeout().filter(|&at| at <= to) {
            self.now = self.now.max(at);
            self.session.on_time(self.now)?;
            self.pump();
        }
        self.now = self.now.max(to);
        Ok(())
    }

    /// Feeds a packet of the recorded peer.
    pub(crate) fn feed(&mut self, packet: &Packet) -> Result<(), TunnelError> {
        let mut packet = packet.clone();
        if packet.is_of_stream() && packet.raid != NO_ID {
            packet.raid = *self.ours.get(&packet.raid).unwrap_or_else(|| panic!("{packet:?}"));
        }
        if packet.kind == kind::CLOSED && packet.raid != NO_ID {
            self.wait_for_close(packet.said)?;
        }
        let bytes = packet.bytes();
        let piece = if self.piece == 0 { bytes.len() } else { self.piece };
        for input in bytes.chunks(piece) {
            self.read(input, packet.said)?;
        }
        self.pump();
        Ok(())
    }

    /// The recorded side has sent CLOSE; ours may hold its CLOSE back for a while.
    fn wait_for_close(&mut self, peer_id: u16) -> Result<(), TunnelError> {
        let closed = |packet: &Packet| packet.kind == kind::CLOSE && packet.raid == peer_id;
        while !self.sent.iter().any(closed) {
            let next = self.session.next_timeout().expect("a CLOSE that is held back has its time");
            self.advance(next)?;
        }
        Ok(())
    }

    fn read(&mut self, mut input: &[u8], peer_id: u16) -> Result<(), TunnelError> {
        self.session.received(self.now);
        loop {
            let (n, step) = self.decoder.step(input)?;
            match step {
                DecodeStep::Frame(frame) => {
                    self.sink = self.session.on_frame(frame, self.now)?;
                    self.take_events(peer_id);
                }
                DecodeStep::Payload => self.deliver(&input[..n]),
                DecodeStep::More => return Ok(()),
            }
            input = &input[n..];
        }
    }

    fn deliver(&mut self, bytes: &[u8]) {
        let (key, urgent) = match self.sink {
            Sink::Stream(key) => (key, false),
            Sink::Urgent(key) => (key, true),
            Sink::Discard => return,
            Sink::Datagrams { .. } => panic!("the original speaks 0.3"),
        };
        let local = self.locals.iter_mut().find(|local| local.key == Some(key));
        let local = local.expect("a stream that is known");
        let heard = if urgent { &mut local.heard_urgent } else { &mut local.heard };
        heard.extend_from_slice(bytes);
    }

    fn take_events(&mut self, peer_id: u16) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::PortAsked { .. }
                | Event::PortClosed { .. }
                | Event::PortGiven { .. }
                | Event::EntranceAsked { .. }
                | Event::EntranceAnswered { .. } => {
                    unreachable!("0.3 knows neither ports nor entrances on request")
                }
                Event::Incoming { key, client, entrance, .. } => {
                    assert!(client.is_some() && entrance.is_some());
                    let user = self.locals.len();
                    self.locals.push(Local { key: Some(key), ..Local::default() });
                    self.incoming.insert(peer_id, user);
                    match self.datagrams {
                        true => self.session.attach_datagrams(key, user as u64),
                        false => self.session.attach(key, user as u64),
                    }
                }
                Event::Opened { user } => self.locals[user as usize].opened = true,
                Event::Ended { user, how } => {
                    let local = &mut self.locals[user as usize];
                    local.key = None;
                    local.ended = Some(how);
                }
                Event::Up { protocol, .. } => assert_eq!(protocol, Protocol::V03),
                Event::ReadMore { .. } => {}
                Event::EndOfData { .. }
                | Event::GoingAway
                | Event::TakeUp { .. }
                | Event::Doubted => {
                    panic!("the original knows no {event:?}")
                }
            }
        }
    }

    fn pump(&mut self) {
        let mut head = Vec::new();
        while let Some(transmit) = self.session.poll_transmit(&mut head, true) {
            match transmit {
                Transmit::Control | Transmit::Unkept => {}
                Transmit::Data { user, bytes, .. } | Transmit::Datagrams { user, bytes, .. } => {
                    head.extend(self.locals[user as usize].to_say.drain(..bytes as usize));
                }
                Transmit::Urgent { byte } => head.push(byte),
            }
            let mut packet = Packet::parse(&head);
            head.clear();
            if let Some(recorded) = self.beginning.take_if(|_| packet.kind & 0x3f == kind::CONNECT)
            {
                self.ours.insert(recorded, packet.said);
                self.recorded.insert(packet.said, recorded);
            }
            if packet.is_of_stream() && packet.said != NO_ID {
                packet.said = self.recorded[&packet.said];
            }
            self.sent.push(packet);
        }
        self.take_events(NO_ID);
    }

    /// Performs the local action that made the recorded side send `packet`.
    pub(crate) fn act(&mut self, packet: &Packet) {
        let user = self.by_recorded.get(&packet.said).copied();
        match packet.kind {
            kind::CONNECT => {
                let (client, entrance) = addresses(packet);
                let user = self.locals.len();
                let opened = match self.datagrams {
                    true => self.session.open_datagrams(user as u64, client, entrance),
                    false => self.session.open(user as u64, client, entrance),
                };
                let key = opened.expect("a stream");
                self.locals.push(Local { key: Some(key), ..Local::default() });
                self.say(user, packet.behind_text());
                self.begin(packet.said, user);
                self.locals[user].said_later = self.locals[user].to_say.len();
            }
            kind::CONNECTED => {
                let user = self.incoming.remove(&packet.raid).expect("it came in");
                let (server, own) = addresses(packet);
                let key = self.key(user);
                self.session.accept(key, server, own);
                self.say(user, packet.behind_text());
                self.begin(packet.said, user);
            }
            kind::CLOSE if packet.said == NO_ID => {
                let user = self.incoming.remove(&packet.raid).expect("it came in");
                let key = self.key(user);
                self.session.refuse(key, "connection refused", true);
            }
            kind::SEND => self.say(user.expect("a stream"), &packet.payload),
            kind::SENT => self.take(user.expect("a stream"), packet.count() as usize),
            kind::SEND_OOB => {
                let key = self.key(user.expect("a stream"));
                self.session.urgent(key, packet.payload[0]);
            }
            kind::CLOSE => {
                let key = self.key(user.expect("a stream"));
                match self.datagrams {
                    true => assert!(!self.session.local_reset(key, IDLE)),
                    false => self.session.data_end(key, self.now),
                }
            }
            _ => {}
        }
        self.pump();
    }

    fn key(&self, user: usize) -> StreamKey {
        self.locals[user].key.expect("a stream that lives")
    }

    fn begin(&mut self, recorded: u16, user: usize) {
        self.by_recorded.insert(recorded, user);
        self.beginning = Some(recorded);
        self.pump();
        assert!(self.beginning.is_none(), "no packet began the stream");
    }

    fn say(&mut self, user: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let key = self.key(user);
        self.locals[user].to_say.extend_from_slice(bytes);
        let count = bytes.len() as u32;
        if self.datagrams {
            let queued = self.session.datagrams_ready(key, count, count, self.now);
            assert!(queued.taken && queued.dropped == 0, "{queued:?}");
        } else {
            self.session.data_ready(key, u64::from(count));
        }
    }

    /// The local socket accepts the bytes that SENT reports, and all first data before.
    fn take(&mut self, user: usize, counted: usize) {
        let local = &mut self.locals[user];
        let waiting = local.heard.len() - local.taken;
        assert!(waiting >= counted, "{waiting} bytes wait, {counted} were taken");
        local.taken += counted;
        if let Some(key) = local.key {
            self.session.consumed(key, counted as u64, self.now);
        }
    }

    /// First data is accepted at once, without SENT.
    pub(crate) fn take_first(&mut self) {
        let Some(user) = self.locals.iter().position(|local| local.heard.len() > local.taken)
        else {
            return;
        };
        let bytes = self.locals[user].heard.len() - self.locals[user].taken;
        self.take(user, bytes);
        self.pump();
    }
}

fn addresses(packet: &Packet) -> (SocketAddr, SocketAddr) {
    let mut words = packet.text().split(' ').skip(1);
    let mut next = || words.next().and_then(|word| word.parse().ok()).expect("an address");
    (next(), next())
}
