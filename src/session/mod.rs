//! One tunnel as a pure state machine: hello, streams, windows, fairness, liveness.
//!
//! It sees payload as counts, never as bytes, and holds no descriptor, clock or randomness: the
//! same machine serves every engine, and a simulation drives two of them under virtual time.
//!
//! In: a frame ([`Session::on_frame`]), "stream k has n more bytes" ([`Session::data_ready`]),
//! "stream k took n bytes" ([`Session::consumed`]), "it is now t" ([`Session::on_time`]).
//! Out: what to write next ([`Session::poll_transmit`]), what happened ([`Session::poll_event`]),
//! when to be woken ([`Session::next_timeout`]).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

mod close;
mod datagrams;
mod error;
mod event;
mod hold;
mod link_window;
mod liveness;
mod local;
mod ports;
mod receive;
mod rest;
mod runs;
mod stream;
mod transmit;
mod turns;
mod window;

pub use datagrams::Queued;
pub use error::{OpenError, TunnelError};
pub use event::{Ended, Event, Related, Sink, Transmit};
#[doc(hidden)]
pub use link_window::LinkCounts;
pub use rest::Rest;
pub use stream::StreamKey;
#[doc(hidden)]
pub use window::Windows;

use crate::limits;
use crate::wire::v03::{self, Offer};
use crate::wire::{Encoder, Protocol, Route};
use close::Refusals;
use link_window::LinkWindow;
use liveness::Liveness;
use stream::{Numbering, Stream, Streams};
use transmit::{Outbox, Queues};
use turns::Turns;

/// A point in time: microseconds since a beginning that the caller chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// This much later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Moment {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Moment(self.0.saturating_add(micros))
    }
}

/// What a session needs to know before its first byte.
#[derive(Debug, Clone)]
pub struct Config {
    /// Our text in the hello, see [`v03::hello_text`].
    pub hello_text: String,
    /// The largest packet that we take, header included, in bytes.
    pub packet_bytes: u16,
    /// First data may ride in CONNECT and CONNECTED.
    pub first_data: bool,
    /// Stream bytes that one frame of ours carries at most. Behind a frame that has begun all others
    /// wait: on a slow link it is to be short.
    pub frame_bytes_max: u64,
    /// What we offer to a peer of our kind; `None` speaks as the original does.
    pub offer: Option<Offer>,
    /// Longest wait for the peer's hello.
    pub hello_timeout: Option<Duration>,
    /// The peer may come at any time: nothing is timed before its first byte.
    pub awaits_peer: bool,
    /// The peer has no more to say than HELLOOK: an original says HELLO once, when it opens its device,
    /// and we may not have been there to hear it.
    pub answer_suffices: bool,
    /// Silence after which ECHO is sent.
    pub keepalive: Option<Duration>,
    /// How long CLOSE is held back after end of data towards a peer that knows no half-close.
    pub linger: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            hello_text: String::from("20260101-000000.000000 localhost"),
            packet_bytes: v03::PACKET_BYTES_MAX,
            first_data: true,
            frame_bytes_max: limits::FRAME_BYTES,
            offer: Some(Offer {
                newest: 1,
                half_close: true,
                datagrams: true,
                checked_line: false,
                ports: true,
                window_bytes: limits::WINDOW_BYTES,
                streams_max: limits::STREAMS_MAX,
            }),
            hello_timeout: Some(Duration::from_secs(15)),
            awaits_peer: false,
            answer_suffices: false,
            keepalive: Some(Duration::from_secs(30)),
            linger: Some(Duration::from_secs(30)),
        }
    }
}

/// What is known of the peer.
#[derive(Debug, Clone, Copy)]
struct Peer {
    /// Its offer, if it is one of ours and we made one too.
    offer: Option<Offer>,
    /// Largest packet that it takes, header included, in bytes: what is assumed until it has said.
    packet_bytes: u16,
    /// It has said so.
    packet_size_said: bool,
    /// It takes first data in CONNECT and CONNECTED.
    first_data: bool,
}

