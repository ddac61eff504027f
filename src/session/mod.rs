//! One tunnel as a pure state machine: hello, streams, windows, fairness, liveness.
//!
//! The session sees payload as counts, never as bytes, and holds no descriptor, clock or
//! randomness. The same machine serves every engine, and a simulation drives two of them under
//! virtual time.
//!
//! Inputs: a frame ([`Session::on_frame`]), bytes ready to send ([`Session::data_ready`]), bytes
//! consumed by the local socket ([`Session::consumed`]), the time ([`Session::on_time`]).
//! Outputs: what to write next ([`Session::poll_transmit`]), events ([`Session::poll_event`]), and
//! the next deadline ([`Session::next_timeout`]).
#![warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

mod close;
mod config;
mod control;
mod datagrams;
mod entrances;
mod error;
mod event;
mod hold;
mod lane;
mod link_window;
mod liveness;
mod local;
mod peer;
mod ports;
mod receive;
mod rest;
mod runs;
mod send_rule;
mod stream;
mod transmit;
mod turns;
mod window;

pub use config::SessionConfig;
pub use datagrams::Queued;
pub use entrances::EntranceAnswer;
pub use error::{OpenError, TunnelError};
pub use event::{Ended, Event, Related, Sink, Transmit};
#[doc(hidden)]
pub use link_window::LinkCounts;
pub use rest::Rest;
pub use stream::StreamKey;
#[doc(hidden)]
pub use window::Windows;

use crate::limits;
use crate::narrow;
pub(crate) use crate::wire::NO_ADDRESS;
use crate::wire::v03::{self, Offer};
use crate::wire::{Encoder, Protocol, Route};
use close::Refusals;
use control::{ControlQueue, HelloFrame};
use entrances::Entrances;
use lane::Place;
use link_window::LinkWindow;
use liveness::Liveness;
use peer::Peer;
use send_rule::SendRule;
use stream::{Numbering, Stream, Streams};
use transmit::Queues;
use turns::Turns;

/// A point in time, in microseconds since an epoch that the caller chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// This moment plus `duration`.
    #[must_use]
    pub fn after(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(narrow::micros(duration)))
    }
}

/// Progress of the hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Hello {
    /// The peer's HELLO was received.
    greeted: bool,
    /// The peer has answered our HELLO.
    answered: bool,
    /// Packets of ours that are sent or queued; HELLO is the first.
    packets_out: u8,
    /// The peer's takes up a lane, and whether that is so is not decided yet: ours is to say it.
    undecided: bool,
}

impl Hello {
    fn is_done(self) -> bool {
        self.greeted && self.answered
    }

    fn is_said(self) -> bool {
        self.packets_out > 0
    }
}

/// Counts since the start of the session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionCounters {
    /// Frames received, of every kind.
    pub frames_in: u64,
    /// Frames handed out to be sent.
    pub frames_out: u64,
    /// Payload bytes received for streams that exist.
    pub payload_bytes_in: u64,
    /// Payload bytes handed out to be sent.
    pub payload_bytes_out: u64,
    /// Payload bytes received for streams that do not exist.
    pub discarded_bytes: u64,
    /// Frames of unknown type or option, ignored.
    pub ignored_frames: u64,
    /// Frames that do not suit their stream: data for a datagram stream or the reverse, and answers
    /// about ports and entrances that were not requested.
    pub unsuited_frames: u64,
    /// Frames for an id that no stream has.
    pub unknown_ids: u64,
    /// Calls with the key of a stream that has ended.
    pub stale_keys: u64,
    /// Streams opened here.
    pub opened: u64,
    /// Streams opened by the peer.
    pub accepted: u64,
}

/// What a stream is, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamFacts {
    /// It was opened here.
    pub is_opener: bool,
    /// At the opener: client and entrance. At the other end: server and own address, once it is reached.
    pub addresses: (SocketAddr, SocketAddr),
    /// Payload received.
    pub payload_bytes_in: u64,
    /// Payload handed out to be sent.
    pub payload_bytes_out: u64,
}

