//! What a session is made with.

use std::time::Duration;

use crate::limits;
use crate::wire::v03::{self, LaneHello, Offer};

/// Settings of a session.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Our text in HELLO, which is sent to whoever is there: see [`v03::NO_HELLO_TEXT`].
    pub hello_text: String,
    /// Our text in HELLOOK, which only a peer that has spoken gets: see [`v03::hello_text`].
    pub answer_text: String,
    /// Largest packet that we accept, header included, in bytes.
    pub packet_bytes: u16,
    /// First data may be sent in CONNECT and CONNECTED.
    pub first_data: bool,
    /// Most stream bytes in one frame of ours. A frame that has begun delays all others, so this is
    /// small on slow links.
    pub frame_bytes_max: u64,
    /// Our offer to another sockmux-uring; `None` speaks the original protocol only.
    pub offer: Option<Offer>,
    /// What our hello says of lanes; `None`: the lane is over with its connection.
    pub lane: Option<LaneHello>,
    /// Longest wait for the peer's hello.
    pub hello_timeout: Option<Duration>,
    /// The peer may connect at any time: no timeout runs before its first byte.
    pub awaits_peer: bool,
    /// HELLOOK alone completes the hello. An original sends HELLO once, when it opens its device,
    /// which may have been before we opened ours.
    pub answer_suffices: bool,
    /// HELLO is sent when the peer has begun its own: what it says of this host is for peers alone.
    pub answers_hello: bool,
    /// SockMux 1: windows of all streams together beyond the first ones, at most, in bytes.
    pub window_budget_bytes: u64,
    /// Datagrams of all streams that wait for the connection, with what they are counted with, at most, in bytes.
    pub datagram_queue_bytes: u64,
    /// Silence after which ECHO is sent.
    pub keepalive: Option<Duration>,
    /// How long CLOSE is held after the end of data, towards a peer without half-close.
    pub linger: Option<Duration>,
}

impl Default for SessionConfig {
    fn default() -> Self {
        SessionConfig {
            hello_text: String::from(v03::NO_HELLO_TEXT),
            answer_text: String::from("20260101-000000.000000 localhost"),
            packet_bytes: v03::PACKET_BYTES_MAX,
            first_data: true,
            frame_bytes_max: limits::FRAME_BYTES,
            offer: Some(Offer {
                newest: 1,
                half_close: true,
                datagrams: true,
                checked_line: false,
                ports: true,
                entrances: true,
                window_bytes: limits::WINDOW_BYTES,
                streams_max: limits::STREAMS_MAX,
            }),
            lane: None,
            hello_timeout: Some(Duration::from_secs(15)),
            awaits_peer: false,
            answer_suffices: false,
            answers_hello: false,
            window_budget_bytes: limits::WINDOW_BUDGET_BYTES,
            datagram_queue_bytes: limits::DATAGRAM_QUEUE_BYTES,
            keepalive: Some(Duration::from_secs(30)),
            linger: Some(Duration::from_secs(30)),
        }
    }
}