impl Peer {
    fn payload_max(&self) -> u64 {
        u64::from(self.packet_bytes) - v03::HEADER_BYTES as u64
    }

    /// A stream may send while not more than this many of its bytes are unacknowledged.
    fn send_limit(&self) -> u64 {
        match self.offer {
            Some(offer) => {
                let window = offer
                    .window_bytes
                    .clamp(limits::PEER_WINDOW_BYTES_MIN, limits::PEER_WINDOW_BYTES_MAX);
                u64::from(window) - self.payload_max()
            }
            None => limits::ORIGINAL_WINDOW_PACKETS * u64::from(self.packet_bytes),
        }
    }

    fn streams_max(&self) -> u32 {
        match self.offer {
            Some(offer) => offer.streams_max.min(limits::STREAMS_MAX),
            None => limits::ORIGINAL_STREAMS_MAX,
        }
    }

    fn id_max(&self) -> u32 {
        match self.offer {
            Some(_) => limits::STREAM_ID_FIRST + limits::STREAMS_MAX * limits::ID_REUSE_DISTANCE,
            None => limits::ORIGINAL_ID_MAX,
        }
    }

    fn datagrams(&self) -> bool {
        self.offer.is_some_and(|offer| offer.datagrams)
    }

    fn ports(&self) -> bool {
        self.offer.is_some_and(|offer| offer.ports)
    }

    fn half_close(&self) -> bool {
        self.offer.is_some_and(|offer| offer.half_close)
    }
}

/// How far the hello is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Hello {
    /// The peer's HELLO has come.
    greeted: bool,
    /// The peer has answered ours.
    answered: bool,
}

impl Hello {
    fn is_done(self) -> bool {
        self.greeted && self.answered
    }
}

/// Counts since the beginning of the session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames received, of every kind.
    pub frames_in: u64,
    /// Frames given out to be sent.
    pub frames_out: u64,
    /// Payload bytes announced by the peer for streams that exist.
    pub payload_bytes_in: u64,
    /// Payload bytes given out to be sent.
    pub payload_bytes_out: u64,
    /// Payload bytes for streams that do not exist.
    pub discarded_bytes: u64,
    /// Frames of unknown type or option, passed over.
    pub ignored_frames: u64,
    /// Frames that a stream of its kind does not have: data to one that carries datagrams, or the
    /// other way round; and answers about ports that nobody asked for.
    pub unsuited_frames: u64,
    /// Frames to an id that no stream has.
    pub unknown_ids: u64,
    /// Calls with the key of a stream that has ended.
    pub stale_keys: u64,
    /// Streams that began at this end.
    pub opened: u64,
    /// Streams that began at the peer.
    pub accepted: u64,
}

/// One tunnel.
#[derive(Debug)]
pub struct Session {
    config: Config,
    peer: Peer,
    protocol: Protocol,
    hello: Hello,
    streams: Streams,
    queues: Queues,
    turns: Turns,
    outbox: Outbox,
    events: VecDeque<Event>,
    liveness: Liveness,
    /// Streams whose CLOSE is held back.
    holds: Vec<StreamKey>,
    /// Towards an original: refusals that it has not answered.
    refusals: Refusals,
    /// Why streams from the peer are refused, once they are.
    refusing: Option<&'static str>,
    /// Why they will be, once a peer of ours has answered the ping behind GOING_AWAY.
    leaving: Option<&'static str>,
    /// The peer takes no new streams any more.
    peer_leaves: bool,
    /// It has asked whether we know, by a ping with these ids. The answer goes out behind the streams
    /// that have begun here, which it still takes.
    farewell_asked: Option<(u16, u16)>,
    /// SockMux 1: what streams have beyond their first window, in bytes.
    extra_window_bytes: u64,
    link_window: LinkWindow,
    /// What all datagrams that wait cost, in bytes.
    datagram_cost_bytes: u64,
    counters: Counters,
}