/// The state of one tunnel.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    peer: Peer,
    protocol: Protocol,
    hello: Hello,
    streams: Streams,
    queues: Queues,
    turns: Turns,
    outbox: ControlQueue,
    events: VecDeque<Event>,
    liveness: Liveness,
    /// Streams whose CLOSE is held.
    holds: Vec<StreamKey>,
    /// Towards an original: refusals that it has not acknowledged.
    refusals: Refusals,
    /// Those asked for at the other end, and those that the peer has asked for here.
    entrances: Entrances,
    /// Reason for refusing new streams of the peer, once they are refused.
    refusing: Option<&'static str>,
    /// The same, while a peer of ours has not answered the ping behind GOING_AWAY.
    leaving: Option<&'static str>,
    /// The peer accepts no new streams any more.
    peer_leaves: bool,
    /// Ids of the peer's ping that asks whether we know. It is answered behind the streams already
    /// opened here, which the peer still accepts.
    farewell_asked: Option<(u16, u16)>,
    /// SockMux 1: total of the windows beyond each stream's first window, in bytes.
    extra_window_bytes: u64,
    link_window: LinkWindow,
    place: Place,
    /// The connection broke, and another one is to come.
    is_suspended: bool,
    /// Memory accounted to all queued datagrams, in bytes.
    datagram_cost_bytes: u64,
    counters: SessionCounters,
}

impl Session {
    /// A session at the start of a connection, with its hello queued unless it is to answer the peer's.
    pub fn new(config: SessionConfig, now: Moment) -> Session {
        let mut session = Session {
            peer: Peer {
                offer: None,
                lane: None,
                packet_bytes: v03::PACKET_BYTES_UNSAID.min(config.packet_bytes),
                packet_size_said: false,
                first_data: false,
            },
            protocol: Protocol::V03,
            hello: Hello::default(),
            streams: Streams::default(),
            queues: Queues::default(),
            turns: Turns::default(),
            outbox: ControlQueue::default(),
            events: VecDeque::new(),
            liveness: Liveness::new(&config, now),
            holds: Vec::new(),
            refusals: Refusals::default(),
            entrances: Entrances::default(),
            refusing: None,
            leaving: None,
            peer_leaves: false,
            farewell_asked: None,
            extra_window_bytes: 0,
            link_window: LinkWindow::default(),
            place: Place::default(),
            is_suspended: false,
            datagram_cost_bytes: 0,
            counters: SessionCounters::default(),
            config,
        };
        if !session.config.answers_hello {
            session.say_hello();
        }
        session
    }

    fn say_hello(&mut self) {
        self.hello.packets_out += 1;
        self.outbox.push_hello(HelloFrame::Hello);
    }

    fn say_hello_ok(&mut self, ids: (u16, u16)) {
        self.hello.packets_out += 1;
        self.outbox.push_hello(HelloFrame::HelloOk(ids));
    }

    /// Returns the next event, oldest first.
    #[inline]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The hello is complete and streams may be opened.
    pub fn is_up(&self) -> bool {
        self.hello.is_done()
    }

    /// The peer has begun its hello.
    pub fn is_greeted(&self) -> bool {
        self.hello.greeted
    }

    /// The peer is sockmux-uring as well.
    pub fn peer_is_ours(&self) -> bool {
        self.peer.offer.is_some()
    }

    /// The negotiated protocol, valid once the hello is complete.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Number of streams, including those that are closing.
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// Most streams that may exist at once towards this peer.
    pub fn streams_max(&self) -> u32 {
        self.peer.streams_max()
    }

    /// Counts so far.
    pub fn counters(&self) -> &SessionCounters {
        &self.counters
    }

    /// Refuses new streams of the peer with this reason. An original is refused at once. A peer of
    /// ours is notified first, and streams that it opened before it knew are still accepted.
    pub fn refuse_new(&mut self, reason: &'static str) {
        match self.peer_is_ours() {
            _ if self.leaving.is_some() || self.refusing.is_some() => {}
            false => self.refusing = Some(reason),
            true => {
                self.leaving = Some(reason);
                self.outbox.push(control::ControlFrame::GoingAway(reason));
                self.outbox.push(control::ControlFrame::Farewell);
            }
        }
    }

    /// GOING_AWAY was sent, and the peer has not shown yet that it knows.
    pub fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// The peer has sent GOING_AWAY.
    pub fn peer_is_leaving(&self) -> bool {
        self.peer_leaves
    }

    /// The engine's own number of a stream.
    #[inline]
    pub fn user_of(&self, key: StreamKey) -> Option<u64> {
        self.streams.get(key)?.user
    }