impl Session {
    /// A session at the beginning of a connection. Both sides are alike; the hello waits to be
    /// transmitted.
    pub fn new(config: Config, now: Moment) -> Session {
        let mut outbox = Outbox::default();
        outbox.push(transmit::Control::Hello);
        Session {
            peer: Peer {
                offer: None,
                packet_bytes: v03::PACKET_BYTES_UNSAID.min(config.packet_bytes),
                packet_size_said: false,
                first_data: false,
            },
            protocol: Protocol::V03,
            hello: Hello::default(),
            streams: Streams::default(),
            queues: Queues::default(),
            turns: Turns::default(),
            outbox,
            events: VecDeque::new(),
            liveness: Liveness::new(&config, now),
            holds: Vec::new(),
            refusals: Refusals::default(),
            refusing: None,
            leaving: None,
            peer_leaves: false,
            farewell_asked: None,
            extra_window_bytes: 0,
            link_window: LinkWindow::default(),
            datagram_cost_bytes: 0,
            counters: Counters::default(),
            config,
        }
    }

    /// What happened since the last call, oldest first.
    #[inline]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The hello is done and streams may begin.
    pub fn is_up(&self) -> bool {
        self.hello.is_done()
    }

    /// The peer is one of ours.
    pub fn peer_is_ours(&self) -> bool {
        self.peer.offer.is_some()
    }

    /// The protocol that is spoken, once the hello is done.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Streams that exist, those that are ending counted.
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// Streams that may exist at once towards this peer.
    pub fn streams_max(&self) -> u32 {
        self.peer.streams_max()
    }

    /// Counts so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Streams from the peer are refused, for this reason: an original's at once. One of ours is told,
    /// and what it opened before it knew is still taken.
    pub fn refuse_new(&mut self, reason: &'static str) {
        match self.peer_is_ours() {
            _ if self.leaving.is_some() || self.refusing.is_some() => {}
            false => self.refusing = Some(reason),
            true => {
                self.leaving = Some(reason);
                self.outbox.push(transmit::Control::GoingAway(reason));
                self.outbox.push(transmit::Control::Farewell);
            }
        }
    }

    /// The peer has been told that we are going away, and has not shown that it knows.
    pub fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// The peer has told that it is going away.
    pub fn peer_is_leaving(&self) -> bool {
        self.peer_leaves
    }

    /// The engine's own number for a stream.
    #[inline]
    pub fn user_of(&self, key: StreamKey) -> Option<u64> {
        self.streams.get(key)?.user
    }

    fn encoder(&self) -> Encoder {
        Encoder(self.protocol)
    }

    /// How a stream that begins here, or at the peer under the number given, is numbered.
    fn numbering(&self, theirs: Option<u32>) -> Numbering {
        match (self.protocol, theirs) {
            (Protocol::V03, _) => Numbering::UpTo(self.peer.id_max()),
            (Protocol::V1, None) => Numbering::Ours,
            (Protocol::V1, Some(number)) => Numbering::Theirs(number),
        }
    }

    /// The window that our streams begin with in SockMux 1.
    fn first_window_bytes(&self) -> u64 {
        first_window_bytes(self.config.offer)
    }

    /// The peer can be told of the end of our data apart from the end of the stream.
    fn half_close(&self) -> bool {
        self.protocol == Protocol::V1 || self.peer.half_close()
    }

    /// Bytes of a stream that one frame may carry.
    fn payload_max(&self) -> u64 {
        match self.protocol {
            Protocol::V03 => self.peer.payload_max(),
            Protocol::V1 => limits::FRAME_BYTES,
        }
    }

    /// Stream bytes that one frame of ours carries. Datagrams are not cut, and follow
    /// [`Session::payload_max`].
    fn data_max(&self) -> u64 {
        self.payload_max().min(self.config.frame_bytes_max.max(1))
    }

    /// Bytes of a datagram that 0.3 may carry, or one that 1 does in a run. What a peer will say of
    /// its packets a moment after the hello is not waited for: each takes the largest.
    fn datagram_max(&self) -> u64 {
        match self.protocol {
            Protocol::V03 if !self.peer.packet_size_said => {
                u64::from(self.config.packet_bytes) - v03::HEADER_BYTES as u64
            }
            _ => self.payload_max(),
        }
    }

    /// Most bytes of one stream that the peer may have sent and our local socket not taken.
    fn backlog_limit(&self) -> u64 {
        // Beyond the window: first data, which is not counted, and the packet that goes over.
        let slack = 2 * u64::from(v03::PAYLOAD_BYTES_MAX);
        match self.peer.offer.and(self.config.offer) {
            // The peer reads a smaller offer as the least that there is, see `Peer::send_limit`.
            Some(offer) => u64::from(offer.window_bytes.max(limits::PEER_WINDOW_BYTES_MIN)) + slack,
            None => u64::from(v03::STREAM_BUFFER_BYTES) + slack,
        }
    }
}

/// The window that a stream begins with in SockMux 1, towards a side that made this offer: both
/// sides reckon it alike.
fn first_window_bytes(offer: Option<Offer>) -> u64 {
    let offered = offer.map_or(0, |offer| offer.window_bytes);
    u64::from(offered.clamp(limits::PEER_WINDOW_BYTES_MIN, limits::FIRST_WINDOW_BYTES))
}

/// What may be sent of one stream, by the rules of the protocol and of the peer.
#[derive(Debug, Clone, Copy)]
struct SendRule {
    protocol: Protocol,
    /// 0.3: unacknowledged bytes at which sending stops.
    limit: u64,
    /// Of a frame with datagrams, in bytes.
    payload_max: u64,
    /// Of a frame with bytes of a stream.
    data_max: u64,
}

impl SendRule {
    /// Bytes that a frame of this stream carries at most.
    #[inline]
    fn frame_max(&self, stream: &Stream) -> u64 {
        if stream.datagrams.is_some() { self.payload_max } else { self.data_max }
    }

    /// Bytes that one frame of the stream may carry now, of those it may send.
    #[inline]
    fn room(&self, stream: &Stream) -> u64 {
        match self.protocol {
            Protocol::V03 if stream.unacked_bytes > self.limit => 0,
            Protocol::V03 => self.frame_max(stream),
            // Datagrams are outside of the windows.
            Protocol::V1 if stream.datagrams.is_some() => self.payload_max,
            Protocol::V1 => stream.credit_bytes.min(self.data_max),
        }
    }

    /// Bytes that the stream may send before the peer takes or allows more.
    fn sendable(&self, stream: &Stream) -> u64 {
        match self.protocol {
            // As long as the limit is not passed another packet goes.
            Protocol::V03 => match self.limit.checked_sub(stream.unacked_bytes) {
                Some(left) => (left / self.frame_max(stream) + 1) * self.frame_max(stream),
                None => 0,
            },
            Protocol::V1 => stream.credit_bytes,
        }
    }

    /// Bytes that may be read ahead of what was sent.
    fn wants(&self, stream: &Stream) -> bool {
        match self.protocol {
            Protocol::V03 => stream.ready_bytes + stream.unacked_bytes <= self.limit,
            Protocol::V1 => stream.ready_bytes < stream.credit_bytes,
        }
    }

    /// Counts bytes as sent.
    #[inline]
    fn spend(&self, stream: &mut Stream, bytes: u64) {
        match self.protocol {
            Protocol::V03 => stream.unacked_bytes += bytes,
            Protocol::V1 => stream.credit_bytes -= bytes,
        }
    }
}

impl Session {
    fn send_rule(&self) -> SendRule {
        SendRule {
            protocol: self.protocol,
            limit: self.peer.send_limit(),
            payload_max: self.payload_max(),
            data_max: self.data_max(),
        }
    }
}

impl Stream {
    /// How the stream is called on the wire; `None` while the peer's number is to come.
    #[inline]
    fn route(&self, protocol: Protocol) -> Option<Route> {
        let unknown = u32::from(v03::NO_ID);
        let known = self.peer_id.is_some() || (protocol == Protocol::V1 && self.opener);
        let peer_id = self.peer_id.unwrap_or(unknown);
        known.then_some(Route { id: self.id, peer_id, opener: self.opener })
    }
}

/// The address that stands for "not known" in texts.
pub(crate) const NO_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);