    /// The engine's own numbers of all streams that it knows of, and of those whose end it has not
    /// learnt of.
    pub fn users(&self) -> impl Iterator<Item = u64> {
        let ended = self.events.iter().filter_map(|event| match *event {
            Event::Ended { user, .. } => Some(user),
            _ => None,
        });
        self.streams.iter().filter_map(|stream| stream.user).chain(ended)
    }

    /// Addresses and counts of a stream: at its opener the client and the entrance, at the other end the
    /// server and its own side; payload received, and handed out to be sent (not of datagrams).
    pub fn facts_of(&self, key: StreamKey) -> Option<StreamFacts> {
        let stream = self.streams.get(key)?;
        Some(StreamFacts {
            is_opener: stream.opener,
            addresses: stream.addresses,
            payload_bytes_in: stream.payload_bytes_in,
            payload_bytes_out: stream.payload_bytes_out,
        })
    }

    fn encoder(&self) -> Encoder {
        Encoder(self.protocol)
    }

    /// How to number a stream that is opened here, or by the peer under the number given.
    fn numbering(&self, theirs: Option<u32>) -> Numbering {
        match (self.protocol, theirs) {
            (Protocol::V03, _) => Numbering::UpTo(self.peer.id_max()),
            (Protocol::V1, None) => Numbering::Ours,
            (Protocol::V1, Some(number)) => Numbering::Theirs(number),
        }
    }

    /// Initial window of our streams in SockMux 1.
    fn first_window_bytes(&self) -> u64 {
        first_window_bytes(self.config.offer)
    }

    /// The peer understands the end of our data apart from the end of the stream.
    fn half_close(&self) -> bool {
        self.protocol == Protocol::V1 || self.peer.half_close()
    }

    /// Most payload bytes of one frame.
    fn payload_max(&self) -> u64 {
        match self.protocol {
            Protocol::V03 => self.peer.payload_max(),
            Protocol::V1 => limits::FRAME_BYTES,
        }
    }

    /// Most stream bytes in one frame of ours. Datagrams are never split and follow
    /// [`Session::payload_max`].
    fn data_max(&self) -> u64 {
        self.payload_max().min(self.config.frame_bytes_max.max(1))
    }

    /// Largest datagram that 0.3 carries, or that a run of SockMux 1 carries. The peer reports its
    /// packet size just after the hello; until then the largest is assumed, since every peer
    /// accepts it.
    fn datagram_max(&self) -> u64 {
        match self.protocol {
            Protocol::V03 if !self.peer.packet_size_said => {
                u64::from(self.config.packet_bytes) - v03::HEADER_BYTES as u64
            }
            _ => self.payload_max(),
        }
    }

    /// Limit of the bytes that the peer may have sent of a stream and the local socket has not
    /// consumed.
    fn backlog_limit(&self) -> u64 {
        // Allowed beyond the window: first data, which is not counted, and one packet that crosses
        // the limit.
        let slack = 2 * u64::from(v03::PAYLOAD_BYTES_MAX);
        match self.peer.offer.and(self.config.offer) {
            // The peer raises a smaller offer to this minimum, see `Peer::send_limit`.
            Some(offer) => u64::from(offer.window_bytes.max(limits::PEER_WINDOW_BYTES_MIN)) + slack,
            None => u64::from(v03::STREAM_BUFFER_BYTES) + slack,
        }
    }
}

/// Initial window of a stream in SockMux 1, towards a side that made this offer. Both sides compute
/// the same value.
fn first_window_bytes(offer: Option<Offer>) -> u64 {
    let offered = offer.map_or(0, |offer| offer.window_bytes);
    u64::from(offered.clamp(limits::PEER_WINDOW_BYTES_MIN, limits::FIRST_WINDOW_BYTES))
}

impl Stream {
    /// The stream's number on the wire; `None` until the peer's number is known.
    #[inline]
    fn route(&self, protocol: Protocol) -> Option<Route> {
        let unknown = u32::from(v03::NO_ID);
        let known = self.peer_id.is_some() || (protocol == Protocol::V1 && self.opener);
        let peer_id = self.peer_id.unwrap_or(unknown);
        known.then_some(Route { id: self.id, peer_id, opener: self.opener })
    }
}
